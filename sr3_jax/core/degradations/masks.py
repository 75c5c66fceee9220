"""Draws masks of missing pixels: float32 [B, H, W, 1], 1 = missing, 0 = known.

`key` is a vector of B random keys; the mask of example b is a function of key[b] alone.
`height` and `width` are those of the image, in pixels. Sizes follow the side of the
image: a mask of 64 x 64 looks like one of 256 x 256. Everything has a fixed shape and
runs inside the compiled step.
"""

import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

# Palette, arXiv:2111.05826, appendix on inpainting.
MOST_RECTANGLES = 5
LEAST_HIDDEN, MOST_HIDDEN = 0.1, 0.4

# Every non-empty set of rectangles, and the sign its common area has in their union.
SETS = np.array(list(itertools.product([False, True], repeat=MOST_RECTANGLES))[1:])
SIGNS = np.where(SETS.sum(1) % 2, 1, -1)

# A stroke after Yu et al., arXiv:1806.03589, and the code released with it, whose
# pixels are of images of side 256; lengths here are shares of the side.
MOST_STROKES = 5
SEGMENTS = (4, 12)
RADIUS = (6 / 256, 20 / 256)
LENGTH = math.sqrt(2) / 8
SWING, SWING_SPREAD = 2 * math.pi / 5, 2 * math.pi / 15
# How far the direction in which a stroke advances turns at a segment: ours, in radians.
DRIFT = math.pi / 12


def _each(draw: Callable[[jax.Array], jax.Array], key: jax.Array) -> jax.Array:
  """Call `draw`, key -> bool [H, W], for every key: float32 [B, H, W, 1]."""
  return jax.vmap(draw)(key)[..., None].astype(jnp.float32)


def rectangles(key: jax.Array, height: int, width: int) -> jax.Array:
  """Draw 1 to 5 rectangles that together hide 10 to 40 % of the image, as Palette.

  The paper gives these two ranges; how to meet them is our choice: the number of
  rectangles and the share of the image they hide are uniform. The rectangles get areas
  in proportion (uniform from 0.2 to 1), shapes (height over width, relative to the
  image's, from 1/2 to 2, its logarithm uniform) and places (uniform among those inside
  the image). Then all are scaled by one factor, found by bisection, until their union
  hides that share. They may overlap. Edges lie between pixels, so on very small images
  the share is met roughly; it never exceeds 40 %.
  """
  return _each(lambda k: _rectangles(k, height, width), key)


def _rectangles(key: jax.Array, height: int, width: int) -> jax.Array:
  """Draw one mask of `rectangles`, bool [height, width]."""
  keys = jax.random.split(key, 5)
  count = jax.random.randint(keys[0], (), 1, MOST_RECTANGLES + 1)
  share = jax.random.uniform(keys[1], (), minval=LEAST_HIDDEN, maxval=MOST_HIDDEN)
  area = jax.random.uniform(keys[2], (MOST_RECTANGLES,), minval=0.2)
  shape = 2 ** jax.random.uniform(keys[3], (MOST_RECTANGLES,), minval=-1)
  place = jax.random.uniform(keys[4], (MOST_RECTANGLES, 2))
  area = jnp.where(jnp.arange(MOST_RECTANGLES) < count, area, 0.0)
  sides = jnp.sqrt(jnp.stack([area * shape, area / shape], 1))  # [5, 2]
  extent = jnp.array([[height, width]])

  def edges(scale):
    """Return int32 [5, 2] twice: top and left, bottom and right."""
    # Rectangles of a larger scale contain those of a smaller one.
    size = jnp.minimum(scale * sides, 1.0)
    start = place * (1 - size)
    start, stop = (jnp.round(edge * extent) for edge in (start, start + size))
    return start.astype(jnp.int32), stop.astype(jnp.int32)

  def hidden(scale):
    """Count the pixels in the union, by inclusion and exclusion."""
    start, stop = edges(scale)
    members = SETS[:, :, None]
    start = jnp.where(members, start[None], 0).max(1)
    stop = jnp.where(members, stop[None], extent[None]).min(1)
    return (SIGNS * jnp.maximum(stop - start, 0).prod(1)).sum()

  def halve(_, bounds):
    low, high = bounds
    middle = (low + high) / 2
    enough = hidden(middle) >= share * height * width
    return jnp.where(enough, low, middle), jnp.where(enough, middle, high)

  # At scale 4 the smallest rectangle that there can be, sqrt(0.2 / 2), is the image.
  low, high = jax.lax.fori_loop(0, 24, halve, (jnp.float32(0), jnp.float32(4)))
  fits = hidden(high) <= MOST_HIDDEN * height * width
  rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None, :]

  def add(covered, rectangle):
    (top, left), (bottom, right) = rectangle
    inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    return covered | inside, None

  # A loop, because what goes into a loop is computed once. Written as one expression,
  # XLA computes the edges, and with them `hidden`, anew for every pixel.
  blank = jnp.zeros((height, width), bool)
  return jax.lax.scan(add, blank, edges(jnp.where(fits, high, low)))[0]


