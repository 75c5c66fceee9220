"""Properties of every task, and of single ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
from PIL import Image

from sr3_jax.config import get_config
from sr3_jax.core import degradations
from sr3_jax.core.degradations import TASKS, tasks

SIDE = 32
MIXED = ('inpainting', 'colorization', 'denoising', 'super_resolution')
COMPRESSING = ('jpeg', 'blind_super_resolution', 'photo_super_resolution')
NAMES = [*TASKS, 'mixture']


def options(**changes):
  config = get_config()
  config.task.mixture = MIXED
  config.task.update(changes)
  return config.task


@pytest.fixture(scope='module')
def photos():
  """Four crops in [-1, 1]."""
  whole = skimage.data.astronaut()[:256, :256].reshape(8, SIDE, 8, SIDE, 3)
  crops = whole.transpose(0, 2, 1, 3, 4).reshape(-1, SIDE, SIDE, 3)[[9, 27, 30, 36]]
  return crops.astype(np.float32) / 127.5 - 1


def keys(*numbers):
  return jax.vmap(jax.random.key)(jnp.array(numbers))


@pytest.mark.parametrize('name', NAMES)
def test_what_holds_for_every_task(photos, name):
  task = degradations.make(name, options())
  degrade = jax.jit(task.degrade)
  key = keys(5, 6, 7, 8)
  condition = np.asarray(degrade(key, photos))

  small = SIDE // task.scale
  assert condition.shape == (4, small, small, task.num_channels(3))
  assert condition.dtype == np.float32 and np.isfinite(condition).all()
  if name not in ('denoising', 'cascade', 'mixture'):  # noise has no bounds
    assert np.abs(condition).max(initial=0) <= 1.2

  # Another key, another result, where something is random; else the same.
  other = np.asarray(degrade(keys(1, 2, 3, 4), photos))
  fixed = name in ('super_resolution', 'generation', 'colorization', 'pairs')
  assert np.array_equal(condition, other) == fixed

  # An example's result is its own: whatever its place and its neighbours are.
  order = np.array([2, 0, 3, 1])
  moved = degrade(key[order], photos[order])
  np.testing.assert_array_equal(moved, condition[order])
  crowd = np.concatenate([photos[:1], photos[:1] * 0.5, photos[:1] * 0, -photos[:1]])
  np.testing.assert_array_equal(degrade(keys(5, 1, 2, 3), crowd)[0], condition[0])

  # vmap over a further axis.
  twice = jax.jit(jax.vmap(task.degrade))(
    jnp.stack([key, key]), jnp.stack([photos, photos])
  )
  # Rounding of JPEG may fall the other way in another program.
  close = np.abs(np.asarray(twice) - condition) < 1e-4
  assert close.mean() > 0.9 if name in COMPRESSING else close.all()

  gradient = jax.jit(jax.grad(lambda hr: jnp.sum(jnp.square(task.degrade(key, hr)))))
  found = np.asarray(gradient(photos))
  assert np.isfinite(found).all()
  assert (found != 0).any() == (name != 'generation')

  if 'mask' in task.extras:
    known = condition[..., 3] == 0
    assert set(np.unique(condition[..., 3])) <= {0, 1}
    np.testing.assert_array_equal(condition[known][:, :3], photos[known])
    hidden = np.array([mask.mean() for mask in condition[..., 3]])
    assert ((hidden > 0.02) & (hidden <= 1)).all()


@pytest.mark.parametrize('name', [n for n, task in TASKS.items() if task.conditional])
def test_a_mixture_of_one_is_that_task(photos, name):
  single = degradations.make(name, options())
  if single.paired or single.extras not in ((), ('mask',)):
    with pytest.raises(ValueError, match=f'{name!r} cannot be a part'):
      degradations.make('mixture', options(mixture=(name,)))
    return
  key = keys(1, 2, 3, 4)
  mixed = degradations.make('mixture', options(mixture=(name,)))
  found = np.asarray(jax.jit(mixed.degrade)(key, photos))
  want = jax.jit(single.degrade)(key, photos)
  if single.scale > 1:
    want = degradations.resize(want, SIDE, SIDE)
  close = np.abs(found[..., :3] - want[..., :3]) < 1e-4
  assert close.mean() > 0.9 if name in COMPRESSING else close.all()
  mask = np.asarray(want[..., 3:]) if single.extras else np.ones((4, SIDE, SIDE, 1))
  np.testing.assert_array_equal(found[..., 3:], mask)


def test_a_mixture_has_every_part_about_as_often(photos):
  mixture = degradations.make(
    'mixture', options(mixture=('colorization', 'inpainting'))
  )
  many = np.repeat(photos[:1, :8, :8], 400, axis=0)
  found = jax.jit(mixture.degrade)(keys(*range(400)), many)
  grey = np.ptp(found[..., :3], axis=-1).max((1, 2)) < 1e-6
  all_missing = found[..., 3].mean((1, 2)) == 1
  assert (grey == all_missing).all() and 150 < grey.sum() < 250


def test_colorization_is_given_the_luma_of_pillow(photos):
  pixels = np.round((photos[0] + 1) * 127.5).astype(np.uint8)
  want = np.asarray(Image.fromarray(pixels).convert('L'), np.float32)
  found = degradations.make('colorization', {}).degrade(None, photos[:1])[0]
  assert np.abs((found + 1) * 127.5 - want[..., None]).max() <= 0.51


def test_augmentation_says_what_it_did(photos):
  """Levels of 0 change nothing; others give that noise, and stand in channels."""

  def level(*values):
    return jnp.array(values, jnp.float32)

  zero = degradations.augment(keys(1), photos[:1], level(0), level(0))
  np.testing.assert_array_equal(zero[..., :3], photos[:1])
  np.testing.assert_array_equal(zero[..., 3:], 0)
  flat = np.full((2, 64, 64, 3), 0.5, np.float32)
  found = degradations.augment(keys(1, 2), flat, level(0, 0.7), level(0.3, 0.6))
  np.testing.assert_allclose(found[..., :3].mean((1, 2, 3)), [0.477, 0.4], atol=0.01)
  np.testing.assert_allclose(found[..., :3].std((1, 2, 3)), [0.3, 0.6], rtol=0.02)
  np.testing.assert_allclose(found[..., 3].mean((1, 2)), [0, 0.7], rtol=1e-6)
  np.testing.assert_allclose(found[..., 4].mean((1, 2)), [0.3, 0.6], rtol=1e-6)


def test_half_of_a_cascades_inputs_are_blurred(photos):
  task = degradations.make('cascade', options(augment_blur=(0.4, 0.6)))
  many = np.repeat(photos[:1, :8, :8], 400, axis=0)
  blur, noise = jax.jit(task.degrade)(keys(*range(400)), many)[:, 0, 0, 3:].T
  assert 150 < (blur == 0).sum() < 250
  assert 0.4 <= blur[blur > 0].min() < 0.45 and 0.55 < blur.max() <= 0.6
  assert noise.min() < 0.02 and 0.48 < noise.max() <= 0.5
  assert abs(np.corrcoef(blur, noise)[0, 1]) < 0.15
  always = degradations.make('cascade', options(augment_blur=(0.5, 0.5)))
  np.testing.assert_array_equal(always.degrade(keys(1, 2), many[:2])[..., 3], 0.5)


def test_half_of_a_photo_tasks_inputs_are_nothing_but_bicubic(photos):
  task = degradations.make('photo_super_resolution', options())
  numbers = keys(*range(64))
  hr = np.repeat(photos[:1], 64, axis=0)
  found = np.asarray(jax.jit(task.degrade)(numbers, hr))
  picture = Image.fromarray(((photos[0] + 1) * 127.5).round().astype(np.uint8))
  truth = np.asarray(picture.resize((8, 8), Image.BICUBIC), np.float32) / 127.5 - 1
  error = np.abs(found - truth).mean((1, 2, 3))
  exact = error < 0.005  # Pillow's rounding
  # 64 fair coins: outside of this once in 2,000 times.
  assert 18 <= exact.sum() <= 46
  # The others are another image, though not by much.
  assert error[~exact].max() < 0.1


def test_names_that_are_not_known():
  with pytest.raises(ValueError, match="unknown task 'magic'; known: super_resolution"):
    degradations.make('magic', options())
  with pytest.raises(ValueError, match=r'needs task\.mixture'):
    degradations.make('mixture', options(mixture=()))
  with pytest.raises(ValueError, match="'generation' cannot be a part"):
    degradations.make('mixture', options(mixture=('jpeg', 'generation')))


def test_a_task_describes_itself():
  text = degradations.describe('super_resolution', options())
  assert 'bicubic' in text and 'scale 4' in text
  assert 'quality (5, 30)' in degradations.describe('jpeg', options())
  assert set(tasks.MASKS) == {'mix', 'free_form', 'rectangles'}
