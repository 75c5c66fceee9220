"""Tests of progressive distillation: steps, targets, and what can't be distilled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax.config import ConfigError
from sr3_jax.core import degradations, diffusion, distillation, samplers
from sr3_jax.core.sr3 import SR3
from tests.support.sr3_models import Oracle, condition_of, keys, photos, tiny, to_float


def student(steps=4, **changes):
  """Return the configuration of a student of so many steps."""
  options = {
    'sampler.name': 'ddim',
    'sampler.num_steps': steps,
    'sampler.spacing': 'cosine',
    'diffusion.schedule': 'cosine',
    'train.distill_from': 'teacher',
  }
  config = tiny()
  config.update_from_flattened_dict(
    options | {key.replace('__', '.'): value for key, value in changes.items()}
  )
  return config


def build(config, kind=SR3):
  """Return a model of a kind, and the steps that it learns."""
  model = kind.from_config(config)
  return model, distillation.halving(config, model.gammas)


def ddim_step(y, y0, start, end):
  """Take the step of arXiv:2010.02502 (eq. 12, no noise) in float64."""
  eps = (y - np.sqrt(start) * y0) / np.sqrt(1 - start)
  return np.sqrt(end) * y0 + np.sqrt(1 - end) * eps


@pytest.mark.parametrize('spacing', ['cosine', 'time'])
@pytest.mark.parametrize('schedule', ['cosine', 'linear'])
@pytest.mark.parametrize('steps', [1, 3, 4, 25])
def test_one_step_to_the_goal_ends_where_two_steps_of_the_teacher_end(
  spacing, schedule, steps
):
  """The steps are those of the paper, at the levels that the samplers go through."""
  config = student(steps, sampler__spacing=spacing, diffusion__schedule=schedule)
  model, halving = build(config)
  taken = samplers.steps(*model.trajectory)
  np.testing.assert_array_equal(halving.gamma, taken.gamma)
  levels = diffusion.respace(model.gammas, 2 * steps, spacing)
  np.testing.assert_array_equal(
    halving.middle, samplers.steps(levels, samplers.ddim(levels)).gamma[1::2]
  )

  def predict(y, gamma):
    return np.tanh(1.5 * y + gamma) * (1 - gamma / 3)

  def denoise(y, gamma):
    return samplers.Prediction(jnp.asarray(predict(y, gamma[:, None, None, None])))

  y = np.random.default_rng(0).normal(size=(steps, 2, 2, 3)).astype(np.float32)
  teacher = distillation.Teacher({}, halving)
  y0, eps = teacher.goal(denoise, jnp.asarray(y), jnp.asarray(halving.gamma))
  for i in range(steps):
    start, middle, end = levels[::-1][2 * i : 2 * i + 3]
    between = ddim_step(
      np.float64(y[i]), predict(np.float64(y[i]), start), start, middle
    )
    wanted = ddim_step(between, predict(between, middle), middle, end)
    got = ddim_step(np.float64(y[i]), np.float64(y0[i]), start, end)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-4)
    again = np.sqrt(start) * y0[i] + np.sqrt(1 - start) * eps[i]
    np.testing.assert_allclose(again, y[i], rtol=0, atol=1e-4)


SPREAD = 0.7  # of the pixels of the toy below


class Gaussian(SR3):
  """Predicts y0 = slope y; `params` are levels [n] and a slope for each.

  Where pixels are normal with mean 0, the best prediction is of this kind, with the
  slope of `best`, and so is what a student of the best predictor has to learn.
  """

  def predict(self, params, x, y, gamma, label=None, dropout_key=None):
    levels, slopes = params
    place = jnp.argmin(jnp.abs(gamma[:, None] - levels[None]), axis=1)
    y0 = jnp.asarray(slopes)[place, None, None, None] * y
    signal, noise = diffusion.scales(gamma)
    eps = (y - signal * y0) / noise
    return diffusion.target(self.prediction, y0, eps, gamma)


def best(gamma):
  """Return E[y0 | y] / y for y0 of the spread and y = sqrt(g) y0 + sqrt(1 - g) eps."""
  return np.sqrt(gamma) * SPREAD**2 / (gamma * SPREAD**2 + 1 - gamma)


def closed_form(start, middle, end):
  """Return the slope that makes one step of what the best predictor does in two."""

  def factor(slope, start, end):  # by which a step multiplies y
    return ddim_step(1.0, slope, start, end)

  two = factor(best(start), start, middle) * factor(best(middle), middle, end)
  ratio = np.sqrt((1 - end) / (1 - start))
  return (two - ratio) / (np.sqrt(end) - ratio * np.sqrt(start))


@pytest.mark.parametrize('prediction', ['eps', 'v', 'y0'])
def test_the_loss_is_zero_for_the_closed_form_of_a_gaussian(prediction):
  """The teacher's own prediction, which would be right elsewhere, is not."""
  config = student(3, diffusion__prediction=prediction, sampler__clip=False)
  model, halving = build(config, Gaussian)
  levels = diffusion.respace(model.gammas, 6, 'cosine')[::-1]
  slopes = [closed_form(*levels[i : i + 3]) for i in (0, 2, 4)]
  steps = (np.float32(levels[0:5:2]), np.float32(slopes))
  own = (steps[0], np.float32(best(levels[0:5:2])))
  teacher = distillation.Teacher(
    (np.float32(levels[:6]), np.float32(best(levels[:6]))), halving
  )

  @jax.jit
  def loss(params):
    return model.loss(params, keys(16), {'image': photos(16)}, teacher=teacher)

  assert loss(steps) < 2e-5
  assert loss(own) > 2e-2


