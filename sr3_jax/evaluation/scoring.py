"""Measures every single image: formulas and networks, run on all devices.

Outputs are rounded before anything is measured, as files would be: to 8 bits, or to
what the true images are stored as. Nothing is averaged here; `summary` does that,
later, over whatever has been recorded.
"""

import functools
from collections.abc import Callable, Mapping
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from sr3_jax.core import degradations
from sr3_jax.core.sr3 import SR3
from sr3_jax.metrics import image_metrics
from sr3_jax.metrics.classifier import Classifier, top_k_hits
from sr3_jax.metrics.feature_nets import FeatureNet, unsuited
from sr3_jax.runtime import devices

# Identical images have no PSNR; this is far above what 8 bits can differ by.
_MOST_PSNR = 100.0
FEATURES = 'features'  # name of Inception's in the records

# Stored values that mean -1 and 1, one for each channel or one for all; None: anything
# in between can be stored, too.
Stored = tuple[tuple[float, ...], tuple[float, ...]] | None
EIGHT_BITS: Stored = ((0.0,), (255.0,))
Values = dict[str, jax.Array]
Apply = Callable[..., jax.Array]  # parameters and images [b, H, W, 3] -> numbers
Array = TypeVar('Array', np.ndarray, jax.Array)


def stored_as(model: SR3, dtype: np.typing.DTypeLike) -> Stored:
  """Return how true images of a type are stored, and so what outputs are rounded to."""
  given: np.dtype = np.dtype(dtype)
  if given.kind == 'f':
    return None
  if model.value_range is None:
    return (0.0,), (float(np.iinfo(given).max),)
  low, high = model.value_range
  return tuple(low.tolist()), tuple(high.tolist())


class Scorer:
  """Measures batches of images.

  PSNR and SSIM leave out `border` pixels at every side. Networks of `feature_nets`
  ('inception', 'lpips_alex', 'lpips_vgg', 'dists') and the classifier, for error rates
  of labelled images, are left out where images are `unsuited`.
  """

  def __init__(
    self,
    *,
    border: int = 0,
    nets: Mapping[str, FeatureNet] | None = None,
    classifier: Classifier | None = None,
  ):
    self.border, self.nets, self.classifier = border, nets or {}, classifier
    self._params = {n: devices.replicate(net.params) for n, net in self.nets.items()}

  def __call__(
    self,
    output: jax.Array,
    truth: jax.Array,
    low: jax.Array | None,
    condition: jax.Array | None,
    batch: Mapping[str, jax.Array],
    stored: Stored = EIGHT_BITS,
  ) -> dict[str, np.ndarray]:
    """Measure the real images of a batch, those of this process's devices.

    Args:
      output: [D, b, H, W, C] in [-1, 1].
      truth: the same.
      low: `output`, rounded and downsampled, [D, b, h, w, C]; None if there are no
        inputs to compare it with.
      condition: the inputs, like `low`.
      batch: 'mask' bool [D, b] and 'index' int32 [D, b]; 'label' for the classifier.
      stored: what `output` is rounded to.

    Returns:
      Arrays [n, ...] by name, 'index' among them.
    """
    output = quantize(output, stored)
    values = _formulas(self.border)(output, truth)
    if low is not None and condition is not None:
      values |= _low_formulas()(low, condition)
    side = min(output.shape[2:4])
    for name, net in self._suited(output).items():
      if name != 'inception' and side >= net.smallest:
        values[name] = _network(net.apply)(self._params[name], output, truth)
    return self._gather(values, output, batch)

  def of_set(
    self, image: jax.Array, batch: Mapping[str, jax.Array], stored: Stored = EIGHT_BITS
  ) -> dict[str, np.ndarray]:
    """Measure what sets are compared by: features and error rates of rounded images."""
    return self._gather({}, quantize(image, stored), batch)

  def _suited(self, image: jax.Array) -> dict[str, FeatureNet]:
    """Return the networks that images of so many channels suit."""
    channels = image.shape[-1]
    return {n: net for n, net in self.nets.items() if not unsuited(n, channels)}

  def _gather(
    self, values: dict[str, jax.Array], image: jax.Array, batch: Mapping[str, jax.Array]
  ) -> dict[str, np.ndarray]:
    """Add features and error rates; return the values of this process's real images."""
    if 'inception' in self._suited(image):
      net = self.nets['inception']
      values[FEATURES] = _network(net.apply)(self._params['inception'], image)
    mask = devices.gather(batch['mask'])
    gathered = devices.gather(values | {'index': batch['index']})
    found = {name: value[mask] for name, value in gathered.items()}
    suited = not unsuited('', image.shape[-1])
    if self.classifier is not None and suited and 'label' in batch:
      shown, labels = devices.gather((image, batch['label']))
      # A process may have no image of the last batch.
      shown = as_rgb(shown[mask])
      logits = self.classifier.logits(shown) if mask.any() else np.zeros((0, 1))
      for k in (1, 5):
        missed = 1.0 - top_k_hits(logits, labels[mask], k)
        found[f'top{k}_error'] = missed.astype(np.float32)
    return found


