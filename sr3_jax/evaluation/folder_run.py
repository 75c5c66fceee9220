"""Measures folders of images that any method made: what `sr3-evaluate` does.

Folders are matched by file names, every batch is measured and recorded, and a report
is written. A run that was killed goes on with the batches that are not recorded yet.
"""

import argparse
import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from absl import logging
from etils import epath

from sr3_jax.evaluation import image_folders, report_writer, scoring, summary
from sr3_jax.evaluation.evaluators import Evaluators
from sr3_jax.evaluation.image_folders import INPUT, TRUTH, Batch, Item
from sr3_jax.evaluation.measure import hashes, photographs_of
from sr3_jax.evaluation.records import PHOTOGRAPH, VERSION, Records, open_records
from sr3_jax.evaluation.scoring import Scorer
from sr3_jax.images import image_files, pixels, resizing
from sr3_jax.metrics import bootstrap, classifier, feature_nets, reference_statistics
from sr3_jax.metrics.reference_statistics import Reference
from sr3_jax.restoration import restorer
from sr3_jax.runtime import activity, caches, devices
from sr3_jax.runtime.progress import Progress
from sr3_jax.runtime.version import __version__

Folders = Mapping[str, pathlib.Path]  # method -> folder


class _Comparison(NamedTuple):
  """Folders that are compared, and what measures them."""

  args: argparse.Namespace  # options of `sr3-evaluate`
  outputs: Folders
  items: Sequence[Item]
  left_out: Mapping[str, str]  # name of an image -> reason
  evaluators: Evaluators
  records: Records

  @property
  def methods(self) -> list[str]:
    """Return the names of all that is measured: baselines, then outputs."""
    return [*(restorer.BASELINES if self.args.inputs else ()), *self.outputs]


def run(args: argparse.Namespace, outputs: Folders, command: str) -> None:
  """Measure the folders that options of `sr3-evaluate` name, and write the report.

  It is about the first of `outputs` (method -> folder), and quotes the command line.

  Raises:
    ImageSetError: folders that do not fit together, or no readable image.
    UserError: networks, statistics or labels that cannot be used.
  """
  with activity.doing('reading the headers of the images'):
    items, left_out = image_folders.match(args.truth, outputs, args.inputs)
  items, too_small = image_folders.without_border(items, args.border)
  left_out |= too_small
  for name, reason in list(left_out.items())[:5]:
    logging.warning('left out: %s: %s', name, reason)
  if left_out:
    count = len(left_out)
    logging.warning('%d of %d images left out', count, count + len(items))
  evaluators = _load_evaluators(args, items)
  labels = None
  if evaluators.classifier:
    labels = image_folders.labels(args.labels, items)
  photographs = np.arange(len(items), dtype=np.int32)
  if args.photographs:
    photographs = image_folders.photographs(args.photographs, items)
  made_by = {
    'files': image_folders.fingerprint(items),
    'border': args.border,
    **evaluators.fingerprints(),
    'labels': None if labels is None else hashlib.sha256(labels.data).hexdigest(),
    PHOTOGRAPH: hashlib.sha256(photographs.data).hexdigest(),
    'records': VERSION,
    'sr3_jax': __version__,
  }
  folder = epath.Path(args.report)
  records = open_records(folder / 'records', made_by)
  job = _Comparison(args, outputs, items, left_out, evaluators, records)
  scorer = evaluators.scorer(args.border)
  batches = image_folders.batches(items, devices.round_up(args.batch_size))
  with Progress(len(items), unit='image') as progress:
    done = 0
    for number, batch in batches:
      if labels is not None:
        batch['label'] = labels[batch['index']]
      batch[PHOTOGRAPH] = photographs[batch['index']]
      measure_batch(scorer, records, number, batch, job.methods)
      done += int(batch['mask'].sum())
      progress.update(done)
  if not len(records.scalars(TRUTH).get('index', ())):
    raise image_folders.ImageSetError(f'{args.truth}: not one image could be read')
  with activity.doing('computing distances of sets and writing the report'):
    rows = _report(job, command)
  print(summary.format_table(summary.values(rows)))
  measured = records.photographs(next(iter(outputs)))
  about = bootstrap.about(len(measured), len(np.unique(measured)))
  print(f'report: {folder / "report.html"} ({about})')