def goal_of(config, image):
  """Return a model, and the y0 that its loss asks for, which its gradient says.

  The loss must be of squared errors of y0. The teacher is `Free`.
  """
  model, halving = build(config, Free)
  teacher = distillation.Teacher(None, halving)

  def loss(y0):
    return model.loss(y0, keys(len(image)), {'image': image}, teacher=teacher)

  return model, -jax.grad(loss)(jnp.zeros(image.shape)) * image.size / 2


class Free(SR3):
  """A student that outputs `params`; a teacher that is blind to its condition."""

  def predict(self, params, x, y, gamma, label=None, dropout_key=None):
    return params if params is not None else 0.3 * y


@pytest.mark.parametrize('consistency', [False, True])
def test_a_student_of_consistent_steps_learns_consistent_images(consistency):
  config = student(
    *(2,),
    diffusion__prediction='y0',
    diffusion__loss='l2',
    diffusion__residual=True,
    sampler__clip=False,
    sampler__consistency=consistency,
  )
  image = photos(4)
  model, y0 = goal_of(config, image)
  condition = condition_of(image)
  got = degradations.resize(model.decode(y0, model.upsample(condition)), 4, 4)
  error = np.abs(got - condition).max()
  assert error < 1e-4 if consistency else error > 1e-2


def test_a_teacher_that_knows_the_truth_teaches_the_truth():
  model, halving = build(student(4, diffusion__prediction='v'), Oracle)
  truth = to_float(photos())
  teacher = distillation.Teacher(truth, halving)
  batch = {'image': photos()}
  assert model.loss(truth, keys(4), batch, teacher=teacher) < 1e-5
  assert model.loss(0 * truth, keys(4), batch, teacher=teacher) > 1e-2


def test_known_pixels_are_those_of_the_image():
  config = student(
    *(2,),
    task__name='inpainting',
    diffusion__prediction='y0',
    diffusion__loss='l2',
    diffusion__hole_loss=False,
  )
  image = photos(4)
  model, y0 = goal_of(config, image)
  known = np.asarray(model.missing(model.degrade(keys(4), to_float(image))) == 0)
  error = np.abs(np.asarray(y0) - to_float(image)) * known
  assert 0.1 < known.mean() < 0.95
  assert error.max() < 1e-5


def test_teacher_and_student_see_the_same_classes():
  seen = []

  class Watch(SR3):
    def predict(self, params, x, y, gamma, label=None, dropout_key=None):
      seen.append((params, np.asarray(label), np.asarray(gamma)))
      return 0 * y

  config = student(2, model__num_classes=9, model__label_dropout=0.5)
  model, halving = build(config, Watch)
  batch = {'image': photos(9), 'label': np.arange(9)}
  teacher = distillation.Teacher('teacher', halving)
  model.loss('student', keys(9), batch, teacher=teacher)
  assert [who for who, _, _ in seen] == ['teacher', 'teacher', 'student']
  for _, label, _ in seen:
    np.testing.assert_array_equal(label, seen[0][1])
  assert 0 < np.sum(seen[0][1] == 9) < 9
  np.testing.assert_array_equal(seen[2][2], seen[0][2])
  assert np.all(seen[1][2] > seen[0][2])


def test_levels_are_those_where_steps_start_equally_often():
  model, halving = build(student(4))
  teacher = distillation.Teacher({}, halving)
  gamma = jax.vmap(lambda key: model._sample_gamma(key, teacher))(keys(2000))
  found, counts = np.unique(np.asarray(gamma), return_counts=True)
  np.testing.assert_array_equal(found, halving.gamma)
  assert counts.min() > 420
  model, halving = build(student(4, diffusion__start_share=0.5))
  gamma = jax.vmap(lambda key: model._sample_gamma(key, teacher))(keys(2000))
  assert 0.57 < np.mean(np.asarray(gamma) == halving.gamma[0]) < 0.68  # of 0.625


@pytest.mark.parametrize(
  ('changes', 'wanted'),
  [
    ({'method': 'regression'}, "method='regression' has one step already"),
    ({'train.init_from': 'other'}, 'train.init_from: a student starts from'),
    ({'sampler.name': 'ddpm'}, "sampler.name='ddim' with sampler.eta=0, not 'ddpm'"),
    ({'sampler.eta': 0.5}, "not 'ddim' with 0.5"),
    ({'sampler.guidance': 2.0}, 'sampler.guidance=2 is no part'),
    ({'sampler.num_steps': 1001}, 'needs a teacher of 2002 steps.*num_levels=2000'),
    ({'sampler.spacing': 'log_snr'}, "spacing='log_snr', levels of 4 steps.*'cosine'"),
    ({'sampler.spacing': 'trained'}, "spacing='trained', levels of 4 steps"),
  ],
)
def test_what_cannot_be_distilled_is_refused_in_a_line(changes, wanted):
  config = student()
  gammas = SR3.from_config(config).gammas
  config.update_from_flattened_dict(changes)
  with pytest.raises(ConfigError, match=f'train.distill_from.*{wanted}') as error:
    distillation.halving(config, gammas)
  assert '\n' not in str(error.value)
