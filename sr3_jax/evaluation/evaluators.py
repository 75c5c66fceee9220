"""Evaluators: the networks and the reference set that measure beside formulas."""

import dataclasses
from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from sr3_jax.evaluation.scoring import Scorer
from sr3_jax.metrics import classifier, feature_nets, reference_statistics
from sr3_jax.metrics.classifier import Classifier
from sr3_jax.metrics.feature_nets import LeftOut
from sr3_jax.runtime import activity


@dataclasses.dataclass(frozen=True)
class Evaluators:
  """The networks and the reference statistics of one evaluation."""

  # Feature networks by name: 'inception', 'lpips_alex', 'lpips_vgg', 'dists'.
  nets: Mapping[str, feature_nets.FeatureNet]
  left_out: Sequence[LeftOut] = ()  # metrics that are missing and why, as in reports
  # Statistics for FID and KID; None compares with the true images.
  reference: reference_statistics.Reference | None = None
  classifier: Classifier | None = None  # of ImageNet's classes, for error rates

  def scorer(self, border: int) -> Scorer:
    """Return what measures images, with a border left out by PSNR and SSIM."""
    return Scorer(border=border, nets=self.nets, classifier=self.classifier)

  def fingerprints(self) -> dict[str, object]:
    """Return what identifies the networks, for the file that records depend on."""
    return {
      'networks': {name: net.fingerprint for name, net in self.nets.items()},
      'classifier': self.classifier.fingerprint if self.classifier else None,
    }

  def protocol(self) -> dict[str, object]:
    """Return what a protocol says about the networks and the reference set."""
    found: dict[str, object] = {}
    if self.nets:
      found['networks'] = {
        name: f'{net.about} ({net.fingerprint})' for name, net in self.nets.items()
      }
    if 'inception' in self.nets:
      about = self.reference.about if self.reference else 'the true images'
      found['reference set'] = about
    if self.classifier is not None:
      found['classifier'] = self.classifier.about
    return found


def load_evaluators(config: ConfigDict) -> Evaluators:
  """Load the evaluators that `eval` of a configuration names.

  A mistake in a file shows here, before the first image is restored.

  Raises:
    UserError: statistics or a classifier that cannot be read or do not fit.
  """
  e = config.eval
  side = e.image_size or config.data.image_size
  nets, left_out = feature_nets.load_nets(
    e.networks, e.weights, side, config.data.channels
  )
  reference = reference_statistics.load(e.reference) if e.reference else None
  if reference and 'inception' in nets:
    reference_statistics.check(reference, nets['inception'])
  with activity.doing('loading the classifier'):
    network = classifier.load(e.classifier) if e.classifier else None
  return Evaluators(nets, left_out, reference, network)
