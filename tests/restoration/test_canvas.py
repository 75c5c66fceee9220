"""The parts of the program that denoises canvases, each against plain arrays."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax.core import degradations, samplers
from sr3_jax.images import resizing
from sr3_jax.restoration import canvas, canvas_arguments
from sr3_jax.restoration.tiling import CELL, Planner
from tests.support.models import Local, loaded, residual

WIDTH = 2 * CELL


@functools.cache
def local():
  """A model that upscales four times and sees 3 pixels around each."""
  return residual(Local())


def random(*shape):
  return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def planned(side, condition_shape, *conditions):
  """A plan for tiles of `side` output pixels, its layout, and items to put on it."""
  plan = Planner(4, 2, (side,), pad=8, at_once=1)
  items = [canvas_arguments.Item(c, (1, 2, 3, k), 0) for k, c in enumerate(conditions)]
  return plan, plan.layout(condition_shape), items


def test_tiles_are_cut_and_added_where_they_lie():
  whole = random(2, 64, 64, 3)
  corners = np.array([[0, 2, 30], [1, 40, 0], [1, 40, 8]])
  tiles = canvas.cut_tiles(whole, corners, (16, 24))
  for tile, (image, top, left) in zip(tiles, corners, strict=True):
    np.testing.assert_array_equal(tile, whole[image, top : top + 16, left : left + 24])
  added = canvas.add_tiles(jnp.zeros_like(whole), tiles, corners)
  count = canvas.add_tiles(jnp.zeros_like(whole), jnp.ones_like(tiles), corners)
  assert set(np.unique(count)) == {0, 1, 2}  # the last two overlap
  np.testing.assert_allclose(added, whole * count, rtol=1e-6)


def test_strips_are_taken_and_put_back():
  whole = random(2, 3 * CELL, CELL, 1)
  strip = canvas.take_strip(whole, 1)
  np.testing.assert_array_equal(strip, whole[:, CELL : 2 * CELL])
  swapped = canvas.put_strip(whole, 2 * strip, 2)
  np.testing.assert_array_equal(swapped[:, : 2 * CELL], whole[:, : 2 * CELL])
  np.testing.assert_array_equal(swapped[:, 2 * CELL :], 2 * strip)


def test_images_have_noise_of_their_own():
  seeds = np.array([[1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 3, 4]], np.uint32)
  noise = canvas.noise_strips(seeds, 0, 1, WIDTH, 3)
  assert noise.shape == (3, CELL, WIDTH, 3)
  np.testing.assert_array_equal(noise[0], noise[2])
  assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.05


def test_blended_predictions_are_those_of_the_whole_image():
  """Tiles of 64 pixels that overlap by at least 16; the network sees 3."""
  model, params = local().model, local().params
  plan, layout, items = planned(64, (32, 32), random(32, 32, 3))
  canvases = canvas_arguments.make_canvases(model, plan, layout, items, False, None)
  tiles = canvas_arguments.tiles_of(plan, layout, items)
  assert len(tiles.corners) == 9 and tiles.size == (64, 64)
  work = canvas_arguments.make_work(tiles, capacity=12, batch=2)
  assert work.num_batches == 5 and len(work.tiles.corners) == 12
  y = random(*canvases.x.shape[:3], 3)
  predict = functools.partial(canvas.predict, model, batch=2, shared=False)
  blended = jax.jit(predict)(
    params, canvases, work, y=y, gamma=jnp.float32(0.5), input_scale=0.9
  )
  x, y = canvases.x[:, :128, :128], y[:, :128, :128]
  whole = model.denoise(params, x, 0.9 * y, jnp.full(1, 0.5)).y0
  np.testing.assert_allclose(blended[:, :128, :128], whole, atol=1e-5)
  assert not blended[:, 128:].any() and not blended[:, :, 128:].any()


@pytest.mark.parametrize('smooth', [False, True])
def test_holes_are_filled_before_an_image_is_cut(smooth):
  """A hole may be larger than a tile."""
  options = {'task__name': 'inpainting', 'model__smooth_holes': smooth}
  model = loaded(Local(), **options).model
  condition = random(40, 48, 4)
  condition[..., 3] = 0
  condition[8:32, 16:40] = 0, 0, 0, 1
  plan = Planner(1, 2, (16,), pad=4, at_once=1)
  items = [canvas_arguments.Item(condition, (1, 2, 3, 4), 0)]
  canvases = canvas_arguments.make_canvases(
    model, plan, plan.layout((40, 48)), items, False, None
  )
  want = model.upsample(jnp.asarray(condition[None]))
  assert bool(jnp.any(want[0, 8:32, 16:40, :3])) == smooth
  np.testing.assert_allclose(canvases.x[:, :40, :48], want, atol=1e-6)


def test_corrected_predictions_downsample_to_the_conditions():
  """Compare with `degradations.nearest_consistent`; nothing outside of the image."""
  model = local().model
  plan, layout, items = planned(64, (20, 24), random(20, 24, 3))
  canvases = canvas_arguments.make_canvases(model, plan, layout, items, True, None)
  height, width = 80, 96
  y0 = random(1, *canvases.x.shape[1:3], 3)
  correct = jax.jit(functools.partial(canvas.correct, model))
  fixed = correct(canvases, canvases.downsampling, y0)
  x = canvases.x[:, :height, :width]
  image = model.decode(y0[:, :height, :width], x)
  want = degradations.nearest_consistent(image, items[0].condition[None])
  got = model.decode(fixed[:, :height, :width], x)
  np.testing.assert_allclose(got, want, atol=1e-4)
  low = resizing.resize(np.asarray(got[0]), 20, 24)
  np.testing.assert_allclose(low, items[0].condition, atol=1e-4)
  np.testing.assert_allclose(fixed[:, height:], y0[:, height:], atol=1e-5)


@pytest.mark.parametrize('noise', [0.0, 0.3])
def test_one_strip_takes_the_samplers_step(noise):
  seeds = np.array([[1, 2, 3, 4]] * 2, np.uint32)
  y, y0, previous = random(3, 2, 3 * CELL, CELL, 1)
  row = np.array([0.9, 0.2, -0.1, noise, noise, 1], np.float32)
  step = jax.jit(canvas.update_strip)
  got = step(row, 4, seeds, 1, y, y0, previous, None)
  z = np.zeros_like(y)
  z[:, CELL : 2 * CELL] = canvas.noise_strips(seeds, 4, 1, CELL, 1)
  want = samplers.next_y(row, y, y0, previous, z)
  one = slice(CELL, 2 * CELL)
  np.testing.assert_allclose(got[:, one], want[:, one], atol=1e-6)
  for other in (slice(0, CELL), slice(2 * CELL, None)):
    np.testing.assert_array_equal(got[:, other], y[:, other])


def test_a_learned_variance_is_that_of_its_strip():
  seeds = np.zeros((1, 4), np.uint32)
  y = np.zeros((1, 2 * CELL, CELL, 1), np.float32)
  variance = np.zeros_like(y)
  variance[:, CELL:] = 1
  row = np.array([1, 0, 0, 0.1, 0.5, 1], np.float32)
  for strip, spread in ((0, 0.1), (1, 0.5)):
    got = canvas.update_strip(row, 1, seeds, strip, y, y, y, variance)
    part = got[:, strip * CELL : (strip + 1) * CELL]
    np.testing.assert_allclose(part.std(), spread, rtol=0.1)


def test_a_step_predicts_then_updates_the_strips_in_use():
  model = local().model
  plan, layout, items = planned(64, (8, 8), random(8, 8, 3))
  canvases = canvas_arguments.make_canvases(model, plan, layout, items, False, None)
  canvases = canvases._replace(strips=np.int32(1))
  asked = []

  def predict(y, gamma, input_scale):
    asked.append((float(gamma), float(input_scale)))
    return 0.5 * y

  steps = samplers.Steps(
    coefficients=np.array([[1, 2, 0, 0, 0, 0.7]], np.float32),
    gamma=np.float32([0.3]),
    number=np.int32([1]),
  )
  y = random(*canvases.x.shape[:3], 3)
  after, y0 = canvas.take_step(model, canvases, predict, steps, 0, (y, 0 * y))
  np.testing.assert_allclose(asked, [(0.3, 0.7)])
  np.testing.assert_array_equal(y0, 0.5 * y)
  np.testing.assert_allclose(after[:, :CELL], 2 * y[:, :CELL], rtol=1e-6)
  np.testing.assert_array_equal(after[:, CELL:], y[:, CELL:])
