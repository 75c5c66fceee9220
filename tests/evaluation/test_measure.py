"""Evaluation on eight devices against scikit-image, Pillow and itself."""

import functools
import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from etils import epath
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from sr3_jax.core.sr3 import SR3
from sr3_jax.data import input_pipeline, sources
from sr3_jax.evaluation import measure as evaluation_measure
from sr3_jax.evaluation import run as evaluation_run
from sr3_jax.evaluation import summary
from sr3_jax.images import image_files, pixels
from sr3_jax.metrics import image_metrics
from sr3_jax.reports import data as reports_data
from sr3_jax.restoration import restorer
from sr3_jax.restoration import sample as restoration_sample
from sr3_jax.runtime import atomic_files, errors
from sr3_jax.training import run as training_run
from sr3_jax.weights import checkpoint

COUNT = 13  # eval.final_images of tests/support/runs.py


@pytest.fixture(scope='module')
def workdir(trained, tmp_path_factory):
  """Like the trained run, with a baseline beside it: somewhat different weights."""
  folder = tmp_path_factory.mktemp('evaluated')
  shutil.copytree(trained.workdir / 'checkpoints', folder / 'checkpoints')
  other = jax.tree.map(lambda a: a * 1.1, trained.state.saved())
  batches = input_pipeline.training_data(trained.config)
  with checkpoint.open_manager(folder / 'regression', keep=1) as manager:
    checkpoint.save(manager, 7, other, batches)
  batches.close()
  return folder


@pytest.fixture(scope='module')
def narrow(trained, workdir):
  """The table of --mode=eval: two batches of 8, one image a device, 3 are padding."""
  return evaluation_run.evaluate_run(trained.config, workdir)


@pytest.fixture(scope='module')
def wide(trained, workdir) -> evaluation_measure.Evaluation:
  """The same images in one batch of 16."""
  config = trained.config.copy_and_resolve_references()
  config.eval.batch_size = 16
  _, methods, _ = restorer.load_methods(config, workdir)
  batches = input_pipeline.evaluation_data(config, COUNT)
  result = evaluation_measure.evaluate(
    methods['sr3'].model, methods, batches, seed=config.seed
  )
  batches.close()
  return result


def test_the_batch_size_changes_nothing(narrow, wide):
  table = wide.table()
  assert list(narrow) == list(table) == ['bicubic', 'lanczos', 'regression', 'sr3']
  for name, row in narrow.items():
    assert row['images'] == table[name]['images'] == COUNT
    for key, value in row.items():
      if key == 'photographs':  # only what is written counts them
        continue
      # An 8-bit level of one pixel may tip over.
      np.testing.assert_allclose(value, table[name][key], rtol=1e-3, err_msg=key)
  exact = narrow['bicubic']
  for key, value in table['bicubic'].items():
    np.testing.assert_allclose(value, exact[key], rtol=1e-5)


class Spoiled:
  """A method whose output for image 3 is infinite in one pixel."""

  num_steps, is_random = 1, False

  def __call__(self, condition, batch, sample, on_steps):
    output = jnp.zeros((*condition.shape[:2], 16, 16, 3))
    spoil = jnp.where(batch['index'] == 3, jnp.inf, 0.0)
    return output.at[:, :, 0, 0, 0].add(spoil)


def test_an_output_that_is_not_finite_is_an_error_that_names_the_image(trained):
  config = trained.config
  batches = input_pipeline.evaluation_data(config, COUNT)
  name = batches.image_name(3)
  model = SR3.from_config(config)

  def evaluate(**options):
    evaluation_measure.evaluate(
      model, {'sr3': Spoiled()}, batches, seed=config.seed, **options
    )

  with pytest.raises(errors.NotFiniteError, match='output of sr3') as error:
    evaluate(name_of=batches.image_name)
  batches.close()
  assert error.value.names == [name] and str(error.value).startswith(name)
  assert name == input_pipeline.held_out(config).source.name(
    batches._reader.eval_number(COUNT, 3)
  )


