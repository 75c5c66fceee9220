"""Plans are even to the last trial; intervals against SciPy, coverage, known rates."""

import collections
import json

import numpy as np
import pytest
from scipy import stats

from sr3_jax.human_study import design as human_study_design
from sr3_jax.human_study.results import Answer, Result

NAMES = [f'{i:05d}' for i in range(200)]
DESIGNS = [
  # images, methods, tasks, images a subject
  (100, 4, (1, 2), 50),  # the paper's
  (100, 1, (2,), 50),
  (97, 3, (2,), 50),  # becomes 96 and 48
  (7, 2, (1,), 50),
  (5, 5, (1, 2), 2),
]


def make_design(num_images, methods, tasks, share, seed=3):
  names = [f'm{i}' for i in range(methods)]
  return human_study_design.make_design(
    NAMES, names, tasks, num_images=num_images, images_per_subject=share, seed=seed
  )


def counted(trials):
  return [
    t
    for t in trials
    if t.shown not in (human_study_design.CHECK, human_study_design.PRACTICE)
  ]


@pytest.mark.parametrize('settings', DESIGNS)
def test_a_cycle_of_subjects_is_exactly_even(settings):
  """Every (task, image, method, side) once a cycle, in whichever cycle."""
  design = make_design(*settings)
  for start in (0, 3 * design.cycle):
    counts = collections.Counter()
    for subject in range(start, start + design.cycle):
      task, trials = human_study_design.plan(design, subject)
      counts.update((task, t.image, t.shown, t.real) for t in counted(trials))
    cells = len(design.tasks) * len(design.images) * len(design.methods) * 2
    assert len(counts) == cells
    assert set(counts.values()) == {1}


@pytest.mark.parametrize('settings', DESIGNS)
def test_within_a_subject_methods_and_sides_differ_by_one_at_most(settings):
  design = make_design(*settings)
  for subject in range(2 * design.cycle):
    task, trials = human_study_design.plan(design, subject)
    assert task == design.tasks[subject % len(design.tasks)]
    own = counted(trials)
    assert len(own) == design.per_subject
    # No scene is seen twice, practice and checks included.
    assert len({t.image for t in trials}) == len(trials)
    by_method = collections.Counter(t.shown for t in own)
    methods = [by_method[method] for method in design.methods]
    assert max(methods) - min(methods) <= 1
    sides = collections.Counter((t.shown, t.real) for t in own)
    for method in design.methods:
      assert abs(sides[method, 'left'] - sides[method, 'right']) <= 1
    left = sum(t.real == 'left' for t in own)
    assert abs(2 * left - len(own)) <= 1


def test_the_papers_numbers_make_the_papers_study():
  design = make_design(100, 4, (1, 2), 50)
  assert (len(design.images), design.per_subject, design.cycle) == (100, 50, 32)
  assert (len(design.practice), len(design.checks)) == (3, 5)


def test_a_share_becomes_a_whole_fraction_of_the_images():
  design = make_design(97, 3, (2,), 50)
  assert (len(design.images), design.per_subject, design.rounds) == (96, 48, 2)


def test_practice_comes_first_and_a_check_in_every_ten():
  design = make_design(100, 4, (2,), 50)
  places, sides = set(), collections.Counter()
  for subject in range(40):
    kinds = [t.shown for t in human_study_design.plan(design, subject)[1]]
    assert (
      kinds[:3] == [human_study_design.PRACTICE] * 3
      and human_study_design.PRACTICE not in kinds[3:]
    )
    checks = [i for i, kind in enumerate(kinds[3:]) if kind == human_study_design.CHECK]
    # Check c stands before one of the trials 10 c to 10 c + 9.
    assert [i - c for c, i in enumerate(checks)] == [
      pytest.approx(10 * c + 4.5, abs=4.5) for c in range(5)
    ]
    places.update(checks)
    sides.update(
      t.real for t in human_study_design.plan(design, subject)[1] if t.shown == 'check'
    )
  assert len(places) > 30  # not always the same ones
  assert abs(sides['left'] - sides['right']) <= 40


