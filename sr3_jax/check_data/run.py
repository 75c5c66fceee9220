"""Checks whether images are fit for training, before it is paid for.

This is `--mode=check-data`.
"""

import datetime
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from etils import epath

from sr3_jax.check_data import file_check, near_duplicates, pair_check
from sr3_jax.check_data import page as check_data_page
from sr3_jax.check_data.advice import advise
from sr3_jax.check_data.findings import (
  LEVELS,
  CheckedSet,
  as_text,
  list_findings,
  usable,
)
from sr3_jax.check_data.near_duplicates import Matches
from sr3_jax.check_data.pair_check import PairCheck, check_pairs
from sr3_jax.check_data.pair_findings import find_in_pairs
from sr3_jax.check_data.scan import Scan, choose_images, median_details, scan_source
from sr3_jax.config import as_json
from sr3_jax.core.sr3 import SR3
from sr3_jax.data import input_pipeline
from sr3_jax.data.batches import train_batches
from sr3_jax.data.folder_sources import Folder
from sr3_jax.data.pairs import Pairs
from sr3_jax.data.records import Record, Source
from sr3_jax.data.sources import FOLDERS, AnyPairs
from sr3_jax.images import folder_listing, pixels, resizing
from sr3_jax.runtime import activity, atomic_files
from sr3_jax.runtime.progress import Progress
from sr3_jax.runtime.version import __version__

_DETAILED = 128  # images whose fine detail is measured
_PAIRS = 12  # near copies that the page shows, of each kind
_CROPS = 16  # training examples that the page shows


def check_data_run(config: ml_collections.ConfigDict, workdir: epath.PathLike) -> None:
  """Write report.html and check.json into WORKDIR/check; print findings, worst first.

  It takes about a minute for 10,000 photographs on two cores. An interrupted check
  starts anew.

  Raises:
    DataError: there are no images to check.
    ValueError: the configuration doesn't describe a model.
  """
  if jax.process_index():  # the first process does it alone
    return
  folder = epath.Path(workdir) / 'check'
  sets = {'training': input_pipeline.make_source(config, held_out=False)}
  if (held_out := _held_out(config)) is not None:
    sets['evaluation'] = held_out
  checked = {name: _check(config, name, source) for name, source in sets.items()}
  training, evaluation = checked['training'], checked.get('evaluation')
  leaks = _leaks(training, evaluation) if evaluation else None
  platform = jax.default_backend()
  found = list_findings(training, evaluation, leaks, config.model.num_classes)
  paired = {name: each for name, each in sets.items() if isinstance(each, AnyPairs)}
  pairs = {name: check_pairs(config, name, each) for name, each in paired.items()}
  found += [one for check in pairs.values() for one in find_in_pairs(check)]
  found.sort(key=lambda finding: LEVELS.index(finding.level))
  advice = advise(training, devices=jax.device_count(), accelerator=platform != 'cpu')
  report = {
    'format': 1,
    'title': epath.Path(config.data.path).name or config.data.source,
    'findings': [vars(finding) for finding in found],
    'advice': [vars(entry) for entry in advice],
    'leaks': _pairs(leaks, evaluation, training) if evaluation and leaks else [],
    'passed_over': {name: dict(passed) for name, passed in _passed(sets)},
    'sets': {name: _summary(each) for name, each in checked.items()},
    'pairs': {n: pair_check.summary(check, paired[n]) for n, check in pairs.items()},
    'config': as_json(config),
    'devices': f'{jax.device_count()} x {platform}',
    'code': {'sr3_jax': __version__},
    'time': datetime.datetime.now(datetime.UTC).strftime('%Y-%m-%dT%H:%M:%SZ'),
  }
  with activity.doing('drawing copies and training examples'):
    copies = list(_show_copies(sets, checked, leaks))
    copies += [_show_pairs(config, sets[name], check) for name, check in pairs.items()]
    examples = _show_examples(config, sets['training'], training)
  with activity.doing('writing the report'):
    page = check_data_page.render(report, [*checked.values()], copies, examples)
  folder.mkdir(parents=True, exist_ok=True)
  atomic_files.write_json(folder / 'check.json', report)
  atomic_files.write_text(folder / 'report.html', page)
  print(as_text(found))
  for name, passed in _passed(sets):
    print(f'{name} set, passed over: {folder_listing.describe(passed)}')
  print(f'report: {folder / "report.html"}')


def _passed(sets: Mapping[str, Source]) -> Iterator[tuple[str, Mapping[str, int]]]:
  """Yield the folders that have files beside images, with their counts by kind."""
  for name, source in sets.items():
    if isinstance(source, Folder | Pairs) and source.passed:
      yield name, source.passed


