"""The compiled program that denoises canvases: tiles in, blended estimates out.

A large image is one canvas of noise that is denoised as a whole: at every step the
network runs on overlapping tiles, their estimates of the clean image are blended, and
the sampler takes its step on the canvas. So neighbouring tiles agree at every step, and
there is nothing to stitch at the end.

Compiled for the size of the canvas and of the tiles only: how many tiles, how many rows
an image fills, how many steps and of which sampler are data. Noise is drawn in cells,
each from its place and step, so that it doesn't depend on the canvas.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sr3_jax import parallel, samplers
from sr3_jax.sr3 import SR3

# Side of the cells in which noise is drawn, and height of the strips in which a canvas
# is updated: memory beyond the canvas itself stays small, and empty rows cost nothing.
CELL = 32
# Rows of every walk's table: one shape for all.
MAX_STEPS = 4096


def walk_data(gammas: np.ndarray, table: np.ndarray) -> dict[str, np.ndarray]:
  """A walk as the program takes it, padded to MAX_STEPS rows of five columns.

  Raises:
    ValueError: more steps than that.
  """
  steps = samplers.steps(gammas, table)
  extra = MAX_STEPS - len(table)
  if extra < 0:
    raise ValueError(f'{len(table)} sampling steps are more than {MAX_STEPS}')
  row = steps['row']
  if row.shape[1] == 4:  # a fixed variance: both ends of its range are the same
    row = np.concatenate([row, row[:, 3:]], axis=1)
  return {
    'row': np.pad(row, ((0, extra), (0, 0))),
    'gamma': np.pad(steps['gamma'], (0, extra), constant_values=1),
  }


def noise_strip(
  key: jax.Array, index: jax.Array, strip: jax.Array, width: int, channels: int
) -> jax.Array:
  """Standard normal [CELL, width, channels]: cell by cell, from place and step."""
  key = jax.random.fold_in(jax.random.fold_in(key, index), strip)
  draw = lambda column: jax.random.normal(
    jax.random.fold_in(key, column), (CELL, CELL, channels)
  )
  cells = jax.vmap(draw)(jnp.arange(width // CELL))
  return cells.transpose(1, 0, 2, 3).reshape(CELL, width, channels)


@functools.lru_cache(maxsize=16)
def program(
  model: SR3, tile: tuple[int, int], batch: int, consistency: bool, shared: bool
) -> Callable[..., Any]:
  """Some steps of the walk of N images, over all devices.

  The function takes, each with a leading axis over devices:

    params: of the network.
    image: 'x' [N, H, W, C], H and W multiples of CELL; 'seed' uint32 [N, 4], numbers
      that make the noise of each image; 'label' int32 [N]; 'strips' int32, rows in
      use / CELL; for consistency 'condition' [N, h, w, C] and the matrices 'down_rows'
      [N, h, H], 'down_columns' [N, w, W], 'up_rows' [N, H, h], 'up_columns' [N, W, w].
    work: this device's tiles: 'at' int32 [M, 3] (image, top, left), 'rows' [M, tile
      height] and 'columns' [M, tile width], their windows; 'batches' int32, how many of
      the M / batch batches there are.
    walk: from `walk_data`.
    start, count: the steps to take; step 0 begins with drawing the noise.
    y, y0: the carry, [N, H, W, C]; donated.

  and returns (y, y0).

  Args:
    model: the model.
    tile: height and width.
    batch: tiles at a time on each device.
    consistency: whether estimates are corrected.
    shared: all devices hold the same images and each works on some of their tiles;
      otherwise each has images of its own.
  """

  def run(params, image, work, walk, start, count, y, y0):
    x, strips = image['x'], image['strips']
    images, _, width, channels = x.shape
    out_channels = channels * (2 if model.learned_variance else 1)
    take = lambda a, s, axis=1: jax.lax.dynamic_slice_in_dim(a, s * CELL, CELL, axis)
    put = lambda a, part, s: jax.lax.dynamic_update_slice_in_dim(a, part, s * CELL, 1)

    def noise(index, strip):
      def one(seed):
        key = jax.random.key(seed[0])
        for number in seed[1:]:
          key = jax.random.fold_in(key, number)
        return noise_strip(key, index, strip, width, channels)

      return jax.vmap(one)(image['seed'])

    def estimate(y, gamma):
      """Blended estimates of all tiles: [N, H, W, out_channels]."""

      def one_batch(i, total):
        part = lambda a: jax.lax.dynamic_slice_in_dim(a, i * batch, batch)
        at, rows, columns = map(part, (work['at'], work['rows'], work['columns']))
        corner = lambda k: (at[k, 0], at[k, 1], at[k, 2], 0)
        cut = lambda a: jnp.concatenate(
          [
            jax.lax.dynamic_slice(a, corner(k), (1, *tile, channels))
            for k in range(batch)
          ]
        )
        level = jnp.full((batch,), gamma)
        label = image['label'][at[:, 0]]
        out = model.denoise(params, cut(x), cut(y), level, label)
        if model.learned_variance:
          out = jnp.concatenate(out, axis=-1)
        out = out * rows[:, :, None, None] * columns[:, None, :, None]
        for k in range(batch):
          size = (1, *tile, out_channels)
          there = jax.lax.dynamic_slice(total, corner(k), size)
          total = jax.lax.dynamic_update_slice(total, there + out[k : k + 1], corner(k))
        return total

      total = jnp.zeros((*x.shape[:3], out_channels))
      total = jax.lax.fori_loop(0, work['batches'], one_batch, total)
      return jax.lax.psum(total, parallel.AXIS) if shared else total

    def correct(y0):
      """The nearest estimate that, made small, is the condition."""
      einsum = functools.partial(jnp.einsum, precision='highest')

      def reduce(s, low):
        strip = model.decode(take(y0, s), take(x, s))
        strip = einsum('nsWc,nwW->nswc', strip, image['down_columns'])
        return low + einsum('nhs,nswc->nhwc', take(image['down_rows'], s, 2), strip)

      def add(s, y0):
        fix = einsum('nsh,nhwc->nswc', take(image['up_rows'], s), missing)
        fix = einsum('nswc,nWw->nsWc', fix, image['up_columns'])
        strip = model.decode(take(y0, s), take(x, s)) + fix
        return put(y0, model.encode(strip, take(x, s)), s)

      low = jnp.zeros_like(image['condition'])
      missing = image['condition'] - jax.lax.fori_loop(0, strips, reduce, low)
      return jax.lax.fori_loop(0, strips, add, y0)

    def step(i, carry):
      y, previous = carry
      row = walk['row'][i]
      blend = estimate(y, walk['gamma'][i])
      y0, share = blend[..., :channels], blend[..., channels:]
      if consistency:
        y0 = correct(y0)

      def update(s, y):
        of = lambda a: take(a, s)
        # Deterministic samplers share the program; their noise costs nothing.
        z = jax.lax.cond(
          row[3] > 0,
          lambda: noise(i + 1, s),
          lambda: jnp.zeros((images, CELL, width, channels)),
        )
        learned = of(share) if model.learned_variance else None
        new = samplers.next_y(row, of(y), of(y0), of(previous), z, learned)
        return put(y, new, s)

      return jax.lax.fori_loop(0, strips, update, y), y0

    # Runs not at all but at the start.
    draw = lambda s, y: put(y, noise(0, s), s)
    y = jax.lax.fori_loop(0, jnp.where(start == 0, strips, 0), draw, y)
    return jax.lax.fori_loop(start, start + count, step, (y, y0))

  return parallel.pmap(run, donate_argnums=(6, 7))
