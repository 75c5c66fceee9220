"""Says what `--mode=check-data` found in the images, worst first."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from sr3_jax.check_data.near_duplicates import Matches
from sr3_jax.check_data.scan import Scan
from sr3_jax.runtime.errors import some
from sr3_jax.runtime.printing import one_line

LEVELS = ('serious', 'look', 'note')

# Images with less `file_check.fine_detail` have less detail than their pixels promise.
SOFT = 0.2
_POOR_QUALITY = 75  # below it, JPEG blocks and rings are learned, too
_FEW_HELD_OUT = 50
_TRAIT_TEXTS = {
  'turned (EXIF)': 'turned as their EXIF data say',
  'transparent': 'transparent, laid over white',
  '16 bits': '16 bits, of which 8 are used (data.low and data.high keep them)',
  'colour profile': 'converted from their colour profile to sRGB',
  'several frames': 'several frames, of which the first is used',
}


@dataclasses.dataclass(frozen=True)
class Finding:
  """One thing that was found in the images."""

  level: str  # one of LEVELS
  title: str  # the finding in a line
  text: str = ''  # its meaning, and what to do


@dataclasses.dataclass(frozen=True)
class CheckedSet:
  """A set of images after the check."""

  name: str  # 'training' or 'evaluation'
  scan: Scan  # of all images
  copies: Matches  # near copies within the set
  plain: np.ndarray  # numbers of usable images with too little pattern to be compared
  min_size: int  # shortest side of a usable image in pixels
  square: bool  # whether only square images are usable
  downsampled: int  # least factor by which images are downsampled before they are used
  details: Mapping[int, float]  # factor of downsampling -> median `fine_detail`

  @property
  def too_small(self) -> np.ndarray:
    """Numbers of the images that are too small but not broken."""
    return np.flatnonzero(self.scan.decodable & (self.scan.side < self.min_size))

  @property
  def not_square(self) -> np.ndarray:
    """Numbers of the images that aren't square where they would have to be."""
    unequal = self.scan.height != self.scan.width
    return np.flatnonzero(self.scan.decodable & unequal if self.square else [])

  @property
  def usable(self) -> np.ndarray:
    """Numbers of the images that are trained on or evaluated."""
    return usable(self.scan, self.min_size, self.square)

  def part(self, count: int) -> str:
    """Return a count as '3 of 200 (1.5 %) images of the training set'."""
    return f'{_share(count, len(self.scan))} images of the {self.name} set'


def usable(scan: Scan, min_size: int, square: bool) -> np.ndarray:
  """Return the numbers of the images that can be decoded and suit `crops.Cut`."""
  fit = scan.decodable & (scan.side >= min_size)
  return np.flatnonzero(fit & (scan.height == scan.width) if square else fit)


def list_findings(
  training: CheckedSet,
  evaluation: CheckedSet | None,
  leaks: Matches | None,
  num_classes: int,
) -> list[Finding]:
  """List everything that was found, worst first, and leakage before all else.

  Args:
    training: the training set.
    evaluation: the evaluation set; None if it is the training set itself.
    leaks: evaluation images that are near copies of training images.
    num_classes: of the model; 0 if it takes no labels.
  """
  found = [*_leakage(evaluation, leaks)]
  sets = [training, *([evaluation] if evaluation else [])]
  for checked in sets:
    found += _unusable(checked)
  found += _labels(training, evaluation, num_classes)
  for checked in sets:
    found += _copies(checked)
    found += _quality(checked)
    found += _traits(checked)
  if evaluation and 0 < len(evaluation.usable) < _FEW_HELD_OUT:
    number = len(evaluation.usable)
    title = f'The evaluation set has {number} usable image{"s" if number > 1 else ""}'
    text = 'Means over so few have wide intervals, and FID says nothing.'
    found.append(Finding('note', title, text))
  return sorted(found, key=lambda finding: LEVELS.index(finding.level))


def _leakage(evaluation: CheckedSet | None, leaks: Matches | None) -> Iterable[Finding]:
  if evaluation is None:
    yield Finding(
      'serious',
      'The evaluation images are the training images',
      'Figures measured on them are too good. Keep images out of training and set '
      'data.eval_path.',
    )
  elif leaks is not None and len(leaks.found):
    names = some(evaluation.scan.names[i] for i in leaks.found)
    yield Finding(
      'serious',
      f'{_share(len(leaks.found), len(evaluation.scan))} evaluation images are in the '
      'training set, too',
      'They are the same files or near copies, so figures measured on them are too '
      f'good. Take them out of one of the two sets: {names}. All are in check.json.',
    )
  elif evaluation.scan.decodable.any():
    yield Finding('note', 'No evaluation image is a near copy of a training image')


