r"""Measures a model on test images, beside kernels, ridge regression and a baseline.

  python benchmarks/shipped.py --workdir=runs/shipped --model=photo-x4 \
    --regression=runs/photo_x4/regression --border=4 --patch=128 \
    --sets set5=photos/set5 set14=photos/set14
  python benchmarks/shipped.py --workdir=runs/shipped_faces --model=face-x4 \
    --regression=runs/portraits_16_64/regression --ridge=faces/train64 \
    --sets canada64=faces/canada64

True images are cropped to multiples of the model's scale and downsampled with the
bicubic kernel (as Pillow does, to 8 bits). Everything else is done by the commands that
users have: sr3-upscale makes the outputs, sr3-evaluate measures the files. FID and KID
of a few photographs mean nothing, so with --patch they are those of squares cut from
the photographs. You can add flags of sr3-upscale to --regression and --steps, as in
best+no-consistency. For every set, images, a report and sheet.png are written to
WORKDIR/SET, and all tables to WORKDIR/results.md. If the command is interrupted, run it
again and it continues.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence

import numpy as np

from sr3_jax.evaluation import command as evaluation_command
from sr3_jax.evaluation import image_folders
from sr3_jax.evaluation.summary import METRICS
from sr3_jax.images import contact_sheets, image_files, pixels, resizing
from sr3_jax.runtime import atomic_files
from sr3_jax.upscale import command as upscale_command
from sr3_jax.weights import hub

# The metrics of the tables, in this order.
COLUMNS = ('psnr_y', 'ssim_y', 'psnr', 'ssim', 'consistency', 'lpips_alex')
COLUMNS += ('lpips_vgg', 'dists', 'fid', 'kid', 'detail', 'spectrum_db')
COLUMNS += ('colour_drift',)
# Networks that compare pictures; --networks adds dists.
NETWORKS = ('lpips_alex', 'lpips_vgg')
# Strengths of the ridge to try, as shares of the mean variance of the inputs.
RIDGES = tuple(10.0**power for power in range(-5, 1))


def downsample(image: np.ndarray, scale: int) -> np.ndarray:
  """Downsample uint8 [H, W, 3] to [H / scale, W / scale, 3], rounded."""
  height, width = image.shape[:2]
  small = resizing.resize(pixels.to_float(image), height // scale, width // scale)
  return pixels.to_uint8(np.clip(small, -1, 1))


def fresh(made: pathlib.Path, *sources: pathlib.Path) -> bool:
  """Return whether a file is there and not older than what it was made from."""
  newest = max(source.stat().st_mtime for source in sources)
  return made.exists() and made.stat().st_mtime >= newest


def prepare(source: pathlib.Path, folder: pathlib.Path, scale: int) -> None:
  """Write the true images and the inputs made of them, if they are not there."""
  for name, path in image_folders.find(source).items():
    truth, small = (folder / kind / f'{name}.png' for kind in ('truth', 'inputs'))
    if fresh(truth, path) and fresh(small, path):
      continue
    image = image_files.read(path)
    height, width = (side // scale * scale for side in image.shape[:2])
    image_files.write(truth, image[:height, :width])
    image_files.write(small, downsample(image[:height, :width], scale))


def fit_ridge(source: pathlib.Path, size: tuple[int, int], scale: int) -> np.ndarray:
  """Fit a ridge regression from all input pixels to all output pixels.

  The strength is the one of RIDGES that is best on every tenth image; with it, the
  regression is fitted to all images.

  Args:
    source: folder of images.
    size: height and width of the inputs.
    scale: of the outputs to the inputs.

  Returns:
    Weights [n + 1, m] for n input values, a constant, and m output values.
  """
  inputs, outputs = [], []
  for path in image_folders.find(source).values():
    image = image_files.read(path)
    if image.shape[:2] != tuple(side * scale for side in size):
      raise SystemExit(f'error: {path}: --ridge needs images of the size of the test')
    for flipped in (image, image[:, ::-1]):
      inputs.append(pixels.to_float(downsample(flipped, scale)).ravel())
      outputs.append(pixels.to_float(flipped).ravel())
  x = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1).astype(np.float64)
  y = np.asarray(outputs, np.float64)

  def solve(rows, strength):
    gram = x[rows].T @ x[rows]
    added = strength * len(rows) * x[:, :-1].var() * np.eye(len(gram))
    added[-1, -1] = 0  # the constant may be large
    return np.linalg.solve(gram + added, x[rows].T @ y[rows])

  place = np.arange(len(x)) // 2  # an image and its mirror image stay together
  held, fitted = np.flatnonzero(place % 10 == 0), np.flatnonzero(place % 10)
  errors = [np.square(x[held] @ solve(fitted, s) - y[held]).mean() for s in RIDGES]
  return solve(np.arange(len(x)), RIDGES[int(np.argmin(errors))])


def apply_ridge(
  source: pathlib.Path, inputs: pathlib.Path, output: pathlib.Path, scale: int
) -> None:
  """Upsample a folder of images by ridge regression learned from another."""
  found, known = image_folders.find(inputs), image_folders.find(source).values()
  if all(fresh(output / f'{name}.png', path, *known) for name, path in found.items()):
    return
  small = {name: image_files.read(path) for name, path in found.items()}
  height, width = next(iter(small.values())).shape[:2]
  weights = fit_ridge(source, (height, width), scale)
  for name, image in small.items():
    if image.shape[:2] != (height, width):
      raise SystemExit('error: --ridge needs test images of one size')
    made = np.append(pixels.to_float(image).ravel(), 1) @ weights
    made = np.clip(made, -1, 1).reshape(height * scale, width * scale, 3)
    image_files.write(output / f'{name}.png', made)


def cut(source: pathlib.Path, output: pathlib.Path, side: int) -> None:
  """Cut all images of a folder into squares, without what is over at the edges."""
  for name, path in image_folders.find(source).items():
    image = image_files.read(path)
    for top in range(0, image.shape[0] - side + 1, side):
      for left in range(0, image.shape[1] - side + 1, side):
        part = output / f'{name}_{top}_{left}.png'
        if not fresh(part, path):
          image_files.write(part, image[top : top + side, left : left + side])


def run(command, *arguments) -> None:
  """Run one of the package's commands; end with its exit status if it fails."""
  if code := command([str(argument) for argument in arguments]):
    raise SystemExit(code)


