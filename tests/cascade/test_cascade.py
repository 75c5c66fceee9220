"""Cascades: what fits together, and images that depend on (seed, k) only."""

import itertools
import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from sr3_jax import main
from sr3_jax.cascade import cascade as cascades
from sr3_jax.cascade import run as cascade_run
from sr3_jax.cascade.cascade import CascadeError
from sr3_jax.config import config_names, load_config
from sr3_jax.core import degradations
from sr3_jax.images import image_files, pixels
from sr3_jax.restoration import restorer
from sr3_jax.runtime import devices
from sr3_jax.runtime.errors import NotFiniteError, UserError
from tests.support import cascades as stage_models
from tests.support import runs


@pytest.fixture(scope='module')
def base(compile_cache, tmp_path_factory) -> Iterator[pathlib.Path]:
  """Make a folder of stages."""
  del compile_cache
  with stage_models.stages(tmp_path_factory.mktemp('cascade')) as folder:
    yield folder


def sample_all(config, workdir) -> dict[str, np.ndarray]:
  """Sample, and return every picture of samples/ by its path."""
  cascade_run.sample_run(config, workdir)
  return pictures(workdir)


def pictures(workdir) -> dict[str, np.ndarray]:
  found = sorted((workdir / 'samples').glob('*/*/0*.png'))
  return {str(p.relative_to(workdir / 'samples')): image_files.read(p) for p in found}


def assert_same(one: np.ndarray, other: np.ndarray) -> None:
  """Up to the rounding of sums, which shows as a level here and there."""
  difference = np.abs(one.astype(int) - other)
  assert difference.max() <= 3
  assert np.mean(difference > 0) < 0.02


@pytest.fixture(scope='module')
def config():
  return stage_models.cascade_config(
    'base', 'up', **{'cascade.blur': (0.0, 0.5), 'cascade.noise': (0.0, 0.2)}
  )


@pytest.fixture(scope='module')
def sampled(base, config) -> dict[str, np.ndarray]:
  """Two images of each class. Read only."""
  return sample_all(config, base / 'sampled')


# ------------------------------------------------------------------------ sampling


def test_stages_are_their_models_one_after_the_other(base, config, sampled):
  """Composed here of `SR3.restore` and `augment`, in 8 bits between the two."""
  cascade = cascades.load(config, base / 'x')
  label, number = 1, 1
  index = jnp.array([label * 2**20 + number])

  def keys(sample):
    return restorer.keys(config.seed, index, sample)

  image, seen = jnp.zeros((1, 8, 8, 0)), np.zeros(0)
  for place, side in enumerate((8, 16)):
    stage = cascade.stages[place]
    if place:
      stored = pixels.to_float(seen[None])
      levels = jnp.array([0.5]), jnp.array([0.2])
      image = degradations.augment(keys(2**16 + place), jnp.asarray(stored), *levels)
    params = devices.unreplicate(stage.restorer._params)
    restored = jax.jit(stage.model.restore)(
      params, keys(place), image, label=jnp.array([label])
    )
    seen = sampled[f'{side}/001/00001.png']
    assert_same(pixels.to_uint8(restored[0]), seen)


def test_images_differ_by_class_number_and_stage(sampled):
  assert len(sampled) == 2 * 3 * 2
  small = [image for name, image in sampled.items() if name.startswith('8/')]
  assert {image.shape for image in small} == {(8, 8, 3)}
  assert len({image.tobytes() for image in small}) == 6


def test_an_image_is_the_same_whatever_else_is_asked_for(base, config, sampled, capsys):
  other = config.copy_and_resolve_references()
  other.cascade.classes, other.cascade.images_per_class = (2, 0), 5
  other.cascade.batch_size = 16
  found = sample_all(other, base / 'other')
  assert len(found) == 2 * 2 * 5
  common = found.keys() & sampled.keys()
  assert len(common) == 2 * 2 * 2
  for name in common:
    assert_same(found[name], sampled[name])
  # More of them later: what is there stays, nothing is sampled again.
  other.cascade.classes, other.cascade.images_per_class = (0, 1, 2), 6
  times = {p: p.stat().st_mtime_ns for p in (base / 'other/samples').glob('*/*/*.png')}
  assert len(sample_all(other, base / 'other')) == 2 * 3 * 6
  assert all(
    p.stat().st_mtime_ns == t for p, t in times.items() if 'grids' not in p.parts
  )
  assert '8 images on 8 x cpu' in capsys.readouterr().out


