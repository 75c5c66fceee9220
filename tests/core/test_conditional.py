"""Conditions beside a small image: masks, classes, nothing at all; any channels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax.core import diffusion, samplers
from sr3_jax.core.sr3 import SR3
from tests.support.sr3_models import keys, photos, tiny, to_float

HOLES = {'task__name': 'inpainting', 'task__masks': 'rectangles'}
CLASSES = {'task__name': 'generation', 'model__num_classes': 3}


class Watch(SR3):
  """A model that remembers its network's inputs, and predicts ones; not for jit."""

  def predict(self, params, x, y, gamma, label=None, dropout_key=None):
    params.append({'x': x, 'y': y, 'gamma': gamma, 'label': label})
    return jnp.ones_like(y)


class Classes(SR3):
  """A model that predicts params[label]."""

  def predict(self, params, x, y, gamma, label=None, dropout_key=None):
    return jnp.broadcast_to(params[label][:, None, None, None], y.shape)


def correlation(a, b):
  return abs(np.corrcoef(np.ravel(a), np.ravel(b))[0, 1])


def test_the_noise_of_a_condition_is_in_nothing_else():
  # Were it that of the diffusion, a network could learn one from the other.
  model = Watch.from_config(tiny(task__name='denoising', task__noise=(0.2, 0.2)))
  image, seen = photos(4), []
  with jax.disable_jit():
    model.loss(seen, keys(4), {'image': image})
  x, y, gamma = (np.asarray(seen[0][k]) for k in ('x', 'y', 'gamma'))
  observed = x - to_float(image)
  assert observed.std() == pytest.approx(0.2, rel=0.1)
  gamma = gamma[:, None, None, None]
  eps = (y - np.sqrt(gamma) * model.encode(to_float(image), x)) / np.sqrt(1 - gamma)
  assert eps.std() == pytest.approx(1, rel=0.1)
  assert correlation(observed, eps) < 0.1
  for step in range(5):
    assert correlation(observed, model.noise(keys(4), x)(step)) < 0.1


def test_a_class_is_dropped_whatever_the_augmentation_is():
  cascade = {'task__name': 'cascade', 'model__num_classes': 3}
  model = Watch.from_config(tiny(**cascade, model__label_dropout=0.5))
  image, seen = np.repeat(photos(1), 64, axis=0), []
  batch = {'image': image, 'label': jnp.zeros(64, jnp.int32)}
  with jax.disable_jit():
    model.loss(seen, keys(64), batch)
  dropped = np.asarray(seen[0]['label']) == 3
  assert 16 < dropped.sum() < 48
  blur, noise = np.asarray(seen[0]['x'])[:, 0, 0, -2:].T
  for drawn in (blur, noise, np.asarray(seen[0]['gamma'])):
    assert correlation(dropped, drawn) < 0.5  # four standard deviations


@pytest.mark.parametrize('residual', [False, True])
def test_known_pixels_are_known_at_every_step_and_in_the_output(residual):
  model = Watch.from_config(
    tiny(sampler__num_steps=3, diffusion__residual=residual, **HOLES)
  )
  truth = to_float(photos(3))
  condition = model.degrade(keys(3), truth)
  known = np.asarray(condition[..., 3]) == 0
  assert 0.3 < known.mean() < 0.95
  x, seen = model.upsample(condition), []
  carry = model.begin(model.noise(keys(3, 1), x), x)
  gammas, coefficients = model.trajectory
  for step in range(3):
    now = samplers.Steps(
      np.float32([[*coefficients[step], coefficients[step][3], 1]]),
      np.float32([gammas[::-1][step]]),
      np.int32([step + 1]),
    )
    with jax.disable_jit():
      carry = model.advance(seen, model.noise(keys(3, 1), x), x, carry, now)
    np.testing.assert_array_equal(
      np.asarray(model.decode(carry[1], x))[known], truth[known]
    )
    shown = np.asarray(model.decode(seen[-1]['y'], x))
    np.testing.assert_array_equal(shown[known], truth[known])
    assert np.abs(shown[~known] - truth[~known]).mean() > 0.1
  output = np.asarray(model.finish(x, carry))
  np.testing.assert_array_equal(output[known], truth[known])
  assert (output[~known] != truth[~known]).mean() > 0.9
  assert len(seen) == 3


def test_training_shows_what_sampling_will():
  """The network sees known pixels as they are, and noise in the hole only."""
  model, seen = Watch.from_config(tiny(**HOLES)), []
  image = photos(4)
  model.loss(seen, keys(4), {'image': image})
  (shown,) = seen
  hole = np.asarray(shown['x'][..., 3]) == 1
  np.testing.assert_array_equal(np.asarray(shown['y'])[~hole], to_float(image)[~hole])
  noisy = np.asarray(shown['y'] - to_float(image))
  assert (noisy[hole] != 0).all()


