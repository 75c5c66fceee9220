"""`sr3-evaluate`: measures folders of images that any method made.

The same numbers, report and protocol as --mode=eval of a run, for other people's
results: outputs are matched to true images by their file names.
"""

import argparse
import hashlib
import pathlib
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from sr3_jax.runtime.cli import CACHE, Parser

DESCRIPTION = """\
Measures images against true images: PSNR, SSIM, LPIPS, FID, KID and IS; with --inputs
also consistency, colour drift and the baselines bicubic and lanczos. Writes a report.
"""
EPILOG = """\
examples:
  sr3-evaluate --truth=truth --outputs mine=runs/a other=/data/theirs
  sr3-evaluate --truth=truth --inputs=small --outputs=mine --border=4

Files belong together by their names without extensions (a.png, a.jpg). A killed run
goes on where it was. Weights of networks: python -m sr3_jax.metrics.net_weights --help.
"""
NETWORKS = ('inception', 'lpips_alex', 'lpips_vgg')
# Names that mean something else in tables, pictures or batches.
TAKEN = ('truth', 'input', 'bicubic', 'lanczos', 'mask', 'index', 'label')
REFERENCES = pathlib.Path('~/.cache/sr3_jax/reference')


def make_parser() -> Parser:
  """All options."""
  parser = Parser(
    prog='sr3-evaluate',
    description=DESCRIPTION,
    epilog=EPILOG,
  )
  add, path = parser.add_argument, pathlib.Path
  add('--truth', type=path, required=True, metavar='DIR', help='the true images')
  add(
    '--outputs',
    nargs='+',
    required=True,
    metavar='NAME=DIR',
    help="what is measured; without NAME= the folder's name",
  )
  add('--inputs', type=path, metavar='DIR', help='the small images, if there are any')
  add(
    '--report',
    type=path,
    default=path('report'),
    metavar='DIR',
    help='folder of the report; default: report',
  )
  number = {'type': int, 'metavar': 'N'}
  add(
    '--border',
    **number,
    default=0,
    help='pixels at every side that PSNR and SSIM leave out; default: 0',
  )
  add(
    '--networks',
    nargs='*',
    choices=NETWORKS,
    default=NETWORKS,
    metavar='NAME',
    help=f'{", ".join(NETWORKS)}: for FID, KID and IS, and for LPIPS; default: all '
    'three; without names: none',
  )
  add('--weights', default='', metavar='DIR', help='of the networks; default: ~/.cache')
  add(
    '--reference',
    type=path,
    metavar='FILE',
    help='for FID and KID: statistics (.npz) or a folder; default: the true images',
  )
  add('--classifier', default='', metavar='FILE', help='ONNX, for error rates')
  add('--labels', type=path, metavar='FILE', help='its classes: lines "NAME CLASS"')
  add('--batch_size', **number, default=8, help='images at a time; default: 8')
  add('--num_images', **number, default=8, help='images shown; default: 8')
  add('--cache', default=CACHE, metavar='DIR', help='compiled programs, kept here')
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  argv = sys.argv[1:] if argv is None else argv
  parser = make_parser()
  args = parser.parse_args(argv)
  outputs = _outputs(parser, args.outputs)
  for name in ('border', 'batch_size', 'num_images'):
    if getattr(args, name) < (name != 'border'):
      parser.error(f'--{name}={getattr(args, name)} is too small')
  if bool(args.classifier) != bool(args.labels):
    parser.error('--classifier and --labels belong together')

  from absl import flags

  from sr3_jax.runtime import devices, errors, process_log

  flags.FLAGS.mark_as_parsed()
  process_log.setup()
  devices.keep_programs(args.cache)
  try:
    run(args, outputs, f'{parser.prog} {shlex.join(argv)}')
  except errors.UserError as error:
    parser.error(str(error))
  except OSError as error:
    parser.error(f'{error.filename or args.report}: {error.strerror or error}')
  except KeyboardInterrupt:
    print('interrupted; the same command goes on from here', file=sys.stderr)
    return 130
  return 0


def _outputs(parser: Parser, texts: Sequence[str]) -> dict[str, pathlib.Path]:
  """Method -> folder."""
  found = {}
  for text in texts:
    name, equals, folder = text.partition('=')
    path = pathlib.Path(folder if equals else text)
    name = name if equals else ''
    name = name or path.resolve().name
    if not re.fullmatch(r'[A-Za-z0-9_. -]{1,60}', name) or name.startswith('.'):
      parser.error(f'--outputs {text}: {name!r} is no name; give NAME=DIR')
    if name in (*TAKEN, *found):
      parser.error(f'--outputs {text}: the name {name!r} is taken; give NAME=DIR')
    found[name] = path
  return found