def test_images_that_are_not_finite_are_an_error_and_no_files(
  base, config, monkeypatch
):
  call = restorer.Restorer.__call__

  def spoiled(self, condition, batch, *rest):
    output = call(self, condition, batch, *rest)
    return output + jnp.where(batch['index'] == 2**20, jnp.nan, 0.0)[..., *3 * [None]]

  monkeypatch.setattr(restorer.Restorer, '__call__', spoiled)
  with pytest.raises(NotFiniteError, match='the output of base is not fin') as error:
    cascade_run.sample_run(config, base / 'spoiled')
  assert error.value.names == ['image 0 of class 1']
  assert not list((base / 'spoiled').rglob('*.png'))


def test_one_device_samples_what_eight_do(base, config, sampled):
  """In a process of its own."""
  settings = {f'cascade.{k}': v for k, v in config.cascade.to_dict().items()}
  given = str(base / 'one'), settings.pop('cascade.stages'), settings
  code = f'from tests.support import cascades; cascades.sample_elsewhere(*{given!r})'
  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=pathlib.Path(__file__).parents[2],
    env=runs.with_devices(1),
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert 'on 1 x cpu' in done.stdout
  found = pictures(base / 'one')
  assert found.keys() == sampled.keys()
  for name, image in found.items():
    assert_same(image, sampled[name])


def test_a_killed_run_goes_on_where_it_was(base, config, sampled, monkeypatch):
  """Killed in the second batch's files: the rest is sampled, and nothing twice."""
  workdir = base / 'killed'
  more = config.copy_and_resolve_references()
  more.cascade.images_per_class = 4  # 12 images are two batches
  write, begun = image_files.write, itertools.count()

  def failing(path, image):  # in several threads
    if '16/' in str(path) and next(begun) >= 9:
      raise KeyboardInterrupt
    write(path, image)

  monkeypatch.setattr(image_files, 'write', failing)
  with pytest.raises(KeyboardInterrupt):
    cascade_run.sample_run(more, workdir)
  monkeypatch.setattr(image_files, 'write', write)
  there = {p: p.stat().st_mtime_ns for p in (workdir / 'samples/16').glob('*/*.png')}
  assert 8 <= len(there) < 12
  asked = []
  sample_batches = cascade_run.sample_batches

  def noting(cascade, todo, *rest):
    asked.extend(todo)
    return sample_batches(cascade, todo, *rest)

  monkeypatch.setattr(cascade_run, 'sample_batches', noting)
  found = sample_all(more, workdir)
  assert len(asked) == 12 - len(there)
  assert len(found) == 2 * 12
  assert all(p.stat().st_mtime_ns == t for p, t in there.items())
  for name, image in sampled.items():
    assert_same(image, found[name])


def test_every_stage_is_compiled_once(base, config, sampled):
  del sampled  # what is common to all cascades is compiled by then
  again = config.copy_and_resolve_references()
  again.seed = 3  # a constant of the programs
  again.cascade.images_per_class = 7  # three batches, the last one not full
  with runs.compilations() as names:
    cascade_run.sample_run(again, base / 'many')
  # Each stage begins, samples and augments with a seed of its own; the end has no seed.
  assert len(names) == 5


