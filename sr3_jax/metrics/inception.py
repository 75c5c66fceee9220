"""Runs the Inception-v3 behind FID, KID and the inception score.

FID is defined by one set of weights, the network of 2015-12-05 that Google released as
a TensorFlow graph; PyTorch programs read it as `pt_inception-2015-12-05-6726825d.pth`.
It differs from torchvision's Inception-v3: 1008 classes, average pools that don't count
their padding, and a max pool in the last block. Blocks and branches carry their PyTorch
names; batch normalisation, fixed at inference, is folded into the convolutions.

The resizing to 299 x 299 is a part of the metric. Here it is what pytorch-fid does:
bilinear between pixel centres, without antialiasing (`RESIZE`). The original graph, and
torch-fidelity after it, sample at pixel corners instead; their figures differ a little.
"""

from collections.abc import Mapping
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from sr3_jax.runtime.types import Params

Array = jax.Array

SIDE = 299
RESIZE = (
  f'to {SIDE} x {SIDE}, bilinear between pixel centres, no antialiasing, as pytorch-fid'
)
_OTHER = 'not the Inception-v3 of FID'
# Epsilon of the batch normalisations; PyTorch's default is smaller.
_EPSILON = 1e-3


class InceptionV3(nn.Module):
  """The network from images to features; call `features`, which resizes as FID does."""

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Return features [B, 2048] of images [B, H, W, 3] in [-1, 1], of sides from 75."""
    x = _conv(x, 'Conv2d_1a_3x3', 32, 3, stride=2)
    x = _conv(x, 'Conv2d_2a_3x3', 32, 3, padding='VALID')
    x = _conv(x, 'Conv2d_2b_3x3', 64, 3)
    x = _shrink(x)
    x = _conv(x, 'Conv2d_3b_1x1', 80, 1)
    x = _conv(x, 'Conv2d_4a_3x3', 192, 3, padding='VALID')
    x = _shrink(x)
    x = BlockA(32, name='Mixed_5b')(x)
    x = BlockA(64, name='Mixed_5c')(x)
    x = BlockA(64, name='Mixed_5d')(x)
    x = BlockB(name='Mixed_6a')(x)
    x = BlockC(128, name='Mixed_6b')(x)
    x = BlockC(160, name='Mixed_6c')(x)
    x = BlockC(160, name='Mixed_6d')(x)
    x = BlockC(192, name='Mixed_6e')(x)
    x = BlockD(name='Mixed_7a')(x)
    x = BlockE(name='Mixed_7b')(x)
    x = BlockE(max_pool=True, name='Mixed_7c')(x)
    return jnp.mean(x, axis=(1, 2))


class BlockA(nn.Module):
  """Block of 35 x 35: 1 x 1, 5 x 5, and two 3 x 3 convolutions, and a pool."""

  pool_features: int  # channels of the last branch

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Return the concatenated branches, [B, H, W, channels]."""
    one = _conv(x, 'branch1x1', 64, 1)
    five = _conv(x, 'branch5x5_1', 48, 1)
    five = _conv(five, 'branch5x5_2', 64, 5)
    three = _conv(x, 'branch3x3dbl_1', 64, 1)
    three = _conv(three, 'branch3x3dbl_2', 96, 3)
    three = _conv(three, 'branch3x3dbl_3', 96, 3)
    pool = _conv(_average(x), 'branch_pool', self.pool_features, 1)
    return jnp.concatenate([one, five, three, pool], axis=-1)


class BlockB(nn.Module):
  """Block from 35 x 35 to 17 x 17."""

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Return the concatenated branches, [B, H, W, channels]."""
    three = _conv(x, 'branch3x3', 384, 3, stride=2)
    double = _conv(x, 'branch3x3dbl_1', 64, 1)
    double = _conv(double, 'branch3x3dbl_2', 96, 3)
    double = _conv(double, 'branch3x3dbl_3', 96, 3, stride=2)
    return jnp.concatenate([three, double, _shrink(x)], axis=-1)


class BlockC(nn.Module):
  """Block of 17 x 17: 7 x 7 convolutions as pairs of 1 x 7 and 7 x 1."""

  width: int  # channels within the branches

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Return the concatenated branches, [B, H, W, channels]."""
    one = _conv(x, 'branch1x1', 192, 1)
    seven = _conv(x, 'branch7x7_1', self.width, 1)
    seven = _conv(seven, 'branch7x7_2', self.width, (1, 7))
    seven = _conv(seven, 'branch7x7_3', 192, (7, 1))
    double = _conv(x, 'branch7x7dbl_1', self.width, 1)
    double = _conv(double, 'branch7x7dbl_2', self.width, (7, 1))
    double = _conv(double, 'branch7x7dbl_3', self.width, (1, 7))
    double = _conv(double, 'branch7x7dbl_4', self.width, (7, 1))
    double = _conv(double, 'branch7x7dbl_5', 192, (1, 7))
    pool = _conv(_average(x), 'branch_pool', 192, 1)
    return jnp.concatenate([one, seven, double, pool], axis=-1)


