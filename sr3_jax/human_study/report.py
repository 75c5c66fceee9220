"""Makes the tables of plain text that `sr3-study analyse` prints."""

from collections.abc import Sequence

from sr3_jax.human_study.design import QUESTIONS, Figures
from sr3_jax.runtime import text

EXTREMES = 3  # images listed with the lowest and the highest fool rate
NOTES = (
  'Fool rate: share of trials in which the output was preferred to the photograph.',
  'The interval to quote is the one over subjects (cluster bootstrap, 10,000 draws):',
  'answers of one person are not independent, as the Wilson interval takes them to be.',
  'With fewer than ten subjects, or none or all fooled, it is too narrow: quote both.',
  "* quoted from memory, not verified. The paper's images and subjects are others: a",
  'yardstick, not a comparison.',
)


def report(found: Figures) -> str:
  """Return the text of what `sr3-study analyse` writes as JSON."""
  lines = [_people(found)]
  for task in sorted({rate['task'] for rate in found['rates']}):
    lines += ['', f'Task {task}: {QUESTIONS[task]}', *_table(found, task)]
    lines += ['', *_images(found, task)]
  return '\n'.join([*lines, '', *_subjects(found['per_subject']), '', *NOTES])


def _people(found: Figures) -> str:
  """Return how many subjects, files and trials there are, and what is left out."""
  checks, skipped = found['attention'], len(found['skipped'])
  out = f'{found["left_out"]} left out'
  if found['keep_all']:
    out = f'{found["inattentive"]} would be left out but for --keep-all'
  said = (
    f'{found["subjects"]} subjects, {out} (more than {_percent(found["max_failed"])} '
    f'of the attention checks failed), {skipped} files skipped\n'
    f'attention checks: {checks["failed"]} of {checks["checks"]} failed'
  )
  if found['median_answer_seconds'] is not None:
    said += (
      f'; median answer after {found["median_answer_seconds"]:.2f} s; "left" in '
      f'{_percent(found["left_answers"])} of the answers'
    )
  if found['spoilt_trials']:
    said += (
      f"\n{found['spoilt_trials']} trials don't count: seen twice, interrupted, or not "
      f'shown for {found["seconds"]:g} s'
    )
  reduced = sum(person['reduced'] for person in found['per_subject'])
  if reduced:
    said += f'\n{reduced} subjects saw pictures on fewer pixels than these have'
  return said


def _table(found: Figures, task: int) -> list[str]:
  """Return the fool rates of a task, and those of the paper below them."""
  rows = [['', 'fool rate', '95 % over subjects', '95 % Wilson', 'trials', 'subjects']]
  for rate in found['rates']:
    if rate['task'] == task:
      ranges = _range(rate['low'], rate['high']), _range(*rate['wilson'])
      counts = str(rate['trials']), str(rate['subjects'])
      rows.append([rate['method'], _percent(rate['rate']), *ranges, *counts])
  for entry in found['paper']:
    if entry['task'] == task:
      rows.append([f'the paper, {entry["data"]}', *[''] * 5])
      mark = '' if entry['verified'] else ' *'
      for method, percent in entry['rates'].items():
        rows.append([f'  {method}', f'{percent:.1f} %{mark}', *[''] * 4])
  return _aligned(rows)


def _images(found: Figures, task: int) -> list[str]:
  """Return for every method the images that fooled least and most."""
  rows = [('', 'lowest by image', 'highest by image')]
  for method in [r['method'] for r in found['rates'] if r['task'] == task]:
    key = task, method
    own = [e for e in found['per_image'] if (e['task'], e['method']) == key]
    own.sort(key=lambda entry: (entry['rate'], entry['image']))
    said = [f'{text.shorten(e["image"], 24)} {e["fooled"]}/{e["trials"]}' for e in own]
    lowest, highest = said[:EXTREMES], said[: -EXTREMES - 1 : -1]
    rows.append((method, ', '.join(lowest), ', '.join(highest)))
  return _aligned(rows)


def _subjects(people: Sequence[Figures]) -> list[str]:
  """Return the subjects, one a line."""
  rows = [('subject', 'task', 'fool rate', 'trials', 'checks failed', 'median s', '')]
  for person in sorted(people, key=lambda p: (p['number'], p['id'])):
    first = str(person['number']), str(person['task']), _percent(person['rate'])
    checks = f'{person["failed"]} of {person["checks"]}'
    seconds = person['median_answer_seconds']
    time = '-' if seconds is None else f'{seconds:.2f}'
    out = 'left out' if person['left_out'] else ''
    rows.append((*first, str(person['trials']), checks, time, out))
  return _aligned(rows)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
  """Return rows as indented lines, every column flush left."""
  return ['  ' + line for line in text.align(rows, range(len(rows[0])))]


def _percent(value: float | None) -> str:
  """Return a share in percent; a dash for none."""
  return '-' if value is None else f'{100 * value:.1f} %'


def _range(low: float | None, high: float | None) -> str:
  """Return an interval in percent; a dash for none."""
  if low is None or high is None:
    return '-'
  return f'{100 * low:.1f} to {_percent(high)}'
