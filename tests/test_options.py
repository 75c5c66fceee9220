"""Every option of the configuration: what it may be, and one line for all else."""

import itertools
import math
import pathlib
import runpy
import sys
from unittest import mock

import pytest

from sr3_jax import main, options
from sr3_jax.config import (
  ConfigDict,
  ConfigError,
  check_values,
  config_names,
  find_option,
  flat_options,
  get_config,
  load_config,
  refused,
)
from sr3_jax.core import diffusion, networks, samplers
from sr3_jax.core.degradations import RESIZE, tasks
from sr3_jax.evaluation import command, summary, sweep_choice
from sr3_jax.runtime.errors import UserError
from sr3_jax.runtime.values import (
  Choice,
  Ends,
  Flag,
  Name,
  Number,
  Several,
  Text,
  Whole,
)
from sr3_jax.training import strategies
from sr3_jax.weights import model_files

ALL = dict(flat_options())
# Values that are of no option's type.
ALIENS = (None, b'text', {}, object, 1 + 1j, ConfigDict(), float('nan'), [1], {1})


def beside(kind):
  """Yield values just outside of a kind's range, and of other types."""
  if isinstance(kind, Whole):
    yield from (kind.low - 1, kind.high + 1, -(10**30), 10**30, 10**5000)
    yield from (float(kind.low), f'{kind.low}', True, math.nan, math.inf)
  elif isinstance(kind, Number):
    yield from (-math.inf, math.inf, math.nan, -(10**400), 10**400, '0.5', True)
    yield kind.low if kind.above else math.nextafter(kind.low, -math.inf)
    if kind.high < math.inf:
      yield kind.high if kind.below else math.nextafter(kind.high, math.inf)
  elif isinstance(kind, Choice):
    yield from (f'{kind.known[-1]}x', kind.known[-1].upper() + ' ', 0, ())
    yield 'nonsense'
  elif isinstance(kind, Name):
    yield from ('', ' ', 'a\0b', 1, ())
  elif isinstance(kind, Text):
    yield from ('a\0b', 1, (), ('a',))
  elif isinstance(kind, Flag):
    yield from (0, 1, 'True', '')
  elif isinstance(kind, Several):
    good = inside(kind.each)
    yield from ((value,) for value in (*beside(kind.each), *ALIENS))
    yield from ((good,) * (kind.most + 1), [good], good, ((good,),))
    if kind.least:
      yield (good,) * (kind.least - 1)
    if kind.distinct:
      yield (good, good)
  elif isinstance(kind, Ends):
    good = inside(kind.each)
    yield from ((good, value) for value in (*beside(kind.each), *ALIENS))
    yield from ((good,), (good,) * 3, (kind.each.high, kind.each.low), good)
    if not kind.optional:
      yield ()


def inside(kind):
  """Return a value of a kind."""
  if isinstance(kind, Choice):
    return kind.known[0]
  if isinstance(kind, Number):
    return kind.high if kind.high < math.inf and not kind.below else kind.low + 0.25
  return {Text: '', Name: 'a', Flag: True}.get(type(kind), getattr(kind, 'low', None))


def put(config, name, value):
  """Set a value whatever its type is."""
  section, _, key = name.rpartition('.')
  fields = (config[section] if section else config)._fields
  fields[key] = value


@pytest.mark.parametrize('name', ALL)
def test_every_value_beside_the_range_is_one_line_with_key_range_and_value(name):
  option = ALL[name]
  config = get_config()
  wrong = list(itertools.chain(beside(option.kind), ALIENS))
  assert len(wrong) > len(ALIENS) + 2
  for value in wrong:
    put(config, name, value)
    with pytest.raises(ConfigError) as error:
      check_values(config)
    said = str(error.value)
    if not isinstance(value, ConfigDict | dict):
      assert said.startswith(f'{name}='), (value, said)
      assert said.endswith(f' must be {option.kind}'), (value, said)
    assert '\n' not in said and said.isprintable() and len(said) < 700
  put(config, name, option.default)
  check_values(config)


@pytest.mark.parametrize('name', ALL)
def test_the_range_has_its_ends_and_the_default(name):
  kind = ALL[name].kind
  assert kind.fits(ALL[name].default)
  if isinstance(kind, Whole):
    assert kind.fits(kind.low) and kind.fits(kind.high)
  if isinstance(kind, Number):
    assert kind.fits(kind.low) != kind.above
    assert kind.fits(math.nextafter(kind.low, math.inf))
    if kind.high < math.inf:
      assert kind.fits(kind.high) != kind.below
  if isinstance(kind, Choice):
    assert all(map(kind.fits, kind.known))
  if isinstance(kind, Several | Ends):
    good = inside(kind.each)
    assert kind.fits((good,) * (2 if isinstance(kind, Ends) else max(kind.least, 1)))


def test_a_key_that_is_missing_or_unknown():
  config = get_config()
  del config.train.num_steps
  with pytest.raises(ConfigError, match=r'no key config\.train\.num_steps'):
    check_values(config)
  config = get_config()
  config.trian = 5
  with pytest.raises(ConfigError, match=r'no key config\.trian; config has: seed'):
    check_values(config)
  config = get_config()
  put(config, 'train', 5)
  with pytest.raises(ConfigError, match=r'config\.train is no value; it has keys'):
    check_values(config)


@pytest.mark.parametrize('name', config_names())
def test_every_configuration_has_values_that_can_be(name):
  check_values(load_config(name))