class BlockD(nn.Module):
  """Block from 17 x 17 to 8 x 8."""

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Return the concatenated branches, [B, H, W, channels]."""
    three = _conv(x, 'branch3x3_1', 192, 1)
    three = _conv(three, 'branch3x3_2', 320, 3, stride=2)
    seven = _conv(x, 'branch7x7x3_1', 192, 1)
    seven = _conv(seven, 'branch7x7x3_2', 192, (1, 7))
    seven = _conv(seven, 'branch7x7x3_3', 192, (7, 1))
    seven = _conv(seven, 'branch7x7x3_4', 192, 3, stride=2)
    return jnp.concatenate([three, seven, _shrink(x)], axis=-1)


class BlockE(nn.Module):
  """Block of 8 x 8: 3 x 3 convolutions as 1 x 3 beside 3 x 1."""

  # Instead of an average; the released graph has it in its last block.
  max_pool: bool = False

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Return the concatenated branches, [B, H, W, channels]."""
    one = _conv(x, 'branch1x1', 320, 1)
    three = _conv(x, 'branch3x3_1', 384, 1)
    wide = _conv(three, 'branch3x3_2a', 384, (1, 3))
    tall = _conv(three, 'branch3x3_2b', 384, (3, 1))
    double = _conv(x, 'branch3x3dbl_1', 448, 1)
    double = _conv(double, 'branch3x3dbl_2', 384, 3)
    double_wide = _conv(double, 'branch3x3dbl_3a', 384, (1, 3))
    double_tall = _conv(double, 'branch3x3dbl_3b', 384, (3, 1))
    pool = nn.max_pool(x, (3, 3), padding='SAME') if self.max_pool else _average(x)
    pool = _conv(pool, 'branch_pool', 192, 1)
    parts = [one, wide, tall, double_wide, double_tall, pool]
    return jnp.concatenate(parts, axis=-1)


def _conv(
  x: Array,
  name: str,
  features: int,
  size: int | tuple[int, int],
  *,
  stride: int = 1,
  padding: str = '',
) -> Array:
  """Apply convolution, folded normalisation and ReLU; strided ones have no padding."""
  conv = nn.Conv(
    features,
    (size, size) if isinstance(size, int) else size,
    strides=stride,
    padding=padding or ('SAME' if stride == 1 else 'VALID'),
    precision=jax.lax.Precision.HIGHEST,
    # Weights always come from a file; tracing random ones would take seconds.
    kernel_init=nn.initializers.zeros,
    name=name,
  )
  return nn.relu(conv(x))


def _shrink(x: Array) -> Array:
  """Halve the size by maxima of 3 x 3."""
  return nn.max_pool(x, (3, 3), strides=(2, 2), padding='VALID')


def _average(x: Array) -> Array:
  """Average 3 x 3 pixels, at the border those that exist."""
  return nn.avg_pool(x, (3, 3), padding='SAME', count_include_pad=False)


def resize(image: Array) -> Array:
  """Resize [B, H, W, C] to [B, 299, 299, C] as `RESIZE` says, PyTorch's way."""
  shape = (image.shape[0], SIDE, SIDE, image.shape[3])
  if image.shape == shape:
    return image
  return jax.image.resize(
    image, shape, 'linear', antialias=False, precision=jax.lax.Precision.HIGHEST
  )


def features(params: Params, image: Array) -> Array:
  """Return the features [B, 2048] of images [B, H, W, 3] in [-1, 1], of any size."""
  # Flax returns more than the features only where it is asked for it.
  return cast('jax.Array', InceptionV3().apply({'params': params}, resize(image)))


def from_torch(tensors: Mapping[str, np.ndarray]) -> Params:
  """Return the parameters of `InceptionV3` from the state dict of the PyTorch network.

  Raises:
    ValueError: a tensor is missing or of another shape; one line.
  """
  blank = jnp.zeros((1, SIDE, SIDE, 3))
  shapes = jax.eval_shape(InceptionV3().init, jax.random.key(0), blank)['params']

  def convert(path, shape):
    *modules, leaf = (part.key for part in path)
    array = _fold(tensors, '.'.join(modules))[leaf]
    if array.shape != shape.shape:
      given = f'{".".join(modules)} gives a {leaf} of {array.shape}'
      raise ValueError(f'{_OTHER}: {given}, it has {shape.shape}')
    return array

  return jax.tree_util.tree_map_with_path(convert, shapes)


def class_weights(tensors: Mapping[str, np.ndarray]) -> np.ndarray | None:
  """Return the weights [2048, 1008] from features to classes; None if there are none.

  Raises:
    ValueError: they have another shape.
  """
  weight = tensors.get('fc.weight')
  if weight is None:
    return None
  if weight.shape != (1008, 2048):
    raise ValueError(f'{_OTHER}: fc.weight is {weight.shape}, not (1008, 2048)')
  return np.ascontiguousarray(weight.T, np.float32)


def probabilities(weights: np.ndarray, features: np.ndarray) -> np.ndarray:
  """Return the probabilities of the classes for the inception score: float64 [n, 1008].

  The bias of the last layer is left out. Salimans et al. (arXiv:1606.03498) read the
  matrix product of the graph, before it is added, so every published score has none.
  """
  return scipy.special.softmax(np.float64(features @ weights), axis=1)


def _fold(tensors: Mapping[str, np.ndarray], module: str) -> dict[str, np.ndarray]:
  """Fold a convolution and its normalisation into one convolution with a bias."""
  names = ('conv.weight', 'bn.weight', 'bn.bias', 'bn.running_mean', 'bn.running_var')
  if missing := [name for name in names if f'{module}.{name}' not in tensors]:
    raise ValueError(f'{_OTHER}: no {module}.{missing[0]}')
  # float64, so that folding rounds once.
  kernel, scale, shift, mean, variance = (
    np.asarray(tensors[f'{module}.{name}'], np.float64) for name in names
  )
  scale = scale / np.sqrt(variance + _EPSILON)
  return {
    'kernel': (np.transpose(kernel, (2, 3, 1, 0)) * scale).astype(np.float32),
    'bias': (shift - mean * scale).astype(np.float32),
  }