def brush(
  start: jax.Array, stop: jax.Array, radius: jax.Array, height: int, width: int
) -> jax.Array:
  """Return what a round brush covers that is drawn along line segments.

  It is true, bool [height, width], where a pixel's centre is nearer than the `radius`
  [N] to a segment. The segments go from `start` to `stop`, [N, 2], (y, x) in pixels;
  the centre of the pixel in the upper left corner is (0.5, 0.5).
  """
  rows = jnp.arange(height)[:, None] + 0.5
  columns = jnp.arange(width)[None, :] + 0.5

  def add(covered, segment):
    start, stop, radius = segment
    along = stop - start
    # Twice the same point is a dot, not 0 / 0.
    along_unit = along / jnp.maximum((along**2).sum(), 1e-6)
    y, x = rows - start[0], columns - start[1]
    t = jnp.clip(y * along_unit[0] + x * along_unit[1], 0, 1)
    distance = (y - t * along[0]) ** 2 + (x - t * along[1]) ** 2
    return covered | (distance < radius**2), None

  # One segment at a time: memory does not grow with their number.
  blank = jnp.zeros((height, width), bool)
  return jax.lax.scan(add, blank, (start, stop, radius))[0]


def free_form(key: jax.Array, height: int, width: int) -> jax.Array:
  """Draw 1 to 5 strokes of a brush moved back and forth (Yu et al., arXiv:1806.03589).

  A stroke is a chain of 4 to 12 segments drawn with a round brush, 12 to 40 pixels wide
  on an image of side 256. Their lengths are normal, with mean and twice the deviation
  an eighth of the diagonal, within 0 and twice the mean; their directions swing by 48
  to 96 degrees to the left and right, in turn, of the one in which the stroke advances.
  All this is as in the released code. Different here: a stroke advances in any
  direction, not along rows or columns only, and slowly turns (at most 15 degrees a
  segment); at the image's border it is reflected, where theirs runs along the border;
  and there are up to 5 strokes instead of 3, so that masks hide about 5 to 50 % of the
  image (measured: 7 % at the 5th percentile, 24 % in the median, 46 % at the 95th).
  Lengths are relative to sqrt(height * width).
  """
  return _each(lambda k: _free_form(k, height, width), key)


