"""Makes pictures of docs/ and prints the figures that the text beside them gives.

  python docs/make_pictures.py samples together consistency
  python docs/make_pictures.py methods --regression=runs/photo_x4/regression
  python docs/make_pictures.py face --model=face-x4
  python docs/make_pictures.py face --model=face-x8

It uses photographs from scikit-image that no model of the project has seen in training.
"""

import argparse
import pathlib

import numpy as np
from skimage import data

import sr3_jax
from sr3_jax.images import contact_sheets, image_files, pixels, resizing
from sr3_jax.metrics import image_metrics
from sr3_jax.restoration import tiling
from sr3_jax.restoration.upscaler import Upscaler
from sr3_jax.weights import hub

FOLDER = pathlib.Path(__file__).parent


def downsampled(name: str, factor: int) -> np.ndarray:
  """Return a photograph downsampled by `factor`: 8-bit values as floats in [-1, 1]."""
  photo = pixels.to_float(getattr(data, name)())
  height, width = (side // factor for side in photo.shape[:2])
  photo = photo[: height * factor, : width * factor]
  return pixels.to_float(pixels.to_uint8(resizing.resize(photo, height, width)))


def save(name: str, rows: list[list[np.ndarray]], titles: list[str], cell: int) -> None:
  """Write a contact sheet of pictures in [-1, 1] into docs/."""
  rows = [[pixels.to_uint8(picture) for picture in row] for row in rows]
  image_files.write(FOLDER / name, contact_sheets.sheet(rows, titles, cell=cell))
  print(FOLDER / name)


def spread_picture(spread: np.ndarray) -> np.ndarray:
  """Return a spread map as grey levels; white is a spread of 64 of 256 levels."""
  grey = np.clip(spread / 0.5, 0, 1) * 2 - 1
  return np.repeat(grey[..., None], 3, axis=-1)


def samples(loaded: hub.Loaded) -> None:
  """Show input, bicubic, two samples, mean and spread."""
  upscaler, rows = Upscaler(loaded, steps=8), []
  for name, top, left in [('coffee', 8, 28), ('chelsea', 10, 20)]:
    image = downsampled(name, 4)[top : top + 64, left : left + 64]
    result = upscaler.upscale(image, num_samples=8)
    shown = [result.bicubic, *result.samples[:2], result.mean]
    rows.append([image, *shown, spread_picture(result.spread)])
    error = np.abs(result.mean - result.samples).mean()
    spread = result.spread.mean()
    print(f'{name}: spread {spread:.3f}, distance to the mean {error:.3f}')
  titles = ['input', 'bicubic', 'sample 1', 'sample 2', 'mean of 8', 'spread']
  save('upscale.jpg', rows, titles, cell=256)


def together(loaded: hub.Loaded) -> None:
  """Show tiles of 16 input pixels, sampled separately and together, and no tiles.

  Print how strong their seams are, relative to the picture without tiles.
  """
  image = downsampled('coffee', 4)[:96, :144]
  height, width = image.shape[:2]
  options = {'on_note': print}
  alone = Upscaler(loaded, **options)
  parts = [
    alone.upscale(image[r : r + 16, c : c + 16], number=r * width + c).image
    for r in range(0, height, 16)
    for c in range(0, width, 16)
  ]
  side, across, down = parts[0].shape[0], width // 16, height // 16
  cut = np.reshape(parts, (down, across, side, side, 3)).swapaxes(1, 2)
  cut = cut.reshape(down * side, across * side, 3)
  tiled = Upscaler(loaded, tile=16, **options)
  blended = tiled.upscale(image).image
  whole = Upscaler(loaded, tile=0, **options).upscale(image).image

  def seam_strength(picture, borders):
    return tiling.seam(picture, *borders) / tiling.seam(whole, *borders)

  edges = [np.arange(side, n, side) for n in cut.shape[:2]]
  pad, multiple = tiled.settings()['tile_pad'], loaded.model.network.multiple
  middles = []
  for length in cut.shape[:2]:
    starts, _ = tiling.cover(length, side, pad, multiple)
    middles.append((starts[:-1] + side + starts[1:]) // 2)
  separate, together = seam_strength(cut, edges), seam_strength(blended, middles)
  print(f'seams: separate tiles {separate:.3f}, denoised together {together:.3f}')
  crop = (slice(60, 252), slice(100, 292))
  row = [picture[crop] for picture in (cut, blended, whole)]
  save(
    'tiles.jpg', [row], ['separate tiles', 'denoised together', 'no tiles'], cell=384
  )


def consistency(loaded: hub.Loaded) -> None:
  """Show pictures without and with the correction, and print their metrics."""
  rows, lines = [], {False: [], True: []}
  for name in ('coffee', 'chelsea'):
    image = downsampled(name, 4)[:72, :108]
    truth = pixels.to_float(getattr(data, name)())[:288, :432]
    row = [image]
    for on in (False, True):
      output = Upscaler(loaded, consistency=on).upscale(image).image
      output = pixels.to_float(pixels.to_uint8(output))
      low = resizing.resize(output, *image.shape[:2])
      batch = [a[None] for a in (low, image)]
      lines[on].append(
        [
          float(image_metrics.psnr(output[None], truth[None])[0]),
          float(image_metrics.consistency(*batch)[0]),
          float(image_metrics.colour_drift(*batch)[0]),
        ]
      )
      row.append(output[40:232, 100:292])
    rows.append([row[0][10:58, 25:73], *row[1:], truth[40:232, 100:292]])
  for on, figures in lines.items():
    psnr, error, drift = np.mean(figures, axis=0)
    print(f'consistency {on}: PSNR {psnr:.2f}, {error:.3f} e-5, drift {drift:.4f}')
  save('consistency.jpg', rows, ['input', 'off', 'on', 'truth'], cell=288)


def methods(loaded: hub.Loaded, regression: str = '') -> None:
  """Show bicubic, a regression model if one is given, all presets, and the truth."""
  ways = {name: Upscaler(loaded, steps=name) for name in loaded.presets}
  if regression:
    ways = {'regression': Upscaler(hub.load(regression))} | ways
  rows = []
  for name, top, left in [('coffee', 20, 60), ('rocket', 30, 60), ('astronaut', 0, 40)]:
    low = (slice(top, top + 64), slice(left, left + 64))
    high = (slice(4 * top, 4 * top + 256), slice(4 * left, 4 * left + 256))
    image = downsampled(name, 4)[low]
    made = [way.upscale(image) for way in ways.values()]
    truth = pixels.to_float(getattr(data, name)()[high])
    rows.append([made[0].bicubic, *(result.image for result in made), truth])
  save('methods.jpg', rows, ['bicubic', *ways, 'truth'], cell=256)


def face(loaded: hub.Loaded) -> None:
  """Show samples for the astronaut Eileen Collins (NASA, public domain), 16 x 16."""
  side = loaded.config.data.image_size
  truth = resizing.resize_area(data.astronaut()[20:200, 135:315], side)
  image = pixels.to_uint8(resizing.resize(pixels.to_float(truth), 16, 16))
  result = Upscaler(loaded).upscale(image, num_samples=3)
  shown = [result.bicubic, *result.samples, result.mean, pixels.to_float(truth)]
  titles = ['input', 'bicubic', *(f'sample {i}' for i in (1, 2, 3)), 'mean', 'truth']
  save(f'{loaded.name}.jpg', [[pixels.to_float(image), *shown]], titles, cell=192)


def main() -> None:
  """Run the command."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('pictures', nargs='+', choices=PICTURES)
  parser.add_argument(
    '--model', default='photo-x4', help='a model, as --model of sr3-upscale'
  )
  parser.add_argument(
    '--regression', default='', help='a run of a regression model, for `methods`'
  )
  args = parser.parse_args()
  loaded = hub.load(args.model)
  print(f'sr3_jax {sr3_jax.__version__}, {loaded.name}, step {loaded.step}')
  for name in args.pictures:
    options = {'regression': args.regression} if name == 'methods' else {}
    PICTURES[name](loaded, **options)


PICTURES = {
  'samples': samples,
  'together': together,
  'consistency': consistency,
  'methods': methods,
  'face': face,
}

if __name__ == '__main__':
  main()