def run(
  args: argparse.Namespace, outputs: dict[str, pathlib.Path], command: str
) -> None:
  """Measures, and writes the report, which says by which command."""
  from absl import logging
  from etils import epath

  from sr3_jax.evaluation import image_folders, records, report_writer, summary
  from sr3_jax.evaluation.scoring import Scorer
  from sr3_jax.metrics import classifier, feature_nets
  from sr3_jax.restoration import restorer
  from sr3_jax.runtime import devices
  from sr3_jax.runtime import progress as runtime_progress
  from sr3_jax.runtime.version import __version__

  items, left_out = image_folders.match(args.truth, outputs, args.inputs)
  for name, reason in list(left_out.items())[:5]:
    logging.warning('left out: %s: %s', name, reason)
  if left_out:
    logging.warning(
      '%d of %d images left out', len(left_out), len(left_out) + len(items)
    )
  side = min(min(item.size) for item in items)
  if side <= 2 * args.border:
    raise image_folders.ImageSetError(
      f'--border={args.border} leaves nothing of images of {side} pixels'
    )
  nets, missing = feature_nets.load_nets(args.networks, args.weights, side)
  judge = classifier.load(args.classifier) if args.classifier else None
  labels = image_folders.labels(args.labels, items) if judge else None
  against = _reference(args, nets)
  made_by = {
    'files': image_folders.fingerprint(items),
    'border': args.border,
    'networks': {name: net.fingerprint for name, net in nets.items()},
    'classifier': judge.fingerprint if judge else None,
    'labels': None if labels is None else hashlib.sha256(labels).hexdigest(),
    'sr3_jax': __version__,
  }
  folder = epath.Path(args.report)
  kept = records.open_records(folder / 'records', made_by)
  scorer = Scorer(border=args.border, nets=nets, classifier=judge)
  batch_size = devices.round_up(args.batch_size)
  methods = [*(restorer.BASELINES if args.inputs else ()), *outputs]
  with runtime_progress.Progress(len(items), unit='image') as progress:
    done = 0
    for number, batch in image_folders.batches(items, batch_size):
      if labels is not None:
        batch['label'] = labels[batch['index']]
      _measure(scorer, kept, number, batch, methods)
      done += int(batch['mask'].sum())
      progress.update(done)
  if not len(kept.scalars('truth').get('index', ())):
    raise image_folders.ImageSetError(f'{args.truth}: not one image could be read')
  scale = _scale(items)
  parts = {name: [name] for name in methods}
  rows = report_writer.table(kept, parts, scale, nets, against)
  main_method = next(iter(outputs))
  values = kept.scalars(main_method)
  first = values['index'][: args.num_images].tolist()
  ranked = report_writer.ranked(values)
  wanted = {i for picks in ranked.values() for i in picks.values()} | set(first)
  _pictures(items, sorted(wanted), methods, folder / 'pictures')
  sheets = report_writer.sheets(
    first, ranked, methods, main_method, 1, values, inputs=bool(args.inputs)
  )
  report_writer.write(
    folder,
    title=', '.join(outputs),
    records=kept,
    methods=parts,
    scale=scale,
    image_size=None,
    rows=rows,
    sheets=sheets,
    left_out=missing + _without(args, judge),
    protocol=_protocol(args, items, left_out, kept, nets, against, judge, outputs),
    abouts={
      name: f'Images of the folder {path.resolve().name}.'
      for name, path in outputs.items()
    },
    curves={},
    command=command,
  )
  print(summary.format_table(summary.values(rows)))
  print(f'report: {folder / "report.html"} ({len(values["index"])} images)')


def _measure(scorer, kept, number: int, batch: dict[str, Any], methods) -> None:
  """Records what is missing of a batch."""
  import numpy as np

  from sr3_jax.evaluation import image_folders, scoring
  from sr3_jax.evaluation import measure as evaluation_measure
  from sr3_jax.images import pixels as images_pixels
  from sr3_jax.runtime import devices

  index = batch['index'][batch['mask']]
  todo = [m for m in ('truth', *methods) if not kept.has(m, index)]
  if not todo or not len(index):
    return
  plain = {key: batch[key] for key in ('index', 'mask', 'label') if key in batch}
  sharded = devices.shard(plain)
  put = lambda key: devices.shard(images_pixels.to_float(batch[key]))
  truth = put(image_folders.TRUTH)
  condition = put(image_folders.INPUT) if image_folders.INPUT in batch else None
  for name in todo:
    if name == 'truth':
      values = scorer.of_set(truth, sharded)
      shown = batch[image_folders.TRUTH][batch['mask']]
      values['hash'] = np.array(
        [evaluation_measure.fingerprint(i) for i in shown], np.uint64
      )
    else:
      if name in batch:
        output = put(name)
      else:
        output = scoring.resized(name, *batch[image_folders.TRUTH].shape[1:3])(
          condition
        )
      low = None
      if condition is not None:
        low = scoring.resized('bicubic', *condition.shape[2:4])(
          scoring.quantize(output)
        )
      values = scorer(output, truth, low, condition, sharded)
    kept.add(name, number, values)


