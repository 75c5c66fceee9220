"""Reads what a subject's browser writes, without trusting a byte of it.

The file may come from anybody who has the link. It is bounded in size, every value is
of one type and in one range, and what isn't known is dropped.
"""

import dataclasses
import datetime
import json
import re
from collections.abc import Sequence
from typing import NoReturn

from sr3_jax.runtime.errors import UserError

FORMAT = 1
MAX_BYTES = 1 << 20  # the largest study takes three quarters of it
MAX_TRIALS = 6000
MAX_MS = 24 * 3600 * 1000
SIDES = ('left', 'right')
DEVICES = ('keyboard', 'mouse', 'touch', 'pen')


class ResultError(UserError):
  """One line: what is wrong with a result."""


@dataclasses.dataclass(frozen=True)
class Answer:
  """One choice of a subject.

  Attributes:
    side: 'left' or 'right'.
    shown: seconds for which the pictures stood there.
    time: seconds from their end to the answer.
    views: times they were shown; more than one after a reload.
    interrupted: the page was hidden meanwhile.
    device: 'keyboard', 'mouse', 'touch' or 'pen'.
  """

  side: str
  shown: float
  time: float
  views: int
  interrupted: bool
  device: str


@dataclasses.dataclass(frozen=True)
class Result:
  """A whole session.

  Attributes:
    study: which study it belongs to.
    id: drawn by the browser, one a session.
    number: of the subject, from 1 on.
    answers: one a trial, in order.
    reduced: some picture was shown on fewer pixels than it has.
    finished: when, ISO 8601.
  """

  study: str
  id: str
  number: int
  answers: tuple[Answer, ...]
  reduced: bool
  finished: str


def parse(data: bytes) -> Result:
  """Read the bytes of a result.

  Raises:
    ResultError: too large, not JSON, or a value that no study writes.
  """
  if len(data) > MAX_BYTES:
    raise ResultError(f'more than {MAX_BYTES} bytes')
  value = load_json(data)
  record = _record(value, 'the file')
  if _integer(record, 'format', 1, 10**6) != FORMAT:
    raise ResultError(f'format {record["format"]} is not known, only {FORMAT}')
  answers = record.get('answers')
  if not isinstance(answers, list) or not 0 < len(answers) <= MAX_TRIALS:
    raise ResultError(f'"answers" must be a list of 1 to {MAX_TRIALS}')
  return Result(
    study=_matching(record, 'study', r'[0-9a-f]{16}'),
    id=_matching(record, 'id', r'[0-9a-f]{32}'),
    number=_integer(record, 'number', 1, 10**6),
    answers=tuple(_answer(value, i) for i, value in enumerate(answers)),
    reduced=_boolean(record, 'reduced'),
    finished=_time(record, 'finished'),
  )


def match(result: Result, study: str, lengths: Sequence[int]) -> None:
  """Check that a result answers this study's questions, all of them.

  Args:
    result: to be checked.
    study: the study's id.
    lengths: trials of every subject.

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


def _answer(value: object, index: int) -> Answer:
  """Read the answer to a trial."""
  try:
    record = _record(value, 'it')
    # The order is the plan's; the number says that none is missing or doubled.
    if _integer(record, 'trial', 0, MAX_TRIALS) != index:
      raise ResultError('its number is wrong')
    return Answer(
      side=_one_of(record, 'answer', SIDES),
      shown=_milliseconds(record, 'shown_ms'),
      time=_milliseconds(record, 'answer_ms'),
      views=_integer(record, 'views', 1, 10**6),
      interrupted=_boolean(record, 'interrupted'),
      device=_one_of(record, 'device', DEVICES),
    )
  except ResultError as error:
    raise ResultError(f'answer {index}: {error}') from None


def _record(value: object, what: str) -> dict[str, object]:
  """Return a JSON object."""
  if not isinstance(value, dict):
    raise ResultError(f'{what} is not a JSON object')
  return value


def _integer(record: dict[str, object], name: str, low: int, high: int) -> int:
  """Return an integer in a range."""
  value = record.get(name)
  # True is an int, too.
  if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
    raise ResultError(f'"{name}" must be an integer from {low} to {high}')
  return value


def _milliseconds(record: dict[str, object], name: str) -> float:
  """Return a time of a record that has it in milliseconds, in seconds."""
  value = record.get(name)
  number = isinstance(value, int | float) and not isinstance(value, bool)
  if not number or not 0 <= value <= MAX_MS:
    raise ResultError(f'"{name}" must be a number from 0 to {MAX_MS}')
  return value / 1000


def _boolean(record: dict[str, object], name: str) -> bool:
  """Return a boolean."""
  value = record.get(name)
  if not isinstance(value, bool):
    raise ResultError(f'"{name}" must be true or false')
  return value


def _one_of(record: dict[str, object], name: str, known: Sequence[str]) -> str:
  """Return one of some texts."""
  value = record.get(name)
  if not isinstance(value, str) or value not in known:
    raise ResultError(f'"{name}" must be one of {", ".join(known)}')
  return value


def _matching(record: dict[str, object], name: str, pattern: str) -> str:
  """Return a text that matches a pattern."""
  value = record.get(name)
  if not isinstance(value, str) or not re.fullmatch(pattern, value):
    raise ResultError(f'"{name}" must match {pattern}')
  return value


def _time(record: dict[str, object], name: str) -> str:
  """Return a time as ISO 8601."""
  value = record.get(name)
  try:
    if not isinstance(value, str) or len(value) > 40:
      raise ValueError
    return datetime.datetime.fromisoformat(value).isoformat()
  except ValueError:
    raise ResultError(f'"{name}" must be a time like 2026-01-31T12:00:00Z') from None
