"""Runs a module and kills itself at its n-th change of a folder.

    python -m tests.support.killed_writes FOLDER N MODULE ARGUMENT...

A change is a file that is opened for writing, a renaming, a removal or a new folder, in
FOLDER or below. When a file is opened, the kill comes a moment later, so that some of
the data may have arrived. With N = 0 nothing is killed. The number of changes so far is
the size of the file that $CHANGES names.
"""

import os
import pathlib
import runpy
import signal
import sys
import threading
import time

folder, at, module = os.path.abspath(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
count = 0


def kill(seconds: float = 0.0) -> None:
  time.sleep(seconds)
  os.kill(os.getpid(), signal.SIGKILL)


def hook(event: str, arguments: tuple) -> None:
  global count
  if event not in ('open', 'os.rename', 'os.remove', 'os.mkdir', 'os.rmdir'):
    return
  path, flags = arguments[0], arguments[2] if event == 'open' else os.O_WRONLY
  if isinstance(path, int) or not flags & (os.O_WRONLY | os.O_RDWR):
    return
  if not os.path.abspath(os.fsdecode(path)).startswith(folder):
    return
  count += 1
  if changes is not None:
    os.write(changes, b'.')
  if count == at and event == 'open':
    threading.Thread(target=kill, args=(at % 5 / 5000,), daemon=True).start()
  elif count == at:
    kill()


changes = None
if name := os.environ.get('CHANGES'):
  changes = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
sys.argv = sys.argv[3:]
sys.addaudithook(hook)
runpy.run_module(module, run_name='__main__', alter_sys=True)
