"""Real signals to small real processes: what they say, and how they end."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
INSTALL = """
import os, signal, sys, threading, time
from sr3_jax.runtime import interruption
interruption.install('go on')

def ready():
  print('ready', flush=True)
"""
# Native code that doesn't return to Python: a signal handler of Python's would wait.
NATIVE = "import hashlib; ready(); hashlib.pbkdf2_hmac('sha256', b'a', b'b', 2 * 10**9)"


def start(code: str, **options) -> subprocess.Popen:
  """Start Python code, and wait until it says that it is ready."""
  process = subprocess.Popen(
    [sys.executable, '-c', INSTALL + code],
    env=os.environ | {'PYTHONPATH': str(ROOT)},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    **options,
  )
  assert process.stdout and process.stdout.readline() == 'ready\n'
  return process


def end(process: subprocess.Popen, number: int, within: float = 20) -> tuple[int, str]:
  """Send a signal; return exit code and stderr."""
  process.send_signal(number)
  _, errors = process.communicate(timeout=within)
  return process.returncode, errors


@pytest.mark.parametrize(
  ('number', 'line'),
  [
    (signal.SIGINT, 'interrupted; go on\n'),
    (signal.SIGTERM, 'stopped by SIGTERM; go on\n'),
    (signal.SIGHUP, 'stopped by SIGHUP, the terminal is gone; go on\n'),
  ],
)
@pytest.mark.parametrize('code', ['ready(); time.sleep(60)', NATIVE], ids=['py', 'c'])
def test_a_signal_ends_with_one_line_and_its_code(number, line, code):
  assert end(start(code), number) == (128 + number, line)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_done_keeps_its_code_while_python_closes_down(number):
  """Python gives the signals back before it removes the modules."""
  code = """
class Last:
  def __del__(self, write=os.write, sleep=time.sleep):
    write(1, b'ready\\n')
    sleep(0.5)
last = Last()
sys.exit(3)
"""
  assert end(start(code), number) == (3, '')


def ignore():
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  signal.signal(signal.SIGHUP, signal.SIG_IGN)


def test_a_background_job_of_a_script_takes_ctrl_c_but_nohup_holds():
  process = start('ready(); time.sleep(60)', preexec_fn=ignore)
  process.send_signal(signal.SIGHUP)
  time.sleep(0.2)
  assert end(process, signal.SIGINT) == (130, 'interrupted; go on\n')


def test_a_blocked_signal_is_taken():
  def block():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])

  assert end(start(NATIVE, preexec_fn=block), signal.SIGINT)[0] == 130


def test_what_is_being_written_becomes_whole_and_nothing_new_begins(tmp_path):
  code = f"""
path = {str(tmp_path / 'file')!r}
with interruption.writing(), open(path, 'w') as file:
  for i in range(20):
    with interruption.writing():  # of a function that it calls
      file.write(str(i % 10)); file.flush()
    if i == 5:
      ready()
    time.sleep(0.05)
with interruption.writing(), open(path + '2', 'w') as file:
  time.sleep(60)
"""
  assert end(start(code), signal.SIGINT)[0] == 130
  assert (tmp_path / 'file').read_text() == '0123456789' * 2
  assert not (tmp_path / 'file2').exists()


def test_a_second_ctrl_c_ends_at_once(tmp_path):
  code = """
with interruption.writing():
  ready()
  time.sleep(60)
"""
  process, began = start(code), time.monotonic()
  process.send_signal(signal.SIGINT)
  time.sleep(0.3)
  assert process.poll() is None  # it waits for the file
  assert end(process, signal.SIGINT) == (130, 'interrupted; go on\n')
  assert time.monotonic() - began < 3


def test_last_acts_are_done_and_none_hinders_another():
  code = """
def act(number):
  os.write(1, b'last %d\\n' % number)
def broken(number):
  raise ValueError
nothing = os.dup(1)
with interruption.at_end(lambda n: os.write(nothing, b'last %d\\n' % n)):
  with interruption.at_end(broken):
    with interruption.at_end(lambda n: os.write(nothing, b'never\\n')):
      pass
    ready()
    time.sleep(60)
"""
  process = start(code)
  process.send_signal(signal.SIGTERM)
  out, errors = process.communicate(timeout=20)
  assert (process.returncode, out) == (143, 'last 15\n')
  assert errors.count('\n') == 1


DEFERRED = """
def note(number):
  os.write(2, b'noted %d\\n' % number)
with interruption.deferred(note):
  ready()
  while interruption.noted() is None:
    time.sleep(0.01)
