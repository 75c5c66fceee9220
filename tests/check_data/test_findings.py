"""Tests that each finding is there when it should be, alone, and worst first."""

import numpy as np

from sr3_jax.check_data import findings as check_data_findings
from tests.support.scans import checked, matches

CLEAN = [(100, 120)] * 60


def _find(training, evaluation=None, leaks=(), num_classes=0):
  evaluation = evaluation or checked(CLEAN, name='evaluation')
  leaks = matches(len(evaluation.scan), leaks)
  return check_data_findings.list_findings(training, evaluation, leaks, num_classes)


def _titles(*args, **kwargs):
  return [f'{f.level}: {f.title}' for f in _find(*args, **kwargs)]


NO_LEAK = 'note: No evaluation image is a near copy of a training image'


def test_clean_sets_have_no_findings():
  assert _titles(checked(CLEAN)) == [NO_LEAK]


def test_leaks_come_first_and_the_worst_before_the_rest():
  training = checked(
    CLEAN, broken={3: 'torn'}, copies=matches(60, [(5, 1)]), traits={'16 bits': [4]}
  )
  found = _titles(training, leaks=[(7, 0), (9, 2)], num_classes=4)
  assert found == [
    'serious: 2 of 60 (3.3 %) evaluation images are in the training set, too',
    'serious: model.num_classes=4, and the data has no classes',
    'look: 1 of 60 (1.7 %) images of the training set are broken',
    'look: 1 of 60 (1.7 %) images of the training set are near copies of others in it',
    'note: Some images of the training set are converted when they are read',
  ]


def test_an_evaluation_on_the_training_images():
  (found,) = check_data_findings.list_findings(checked(CLEAN), None, None, 0)
  assert found.level == 'serious' and 'training images' in found.title


def test_sizes():
  sizes = [(31, 500), (32, 40), (40, 40), *CLEAN]
  training = checked(sizes, square=True)
  assert training.too_small.tolist() == [0]
  assert training.usable.tolist() == [2]
  found = _titles(training)
  assert any('1 of 63 (1.6 %)' in title and 'too small' in title for title in found)
  assert any('62 of 63 (98.4 %)' in title and 'square' in title for title in found)
  assert checked(sizes).usable.tolist() == list(range(1, 63))


def test_soft_images_and_what_to_do():
  details = {1: 0.05, 2: 0.12, 3: 0.4}
  finding = _find(checked(CLEAN, details=details))[0]
  assert finding.level == 'look' and 'soft' in finding.title
  assert 'Downsampled 3 times' in finding.text and "data.reduce='(3,)'" in finding.text
  # Training downsamples them that far already, or a little less.
  assert _titles(checked(CLEAN, details=details, downsampled=5)) == [NO_LEAK]
  assert 'soft' in _titles(checked(CLEAN, details=details, downsampled=2))[0]
  hopeless = _find(checked(CLEAN, details={1: 0.05}))[0]
  assert 'They stay so' in hopeless.text
  assert _titles(checked(CLEAN, details={})) == [NO_LEAK]


def test_jpeg_quality():
  quality = np.full(60, 90, np.uint8)
  quality[:3] = 74
  assert 'note: 3 of 60 (5.0 %) images' in _titles(checked(CLEAN, quality=quality))[1]
  quality[:] = 50
  assert 'look: 60 of 60 (100 %)' in _titles(checked(CLEAN, quality=quality))[0]
  quality[:] = 0  # no JPEG
  assert _titles(checked(CLEAN, quality=quality)) == [NO_LEAK]


def test_small_evaluation_sets():
  found = _titles(checked(CLEAN), checked(CLEAN[:20], name='evaluation'))
  assert found[-1] == 'note: The evaluation set has 20 usable images'


def test_text_for_a_terminal():
  text = check_data_findings.as_text(_find(checked(CLEAN, broken={0: 'torn'})))
  first, todo, *_, last = text.splitlines()
  assert first.startswith('look:    1 of 60') and todo.startswith(' ' * 9)
  assert '0.jpg (torn)' in todo and last == NO_LEAK.replace('note: ', 'note:    ')
