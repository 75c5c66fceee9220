r"""Measures the mesh that models leave in smooth parts of photographs.

  python benchmarks/mesh.py --images=PHOTOS --models photo-x4 runs/photo_refine

Middle squares of 256 pixels are downsampled with the bicubic kernel to 8 bits and
upscaled in one step. In smooth windows of 32 x 32 pixels, whose truth has a standard
deviation below 6 of 255, the power of the luma's spectrum is taken at the frequencies
of a pattern that repeats every cell of the model, and beside them. Detail has about as
much at both, as the truth shows; a mesh has more at the first. The table has medians.
"""

import argparse
import pathlib
from collections.abc import Iterator

import numpy as np

import sr3_jax
from sr3_jax.evaluation import image_folders
from sr3_jax.images import image_files, pixels, resizing
from sr3_jax.metrics import image_metrics

SIDE, WINDOW = 256, 32  # of squares and windows, in pixels
SMOOTH = 6.0  # the most standard deviation of a smooth window, in 8-bit units
BESIDE = 4  # bins of the spectrum between a pattern's frequency and those beside it


def squares(folder: pathlib.Path) -> Iterator[np.ndarray]:
  """Yield the middle square, uint8 [SIDE, SIDE, 3], of photographs that have one."""
  for path in image_folders.find(folder).values():
    image = image_files.read(path)
    top, left = ((side - SIDE) // 2 for side in image.shape[:2])
    if min(top, left) >= 0:
      yield image[top : top + SIDE, left : left + SIDE]


def powers(image: np.ndarray, truth: np.ndarray, scale: int) -> list[list[float]]:
  """Return the mean power on and beside the frequencies of cells, of each window."""
  image, truth = (
    127.5 * np.array(image_metrics.luma(pixels.to_float(a))[..., 0])
    for a in (image, truth)
  )
  taper = np.outer(np.hanning(WINDOW), np.hanning(WINDOW))
  at = WINDOW // scale * np.arange(scale)
  on = [(y, x) for y in at for x in at if y or x]
  near = (-BESIDE, BESIDE)
  beside = [(y + dy, x + dx) for y, x in on for dy in near for dx in near]
  found = []
  for top in range(0, SIDE, WINDOW):
    for left in range(0, SIDE, WINDOW):
      cut = np.s_[top : top + WINDOW, left : left + WINDOW]
      if truth[cut].std() < SMOOTH:
        part = image[cut] - image[cut].mean()
        power = np.abs(np.fft.fft2(part * taper)) ** 2
        mean = [
          np.mean([power[y % WINDOW, x % WINDOW] for y, x in places])
          for places in (on, beside)
        ]
        found.append(mean)
  return found


def main() -> None:
  """Run the command."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--images', type=pathlib.Path, required=True, help='a folder')
  parser.add_argument('--models', nargs='+', required=True, help='of 4x')
  args = parser.parse_args()
  upscalers = {name: sr3_jax.load(name, steps=1) for name in args.models}
  found = {name: [] for name in (*upscalers, 'truth')}
  for truth in squares(args.images):
    small = resizing.resize(pixels.to_float(truth), SIDE // 4, SIDE // 4)
    small = pixels.to_uint8(np.clip(small, -1, 1))
    for name, upscaler in upscalers.items():
      found[name] += powers(upscaler.upscale(small).array, truth, 4)
    found['truth'] += powers(truth, truth, 4)
  print(f'{len(found["truth"])} windows\n| | on | beside | ratio |\n|---|---|---|---|')
  for name, values in found.items():
    on, beside = np.median(values, axis=0)  # a few windows have patterns of their own
    print(f'| {name} | {on:.0f} | {beside:.0f} | {on / beside:.2f} |')


if __name__ == '__main__':
  main()
