"""What inputs become, against the degradations that models were trained with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from skimage import color, data

from sr3_jax.core import degradations
from sr3_jax.restoration import inputs
from sr3_jax.restoration.settings import UpscalerError
from sr3_jax.restoration.upscaler import Upscaler
from tests.support import models


def loaded(name, channels=3, **changes):
  network = models.Pointwise(channels)
  return models.loaded(network, task__name=name, data__channels=channels, **changes)


INPAINTING = loaded('inpainting')
MIXED = loaded('mixture', task__mixture=('inpainting', 'jpeg'))
COLOUR = loaded('colorization')


_augment = jax.jit(degradations.augment)


def photo(height=6, width=8):
  return data.astronaut()[100 : 100 + height, 150 : 150 + width]


# -------------------------------------------------------------------------- expand


@pytest.mark.parametrize(
  ('value', 'pixels'),
  [
    (3, (3, 3, 3, 3)),
    ('1, 2,3,4', (1, 2, 3, 4)),
    ((1, 2, 3, '50%'), (1, 2, 3, 20)),
    ('25%', (5, 10, 5, 10)),
    ('0,0,12.5%,0', (0, 0, 2, 0)),
  ],
)
def test_expand(value, pixels):
  assert inputs.margins(inputs.parse_expand(value), 20, 40) == pixels


@pytest.mark.parametrize('value', ['', '1,2', '-3', '3px', '1.5', '0', '0%,0,0,0', -1])
def test_bad_values_of_expand_are_refused(value):
  with pytest.raises(UpscalerError, match='expand='):
    inputs.parse_expand(value)


# ---------------------------------------------------------------------------- masks


def test_masks_of_all_kinds():
  want = np.zeros((6, 8, 1), np.float32)
  want[1:3, 4:] = 1
  flat = want[..., 0]
  light = (flat * 255).astype(np.uint8)
  kinds = [flat > 0, want, light, flat.astype(np.uint16) * 40000, flat * 0.6]
  kinds += [Image.fromarray(light), Image.fromarray(light).convert('1')]
  kinds += [Image.fromarray(np.stack([light] * 3, -1)), np.maximum(light // 2 + 1, 127)]
  for mask in kinds:
    np.testing.assert_array_equal(inputs.as_mask(mask, (6, 8)), want)
  with pytest.raises(UpscalerError, match='the mask has 6 x 8 pixels, the image 8 x 6'):
    inputs.as_mask(flat.T, (6, 8))


def test_transparent_pixels_are_missing():
  pixels = np.dstack([photo(), np.full((6, 8), 255, np.uint8)])
  pixels[2, 3:5, 3] = 0, 200
  for image in (Image.fromarray(pixels), Image.fromarray(pixels).convert('LA')):
    got = inputs.prepare(image, None, INPAINTING)
    assert got.mask.sum() == got.mask[2, 3] == 1 and not got.observed[2, 3].any()
  # What a mask says comes first.
  got = inputs.prepare(Image.fromarray(pixels), np.eye(6, 8), INPAINTING)
  assert got.mask.sum() == 6 and got.mask[2, 3] == 0
  with pytest.raises(UpscalerError, match='transparency'):
    inputs.prepare(Image.fromarray(pixels), None, COLOUR)


def test_something_must_be_missing_where_nothing_else_can_be_done():
  with pytest.raises(UpscalerError, match='give a mask'):
    inputs.prepare(photo(), None, INPAINTING)
  assert inputs.prepare(photo(), None, MIXED).mask is None
  grown = inputs.prepare(photo(), None, INPAINTING, (1, 0, 0, 2))
  assert grown.observed.shape == (7, 10, 3)
  want = degradations.masks.border(7, 10, 1, 0, 2, 0)[0]
  np.testing.assert_array_equal(grown.mask, want)
  # A mask grows along.
  grown = inputs.prepare(photo(), np.eye(6, 8), MIXED, (1, 0, 0, 2))
  np.testing.assert_array_equal(grown.mask[1:, 2:, 0], np.eye(6, 8))
  assert grown.mask.sum() == 6 + want.sum()


# ------------------------------------------------------------------------- channels


def test_colour_is_made_grey_for_colorization_and_that_is_said():
  notes = []
  got = inputs.prepare(photo(), None, COLOUR, note=notes.append)
  keys = jax.random.split(jax.random.key(0), 1)
  want = COLOUR.model.degrade(keys, jnp.asarray(photo()[None] / 127.5 - 1))[0]
  np.testing.assert_allclose(np.repeat(got.observed, 3, -1), want, atol=1e-6)
  assert got.channels == 3 and len(notes) == 1 and 'made grey' in notes[0]
  grey = color.rgb2gray(photo())
  grey = np.round(grey * 255).astype(np.uint8)
  for image in (grey, np.stack([grey] * 3, -1)):
    got = inputs.prepare(image, None, COLOUR, note=notes.append)
    np.testing.assert_allclose(got.observed[..., 0], grey / 127.5 - 1, atol=1e-6)
  assert len(notes) == 1 and got.channels == 3
  # The same where filling in is the only other thing to do.
  both = loaded('mixture', task__mixture=('colorization', 'inpainting'))
  assert inputs.prepare(photo(), None, both).observed.shape == (6, 8, 1)
  assert inputs.prepare(photo(), np.eye(6, 8), both).observed.shape == (6, 8, 3)


def test_grey_stays_grey_unless_the_model_colours():
  grey = photo()[..., 0]
  for model, channels in (
    (loaded('jpeg'), 1),
    (INPAINTING, 1),
    (loaded('mixture', task__mixture=('jpeg', 'colorization')), 3),
    (loaded('denoising', channels=1), 1),
  ):
    mask = np.eye(6, 8) if model is INPAINTING else None
    assert inputs.prepare(grey, mask, model).channels == channels
  one, notes = loaded('denoising', channels=1), []
  got = inputs.prepare(photo(), None, one, note=notes.append)
  assert got.observed.shape == (6, 8, 1) and 'one channel' in notes[0]


def test_ranges_of_the_model():
  ends = {'data__low': (0.0, 100.0), 'data__high': (1000.0, 300.0)}
  model = loaded('denoising', channels=2, **ends)
  stored = np.array([[[0, 100], [500, 200], [2000, 300]]], np.uint16)
  got = inputs.prepare(stored, None, model).observed
  np.testing.assert_allclose(got, [[[-1, -1], [0, 0], [3, 1]]], atol=1e-6)
  with pytest.raises(UpscalerError, match='not an image of 2 channels'):
    inputs.prepare(photo(), None, model)


# ------------------------------------------------------------------------ conditions


def test_conditions_are_those_of_training():
  image = photo().astype(np.float32) / 127.5 - 1
  mask = np.eye(6, 8)
  got = inputs.prepare(image, mask, INPAINTING)

  def make(model, p):
    return inputs.assemble(model.model, p.observed, p.mask, 0, 0, [0])

  want = degradations.with_hole(image[None], mask[None, ..., None])[0]
  np.testing.assert_array_equal(make(INPAINTING, got), want)
  # Without a mask all pixels may change and none is hidden, as in a mixture.
  whole = make(MIXED, inputs.prepare(image, None, MIXED))
  np.testing.assert_array_equal(whole[..., :3], image)
  assert (whole[..., 3] == 1).all()


@pytest.mark.parametrize('blur', [0.0, 0.6])
def test_cascade_stages_get_the_levels_of_their_augmentation(blur):
  model = loaded('cascade').model
  image = photo(16, 20).astype(np.float32) / 127.5 - 1
  got = inputs.assemble(model, image, None, blur, 0.0, [0])
  level = jnp.array([blur])
  want = _augment(jax.random.split(jax.random.key(0), 1), image[None], level, 0 * level)
  want = want[0]
  np.testing.assert_allclose(got, want, atol=2e-6)
  noisy = inputs.assemble(model, image, None, blur, 0.3, [0])
  error = noisy[..., :3] - np.sqrt(1 - 0.09) * got[..., :3]
  assert abs(error.std() - 0.3) < 0.02 and (noisy[..., 4] == np.float32(0.3)).all()
  other = inputs.assemble(model, image, None, blur, 0.3, [1])
  assert np.abs(other - noisy).max() > 0.1


# -------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
  ('task', 'options', 'message'),
  [
    ('generation', {}, 'this model is for generation.*--mode=sample'),
    ('jpeg', {'consistency': True}, 'no consistency: this model is for jpeg'),
    ('jpeg', {'expand': 3}, 'no expand: this model is for jpeg'),
    ('super_resolution', {'expand': 3}, 'for super resolution and fills in nothing'),
    ('denoising', {'noise': 0.1}, 'no noise: this model is for denoising'),
    ('cascade', {'noise': 0.6}, 'noise 0.6: this model knows 0 to 0.5'),
    ('cascade', {'blur': 0.8}, 'blur 0.8: this model knows 0 to 0.6'),
    ('cascade', {'blur': -1}, 'blur=-1 must be a number from 0 to 2'),
    ('cascade', {'blur': 0.5, 'consistency': True}, 'without blur'),
    ('cascade', {'guidance': 2}, 'no guidance: .* trained without classes'),
    ('inpainting', {'expand': '3,4'}, 'expand=3,4: one number'),
  ],
)
def test_options_that_do_not_fit_the_task(task, options, message):
  with pytest.raises(UpscalerError, match=message):
    Upscaler(loaded(task), **options)


def test_requests_that_do_not_fit_the_task():
  upscaler = Upscaler(loaded('jpeg'), steps=1)
  for options in ((2.0, None), (None, None, True), (None, 3)):
    with pytest.raises(UpscalerError, match='this model'):
      upscaler.check(*options)
  with pytest.raises(UpscalerError, match='no masks: this model is for jpeg'):
    upscaler.upscale(photo(), mask=np.eye(6, 8))
  several = MIXED.config
  assert inputs.describe(several) == 'a mixture of inpainting, jpeg'
