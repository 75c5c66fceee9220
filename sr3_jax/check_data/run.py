"""--mode=check-data: are these images fit for training, before it is paid for?"""

import datetime
from collections.abc import Iterator
from typing import Any

import jax
import ml_collections
import numpy as np
from etils import epath

from sr3_jax.check_data import advice as check_data_advice
from sr3_jax.check_data import file_check, near_duplicates
from sr3_jax.check_data import findings as check_data_findings
from sr3_jax.check_data import page as check_data_page
from sr3_jax.check_data import scan as check_data_scan
from sr3_jax.check_data.findings import Checked
from sr3_jax.check_data.near_duplicates import Matches
from sr3_jax.config import as_json
from sr3_jax.core.sr3 import SR3
from sr3_jax.data import crops, input_pipeline, sources
from sr3_jax.data.records import Source
from sr3_jax.images import pixels
from sr3_jax.runtime import atomic_files, devices
from sr3_jax.runtime import progress as runtime_progress
from sr3_jax.runtime.version import __version__

_DETAILED = 128  # images whose sharpness is measured
_PAIRS = 12  # near copies that are shown, of each kind
_CROPS = 16  # training examples that are shown


def check_data_run(config: ml_collections.ConfigDict, workdir: epath.PathLike) -> None:
  """Writes check/report.html and check/check.json; prints the findings, worst first.

  Nothing is kept of an interrupted check: it starts again, and takes about a minute
  for 10,000 photographs on two cores.

  Raises:
    sources.DataError: there is nothing to look at.
    ValueError: the configuration doesn't describe a model.
  """
  if jax.process_index():  # one process is enough
    return
  folder = epath.Path(workdir) / 'check'
  sets = {'training': _source(config, held_out=False)}
  if (held_out := _source(config, held_out=True)) is not None:
    sets['evaluation'] = held_out
  checked = {name: _check(config, name, source) for name, source in sets.items()}
  training, evaluation = checked['training'], checked.get('evaluation')
  leaks = _leaks(training, evaluation) if evaluation else None
  platform = jax.default_backend()
  found = check_data_findings.findings(
    training, evaluation, leaks, config.model.num_classes
  )
  advice = check_data_advice.advise(
    training, devices=jax.device_count(), accelerator=platform != 'cpu'
  )
  report = {
    'format': 1,
    'title': epath.Path(config.data.path).name or config.data.source,
    'findings': [vars(finding) for finding in found],
    'advice': [vars(entry) for entry in advice],
    'leaks': _pairs(leaks, evaluation, training) if evaluation else [],
    'sets': {name: _summary(each) for name, each in checked.items()},
    'config': as_json(config),
    'devices': f'{jax.device_count()} x {platform}',
    'code': {'sr3_jax': __version__},
    'time': datetime.datetime.now(datetime.UTC).strftime('%Y-%m-%dT%H:%M:%SZ'),
  }
  sections = list(_copies(sets, checked, leaks))
  drawn = _crops(config, sets['training'], training)
  page = check_data_page.render(report, [*checked.values()], sections, drawn)
  folder.mkdir(parents=True, exist_ok=True)
  atomic_files.write_json(folder / 'check.json', report)
  atomic_files.write_bytes(folder / 'report.html', page.encode())
  print(check_data_findings.as_text(found))
  print(f'report: {folder / "report.html"}')


def _source(config: ml_collections.ConfigDict, *, held_out: bool) -> Source | None:
  """The training images or the held-out ones, the smallest too; None: the same."""
  d = config.data
  path, split = d.path, d.split
  if held_out:
    path, split = d.eval_path or d.path, d.eval_split
    whole = d.source in ('folder', 'classes')  # these have no splits
    if path == d.path and (whole or split == d.split):
      return None
  return sources.make_source(
    d.source,
    path=path,
    split=split,
    data_dir=d.data_dir or None,
    channels=d.channels,
    calibrated=len(d.low) > 0,
    cache_folder=devices.cache_folder('folders'),
  )


