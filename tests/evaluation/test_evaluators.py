"""Evaluators: as configurations name them, and as protocols describe them."""

import ml_collections
import numpy as np

from sr3_jax.evaluation.evaluators import Evaluators, load_evaluators
from tests.support import feature_networks


class Cats:
  """A classifier."""

  fingerprint, about = 'a1b2', 'cats'


def test_fingerprints_and_protocol_name_every_network():
  inception = feature_networks.inception()
  evaluators = Evaluators({'inception': inception}, classifier=Cats())
  assert evaluators.fingerprints() == {
    'networks': {'inception': inception.fingerprint},
    'classifier': 'a1b2',
  }
  assert evaluators.protocol() == {
    'networks': {'inception': f'{inception.about} ({inception.fingerprint})'},
    'reference set': 'the true images',
    'classifier': 'cats',
  }


def test_without_networks_a_protocol_says_nothing_about_them():
  evaluators = Evaluators({})
  assert evaluators.protocol() == {}
  assert evaluators.fingerprints() == {'networks': {}, 'classifier': None}
  assert evaluators.scorer(3).border == 3


def test_networks_that_images_do_not_suit_are_left_out_with_the_reason(tmp_path):
  config = ml_collections.ConfigDict(
    {
      'data': {'image_size': 64, 'channels': 2},
      'eval': {
        'image_size': 0,
        'networks': ('inception', 'lpips_alex'),
        'weights': str(tmp_path),
        'reference': '',
        'classifier': '',
      },
    }
  )
  evaluators = load_evaluators(config)
  assert evaluators.nets == {} and evaluators.classifier is None
  missing = [metric for entry in evaluators.left_out for metric in entry['metrics']]
  assert set(missing) >= {'fid', 'kid', 'is', 'lpips_alex'}
  assert all(entry['why'] for entry in evaluators.left_out)
  assert not np.any(evaluators.reference)