@pytest.mark.parametrize('of_hole', [True, False])
def test_the_loss_is_of_the_hole(of_hole):
  model, seen = Watch.from_config(tiny(diffusion__hole_loss=of_hole, **HOLES)), []
  loss = model.loss(seen, keys(4), {'image': photos(4)})
  (shown,) = seen
  hole = np.asarray(shown['x'][..., 3:])
  gamma, y0 = shown['gamma'], to_float(photos(4))
  signal, noise = (np.asarray(s) for s in diffusion.scales(gamma))
  # Where pixels are missing, y tells the noise; elsewhere it was drawn, but not shown.
  eps = np.asarray((shown['y'] - signal * y0) / noise)
  error = np.abs(1 - eps)
  each = (error * hole).sum((1, 2, 3)) / (3 * hole.sum((1, 2, 3)))
  if of_hole:
    np.testing.assert_allclose(loss, each.mean(), rtol=1e-4)
  else:
    assert abs(loss - each.mean()) > 1e-3


def test_guidance_weighs_the_class():
  """It is u + w (c - u) of the network's outputs; each image has its own weight."""
  config = tiny(
    diffusion__prediction='y0', model__label_dropout=0.1, sampler__clip=False, **CLASSES
  )
  model = Classes.from_config(config)
  params = jnp.array([1.0, 2.0, 5.0, 3.0])  # the last is of no class
  y = jnp.zeros((3, 4, 4, 3))
  x, gamma, label = y[..., :0], jnp.full((3,), 0.5), jnp.array([0, 1, 2])

  def found(*guidance):
    return model.denoise(params, x, y, gamma, label, *guidance).y0[:, 0, 0, 0]

  np.testing.assert_allclose(found(), [1, 2, 5])
  np.testing.assert_allclose(found(jnp.array([1.0, 1.0, 1.0])), [1, 2, 5])
  np.testing.assert_allclose(found(jnp.array([0.0, 2.0, 3.0])), [3, 1, 9])


def test_some_examples_lose_their_class():
  model, seen = Watch.from_config(tiny(model__label_dropout=0.25, **CLASSES)), []
  label = np.arange(600) % 3
  image = np.broadcast_to(photos(1), (600, 16, 16, 3))
  model.loss(seen, keys(600), {'image': image, 'label': label})
  shown = np.asarray(seen[0]['label'])
  assert 105 < (shown == 3).sum() < 195
  np.testing.assert_array_equal(shown[shown != 3], label[shown != 3])
  again = []
  model.loss(again, keys(600), {'image': image, 'label': label})
  np.testing.assert_array_equal(again[0]['label'], shown)


def test_guidance_needs_a_model_that_was_trained_for_it():
  with pytest.raises(ValueError, match=r'model\.label_dropout'):
    SR3.from_config(tiny(sampler__guidance=2.0, **CLASSES))


def test_generation_starts_from_noise_and_class_alone():
  """The last layer starts at zero, so the network predicts 0."""
  model = SR3.from_config(tiny(diffusion__prediction='y0', **CLASSES))
  params = model.init(jax.random.key(0))
  condition = model.degrade(keys(2), to_float(photos(2)))
  assert condition.shape == (2, 16, 16, 0)
  restore = jax.jit(model.restore)
  output = restore(params, keys(2), condition, label=jnp.array([0, 2]))
  np.testing.assert_array_equal(
    output, 0
  )  # the last step takes the prediction as it is
  loss = jax.jit(model.loss)(
    params, keys(2), {'image': photos(2), 'label': np.array([0, 2])}
  )
  np.testing.assert_allclose(loss, np.abs(to_float(photos(2))).mean(), rtol=1e-5)


@pytest.mark.parametrize(('channels', 'dtype'), [(1, 'uint8'), (5, 'uint16')])
def test_any_number_of_channels(channels, dtype):
  config = tiny(data__channels=channels)
  model = SR3.from_config(config)
  params = model.init(jax.random.key(0))
  most = np.iinfo(dtype).max
  image = np.random.default_rng(0).integers(0, most, (2, 16, 16, channels), dtype)
  loss = jax.jit(model.loss)(params, keys(2), {'image': image})
  assert np.isfinite(loss) and loss > 0
  low = model.degrade(keys(2), model.to_float(image))
  assert low.shape == (2, 4, 4, channels)
  output = jax.jit(model.restore)(params, keys(2), low)
  assert output.shape == (2, 16, 16, channels)
  np.testing.assert_allclose(model.to_float(np.array([0, most], dtype)), [-1, 1])


def test_stored_values_have_ranges_of_their_own():
  config = tiny(data__channels=2, data__low=(100.0, -5.0), data__high=(1100.0, 5.0))
  model = SR3.from_config(config)
  image = np.array([[[[100, 0.0], [600, 5.0]]]], np.float32)
  np.testing.assert_allclose(model.to_float(image), [[[[-1, 0], [0, 1]]]], atol=1e-6)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (
      {'data__channels': 2, 'data__low': (0.0,), 'data__high': (1.0,)},
      'channels=2 numbers',
    ),
    ({'data__channels': 1, 'data__low': (1.0,), 'data__high': (1.0,)}, 'rising'),
    ({'data__channels': 1, 'task__name': 'jpeg'}, 'is for 3 channels'),
    ({'task__name': 'mixture'}, r'needs task\.mixture'),
    ({'task__name': 'sharpen'}, "task.name='sharpen' must be one of"),
  ],
)
def test_mistakes(changes, message):
  with pytest.raises(ValueError, match=message):
    SR3.from_config(tiny(**changes))
