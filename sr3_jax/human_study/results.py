"""Reads what a subject's browser writes, without trusting a byte of it.

The file may come from anybody who has the link. It is bounded in size, every value is
of one type and in one range, and what isn't known is dropped.
"""

import datetime
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from sr3_jax.runtime.errors import UserError

FORMAT = 1
MAX_BYTES = 1 << 20  # the largest study takes three quarters of it
MAX_TRIALS = 6000
MAX_MS = 24 * 3600 * 1000
SIDES = ('left', 'right')
DEVICES = ('keyboard', 'mouse', 'touch', 'pen')
Record = Mapping[str, Any]  # a JSON object
Check = Callable[[Any], object]  # whether a value of the right type is allowed


class ResultError(UserError):
  """One line: what is wrong with a result."""


class Answer(NamedTuple):
  """One choice of a subject."""

  side: str  # 'left' or 'right'
  shown: float  # seconds for which the pictures were on the screen
  time: float  # seconds from their disappearance to the answer
  views: int  # times they were shown; more than one after a reload
  interrupted: bool  # the page was hidden meanwhile
  device: str  # one of DEVICES


class Result(NamedTuple):
  """A whole session of a subject."""

  study: str  # id of the study
  id: str  # drawn by the browser, one a session
  number: int  # of the subject, from 1 on
  answers: tuple[Answer, ...]  # one a trial, in order
  reduced: bool  # some picture was shown on fewer pixels than it has
  finished: str  # when, ISO 8601


def parse(data: bytes) -> Result:
  """Read the bytes of a result.

  Raises:
    ResultError: too large, not JSON, or a value that no study writes.
  """
  if len(data) > MAX_BYTES:
    raise ResultError(f'more than {MAX_BYTES} bytes')
  record = load_json(data)
  if not isinstance(record, dict):
    raise ResultError('the file is not a JSON object')
  if _integer(record, 'format', 1, 10**6) != FORMAT:
    raise ResultError(f'format {record["format"]} is not known, only {FORMAT}')
  limit = f'be a list of 1 to {MAX_TRIALS}'
  answers = _field(record, 'answers', list, limit, lambda a: 0 < len(a) <= MAX_TRIALS)
  return Result(
    study=_matching(record, 'study', r'[0-9a-f]{16}'),
    id=_matching(record, 'id', r'[0-9a-f]{32}'),
    number=_integer(record, 'number', 1, 10**6),
    answers=tuple(_answer(value, i) for i, value in enumerate(answers)),
    reduced=_field(record, 'reduced', bool, 'be true or false'),
    finished=_time(record, 'finished'),
  )


def match(result: Result, study: str, lengths: Sequence[int]) -> None:
  """Check that a result answers all questions of a study with plans of these lengths.

  Raises:
    ResultError: it doesn't.
  """
  if result.study != study:
    raise ResultError(f'is of study {result.study}, not of {study}')
  if result.number > len(lengths):
    raise ResultError(f'subject {result.number} of {len(lengths)} is not in the plan')
  expected = lengths[result.number - 1]
  if len(result.answers) != expected:
    raise ResultError(f'answers {len(result.answers)} trials, the plan has {expected}')


def load_json(data: bytes) -> object:
  """Read JSON in UTF-8 without NaN and infinities, however deep or odd it is.

  Raises:
    ResultError: it isn't that.
  """

  def refuse(name: str) -> NoReturn:
    raise ResultError(f'{name} is no number')

  try:
    return json.loads(data.decode('utf-8'), parse_constant=refuse)
  except ResultError:
    raise
  except (ValueError, RecursionError):  # not UTF-8, not JSON, a number without end
    raise ResultError('not JSON') from None


def _answer(value: Any, index: int) -> Answer:
  """Read the answer to a trial."""
  try:
    if not isinstance(value, dict):
      raise ResultError('it is not a JSON object')
    # The order is the plan's; the number says that none is missing or doubled.
    if _integer(value, 'trial', 0, MAX_TRIALS) != index:
      raise ResultError('its number is wrong')
    return Answer(
      side=_one_of(value, 'answer', SIDES),
      shown=_milliseconds(value, 'shown_ms'),
      time=_milliseconds(value, 'answer_ms'),
      views=_integer(value, 'views', 1, 10**6),
      interrupted=_field(value, 'interrupted', bool, 'be true or false'),
      device=_one_of(value, 'device', DEVICES),
    )
  except ResultError as error:
    raise ResultError(f'answer {index}: {error}') from None


def _field(
  record: Record, name: str, kind: type, wanted: str, fits: Check = lambda _: True
) -> Any:
  """Return a value of a record that is of a kind and fits what is wanted."""
  value = record.get(name)
  is_kind = isinstance(value, kind) and isinstance(value, bool) == (kind is bool)
  if not is_kind or not fits(value):
    raise ResultError(f'"{name}" must {wanted}')
  return value


def _integer(record: Record, name: str, low: int, high: int) -> int:
  """Return an integer from `low` to `high`."""
  wanted = f'be an integer from {low} to {high}'
  return _field(record, name, int, wanted, lambda value: low <= value <= high)


def _milliseconds(record: Record, name: str) -> float:
  """Return a time that is given in milliseconds in seconds."""
  wanted = f'be a number from 0 to {MAX_MS}'
  kind = float if isinstance(record.get(name), float) else int
  return _field(record, name, kind, wanted, lambda value: 0 <= value <= MAX_MS) / 1000


def _one_of(record: Record, name: str, known: Sequence[str]) -> str:
  """Return one of some texts."""
  return _field(record, name, str, f'be one of {", ".join(known)}', known.__contains__)


def _matching(record: Record, name: str, pattern: str) -> str:
  """Return a text that matches a pattern."""
  return _field(record, name, str, f'match {pattern}', re.compile(pattern).fullmatch)


def _time(record: Record, name: str) -> str:
  """Return a time as ISO 8601."""
  wanted = 'be a time like 2026-01-31T12:00:00Z'
  text = _field(record, name, str, wanted, lambda text: len(text) <= 40)
  try:
    return datetime.datetime.fromisoformat(text).isoformat()
  except ValueError:
    raise ResultError(f'"{name}" must {wanted}') from None