def _held_out(config: ml_collections.ConfigDict) -> Source | None:
  """Open the held-out images; None if they are the training images."""
  d = config.data
  if d.eval_path in ('', d.path):
    has_splits = d.source not in FOLDERS
    if not has_splits or d.split == d.eval_split:
      return None
  return input_pipeline.make_source(config, held_out=True)


def _check(config: ml_collections.ConfigDict, name: str, source: Source) -> CheckedSet:
  """Check all images of a set."""
  d = config.data
  path = d.eval_path or d.path if name == 'evaluation' else d.path
  cut = input_pipeline.make_cut(config, held_out=name == 'evaluation')
  square = d.crop == 'none'
  pictures = d.source in FOLDERS and d.channels == 3 and not len(d.low)
  scan = scan_source(source, name, epath.Path(path) if pictures else None)
  details = median_details(source, choose_images(scan, source, _DETAILED))
  downsampled = min(cut.factors)
  if d.crop != 'random' and scan.decodable.any():
    downsampled = max(1, int(np.median(scan.side[scan.decodable])) // cut.image_size)
  numbers = usable(scan, cut.min_size, square)
  signatures, digests = _comparable(scan, numbers)
  with Progress(len(scan), unit='compared image') as progress:
    near = near_duplicates.find_within(signatures, progress.update)
  copies = near_duplicates.merge(near_duplicates.find_identical(digests), near)
  plain = numbers[~signatures[numbers].any(1)]
  return CheckedSet(
    name, scan, copies, plain, cut.min_size, square, downsampled, details
  )


def _comparable(scan: Scan, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Return signatures and digests of a set, zeros for all images but some."""
  used = np.isin(np.arange(len(scan)), numbers)
  thumbnails = scan.thumbnails * used[:, None, None]
  return near_duplicates.make_signatures(thumbnails), scan.digest * used


def _leaks(training: CheckedSet, evaluation: CheckedSet) -> Matches:
  """Find evaluation images that are near copies of training images."""
  signatures, digests = _comparable(evaluation.scan, evaluation.usable)
  others, other_digests = _comparable(training.scan, training.usable)
  with Progress(len(signatures), unit='compared image') as progress:
    near = near_duplicates.find_between(signatures, others, progress.update)
  same = near_duplicates.find_identical(digests, other_digests)
  return near_duplicates.merge(same, near)


def _pairs(
  matches: Matches, mine: CheckedSet, theirs: CheckedSet
) -> list[dict[str, Any]]:
  """List near copies for check.json, by falling correlation."""
  return [
    {
      'image': mine.scan.names[i],
      'of': theirs.scan.names[matches.partner[i]],
      'identical': bool(mine.scan.digest[i] == theirs.scan.digest[matches.partner[i]]),
      'correlation': round(float(matches.correlation[i]), 3),
      'mirrored': bool(matches.mirrored[i]),
    }
    for i in matches.found
  ]


def _summary(checked: CheckedSet) -> dict[str, Any]:
  """Summarise a set for check.json."""
  scan = checked.scan

  def names(numbers: Iterable[int]) -> list[str]:
    return [scan.names[i] for i in numbers]

  sides, percents = scan.side[scan.decodable], (0, 5, 50, 95, 100)
  spread = np.percentile(sides, percents).tolist() if len(sides) else []
  quality = scan.quality[scan.quality > 0]
  return {
    'images': len(scan),
    'usable': len(checked.usable),
    'min_size': checked.min_size,
    'broken': {scan.names[i]: why for i, why in scan.broken.items()},
    'too_small': names(checked.too_small),
    'not_square': names(checked.not_square),
    'sides': dict(zip(map(str, percents), spread, strict=False)),
    'kinds': dict(scan.kinds),
    'traits': {trait: names(numbers) for trait, numbers in scan.traits.items()},
    'jpeg_quality': float(np.median(quality)) if len(quality) else None,
    'detail': {str(factor): value for factor, value in checked.details.items()},
    'labels': scan.labels,
    'copies': _pairs(checked.copies, checked, checked),
    'plain': names(checked.plain),
  }


def _show_copies(
  sets: dict[str, Source], checked: dict[str, CheckedSet], leaks: Matches | None
) -> Iterator[check_data_page.View]:
  """Show near copies side by side: a section for each pair of sets that has some."""
  asked = [(name, name, each.copies) for name, each in checked.items()]
  if leaks is not None:
    asked.insert(0, ('evaluation', 'training', leaks))
  for mine, theirs, matches in asked:
    found = matches.found
    if not len(found):
      continue
    pairs = _pairs(matches, checked[mine], checked[theirs])
    # The pairs are spread from the highest correlation to the lowest.
    chosen = np.linspace(0, len(found) - 1, min(len(found), _PAIRS)).astype(int)
    rows = []
    for k in chosen.tolist():
      i, pair = int(found[k]), pairs[k]
      how = 'the same content' if pair['identical'] else f'{pair["correlation"]:.2f}'
      how += ', mirrored' if pair['mirrored'] else ''
      both = [_picture(sets[theirs], matches.partner[i]), _picture(sets[mine], i)]
      rows.append((f'{pair["image"]} and {pair["of"]}: {how}', both))
    apart = mine != theirs
    yield check_data_page.sheets_section(
      'leaks' if apart else f'copies-{mine}',
      'In both sets' if apart else f'Copies in the {mine} set',
      f'{len(chosen)} of {len(found)}, by falling correlation of their thumbnails. '
      'check.json lists all.',
      [theirs, mine] if apart else ['first', 'copy'],
      rows,
    )


def _show_pairs(
  config: ml_collections.ConfigDict, source: Source, check: PairCheck
) -> check_data_page.View:
  """Show pairs: input, target, and one over the other."""
  numbers = np.array([*check.compared], int)
  places = np.linspace(0, len(numbers) - 1, min(len(numbers), _PAIRS)).astype(int)
  model, rows = SR3.from_config(config), []
  for i in numbers[places].tolist():
    record = source[i]
    ends = (model.value_range, 'image'), (model.input_range, 'condition')
    target, given = (
      pixels.to_picture(pixels.from_stored(jnp.asarray(record[key])[None], limits)[0])
      for limits, key in ends
    )
    height, width = target.shape[:2]
    over = resizing.resize(given.astype(np.float32), height, width)
    both = pair_check.overlay(target, np.clip(over, 0, 255).astype(np.uint8))
    label = f'{source.name(i)}: {pair_check.described(check.compared[i])}'
    rows.append((label, [given, target, both]))
  return check_data_page.sheets_section(
    f'pairs-{check.name}',
    f'Pairs of the {check.name} set',
    f'{len(rows)} of {check.count}. Overlay: the input in magenta, the target in '
    'green, white where both are bright. Coloured edges are a shift. check.json has '
    'all figures.',
    ['input', 'target', 'overlay'],
    rows,
  )


def _picture(source: Source, number: int) -> np.ndarray | None:
  """Read an image of a source as a picture, or None if it can't be read."""
  try:
    image = source[int(number)]['image']
  except pixels.ImageError:  # the file changed since it was checked
    return None
  if image.dtype == np.uint8 and image.shape[-1] == 3:
    return image
  return np.repeat(file_check.to_grey(image)[..., None], 3, axis=-1)


class _Subset:
  """Some images of a source, as a source."""

  def __init__(self, source: Source, numbers: np.ndarray):
    self._source, self._numbers = source, numbers
    self.classes, self.channels = source.classes, source.channels
    self.dtype = source.dtype

  def __len__(self) -> int:
    return len(self._numbers)

  def __getitem__(self, index: int) -> Record:
    return self._source[int(self._numbers[index])]

  def name(self, index: int) -> str:
    """Return the image's name in the whole source."""
    return self._source.name(int(self._numbers[index]))


def _show_examples(
  config: ml_collections.ConfigDict, source: Source, training: CheckedSet
) -> check_data_page.View | None:
  """Show training examples and the inputs that the task makes of them."""
  if not len(training.usable):
    return None
  cut = input_pipeline.make_cut(config, held_out=False)
  usable_source = _Subset(source, training.usable)
  batches = train_batches(usable_source, cut, batch_size=_CROPS, seed=config.seed)
  batch = next(batches)
  batches.close()
  model = SR3.from_config(config)
  hr = model.to_float(jnp.asarray(batch['image']))
  columns = {'crop': pixels.to_picture(hr)}
  if model.task.conditional:
    keys = jax.random.split(jax.random.key(config.seed), _CROPS)
    condition = jax.jit(model.degrade)(keys, hr, batch.get('condition'))
    shown = pixels.to_picture(model.observed(condition))
    columns = {'input': shown} | columns
  rows = [
    (f'example {i}', [column[i] for column in columns.values()]) for i in range(_CROPS)
  ]
  title, text = 'Training examples', 'Examples as training sees them with this '
  text += 'configuration, and the inputs that its task makes of them.'
  return check_data_page.sheets_section('crops', title, text, [*columns], rows)
