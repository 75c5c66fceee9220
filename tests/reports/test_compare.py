"""Differences between reports against SciPy, closed forms and known effects."""

import json

import numpy as np
import pytest
import scipy.stats

from sr3_jax.reports import command as reports_command
from sr3_jax.reports import compare, compare_page
from sr3_jax.reports import data as reports_data
from tests.support import report_folders
from tests.support.report_folders import METHODS


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
  place = tmp_path_factory.mktemp('reports')
  report_folders.make(place / 'a', count=9)
  report_folders.make(place / 'b', count=9, grain=25.0, seed=1)
  return place


def change(folder, place, **keys):
  """A copy of a report with other keys of the protocol or, with '_', of the report."""
  place.mkdir()
  report = json.loads((folder / 'report.json').read_text())
  for key, value in keys.items():
    if key.startswith('_'):
      report[key[1:]] = value
    else:
      report['protocol'][key.replace('_', ' ')] = value
  (place / 'report.json').write_text(json.dumps(report))
  (place / 'values.npz').write_bytes((folder / 'values.npz').read_bytes())
  return place


def test_paired_intervals_are_those_of_scipy():
  rng = np.random.default_rng(0)
  first = rng.normal(25, 4, 60)
  other = first + rng.gamma(1.0, 0.3, 60)  # skewed, and small beside what they share
  found = compare.paired_differences({'psnr': compare.change(first, other)})['psnr']
  theirs = scipy.stats.bootstrap(
    (other - first,), np.mean, method='percentile', n_resamples=20000, rng=rng
  ).confidence_interval
  assert found.value == pytest.approx(np.mean(other - first))
  width = theirs.high - theirs.low
  np.testing.assert_allclose(found.interval, theirs, atol=0.06 * width)
  assert found.differs and found.images == 60
  # As if they were other images, nothing could be said.
  entries = [
    {'value': v.mean(), 'low': v.mean() - 1, 'high': v.mean() + 1}
    for v in (first, other)
  ]
  assert not compare.unpaired_difference(*entries).differs


def test_pairs_that_are_not_finite_do_not_count():
  changes = {
    'some': compare.change([1, np.inf, 3, np.nan], [2, np.inf, 4, 1]),
    'all': compare.change([1, 2, 3, 4], [1, 2, 3, 5]),
    'one': compare.change([1, np.nan, np.nan, np.nan], [2, 3, 4, 5]),
  }
  found = compare.paired_differences(changes)
  assert found['some'].value == 1 and found['some'].images == 2
  assert found['all'].value == 0.25 and found['all'].images == 4
  assert 'one' not in found


def test_pairs_of_a_photograph_are_resampled_together():
  rng = np.random.default_rng(0)
  photographs = np.repeat(np.arange(6), 8)
  column = rng.normal(0.1, 1, 6)[photographs] + rng.normal(0, 0.1, 48)
  alone, crops, two = (
    compare.paired_differences({'psnr': column}, of)['psnr']
    for of in (None, photographs, photographs % 2)
  )
  draws = np.random.default_rng(0).integers(0, 6, (compare.RESAMPLES, 6))
  means = column.reshape(6, 8).mean(1)[draws].mean(1)
  wide = scipy.stats.t.ppf(0.975, 5) / scipy.stats.norm.ppf(0.975) * (6 / 5) ** 0.5
  edges = np.quantile(means, (0.025, 0.975)) - column.mean()
  np.testing.assert_allclose(crops.interval, column.mean() + wide * edges)
  assert alone.differs and not crops.differs  # the effect is that of six photographs
  assert (crops.images, crops.photographs) == (48, 6)
  assert two.interval is None and not two.same and two.value == alone.value


