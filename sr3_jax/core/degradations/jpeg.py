"""Makes JPEG artefacts on the device, as an encoder and a decoder do.

Baseline JPEG (ITU-T T.81) in the JFIF colours, computed as libjpeg and libjpeg-turbo do
by default: their fixed-point arithmetic is integers below 2^24, which float32 holds
exactly, so the result is theirs. The entropy coder loses nothing and is left out.
"""

import jax
import jax.numpy as jnp
import numpy as np

# Quantisation at quality 50: T.81, tables K.1 (luma) and K.2 (chroma). Rows are
# vertical frequencies, columns horizontal ones.
LUMA = np.array(
  [
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
  ]
)
CHROMA = np.full((8, 8), 99)
CHROMA[:4, :4] = [
  [17, 18, 24, 47],
  [18, 21, 26, 66],
  [24, 26, 56, 99],
  [47, 66, 99, 99],
]

# sqrt(8) times the orthonormal DCT, in units of 2^-13: the left half of each row; the
# right half mirrors it, with the opposite sign in odd rows. Some entries are 1 off the
# rounded cosine: sums of libjpeg's rounded constants, so that its errors are ours.
_HALF = [
  [8192, 8192, 8192, 8192],
  [11363, 9633, 6437, 2260],
  [10703, 4433, -4433, -10703],
  [9633, -2259, -11362, -6436],
  [8192, -8192, -8192, 8192],
  [6437, -11362, 2261, 9633],
  [4433, -10704, 10704, -4433],
  [2260, -6436, 9633, -11363],
]
_DCT = np.array(
  [row + [(-1) ** k * value for value in row[::-1]] for k, row in enumerate(_HALF)],
  np.float32,
)


def _straight_through(value: jax.Array, smooth: jax.Array) -> jax.Array:
  """Return `value`, exactly, with the gradient of `smooth`."""
  return jax.lax.stop_gradient(value) + (smooth - jax.lax.stop_gradient(smooth))


def _shift(x: jax.Array, bits: int) -> jax.Array:
  """Return x / 2^bits rounded to nearest, halves up."""
  x = x / 2**bits
  return _straight_through(jnp.floor(x + 0.5), x)


def _levels(x: jax.Array) -> jax.Array:
  """Round and clip to 0..255."""
  return _straight_through(jnp.clip(jnp.round(x), 0, 255), x)