def restore(args: argparse.Namespace, folder: pathlib.Path, scale: int) -> list[str]:
  """Make the outputs of all methods; return the names of the methods."""
  inputs = folder / 'inputs'
  methods = []

  def upscale(model, name, flags, *options):
    methods.append('_'.join([name, *flags]))
    given = [inputs, f'--model={model}', f'--output={folder / methods[-1]}']
    given += ['--suffix=', '--ext=png', f'--seed={args.seed}', *options]
    run(upscale_command.main, *given, *(f'--{flag}' for flag in flags))

  if args.ridge:
    methods.append('ridge')
    apply_ridge(args.ridge, inputs, folder / 'ridge', scale)
  for text in args.regression:
    model, *flags = text.split('+')
    upscale(model, 'regression', flags)
  for text in args.steps:
    steps, *flags = text.split('+')
    upscale(args.model, f'sr3_{steps}', flags, f'--steps={steps}')
  return methods


def measure(
  folder: pathlib.Path,
  methods: list[str],
  *,
  weights: str,
  border: int = 0,
  patch: int = 0,
  networks: Sequence[str] = NETWORKS,
) -> dict:
  """Measure methods; return method -> metric -> value and interval.

  Args:
    folder: with `truth`, `inputs` and a folder for each method.
    methods: to measure beside the kernels.
    weights: folder of networks, as sr3-evaluate takes it.
    border: pixels that PSNR and SSIM leave out at each side.
    patch: side of the squares for FID and KID; 0 is whole images.
    networks: that compare pictures, by their names in sr3-evaluate.
  """
  networks = list(networks)
  if not patch:
    networks.append('inception')
  common = (f'--weights={weights}', '--batch_size=8')
  given = [f'--truth={folder / "truth"}', f'--inputs={folder / "inputs"}', *common]
  given += [f'--border={border}', f'--report={folder / "report"}']
  given += ['--outputs', *(f'{name}={folder / name}' for name in methods)]
  run(evaluation_command.main, *given, '--networks', *networks)
  rows = table_of(folder / 'report')
  if patch:
    patches = folder / 'patches'
    kernels = ('bicubic', 'lanczos')
    upsample_by_kernels(folder, kernels)
    for name in ('truth', *kernels, *methods):
      cut(folder / name, patches / name, patch)
    # sr3-evaluate has methods of the kernels' names, so their files need other ones.
    names = [f'the {name}={patches / name}' for name in kernels]
    names += [f'{name}={patches / name}' for name in methods]
    given = [f'--truth={patches / "truth"}', f'--report={folder / "report_patches"}']
    given += [*common, '--networks', 'inception', '--outputs', *names]
    run(evaluation_command.main, *given)
    for name, row in table_of(folder / 'report_patches').items():
      rows[name.removeprefix('the ')] |= {k: row[k] for k in ('fid', 'kid') if k in row}
  return rows


def upsample_by_kernels(folder: pathlib.Path, kernels) -> None:
  """Write the inputs as the kernels upsample them."""
  for name, path in image_folders.find(folder / 'inputs').items():
    truth = image_files.size(folder / 'truth' / f'{name}.png')
    for kernel in kernels:
      output = folder / kernel / f'{name}.png'
      if not fresh(output, path):
        made = resizing.resize(pixels.to_float(image_files.read(path)), *truth, kernel)
        image_files.write(output, np.clip(made, -1, 1))


