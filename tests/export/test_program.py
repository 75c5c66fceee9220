"""Exported programs compute what `Upscaler` computes."""

import dataclasses

import jax
import numpy as np
import pytest

from sr3_jax.core import degradations
from sr3_jax.export import consistency, files, program
from sr3_jax.images import resizing
from sr3_jax.restoration import settings
from sr3_jax.restoration.upscaler import Upscaler
from tests.support import models

STEPS = 3


def image(height=16, width=12, channels=3):
  rng = np.random.default_rng(1)
  return rng.uniform(-1, 1, (height, width, channels)).astype(np.float32)


def sampling(loaded, dims, sampler='ddpm', **options):
  _, trajectory = settings.choose_trajectory(loaded, STEPS, sampler)
  return program.sampling(loaded, dims, program.Sampling(trajectory, **options))


def exported(made, path):
  """Write a program and read it again, as others do."""
  files.write_stablehlo(path, made, {})
  return jax.export.deserialize(path.read_bytes())


def test_any_size_and_batch_equal_sr3_upscale(tmp_path):
  """With its noise, at every step consistent, for two pictures at a time."""
  loaded = models.residual(models.Local())
  dims = program.sides(loaded.model, None)
  run = exported(sampling(loaded, dims, consistent=True), tmp_path / 'a')
  assert run.platforms == ('cpu', 'cuda', 'tpu')
  given = np.stack([image(16, 8), image(16, 8)[::-1]])
  out = run.call(given, np.array([7, 8], np.uint32))
  assert out.shape == (2, 64, 32, 3)
  options = {'steps': STEPS, 'sampler': 'ddpm', 'tile': 0, 'consistency': True}
  expected = Upscaler(loaded, seed=8, **options).upscale(given[1]).image
  np.testing.assert_allclose(out[1], expected, atol=1e-4)


def test_a_seed_in_the_file_and_noise_as_input(tmp_path):
  loaded = models.residual(models.Local())
  dims = program.sides(loaded.model, (16, 12))
  inside = sampling(loaded, dims, seed=7)
  assert list(inside.inputs) == ['condition']
  outside = sampling(loaded, dims, noise='input')
  shape = outside.inputs['noise'].shape
  assert shape[0] == STEPS
  assert shape[2:] == (64, 48, 3)
  seed = np.array([7], np.uint32)
  drawn = np.stack([program.drawn(seed, k, 64, 48, 3) for k in range(STEPS)])
  given = image()[None]
  one = exported(inside, tmp_path / 'a').call(given)
  other = exported(outside, tmp_path / 'b').call(given, drawn)
  np.testing.assert_allclose(one, other, atol=1e-5)
  start = sampling(loaded, dims, 'dpmpp_2m', noise='input').inputs['noise']
  assert start.shape[0] == 1  # it adds none on the way


@pytest.mark.parametrize('sides', [(12, 3), (32, 8), (30, 15)])
def test_inverse_of_downsampling_without_a_solver(sides):
  known = resizing.downsampling_matrices(*sides)
  (dim,) = jax.export.symbolic_shape('n')
  ratio = sides[0] // sides[1]
  made = jax.export.export(jax.jit(lambda x: consistency._axis(ratio * dim, dim)))(
    jax.ShapeDtypeStruct((dim,), np.float32)
  )
  both = made.call(np.zeros(sides[1], np.float32))
  for wanted, found in zip(known, both, strict=True):
    np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_classes_and_guidance(tmp_path):
  network = models.Pointwise(num_classes=2)
  changes = {'model__num_classes': 2, 'model__label_dropout': 0.1}
  loaded = models.residual(network, **changes)
  dims = program.sides(loaded.model, (8, 8))
  made = sampling(loaded, dims, guidance=3.0)
  assert '2: no class' in made.inputs['label'].meaning
  given = image(8, 8)
  out = exported(made, tmp_path / 'a').call(
    given[None], np.array([1], np.int32), np.array([0], np.uint32)
  )
  options = {'steps': STEPS, 'sampler': 'ddpm', 'tile': 0, 'guidance': 3.0}
  upscaler = Upscaler(loaded, consistency=False, **options)
  expected = upscaler.upscale(given, label=1).image
  np.testing.assert_allclose(out[0], expected, atol=1e-4)


