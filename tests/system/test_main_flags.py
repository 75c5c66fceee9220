"""The flags of the program: its help, and keys that no configuration has."""

import pathlib
import subprocess
import sys

import pytest

from sr3_jax import main
from sr3_jax.config import ConfigError, find_option
from sr3_jax.runtime.version import __version__

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(
  ('name', 'words'),
  [
    ('trian.num_steps', ['config.trian', 'task, data']),
    ('seed.a', ['config.seed.a', 'a value']),
    ('model.depth', ['config.model.depth', 'num_blocks, attention_resolutions']),
  ],
)
def test_the_error_for_an_unknown_key_lists_the_known_ones(name, words):
  find_option('train.num_steps')
  with pytest.raises(ConfigError) as error:
    find_option(name)
  for word in words:
    assert word in str(error.value)


@pytest.mark.parametrize('flag', ['--help', '-h', '--helpfull'])
def test_help_imports_neither_jax_nor_numpy(flag):
  code = (
    'import sys\n'
    'from sr3_jax import main\n'
    'try: main.parse_flags(["sr3-train", "--config=nowhere.py", sys.argv[1]])\n'
    'except SystemExit as stop: print("ended with", stop.code)\n'
    'print(sorted({"jax", "numpy", "PIL", "flax"} & set(sys.modules)))'
  )
  done = subprocess.run(
    [sys.executable, '-c', code, flag], cwd=ROOT, capture_output=True, text=True
  )
  assert done.stderr == ''
  assert done.stdout.endswith('ended with 0\n[]\n')
  for name in main.FLAG_NAMES:
    assert f'\n--{name}' in done.stdout


def test_flags_are_as_in_other_commands(capsys):
  given = ['x', '--num-processes=2', '--config.data.crop-fill=a-b', '-v', '--', '-q']
  assert main.as_absl(given) == [
    *('x', '--num_processes=2', '--config.data.crop_fill=a-b', '--verbosity=1'),
    *('--', '-q'),
  ]
  assert main.as_absl(['x', '-v', '1', '-v', '-1']) == ['x', '-v', '1', '-v', '-1']
  assert main.as_absl(['x', '-q', '--workdir', 'a-b']) == [
    *('x', '--verbosity=-1', '--workdir', 'a-b')
  ]
  with pytest.raises(SystemExit) as stop:
    main.parse_flags(['sr3-train', '--version'])
  assert stop.value.code == 0
  assert capsys.readouterr().out == f'sr3-train (sr3_jax) {__version__}\n'


def test_keys_with_hyphens_are_known(monkeypatch):
  with pytest.raises(SystemExit) as stop:
    main.parse_flags(['x', '--config=quickstart', '--config.train.num-stepz=1'])
  assert 'no key config.train.num_stepz' in str(stop.value.code)
  argv = ['x', '--config=quickstart', '--config.train.num-steps=1']
  monkeypatch.setattr(sys, 'argv', argv)
  with pytest.raises(SystemExit) as stop:  # only the workdir is missing
    main.parse_flags(sys.argv)
  assert str(stop.value.code).startswith('error: --workdir missing')
  assert main.FLAGS.config.train.num_steps == 1