def test_files_of_a_cascade(base, sampled):
  workdir = base / 'sampled'
  grids = sorted(p.name for p in (workdir / 'samples/grids').iterdir())
  assert grids == ['000.png', '001.png', '002.png']
  assert image_files.read(workdir / 'samples/grids/000.png').shape[1] > 2 * 160
  assert image_files.read(workdir / 'samples.png').shape[0] > 3 * 160
  assert image_files.read(workdir / 'stages.png').shape[1] > 2 * 160
  times = json.loads((workdir / 'samples/times.json').read_text())
  assert [row['side'] for row in times['stages']] == [8, 16]
  assert times['images'] == 6
  assert sum(row['share'] for row in times['stages']) == pytest.approx(1, abs=1e-3)
  assert all(row['seconds'] > 0 for row in times['stages'])


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    ({'seed': 1}, ['differ in seed']),
    ({'cascade.noise': (0.0, 0.1)}, ['differ in stage 2 noise']),
    ({'cascade.num_steps': (3, 2)}, ['differ in stage 1 sampler num_steps']),
    ({'cascade.guidance': (2.0, 1.0)}, ['differ in stage 1 guidance', '--workdir']),
  ],
  ids=str,
)
def test_images_of_other_settings_are_never_mixed(base, config, sampled, change, words):
  other = config.copy_and_resolve_references()
  other.update_from_flattened_dict(change)
  with pytest.raises(CascadeError) as error:
    cascade_run.sample_run(other, base / 'sampled')
  assert all(word in str(error.value) for word in words)
  assert '\n' not in str(error.value)


def test_settings_of_a_stage_reach_it(base, config):
  """Guidance, steps and both levels change the image; levels need no new program."""
  c = config.copy_and_resolve_references()
  c.cascade.update({'guidance': (3.0, 1.0), 'num_steps': (1, 3)})
  first, second = cascades.load(c, base / 'x').stages
  assert (first.num_steps, second.num_steps) == (1, 3)
  own = cascades.load(config, base / 'x').stages[0]
  cascade = cascades.load(config, base / 'x')
  batch = cascade.batch([(k % 3, k) for k in range(8)], 8)
  assert np.abs(devices.gather(first(None, batch) - own(None, batch))).mean() > 0.01
  small = own(None, batch)
  second(small, batch)
  with runs.compilations() as names:
    outputs = [
      devices.gather(second(small, batch, levels=cascades.Levels(blur, noise)))
      for blur, noise in ((0, 0), (0.5, 0), (0, 0.4), (0.0, 0.0))
    ]
  assert names == []
  for one in (1, 2):
    assert np.abs(outputs[0] - outputs[one]).mean() > 0.01
  np.testing.assert_array_equal(outputs[0], outputs[3])
  condition = devices.gather(second._condition(small, batch, cascades.Levels()))
  np.testing.assert_array_equal(condition[..., :3], devices.gather(small))
  condition = devices.gather(
    second._condition(small, batch, cascades.Levels(0.5, 0.25))
  )
  np.testing.assert_array_equal(condition[..., 3], np.float32(0.5))
  np.testing.assert_array_equal(condition[..., 4], np.float32(0.25))


def test_models_without_classes_and_levels(base):
  stage_models.save(
    base / 'any', stage_models.stage_config(8, **{'model.num_classes': 0}), 3
  )
  plain = {'task.name': 'super_resolution', 'model.num_classes': 0}
  stage_models.save(base / 'plain', stage_models.stage_config(16, **plain), 4)
  c = stage_models.cascade_config('any', 'plain', **{'cascade.images_per_class': 3})
  cascade_run.sample_run(c, base / 'unlabelled')
  samples = base / 'unlabelled' / 'samples'
  assert sorted(p.name for p in (samples / '16').iterdir()) == [
    f'{i:05d}.png' for i in range(3)
  ]
  assert (base / 'unlabelled' / 'samples.png').exists()
  # A stage without classes is fine after one with them, not the other way around.
  cascades.load(stage_models.cascade_config('base', 'plain'), base / 'x')
  with pytest.raises(CascadeError, match='up: 3 classes, but any has none'):
    cascades.load(stage_models.cascade_config('any', 'up'), base / 'x')


def test_folders_have_the_names_of_classes(base):
  c = stage_models.cascade_config('base', 'up')
  c.data.update({'source': 'arrays', 'path': str(base / 'data.npz')})
  cascade = cascades.load(c, base / 'x')
  assert cascade_run.class_folders(c, cascade) == ['000_cat', '001_dog', '002_old_car']