@pytest.mark.parametrize('smooth', [False, True])
def test_missing_pixels_are_not_read(tmp_path, smooth):
  options = {'task__name': 'inpainting', 'model__smooth_holes': smooth}
  loaded = models.loaded(models.Local(), **options)
  size = (16, 16) if smooth else None  # fillings need a size
  made = sampling(loaded, program.sides(loaded.model, size))
  run = exported(made, tmp_path / 'a')
  hole = np.zeros((16, 16, 1), np.float32)
  hole[4:8, 4:8] = 1
  one, other = image(16, 16), image(16, 16)
  other[4:8, 4:8] = 1
  seed = np.array([0], np.uint32)
  out = [run.call(np.concatenate([i, hole], -1)[None], seed) for i in (one, other)]
  np.testing.assert_array_equal(out[0], out[1])
  np.testing.assert_array_equal(np.where(hole > 0, 0, out[0][0] - one), 0)


def test_regression_takes_nothing_but_the_condition(tmp_path):
  loaded = models.loaded(models.Local())
  loaded = dataclasses.replace(
    loaded, model=dataclasses.replace(loaded.model, method='regression')
  )
  made = sampling(loaded, program.sides(loaded.model, (8, 8)))
  assert list(made.inputs) == ['condition']
  given = image(8, 8)
  out = exported(made, tmp_path / 'a').call(given[None])
  expected = Upscaler(loaded, tile=0).upscale(given).image
  np.testing.assert_allclose(out[0], expected, atol=1e-4)


def test_a_generator_needs_its_seed():
  loaded = models.loaded(models.Local(), task__name='generation')
  dims = program.sides(loaded.model, (16, 16))
  assert list(sampling(loaded, dims).inputs) == ['seed']
  with pytest.raises(program.ExportError, match='--seed: this model takes no picture'):
    sampling(loaded, dims, seed=1)


def test_sizes_that_the_network_cannot_take_are_refused():
  model = models.residual(None, model__multipliers=(1, 2)).model  # multiples of 8
  with pytest.raises(program.ExportError, match=r'--size=9x8: .* multiples of 2$'):
    program.sides(model, (8, 9))
  assert program.sides(model, (8, 10)).high == (32, 40)


def test_the_network_of_any_size(tmp_path):
  """The U-Net itself: its normalisation and folding know no sides beforehand."""
  loaded = models.residual(None)
  model = loaded.model
  made = program.network(loaded, program.sides(model, None))
  run = exported(made, tmp_path / 'a')
  x, y = image(32, 16)[None], image(32, 16)[None, ::-1]
  gamma = np.array([0.5], np.float32)
  expected = jax.jit(model.predict)(loaded.params, x, y, gamma)
  np.testing.assert_allclose(run.call(x, y, gamma), expected, atol=1e-5)
  with pytest.raises(ValueError, match='Division had remainder 2'):
    run.call(x[:, :30], y[:, :30], gamma)


def test_onnx_equals_stablehlo(tmp_path):
  pytest.importorskip('jax2onnx')
  import onnxruntime

  loaded = models.residual(models.Local())
  model = loaded.model
  dims = program.sides(model, (8, 6), batch=1)
  made = sampling(loaded, dims, noise='input', consistent=True)
  files.write_onnx(tmp_path / 'a.onnx', made, {'part': 'trajectory'})
  session = onnxruntime.InferenceSession(tmp_path / 'a.onnx')
  rng = np.random.default_rng(2)
  noise = rng.standard_normal(made.inputs['noise'].shape, np.float32)
  given = {'condition': image(8, 6)[None], 'noise': noise}
  (out,) = session.run(['output'], given)
  expected = jax.jit(made.function)(*given.values())
  np.testing.assert_allclose(out, expected, atol=1e-4)
  low = degradations.resize(out, 8, 6)
  assert np.abs(low - given['condition']).max() < 1  # as near as clipping allows


def test_what_jax2onnx_cannot_write_is_one_line(tmp_path, monkeypatch):
  import types

  def to_onnx(*args, **options):
    raise NotImplementedError('no operator\nfor this')

  fake = types.SimpleNamespace(to_onnx=to_onnx)
  monkeypatch.setattr(files, 'import_jax2onnx', lambda: fake)
  loaded = models.residual(models.Local())
  made = program.network(loaded, program.sides(loaded.model, (8, 8)))
  words = r'this network as ONNX \(no operator for this\); --format=stablehlo can'
  with pytest.raises(program.ExportError, match=words):
    files.write_onnx(tmp_path / 'a.onnx', made, {'part': 'network'})
  assert not list(tmp_path.iterdir())