def _unusable(checked: CheckedSet) -> Iterable[Finding]:
  if not len(checked.usable):
    title = f'No image of the {checked.name} set can be used'
    text = f'Images of at least {checked.min_size} pixels are needed.'
    yield Finding('serious', title, text)
  broken = checked.scan.broken
  first = ', '.join(f'{checked.scan.names[i]} ({broken[i]})' for i in list(broken)[:1])
  for numbers, what, text in (
    (broken, 'are broken', f'The first: {first}. Fetch them again or delete them.'),
    (
      checked.too_small,
      f'are too small: a side is below {checked.min_size} pixels',
      'A smaller data.image_size or data.reduce keeps them.',
    ),
    (
      checked.not_square,
      "are not square, as data.crop='none' needs them",
      "data.crop='center' or 'random' keeps them.",
    ),
  ):
    if len(numbers):
      title = f'{checked.part(len(numbers))} {what}'
      yield Finding('look', title, f'They are left out. {text}')


def _labels(
  training: CheckedSet, evaluation: CheckedSet | None, num_classes: int
) -> Iterable[Finding]:
  labels = training.scan.labels
  if num_classes and not 0 < len(labels) <= num_classes:
    count = len(labels) or 'no'
    title = f'model.num_classes={num_classes}, and the data has {count} classes'
    text = f'Training would refuse the data. Set model.num_classes={count}.'
    if not labels:
      text = "Choose a data.source with labels, as 'classes'."
    yield Finding('serious', title, text)
  if evaluation and labels and list(labels) != list(evaluation.scan.labels):
    apart = some(labels.keys() ^ evaluation.scan.labels.keys())
    yield Finding(
      'serious',
      'The two sets have different classes',
      'Labels are numbers of the sorted names, so they mean different things in the '
      f'two sets. These classes are in one set only: {apart}.',
    )
  if labels and 10 * min(labels.values()) < max(labels.values()):
    few, many = min(labels, key=labels.__getitem__), max(labels, key=labels.__getitem__)
    yield Finding(
      'look',
      f'Classes differ in size: {few} has {labels[few]} images, {many} {labels[many]}',
      'Classes are seen as often as they have images; rare ones are learned worse.',
    )


def _copies(checked: CheckedSet) -> Iterable[Finding]:
  scan, copies = checked.scan, checked.copies
  if count := len(copies.found):
    meaning = {
      'training': 'They are seen more often and may be memorised. Keep one of each.',
      'evaluation': 'They count several times in means. Keep one of each.',
    }[checked.name]
    title = f'{checked.part(count)} are near copies of others in it'
    yield Finding('look', title, f'{meaning} The list is in check.json.')
  if len(checked.plain):
    yield Finding(
      'note',
      f'{checked.part(len(checked.plain))} have almost no pattern',
      'Blank pages and even gradients are alike without being copies, so only '
      f'identical ones count as copies: {some(scan.names[i] for i in checked.plain)}',
    )


def _quality(checked: CheckedSet) -> Iterable[Finding]:
  known = [factor for factor in checked.details if factor <= checked.downsampled]
  if known and (detail := checked.details[max(known)]) < SOFT:
    sharp = [k for k, v in checked.details.items() if k > max(known) and v >= SOFT]
    todo = 'They stay so when they are downsampled up to 4 times.'
    if sharp:
      todo = (
        f'Downsampled {min(sharp)} times they are sharp: try a smaller data.image_size'
        f", or data.crop='random' with data.reduce='({min(sharp)},)'."
      )
    yield Finding(
      'look',
      f'Images of the {checked.name} set are soft: half of them have less than '
      f'{detail:.2f} of the detail that their size promises',
      'Sharp photographs have 0.3 to 1, upsampled ones less than 0.2. A network learns '
      f'to make what it is shown. {todo}',
    )
  quality = checked.scan.quality[checked.scan.quality > 0]
  if len(quality) and (poor := int((quality < _POOR_QUALITY).sum())):
    share = poor / len(checked.scan)
    yield Finding(
      'look' if share > 0.1 else 'note',
      f'{checked.part(poor)} are JPEG of quality below {_POOR_QUALITY}',
      'Blocks and rings are learned, too. Take better files, or data.reduce="(2,)".',
    )


def _traits(checked: CheckedSet) -> Iterable[Finding]:
  scan = checked.scan
  parts = [f'{_TRAIT_TEXTS[trait]}: {len(of)}' for trait, of in scan.traits.items()]
  if cmyk := sum(n for kind, n in scan.kinds.items() if kind.endswith('CMYK')):
    parts.append(f'converted from CMYK: {cmyk}')
  if parts:
    title = f'Some images of the {checked.name} set are converted when they are read'
    text = '; '.join(parts)
    yield Finding('note', title, f'{text[0].upper()}{text[1:]}.')


def _share(count: int, total: int) -> str:
  """Return a share as '3 of 200 (1.5 %)'."""
  percent = 100 * count / total
  shown = f'{percent:.1f}' if 0.05 <= percent < 99.95 else f'{percent:.3g}'
  return f'{count} of {total} ({shown} %)'


def as_text(found: Sequence[Finding]) -> str:
  """Write findings for a terminal: a line for each, and one for what to do."""
  lines = []
  for finding in found:
    lines.append(f'{finding.level + ":":9}{one_line(finding.title)}')
    if finding.text and finding.level != 'note':
      lines.append(f'         {one_line(finding.text)}')
  return '\n'.join(lines)
