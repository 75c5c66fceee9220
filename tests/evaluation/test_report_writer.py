"""Report folders: valid JSON, whatever was measured."""

import json
import math

import numpy as np
import pytest
from etils import epath

from sr3_jax.evaluation import report_writer, summary
from sr3_jax.evaluation.evaluators import Evaluators
from sr3_jax.evaluation.records import Records
from sr3_jax.reports import data as reports_data

COUNT = 7


def scalars(**columns) -> dict[str, np.ndarray]:
  index = {'index': np.array([3, 8, 9, 10, 12])}
  return index | {key: np.float32(value) for key, value in columns.items()}


def test_ranks_know_which_way_is_better():
  values = scalars(psnr=[20, 30, 25, 22, 28], consistency=[5, 1, 2, 9, 3], ssim=[1] * 5)
  assert report_writer.ranked(values) == {
    'psnr': {'best': 8, 'median': 9, 'worst': 3},
    'consistency': {'best': 8, 'median': 12, 'worst': 10},
  }
  one = {'index': np.array([4]), 'lpips_alex': np.float32([0.3])}
  assert report_writer.ranked(one)['lpips_alex'] == dict.fromkeys(
    ('best', 'median', 'worst'), 4
  )
  assert report_writer.ranked({'index': np.zeros(0, int), 'psnr': np.zeros(0)}) == {}


def test_what_lacks_a_metric_has_no_rank():
  values = scalars(psnr=[20, math.nan, 25, math.nan, 28])
  ranks = {'best': 12, 'median': 9, 'worst': 3}
  assert report_writer.ranked(values) == {'psnr': ranks}


