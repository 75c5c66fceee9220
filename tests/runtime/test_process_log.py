"""Tests of messages on the screen and in WORKDIR/logs."""

import os
import subprocess
import sys
import textwrap
import time

import pytest
from absl import flags, logging

from sr3_jax.runtime import process_log
from tests.runtime.test_logs import object_store


def run_logging(*flags):
  """Return stderr of a program that logs, saves a checkpoint and warns."""
  program = """
    import tempfile
    from absl import app, logging
    from sr3_jax.runtime import process_log, progress

    def main(_):
      process_log.setup()
      process_log.setup()
      import jax, orbax.checkpoint as ocp
      with ocp.CheckpointManager(tempfile.mkdtemp()) as manager:
        manager.save(1, args=ocp.args.StandardSave({'a': jax.numpy.ones(3)}))
      text = "logging.info('training on %d images', 5)"
      code = compile(text, progress.__file__, 'exec')
      exec(code, {'logging': logging})
      logging.warning('from elsewhere')

    app.run(main)
  """
  result = subprocess.run(
    [sys.executable, '-c', textwrap.dedent(program), *flags],
    capture_output=True,
    text=True,
    check=True,
    env={k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'},
  )
  return result.stderr


def test_the_screen_shows_only_lines_of_the_package_and_warnings():
  lines = run_logging().splitlines()
  assert [line.split(' ', 1)[1] for line in lines] == [
    'training on 5 images',
    'warning: from elsewhere',
  ]


def test_the_verbosity_flag_is_obeyed():
  assert 'orbax-checkpoint version' in run_logging('--verbosity=1')
  assert 'training' not in run_logging('--verbosity=-1')


def log_info(message):
  """Log a message as a module of the package does."""
  code = compile('logging.info(message)', process_log.__file__, 'exec')
  exec(code, {'logging': logging, 'message': message})


@pytest.fixture(autouse=True)
def verbose():
  """Switch messages on, which other tests may have switched off."""
  flag, before = flags.FLAGS['verbosity'], logging.get_verbosity()
  default = flag.using_default_value
  logging.set_verbosity(logging.INFO)
  yield
  logging.set_verbosity(before)
  flag.using_default_value = default  # `process_log.setup` asks for it


def test_the_file_has_the_messages_and_the_end_of_every_start(tmp_path, monkeypatch):
  monkeypatch.setattr(sys, 'argv', ['main.py', '--mode=train'])
  (tmp_path / 'config.json').touch()  # messages wait until a run has files
  with process_log.in_workdir(tmp_path):
    log_info('training on 5 images')
    logging.warning('from elsewhere')
    logging.info('of no interest')
  with pytest.raises(SystemExit), process_log.in_workdir(tmp_path):
    sys.exit('error: no such folder')
  with pytest.raises(SystemExit), process_log.in_workdir(tmp_path):
    try:
      raise ValueError('stopped by SIGTERM')
    except ValueError:
      sys.exit(143)
  with pytest.raises(ZeroDivisionError), process_log.in_workdir(tmp_path):
    1 / 0  # noqa: B018
  log_info('after the end')
  lines = (tmp_path / 'logs' / 'process_00000.log').read_text().splitlines()
  mark = f' [{os.getpid()}] '
  messages = [line.split(mark)[-1] for line in lines]
  start = f'started on {os.uname().nodename}, process 0 of 1: main.py --mode=train'
  assert messages[:8] == [
    *(start, 'training on 5 images', 'warning: from elsewhere', 'ended: finished'),
    *(start, 'ended: error: no such folder'),
    *(start, 'ended: stopped by SIGTERM (exit code 143)'),
  ]
  assert messages[8:10] == [start, 'ended: Traceback (most recent call last):']
  assert messages[-1].strip() == 'ZeroDivisionError: division by zero'
  assert all(mark in line and line.startswith('20') for line in lines[:10])


def test_a_crash_leaves_its_stack_in_the_file(tmp_path):
  program = f"""
import faulthandler
from sr3_jax.runtime import process_log
def crash():
  with process_log.in_workdir({os.fspath(tmp_path)!r}, make=True):
    faulthandler._sigabrt()
crash()
"""
  done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
  assert done.returncode == -6
  assert 'Fatal' not in done.stderr
  text = (tmp_path / 'logs' / 'process_00000.log').read_text()
  assert 'Fatal Python error: Aborted' in text
  assert ' in crash' in text and ' ended: ' not in text


def test_a_program_without_stderr_ends_properly(tmp_path):
  """A service may be started with it closed: then stacks have nowhere else to go."""
  program = f"""
import faulthandler, sys
from sr3_jax.runtime import process_log
assert sys.__stderr__ is None
with process_log.in_workdir({os.fspath(tmp_path)!r}, make=True):
  assert faulthandler.is_enabled()
assert not faulthandler.is_enabled()
"""
  command = ['sh', '-c', 'exec "$0" -c "$1" 2>&-', sys.executable, program]
  subprocess.run(command, check=True)
  text = (tmp_path / 'logs' / 'process_00000.log').read_text()
  assert 'ended: finished' in text


def test_the_next_start_reports_a_process_that_did_not_end_properly(tmp_path):
  file = tmp_path / 'logs' / 'process_00000.log'
  (tmp_path / 'config.json').touch()
  program = f"""
import os, signal
from sr3_jax.runtime import process_log
with process_log.in_workdir({os.fspath(tmp_path)!r}):
  os.kill(os.getpid(), signal.SIGKILL)
"""
  with process_log.in_workdir(tmp_path):
    pass
  killed = subprocess.Popen([sys.executable, '-c', program])
  assert killed.wait() == -9
  for _ in range(2):
    with process_log.in_workdir(tmp_path):
      pass
  lines = file.read_text().splitlines()
  assert len(lines) == 2 + 1 + 3 + 2
  assert lines[4].endswith(
    f'process [{killed.pid}] has no end: killed, crashed, or still running'
  )


def test_the_size_of_the_file_is_limited(tmp_path, monkeypatch):
  monkeypatch.setattr(process_log, 'LIMIT', 2000)
  (tmp_path / 'config.json').touch()
  with process_log.in_workdir(tmp_path):
    for i in range(200):
      log_info(f'message {i:03d}')
  sizes = {p.name: p.stat().st_size for p in (tmp_path / 'logs').iterdir()}
  assert sizes.keys() == {'process_00000.log', 'process_00000.log.old'}
  assert max(sizes.values()) < 2100
  text = ''.join((tmp_path / 'logs' / name).read_text() for name in sorted(sizes)[::-1])
  left = [line.split()[-1] for line in text.splitlines() if 'message' in line]
  assert left == [f'{i:03d}' for i in range(200 - len(left), 200)]
  assert len(left) > 30


def test_a_workdir_is_not_made_for_an_error_message(tmp_path):
  with pytest.raises(SystemExit), process_log.in_workdir(tmp_path / 'typo'):
    sys.exit('error: no checkpoints here')
  assert not (tmp_path / 'typo').exists()
  with process_log.in_workdir(tmp_path / 'run'):
    log_info('early')
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / 'config.json').touch()
    log_info('late')
  text = (tmp_path / 'run' / 'logs' / 'process_00000.log').read_text()
  assert text.index('early') < text.index('late')
  with process_log.in_workdir(tmp_path / 'many', make=True):
    assert (tmp_path / 'many' / 'logs').is_dir()


