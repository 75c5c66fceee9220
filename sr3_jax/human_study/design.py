"""Plans the paper's human study and analyses its answers: arithmetic only.

Two-alternative forced choice (SR3 paper, section 4): two candidates for the same scene,
a photograph and a model's output, are shown side by side for a fixed time; then the
subject chooses. Task 1 shows the low-resolution input between them, task 2 doesn't. The
fool rate is the share of trials in which the output is preferred; at 50 % outputs can't
be told from photographs. No function here reads or writes files.
"""

import dataclasses
import hashlib
import statistics
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from sr3_jax.human_study.results import SIDES, Answer, Result
from sr3_jax.runtime.errors import UserError

QUESTIONS = {
  1: 'Which is the better high-quality version of the image in the middle?',
  2: 'Which image would you guess is from a camera?',
}
# In these trials a blurred photograph takes the place of a method's output.
CHECK, PRACTICE = 'check', 'practice'
NUM_PRACTICE = 3
CHECK_EVERY = 10  # trials

# Fool rates of the paper in percent. Task 2 as the authors' site plots them; task 1 is
# quoted from memory and was not found in a source.
_FACES, _IMAGENET = 'faces, 16 to 128', 'ImageNet, 64 to 256'
_PAPER = (
  (1, _FACES, {'FSRGAN': 8.9, 'PULSE': 24.6, 'Regression': 29.3, 'SR3': 54.1}),
  (1, _IMAGENET, {'Regression': 16.8, 'SR3': 38.8}),
  (2, _FACES, {'FSRGAN': 8.5, 'PULSE': 33.7, 'Regression': 15.3, 'SR3': 47.4}),
  (2, _IMAGENET, {'Regression': 13.4, 'SR3': 39.0}),
)
PAPER = [
  {'task': task, 'data': data, 'verified': task == 2, 'rates': rates}
  for task, data, rates in _PAPER
]

T = TypeVar('T')
K = TypeVar('K', bound=Hashable)
# Numbers of a study, a subject or a rate, ready for JSON; `analyse` names the keys.
Figures = dict[str, Any]


class Trial(NamedTuple):
  """One choice that a subject is to make."""

  image: str  # name of the scene
  shown: str  # method whose output is beside the photograph, or CHECK or PRACTICE
  real: str  # side of the photograph, 'left' or 'right'


Plan = tuple[int, list[Trial]]  # a subject's task and trials


@dataclasses.dataclass(frozen=True)
class Design:
  """The design of a study, from which all subjects' plans follow.

  A subject sees no scene twice and has one task only: whoever has seen a photograph
  beside its input would recognise it later.
  """

  images: tuple[str, ...]  # names of the scenes that count, `rounds * per_subject`
  practice: tuple[str, ...]  # scenes of the practice trials
  checks: tuple[str, ...]  # scenes of the attention checks
  methods: tuple[str, ...]  # names, each compared with the photograph
  tasks: tuple[int, ...]  # (1,), (2,) or (1, 2)
  per_subject: int  # trials of a subject that count
  seed: int  # of every order and side

  @property
  def rounds(self) -> int:
    """Return how many subjects of one task together see every image once."""
    return len(self.images) // self.per_subject

  @property
  def cycle(self) -> int:
    """Return after how many subjects the study is exactly even.

    By then every image was shown with every method, with the photograph on either
    side, once in every task.
    """
    return self.rounds * len(self.methods) * 2 * len(self.tasks)