def test_plans_are_a_function_of_seed_and_subject():
  design = make_design(*DESIGNS[0])
  assert human_study_design.plan(design, 5) == human_study_design.plan(
    make_design(*DESIGNS[0]), 5
  )
  assert human_study_design.plan(design, 5) != human_study_design.plan(
    design, 7
  )  # of the same task
  assert human_study_design.plan(design, 5) != human_study_design.plan(
    make_design(*DESIGNS[0], seed=4), 5
  )


def test_plans_stay_the_same_in_later_versions():
  """A study that is running must not change: keys and sites hold these orders."""
  design = human_study_design.make_design(
    NAMES[:12], ['a', 'b'], (2,), images_per_subject=4
  )
  _, trials = human_study_design.plan(design, 1)
  assert [f'{t.image[-2:]}{t.shown[0]}{t.real[0]}' for t in trials] == PINNED


PINNED = ['05pl', '02pr', '00pl', '06cl', '09al', '11br', '03ar', '01bl']


def test_too_few_images_are_refused():
  with pytest.raises(ValueError, match='4 images are too few'):
    human_study_design.make_design(NAMES[:4], ['a'], (2,))
  assert len(human_study_design.make_design(NAMES[:5], ['a'], (2,)).images) == 1


# ------------------------------------------------------------------------ intervals


@pytest.mark.parametrize(
  ('k', 'n'), [(0, 1), (1, 1), (0, 20), (7, 20), (20, 20), (474, 1000)]
)
@pytest.mark.parametrize('level', [0.9, 0.95])
def test_wilson_is_scipys(k, n, level):
  truth = stats.binomtest(k, n).proportion_ci(level, method='wilson')
  assert human_study_design.wilson(k, n, level) == pytest.approx(
    (truth.low, truth.high), abs=1e-12
  )


def test_the_bootstrap_covers_where_wilson_does_not():
  """Subjects differ (beta with mean 0.4); 95 % of 200 studies should hold 0.4."""
  random = np.random.default_rng(0)
  held = collections.Counter()
  for i in range(200):
    rates = random.beta(2, 3, size=40)
    n = np.full(40, 25)
    k = random.binomial(n, rates)
    low, high = human_study_design.bootstrap(k, n, draws=400, seed=i)
    held['bootstrap'] += low <= 0.4 <= high
    low, high = human_study_design.wilson(k.sum(), n.sum())
    held['wilson'] += low <= 0.4 <= high
  # 200 draws of 0.95 lie between 0.9 and 0.99, all but surely.
  assert 0.9 <= held['bootstrap'] / 200 <= 0.99
  assert held['wilson'] / 200 < 0.75


def test_the_bootstrap_has_the_standard_error_of_a_mean():
  """Equal subjects: the variance of a mean of independent shares, in closed form."""
  k, n = np.arange(100) % 21, np.full(100, 20)
  low, high = human_study_design.bootstrap(k, n)
  error = np.std(k / n) / 10
  assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.04)


def test_one_subject_has_no_interval_over_subjects():
  assert human_study_design.bootstrap([3], [10]) is None
  assert human_study_design.bootstrap([3, 0], [10, 0]) is None
  assert human_study_design.bootstrap([0, 0], [10, 10]) == (0.0, 0.0)


# ------------------------------------------------------------------------- analysis


def answered(number, plan, fools, *, seconds=3.0, checks=(), **changes):
  """A subject's result: method -> how many of its trials, the first ones, are lost."""
  left = dict(fools)
  answers, check = [], 0
  for trial in plan[1]:
    wrong = left.get(trial.shown, 0) > 0
    if wrong:
      left[trial.shown] -= 1
    if trial.shown == human_study_design.CHECK:
      wrong = check in checks
      check += 1
    other = {'left': 'right', 'right': 'left'}
    side = other[trial.real] if wrong else trial.real
    values = {'side': side, 'shown': seconds, 'time': 0.5, 'views': 1}
    values |= {'interrupted': False, 'device': 'keyboard', **changes}
    answers.append(Answer(**values))
  return Result('s', f'{number:032x}', number, tuple(answers), False, 'then')


@pytest.fixture(scope='module')
def plans():
  design = make_design(100, 4, (1, 2), 50)
  return [human_study_design.plan(design, subject) for subject in range(design.cycle)]