# -------------------------------------------------------------------- what must fit


@pytest.fixture(scope='module')
def misfits(base) -> pathlib.Path:
  """Stages that don't fit the others."""
  for name, side, changes in (
    ('up32', 32, stage_models.UP),
    ('grey', 16, stage_models.UP | {'data.channels': 1}),
    ('four', 16, stage_models.UP | {'model.num_classes': 4}),
    (
      'range',
      16,
      stage_models.UP | {'data.low': (0.0, 0.0, 0.0), 'data.high': (99.0, 99.0, 99.0)},
    ),
    ('unguided', 16, stage_models.UP | {'model.label_dropout': 0.0}),
    ('sharp', 16, {'task.name': 'deblurring'}),
  ):
    stage_models.save(base / name, stage_models.stage_config(side, **changes))
  return base


@pytest.mark.parametrize(
  ('stages', 'change', 'words'),
  [
    (('up',), {}, ["task 'generation'", "'cascade'"]),
    (('base', 'base'), {}, ['must upsample', "'generation'"]),
    (('base', 'sharp'), {}, ['must upsample', "'deblurring'"]),
    (('base', 'up32'), {}, ['16 x 16 to 32 x 32', 'base before it makes 8 x 8']),
    (('base', 'grey'), {}, ['channels and range', 'base']),
    (('base', 'range'), {}, ['channels and range', 'base']),
    (('base', 'four'), {}, ['4 classes', 'base has 3']),
    (('base', 'nothing'), {}, ['stage 2 of cascade.stages', 'nothing', 'no such']),
    (('base', 'up'), {'blur': (0.5,)}, ['cascade.blur=(0.5,)', '2 values']),
    (('base', 'up'), {'blur': (0.5, 0.0)}, ['base', 'blur 0.5', '0 to 0']),
    (('base', 'up'), {'noise': (0.0, 0.6)}, ['up', 'noise 0.6', '0 to 0.5']),
    (('base', 'up'), {'num_steps': (2, 5000)}, ['up', '5000']),
    (('base', 'unguided'), {'guidance': (1.0, 2.0)}, ['unguided', 'label_dropout']),
    (('base', 'up'), {'classes': (0, 3)}, ['cascade.classes=(0, 3)', '0 to 2']),
    (('base', 'up'), {'batch_size': 9}, ['cascade.batch_size', 'multiple of 8']),
  ],
  ids=str,
)
def test_what_does_not_fit_is_one_line(misfits, stages, change, words):
  c = stage_models.cascade_config(*stages)
  c.cascade.update(change)
  with pytest.raises(UserError) as error:
    cascade_run.sample_run(c, misfits / 'refused')
  for word in words:
    assert word in str(error.value)
  assert '\n' not in str(error.value)
  assert not (misfits / 'refused').exists()


def test_training_is_refused_with_the_commands_of_the_stages():
  c = stage_models.cascade_config('base', 'up')
  with pytest.raises(CascadeError, match='not trained as a whole') as error:
    main.run(c, epath.Path('runs/x'), 'train')
  command = 'python -m sr3_jax.main --config=configs/up.py --workdir=runs/up'
  assert command in str(error.value)
  assert issubclass(CascadeError, UserError)


@pytest.mark.parametrize('name', [n for n in config_names() if 'cascades/' in n])
def test_the_stages_of_a_configuration_have_configurations(name):
  stages = load_config(name).cascade.stages
  message = cascade_run.train_message(load_config(name), 'runs/x')
  named = re.findall(r'--config=(\S+) --workdir=runs/(\w+)', message)
  assert [run for _, run in named] == list(stages)
  assert {config for config, _ in named} <= set(config_names())


def test_paths_stand_beside_the_workdir():
  assert cascades.stage_path('a', 'runs/x') == 'runs/a'
  for path in ('/abs/a', '~/a', 'hf://owner/name'):
    assert cascades.stage_path(path, 'runs/x') == path
