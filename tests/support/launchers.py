"""Runs launchers with stand-ins for the programs that they call."""

import dataclasses
import functools
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).parents[2]
LAUNCH = ROOT / 'launch'
TOOLS = (
  *('gcloud', 'kubectl', 'ssh', 'scp', 'rsync', 'nvidia-smi', 'hostname'),
  *('sinfo', 'squeue', 'sacct', 'sbatch', 'scancel', 'scontrol', 'srun'),
  *('python3', 'python3.11', 'python3.12', 'python3.13'),
)
GOOGLE = ['--project=my-project', '--zone=us-west4-a', '--workdir=gs://bucket/run']
# Options of each launcher in these tests. The name of the run is the default, sr3.
OPTIONS = {
  'tpu_vm': [*GOOGLE, '--type=v5litepod-8'],
  'tpu_slice': [*GOOGLE, '--type=v5litepod-16', '--spot'],
  'gke': [*GOOGLE, '--type=v5litepod-16', '--spot'],
  'gpu': ['--host=me@box', '--workdir=/data/run', '--topology=h100:8'],
  'slurm': ['--host=me@login', '--workdir=/data/run', '--topology=h100:8'],
}
# Calls that may fail without ending the launch.
TOLERATED = ('quotas info', 'worker.sh status', '/installed', 'kubectl logs')


@functools.cache
def _source() -> tempfile.TemporaryDirectory:
  """Copy the source of this repository without the models of the package.

  Every setup packs the source, which takes seconds with 25 MB of weights in it. The
  copy is deleted when the process ends.
  """
  folder = tempfile.TemporaryDirectory(prefix='sr3_jax_source_')
  for name in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE'):
    shutil.copy(ROOT / name, folder.name)
  ignore = shutil.ignore_patterns('__pycache__', 'models')
  for name in ('configs', 'launch', 'sr3_jax', 'tests/support'):
    shutil.copytree(ROOT / name, pathlib.Path(folder.name, name), ignore=ignore)
  return folder


@dataclasses.dataclass
class Launch:
  """One finished launch: its exit code, its output, and the calls that it made."""

  code: int
  out: str
  error: str
  calls: list[list[str]]

  @property
  def errors(self) -> list[str]:
    """Return the launcher's own lines on stderr."""
    return [x for x in self.error.splitlines() if x.startswith('error: ')]

  @property
  def shown(self) -> list[list[str]]:
    """Return the commands that it printed, as words."""
    lines = [x.removeprefix('+ ') for x in self.out.splitlines() if x.startswith('+ ')]
    return [shlex.split(x) for x in lines]

  def made(self, *words: str) -> list[list[str]]:
    """Return the calls that contain all these words."""
    return [x for x in self.calls if all(w in ' '.join(x) for w in words)]


class Stage:
  """A PATH of stand-ins, the folder of their state, and a home folder.

  Attributes:
    launch: folder of the launchers, in a copy of the source.
    fake: folder of the stand-ins' state.
    bin: folder of the stand-ins.
    environment: variables of the launchers.
  """

  def __init__(self, folder: pathlib.Path, workers: int = 1):
    self.launch = pathlib.Path(_source().name, 'launch')
    self.fake = folder / 'fake'
    self.fake.mkdir()
    self.bin = folder / 'bin'
    self.bin.mkdir()
    for tool in TOOLS:
      (self.bin / tool).symlink_to(ROOT / 'tests' / 'support' / 'launch_tools.sh')
    self.environment = {
      'PATH': f'{self.bin}:{os.environ["PATH"]}',
      'HOME': str(folder),
      'FAKE': str(self.fake),
      'SR3_POLL': '0',
      'WORKERS': str(workers),
    }

  def run(self, script: str, verb: str, *more: str, options=None) -> Launch:
    """Run `launch/SCRIPT.sh VERB` with these options, or with those of OPTIONS."""
    calls = self.fake / 'calls.jsonl'
    calls.unlink(missing_ok=True)
    options = OPTIONS[script] if options is None else options
    if verb != 'delete':
      options = ['--config=configs/quickstart.py', *options]
    done = subprocess.run(
      [self.launch / f'{script}.sh', verb, f'--out={self.fake}/out', *options, *more],
      env=self.environment,
      cwd=self.fake,
      capture_output=True,
      text=True,
      timeout=60,
      check=False,
      # Tests that run in the background ignore SIGINT, and the script would inherit it.
      preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    made = calls.read_text().splitlines() if calls.exists() else []
    records = [json.loads(x) for x in made]
    return Launch(
      done.returncode,
      done.stdout,
      done.stderr,
      [[x['tool'], *x['args']] for x in records],
    )

  def answers(self, key: str, *lines: str) -> None:
    """Set the next answers of the stand-ins to one kind of question."""
    folder = self.fake / 'next'
    folder.mkdir(exist_ok=True)
    (folder / key).write_text(''.join(f'{x}\n' for x in lines))

  def state(self, key: str) -> str | None:
    """Return the state of a thing such as 'vm' or 'job'; None if it doesn't exist."""
    path = self.fake / 'state' / key
    return path.read_text().strip() if path.exists() else None

  def fail_at(self, number: int) -> None:
    """Let the call of this number fail."""
    (self.fake / 'fail_at').write_text(str(number))

  def interrupt_at(self, number: int, name: str) -> None:
    """Send the launcher a signal, such as 'INT', in its call of this number."""
    (self.fake / 'interrupt_at').write_text(str(number))
    (self.fake / 'interrupt_with').write_text(name)

  def make_endless(self, worker: int = 0) -> None:
    """Let the next run on this worker last until it is stopped."""
    (self.fake / 'endless').touch()
    self.answers(f'exit{worker}', 'endless')

  def on_workers(self, *words: str) -> list[str]:
    """Return the calls on the workers that contain all these words."""
    path = self.fake / 'workers.jsonl'
    lines = path.read_text().splitlines() if path.exists() else []
    return [x for x in lines if all(w in x for w in words)]