def _free_form(key: jax.Array, height: int, width: int) -> jax.Array:
  """Draw one mask of `free_form`, bool [height, width]."""
  keys = jax.random.split(key, 9)
  strokes, segments = MOST_STROKES, SEGMENTS[1]
  side = math.sqrt(height * width)
  extent = jnp.array([height, width], jnp.float32)
  one, many = (strokes, 1), (strokes, segments)

  drawn = jnp.arange(strokes) < jax.random.randint(keys[0], (), 1, strokes + 1)
  # Below 0.71 pixels a stroke may slip through between the centres of pixels.
  radius = side * jax.random.uniform(
    keys[1], (strokes,), minval=RADIUS[0], maxval=RADIUS[1]
  )
  radius = jnp.where(drawn, jnp.maximum(radius, 0.75), 0.0)

  length = LENGTH * jnp.clip(1 + jax.random.normal(keys[2], many) / 2, 0, 2)
  # The segments behind a stroke's last one have no length: nothing is added.
  last = jax.random.randint(keys[3], one, SEGMENTS[0], SEGMENTS[1] + 1)
  number = jnp.arange(segments)[None]
  length = jnp.where(number < last, side * length, 0.0)

  turn = jax.random.uniform(keys[4], one, minval=-DRIFT, maxval=DRIFT)
  advance = jax.random.uniform(keys[5], one, maxval=2 * math.pi) + number * turn
  swing = SWING + SWING_SPREAD * jax.random.uniform(keys[6], many, minval=-1)
  left = jax.random.bernoulli(keys[7], shape=one) ^ (number % 2 == 1)
  angle = advance + jnp.where(left, swing, -swing)

  step = length[..., None] * jnp.stack([jnp.sin(angle), jnp.cos(angle)], -1)
  first = jax.random.uniform(keys[8], (strokes, 1, 2)) * extent[None, None]
  path = jnp.concatenate([first, first + jnp.cumsum(step, 1)], 1)
  # Reflected into the image: a zigzag function of period twice the extent.
  extent = extent[None, None]
  path = extent - jnp.abs(path % (2 * extent) - extent)  # [strokes, segments + 1, 2]
  return brush(
    path[:, :-1].reshape(-1, 2),
    path[:, 1:].reshape(-1, 2),
    jnp.repeat(radius, segments),
    height,
    width,
  )


def inpainting(
  key: jax.Array, height: int, width: int, free_form_share: float = 0.6
) -> jax.Array:
  """Draw Palette's mix for inpainting: 60 % free-form masks, 40 % rectangles."""

  def draw(key):
    chosen, drawn = jax.random.split(key)
    return jnp.where(
      jax.random.bernoulli(chosen, free_form_share),
      _free_form(drawn, height, width),
      _rectangles(drawn, height, width),
    )

  return _each(draw, key)


def uncropping(
  key: jax.Array, height: int, width: int, sides: str = 'mix'
) -> jax.Array:
  """Draw masks of half of the image: one side, or all around a window in its centre.

  One side: left, right, top or bottom with the same probability; of an odd number of
  rows or columns the middle one is known. All sides: the window's sides are sqrt(1/2)
  of the image's, with margins of whole pixels, the same on opposite sides. `sides` is
  'one', 'all', or 'mix': either with probability 1/2, as Palette trains.
  """
  y, x = (round(side * (1 - math.sqrt(0.5)) / 2) for side in (height, width))
  h, w = height // 2, width // 2
  margins = [(0, 0, w, 0), (0, 0, 0, w), (h, 0, 0, 0), (0, h, 0, 0), (y, y, x, x)]
  options = np.concatenate([border(height, width, *m) for m in margins])[..., 0]
  share = {'mix': 0.5, 'one': 0.0, 'all': 1.0}[sides]  # of those on all sides

  def draw(key):
    kind, side = jax.random.split(key)
    around = jax.random.bernoulli(kind, share)
    one = jax.random.randint(side, (), 0, 4)
    return jnp.asarray(options)[jnp.where(around, 4, one)]

  return _each(draw, key)


def border(
  height: int, width: int, top: int, bottom: int, left: int, right: int
) -> np.ndarray:
  """Return the mask of an image that was extended by rows and columns of pixels.

  It is float32 [1, height, width, 1], of the height and width after that.

  Raises:
    ValueError: a negative number of pixels, or one that leaves nothing known.
  """
  if min(top, bottom, left, right) < 0:
    raise ValueError(
      f'an image is extended by 0 or more pixels a side, not by {top} (top), '
      f'{bottom} (bottom), {left} (left), {right} (right)'
    )
  if top + bottom >= height or left + right >= width:
    raise ValueError(
      f'nothing known is left of {height} x {width} pixels if {top} + {bottom} rows '
      f'and {left} + {right} columns of them are new'
    )
  mask = np.ones((1, height, width, 1), np.float32)
  mask[:, top : height - bottom, left : width - right] = 0
  return mask
