"""The pages of reports and the command that makes them."""

import base64
import hashlib
import json
import re
import subprocess
import sys
import typing

import pytest

from sr3_jax.reports import command as reports_command
from sr3_jax.reports import compare, compare_page, compare_text
from sr3_jax.reports import data as reports_data
from sr3_jax.reports import page as reports_page
from sr3_jax.reports import views as reports_views
from tests.support import programs, report_folders
from tests.support.html_pages import Page, check_structure


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
  place = tmp_path_factory.mktemp('runs')
  report_folders.make(place / 'a', count=9)
  report_folders.make(
    place / 'b' / 'report', count=9, grain=25.0, seed=1, title='Run b'
  )
  return place


@pytest.fixture(scope='module')
def data(folders):
  return json.loads((folders / 'a' / 'report.json').read_text())


def test_a_page_is_whole_and_says_what_the_report_says(folders, data):
  text = reports_page.render(data, folders / 'a')
  page = Page(text)
  check_structure(page)
  said = page.all_text()
  titles = [t for tag, t in page.texts if tag == 'h2']
  assert titles == [
    'Results',
    "Beside the paper's figures",
    'Samples',
    'PSNR against perceptual distance',
    'Distributions over images',
    'Best, median and worst',
    'Training',
    'Metrics left out',
    'Protocol',
    'Code',
    'How to reproduce',
  ]
  entry = data['table']['sr3']['psnr']
  assert f'{entry["value"]:.2f}' in said
  assert f'{entry["low"]:.2f} to {entry["high"]:.2f}' in said
  assert f'3 seeds: {min(entry["seeds"]):.2f} to {max(entry["seeds"]):.2f}' in said
  assert report_folders.PAPER['note'] in said and '161.10' in said
  assert data['left_out'][0]['why'] in said and 'fid, kid, is' in said
  assert 'ddpm' in said and '4c1f0e77a93b' in said and '0.12.8' in said
  assert '9 images, 4 methods (bicubic, lanczos, regression, sr3), 6 metrics.' in said
  assert len(page.of('img')) == 4 * 9 + 2 * 3 * 4
  assert page.of('img')[4]['alt'] == 'sr3, image 0'
  assert 'http:' not in text.replace('http://www.w3.org', '') and 'https:' not in text


def test_the_best_is_marked_by_more_than_colour(folders, data):
  text = reports_page.render(data, folders / 'a')
  rows = re.findall(r'<tr><th scope="row">(\w+)</th>(.*?)</tr>', text, re.S)[:4]
  marked = {
    name: [
      i for i, cell in enumerate(re.findall('<td.*?</td>', row, re.S)) if 'best' in cell
    ]
    for name, row in rows
  }
  keys = [m['key'] for m in data['metrics']]
  expected = {name: [] for name in data['table']}
  for i, metric in enumerate(data['metrics']):
    entries = {name: row[keys[i]] for name, row in data['table'].items()}
    for name in reports_data.best(entries, metric):
      expected[name].append(i)
  assert marked == expected and sum(map(len, marked.values())) >= 6


def hostile(value):
  """A report whose every free text would be markup if it weren't escaped."""
  if isinstance(value, str):
    return value + BAD
  if isinstance(value, list):
    return [hostile(v) for v in value]
  if isinstance(value, dict):
    return {
      k if k in FIXED else k + BAD: v if k == 'cells' else hostile(v)
      for k, v in value.items()
    }
  return value


BAD = '</script></style></svg><img src=x onerror=alert(1)>"\'&{{ 7*7 }}'
# Keys that the format names.
KINDS = [kind for kind in vars(reports_data).values() if typing.is_typeddict(kind)]
FIXED = {key for kind in KINDS for key in kind.__annotations__}


