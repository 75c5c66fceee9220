"""Networks on eight devices say what they say when they are called directly."""

import numpy as np
import pytest

from sr3_jax.evaluation.scoring import FEATURES, Scorer
from sr3_jax.images import pixels
from sr3_jax.metrics import classifier
from sr3_jax.runtime import devices
from tests.support import feature_networks


class Brightness:
  """A classifier of four classes by the mean of an image; refuses to see nothing."""

  def logits(self, shown):
    assert len(shown)
    level = np.asarray(shown).mean((1, 2, 3))
    return -np.abs(level[:, None] - np.linspace(-1, 1, 7)[None])


@pytest.fixture(scope='module')
def pair():
  """Outputs (not yet 8 bits) and truth, [16, 16, 16, 3] in [-1, 1]."""
  draw = np.random.default_rng(0)
  base = draw.uniform(-0.8, 0.8, (16, 1, 1, 3))
  made = [base + draw.normal(0, 0.3, (16, 16, 16, 3)) for _ in range(2)]
  truth = pixels.to_float(pixels.to_uint8(made[1]))
  return np.float32(made[0]), truth


def make_batch(real: int) -> dict[str, np.ndarray]:
  mask = np.arange(16) % 8 < real // 2  # padding in the middle, as of two processes
  index = np.where(mask, 40 - np.arange(16), -1).astype(np.int32)
  return {'mask': mask, 'index': index, 'label': np.arange(16, dtype=np.int32) % 7}


@pytest.fixture(scope='module')
def scorer():
  nets = {
    'inception': feature_networks.inception(),
    'lpips_alex': feature_networks.lpips('x'),
  }
  return Scorer(nets=nets, classifier=Brightness())


def measure(scorer, pair, batch, truth=False):
  output, other, sharded = devices.shard((*pair, batch))
  if truth:
    return scorer.of_set(other, sharded)
  return scorer(output, other, None, None, sharded)


@pytest.mark.parametrize('real', [16, 10])
def test_networks_equal_direct_calls(scorer, pair, real):
  batch = make_batch(real)
  mask = batch['mask']
  # Outputs are measured as files of 8 bits would be.
  output, truth = pixels.to_float(pixels.to_uint8(pair[0]))[mask], pair[1][mask]
  values = measure(scorer, pair, batch)
  np.testing.assert_array_equal(values['index'], batch['index'][mask])

  def compare(got, want):
    return np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)

  compare(values[FEATURES], feature_networks.features(output))
  compare(values['lpips_alex'], feature_networks.distance(output, truth))
  assert values[FEATURES].dtype == values['lpips_alex'].dtype == np.float32
  assert 'consistency' not in values  # there was no input
  of_truth = measure(scorer, pair, batch, truth=True)
  compare(of_truth[FEATURES], feature_networks.features(truth))
  assert set(of_truth) == {'index', FEATURES, 'top1_error', 'top5_error'}
  for found, shown in ((values, output), (of_truth, truth)):
    ranks = np.argsort(-Brightness().logits(shown), axis=1)
    labels = batch['label'][mask][:, None]
    for k in (1, 5):
      want = ~(ranks[:, :k] == labels).any(1)
      np.testing.assert_array_equal(found[f'top{k}_error'], want)
    assert 0 < found['top1_error'].mean() > found['top5_error'].mean()


def test_a_batch_without_images_of_this_process(scorer, pair):
  values = measure(scorer, pair, make_batch(0))
  assert {len(value) for value in values.values()} == {0}
  assert {FEATURES, 'psnr', 'lpips_alex', 'top1_error', 'top5_error'} <= set(values)


def test_a_label_that_the_classifier_lacks_is_the_users_mistake(scorer, pair):
  batch = make_batch(16)
  batch['label'][3] = 7
  with pytest.raises(classifier.ClassifierError, match='labels go from 0 to 7'):
    measure(scorer, pair, batch)