def table_of(report: pathlib.Path) -> dict:
  """Return the table of a report: method -> metric -> value and interval."""
  return json.loads((report / 'report.json').read_text())['table']


def markdown(name: str, rows: dict, count: int) -> list[str]:
  """Return a table in Markdown, with the intervals below the values."""
  columns = [key for key in COLUMNS if any(key in row for row in rows.values())]
  lines = [f'## {name}: {count} images', '']
  lines.append('| | ' + ' | '.join(METRICS[key].title for key in columns) + ' |')
  lines.append('|---' * (len(columns) + 1) + '|')

  for method, row in rows.items():
    values, intervals = [], []
    for key in columns:
      cell, digits = row.get(key, {}), METRICS[key].digits
      values.append(f'{cell["value"]:.{digits}f}' if cell else '')
      known = cell.get('low') is not None
      intervals.append(
        f'{cell["low"]:.{digits}f} to {cell["high"]:.{digits}f}' if known else ''
      )
    lines.append(f'| {method} | {" | ".join(values)} |')
    lines.append(f'| | {" | ".join(intervals)} |')
  return [*lines, '']


def write_sheet(
  folder: pathlib.Path, methods: list[str], count: int, side: int
) -> None:
  """Write sheet.png: input, bicubic, all methods and truth of a few images.

  Args:
    folder: of a set.
    methods: to show.
    count: number of images.
    side: pixels of the true image to show; of larger ones the middle is shown.
  """
  found = list(image_folders.find(folder / 'truth'))
  names = found[:: max(1, len(found) // count)][:count]
  upsample_by_kernels(folder, ('bicubic',))
  kinds = ['inputs', 'bicubic', *methods, 'truth']
  rows = []
  for name in names:
    height, width = image_files.size(folder / 'truth' / f'{name}.png')
    row = []
    for kind in kinds:
      image = image_files.read(folder / kind / f'{name}.png')
      factor = image.shape[0] / height
      part = [round(min(side, length) * factor) for length in (height, width)]
      at = [(a - b) // 2 for a, b in zip(image.shape[:2], part, strict=True)]
      row.append(image[at[0] : at[0] + part[0], at[1] : at[1] + part[1]])
    rows.append(row)
  titles = ['input', *kinds[1:]]
  image_files.write(
    folder / 'sheet.png', contact_sheets.sheet(rows, titles, cell=max(side, 160))
  )


def main() -> None:
  """Run the command."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add, path = parser.add_argument, pathlib.Path
  add('--workdir', type=path, required=True, metavar='DIR')
  add('--model', required=True, help='as sr3-upscale takes it')
  add('--regression', nargs='*', default=[], metavar='MODEL', help='baselines')
  add('--ridge', type=path, metavar='DIR', help='learn ridge regression from these')
  add('--sets', nargs='+', required=True, metavar='NAME=DIR', help='test images')
  add('--steps', nargs='+', default=['fast', 'balanced', 'best'], help='of the model')
  add('--border', type=int, default=0, help='pixels that PSNR and SSIM leave out')
  add('--patch', type=int, default=0, metavar='N', help='side of squares for FID, KID')
  add('--weights', default='', metavar='DIR', help='of networks, as sr3-evaluate')
  add('--networks', nargs='+', default=NETWORKS, choices=(*NETWORKS, 'dists'))
  add('--seed', type=int, default=0)
  add('--shown', type=int, default=5, metavar='N', help='images in a sheet')
  add('--side', type=int, default=192, metavar='N', help='of what a sheet shows of one')
  args = parser.parse_args()
  sets = {}
  for text in args.sets:
    name, equals, source = text.partition('=')
    if not equals or not name.replace('_', '').isalnum():
      parser.error(f'--sets {text}: give NAME=DIR')
    sets[name] = path(source)
  lines = []
  try:
    scale = hub.load(args.model).model.scale
    for name, source in sets.items():
      folder = args.workdir / name
      prepare(source, folder, scale)
      methods = restore(args, folder, scale)
      rows = measure(
        folder,
        methods,
        weights=args.weights,
        border=args.border,
        patch=args.patch,
        networks=args.networks,
      )
      lines += markdown(name, rows, len(image_folders.find(folder / 'truth')))
      write_sheet(folder, methods, args.shown, args.side)
  except (hub.HubError, image_folders.ImageSetError, pixels.ImageError) as error:
    sys.exit(f'error: {error}')
  atomic_files.write_bytes(args.workdir / 'results.md', '\n'.join(lines).encode())
  print('\n'.join(lines))


if __name__ == '__main__':
  main()