def test_sampling_what_is_not_finite_is_an_error(trained, tmp_path, monkeypatch):
  method = Spoiled()
  method.model = SR3.from_config(trained.config)
  monkeypatch.setattr(restoration_sample, 'load_method', lambda *_: (1, method, ''))
  config = trained.config.copy_and_resolve_references()
  config.sample.num_images, config.sample.num_samples = 5, 1
  with pytest.raises(errors.NotFiniteError, match='output of sr3') as error:
    restoration_sample.sample_run(config, tmp_path)
  assert len(error.value.names) == 1 and not list(tmp_path.rglob('*.png'))


def small(image: np.ndarray) -> np.ndarray:
  """Pillow's bicubic downsampling of a float [16, 16, 3] image, to [4, 4, 3]."""
  channels = [PIL.Image.fromarray(np.float32(image[..., c])) for c in range(3)]
  reduced = [c.resize((4, 4), PIL.Image.Resampling.BICUBIC) for c in channels]
  return np.stack([np.asarray(c) for c in reduced], axis=-1)


@pytest.mark.parametrize('method', ['bicubic', 'lanczos', 'regression', 'sr3'])
def test_numbers_are_those_of_the_8_bit_images(wide, method):
  """What scikit-image and Pillow say about the pictures."""
  sums = dict.fromkeys(('psnr', 'ssim', 'psnr_y', 'consistency', 'colour_drift'), 0.0)
  for image, truth in zip(wide.first[method], wide.first['truth'], strict=True):
    sums['psnr'] += peak_signal_noise_ratio(truth, image)
    sums['ssim'] += structural_similarity(
      truth,
      image,
      channel_axis=-1,
      gaussian_weights=True,
      sigma=1.5,
      use_sample_covariance=False,
    )
    luma = rgb2ycbcr(truth)[..., 0], rgb2ycbcr(image)[..., 0]
    sums['psnr_y'] += peak_signal_noise_ratio(*luma, data_range=255)
    error = (small(image) - small(truth)) / 255
    sums['consistency'] += 1e5 * np.mean(error**2)
    sums['colour_drift'] += 255 * np.mean(np.abs(error.mean(axis=(0, 1))))
  row = wide.table()[method]
  for name, value in sums.items():
    np.testing.assert_allclose(
      row[name], value / COUNT, rtol=1e-3, atol=1e-3, err_msg=name
    )


def test_lanczos_is_pillows(wide):
  for low, mine in zip(wide.first['input'], wide.first['lanczos'], strict=True):
    picture = PIL.Image.fromarray(low).resize((16, 16), PIL.Image.Resampling.LANCZOS)
    # Pillow's input is rounded, ours is not.
    assert np.abs(np.asarray(picture, int) - mine).max() <= 3


def test_truth_and_input_are_those_of_the_held_out_set(trained, wide):
  batches = input_pipeline.evaluation_data(trained.config, COUNT)
  crops = [image for batch in batches for image in batch['image'][batch['mask']]]
  batches.close()
  np.testing.assert_array_equal(wide.first['truth'], crops)
  for low, truth in zip(wide.first['input'], wide.first['truth'], strict=True):
    expected = np.clip(np.round(small(truth)), 0, 255)
    assert np.max(np.abs(low - expected)) <= 1


def test_samples_do_not_depend_on_the_batch(trained, workdir, wide):
  """--mode=sample, eight at a time, against the batch of sixteen."""
  config = trained.config.copy_and_resolve_references()
  config.sample.num_images = COUNT
  restoration_sample.sample_run(config, workdir)
  names = {'input': 'input', '0': 'sr3', '1': None, 'truth': 'truth'}
  files = sorted(path.name for path in (workdir / 'samples').iterdir())
  pictures = [f'{i:05d}_{n}.png' for i in range(COUNT) for n in names]
  assert files == sorted([*pictures, 'sheet.png'])

  def read(i, name):
    return np.asarray(PIL.Image.open(workdir / 'samples' / f'{i:05d}_{name}.png'))

  for i in range(COUNT):
    for name, key in names.items():
      if key is not None:
        difference = np.abs(read(i, name).astype(int) - wide.first[key][i])
        assert difference.max() <= 1
        assert np.mean(difference > 0) < 0.01
    assert np.any(read(i, '0') != read(i, '1'))