time.sleep({seconds})
sys.exit(128 + interruption.noted())
"""


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_deferred_signal_is_noted_and_the_process_ends_by_itself(number):
  code, errors = end(start(DEFERRED.format(seconds=0)), number)
  assert (code, errors) == (128 + number, f'noted {number}\n')


def test_after_a_note_only_ctrl_c_ends_at_once():
  process = start(DEFERRED.format(seconds=60))
  process.send_signal(signal.SIGTERM)
  time.sleep(0.3)
  process.send_signal(signal.SIGTERM)  # clusters send it more than once
  time.sleep(0.3)
  assert process.poll() is None
  code, errors = end(process, signal.SIGINT)
  assert code == 130
  assert errors == 'noted 15\ninterrupted again: ended without waiting\n'


START_EARLY = 'from sr3_jax.runtime import early; early.install()'
WORKERS = """
import multiprocessing, signal

def work():
  time.sleep(60)

if __name__ == '__main__':
  workers = [
    multiprocessing.get_context(way).Process(target=work, daemon=True)
    for way in ('fork', 'spawn')
  ]
  interruption.shield_workers()
  for worker in workers:
    worker.start()
  time.sleep(1.5)
  print(*(worker.pid for worker in workers), flush=True)
  time.sleep(60)
"""


@pytest.mark.parametrize(
  ('number', 'line'),
  [(signal.SIGINT, 'interrupted'), (signal.SIGTERM, 'stopped by SIGTERM')],
)
def test_a_signal_to_the_whole_group_ends_workers_in_silence(tmp_path, number, line):
  """Send it as a terminal or `timeout` does: to workers too, which have no word."""
  file = tmp_path / 'workers.py'
  install = INSTALL.replace("interruption.install('go on')", START_EARLY)
  file.write_text(install + WORKERS)
  file.write_text(
    file.read_text().replace(
      "if __name__ == '__main__':\n",
      "if __name__ == '__main__':\n  interruption.install('go on')\n",
    )
  )
  process = subprocess.Popen(
    [sys.executable, file],
    env=os.environ | {'PYTHONPATH': str(ROOT)},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )
  assert process.stdout
  pids = [int(pid) for pid in process.stdout.readline().split()]
  spawned = pathlib.Path(f'/proc/{pids[1]}/status').read_text()
  blocked = int(spawned.partition('SigBlk:')[2].split()[0], 16)
  assert blocked & 1 << signal.SIGINT - 1
  os.killpg(process.pid, number)
  _, errors = process.communicate(timeout=20)
  assert (process.returncode, errors) == (128 + number, f'{line}; go on\n')
  deadline = time.monotonic() + 10
  while any(os.path.exists(f'/proc/{pid}') for pid in pids):
    assert time.monotonic() < deadline, 'workers live on'
    time.sleep(0.05)


def test_a_forked_child_that_is_stopped_does_not_stop_its_parent():
  code = """
child = os.fork()
if not child:
  time.sleep(60)
time.sleep(0.3)
os.kill(child, signal.SIGTERM)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=sys.stderr)
time.sleep(0.5)
ready()
"""
  process = start(code)
  _, errors = process.communicate(timeout=20)
  assert (process.returncode, errors) == (0, '-15\n')


# ------------------------------------------------------------------------- commands


@pytest.mark.parametrize(
  'module',
  [
    *('sr3_jax.main', 'sr3_jax.upscale', 'sr3_jax.upscale.command'),
    *('sr3_jax.evaluation', 'sr3_jax.reports', 'sr3_jax.human_study'),
    *('sr3_jax.weights.convert', 'sr3_jax.data.channels'),
    'sr3_jax.metrics.net_weights',
  ],
)
@pytest.mark.parametrize(
  'names', [('numpy', 'argparse', 'absl'), ('sr3_jax.runtime.interruption',)]
)
def test_every_command_takes_over_the_signals_before_its_imports(module, names):
  """An import of NumPy, or of the parser of options, sends the signal here."""
  code = f"""
import os, runpy, signal, sys, time

NAMES = {names!r}
for name in NAMES:
  sys.modules.pop(name, None)

class Finder:
  def find_spec(self, name, path=None, target=None):
    if name in NAMES:
      os.kill(os.getpid(), signal.SIGINT)
      time.sleep(60)

sys.meta_path.insert(0, Finder())
sys.argv = [{module!r}]
runpy.run_module({module!r}, run_name='__main__', alter_sys=True)
"""
  done = subprocess.run(
    [sys.executable, '-c', code],
    env=os.environ | {'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert done.returncode == 130
  assert done.stderr.startswith('interrupted') and done.stderr.count('\n') == 1


def test_a_reader_that_is_gone_ends_a_command_in_silence(tmp_path):
  command = [sys.executable, '-m', 'sr3_jax.metrics.net_weights']
  command += [f'--folder={tmp_path}']
  reader, writer = os.pipe()
  os.close(reader)
  done = subprocess.run(
    command,
    env=os.environ | {'PYTHONPATH': str(ROOT)},
    stdout=writer,
    stderr=subprocess.PIPE,
    text=True,
  )
  os.close(writer)
  assert (done.returncode, done.stderr) == (141, '')