def test_all_texts_are_escaped(folders, data):
  changed = hostile(data)
  assert f'sr3{BAD}' in changed['table'] and 'title' in changed
  text = reports_page.render(changed, folders / 'a')
  page = Page(text)
  check_structure(page)
  assert not any('onerror' in a for _, a in page.tags)
  assert len(page.of('script')) == len(page.of('style')) == 1
  assert len(page.of('img')) == len(
    Page(reports_page.render(data, folders / 'a')).of('img')
  )
  said = page.all_text()
  for free in (
    data['title'],
    'sr3',
    'PSNR dB',
    'ddpm',
    'sampler',
    'jax',
    'SR3',
    'loss',
  ):
    assert free + BAD in said, free
  assert page.of('img')[4]['alt'] == f'sr3{BAD}, image 0{BAD}'


def test_a_report_of_the_least_is_a_page_too(tmp_path):
  least = {
    'format': 1,
    'title': 'x',
    'protocol': {},
    'metrics': [],
    'methods': [],
    'table': {},
    'images': 0,
  }
  page = Page(reports_page.render(least, tmp_path))
  assert next(t for tag, t in page.texts if tag == 'h2') == 'Results'
  odd = least | {
    'metrics': [{'key': 'psnr', 'title': 'PSNR dB', 'digits': 2, 'better': 'higher'}],
    'methods': [{'name': 'a'}, {'name': 'b'}, {'name': 'c'}],
    'table': {'a': {'psnr': {'value': float('inf')}}, 'b': {}},
    'perceptual': 'lpips_alex',
    'distributions': {
      'psnr': {'edges': [0, 1], 'counts': {}},
      'other': {'edges': [0, 1], 'counts': {'a': [0]}},
    },
    'curves': {
      'loss': {'a': []},
      'one': {'a': [[1, 2]]},
      'nan': {'a': [[1, float('nan')]]},
    },
    'sheets': [
      {'title': 'S', 'columns': ['a'], 'rows': [{'label': '', 'cells': [None]}]}
    ],
  }
  page = Page(reports_page.render(odd, tmp_path))
  check_structure(page)
  assert '∞' in page.all_text() and not page.of('img')
  assert 'PSNR against perceptual distance' not in page.all_text()


def test_large_parts_of_a_protocol_are_folded(folders, data):
  changed = data | {
    'protocol': {'few': {'a': 1}, 'many': {f'k{i}': i for i in range(30)}}
  }
  text = reports_page.render(changed, folders / 'a')
  assert '30 entries' in text and '1 entries' not in text


def test_cells_outside_of_the_folder_stop_the_page(folders, data):
  sheet = {
    'title': 'S',
    'columns': ['a'],
    'rows': [{'label': '', 'cells': ['../x.png']}],
  }
  with pytest.raises(reports_data.ReportError, match='inside of the report folder'):
    reports_page.render(data | {'sheets': [sheet]}, folders / 'a')


def test_only_our_script_may_run(folders, data):
  text = reports_page.render(data, folders / 'a')
  (script,) = re.findall('<script>(.*?)</script>', text, re.S)
  digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
  (policy,) = re.findall('Content-Security-Policy" content="([^"]*)"', text)
  assert policy.startswith("default-src 'none'; img-src data:;")
  assert f"script-src 'sha256-{digest}'" in policy


def luminance(colour: str) -> float:
  """Relative luminance of WCAG 2."""
  parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
  linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
  return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(a: str, b: str) -> float:
  dark, light = sorted(map(luminance, (a, b)))
  return (light + 0.05) / (dark + 0.05)


def test_contrast_is_that_of_wcag_aa_in_light_and_dark():
  css = reports_views.source('style.css')
  schemes = [
    dict(re.findall(r'--(\w+): (#\w+)', s))
    for s in re.findall(r':root {(.*?)}', css, re.S)
  ]
  assert len(schemes) == 2
  for scheme in schemes:
    for paper in (scheme['paper'], scheme['raised']):
      for text in ('ink', 'muted', 'accent'):
        assert contrast(scheme[text], paper) >= 4.5, text
    for i in range(6):
      assert contrast(scheme[f'c{i}'], scheme['paper']) >= 3, i