def _load_evaluators(args: argparse.Namespace, items: Sequence[Item]) -> Evaluators:
  """Load the networks that the options name; say what they and formulas leave out."""
  side = max(min(item.size) for item in items)
  nets, left_out = feature_nets.load_nets(args.networks, args.weights, side)
  network = classifier.load(args.classifier) if args.classifier else None
  least = {name: net.smallest for name, net in nets.items() if net.smallest}
  for entry in image_folders.unmeasured(items, args.border, least):
    logging.warning('%s: %s', ', '.join(entry['metrics']), entry['why'])
    left_out.append(entry)
  if not args.inputs:
    why = 'They need the small images: --inputs=DIR.'
    left_out.append({'metrics': ['consistency', 'colour_drift', 'detail'], 'why': why})
  if network is None:
    why = 'They need a classifier and labels: --classifier=FILE.onnx --labels=FILE.'
    left_out.append({'metrics': ['top1_error', 'top5_error'], 'why': why})
  return Evaluators(nets, left_out, _reference(args, nets), network)


def measure_batch(
  scorer: Scorer, records: Records, number: int, batch: Batch, methods: Sequence[str]
) -> None:
  """Record those values of a batch of `image_folders.batches` that are missing.

  The batch may have 'label' int32 [B], too. Methods are folders in it, and baselines,
  which are resized from its inputs.
  """

  def image(name: str) -> jax.Array:
    """Return images on all devices, [D, b, H, W, 3] in [-1, 1]."""
    return devices.shard(pixels.to_float(batch[name]))

  index = batch['index'][batch['mask']]
  missing = [m for m in (TRUTH, *methods) if not records.has(m, index)]
  if not missing or not len(index):
    return
  keys = [key for key in ('index', 'mask', 'label') if key in batch]
  plain = devices.shard({key: batch[key] for key in keys})
  truth = image(TRUTH)
  condition = image(INPUT) if INPUT in batch else None
  for name in missing:
    if name == TRUTH:
      values = scorer.of_set(truth, plain) | hashes(batch[TRUTH][batch['mask']])
    else:
      if name in batch:
        output = image(name)
      elif condition is None:
        raise KeyError(name)  # neither a folder nor a baseline
      else:
        output = scoring.resized(name, *truth.shape[2:4])(condition)
      low = None
      if condition is not None:
        shrink = scoring.resized('bicubic', *condition.shape[2:4])
        low = shrink(scoring.quantize(output))
      values = scorer(output, truth, low, condition, plain)
    records.add(name, number, values | photographs_of(batch))


def _reference(
  args: argparse.Namespace, nets: Mapping[str, feature_nets.FeatureNet]
) -> Reference | None:
  """Load the reference statistics that --reference names, for FID and KID.

  Statistics of a folder are computed once and cached in `caches.folder('reference')`.
  """
  if args.reference is None or 'inception' not in nets:
    return None
  net = nets['inception']
  if not args.reference.is_dir():
    given = reference_statistics.load(args.reference)
    reference_statistics.check(given, net)
    return given
  folder = args.reference.resolve()
  items = _readable(args.reference)
  key = f'{image_folders.fingerprint(items)} {net.fingerprint} {folder}'
  name = hashlib.sha256(os.fsencode(key)).hexdigest()[:16]
  path = pathlib.Path(caches.folder('reference')) / f'{name}.npz'
  if path.exists():
    logging.info('statistics of %s: %s', args.reference, path)
    return reference_statistics.load(path)
  logging.info('statistics of %s: %d images', args.reference, len(items))
  about = {'folder': folder.name, 'network': net.about, 'hash': name}
  numbered = image_folders.batches(items, devices.round_up(args.batch_size))
  readable = (batch for _, batch in numbered if batch['mask'].any())
  with Progress(len(items), unit='reference image') as progress:
    done = 0

    def count(images: int) -> None:
      nonlocal done
      done += images
      progress.update(done)

    found = reference_statistics.of_batches(net, readable, about, count)
  reference_statistics.save(path, found)
  return reference_statistics.load(path)  # rounded to float32, as at every later call