def test_crops_of_two_photographs_are_told(folders, tmp_path, capsys):
  for name in 'ab':
    place = change(folders / name, tmp_path / name, _photographs=2, _sheets=[])
    with np.load(place / 'values.npz') as found:
      arrays = dict(found) | {'photograph': np.arange(9) % 2}
    arrays['sr3/ssim'][3] = np.nan  # what one image lacks
    np.savez(place / 'values.npz', **arrays)
  a, b = (reports_data.load(tmp_path / name, name) for name in 'ab')
  metrics = compare.differences(a, b)[-1].metrics
  assert metrics['psnr'].interval is None and metrics['psnr'].images == 9
  assert metrics['ssim'].images == 8
  assert reports_command.main([str(tmp_path / name) for name in 'ab']) == 0
  out = capsys.readouterr().out
  assert 'b: sr3 - a: sr3 (in pairs of 9 crops of 2 photographs)' in out
  assert 'Note: a: 9 crops of 2 photographs, without intervals, which need 3' in out
  (line,) = (li for li in out.splitlines() if '8 crops of 2' in li)
  assert line.strip().startswith('SSIM')
  page = (tmp_path / 'a' / 'compare.html').read_text()
  assert '9 crops of 2 photographs' in page and '8 crops of 2 photographs' in page