def test_eval_writes_its_results(trained, workdir, narrow):
  results = json.loads((workdir / 'results.json').read_text())
  assert results['step'] == 20
  assert results['table'] == narrow
  # 13 random crops of two photographs say nothing of others.
  for row in narrow.values():
    assert (row['images'], row['photographs']) == (COUNT, 2)
  loaded = reports_data.load(workdir)
  assert (loaded.data['images'], loaded.photographs()) == (COUNT, 2)
  assert loaded.data['protocol']['images'].startswith('13 crops of 2 photographs')
  for row in loaded.data['table'].values():
    assert not any('low' in entry for entry in row.values())
  found = reports_data.values(loaded)['photograph'].tolist()
  assert found == [i % 2 for i in range(COUNT)]
  assert results['config']['sampler']['name'] == 'ddpm'
  sheet = np.asarray(PIL.Image.open(workdir / 'samples.png'))
  assert sheet.shape[-1] == 3
  assert training_run.finished(trained.config, workdir) == results
  other = trained.config.copy_and_resolve_references()
  other.sampler.num_steps = 2
  assert training_run.finished(other, workdir) is None
  longer = trained.config.copy_and_resolve_references()
  longer.train.num_steps = 21
  assert training_run.finished(longer, workdir) is None
  assert training_run.finished(trained.config, workdir / 'regression') is None


def test_the_baseline_is_there_if_it_was_trained(trained, workdir):
  step, methods, _ = restorer.load_methods(trained.config, trained.workdir)
  assert (step, list(methods)) == (20, ['sr3'])
  step, methods, _ = restorer.load_methods(trained.config, workdir)
  assert (step, list(methods)) == (20, ['regression', 'sr3'])
  assert methods['regression'].model.method == 'regression'
  assert methods['regression'].num_steps == 1


def test_no_batch_is_begun_after_the_time_is_up(trained, narrow):
  del narrow  # the same programs
  model = SR3.from_config(trained.config)
  batches = input_pipeline.evaluation_data(trained.config, COUNT)
  measure = functools.partial(evaluation_measure.evaluate, model, {}, seed=0)
  assert measure(batches, max_seconds=0.0).count() == 8
  assert measure(batches).count() == COUNT - 8  # it went on
  batches.close()


def make_batch(seed: int, real: int, first: int = 0) -> dict[str, np.ndarray]:
  """Eight images, of which the first `real` count; the others are garbage."""
  shape = (8, 16, 16, 3)
  mask = np.arange(8) < real
  return {
    'image': np.random.default_rng(seed).integers(0, 256, shape, np.uint8),
    'mask': mask,
    'index': np.where(mask, first + np.arange(8), -1).astype(np.int32),
  }


def test_padding_does_not_count(trained):
  model = SR3.from_config(trained.config)

  def measure(*batches):
    return evaluation_measure.evaluate(model, {}, batches, seed=0).table()

  batch = make_batch(0, 5)
  other = make_batch(1, 5)
  other['image'][:5] = batch['image'][:5]
  assert measure(batch) == measure(other)
  assert measure(batch)['bicubic']['images'] == 5
  # Means are over images, not over batches.
  full = make_batch(2, 8, first=5)
  parts = [measure(b)['bicubic'] for b in (batch, full)]
  both = measure(batch, full)['bicubic']
  assert both['images'] == 13
  for key in ('psnr', 'ssim', 'consistency', 'colour_drift'):
    mean = (5 * parts[0][key] + 8 * parts[1][key]) / 13
    np.testing.assert_allclose(both[key], mean, rtol=1e-6)