def tables(quality: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Return the quantisation of luma and chroma by libjpeg's quality formula.

  They are float32 [B, 8, 8] of integers in 1..255. `quality` [B] is rounded, and
  clipped to 1..100.
  """
  # In integers: a float division that is off by one bit would move a floor.
  quality = jnp.clip(jnp.round(quality), 1, 100).astype(jnp.int32)
  percent = jnp.where(quality < 50, 5000 // quality, 200 - 2 * quality)
  percent = percent[:, None, None]

  def scaled(base):
    table = (jnp.asarray(base, jnp.int32)[None] * percent + 50) // 100
    return jnp.clip(table, 1, 255).astype(jnp.float32)

  return scaled(LUMA), scaled(CHROMA)


def _to_ycc(rgb: jax.Array) -> jax.Array:
  """Convert to JFIF colours, [B, 3, H, W] in levels."""
  # Weights are in units of 2^-16.
  r, g, b = rgb[:, 0], rgb[:, 1], rgb[:, 2]
  y = _shift(19595 * r + 38470 * g + 7471 * b, 16)
  # The half is one unit short so that pure blue and red stay below 256.
  cb = _shift(32768 * b - 11059 * r - 21709 * g - 1, 16) + 128
  cr = _shift(32768 * r - 27439 * g - 5329 * b - 1, 16) + 128
  return jnp.stack([y, cb, cr], 1)


def _to_rgb(ycc: jax.Array) -> jax.Array:
  """Undo `_to_ycc`."""
  y, cb, cr = ycc[:, 0], ycc[:, 1] - 128, ycc[:, 2] - 128
  r = y + _shift(91881 * cr, 16)
  g = y + _shift(-22554 * cb - 46802 * cr, 16)
  b = y + _shift(116130 * cb, 16)
  return _levels(jnp.stack([r, g, b], 1))


def _pad(planes: jax.Array, rows: int, columns: int) -> jax.Array:
  """Repeat the last row and column of [B, C, H, W] up to multiples of these."""
  height, width = planes.shape[2:]
  pads = ((0, 0), (0, 0), (0, -height % rows), (0, -width % columns))
  return jnp.pad(planes, pads, mode='edge')


def _halve(planes: jax.Array) -> jax.Array:
  """Average 2 x 2 pixels, [B, C, H, W] to [B, C, H/2, W/2], as libjpeg's encoder.

  Fractions of 1/2 (and 1/4) are rounded up in every second column only.
  """
  batch, channels, height, width = planes.shape
  planes = planes.reshape(batch, channels, height // 2, 2, width // 2, 2).sum((3, 5))
  bias = 1 + np.arange(width // 2, dtype=np.float32) % 2
  return _straight_through(jnp.floor((planes + bias[None, None, None]) / 4), planes / 4)


def _double(planes: jax.Array) -> jax.Array:
  """Interpolate to twice the size by triangles ("fancy upsampling" in libjpeg).

  New pixels sit at 1/4 and 3/4 between old ones; edges are repeated.
  """
  batch, channels, height, width = planes.shape
  p = jnp.pad(planes, ((0, 0), (0, 0), (1, 1), (1, 1)), mode='edge')
  near = 3 * p[:, :, 1:-1]
  p = jnp.stack([near + p[:, :, :-2], near + p[:, :, 2:]], 3)
  p = p.reshape(batch, channels, 2 * height, width + 2)
  near = 3 * p[..., 1:-1]
  p = jnp.stack([near + p[..., :-2] + 8, near + p[..., 2:] + 7], 4)
  p = p.reshape(batch, channels, 2 * height, 2 * width) / 16
  return _straight_through(jnp.floor(p), p)


def _transform(spec: str, blocks: jax.Array, bits: int) -> jax.Array:
  """Run one pass of the DCT, over one axis of the blocks."""
  return _shift(jnp.einsum(spec, _DCT, blocks, precision='highest'), bits)


def _code(planes: jax.Array, table: jax.Array) -> jax.Array:
  """Return planes [B, C, H, W] as they come out of the decoder, before any upsampling.

  `table` [B, 8, 8] has the divisors of the coefficients.
  """
  height, width = planes.shape[2:]
  padded = _pad(planes, 8, 8)
  batch, channels, rows, columns = padded.shape
  blocks = padded.reshape(batch, channels, rows // 8, 8, columns // 8, 8) - 128
  # Two passes: 8 times the coefficients, as integers. Libjpeg keeps two more bits in
  # between, here and on the way back.
  blocks = _transform('kx,bciyjx->bciyjk', blocks, 11)
  blocks = _transform('ky,bciyjx->bcikjx', blocks, 15)
  table = table[:, None, None, :, None, :]
  # To the nearest multiple, halves away from zero. The 0.5 in a sum of integers changes
  # nothing but keeps exact multiples away from the edge of the floor.
  index = jnp.floor((jnp.abs(blocks) + 4 * table + 0.5) / (8 * table))
  blocks = _straight_through(jnp.sign(blocks) * index * table, blocks / 8)
  blocks = _transform('ky,bcikjx->bciyjx', blocks, 11)
  blocks = _transform('kx,bciyjk->bciyjx', blocks, 18)
  planes = blocks.reshape(batch, channels, rows, columns)[:, :, :height, :width]
  return _levels(planes + 128)


def compress(image: jax.Array, quality: jax.Array, subsample: jax.Array) -> jax.Array:
  """Save images as JPEG and read them again, in effect.

  Against Pillow 13 (libjpeg-turbo 3.2) over photographs and random noise, qualities 1
  to 100, both chroma modes, odd sizes: equal but for fewer than 10 values in a million
  (where a sum leaves float32's 24 bits and falls next to a half), which are off by 1 or
  2 levels of 255. Images less than 5 pixels wide differ more at 4:2:0: libjpeg does not
  interpolate those.

  Gradients are those of the linear parts: rounding and clipping let them through
  unchanged, and none reach `quality`.

  Args:
    image: float32 [B, H, W, 3 or 1] in [-1, 1]; rounded to 256 levels first. One
      channel is luma.
    quality: [B], 1 to 100 as in libjpeg; rounded to integers.
    subsample: bool [B]: chroma at half the resolution (4:2:0) or at the full one
      (4:4:4).

  Raises:
    ValueError: another number of channels.
  """
  height, width, channels = image.shape[1:]
  if channels not in (1, 3):
    raise ValueError(f'JPEG images have 1 or 3 channels, not {channels}')
  luma, chroma = tables(quality)
  levels = _levels((jnp.moveaxis(image, 3, 1) + 1) * 127.5)
  if channels == 1:
    levels = _code(levels, luma)
  else:
    ycc = _to_ycc(levels)
    y, colour = _code(ycc[:, :1], luma), ycc[:, 1:]
    # The decoder knows how many halved pixels are real and repeats the last of those.
    # Encoders pad columns before halving and rows (beyond the even one) after it.
    half = _halve(_pad(colour, 2, 16))
    half = _code(half, chroma)[..., : -(-width // 2)]
    half = _double(half)[:, :, :height, :width]
    full = _code(colour, chroma)
    colour = jnp.where(subsample[:, None, None, None], half, full)
    levels = _to_rgb(jnp.concatenate([y, colour], 1))
  return jnp.moveaxis(levels, 1, 3) / 127.5 - 1


def sample_quality(
  key: jax.Array, low: int, high: int, temperature: float = 10.0
) -> jax.Array:
  """Draw whole qualities from `low` to `high`, one for each key: float32 [B].

  Low ones are more frequent: p(Q) ~ exp(-Q / temperature). Palette (arXiv:2111.05826)
  trains on 5 to 30 with a temperature of 10.
  """
  logits = -np.arange(high - low + 1, dtype=np.float32) / temperature
  drawn = jax.vmap(lambda k: jax.random.categorical(k, logits))(key)
  return low + drawn.astype(jnp.float32)
