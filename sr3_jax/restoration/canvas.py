"""Denoises canvases in one compiled program: tiles in, blended predictions out.

A large image is one canvas of noise that is denoised as a whole: at every step the
network runs on overlapping tiles, their predictions of y0 are blended, and the sampler
takes its step on the canvas. So neighbouring tiles agree at every step, and there is
nothing to stitch at the end. Known pixels are shown to the network as they are at every
step (`SR3.denoise`) and put back at the end; on the canvas they are free.

A program is compiled for the size of the canvas and of the tiles only: how many tiles
there are, how many rows an image fills, how many steps are taken and of which sampler
are data. Noise is drawn in cells, each from its place and step, so that it doesn't
depend on the size of the canvas. What needs no network is done strip by strip, to save
memory.

Shapes: N images on canvases of [H, W], B tiles at a time, C channels of an image, K of
a condition, and O = C channels of a prediction, 2 C where the network also gives the
variance.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from sr3_jax.core import samplers
from sr3_jax.core.sr3 import SR3
from sr3_jax.restoration import canvas_arguments
from sr3_jax.restoration.canvas_arguments import Canvases, Downsampling, Work
from sr3_jax.restoration.tiling import CELL, Size
from sr3_jax.runtime import devices as runtime_devices
from sr3_jax.runtime.types import Array, Params

# Capacity of the steps of any trajectory, so that all have one shape.
MAX_STEPS = 4096

Predict = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def take_strip(canvas: Array, strip: jax.Array, axis: int = 1) -> jax.Array:
  """Return a strip of CELL rows of a canvas."""
  return jax.lax.dynamic_slice_in_dim(canvas, strip * CELL, CELL, axis)


def put_strip(canvas: jax.Array, part: jax.Array, strip: jax.Array) -> jax.Array:
  """Return a canvas [N, H, W, C] with other values in a strip of CELL rows."""
  return jax.lax.dynamic_update_slice_in_dim(canvas, part, strip * CELL, 1)


def noise_strip(
  key: jax.Array, index: jax.Array | int, strip: jax.Array, width: int, channels: int
) -> jax.Array:
  """Draw the noise of a strip of a canvas, cell by cell.

  `index` is 0 for the start, then the number of the step.

  Returns:
    Standard normal [CELL, width, channels]; each cell's is a function of key, index,
    strip and its own column alone.
  """
  key = jax.random.fold_in(jax.random.fold_in(key, index), strip)

  def cell(column: jax.Array) -> jax.Array:
    return jax.random.normal(jax.random.fold_in(key, column), (CELL, CELL, channels))

  cells = jax.vmap(cell)(jnp.arange(width // CELL))
  return cells.transpose(1, 0, 2, 3).reshape(CELL, width, channels)


def noise_strips(
  seeds: Array, index: jax.Array | int, strip: jax.Array, width: int, channels: int
) -> jax.Array:
  """Draw a strip of several images: seeds [N, 4] -> [N, CELL, width, channels]."""

  def one(seed: Array) -> jax.Array:
    key = jax.random.key(seed[0])
    for number in seed[1:]:
      key = jax.random.fold_in(key, number)
    return noise_strip(key, index, strip, width, channels)

  return jax.vmap(one)(seeds)


def cut_tiles(canvas: Array, corners: Array, size: Size) -> jax.Array:
  """Cut tiles [B, *size, C] out of canvases [N, H, W, C], at corners [B, 3]."""
  shape = 1, *size, canvas.shape[-1]
  return jnp.concatenate(
    [
      jax.lax.dynamic_slice(canvas, (*_corner(corners, k), 0), shape)
      for k in range(len(corners))
    ]
  )


def add_tiles(canvas: jax.Array, tiles: jax.Array, corners: Array) -> jax.Array:
  """Return canvases [N, H, W, C] with tiles [B, h, w, C] added at their corners."""
  for k in range(len(corners)):
    corner = (*_corner(corners, k), 0)
    there = jax.lax.dynamic_slice(canvas, corner, (1, *tiles.shape[1:]))
    canvas = jax.lax.dynamic_update_slice(canvas, there + tiles[k : k + 1], corner)
  return canvas


def _corner(corners: Array, k: int) -> tuple[Array, Array, Array]:
  """Return image, top and left of tile k."""
  return corners[k, 0], corners[k, 1], corners[k, 2]


def predict(
  model: SR3,
  params: Params,
  canvases: Canvases,
  work: Work,
  batch: int,
  shared: bool,
  y: jax.Array,
  gamma: jax.Array,
  input_scale: jax.Array,
) -> jax.Array:
  """Predict clean images in all tiles and blend the predictions: [N, H, W, O].

  `y` [N, H, W, C] are the noisy images, `gamma` is their noise level, and the network
  sees `input_scale` times y. `batch` tiles are done at a time; `shared` says that other
  devices have the other tiles of these images.
  """
  guidance = canvases.guidance

  def add_batch(i: jax.Array, total: jax.Array) -> jax.Array:
    tiles = jax.tree.map(
      lambda a: jax.lax.dynamic_slice_in_dim(a, i * batch, batch), work.tiles
    )
    predicted = model.denoise(
      params,
      cut_tiles(canvases.x, tiles.corners, tiles.size),
      input_scale * cut_tiles(y, tiles.corners, tiles.size),
      jnp.full((batch,), gamma),
      canvases.label[tiles.corners[:, 0]],
      None if guidance is None else jnp.full((batch,), guidance),
    )
    out = jnp.concatenate(jax.tree.leaves(predicted), axis=-1)
    out = out * tiles.rows[:, :, None, None] * tiles.columns[:, None, :, None]
    return add_tiles(total, out, tiles.corners)

  channels = y.shape[-1] * (2 if model.learned_variance else 1)
  total = jnp.zeros((*y.shape[:3], channels))
  total = jax.lax.fori_loop(0, work.num_batches, add_batch, total)
  return jax.lax.psum(total, runtime_devices.AXIS) if shared else total


def correct(
  model: SR3, canvases: Canvases, down: Downsampling, y0: jax.Array
) -> jax.Array:
  """Return the predictions nearest to y0 that downsample to the conditions.

  y0 and the result are [N, H, W, C]; `down` is the downsampling of `canvases`.
  """
  rows, scale = canvas_arguments.low_rows(model.scale), model.scale
  down_row, up_row = canvas_arguments.windows(scale, y0.shape[1])
  down_column, up_column = canvas_arguments.windows(scale, y0.shape[2])
  cut = jax.lax.dynamic_slice_in_dim

  def downsample(k: jax.Array, low: jax.Array) -> jax.Array:
    start = jnp.asarray(down_row.starts)[k]
    near = [cut(canvas, start, down_row.width, 1) for canvas in (y0, canvases.x)]
    part = _einsum('nrv,nvWc->nrWc', down.down_rows[:, k], model.decode(*near))
    part = _along_width(down.down_columns, part, down_column.indices)
    return jax.lax.dynamic_update_slice_in_dim(low, part, k * rows, 1)

  blocks = -(-canvases.strips * CELL // (rows * scale))
  blocks = jnp.minimum(blocks, len(down_row.starts))
  low = jax.lax.fori_loop(0, blocks, downsample, jnp.zeros_like(down.condition))
  missing = down.condition - low

  def add(s: jax.Array, y0: jax.Array) -> jax.Array:
    near = cut(missing, jnp.asarray(up_row.starts)[s], up_row.width, 1)
    fix = _einsum('nsv,nvwc->nswc', down.up_rows[:, s], near)
    fix = _along_width(down.up_columns, fix, up_column.indices)
    x = take_strip(canvases.x, s)
    return put_strip(y0, model.encode(model.decode(take_strip(y0, s), x) + fix, x), s)

  return jax.lax.fori_loop(0, canvases.strips, add, y0)


_einsum = functools.partial(jnp.einsum, precision='highest')


def _along_width(matrices: Array, strip: jax.Array, indices: np.ndarray) -> jax.Array:
  """Multiply [N, S, V, C] by matrices [N, n, r, v] along V: [N, S, n r, C].

  `indices` [n, v] are those of the windows of the matrices.
  """
  product = _einsum('nbrv,nsbvc->nsbrc', matrices, strip[:, :, indices])
  return product.reshape(*strip.shape[:2], -1, strip.shape[-1])


def update_strip(
  row: jax.Array,
  number: jax.Array,
  seeds: Array,
  strip: jax.Array,
  y: jax.Array,
  y0: jax.Array,
  y0_previous: jax.Array,
  variance: jax.Array | None,
) -> jax.Array:
  """Return y [N, H, W, C] with one strip of it at the next noise level.

  Args:
    row: [6], one of `Steps.coefficients`.
    number: of the step, from 1.
    seeds: uint32 [N, 4], of the images.
    strip: number of the strip.
    y: [N, H, W, C] noisy images; y0 and y0_previous are alike.
    y0: blended predictions.
    y0_previous: those of the step before.
    variance: [N, H, W, C] blended `Prediction.variance`; None for fixed variances.
  """
  take = functools.partial(take_strip, strip=strip)
  shape = len(seeds), CELL, *y.shape[2:]
  # Deterministic samplers share the program; their noise costs nothing.
  noise = jax.lax.cond(
    row[3] > 0,
    lambda: noise_strips(seeds, number, strip, *y.shape[2:]),
    lambda: jnp.zeros(shape),
  )
  learned = None if variance is None else take(variance)
  after = samplers.next_y(row, take(y), take(y0), take(y0_previous), noise, learned)
  return put_strip(y, after, strip)


def take_step(
  model: SR3,
  canvases: Canvases,
  predict: Predict,
  steps: samplers.Steps,
  i: jax.Array,
  carry: samplers.Carry,
) -> samplers.Carry:
  """Take step i, from 0, of a trajectory on whole canvases.

  `predict` gives the blended predictions [N, H, W, O] for y, its level and its input
  scale. If the canvases have `downsampling`, predictions are corrected.
  """
  y, y0_previous = carry
  row, channels = steps.coefficients[i], y.shape[-1]
  blended = predict(y, steps.gamma[i], row[5])
  y0, variance = blended[..., :channels], blended[..., channels:]
  if canvases.downsampling is not None:
    y0 = correct(model, canvases, canvases.downsampling, y0)
  learned = variance if model.learned_variance else None

  def update(s: jax.Array, y: jax.Array) -> jax.Array:
    return update_strip(row, i + 1, canvases.seed, s, y, y0, y0_previous, learned)

  return jax.lax.fori_loop(0, canvases.strips, update, y), y0


@functools.lru_cache(maxsize=16)
def program(model: SR3, batch: int, shared: bool) -> runtime_devices.Mapped:
  """Return a compiled function that takes some sampling steps on all devices.

  Each device works on `batch` tiles at a time: of its own images, or, if they are
  `shared`, on some of the tiles of the same images.

  The function's arguments have a leading axis over devices. `steps` are from
  `samplers.steps`, with a capacity of MAX_STEPS; `count` of them are taken from `start`
  on, where step 0 begins with drawing the noise. y and y0, [N, H, W, C] each, are the
  carry; their memory is taken over by the carry after these steps, which is returned.
  """

  def run(params, canvases, work, steps, start, count, y, y0):
    width, channels = y.shape[2:]

    def begin(s, y):
      return put_strip(y, noise_strips(canvases.seed, 0, s, width, channels), s)

    y = jax.lax.fori_loop(0, jnp.where(start == 0, canvases.strips, 0), begin, y)
    blended = functools.partial(predict, model, params, canvases, work, batch, shared)
    step = functools.partial(take_step, model, canvases, blended, steps)
    return jax.lax.fori_loop(start, start + count, step, (y, y0))

  return runtime_devices.pmap(run, donate_argnums=(6, 7))
