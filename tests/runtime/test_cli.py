"""Tests of what the command lines of all commands have in common."""

import argparse
import importlib
import re

import pytest

from sr3_jax.metrics import net_weights
from sr3_jax.runtime import activity, caches
from sr3_jax.runtime.cli import Parser, add_quiet, path, value
from sr3_jax.runtime.values import Name, Number, Whole
from sr3_jax.runtime.version import __version__
from sr3_jax.upscale import options


@pytest.mark.parametrize(
  ('kind', 'good', 'bad', 'what'),
  [
    (Whole(1, 9), '9', ('0', '10', '2.0', 'x', ''), 'a whole number from 1 to 9'),
    (Number(0), '0', ('-1', 'nan', 'inf', 'x'), 'a finite number from 0'),
    (Number(0, above=True), '1e-9', ('0', 'inf'), 'a finite number above 0'),
    (Number(0, 1, above=True), '1', ('0', '1.01'), 'a number above 0 up to 1'),
  ],
)
def test_numbers_outside_their_range_are_refused(kind, good, bad, what):
  assert value(kind)(good) == float(good)
  for text in bad:
    with pytest.raises(argparse.ArgumentTypeError) as error:
      value(kind)(text)
    assert str(error.value).endswith(f' must be {what}')
    assert text in str(error.value)


def test_no_text_is_neither_a_name_nor_this_folder():
  assert path('a/b').name == 'b' and value(Name())('a') == 'a'
  for parse in (path, value(Name())):
    for text in ('', '  ', 'a\0b'):
      with pytest.raises(argparse.ArgumentTypeError, match='not empty'):
        parse(text)


COMMANDS = [
  'upscale.options',
  'evaluation.command',
  'data.channels',
  'reports.command',
  'human_study.command',
  'weights.convert',
]


@pytest.mark.parametrize('module', COMMANDS)
def test_every_command_has_the_options_of_all(module, capsys):
  parser = importlib.import_module(f'sr3_jax.{module}').make_parser()
  assert isinstance(parser, Parser)
  with pytest.raises(SystemExit) as stop:
    parser.parse_args(['--version'])
  assert stop.value.code == 0
  assert capsys.readouterr().out == f'{parser.prog} (sr3_jax) {__version__}\n'
  (many,) = [a for a in parser._actions if a.dest == 'command'] or [None]
  for one in many.choices.values() if many else [parser]:
    assert {'-q', '--quiet', '-v', '--verbose'} <= one._option_string_actions.keys()


def make_parser():
  parser = Parser(prog='x')
  parser.add_argument('--num_samples', type=int)
  parser.add_argument('--max-failed')
  parser.add_argument('--fill', action=argparse.BooleanOptionalAction)
  parser.add_argument('rest', nargs='*')
  add_quiet(parser)
  return parser


def test_long_options_take_hyphens_and_underscores():
  for given in (
    ['--num-samples=2', '--max_failed=a-b_c', '--no_fill', '--', '--num-samples'],
    ['--num_samples', '2', '--max-failed', 'a-b_c', '--no-fill', '--', '--num-samples'],
  ):
    found = make_parser().parse_args(given)
    assert (found.num_samples, found.max_failed, found.fill) == (2, 'a-b_c', False)
    assert found.rest == ['--num-samples']


def test_an_unknown_option_is_named_as_it_was_typed(capsys):
  with pytest.raises(SystemExit):
    make_parser().parse_args(['--number-of-samples=2'])
  assert '--number-of-samples=2' in capsys.readouterr().err
  with pytest.raises(SystemExit):
    make_parser().parse_args(['-q', '-v'])
  assert 'not allowed with' in capsys.readouterr().err


def test_verbose_says_how_long_each_part_took(capsys):
  for option, said in (('-v', True), ('-q', False)):
    quiet = make_parser().parse_args([option]).quiet
    with activity.shown('it', quiet=quiet), activity.doing('reading'):
      pass
    shown = re.findall(r'^(.*): done in \d+\.\d\d s$', capsys.readouterr().err, re.M)
    assert shown == (['reading', 'it'] if said else [])


def test_caches_are_where_the_environment_says(monkeypatch):
  for name in ('XDG_CACHE_HOME', 'JAX_COMPILATION_CACHE_DIR'):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setenv('HOME', '/home/me')
  assert caches.programs() == '/home/me/.cache/sr3_jax/xla'
  monkeypatch.setenv('XDG_CACHE_HOME', 'relative')
  assert caches.folder('weights') == '/home/me/.cache/sr3_jax/weights'
  monkeypatch.setenv('XDG_CACHE_HOME', '/big')
  assert caches.programs() == '/big/sr3_jax/xla'
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', '/programs')
  assert (caches.programs(), caches.folder('a')) == ('/programs', '/big/sr3_jax/a')
  assert options.make_parser().get_default('cache') == '/programs'
  monkeypatch.delenv(net_weights.VARIABLE, raising=False)
  assert str(net_weights.folder()) == '/big/sr3_jax/weights'