def _check(config: ml_collections.ConfigDict, name: str, source: Source) -> Checked:
  """Looks at all images of a set."""
  d = config.data
  size, path = d.image_size, d.path
  if name == 'evaluation':
    size, path = config.eval.image_size or size, d.eval_path or path
  cut = crops.Cut(size, d.crop, reduce=tuple(d.reduce))
  pictures = d.source in ('folder', 'classes') and d.channels == 3 and not len(d.low)
  left_out = source.left_out if isinstance(source, sources.Folder) else ()
  with runtime_progress.Progress(
    len(source) + len(left_out), unit=f'{name} image'
  ) as progress:
    scan = check_data_scan.scan(
      source, epath.Path(path) if pictures else None, progress.update
    )
  chosen = check_data_scan.chosen(scan, source, _DETAILED)
  with runtime_progress.Progress(len(chosen), unit='measured image') as progress:
    details = check_data_scan.details(source, chosen, progress.update)
  reduced = min(cut.factors)
  if d.crop != 'random' and scan.whole.any():
    reduced = max(1, int(np.median(scan.side[scan.whole])) // size)
  usable = check_data_findings.usable(scan, cut.min_size, d.crop == 'none')
  signatures = near_duplicates.signatures(scan.thumbnails[usable])
  with runtime_progress.Progress(len(usable), unit='compared image') as progress:
    near = near_duplicates.within(signatures, progress.update)
  same = near_duplicates.identical(scan.digest[usable])
  return Checked(
    name=name,
    scan=scan,
    copies=near_duplicates.joined(same, near).numbered(usable, usable, len(scan)),
    plain=usable[~signatures.any(1)],
    min_size=cut.min_size,
    square=d.crop == 'none',
    reduced=reduced,
    details=details,
  )


def _leaks(training: Checked, evaluation: Checked) -> Matches:
  """Evaluation images that are near copies of training images."""
  mine, theirs = evaluation.usable, training.usable
  of = lambda checked: near_duplicates.signatures(
    checked.scan.thumbnails[checked.usable]
  )
  with runtime_progress.Progress(len(mine), unit='compared image') as progress:
    near = near_duplicates.between(of(evaluation), of(training), progress.update)
  same = near_duplicates.identical(
    evaluation.scan.digest[mine], training.scan.digest[theirs]
  )
  return near_duplicates.joined(same, near).numbered(mine, theirs, len(evaluation.scan))


def _pairs(matches: Matches, mine: Checked, theirs: Checked) -> list[dict[str, Any]]:
  """Near copies for check.json, the surest first."""
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


def _summary(checked: Checked) -> dict[str, Any]:
  """A set for check.json."""
  scan = checked.scan
  names = lambda numbers: [scan.names[i] for i in numbers]
  sides = scan.side[scan.whole]
  spread = np.percentile(sides, [0, 5, 50, 95, 100]).tolist() if len(sides) else []
  quality = scan.quality[scan.quality > 0]
  return {
    'images': len(scan),
    'usable': len(checked.usable),
    'min_size': checked.min_size,
    'broken': {scan.names[i]: why for i, why in scan.broken.items()},
    'too_small': names(checked.too_small),
    'not_square': names(checked.oblong),
    'sides': dict(zip(('0', '5', '50', '95', '100'), spread, strict=False)),
    'kinds': dict(scan.kinds),
    'traits': {trait: names(numbers) for trait, numbers in scan.traits.items()},
    'jpeg_quality': float(np.median(quality)) if len(quality) else None,
    'detail': {str(factor): value for factor, value in checked.details.items()},
    'labels': scan.labels,
    'copies': _pairs(checked.copies, checked, checked),
    'plain': names(checked.plain),
  }


def _copies(
  sets: dict[str, Source], checked: dict[str, Checked], leaks: Matches | None
) -> Iterator[dict[str, Any]]:
  """Sections of near copies side by side, where there are any."""
  asked = [(name, name, each.copies) for name, each in checked.items()]
  if leaks is not None:
    asked.insert(0, ('evaluation', 'training', leaks))
  for mine, theirs, matches in asked:
    found = matches.found
    if not len(found):
      continue
    # From the surest to the least sure.
    chosen = found[np.linspace(0, len(found) - 1, min(len(found), _PAIRS)).astype(int)]
    pairs = _pairs(matches, checked[mine], checked[theirs])
    said = dict(zip(found.tolist(), pairs, strict=True))
    rows = []
    for i in chosen.tolist():
      pair = said[i]
      how = 'the same content' if pair['identical'] else f'{pair["correlation"]:.2f}'
      how += ', mirrored' if pair['mirrored'] else ''
      both = [_shown(sets[theirs], matches.partner[i]), _shown(sets[mine], i)]
      rows.append((f'{pair["image"]} and {pair["of"]}: {how}', both))
    apart = mine != theirs
    yield check_data_page.sheets(
      'leaks' if apart else f'copies-{mine}',
      'In both sets' if apart else f'Copies in the {mine} set',
      f'{len(chosen)} of {len(found)}, from the surest to the least sure, with the '
      'correlation of their thumbnails. check.json lists all.',
      [theirs, mine] if apart else ['first', 'copy'],
      rows,
    )


def _shown(source: Source, number: int) -> np.ndarray | None:
  """An image of a source as a picture."""
  try:
    image = source[int(number)]['image']
  except pixels.ImageError:  # gone since
    return None
  if image.dtype == np.uint8 and image.shape[-1] == 3:
    return image
  return np.repeat(file_check.grey(image)[..., None], 3, axis=-1)


class _Chosen:
  """Some images of a source."""

  def __init__(self, source: Source, numbers: np.ndarray):
    self._source, self._numbers = source, numbers
    self.classes, self.channels = source.classes, source.channels
    self.dtype = source.dtype

  def __len__(self) -> int:
    return len(self._numbers)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return self._source[int(self._numbers[index])]

  def name(self, index: int) -> str:
    return self._source.name(int(self._numbers[index]))


def _crops(
  config: ml_collections.ConfigDict, source: Source, training: Checked
) -> dict[str, Any] | None:
  """Training examples and what is made of them, as the network sees them."""
  d = config.data
  usable = training.usable
  if not len(usable):
    return None
  chosen = _Chosen(source, usable)
  batches = input_pipeline.training_batches(config, chosen, batch_size=_CROPS)
  stored = next(batches)['image']
  batches.close()
  model = SR3.from_config(config)
  hr = model.to_float(stored)
  columns = {'crop': pixels.to_picture(hr)}
  if model.task.conditional:
    keys = jax.random.split(jax.random.key(config.seed), _CROPS)
    condition = jax.jit(model.degrade)(keys, hr)
    columns = {'input': pixels.to_picture(condition[..., : d.channels])} | columns
  rows = [
    (f'example {i}', [column[i] for column in columns.values()]) for i in range(_CROPS)
  ]
  return check_data_page.sheets(
    'crops',
    'Training examples',
    'Examples as training draws them with this configuration, and the inputs that its '
    'task makes of them.',
    [*columns],
    rows,
  )