def test_sets_are_those_of_the_code():
  def known(section, key):
    return set(getattr(options, section)[key].kind.known)

  assert known('TASK', 'name') == {*tasks.TASKS, tasks.MIXTURE}
  assert set(options.TASKS) == set(tasks.TASKS)
  assert known('TASK', 'masks') == set(tasks.MASKS)
  assert known('SAMPLER', 'name') == set(samplers.SAMPLERS)
  assert known('SAMPLER', 'spacing') == set(diffusion.SPACINGS)
  assert known('DIFFUSION', 'schedule') == set(diffusion.SCHEDULES)
  assert known('DIFFUSION', 'prediction') == set(diffusion.TARGETS)
  assert known('MODEL', 'dtype') == set(networks.DTYPES)
  assert known('MODEL', 'upsampling') == set(RESIZE)
  assert known('PARALLEL', 'strategy') == set(strategies.STRATEGIES)
  assert known('SWEEP', 'judge') == set(sweep_choice.TOLERANCES)
  assert set(options.EVAL['networks'].kind.each.known) == set(command.NETWORKS)
  assert set(options.SCORES) <= set(summary.METRICS)


# ---------------------------------------------------------- the command line and files

OVERRIDES = {
  'train.num_steps=abc': 'a whole number from 1',
  'train.num_steps=1e3': 'a whole number from 1',
  'train.num_steps=0': 'a whole number from 1',
  'seed=99999999999999999999': 'a whole number from 0 to 2147483647',
  f'seed={"9" * 5000}': 'a whole number from 0 to 2147483647',
  'train.learning_rate=-1': 'a number above 0',
  'train.learning_rate=1e999': 'a number above 0',
  'train.ema_decay=nan': 'a number from 0 below 1',
  'train.tensorboard=maybe': 'True or False',
  'log.writers=("comet",)': "each one of 'tensorboard', 'wandb'",
  'train.profile=(1,)': 'a tuple of two values',
  'train.profile=5': 'a tuple of two values',
  'model.multipliers=(1,2': 'a tuple of 1 to 10 values',
  'model.multipliers=()': 'a tuple of 1 to 10 values',
  'model.multipliers=(1,0)': 'a tuple of 1 to 10 values',
  'task.quality=(200,-5)': 'the lower first',
  'task.augment_blur=(1.0,)': 'the lower first',
  'data.crop=middle': "one of 'random', 'center', 'none'",
  'data.path=a\0b': 'a text',
}


def refusal(*arguments):
  """Return the one line with which the program ends over its flags."""
  argv = ['sr3-train', *arguments]
  with mock.patch.object(sys, 'argv', argv), pytest.raises(SystemExit) as stop:
    main.parse_flags(argv)
  main.FLAGS.unparse_flags()
  for name in [name for name in main.FLAGS if name.startswith('config.')]:
    delattr(main.FLAGS, name)
  assert '\n' not in str(stop.value)
  return str(stop.value)


@pytest.mark.parametrize('given', OVERRIDES, ids=lambda given: given[:40])
def test_an_override_that_cannot_be(given):
  said = refusal('--config=quickstart', '--workdir=x', f'--config.{given}')
  key, _, _ = given.partition('=')
  assert said.startswith(f'error: {key}=') and OVERRIDES[given] in said


FILES = {
  "c.train.num_steps = 'abc'": "line 4: train.num_steps='abc' must be a whole number",
  'c.train.num_steps = None': 'train.num_steps=None must be a whole number',
  'c.train.num_steps = True': 'train.num_steps=True must be a whole number',
  'c.train = 5': 'line 4: config.train is no value; it has keys: num_steps',
  'c.trian = 5': 'no key config.trian; config has: seed',
  'c.train.num_stps = 5': 'no key config.train.num_stps; config.train has: num_steps',
  'c.seed = 1 // 0': 'line 4: ZeroDivisionError',
  'c = 7': 'get_config() returns no ConfigDict, but 7',
  'c = c c': 'SyntaxError',
}


@pytest.mark.parametrize('code', FILES)
def test_a_file_that_cannot_be(code, tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text(
    'from sr3_jax import config\n\ndef get_config(c=config.get_config()):\n'
    f'  {code}\n  return c\n'
  )
  assert FILES[code] in refusal(f'--config={path}', '--workdir=x')


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    (['--config=configs/quickstar.py'], ['configs/quickstar.py', 'known:']),
    (['--config=configs/quickstart.py:foo'], ['takes no argument']),
    (['--config=palette_256:foo'], ["no task 'foo'", 'inpainting']),
    (['--config=setup.py'], ['setup.py is no configuration']),
    (['--config=quickstart', '--workdir='], ['--workdir= must be']),
    (['--config=quickstart', '--num_processes=0'], ['--num_processes=0 must be']),
    (['--config=quickstart', '--process_id=one'], ['--process_id=one must be']),
    (['--config=quickstart', '--config.train=5'], ['config.train is no value']),
    (['--config=quickstart', '--config.seed'], ['config.seed']),
    ([], ['--config and --workdir missing', '--config=quickstart']),
  ],
  ids=str,
)
def test_other_mistakes_in_flags(arguments, words, monkeypatch):
  monkeypatch.chdir(pathlib.Path(__file__).parents[1])
  said = refusal(*arguments)
  for word in words:
    assert word in said


def test_the_page_of_options_is_that_of_the_list():
  docs = pathlib.Path(__file__).parents[1] / 'docs'
  made = runpy.run_path(str(docs / 'make_options.py'))['page']()
  assert (docs / 'options.md').read_text() == made, 'run python docs/make_options.py'


def test_a_refusal_shows_no_more_than_a_line():
  said = str(refused('data.path', ALL['data.path'], "'x'"))
  assert said == "data.path='x' must be a text"


def test_a_key_of_any_length_is_cut_in_messages():
  for find in (
    lambda: find_option('train.' + 'x' * 5000),
    lambda: model_files.read_config({'x' * 5000: 1}, 'config.json', '1'),
  ):
    with pytest.raises(UserError, match='xxx') as error:
      find()
    assert len(str(error.value)) < 700
