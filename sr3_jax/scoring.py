"""Numbers for every single image: formulas and networks, run on all devices.

Outputs are rounded to 8 bits before anything is measured, as files would be. Nothing is
averaged here; `summary` does that, later, over whatever has been recorded.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sr3_jax import degradations, metrics, parallel
from sr3_jax.classifier import Classifier, top_k_hits
from sr3_jax.feature_nets import FeatureNet

# Identical images have no PSNR; this is far above what 8 bits can differ by.
_MOST_PSNR = 100.0
FEATURES = 'features'  # name of Inception's in the records


class Scorer:
  """Measures batches.

  Args:
    border: pixels left out at every side by PSNR and SSIM.
    nets: by name, of `feature_nets`: 'inception', 'lpips_alex', 'lpips_vgg'.
    classifier: for the error rates of labelled images.
  """

  def __init__(
    self,
    *,
    border: int = 0,
    nets: dict[str, FeatureNet] | None = None,
    classifier: Classifier | None = None,
  ):
    self.border, self.nets, self.classifier = border, nets or {}, classifier
    self._params = {n: parallel.replicate(net.params) for n, net in self.nets.items()}

  def __call__(
    self,
    output: jax.Array,
    truth: jax.Array,
    low: jax.Array | None,
    condition: jax.Array | None,
    batch: dict[str, jax.Array],
  ) -> dict[str, np.ndarray]:
    """Values of the real images of a batch, of this process's devices.

    Args:
      output: [D, b, H, W, C] in [-1, 1].
      truth: the same.
      low: `output` (8 bits) made small again, [D, b, h, w, C]; None if there are no
        inputs to compare it with.
      condition: the inputs, like `low`.
      batch: 'mask' bool [D, b] and 'index' int32 [D, b]; 'label' for the classifier.

    Returns:
      Arrays [n, ...] by name, 'index' among them.
    """
    output = quantize(output)
    values = _formulas(self.border)(output, truth)
    if low is not None:
      values |= _low_formulas()(low, condition)
    for name, net in self.nets.items():
      if name != 'inception':
        values[name] = _program(net.apply)(self._params[name], output, truth)
    return self._gather(values, output, batch)

  def of_set(
    self, image: jax.Array, batch: dict[str, jax.Array]
  ) -> dict[str, np.ndarray]:
    """What sets are compared by: features and error rates of images in 8 bits."""
    return self._gather({}, quantize(image), batch)

  def _gather(self, values, image, batch) -> dict[str, np.ndarray]:
    if 'inception' in self.nets:
      net = self.nets['inception']
      values[FEATURES] = _program(net.apply)(self._params['inception'], image)
    mask = parallel.gather(batch['mask'])
    gathered = parallel.gather(values | {'index': batch['index']})
    kept = {name: value[mask] for name, value in gathered.items()}
    if self.classifier is not None and 'label' in batch:
      shown, labels = parallel.gather((image, batch['label']))
      # Of the last batch a process may have nothing.
      logits = self.classifier.logits(shown[mask]) if mask.any() else np.zeros((0, 1))
      for k in (1, 5):
        missed = 1.0 - top_k_hits(logits, labels[mask], k)
        kept[f'top{k}_error'] = missed.astype(np.float32)
    return kept


@functools.cache
def _program(function: Callable[..., Any]) -> Callable[..., Any]:
  """One for each function and process, however many scorers there are."""
  return parallel.pmap(function)


def quantize(image: jax.Array) -> jax.Array:
  """[D, b, H, W, C] on all devices, rounded to the 256 levels of files."""
  return _program(metrics.quantize)(image)


@functools.cache
def resized(kernel: str, height: int, width: int) -> Callable[[jax.Array], jax.Array]:
  """Compiled: images [D, b, h, w, C] at another size, clipped to [-1, 1]."""

  def resize(image):
    return jnp.clip(degradations.resize(image, height, width, kernel), -1, 1)

  return parallel.pmap(resize)


@functools.cache
def _formulas(border: int) -> Callable[..., Any]:
  def formulas(output, truth):
    square = output.shape[1] == output.shape[2] and output.shape[1] % 2 == 0
    powers = {}
    if square:
      powers = {
        'power': metrics.radial_power(output),
        'power_truth': metrics.radial_power(truth),
      }
    output, truth = (metrics.crop_border(a, border) for a in (output, truth))
    pair = output, truth
    luma = metrics.luma(output), metrics.luma(truth)
    limit = lambda value: jnp.minimum(value, _MOST_PSNR)
    values = {'psnr': limit(metrics.psnr(*pair)), 'psnr_y': limit(metrics.psnr(*luma))}
    if min(output.shape[1:3]) >= metrics.SSIM_WINDOW:
      values |= {'ssim': metrics.ssim(*pair), 'ssim_y': metrics.ssim(*luma)}
    return values | powers

  return parallel.pmap(formulas)


@functools.cache
def _low_formulas() -> Callable[..., Any]:
  def formulas(low, condition):
    return {
      'consistency': metrics.consistency(low, condition),
      'colour_drift': metrics.colour_drift(low, condition),
    }

  return parallel.pmap(formulas)
