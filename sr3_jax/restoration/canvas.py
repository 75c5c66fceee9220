"""The compiled program that denoises canvases: tiles in, blended predictions out.

A large image is one canvas of noise that is denoised as a whole: at every step the
network runs on overlapping tiles, their predictions of y0 are blended, and
the sampler takes its step on the canvas. So neighbouring tiles agree at every step, and
there is nothing to stitch at the end. Known pixels are shown to the network as they are
at every step (`SR3.denoise`) and put back at the end; on the canvas they are free.

Compiled for the size of the canvas and of the tiles only: how many tiles, how many rows
an image fills, how many steps and of which sampler are data. Noise is drawn in cells,
each from its place and step, so that it doesn't depend on the canvas.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sr3_jax.core import samplers
from sr3_jax.core.sr3 import SR3
from sr3_jax.images import resizing
from sr3_jax.restoration import tiling
from sr3_jax.restoration.tiling import CELL, Layout, Planner
from sr3_jax.runtime import devices as runtime_devices

# Capacity of the steps of any trajectory, so that all have one shape.
MAX_STEPS = 4096


@dataclasses.dataclass(frozen=True)
class Item:
  """One run of the model: one sample of one image.

  Attributes:
    condition: [h, w, K].
    seed: what makes its noise: four numbers.
    label: class; ignored by models without.
  """

  condition: np.ndarray
  seed: tuple[int, int, int, int]
  label: int


def enlarge(model: SR3, condition: np.ndarray) -> np.ndarray:
  """x: the condition [h, w, K] at the size of the output."""
  height, width = (model.scale * side for side in condition.shape[:2])
  return resizing.resize(condition, height, width, model.upsampling)


def finish(model: SR3, condition: np.ndarray, y: np.ndarray) -> np.ndarray:
  """`SR3.finish` without a program for each size: y [H, W, C] to an image."""
  x = enlarge(model, condition)
  image = np.clip(model.decode(y, x), -1, 1)
  if 'mask' not in model.task.extras:
    return image
  return np.where(model.missing(x) > 0, image, x[..., : model.channels])


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
  """Some sampling steps of N images, over all devices.

  The function takes, each with a leading axis over devices:

    params: of the network.
    image: 'x' [N, H, W, K], H and W multiples of CELL; 'seed' uint32 [N, 4], numbers
      that make the noise of each image; 'label' int32 [N]; 'guidance' float32, where
      classes are to count more; 'strips' int32, rows in use / CELL; for consistency
      'condition' [N, h, w, C] and the matrices 'down_rows' [N, h, H], 'down_columns'
      [N, w, W], 'up_rows' [N, H, h], 'up_columns' [N, W, w].
    work: this device's tiles: 'at' int32 [M, 3] (image, top, left), 'rows' [M, tile
      height] and 'columns' [M, tile width], their windows; 'batches' int32, how many of
      the M / batch batches there are.
    steps: from `samplers.steps`, of MAX_STEPS rows.
    start, count: which steps to take; step 0 begins with drawing the noise.
    y, y0: the carry, [N, H, W, C]; donated.

  and returns (y, y0).

  Args:
    model: the model.
    tile: height and width.
    batch: tiles at a time on each device.
    consistency: whether predictions of y0 are corrected.
    shared: all devices hold the same images and each works on some of their tiles;
      otherwise each has images of its own.
  """

  def run(params, image, work, steps, start, count, y, y0):
    x, strips = image['x'], image['strips']
    images, _, width, channels = y.shape
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

    def predict(y, gamma, input_scale):
      """Return the blended predictions of all tiles: [N, H, W, out_channels]."""

      def one_batch(i, total):
        part = lambda a: jax.lax.dynamic_slice_in_dim(a, i * batch, batch)
        at, rows, columns = map(part, (work['at'], work['rows'], work['columns']))
        corner = lambda k: (at[k, 0], at[k, 1], at[k, 2], 0)
        cut = lambda a: jnp.concatenate(
          [
            jax.lax.dynamic_slice(a, corner(k), (1, *tile, a.shape[-1]))
            for k in range(batch)
          ]
        )
        level = jnp.full((batch,), gamma)
        label = image['label'][at[:, 0]]
        guidance = image.get('guidance')
        if guidance is not None:
          guidance = jnp.full((batch,), guidance)
        tiles = input_scale * cut(y)
        out = model.denoise(params, cut(x), tiles, level, label, guidance)
        out = jnp.concatenate(jax.tree.leaves(out), axis=-1)
        out = out * rows[:, :, None, None] * columns[:, None, :, None]
        for k in range(batch):
          size = (1, *tile, out_channels)
          there = jax.lax.dynamic_slice(total, corner(k), size)
          total = jax.lax.dynamic_update_slice(total, there + out[k : k + 1], corner(k))
        return total

      total = jnp.zeros((*x.shape[:3], out_channels))
      total = jax.lax.fori_loop(0, work['batches'], one_batch, total)
      return jax.lax.psum(total, runtime_devices.AXIS) if shared else total

    def correct(y0):
      """Return the nearest prediction that downsamples to the condition."""
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
      row = steps.coefficients[i]
      blended = predict(y, steps.gamma[i], row[5])
      y0, variance = blended[..., :channels], blended[..., channels:]
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
        learned = of(variance) if model.learned_variance else None
        new = samplers.next_y(row, of(y), of(y0), of(previous), z, learned)
        return put(y, new, s)

      return jax.lax.fori_loop(0, strips, update, y), y0

    # Runs not at all but at the start.
    draw = lambda s, y: put(y, noise(0, s), s)
    y = jax.lax.fori_loop(0, jnp.where(start == 0, strips, 0), draw, y)
    return jax.lax.fori_loop(start, start + count, step, (y, y0))

  return runtime_devices.pmap(run, donate_argnums=(6, 7))


def arguments(
  model: SR3,
  plan: Planner,
  layout: Layout,
  items: Sequence[Item],
  batch: int,
  consistency: bool,
  guidance: float | None = None,
) -> tuple[Any, ...]:
  """What `program` takes but for weights and steps, on the devices.

  Item k is on device k % D, or on all if canvases are shared; then its tiles are dealt
  out to them. Canvases without an item stay empty.

  Returns:
    image, work, start, count, y, y0.
  """
  devices = jax.local_device_count()
  hosts = 1 if layout.shared else devices
  parts = [
    _images(model, plan, layout, items[d::hosts], consistency) for d in range(hosts)
  ]
  if guidance is not None:
    for image, _ in parts:
      image['guidance'] = np.float32(guidance)
  images, tile_lists = zip(*parts, strict=True)
  if layout.shared:
    images = images * devices
    tile_lists = [tile_lists[0][d::devices] for d in range(devices)]
  # Capacity for the tiles of full canvases, in whole batches.
  most = plan.count((layout.height, layout.width), layout) * layout.images
  capacity = tiling.round_up(-(-most // (devices // hosts)), batch)
  works = [_work(layout, tile_list, capacity, batch) for tile_list in tile_lists]
  shape = devices, layout.images, layout.height, layout.width, model.channels
  state, zero = np.zeros(shape, np.float32), np.zeros(devices, np.int32)
  stack = lambda trees: jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
  return runtime_devices.put((stack(images), stack(works), zero, zero, state, state))


def _images(
  model: SR3, plan: Planner, layout: Layout, items: Sequence[Item], consistency: bool
) -> tuple[dict[str, Any], list[Any]]:
  """Canvases of one device with their images on them, and the list of their tiles."""
  count, height, width = layout.images, layout.height, layout.width
  small = [-(-side // model.scale) for side in (height, width)]
  channels, inputs = model.channels, model.task.num_channels(model.channels)
  image: dict[str, Any] = {
    'x': np.zeros((count, height, width, inputs), np.float32),
    'seed': np.zeros((count, 4), np.uint32),
    'label': np.zeros(count, np.int32),
  }
  if consistency:
    image['condition'] = np.zeros((count, *small, channels), np.float32)
    for name, side, low in (('rows', height, small[0]), ('columns', width, small[1])):
      image[f'down_{name}'] = np.zeros((count, low, side), np.float32)
      image[f'up_{name}'] = np.zeros((count, side, low), np.float32)
  tile_list, used = [], 0
  for k, item in enumerate(items):
    h, w = item.condition.shape[:2]
    rows, columns = plan.cover(plan.output((h, w)), layout)
    full = rows[0][-1] + layout.tile[0], columns[0][-1] + layout.tile[1]
    x = tiling.mirror(enlarge(model, item.condition), *full)
    image['x'][k, : full[0], : full[1]] = x
    image['seed'][k], image['label'][k] = item.seed, item.label
    used = max(used, full[0])
    tile_list += [
      ((k, top, left), row_window, column_window)
      for top, row_window in zip(*rows, strict=True)
      for left, column_window in zip(*columns, strict=True)
    ]
    if consistency:
      image['condition'][k, :h, :w] = item.condition[..., :channels]
      for name, low in (('rows', h), ('columns', w)):
        down, up = resizing.downsampling_matrices(low * model.scale, low)
        image[f'down_{name}'][k, :low, : len(up)] = down
        image[f'up_{name}'][k, : len(up), :low] = up
  image['strips'] = np.int32(-(-used // CELL))
  return image, tile_list


def _work(
  layout: Layout, tile_list: list[Any], capacity: int, batch: int
) -> dict[str, Any]:
  """One device's tiles as arrays of `capacity` rows."""
  work = {
    'at': np.zeros((capacity, 3), np.int32),
    'rows': np.zeros((capacity, layout.tile[0]), np.float32),
    'columns': np.zeros((capacity, layout.tile[1]), np.float32),
    'batches': np.int32(-(-len(tile_list) // batch)),
  }
  for n, tile in enumerate(tile_list):
    work['at'][n], work['rows'][n], work['columns'][n] = tile
  return work