# ------------------------------------------------------------------- comparison


def compared(folders, *names):
  reports = [reports_data.load(folders / n, n) for n in names]
  pairs = [p for r in reports[1:] for p in compare.differences(reports[0], r)]
  return reports, pairs


def test_a_comparison_is_whole(folders):
  text = compare_page.render(*compared(folders, 'a', 'b'))
  page = Page(text)
  check_structure(page)
  said = page.all_text()
  assert 'a: sr3' in said and 'b: sr3 − a: sr3' in said and 'worse' in said
  assert 'Protocols and versions of code are the same in all.' in said
  titles = [t for tag, t in page.texts if tag == 'figcaption']
  # Same pictures once, others side by side; the truth last.
  row = ['input', 'bicubic', 'lanczos', 'regression', 'a: sr3', 'b: sr3', 'truth']
  assert titles[-7:] == row and 'a: bicubic' not in titles


def test_reports_of_other_images_are_not_compared_in_pairs(folders, tmp_path):
  report_folders.make(tmp_path / 'c', count=5)
  file = tmp_path / 'c' / 'report.json'
  changed = json.loads(file.read_text())
  changed['protocol']['image list'] = 'f00'
  file.write_text(json.dumps(changed))
  reports = [reports_data.load(p, p.name) for p in (folders / 'a', tmp_path / 'c')]
  pairs = compare.differences(*reports)
  page = Page(compare_page.render(reports, pairs))
  said = page.all_text()
  assert 'name another image list' in said and 'f00' in said
  assert not page.of('img') and 'best' not in said.split('No value is called best')[1]
  # The same images without values of each: pictures yes, pairs no.
  report_folders.make(tmp_path / 'd', count=9)
  (tmp_path / 'd' / 'values.npz').unlink()
  reports = [reports_data.load(p, p.name) for p in (folders / 'a', tmp_path / 'd')]
  page = Page(compare_page.render(reports, compare.differences(*reports)))
  assert 'd has no values.npz' in page.all_text() and page.of('img')


def test_the_truth_is_never_the_best_method(tmp_path):
  metric = {'key': 'e', 'title': 'Error', 'digits': 2, 'better': 'lower'}
  table = {
    n: {'e': {'value': v}} for n, v in {'a': 0.5, 'b': 0.4, 'truth': 0.1}.items()
  }
  view = reports_views.results([metric], [('', table, list(table))], '')
  marks = [row['entries'][0]['mark'] for row in view['groups'][0]['rows']]
  assert marks == ['', 'best', '']


# ------------------------------------------------------------------ the command


def run(*argv):
  return reports_command.main([str(a) for a in argv])


def test_one_report_gets_its_page_again(folders, capsys, tmp_path):
  assert run(folders / 'b') == 0
  page = folders / 'b' / 'report' / 'report.html'
  assert capsys.readouterr().out == f'page: {page}\n'
  Page(page.read_text())
  assert run(folders / 'b' / 'report' / 'report.json', '--out', tmp_path / 'new') == 0
  assert (tmp_path / 'new' / 'report.html').read_text() == page.read_text()


def test_several_are_compared_in_a_table(folders, capsys, monkeypatch, tmp_path):
  monkeypatch.setenv('COLUMNS', '70')
  assert (
    run(folders / 'a', folders / 'b', '--out', tmp_path, '--names', 'old', 'new') == 0
  )
  out = capsys.readouterr().out
  lines = out.splitlines()
  assert max(map(len, lines[:-5])) <= 90 and 'old: sr3' in out
  value = json.loads((folders / 'a' / 'report.json').read_text())['table']['sr3'][
    'psnr'
  ]
  assert re.search(rf'old: sr3 +{value["value"]:.2f} ', out)
  assert 'new: bicubic - old: bicubic (in pairs of 9 images): = in all 6 metrics' in out
  assert re.search(
    r'LPIPS \(AlexNet\) +\+0\.\d+ \(\+0\.\d+ to \+0\.\d+\)  \*  worse', out
  )
  assert lines[-1] == f'page: {tmp_path / "compare.html"}'
  Page((tmp_path / 'compare.html').read_text())