def make_design(
  names: Sequence[str],
  methods: Sequence[str],
  tasks: Sequence[int],
  *,
  num_images: int = 100,
  images_per_subject: int = 50,
  seed: int = 0,
) -> Design:
  """Draw the scenes of practice, checks and trials, each scene for one of them.

  At most `num_images` scenes count, of which a subject sees at most
  `images_per_subject`. So that few subjects make the study exactly even, a subject sees
  a whole fraction of them: 97 images and 50 a subject become 96 and 48.

  Raises:
    UserError: too few scenes.
  """
  checks = max(1, min(images_per_subject, len(names)) // CHECK_EVERY)
  extra = NUM_PRACTICE + checks
  if len(names) <= extra:
    raise UserError(
      f'{len(names)} images are too few: {NUM_PRACTICE} for practice and {checks} for '
      f'attention checks are needed beside those that count'
    )
  count = min(num_images, len(names) - extra)
  rounds = -(-count // images_per_subject)
  per_subject = count // rounds
  order = _shuffled(sorted(names), seed, 'scenes')
  return Design(
    images=tuple(order[extra : extra + rounds * per_subject]),
    practice=tuple(order[:NUM_PRACTICE]),
    checks=tuple(order[NUM_PRACTICE:extra]),
    methods=tuple(methods),
    tasks=tuple(tasks),
    per_subject=per_subject,
    seed=seed,
  )


def plan(design: Design, subject: int) -> Plan:
  """Return the task of a subject (1 or 2) and all its trials in order.

  Subjects count from 0. NUM_PRACTICE trials of practice are followed by those that
  count, with an attention check somewhere in every ten. Methods follow a Latin square:
  image j of a subject's share is shown with method `j + turn`, and the turn advances
  when all images were seen. Within a subject the methods' counts, every method's sides
  and all sides together differ by one at most.
  """
  task = design.tasks[subject % len(design.tasks)]
  number = subject // len(design.tasks)
  methods, share = len(design.methods), design.per_subject
  turn, window = divmod(number, design.rounds)
  again = turn // methods
  # Later cycles shuffle the images anew, so that other ones share a subject.
  images = _shuffled(design.images, design.seed, 'share', again // 2)
  trials = []
  for j, image in enumerate(images[window * share : (window + 1) * share]):
    method = design.methods[(j + turn) % methods]
    side = (j // methods + j % methods + turn % methods + again) % 2
    trials.append(Trial(image, method, SIDES[side]))
  key = (design.seed, 'subject', subject)
  trials = _shuffled(trials, *key)
  checks = _easy_trials(design.checks, CHECK, *key)
  # The last check is inserted first, so that earlier places stay where they are.
  for c in reversed(range(len(checks))):
    start, stop = (share * k // len(checks) for k in (c, c + 1))
    place = _shuffled(range(start, stop), *key, 'place', c)[0]
    trials.insert(place, checks[c])
  return task, _easy_trials(design.practice, PRACTICE, *key) + trials


def _easy_trials(images: Sequence[str], kind: str, *key: object) -> list[Trial]:
  """Return trials of a kind in a subject's order, with sides even to one."""
  images = _shuffled(images, *key, kind)
  sides = _shuffled(range(len(images)), *key, kind, 'sides')
  return [Trial(i, kind, SIDES[s % 2]) for i, s in zip(images, sides, strict=True)]


def _shuffled(items: Iterable[T], *key: object) -> list[T]:
  """Return an order drawn from `key`: the same on every machine, in every version."""

  def digest(item: T) -> bytes:
    return hashlib.blake2b(repr((*key, item)).encode()).digest()

  return sorted(items, key=digest)


def wilson(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
  """Return Wilson's score interval of a share, for independent trials.

  Raises:
    ValueError: no trial.
  """
  if trials < 1:
    raise ValueError('no trials')
  z = statistics.NormalDist().inv_cdf((1 + level) / 2)
  share = successes / trials
  centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
  spread = z * (share * (1 - share) / trials + (z / (2 * trials)) ** 2) ** 0.5
  half = spread / (1 + z * z / trials)
  return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap(
  successes: Sequence[int],
  trials: Sequence[int],
  level: float = 0.95,
  draws: int = 10_000,
  seed: int = 0,
) -> tuple[float, float] | None:
  """Return the interval of a share over subjects: a cluster bootstrap of them.

  `successes` and `trials` have a number for every subject. Each of `draws` takes as
  many subjects, with replacement. It is None below two subjects with trials, who say
  nothing about subjects.
  """
  k, n = np.asarray(successes), np.asarray(trials)
  k, n = k[n > 0], n[n > 0]
  if len(n) < 2:
    return None
  even = np.full(len(n), 1 / len(n))
  times = np.random.default_rng(seed).multinomial(len(n), even, size=draws)
  low, high = np.quantile((times @ k) / (times @ n), [(1 - level) / 2, (1 + level) / 2])
  return float(low), float(high)


def is_disturbed(answer: Answer, seconds: float) -> bool:
  """Return whether the pictures were not shown once, undisturbed, for the study's time.

  The screen's own rhythm costs a frame or two; a fifth (and 0.1 s) is more than that.
  """
  off = abs(answer.shown - seconds)
  return answer.views != 1 or answer.interrupted or off > max(0.1, 0.2 * seconds)


def analyse(
  results: Sequence[Result],
  plans: Sequence[Plan],
  seconds: float,
  *,
  max_failed: float = 0.2,
  keep_all: bool = False,
) -> Figures:
  """Return everything that is said about a study, ready for JSON.

  Results are whole ones, one a subject, whose numbers count from 1. Subjects that
  failed more than a share of the attention checks are left out, unless all are kept.

  Returns:
    'rates' of every task and method, 'per_subject', 'per_image', 'attention' and
    totals. A rate has 'low' and 'high', the 95 % interval over subjects (None for
    fewer than two), and 'wilson', which takes all trials for independent.
  """
  people = [
    _person(result, plans[result.number - 1], seconds, max_failed, keep_all)
    for result in results
  ]
  subjects = [person.subject for person in people]
  counted = [person for person in people if not person.subject['left_out']]
  images = _tally(
    ((person.subject['task'], trial.shown, trial.image), _is_fooled(trial, answer))
    for person in counted
    for trial, answer in person.answers
  )
  answers = [answer for person in counted for _, answer in person.answers]
  return {
    'subjects': len(counted),
    'left_out': sum(subject['left_out'] for subject in subjects),
    'inattentive': sum(subject['inattentive'] for subject in subjects),
    'max_failed': max_failed,
    'keep_all': keep_all,
    'interval': '95 %, cluster bootstrap over subjects',
    'rates': _rates(counted),
    'attention': {key: sum(s[key] for s in subjects) for key in ('checks', 'failed')},
    'median_answer_seconds': _median_time(answers),
    'left_answers': (
      statistics.fmean(a.side == 'left' for a in answers) if answers else None
    ),
    'spoilt_trials': sum(person.subject['spoilt'] for person in counted),
    'per_subject': subjects,
    'per_image': [
      {'task': task, 'method': method, 'image': image, **_share(*counts)}
      for (task, method, image), counts in sorted(images.items())
    ],
    'paper': PAPER,
  }


class _Person(NamedTuple):
  """A subject's entry of the analysis, and each of its trials that counts."""

  subject: Figures
  answers: list[tuple[Trial, Answer]]


def _person(
  result: Result, planned: Plan, seconds: float, max_failed: float, keep_all: bool
) -> _Person:
  """Count one subject's answers; those of practice say nothing."""
  task, trials = planned
  pairs = [
    (trial, answer)
    for trial, answer in zip(trials, result.answers, strict=True)
    if trial.shown != PRACTICE
  ]
  good = [(t, a) for t, a in pairs if not is_disturbed(a, seconds)]
  checks = [_is_fooled(t, a) for t, a in good if t.shown == CHECK]
  counted = [(t, a) for t, a in good if t.shown != CHECK]
  failed = sum(checks)
  inattentive = bool(checks) and failed > max_failed * len(checks)
  subject = {
    'number': result.number,
    'id': result.id,
    'task': task,
    **_share(sum(_is_fooled(t, a) for t, a in counted), len(counted)),
    'checks': len(checks),
    'failed': failed,
    'inattentive': inattentive,
    'median_answer_seconds': _median_time([a for _, a in counted]),
    'spoilt': len(pairs) - len(good),
    'reduced': result.reduced,
    'left_out': inattentive and not keep_all,
  }
  return _Person(subject, counted)


def _is_fooled(trial: Trial, answer: Answer) -> bool:
  """Return whether what is no photograph was preferred to it."""
  return answer.side != trial.real


def _median_time(answers: Sequence[Answer]) -> float | None:
  """Return the median of the seconds to an answer; None without answers."""
  return statistics.median(a.time for a in answers) if answers else None


def _rates(people: Sequence[_Person]) -> list[Figures]:
  """Return fool rate and intervals for every task and method that was shown."""
  counts = [
    _tally(((p.subject['task'], t.shown), _is_fooled(t, a)) for t, a in p.answers)
    for p in people
  ]
  rates = []
  for task, method in sorted({key for person in counts for key in person}):
    own = [person[task, method] for person in counts if (task, method) in person]
    fooled, trials = zip(*own, strict=True)
    low, high = bootstrap(fooled, trials) or (None, None)
    totals = sum(fooled), sum(trials)
    rate = {'task': task, 'method': method, **_share(*totals), 'low': low, 'high': high}
    rates.append(rate | {'wilson': list(wilson(*totals)), 'subjects': len(own)})
  return rates


def _tally(pairs: Iterable[tuple[K, bool]]) -> dict[K, tuple[int, int]]:
  """Return key -> (times fooled, times) of pairs (key, fooled)."""
  counts: dict[K, tuple[int, int]] = {}
  for key, fooled in pairs:
    k, n = counts.get(key, (0, 0))
    counts[key] = (k + fooled, n + 1)
  return counts


def _share(fooled: int, trials: int) -> Figures:
  """Return counts and their ratio, None without a trial."""
  rate = fooled / trials if trials else None
  return {'rate': rate, 'fooled': int(fooled), 'trials': trials}
