r"""Measures how models fill holes of photographs, beside plain fillings.

  python benchmarks/holes.py --images=PHOTOS --models photo-fill photo-fill+2 \
    --weights=NETS --sheet=holes.png

A model is a name, a run or a model folder, and +N for a number of steps. From every
photograph the middle square is taken, downsampled to twice --side and from its middle
--side pixels. Holes: seven scratches of 5 pixels, strokes as networks are trained on,
and a square of an eighth of the side in the middle of each quarter. PSNR is that of
missing pixels only, LPIPS that of the whole picture. Nearest is the nearest known
pixel; membrane is `degradations.smooth`; biharmonic is scikit-image's.
"""

import argparse
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
import skimage.restoration

import sr3_jax
from sr3_jax.core import degradations
from sr3_jax.core.degradations import masks
from sr3_jax.evaluation import image_folders
from sr3_jax.images import contact_sheets, image_files, pixels, resizing
from sr3_jax.metrics import feature_nets

SCRATCHES, SCRATCH_WIDTH = 7, 5  # how many, and pixels


def scratches(key: jax.Array, side: int) -> np.ndarray:
  """Draw straight lines from border to border: bool [side, side], True is missing."""
  ends = jax.random.uniform(key, (SCRATCHES, 2), maxval=side)
  start = jnp.stack([jnp.zeros(SCRATCHES), ends[:, 0]], -1)
  stop = jnp.stack([jnp.full(SCRATCHES, side), ends[:, 1]], -1)
  upright = jnp.arange(SCRATCHES)[:, None] % 2 == 0
  start, stop = (jnp.where(upright, line, line[:, ::-1]) for line in (start, stop))
  radius = jnp.full(SCRATCHES, SCRATCH_WIDTH / 2)
  return np.asarray(masks.brush(start, stop, radius, side, side))


def strokes(key: jax.Array, side: int) -> np.ndarray:
  """Draw a mask of training: bool [side, side]."""
  return np.asarray(masks.free_form(key[None], side, side))[0, ..., 0] > 0


def squares(key: jax.Array, side: int) -> np.ndarray:
  """Return four squares, the same for every key: bool [side, side]."""
  del key
  mask, edge = np.zeros((side, side), bool), side // 8
  for top in (side // 4, 3 * side // 4):
    for left in (side // 4, 3 * side // 4):
      rows, columns = (
        slice(at - edge // 2, at - edge // 2 + edge) for at in (top, left)
      )
      mask[rows, columns] = True
  return mask


HOLES = {'scratches': scratches, 'strokes': strokes, 'squares': squares}


def nearest(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """Fill missing pixels with the nearest known one."""
  place = scipy.ndimage.distance_transform_edt(
    mask, return_distances=False, return_indices=True
  )
  return image[tuple(place)]


def membrane(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """Fill missing pixels with about the mean of their neighbours."""
  holes = mask[None, ..., None].astype(np.float32)
  return degradations.smooth(pixels.to_float(image)[None], holes)[0]


def biharmonic(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """Fill missing pixels as scikit-image does."""
  return skimage.restoration.inpaint_biharmonic(
    pixels.to_float(image), mask.copy(), channel_axis=-1
  )


def by_model(spec: str):
  """Return what fills missing pixels with a model, 'MODEL' or 'MODEL+STEPS'."""
  name, _, steps = spec.partition('+')
  upscaler = sr3_jax.load(name, steps=int(steps or 1))
  return lambda image, mask: upscaler.upscale(image, mask=mask).array


def photograph(path: pathlib.Path, side: int) -> np.ndarray | None:
  """Return the middle of a photograph, uint8 [side, side, 3]; None if it is small."""
  image = resizing.center_square(image_files.read(path))
  if len(image) < 2 * side:
    return None
  image = resizing.resize_area(image, 2 * side)
  return image[side // 2 : side // 2 + side, side // 2 : side // 2 + side]


def measure(args: argparse.Namespace) -> None:
  """Print a table of every kind of holes, and write a sheet of the first pictures."""
  fillings = {'nearest': nearest, 'membrane': membrane, 'biharmonic': biharmonic}
  fillings |= {spec: by_model(spec) for spec in args.models}
  names = 'lpips_alex', 'lpips_vgg'
  nets, _ = feature_nets.load_nets(names, args.weights, args.side)
  distances = {name: jax.jit(net.apply) for name, net in nets.items()}
  truths = [photograph(p, args.side) for p in image_folders.find(args.images).values()]
  truths = [truth for truth in truths if truth is not None][: args.count]
  rows, labels = [], []
  print(f'{len(truths)} photographs of {args.side} x {args.side} pixels')
  print('| | ' + ' | '.join(['PSNR in holes dB', *nets]) + ' |\n|---|---|---|---|')
  for kind, draw in HOLES.items():
    scores = {name: [] for name in fillings}
    for k, truth in enumerate(truths):
      mask = draw(jax.random.key(k), args.side)
      given = np.where(mask[..., None], np.uint8(127), truth)
      row = [given]
      for name, fill in fillings.items():
        filled = np.asarray(fill(given, mask))
        if filled.dtype != np.uint8:
          filled = pixels.to_uint8(np.clip(filled, -1, 1))
        filled = np.where(mask[..., None], filled, truth)
        error = np.mean(np.square(np.float64(filled[mask]) - truth[mask]))
        a, b = (pixels.to_float(image)[None] for image in (filled, truth))
        scores[name].append(
          [10 * np.log10(255**2 / error)]
          + [float(distances[n](net.params, a, b)[0]) for n, net in nets.items()]
        )
        row.append(filled)
      if k < args.rows:
        rows.append([*row, truth])
        labels.append(kind)
    for name, values in scores.items():
      psnr, *lpips = np.mean(values, 0)
      cells = [f'{psnr:.2f}', *(f'{value:.3f}' for value in lpips)]
      print(f'| {kind}: {name} | ' + ' | '.join(cells) + ' |', flush=True)
  if args.sheet:
    columns = ['input', *fillings, 'truth']
    sheet = contact_sheets.sheet(rows, columns, labels, cell=args.side)
    image_files.write(args.sheet, sheet)


def main() -> None:
  """Run the command."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--images', type=pathlib.Path, required=True, help='a folder')
  parser.add_argument('--models', nargs='*', default=[], help='MODEL or MODEL+STEPS')
  parser.add_argument('--weights', default='', help="folder of LPIPS's networks")
  parser.add_argument('--side', type=int, default=192, help='of pictures, in pixels')
  parser.add_argument('--count', type=int, default=20, help='how many pictures')
  parser.add_argument('--sheet', type=pathlib.Path, help='write a sheet to this file')
  parser.add_argument('--rows', type=int, default=3, help='of the sheet, each kind')
  measure(parser.parse_args())


if __name__ == '__main__':
  main()
