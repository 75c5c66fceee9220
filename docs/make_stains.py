"""Makes example data: two stains of a tissue section as 16-bit TIFFs of two channels.

  python docs/make_stains.py stains

scikit-image comes with a photomicrograph of a colon section, 512 x 512 pixels
(skimage.data.immunohistochemistry): cell nuclei in blue (haematoxylin), cells with the
protein FHL2 in brown (DAB). A microscopist wants to know the amount of each stain at
each place, so the colours are separated into optical densities (Ruifrok and Johnston
2001, by skimage.color.rgb2hed). The upper three quarters are for training, the lowest
quarter is held out.
"""

import pathlib
import sys

import numpy as np
import skimage.color
import skimage.data

from sr3_jax.images import rasters

# Stored values per unit of density of scikit-image, which is six decades of light.
UNITS = 200_000
STAINS = (0, 2)  # of haematoxylin, eosin and DAB; the picture has no eosin
BORDER = 384  # the first held-out row
SIDES = {'train': (192, 256), 'eval': (128, 128)}


def stains() -> np.ndarray:
  """Return the densities of the two stains: uint16 [512, 512, 2]."""
  density = skimage.color.rgb2hed(skimage.data.immunohistochemistry())[..., STAINS]
  return np.clip(np.round(density * UNITS), 0, 65535).astype(np.uint16)


def main(folder: str) -> None:
  """Write train/ROW_COLUMN.tif and eval/ROW_COLUMN.tif."""
  whole = stains()
  parts = {'train': whole[:BORDER], 'eval': whole[BORDER:]}
  for name, part in parts.items():
    height, width = SIDES[name]
    for top in range(0, part.shape[0], height):
      for left in range(0, part.shape[1], width):
        path = pathlib.Path(folder, name, f'{top:03d}_{left:03d}.tif')
        tile = np.ascontiguousarray(part[top : top + height, left : left + width])
        rasters.write(path, tile, f'haematoxylin and DAB, density x {UNITS}')
        print(path)


if __name__ == '__main__':
  main(*sys.argv[1:])