def _readable(folder: pathlib.Path) -> list[Item]:
  """Return the images of a folder whose headers can be read."""
  items = []
  for name, path in image_folders.find(folder).items():
    try:
      items.append(Item(name, {'image': path}, image_files.size(path), None))
    except pixels.ImageError as error:
      logging.warning('left out: %s', error)
  return items


def _report(job: _Comparison, command: str) -> dict[str, summary.Row]:
  """Write the report with its pictures; return the table."""
  args, records = job.args, job.records
  folder = epath.Path(args.report)
  parts = {name: [name] for name in job.methods}
  # The magnification, if it is the same for all images.
  scales = {i.size[0] / i.input_size[0] for i in job.items if i.input_size}
  scale = scales.pop() if len(scales) == 1 else None
  rows = report_writer.table(records, parts, scale, job.evaluators)
  main_method = next(iter(job.outputs))
  values = records.scalars(main_method)
  first = values['index'][: args.num_images].tolist()
  ranked = report_writer.ranked(values)
  shown = {i for picks in ranked.values() for i in picks.values()} | set(first)
  _write_pictures(job.items, sorted(shown), job.methods, folder / 'pictures')
  sheets = report_writer.sheets(
    first, ranked, job.methods, main_method, 1, values, inputs=bool(args.inputs)
  )
  names = {name: path.resolve().name for name, path in job.outputs.items()}
  report_writer.write(
    folder,
    title=', '.join(job.outputs),
    records=records,
    methods=parts,
    scale=scale,
    image_size=None,
    rows=rows,
    sheets=sheets,
    left_out=job.evaluators.left_out,
    protocol=_protocol(job, names),
    abouts={name: f'Images of the folder {text}.' for name, text in names.items()},
    curves={},
    command=command,
  )
  return rows


def _write_pictures(
  items: Sequence[Item], places: list[int], methods: list[str], folder: epath.Path
) -> None:
  """Write the pictures that sheets show as PNG; baselines are made from the inputs."""
  for place in places:
    item = items[place]
    shown = {key: image_files.read(path) for key, path in item.files.items()}
    for name in methods:
      if name not in shown:
        large = resizing.resize(pixels.to_float(shown[INPUT]), *item.size, name)
        shown[name] = pixels.to_uint8(np.clip(large, -1, 1))
    for name, image in shown.items():
      image_files.write(folder / f'{place:05d}_{name}.png', image)


def _protocol(job: _Comparison, names: Mapping[str, str]) -> dict[str, object]:
  """Return what somebody needs to measure the same again."""
  args, items = job.args, job.items
  count = len(job.records.scalars(TRUTH)['index'])
  # Some have no partner or a broken header, others broke while they were decoded.
  missing = len(job.left_out) + len(items) - count
  sizes = {item.size for item in items}
  height, width = items[0].size
  size = f'{width} x {height}' if len(sizes) == 1 else f'{len(sizes)} sizes'
  protocol: dict[str, object] = {
    'task': 'images of folders against true images, by file name'
  }
  if args.inputs:
    how = 'bicubic with antialiasing (equals Pillow BICUBIC) to the size of the input'
    protocol['degradation'] = f'for consistency: {how}'
  photographs = len(np.unique(job.records.photographs(TRUTH)))
  counted = bootstrap.counted(count, photographs)
  protocol['images'] = f'{counted} of {args.truth.resolve().name}, {size}'
  if missing:
    protocol['left out'] = f'{missing} images without partner or broken'
  return protocol | {
    'image list': report_writer.list_hash(job.records),
    **report_writer.CONVENTIONS,
    'border': f'{args.border} pixels left out by PSNR and SSIM',
    'outputs': dict(names),
    **job.evaluators.protocol(),
    'machine': report_writer.machine(),
  }
