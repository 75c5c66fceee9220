"""Makes example pairs: one stain of a tissue section, and the section in colour.

  python docs/make_pairs.py pairs
  python docs/make_pairs.py pairs lookup

scikit-image comes with a photomicrograph of a colon section, 512 x 512 pixels
(skimage.data.immunohistochemistry): cell nuclei in blue (haematoxylin), cells with the
protein FHL2 in brown (DAB). An input is the optical density of haematoxylin alone, one
channel of 16 bits (skimage.color.rgb2hed); its target is the section as the microscope
saw it, 8-bit RGB. The upper three quarters are for training, the lowest quarter is held
out. With `lookup`, the second command prints how well a table that knows the mean
colour of every density does on the held-out crops of --config=small/stain_to_colour_32.
"""

import pathlib
import sys

import numpy as np
import skimage.color
import skimage.data

from sr3_jax.config import load_config
from sr3_jax.data import input_pipeline
from sr3_jax.images import image_files, rasters
from sr3_jax.metrics import image_metrics

# Stored values per unit of density of scikit-image, which is six decades of light.
UNITS = 200_000
BORDER = 384  # the first held-out row
SIDES = {'train': (192, 256), 'eval': (128, 128)}
BINS = 256  # of the table


def main(folder: str) -> None:
  """Write PART/inputs/ROW_COLUMN.tif and PART/targets/ROW_COLUMN.png."""
  colour = skimage.data.immunohistochemistry()
  density = skimage.color.rgb2hed(colour)[..., :1] * UNITS
  density = np.clip(np.round(density), 0, 65535).astype(np.uint16)
  parts = {'train': slice(0, BORDER), 'eval': slice(BORDER, None)}
  for name, rows in parts.items():
    height, width = SIDES[name]
    place = pathlib.Path(folder, name)
    for top in range(0, len(colour[rows]), height):
      for left in range(0, colour.shape[1], width):
        square = slice(top, top + height), slice(left, left + width)
        stem = f'{top:03d}_{left:03d}'
        image_files.write(place / 'targets' / f'{stem}.png', colour[rows][square])
        tile = np.ascontiguousarray(density[rows][square])
        (place / 'inputs').mkdir(parents=True, exist_ok=True)
        rasters.write(place / 'inputs' / f'{stem}.tif', tile)
    print(place)


def lookup(folder: str) -> None:
  """Print PSNR and SSIM of the mean colour of every density."""
  c = load_config('small/stain_to_colour_32')
  for key in ('path', 'eval_path', 'input_path', 'eval_input_path'):
    c.data[key] = c.data[key].replace('pairs', folder, 1)
  high = c.data.input_high[0]

  def bins(given: np.ndarray) -> np.ndarray:
    return np.minimum(given[..., 0] * (BINS / high), BINS - 1).astype(int)

  source = input_pipeline.make_source(c, held_out=False)
  records = [source[i] for i in range(len(source))]
  places = np.concatenate([bins(record['condition']).ravel() for record in records])
  colours = np.concatenate([record['image'].reshape(-1, 3) for record in records])
  counts = np.bincount(places, minlength=BINS)
  sums = [np.bincount(places, channel, BINS) for channel in colours.T]
  table = np.stack(sums, -1) / np.maximum(counts, 1)[:, None]
  table[counts == 0] = colours.mean(0)
  batches = input_pipeline.evaluation_data(c, c.eval.final_images)
  scores = []
  for batch in batches:
    output, truth = (
      (a / 127.5 - 1).astype(np.float32)
      for a in (np.round(table[bins(batch['condition'])]), batch['image'])
    )
    both = np.stack(
      [image_metrics.psnr(output, truth), image_metrics.ssim(output, truth)]
    )
    scores.append(both[:, batch['mask']])
  psnr, ssim = np.concatenate(scores, axis=1).mean(1)
  print(f'mean colour of every density: PSNR {psnr:.2f} dB, SSIM {ssim:.3f}')


if __name__ == '__main__':
  (lookup if sys.argv[2:] == ['lookup'] else main)(sys.argv[1])