def test_a_log_file_that_cannot_be_written_does_not_end_the_run(tmp_path, caplog):
  (tmp_path / 'logs').write_text('a file where a folder should be')
  with process_log.in_workdir(tmp_path):
    log_info('all is well')
  assert 'all is well' in caplog.text


def test_on_object_stores_the_whole_file_is_written_every_few_seconds(
  tmp_path, monkeypatch
):
  local = tmp_path / 'bucket' / 'run' / 'logs' / 'process_00000.log'
  (tmp_path / 'bucket' / 'run').mkdir(parents=True)
  with object_store(tmp_path, monkeypatch):
    monkeypatch.setattr(process_log, 'UPLOAD', 3600)
    with process_log.in_workdir('gs://bucket/run'):
      log_info('first')
      assert not local.exists()
    assert local.read_text().count('\n') == 3
    monkeypatch.setattr(process_log, 'UPLOAD', 0.01)
    monkeypatch.setattr(process_log, 'LIMIT', 2000)
    with process_log.in_workdir('gs://bucket/run'):
      log_info('second')
      for _ in range(1000):
        if local.exists() and 'second' in local.read_text():
          break
        time.sleep(0.01)
      assert 'first' in local.read_text() and 'ended: ' in local.read_text()
      for i in range(100):
        log_info(f'message {i}')
    text = local.read_text()
    assert 500 < len(text) <= 2000
    assert text.startswith('20') and text.endswith('ended: finished\n')