@functools.cache
def _network(apply: Apply) -> Apply:
  """Compile a network, once a process for however many scorers there are."""
  return devices.pmap(lambda params, *shown: apply(params, *map(as_rgb, shown)))


def as_rgb(image: Array) -> Array:
  """Return grey [..., 1] as R = G = B [..., 3], for networks; others as they are."""
  return image[..., np.zeros(3, int)] if image.shape[-1] == 1 else image


def quantize(image: jax.Array, stored: Stored = EIGHT_BITS) -> jax.Array:
  """Clip and round images [D, b, H, W, C] on all devices to what files hold."""
  return _rounding(stored)(image)


@functools.cache
def _rounding(stored: Stored) -> Callable[[jax.Array], jax.Array]:
  """Compile the rounding to what files of a type hold."""
  if stored is None:
    return devices.pmap(lambda image: jnp.clip(image, -1, 1))
  low, high = (
    np.reshape(values, (1, 1, 1, -1)).astype(np.float32) for values in stored
  )
  return devices.pmap(lambda image: image_metrics.quantize(image, low, high))


@functools.cache
def resized(kernel: str, height: int, width: int) -> Callable[[jax.Array], jax.Array]:
  """Compile the resizing of images [D, b, h, w, C], clipped to [-1, 1]."""
  resize = functools.partial(
    degradations.resize, height=height, width=width, kernel=kernel
  )
  return devices.pmap(lambda image: jnp.clip(resize(image), -1, 1))


@functools.cache
def _formulas(border: int) -> Callable[[jax.Array, jax.Array], Values]:
  """Compile what compares outputs with truths, [D, b, H, W, C] each."""

  def formulas(output, truth):
    values = {}
    height, width = output.shape[1:3]
    if height == width and height % 2 == 0:
      values['power'] = image_metrics.radial_power(output)
      values['power_truth'] = image_metrics.radial_power(truth)
    output, truth = (image_metrics.crop_border(a, border) for a in (output, truth))
    pairs = {'': (output, truth)}
    if output.shape[-1] == 3:  # of others there is no luma
      pairs['_y'] = image_metrics.luma(output), image_metrics.luma(truth)
    for suffix, pair in pairs.items():
      values[f'psnr{suffix}'] = jnp.minimum(image_metrics.psnr(*pair), _MOST_PSNR)
      if min(output.shape[1:3]) >= image_metrics.SSIM_WINDOW:
        values[f'ssim{suffix}'] = image_metrics.ssim(*pair)
    return values

  return devices.pmap(formulas)


@functools.cache
def _low_formulas() -> Callable[[jax.Array, jax.Array], Values]:
  """Compile what compares downsampled outputs with inputs, [D, b, h, w, C] each."""
  return devices.pmap(
    lambda low, condition: {
      'consistency': image_metrics.consistency(low, condition),
      'colour_drift': image_metrics.colour_drift(low, condition),
    }
  )
