"""Runs the launchers against stand-ins of the programs that they call."""

import dataclasses
import json
import os
import pathlib
import shlex
import signal
import subprocess

ROOT = pathlib.Path(__file__).parents[2]
LAUNCH = ROOT / 'launch'
TOOLS = (
  *('gcloud', 'kubectl', 'ssh', 'scp', 'rsync', 'nvidia-smi', 'hostname'),
  *('sinfo', 'squeue', 'sacct', 'sbatch', 'scancel', 'scontrol', 'srun'),
  *('python3', 'python3.11', 'python3.12', 'python3.13'),
)
GOOGLE = ['--project=my-project', '--zone=us-west4-a', '--workdir=gs://bucket/run']
# What each launcher is told in these tests; the name is its default, sr3.
OPTIONS = {
  'tpu_vm': [*GOOGLE, '--type=v5litepod-8'],
  'tpu_slice': [*GOOGLE, '--type=v5litepod-16', '--spot'],
  'gke': [*GOOGLE, '--type=v5litepod-16', '--spot'],
  'gpu': ['--host=me@box', '--workdir=/data/run', '--topology=h100:8'],
  'slurm': ['--host=me@login', '--workdir=/data/run', '--topology=h100:8'],
}
# Questions whose failure is no failure of the launch.
TOLERATED = ('quotas info', 'worker.sh status', '/installed', 'kubectl logs')


@dataclasses.dataclass
class Launch:
  """What a launcher did: exit code, what it printed, and the calls it made."""

  code: int
  out: str
  error: str
  calls: list[list[str]]

  @property
  def errors(self) -> list[str]:
    """The launcher's own lines on stderr."""
    return [x for x in self.error.splitlines() if x.startswith('error: ')]

  @property
  def shown(self) -> list[list[str]]:
    """The commands that it printed, as words."""
    lines = [x.removeprefix('+ ') for x in self.out.splitlines() if x.startswith('+ ')]
    return [shlex.split(x) for x in lines]

  def made(self, *words: str) -> list[list[str]]:
    """The calls that contain all these words."""
    return [x for x in self.calls if all(w in ' '.join(x) for w in words)]


class Stage:
  """A PATH of stand-ins, their memory, and a home folder."""

  def __init__(self, folder: pathlib.Path, workers: int = 1):
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
    """`launch/SCRIPT.sh VERB` with the options above and more."""
    calls = self.fake / 'calls.jsonl'
    calls.unlink(missing_ok=True)
    options = OPTIONS[script] if options is None else options
    if verb != 'delete':
      options = ['--config=configs/quickstart.py', *options]
    done = subprocess.run(
      [LAUNCH / f'{script}.sh', verb, f'--out={self.fake}/out', *options, *more],
      env=self.environment,
      cwd=self.fake,
      capture_output=True,
      text=True,
      timeout=60,
      check=False,
      # Tests started in the background ignore it, and so would the script.
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
    """The next answers of the stand-ins to one kind of question."""
    folder = self.fake / 'next'
    folder.mkdir(exist_ok=True)
    (folder / key).write_text(''.join(f'{x}\n' for x in lines))

  def state(self, key: str) -> str | None:
    """What the stand-ins hold under this name."""
    path = self.fake / 'state' / key
    return path.read_text().strip() if path.exists() else None

  def fail_at(self, number: int) -> None:
    (self.fake / 'fail_at').write_text(str(number))

  def interrupt_at(self, number: int, name: str) -> None:
    """Sends the launcher a signal, such as 'INT', in its call of this number."""
    (self.fake / 'interrupt_at').write_text(str(number))
    (self.fake / 'interrupt_with').write_text(name)

  def lasting(self, worker: int = 0) -> None:
    """The next run on this worker goes on until it is stopped."""
    (self.fake / 'lasting').touch()
    self.answers(f'exit{worker}', 'last')

  def on_workers(self, *words: str) -> list[str]:
    """Calls made on the workers themselves that contain all these words."""
    path = self.fake / 'workers.jsonl'
    lines = path.read_text().splitlines() if path.exists() else []
    return [x for x in lines if all(w in x for w in words)]