def test_fool_rates_of_known_answers(plans):
  """Subject i loses i trials of m0 and all of m1 and none of m2."""
  results = [
    answered(i + 1, plan, {'m0': i % 8, 'm1': 99}) for i, plan in enumerate(plans)
  ]
  found = human_study_design.analyse(results, plans, 3.0)
  rates = {(r['task'], r['method']): r for r in found['rates']}
  assert set(rates) == {(task, f'm{i}') for task in (1, 2) for i in range(4)}
  for task in (1, 2):
    # A cycle shows a method 200 times in a task: 100 images, two sides.
    assert {rates[task, f'm{i}']['trials'] for i in range(4)} == {200}
    fooled = sum(i % 8 for i in range(32) if i % 2 == task - 1)
    assert rates[task, 'm0']['fooled'] == fooled
    assert rates[task, 'm0']['rate'] == fooled / 200
    low, high = rates[task, 'm0']['low'], rates[task, 'm0']['high']
    assert low < fooled / 200 < high
    truth = stats.binomtest(fooled, 200).proportion_ci(method='wilson')
    assert rates[task, 'm0']['wilson'] == pytest.approx([truth.low, truth.high])
    assert (rates[task, 'm1']['rate'], rates[task, 'm2']['rate']) == (1, 0)
    assert rates[task, 'm0']['subjects'] == 16
  assert (found['subjects'], found['left_out']) == (32, 0)
  assert found['median_answer_seconds'] == 0.5
  assert found['attention'] == {'checks': 160, 'failed': 0}
  per_image = {(e['task'], e['method'], e['image']): e for e in found['per_image']}
  assert len(per_image) == 2 * 4 * 100
  assert {e['trials'] for e in per_image.values()} == {2}
  assert all(e['rate'] == 1 for key, e in per_image.items() if key[1] == 'm1')
  assert len(found['per_subject']) == 32
  json.dumps(found, allow_nan=False)


def test_who_fails_attention_checks_is_left_out(plans):
  careless = answered(1, plans[0], {'m0': 99}, checks=(0, 3))
  unlucky = answered(2, plans[1], {}, checks=(2,))
  careful = answered(3, plans[2], {})
  found = human_study_design.analyse([careless, unlucky, careful], plans, 3.0)
  assert (found['subjects'], found['left_out']) == (2, 1)
  assert [p['left_out'] for p in found['per_subject']] == [True, False, False]
  assert [p['failed'] for p in found['per_subject']] == [2, 1, 0]
  assert found['attention'] == {'checks': 15, 'failed': 3}
  assert all(rate['fooled'] == 0 for rate in found['rates'])
  kept = human_study_design.analyse(
    [careless, unlucky, careful], plans, 3.0, keep_all=True
  )
  assert (kept['subjects'], kept['left_out'], kept['inattentive']) == (3, 0, 1)
  assert any(rate['fooled'] for rate in kept['rates'])
  strict = human_study_design.analyse(
    [careless, unlucky, careful], plans, 3.0, max_failed=0
  )
  assert (strict['subjects'], strict['left_out']) == (1, 2)


@pytest.mark.parametrize(
  'change', [{'views': 2}, {'interrupted': True}, {'shown': 3.7}, {'shown': 2.3}]
)
def test_disturbed_trials_do_not_count(plans, change):
  found = human_study_design.analyse([answered(1, plans[0], {}, **change)], plans, 3.0)
  assert found['rates'] == [] and found['spoilt_trials'] == 55
  person = found['per_subject'][0]
  assert (person['trials'], person['rate'], person['checks']) == (0, None, 0)
  json.dumps(found, allow_nan=False)
  late = human_study_design.analyse([answered(1, plans[0], {}, shown=3.05)], plans, 3.0)
  assert late['spoilt_trials'] == 0


def test_practice_does_not_count(plans):
  fools = {human_study_design.PRACTICE: 3}
  found = human_study_design.analyse([answered(1, plans[0], fools)], plans, 3.0)
  assert sum(rate['trials'] for rate in found['rates']) == 50
  assert sum(rate['fooled'] for rate in found['rates']) == 0


def test_the_papers_figures_say_which_are_unverified():
  verified = {entry['task']: entry['verified'] for entry in human_study_design.PAPER}
  assert verified == {1: False, 2: True}
  faces = next(
    e for e in human_study_design.PAPER if e['task'] == 2 and 'faces' in e['data']
  )
  assert faces['rates']['SR3'] == 47.4
