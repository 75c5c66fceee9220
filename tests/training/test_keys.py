"""Tests that no two random choices of training and evaluation have the same key."""

import collections
import functools

import jax
import jax.numpy as jnp
import pytest

from sr3_jax.cascade import cascade
from sr3_jax.core.sr3 import SR3
from sr3_jax.restoration import restorer
from sr3_jax.training import train_step
from tests.support.sr3_models import photos, tiny

# What draws numbers from a key, rather than making other keys of it.
DRAWS = ('normal', 'uniform', 'bernoulli', 'randint', 'bits', 'truncated_normal')


@pytest.fixture
def drawn(monkeypatch) -> collections.Counter:
  """Count how often each key is drawn from, inside of compiled programs too."""
  counts = collections.Counter()

  def watch(draw):
    @functools.wraps(draw)
    def watched(key, *args, **kwargs):
      note = lambda data: counts.update([data.tobytes()])  # noqa: E731
      jax.debug.callback(note, jax.random.key_data(key), ordered=False)
      return draw(key, *args, **kwargs)

    return watched

  for name in DRAWS:
    monkeypatch.setattr(jax.random, name, watch(getattr(jax.random, name)))
  return counts


def test_every_choice_of_training_and_evaluation_has_its_own_key(drawn):
  """Steps 0 and 1, evaluation's samples 0 and 1, and the stages of a cascade.

  All have the same seed and the same numbers of images.
  """
  config = tiny(
    task__name='cascade',
    model__num_classes=3,
    model__label_dropout=0.5,
    model__dropout=0.5,
    sampler__num_steps=3,
  )
  model, place, image = SR3.from_config(config), jnp.arange(2), photos(2)
  params = model.init(jax.random.key(5))
  jax.effects_barrier()
  drawn.clear()
  label, low = jnp.array([0, 2]), model.to_float(image)

  @jax.jit
  def train(step):
    keys = train_step.example_keys(0, step, place)
    return model.loss(params, keys, {'image': image, 'label': label})

  @jax.jit
  def evaluate(sample):
    condition = model.degrade(restorer.keys(0, place, 0), low)
    keys = restorer.keys(0, place, sample)
    return model.restore(params, keys, condition, label=label)

  jax.block_until_ready([train(step) for step in (0, 1)])
  # The condition of an image is the same for all its samples.
  before = drawn.copy()
  jax.block_until_ready(evaluate(0))
  first = drawn - before
  jax.block_until_ready(evaluate(1))
  conditions = set(first) & set(drawn - before - first)
  for stage in (0, 1):
    augment = cascade._augment.__wrapped__(0, stage)
    augment(low[None], place[None], *jnp.float32([[0.4], [0.1]]))
  jax.effects_barrier()
  again = {key for key, count in drawn.items() if count > 1}
  assert again == conditions
  assert len(conditions) == 2 * 4  # blur, whether, noise and how much, of two images
  # Two levels, noise, class, the condition's four for each image; dropout; noises.
  assert len(drawn) > 2 * (2 * 8 + 1) + 2 * 2 * 3


def test_training_does_not_see_the_noise_that_evaluation_samples_with():
  place = jnp.arange(4)
  steps = [train_step.example_keys(7, step, place) for step in (0, 1, 2**16, 2**30)]
  samples = [restorer.keys(7, place, number) for number in (0, 1, 2**16, 2**16 + 1)]
  data = [jax.random.key_data(k).tobytes() for keys in steps + samples for k in keys]
  assert len(set(data)) == len(data)