def _reference(args: argparse.Namespace, nets: dict[str, Any]) -> Any:
  """The reference statistics that were asked for; those of a folder are kept."""
  from absl import logging

  from sr3_jax.evaluation import image_folders
  from sr3_jax.images import image_files
  from sr3_jax.images import pixels as images_pixels
  from sr3_jax.metrics import reference_statistics
  from sr3_jax.runtime import devices

  if args.reference is None or 'inception' not in nets:
    return None
  net = nets['inception']
  if not args.reference.is_dir():
    given = reference_statistics.load(args.reference)
    reference_statistics.check(given, net)
    return given
  files = image_folders.find(args.reference)
  items = []
  for name, path in files.items():
    try:
      items.append(
        image_folders.Item(name, {'image': path}, image_files.size(path), None)
      )
    except images_pixels.ImageError as error:
      logging.warning('left out: %s', error)
  key = (
    f'{image_folders.fingerprint(items)} {net.fingerprint} {args.reference.resolve()}'
  )
  name = hashlib.sha256(key.encode()).hexdigest()[:16]
  path = REFERENCES.expanduser() / f'{name}.npz'
  if path.exists():
    logging.info('statistics of %s: %s', args.reference, path)
    return reference_statistics.load(path)
  logging.info('statistics of %s: %d images', args.reference, len(items))
  about = {'folder': args.reference.resolve().name, 'network': net.about, 'hash': name}

  def batches() -> Iterator[dict[str, Any]]:
    size = devices.round_up(args.batch_size)
    for _, batch in image_folders.batches(items, size):
      if batch['mask'].any():
        yield batch

  reference_statistics.save(
    path, reference_statistics.of_batches(net, batches(), about)
  )
  return reference_statistics.load(path)  # rounded to float32, as at every later call


def _pictures(items, places: Sequence[int], methods, folder) -> None:
  """Copies the pictures that sheets show, as PNG."""
  import numpy as np

  from sr3_jax.images import image_files, resizing
  from sr3_jax.images import pixels as images_pixels

  for place in places:
    item = items[place]
    pixels = {key: image_files.read(path) for key, path in item.files.items()}
    for name in methods:
      if name not in pixels:
        small = images_pixels.to_float(pixels['input'])
        pixels[name] = images_pixels.to_uint8(
          np.clip(resizing.resize(small, *item.size, name), -1, 1)
        )
    for name, image in pixels.items():
      image_files.write(folder / f'{place:05d}_{name}.png', image)


def _scale(items: Sequence[Any]) -> float | None:
  """Magnification, if it is one for all."""
  scales = {i.size[0] / i.input_size[0] for i in items if i.input_size}
  return scales.pop() if len(scales) == 1 else None


def _without(args: argparse.Namespace, judge: Any) -> list[dict[str, Any]]:
  """Metrics that need something that was not given."""
  found = []
  if not args.inputs:
    keys = ['consistency', 'colour_drift', 'detail']
    found.append({'metrics': keys, 'why': 'They need the small images: --inputs=DIR.'})
  if judge is None:
    keys = ['top1_error', 'top5_error']
    why = 'They need a classifier and labels: --classifier=FILE.onnx --labels=FILE.'
    found.append({'metrics': keys, 'why': why})
  return found


def _protocol(
  args, items, left_out, kept, nets, against, judge, outputs
) -> dict[str, Any]:
  from sr3_jax.evaluation import report_writer

  count = len(kept.scalars('truth')['index'])
  # Without a partner or with a broken header, and those that broke in the middle.
  missing = len(left_out) + len(items) - count
  sizes = {item.size for item in items}
  height, width = items[0].size
  size = f'{width} x {height}' if len(sizes) == 1 else f'{len(sizes)} sizes'
  reduced = 'bicubic with antialiasing (equals Pillow BICUBIC) to the size of the input'
  return {
    'task': 'images of folders against true images, by file name',
    **({'degradation': f'for consistency: {reduced}'} if args.inputs else {}),
    'images': f'{count} of {args.truth.resolve().name}, {size}',
    **({'left out': f'{missing} images without partner or broken'} if missing else {}),
    'image list': report_writer.list_hash(kept),
    **report_writer.CONVENTIONS,
    'border': f'{args.border} pixels left out by PSNR and SSIM',
    'outputs': {name: path.resolve().name for name, path in outputs.items()},
    **report_writer.judges(nets, against, judge),
    'machine': report_writer.machine(),
  }


if __name__ == '__main__':
  sys.exit(main())