def test_who_knows_the_photographs_is_believed(folders, tmp_path):
  """A report of before does not say them."""
  place = change(folders / 'b', tmp_path / 'new')
  with np.load(place / 'values.npz') as found:
    np.savez(place / 'values.npz', **found, photograph=np.arange(9) // 3)
  a, b = reports_data.load(folders / 'a', 'a'), reports_data.load(place, 'b')
  for pair in (compare.differences(a, b)[-1], compare.differences(b, a)[-1]):
    assert pair.metrics['psnr'].photographs == 3


def test_methods_in_large_and_small_letters_stay_apart(folders, tmp_path):
  report = json.loads((folders / 'a' / 'report.json').read_text())
  table = {'SR3': report['table']['sr3'], 'sr3': report['table']['sr3']}
  methods = [{'name': 'SR3'}, {'name': 'sr3'}]
  place = change(folders / 'a', tmp_path / 'x', _table=table, _methods=methods)
  a, b = reports_data.load(folders / 'a', 'a'), reports_data.load(place, 'A')
  assert [p.title for p in compare.differences(a, b)] == ['A: sr3 − a: sr3']
  rows = compare_page.merged([a, b, reports_data.Report(b.folder, b.data, 'A')])
  assert len(rows) == len(METHODS) + 4


def test_unpaired_intervals_are_exact_for_normal_means():
  # Variances of independent means add.
  def entry(mean, error):
    return {
      'value': mean,
      'low': mean - 1.96 * error,
      'high': mean + 1.96 * error,
    }

  found = compare.unpaired_difference(entry(10, 0.3), entry(11, 0.4))
  np.testing.assert_allclose(found.interval, [1 - 1.96 * 0.5, 1 + 1.96 * 0.5])
  assert found.value == 1 and found.images == 0 and found.differs


def test_beside_an_exact_value_the_interval_is_that_of_the_other():
  exact = {'value': 10.0, 'low': 10.0, 'high': 10.0}
  skewed = {'value': 11.0, 'low': 10.5, 'high': 14.0}
  assert compare.unpaired_difference(exact, skewed).interval == (0.5, 4.0)
  assert compare.unpaired_difference(skewed, exact).interval == (-4.0, -0.5)


def test_unpaired_intervals_keep_their_skew_and_cover():
  # Means of exponential values: their intervals are not symmetric.
  rng = np.random.default_rng(1)
  covered, count = 0, 400
  for _ in range(count):
    entries = []
    for scale in (1.0, 2.0):
      total = rng.gamma(30, scale)  # of 30 values; exact intervals are those of gamma
      low, high = total / scipy.stats.gamma.ppf([0.975, 0.025], 30)
      entries.append({'value': total / 30, 'low': low, 'high': high})
    low, high = compare.unpaired_difference(*entries).interval
    covered += low <= 1.0 <= high
  assert 0.92 <= covered / count <= 0.98


def test_entries_without_intervals_have_only_a_value():
  found = compare.unpaired_difference({'value': 3.0}, {'value': 5.0, 'low': 4})
  assert found == compare.Difference(2.0, None) and not found.differs
  assert compare.unpaired_difference({'value': np.inf}, {'value': 1.0}) is None
  assert compare.Difference(0.0, None).same


def test_reports_of_the_same_images_are_compared_in_pairs(folders):
  a, b = (reports_data.load(folders / name, name) for name in 'ab')
  assert compare.why_unpaired(a, b) == ''
  pairs = compare.differences(a, b)
  assert [p.title for p in pairs][-1] == 'b: sr3 − a: sr3'
  same = pairs[0].metrics['psnr']
  assert same.same and same.images == 9 and not same.differs
  # Grain of 25 levels is what makes the second one worse.
  worse = pairs[-1].metrics
  assert worse['psnr'].better == -1 and worse['psnr'].value < -1
  assert worse['lpips_alex'].better == -1 and worse['lpips_alex'].value > 0
  assert worse['contrast'].better == 0  # "1 is right" has no direction


def test_rows_are_matched_by_the_number_of_the_image(folders, tmp_path):
  place = change(folders / 'a', tmp_path / 'turned')
  with np.load(place / 'values.npz') as found:
    turned = {key: array[::-1][:6] for key, array in found.items()}
  np.savez(place / 'values.npz', **turned)
  a, b = reports_data.load(folders / 'a', 'a'), reports_data.load(place, 'b')
  found = compare.differences(a, b)[-1].metrics['psnr']
  assert found.same and found.images == 6


@pytest.mark.parametrize(
  'keys, reason',
  [({'image_list': 'f00'}, 'image list'), ({'truth': 'other'}, 'truth')],
)
def test_other_images_are_not_paired(folders, tmp_path, keys, reason):
  place = change(folders / 'a', tmp_path / 'other', **keys)
  a, b = reports_data.load(folders / 'a', 'a'), reports_data.load(place, 'b')
  assert reason in compare.why_unpaired(a, b)
  found = compare.differences(a, b)[-1].metrics['psnr']
  assert found.images == 0 and found.interval[0] < 0 < found.interval[1]
  assert not found.same


def test_reports_without_values_are_not_paired(folders, tmp_path):
  place = change(folders / 'a', tmp_path / 'other')
  (place / 'values.npz').unlink()
  a, b = reports_data.load(folders / 'a', 'a'), reports_data.load(place, 'b')
  assert compare.why_unpaired(a, b) == 'b has no values.npz'
  assert compare.differences(a, b)[-1].metrics['psnr'].images == 0


def test_the_methods_that_reports_are_about_go_together(folders, tmp_path):
  report = json.loads((folders / 'a' / 'report.json').read_text())
  table = {'esrgan': report['table']['sr3'], 'truth': {'fid': {'value': 0.0}}}
  methods = [{'name': 'esrgan'}, {'name': 'truth'}]
  place = change(folders / 'a', tmp_path / 'x', _table=table, _methods=methods)
  a, b = reports_data.load(folders / 'a', 'a'), reports_data.load(place, 'b')
  (pair,) = compare.differences(a, b)
  assert pair.title == 'b: esrgan − a: sr3'
  assert pair.metrics['psnr'].images == 0  # its values are of another name


def test_what_differs_in_protocols_is_listed_by_its_path(folders, tmp_path):
  sampler = {'name': 'ddim', 'steps': 256, 'variance': 'beta', 'clip': True}
  place = change(folders / 'a', tmp_path / 'c', sampler=sampler, extra=None, _images=8)
  reports = [reports_data.load(p) for p in (folders / 'a', place)]
  assert compare.protocol_differences(reports) == [
    ('sampler / name', ['ddpm', 'ddim']),
    ('number of images', ['9', '8']),
    ('extra', ['not stated', 'none']),
  ]
  assert compare.protocol_differences(reports[:1] * 3) == []


def test_metrics_of_all_reports_keep_their_order(folders, tmp_path):
  metrics = json.loads((folders / 'a' / 'report.json').read_text())['metrics']
  fid = {'key': 'fid', 'title': 'FID', 'digits': 2, 'better': 'lower'}
  place = change(folders / 'a', tmp_path / 'c', _metrics=[*metrics[3:], fid])
  reports = [reports_data.load(p) for p in (folders / 'a', place)]
  keys = [metric['key'] for metric in compare.metrics_of(reports)]
  assert keys == [*(m['key'] for m in metrics), 'fid']