def test_names_are_what_tells_folders_apart():
  def names(*places):
    return reports_command.names_of(places)

  assert names('/x/a', '/x/b/report') == ['a', 'b']
  assert names('/x/a/report', '/y/a/report/report.json') == ['x/a', 'y/a']
  assert names('/x/a', '/x/a/report') == ['a', 'a (2)']  # a report twice
  assert names('/x/a', '/y/a', '/x/a', '/x/a') == ['x/a', 'y/a', 'x/a (2)', 'x/a (3)']
  assert names('/a', '/a/report', '/x/a (2)') == ['a', 'a (3)', 'a (2)']
  assert names('/x/a', '/y/x/a') == ['/x/a', 'y/x/a']
  # Large and small letters tell names apart where nothing else does.
  assert names('/x/A', '/y/a') == ['x/A', 'y/a']
  assert names('/x/A', '/x/a') == ['A', 'a']


def test_what_strangers_write_does_not_steer_the_terminal():
  assert compare_text.printable('a\x1b[2J\nb − ∞') == r'a\x1b[2J\x0ab - inf'


@pytest.mark.parametrize(
  'argv, reason',
  [
    (['missing'], 'no such file or folder'),
    (['.'], 'no report.json in it'),
    (['damaged.json'], 'no JSON: '),
    (['future.json'], 'format 2'),
    (['hostile.json'], r'table.a\x1b[2J b.psnr is not an object'),
    (['{a}', '{b}', '--names', 'x'], '2 different names'),
    (['{a}', '{b}', '--names', 'x', 'x'], '2 different names'),
    ([], 'required'),
    (['{a}', '--colour'], 'unrecognized'),
  ],
)
def test_mistakes_end_in_one_line(folders, tmp_path, monkeypatch, capsys, argv, reason):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'damaged.json').write_text('{')
  (tmp_path / 'future.json').write_text('{"format": 2}')
  hostile_ = json.loads((folders / 'a' / 'report.json').read_text())
  hostile_['table'] = {'a\x1b[2J\nb': {'psnr': 1}}
  (tmp_path / 'hostile.json').write_text(json.dumps(hostile_))
  argv = [a.format(a=folders / 'a', b=folders / 'b') for a in argv]
  with pytest.raises(SystemExit) as exit_:
    run(*argv)
  assert exit_.value.code == 2
  error = capsys.readouterr().err
  assert reason in error and error.startswith('error: ') and error.count('\n') == 1


def test_the_command_needs_no_jax(folders):
  code = (
    'import sys; from sr3_jax.reports import command; '
    f'command.main([{str(folders / "a")!r}, {str(folders / "b")!r}]); '
    'sys.exit("jax" in sys.modules)'
  )
  subprocess.run([sys.executable, '-c', code], check=True, capture_output=True)


def test_help_needs_no_library():
  code, modules = programs.run_main('sr3_jax.reports.command', '--help')
  assert code == 0
  assert not {'numpy', 'PIL', 'etils', 'jinja2', 'matplotlib', 'scipy'} & modules


def test_one_report_needs_neither_scipy_nor_jax(folders, tmp_path):
  code, modules = programs.run_main(
    'sr3_jax.reports.command', str(folders / 'a'), f'--out={tmp_path}'
  )
  assert code == 0
  assert 'matplotlib.figure' in modules
  assert not {'scipy', 'jax', 'matplotlib.pyplot'} & modules


def test_long_curves_become_means_of_neighbours():
  points = [[i, 2.0 * i] for i in range(6)]
  assert reports_page.thin(points, 3) == ([0.5, 2.5, 4.5], [1.0, 5.0, 9.0])
  assert reports_page.thin(points) == ([*range(6)], [2 * i for i in range(6)])