def test_nothing_to_measure_is_an_error(trained):
  model = SR3.from_config(trained.config)
  for batches in ([], [make_batch(0, 0)]):
    with pytest.raises(sources.DataError, match='no held-out image'):
      evaluation_measure.evaluate(model, {}, batches, seed=0)


def test_sampling_may_be_cut_anywhere(trained, wide, monkeypatch):
  """Three steps as 2 + 1, reported as they are done."""
  config = trained.config.copy_and_resolve_references()
  config.eval.batch_size = 16
  monkeypatch.setattr(restorer, 'STRETCH', 2)
  model = SR3.from_config(config)
  method = restorer.Restorer(model, trained.state.ema, config.seed)
  batches = input_pipeline.evaluation_data(config, COUNT)
  told = []
  result = evaluation_measure.evaluate(
    model, {'sr3': method}, batches, seed=0, on_steps=told.append
  )
  batches.close()
  assert told == [2, 1]
  difference = result.first['sr3'].astype(int) - wide.first['sr3']
  assert np.max(np.abs(difference)) <= 1


def test_keys_are_a_function_of_seed_sample_and_image():
  def draw(*where):
    return np.asarray(
      jax.random.key_data(restorer.keys(where[0], jnp.array([where[1]]), where[2]))
    ).tobytes()

  places = [(seed, i, j) for seed in (0, 1) for i in (-1, 0, 1, 7) for j in (0, 1)]
  assert len({draw(*place) for place in places}) == len(places)
  assert draw(1, 7, 1) == draw(1, 7, 1)


def test_the_table_is_aligned_and_says_which_way_is_better():
  row = dict.fromkeys(('psnr', 'ssim', 'consistency', 'detail', 'spectrum_db'), 1.25)
  row |= {'colour_drift': 123.456, 'images': 3}
  lines = summary.format_table({'bicubic': row, 'sr3': row}).splitlines()
  assert len(lines) == 4
  assert len({len(line) for line in lines}) == 1
  assert 'PSNR dB' in lines[0]
  assert '(higher)' in lines[1]
  assert lines[2].split()[:4] == ['bicubic', '1.25', '1.250', '1.25']
  assert lines[2].split()[-1] == '123.46'


def test_a_json_file_is_replaced_whole(tmp_path):
  path = epath.Path(tmp_path) / 'a.json'
  for value in ({'a': [1, 2]}, {'b': None}):
    atomic_files.write_json(path, value)
    assert json.loads(path.read_text()) == value
  assert [p.name for p in tmp_path.iterdir()] == ['a.json']


def test_shown_images_round_as_the_measured_ones():
  """One rounding: what is measured is what the file holds."""
  grid = jnp.linspace(-1.2, 1.2, 3 * 512).reshape(1, 16, 32, 3)
  shown = pixels.to_float(pixels.to_uint8(np.asarray(grid)))
  measured = image_metrics.quantize(grid)
  np.testing.assert_allclose(shown, measured, atol=1e-6)


def test_images_that_changed_are_measured_again(tmp_path):
  """Another file under the same name is another set, also with the same size."""
  rng = np.random.default_rng(0)
  for i in range(3):
    image_files.write(
      tmp_path / f'{i}.png', rng.integers(0, 256, (16, 16, 3), np.uint8)
    )

  def state():
    return sources.fingerprint(sources.Folder(tmp_path))

  before = state()
  assert state() == before
  os.utime(tmp_path / '1.png', (1, 1))
  changed = state()
  assert changed != before
  (tmp_path / '1.png').rename(tmp_path / '3.png')
  assert state() not in (before, changed)


def test_only_what_is_sampled_has_a_part_for_each_seed():
  class Method:
    def __init__(self, is_random):
      self.is_random = is_random

  methods = {'regression': Method(False), 'sr3': Method(True)}
  assert evaluation_measure.parts_of(methods, ('bicubic',), 2) == {
    'bicubic': ['bicubic'],
    'regression': ['regression/0'],
    'sr3': ['sr3/0', 'sr3/1'],
  }
