"""Tests of the lines that errors of the machine become."""

import errno
import os
import subprocess
import sys
import types

import jax
import pytest

from sr3_jax import main
from sr3_jax.runtime import devices, errors, foreign_files, start
from sr3_jax.upscale.jobs import Failures

FULL = jax.errors.JaxRuntimeError(
  'RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\npages of advice'
)


@pytest.mark.parametrize(
  ('error', 'wanted'),
  [
    (
      FULL,
      'out of memory (RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.): end',
    ),
    (MemoryError(), 'out of memory: end'),
    (
      jax.errors.JaxRuntimeError('INTERNAL: a\nb'),
      'JAX or a device failed: INTERNAL: a;',
    ),
    (OSError(errno.ENOSPC, 'No space left on device'), 'No space left on device'),
    (ModuleNotFoundError('x', name='absl'), 'the package absl is not installed'),
  ],
)
def test_trouble_of_the_machine_is_one_line(error, wanted, capfd):
  assert start._explain(error) == 1
  said = capfd.readouterr().err
  assert said.startswith(f'error: {wanted}') and said.count('\n') == 1


@pytest.mark.parametrize(
  'error', [TypeError('ours'), ModuleNotFoundError('x', name='sr3_jax.none')]
)
def test_faults_of_this_program_keep_their_traceback(error):
  with pytest.raises(type(error)):
    start._explain(error)


def test_a_python_without_the_packages_says_what_is_missing():
  done = subprocess.run(
    [sys.executable, '-S', '-m', 'sr3_jax.main', '--config=quickstart'],
    capture_output=True,
    text=True,
    env=os.environ | {'PYTHONPATH': os.getcwd()},
  )
  assert (done.returncode, done.stderr.count('\n')) == (1, 1)
  assert done.stderr.startswith('error: the package absl is not installed')


@pytest.mark.parametrize('error', [FULL, jax.errors.JaxRuntimeError('INTERNAL: a')])
def test_a_run_that_xla_ends_says_so_in_a_line_and_the_log_has_the_traceback(
  error, tmp_path, monkeypatch
):
  def fail(*_):
    raise error

  monkeypatch.setattr(main, 'run', fail)
  flags = types.SimpleNamespace(mode='sample', workdir=f'{tmp_path}', config=None)
  monkeypatch.setattr(main, 'FLAGS', flags)
  from sr3_jax.runtime import process_log

  (tmp_path / 'config.json').touch()
  with pytest.raises(SystemExit) as ended, process_log.in_workdir(tmp_path):
    main.run_or_explain()
  text = str(ended.value.code)
  assert text.startswith('error: ') and '\n' not in text
  assert ('train.batch_size' in text) == (error is FULL)
  log = (tmp_path / 'logs' / 'process_00000.log').read_text()
  assert text in log and 'Traceback' in log and 'JaxRuntimeError' in log


def test_a_device_that_cannot_be_used_is_one_line(monkeypatch):
  def fail():
    raise RuntimeError("Unable to initialize backend 'cuda'\nmore")

  monkeypatch.setattr(jax, 'devices', fail)
  monkeypatch.setenv('JAX_PLATFORMS', 'cuda')
  with pytest.raises(errors.UserError, match=r'^JAX_PLATFORMS=cuda: no device.*cpu'):
    devices.start('')


def test_a_picture_that_fails_has_a_line_without_names_of_python_for_known_trouble():
  failed = Failures()
  for name, error in {
    'full': OSError(errno.ENOSPC, 'No space left on device'),
    'large': MemoryError(),
    'ours': KeyError('x'),
  }.items():
    with failed.of(types.SimpleNamespace(name=name)):
      raise error
  assert failed['full'] == 'No space left on device'
  assert failed['large'].startswith('out of memory')
  assert failed['ours'].startswith('KeyError')
  with failed.of(types.SimpleNamespace(name='a\nb')):
    raise ValueError('a\nb: no picture')
  assert failed['a\nb'] == 'no picture'


@pytest.mark.parametrize('closed', ['<&-', '>&-', '2>&-', '<&- >&- 2>&-'])
def test_a_command_whose_streams_are_closed_does_not_mistake_files_for_them(closed):
  """A service may be started so: a file would be number 2, and XLA writes to it."""
  program = (
    'import sys\nfrom sr3_jax.runtime import early\nearly.install()\n'
    'assert open(sys.executable).fileno() > 2 and sys.stdin.read() == ""\n'
    'print(1), print(1, file=sys.stderr)'
  )
  command = ['sh', '-c', f'exec "$0" -c "$1" {closed}', sys.executable, program]
  done = subprocess.run(
    command, stdin=subprocess.DEVNULL, env=os.environ | {'PYTHONPATH': os.getcwd()}
  )
  assert done.returncode == 0


def test_standard_input_without_an_end_is_refused():
  with open('/dev/zero', 'rb') as file, pytest.raises(errors.UserError, match='larger'):
    foreign_files.read_stream(file, 'it', most=10**5)
