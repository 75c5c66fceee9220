"""Commands of the package in processes of their own."""

import json
import subprocess
import sys

_CODE = """
import importlib, json, sys
module = importlib.import_module(sys.argv[1])
try:
  code = module.main(sys.argv[2:])
except SystemExit as stop:
  code = stop.code
print()
print(json.dumps([code, sorted(sys.modules)]))
"""


def run_main(module: str, *arguments: str) -> tuple[int | None, set[str]]:
  """Run `main` of a module in a new process.

  Args:
    module: its name, such as 'sr3_jax.upscale.command'.
    *arguments: of the command.

  Returns:
    What `main` returned, or the status it ended with; and the names of all modules that
    were imported on the way.
  """
  done = subprocess.run(
    [sys.executable, '-c', _CODE, module, *arguments], capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  code, modules = json.loads(done.stdout.splitlines()[-1])
  return code, set(modules)
