"""Reading and checking of report folders, and numbers as text."""

import copy
import json
import math

import numpy as np
import pytest

from sr3_jax.reports import data as reports_data
from sr3_jax.reports.data import ReportError, best, number, plain
from tests.support import report_folders


@pytest.fixture(scope='module')
def report(tmp_path_factory):
  place = tmp_path_factory.mktemp('run') / 'report'
  return place, report_folders.make(place, count=3)


def test_a_report_is_found_by_folder_workdir_and_file(report):
  folder, data = report
  for place in (folder, folder.parent, folder / 'report.json', str(folder)):
    found = reports_data.load(place, 'x')
    assert found.data == json.loads(json.dumps(data))
    assert str(found.folder) == str(folder) and found.name == 'x'
  assert found.methods() == ['bicubic', 'lanczos', 'regression', 'sr3']
  assert found.metrics()['ssim']['digits'] == 3


def broken(path, value):
  """A change of a report: keys and positions, then the new value."""

  def change(data):
    data = copy.deepcopy(data)
    place = data
    for key in path[:-1]:
      place = place[key]
    if value is KeyError:
      del place[path[-1]]
    else:
      place[path[-1]] = value
    return data

  return change


@pytest.mark.parametrize(
  'path, value, reason',
  [
    (['format'], KeyError, 'no format number'),
    (['format'], 2, 'format 2, but this version'),
    (['format'], 'x\ny', 'format'),
    (['title'], KeyError, 'title is not a value'),
    (['title'], 3, 'title is not a text'),
    (['images'], True, 'images is not a whole number'),
    (['metrics', 1, 'digits'], '2', r'metrics\[1\].digits is not a whole number'),
    (['metrics', 1, 'digits'], 99, 'digits of ssim'),
    (['metrics', 1, 'key'], 'psnr', 'metrics: a name is there twice'),
    (['methods', 0], 'bicubic', r'methods\[0\] is not an object'),
    (['table', 'sr3', 'psnr'], 24.5, 'table.sr3.psnr is not an object'),
    (['table', 'sr3', 'psnr', 'value'], None, 'table.sr3.psnr.value is not a number'),
    (['table', 'sr3', 'psnr', 'value'], -(10**400), 'is not a number'),
    (['table', 'sr3', 'psnr', 'seeds'], [1, 'a'], r'seeds\[1\] is not a number'),
    (['distributions', 'psnr', 'edges'], [2, 1], 'edges do not rise'),
    (['distributions', 'psnr', 'edges'], [1, math.inf], 'edges do not rise'),
    (['distributions', 'psnr', 'edges'], [1, 2], 'counts and edges do not fit'),
    (['curves', 'loss', 'sr3'], [[1]], r'not \[step, value\]'),
    (['sheets', 0, 'rows', 0, 'cells'], [], 'cells and columns do not fit'),
    (['sheets', 0, 'rows', 0, 'cells', 0], 5, r'cells\[0\] is not'),
    (['left_out'], {}, 'left_out is not a list'),
    (['protocol'], [], 'protocol is not an object'),
  ],
)
def test_what_is_wrong_is_named_in_a_line(report, path, value, reason):
  with pytest.raises(ReportError, match=reason) as error:
    reports_data.checked(broken(path, value)(report[1]))
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('data', [None, [], 3, 'report', {}])
def test_other_json_is_no_report(data):
  with pytest.raises(ReportError, match='not a report'):
    reports_data.checked(data)


def test_what_cannot_be_read_is_named(tmp_path):
  cases = {
    'missing': 'no such file or folder',
    'missing.json': 'no report.json|no such file',
    'empty': 'no report.json in it',
    'text.json': 'no JSON',
    'cut.json': 'no JSON',
    'deep.json': 'nested too deeply',
    'binary.json': 'UTF-8',
    'other.json': 'not a report',
  }
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'text.json').write_text('hello')
  (tmp_path / 'cut.json').write_text('{"format": 1, "title": "a')
  (tmp_path / 'deep.json').write_text('[' * 100000)
  (tmp_path / 'binary.json').write_bytes(b'\xff\xfe\x00')
  (tmp_path / 'other.json').write_text('{"a": 1}')
  for name, reason in cases.items():
    with pytest.raises(ReportError, match=reason) as error:
      reports_data.load(tmp_path / name)
    assert name in str(error.value) and '\n' not in str(error.value)


def test_optional_parts_may_be_missing_or_null(report):
  needed = ('format', 'title', 'protocol', 'metrics', 'methods', 'table', 'images')
  reports_data.checked({key: report[1][key] for key in needed})
  reports_data.checked({k: v if k in needed else None for k, v in report[1].items()})


def test_values_are_read_without_pickle_and_have_to_fit(tmp_path):
  folder = reports_data.Report(reports_data.epath.Path(tmp_path), {}, 'x')
  assert reports_data.values(folder) == {}
  file = tmp_path / 'values.npz'
  bad = {
    'index': {'a/psnr': np.zeros(3)},
    'twice': {'index': np.zeros(3, int)},
    'a/psnr': {'index': np.arange(3), 'a/psnr': np.zeros(2)},
    'Python objects': {'index': np.arange(1), 'a/psnr': np.array([{}], object)},
  }
  for reason, arrays in bad.items():
    np.savez(file, **arrays)
    with pytest.raises(ReportError, match=reason):
      reports_data.values(folder)
  file.write_bytes(file.read_bytes()[:50])
  with pytest.raises(ReportError, match=r'values\.npz'):
    reports_data.values(folder)
  np.savez(file, index=np.arange(3), **{'a/psnr': np.ones(3)})
  assert reports_data.values(folder)['a/psnr'].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
  'value, digits, sign, text',
  [
    (24.505, 1, False, '24.5'),
    (-0.31, 2, True, '−0.31'),
    (0.31, 2, True, '+0.31'),
    (-0.001, 2, True, '0.00'),
    (0.001, 2, True, '0.00'),
    (3, 0, False, '3'),
    (None, 2, False, '–'),
    (math.nan, 2, False, '–'),
    (math.inf, 2, False, '∞'),
    (-math.inf, 2, True, '−∞'),
  ],
)
def test_numbers_as_text(value, digits, sign, text):
  assert number(value, digits, sign=sign) == text


def test_the_best_is_that_of_the_metric_s_direction():
  entries = {k: {'value': v} for k, v in {'a': 0.9, 'b': 1.2, 'c': 2.0}.items()}

  def choose(better, **more):
    return best(
      entries | {k: {'value': v} for k, v in more.items()},
      {'better': better, 'digits': 2},
    )

  assert choose('higher') == {'c'}
  assert choose('lower') == {'a'}
  assert choose('1 is right', d=0.2) == {'a'}
  assert choose('') == set()
  assert choose('higher', d=2.001) == {'c', 'd'}  # what is shown is the same
  assert choose('higher', d=math.nan) == {'c'}
  assert best({'a': {'value': 1.0}}, {'better': 'higher', 'digits': 2}) == set()


def test_protocols_as_text():
  nested = {'a': {'b': {'c': 1.5}, 'd': None}, 'e': [0, 255], 'f': True, 'g': {}}
  assert list(reports_data.flat(nested)) == [
    ('a / b / c', '1.5'),
    ('a / d', 'none'),
    ('e', '0, 255'),
    ('f', 'yes'),
  ]
  assert plain(1e-6) == '1e-06' and plain('text') == 'text' and plain(False) == 'no'
