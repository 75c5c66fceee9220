"""Says what was found in pairs of inputs and targets."""

import math
from collections.abc import Iterator

import numpy as np

from sr3_jax.check_data.findings import Finding
from sr3_jax.check_data.pair_check import PairCheck
from sr3_jax.runtime.errors import some

# A median shift of so many pixels of the target is one; less is what noise makes.
SHIFT = 0.5
_GAIN = (0.9, 1.1)  # gains in between need no word
_LEVELS = 8  # neither do smaller offsets, of 255


def find_in_pairs(check: PairCheck) -> Iterator[Finding]:
  """Yield what was found in a set of pairs."""
  of = f'pairs of the {check.name} set'
  usable = check.count - len(check.misfit) - len(check.broken)
  if not usable:
    yield Finding('serious', f'None of the {check.count} {of} can be used')
  if check.unpaired:
    title = f'{len(check.unpaired)} files of the {check.name} set have no partner'
    text = 'Names must be the same in both folders, apart from their endings. Left out'
    yield Finding('look', title, f'{text}: {some(check.unpaired)}.')
  if check.misfit:
    scale, fitting = max(check.fits.items(), key=lambda x: x[1], default=('', 0))
    text = f'They are left out. The first: {_first(check.misfit)}.'
    if scale and fitting > check.count / 2:
      text += f' task.pair_scale={scale} would fit {fitting} of them.'
    level = 'serious' if len(check.misfit) > check.count / 2 else 'look'
    title = f"{len(check.misfit)} of {check.count} {of} don't fit task.pair_scale"
    yield Finding(level, title, text)
  for found, what in (
    (check.broken, "can't be read"),
    (check.left_out, 'left out by their headers'),
  ):
    if found:
      title = f'{len(found)} of the {check.name} set {what}'
      yield Finding('look', title, f'The first: {_first(found)}.')
  yield from _shift(check, of)
  yield from _brightness(check, of)


def _shift(check: PairCheck, of: str) -> Iterator[Finding]:
  known = [one for one in check.compared.values() if not math.isnan(one.down)]
  if not known:
    if check.compared:
      yield Finding(
        'note',
        f'Whether inputs and targets of the {of} lie on each other cannot be told',
        'They have too little in common. Look at them in the report.',
      )
    return
  far = sum(one.distance >= SHIFT for one in known)
  down, right = (np.array([getattr(o, s) for o in known]) for s in ('down', 'right'))
  middle = float(np.median(down)), float(np.median(right))
  spread = math.hypot(*(float(np.std(values)) for values in (down, right)))
  if far > len(known) / 4:
    same = math.hypot(*middle) >= SHIFT and spread < SHIFT
    how = 'all about alike' if same else f'by {spread:.1f} pixels more or less'
    yield Finding(
      'look',
      f'Inputs of {far} of {len(known)} compared {of} do not lie on their targets',
      f'Medians: {_signed(middle[0], "down", "up")}, '
      f'{_signed(middle[1], "right", "left")}, in pixels of the target, {how}. A '
      'network learns to move what it sees, or to blur where it cannot know how far. '
      'Register the images first.',
    )
  else:
    level = check.median('distance')
    yield Finding(
      'note',
      f'Inputs of the {of} lie on their targets: {level:.1f} pixels apart in the '
      f'median of {len(known)}',
    )


def _brightness(check: PairCheck, of: str) -> Iterator[Finding]:
  gain, offset = check.median('gain'), check.median('offset')
  if math.isnan(gain):
    return
  alike = _GAIN[0] <= gain <= _GAIN[1] and abs(offset) <= _LEVELS
  text = '' if alike else 'A model learns this change, too. '
  if gain < 0:
    text += 'What is bright in the one is dark in the other. '
  yield Finding(
    'note' if alike else 'look',
    f'Brightness of the {of}: input = {gain:.2f} x target {round(offset):+d} levels of '
    '255, in the median',
    f'{text}If it is not meant, scale one of the two, or set data.input_low and '
    'data.input_high.'
    if text
    else '',
  )


def _signed(value: float, ahead: str, back: str) -> str:
  """Return a shift along one axis in words."""
  return f'{abs(value):.1f} {ahead if value >= 0 else back}'


def _first(found: dict[str, str]) -> str:
  """Return the first name and its reason."""
  name = next(iter(found))
  return f'{name} ({found[name].removeprefix(f"{name}: ")})'
