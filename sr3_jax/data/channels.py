"""What a folder's values mean: `sr3-channels FOLDER`.

Finds for every channel the two stored values that a model shall see as -1 and 1.
"""

import contextlib
import pathlib
import sys
from collections.abc import Iterator, Sequence

import numpy as np

from sr3_jax.data import sources
from sr3_jax.images import pixels as images_pixels
from sr3_jax.images import rasters
from sr3_jax.runtime import progress as runtime_progress
from sr3_jax.runtime.cli import Parser

DESCRIPTION = """\
Looks at a folder of images with any number of channels (.npy, TIFF, 16-bit PNG) and
prints which stored values should mean -1 and 1 to a model, channel by channel, as
settings to paste into a command or a configuration.
"""
EPILOG = """\
examples:
  sr3-channels stains/train
  sr3-channels tiles --channels=13 --low=1 --high=99
"""

_SAMPLE = 2**22  # pixels of each channel that percentiles are taken of


def make_parser() -> Parser:
  """All options."""
  parser = Parser(prog='sr3-channels', description=DESCRIPTION, epilog=EPILOG)
  add = parser.add_argument
  add('folder', help='of the training images, with all folders below')
  add('--channels', type=int, help="default: those of the folder's first image")
  add('--low', type=float, default=0.1, help='percentile that is -1; %(default)s')
  add('--high', type=float, default=99.9, help='percentile that is 1; %(default)s')
  add('--images', type=int, default=256, help='look at so many; %(default)s')
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """Prints ranges; returns the exit code."""
  parser = make_parser()
  args = parser.parse_args(argv)
  if not 0 <= args.low < args.high <= 100:
    parser.error('--low and --high are percentiles, the first below the second')
  if args.images < 1 or (args.channels is not None and args.channels < 1):
    parser.error('--channels and --images must be at least 1')
  try:
    channels = args.channels or first_channels(pathlib.Path(args.folder))
    source = sources.Folder(args.folder, channels=channels, as_rasters=True)
    sample = sampled(source, args.images)
    low, high = limits(sample, source.dtype, args.low, args.high)
  except (sources.DataError, images_pixels.ImageError) as error:
    parser.error(str(error))
  print(f'{len(source)} images of {channels} channel(s), {source.dtype}')
  points = (0, args.low, 50, args.high, 100)
  heads = ('least', f'{args.low:g} %', 'median', f'{args.high:g} %', 'greatest')
  print('channel' + ''.join(f'{head:>12}' for head in heads))
  for c, values in enumerate(np.percentile(sample, points, axis=0).T):
    print(f'{c + 1:7d}' + ''.join(f'{value:12.6g}' for value in values))
  print(
    f'--config.data.channels={channels} --config.data.low="{_text(low)}" '
    f'--config.data.high="{_text(high)}"'
  )
  return 0


def first_channels(folder: pathlib.Path) -> int:
  """Channels of the first image of a folder that can be read.

  Raises:
    sources.DataError: there is none.
  """
  if folder.is_dir():
    for path in sorted(folder.rglob('*')):
      if path.name.lower().endswith(rasters.EXTENSIONS) and path.name[0] != '.':
        with contextlib.suppress(images_pixels.ImageError):
          return rasters.header(path).channels
  raise sources.DataError(f'{folder}: no folder of images')


def ranges(
  source: sources.Source, low: float = 0.1, high: float = 99.9, count: int = 256
) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Percentiles of every channel of a source: data.low and data.high of a model.

  Args:
    source: of images of any type.
    low: percentile that is to mean -1.
    high: the same for 1.
    count: images to look at, spread over the source.

  Raises:
    sources.DataError: no image can be read, or a channel has one value only.
  """
  return limits(sampled(source, count), source.dtype, low, high)


def sampled(source: sources.Source, count: int) -> np.ndarray:
  """Pixels of up to `count` images, evenly spread: [n, C].

  Raises:
    sources.DataError: no image can be read.
  """
  count = min(count, len(source))
  found = list(_pixels(source, np.arange(count) * len(source) // count))
  if not found:
    raise sources.DataError(f'not one of {count} images can be read')
  return np.concatenate(found)


def limits(
  sample: np.ndarray, dtype: np.dtype, low: float, high: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Percentiles of pixels [n, C], whole numbers for integers.

  Raises:
    sources.DataError: a channel has one value only.
  """
  below, above = np.percentile(sample, (low, high), axis=0)
  if np.dtype(dtype).kind == 'u':
    below, above = np.floor(below), np.ceil(above)
  for c in range(len(below)):
    if not below[c] < above[c]:
      raise sources.DataError(
        f'channel {c + 1} is {below[c]:g} nearly everywhere: leave it out, or choose '
        'other percentiles'
      )
  return tuple(below.tolist()), tuple(above.tolist())


def _pixels(source: sources.Source, numbers: np.ndarray) -> Iterator[np.ndarray]:
  """Some pixels of every image that can be read, [n, C]."""
  room = _SAMPLE // len(numbers)
  with runtime_progress.Progress(len(numbers), unit='image') as progress:
    for done, i in enumerate(numbers):
      try:
        pixels = source[int(i)]['image']
      except images_pixels.ImageError:
        continue
      pixels = pixels.reshape(-1, pixels.shape[-1])
      # At random: in even steps the same columns would come again and again.
      chosen = np.random.default_rng(int(i)).choice(len(pixels), min(room, len(pixels)))
      yield pixels[chosen] if room < len(pixels) else pixels
      progress.update(done + 1)


def _text(values: Sequence[float]) -> str:
  """As a configuration takes it: a tuple without spaces."""
  text = ','.join(f'{value:.7g}' for value in values)
  return f'({text})' if len(values) > 1 else f'({text},)'


if __name__ == '__main__':
  sys.exit(main())