@pytest.mark.filterwarnings('ignore::RuntimeWarning')
def test_values_hold_all_images_of_all_methods(tmp_path, records):
  """An image that one method or metric lacks removes nothing of the others."""
  index = np.arange(2, COUNT)
  more = {'index': index, 'psnr': np.float32(index), 'ssim': np.full(len(index), 0.5)}
  kept = Records()
  for part in ('bicubic', 'sr3/0', 'sr3/1'):
    for number, values in enumerate(records.stream(part)):
      kept.add(part, number, values)
  kept.add('short', 0, more)
  kept.add('truth', 0, {'index': np.arange(COUNT), 'photograph': np.arange(COUNT) // 2})
  write(tmp_path, kept, methods=METHODS | {'short': ['short']})
  found = reports_data.values(reports_data.load(tmp_path))
  assert found['photograph'].tolist() == [i // 2 for i in range(COUNT)]
  np.testing.assert_array_equal(found['short/psnr'], [np.nan, np.nan, *index])
  assert np.isfinite(found['bicubic/psnr']).all()


def test_sheets_name_their_pictures():
  values = scalars(psnr=[20, 30, 25.123, 22, 28])
  ranked = report_writer.ranked(values)
  first, best = report_writer.sheets(
    [3, 8], ranked, ['bicubic', 'sr3'], 'sr3', 3, values
  )
  columns = ['input', 'bicubic', 'sr3', 'sr3 2', 'sr3 3', 'spread', 'truth']
  assert (first['title'], first['columns']) == ('Samples', columns)
  assert [row['label'] for row in first['rows']] == ['image 3', 'image 8']
  assert first['rows'][1]['cells'] == [f'pictures/00008_{c}.png' for c in columns]
  assert best['title'] == 'PSNR dB of sr3: best, median, worst'
  assert best['columns'] == ['input', 'bicubic', 'sr3', 'truth']
  labels = ['best: 30.00, image 8', 'median: 25.12, image 9', 'worst: 20.00, image 3']
  assert [row['label'] for row in best['rows']] == labels
  assert [row['index'] for row in best['rows']] == [8, 9, 3]
  (single,) = report_writer.sheets([3], {}, ['a'], 'a', 1, values, inputs=False)
  assert single['columns'] == ['a', 'truth']


def test_the_spread_is_bright_where_samples_differ():
  draw = np.random.default_rng(0)
  base = draw.integers(60, 190, (16, 16, 3), np.uint8)
  named = {'input': base, 'bicubic': 255 - base, 'sr3': base, 'truth': 255 - base}
  same = report_writer.with_spread(named | {'sr3 2': base}, 'sr3')
  assert list(same) == [*named, 'sr3 2', 'spread']
  other = base.copy()
  other[:8] += 40
  found = report_writer.with_spread(named | {'sr3 2': base, 'sr3 3': other}, 'sr3')
  assert found['spread'].shape == (16, 16, 3) and found['spread'].dtype == np.uint8
  brightness = found['spread'].astype(int).sum(-1)
  assert brightness[:8].min() > brightness[8:].max()
  np.testing.assert_array_equal(found['spread'][8:], same['spread'][8:])
  assert len(np.unique(same['spread'].reshape(-1, 3), axis=0)) == 1


def torn(text: str) -> str:
  return text[: len(text) // 2]


def test_curves_skip_what_is_no_number(tmp_path):
  def row(step, **values):
    return json.dumps({'step': step, **values})

  lines = [
    row(10, loss=0.5, eval_psnr=20.25),
    row(20, loss=math.nan),
    row(30, loss=math.inf, eval_psnr=None),
    row(40, eval_psnr=21),
    row(50, loss='0.25'),
    json.dumps({'loss': 0.1}),
    '',
    row(60, loss=0.25),
    torn(row(70, loss=0.125)),
  ]
  (tmp_path / 'metrics.jsonl').write_text('\n'.join(lines))
  (tmp_path / 'regression').mkdir()
  (tmp_path / 'regression' / 'metrics.jsonl').write_text(row(5, loss=2) + '\n')
  assert report_writer.curves(epath.Path(tmp_path)) == {
    'loss': {'sr3': [[10, 0.5], [60, 0.25]], 'regression': [[5, 2]]},
    'held-out PSNR dB': {'sr3': [[10, 20.25], [40, 21]]},
  }
  assert report_writer.curves(epath.Path(tmp_path) / 'nowhere') == {}


def with_truth(hashes, index=None) -> Records:
  kept = Records()
  index = np.arange(len(hashes)) if index is None else np.array(index)
  kept.add('truth', 0, {'index': index, 'hash': np.array(hashes, np.uint64)})
  return kept


def test_the_hash_of_the_list():
  def of(*args):
    return report_writer.list_hash(with_truth(*args))

  first = of([5, 6, 2**63])
  assert len(first) == 16 and first == of([5, 6, 2**63])
  assert first == of([2**63, 5, 6], [2, 0, 1])  # in whatever order they were measured
  others = [of([5, 7, 2**63]), of([6, 5, 2**63]), of([5, 6]), of([5, 6, 2**63, 5])]
  assert len({first, *others}) == 5


@pytest.fixture
def records():
  """Two methods with all that can go wrong in a number."""
  draw = np.random.default_rng(0)
  kept = with_truth(range(COUNT))
  index = np.arange(COUNT)
  for part in ('bicubic', 'sr3/0', 'sr3/1'):
    values = {
      'index': index,
      'psnr': draw.normal(25, 2, COUNT).astype(np.float32),
      'ssim': np.full(COUNT, 0.5, np.float32),
      'consistency': draw.uniform(0, 1, COUNT).astype(np.float32),
      'lpips_vgg': np.full(COUNT, np.nan, np.float32),
      # Flat images: no power in any ring.
      'power': np.zeros((COUNT, 9), np.float32),
      'power_truth': np.zeros((COUNT, 9), np.float32),
    }
    values['consistency'][2] = np.inf
    values['psnr'][:2] = 24.000002, 24
    kept.add(part, 0, values)
  return kept


METHODS = {'bicubic': ['bicubic'], 'sr3': ['sr3/0', 'sr3/1']}


def write(folder, kept, **changes):
  rows = report_writer.table(kept, METHODS, 4, Evaluators({}))
  options = {
    'title': 'a <b> & c',
    'records': kept,
    'methods': METHODS,
    'scale': 8,
    'image_size': 128,
    'rows': rows,
    'sheets': [],
    'left_out': [{'metrics': ['fid'], 'why': 'no weights'}],
    'protocol': {'clip': math.inf, 'steps': 3, 'nested': {'x': math.nan, 'y': 1}},
    'abouts': {'sr3': 'A model.', 'bicubic': 'Mine.'},
    'curves': {},
    'command': 'this --that',
  }
  report_writer.write(epath.Path(folder), **(options | changes))
  return rows


@pytest.mark.filterwarnings('ignore::RuntimeWarning')  # there are nan on purpose
def test_nothing_that_is_no_number_reaches_the_report(tmp_path, records):
  rows = write(tmp_path, records)
  assert math.isnan(rows['sr3']['lpips_vgg']['value'])
  text = (tmp_path / 'report.json').read_text()

  def refuse(name):
    raise AssertionError(name)

  data = json.loads(text, parse_constant=refuse)
  json.dumps(data, allow_nan=False)
  assert reports_data.load(tmp_path).data == data
  for method in METHODS:
    row = data['table'][method]
    assert not {'lpips_vgg', 'consistency', 'detail', 'spectrum_db'} & set(row)
    assert row['ssim']['value'] == row['ssim']['low'] == 0.5
  assert data['protocol'] == {'steps': 3, 'nested': {'y': 1}}
  assert len(data['table']['sr3']['psnr']['seeds']) == 2
  assert 'seeds' not in data['table']['bicubic']['psnr']
  page = (tmp_path / 'report.html').read_text()
  assert 'a &lt;b&gt; &amp; c' in page and 'a <b>' not in page


@pytest.mark.filterwarnings('ignore::RuntimeWarning')
def test_what_a_report_holds(tmp_path, records):
  write(tmp_path, records)
  report = reports_data.load(tmp_path)
  data = report.data
  assert data['images'] == COUNT and data['command'] == 'this --that'
  abouts = [(m['name'], m['about']) for m in data['methods']]
  assert abouts == [('bicubic', 'Mine.'), ('sr3', 'A model.')]
  assert [m['key'] for m in data['metrics']][:2] == ['psnr', 'ssim']
  for metric in data['metrics']:
    assert metric['title'] == summary.METRICS[metric['key']].title
  assert data['paper']['rows']['SR3']['psnr'] == 23.04  # 16 to 128
  assert data['code']['jax'] and data['time'].endswith('Z')
  # Histograms: of what differs, without what is no number.
  histograms = data['distributions']
  assert set(histograms) == {'psnr', 'consistency'}
  counts = histograms['consistency']['counts']
  assert {name: sum(c) for name, c in counts.items()} == dict.fromkeys(METHODS, 6)
  values = reports_data.values(report)
  assert values['index'].tolist() == list(range(COUNT))
  for method, parts in METHODS.items():
    want = np.mean([records.scalars(part)['psnr'] for part in parts], axis=0)
    np.testing.assert_allclose(values[f'{method}/psnr'], want, rtol=1e-6)
  assert not [key for key in values if 'power' in key or 'hash' in key]
  left = sorted(p.name for p in tmp_path.iterdir())
  assert left == ['report.html', 'report.json', 'values.npz']


@pytest.mark.filterwarnings('ignore::RuntimeWarning')
def test_other_tasks_have_other_tables_of_the_paper(tmp_path, records):
  for scale, size, first in ((4, 256, 'Reference'), (4, 64, None), (None, None, None)):
    write(tmp_path, records, scale=scale, image_size=size)
    paper = reports_data.load(tmp_path).data['paper']
    assert (next(iter(paper['rows'])) if paper else None) == first


def test_errors_of_the_classifier_on_the_truth():
  kept = with_truth([1, 2])
  kept.add('truth', 1, {'index': np.array([2]), 'hash': np.uint64([3])})
  values = {'index': np.arange(3), 'psnr': np.float32([1, 2, 3])}
  kept.add('a', 0, values)
  assert list(report_writer.table(kept, {'a': ['a']}, None, Evaluators({}))) == ['a']
  errors = {'top1_error': np.float32([1, 0, 0]), 'top5_error': np.float32([0, 0, 0])}
  classified = Records()
  classified.add(
    'truth', 0, {'index': np.arange(3), 'hash': np.uint64([1, 2, 3])} | errors
  )
  classified.add('a', 0, values | {key: 1 - value for key, value in errors.items()})
  rows = report_writer.table(classified, {'a': ['a']}, None, Evaluators({}))
  assert list(rows) == ['a', 'truth']
  assert rows['truth']['top1_error']['value'] == pytest.approx(1 / 3)
  assert rows['a']['top5_error']['value'] == 1


def test_json_has_no_infinities():
  value = {
    'table': {'a': {'psnr': {'value': np.inf, 'low': 1.0}, 'ssim': {'value': 0.5}}},
    'numbers': (1, 2.0, np.nan),
    'text': None,
  }
  assert report_writer.without_infinities(value) == {
    'table': {'a': {'ssim': {'value': 0.5}}},
    'numbers': [1, 2.0],
    'text': None,
  }
