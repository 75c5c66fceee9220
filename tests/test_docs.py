"""Pages: links lead somewhere, menus hold all, Japanese ones say the same, the site."""

import collections
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / 'docs'
FENCE = re.compile(r'^```.*?^```$', re.MULTILINE | re.DOTALL)
# Notes that become parts of model cards are no pages.
PAGES = sorted({*ROOT.glob('*.md'), *DOCS.rglob('*.md')} - {*DOCS.glob('cards/*')})
PAGES += sorted(ROOT.glob('sr3_jax/models/*/README.md'))


def read(path: str) -> str:
  return (ROOT / path).read_text()


def section(text: str, title: str) -> str:
  """Return the part of a page below a heading of the second level."""
  return re.split(r'^## ', text.split(f'\n## {title}\n')[1], flags=re.MULTILINE)[0]


def prose(text: str) -> str:
  """Return a page without its code."""
  return re.sub(r'`[^`\n]*`', '', FENCE.sub('', text))


def anchors(path: pathlib.Path) -> set[str]:
  """Return the anchors of a page, as GitHub names them."""
  headings = re.findall(r'^#+ (.+)$', FENCE.sub('', path.read_text()), re.MULTILINE)
  plain = [re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', text) for text in headings]
  return {re.sub(r'[^\w\- ]', '', text.lower()).replace(' ', '-') for text in plain}


def links(path: pathlib.Path) -> list[str]:
  """Return the links of a page that lead to files of the repository."""
  text = FENCE.sub('', path.read_text())
  found = re.findall(r'\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)', text, re.MULTILINE)
  return [a or b for a, b in found if not re.match(r'[a-z]+:', a or b)]


@pytest.mark.parametrize('page', PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page):
  for link in links(page):
    path, _, anchor = link.partition('#')
    there = (page.parent / path).resolve() if path else page
    assert there.exists(), f'{link}: no such file'
    assert there.is_relative_to(ROOT), f'{link}: outside of the repository'
    if anchor:
      assert anchor in anchors(there), f'{link}: no such heading'


def test_links_to_the_own_repository_lead_to_files():
  for page in PAGES:
    own = r'https://(?:github|colab\.research\.google)\.com/(?:github/)?sr3-jax/sr3_jax'
    for path in re.findall(own + r'/(?:blob|tree)/main/([^)\s#>]+)', page.read_text()):
      assert (ROOT / path).exists(), f'{page}: {path}'


@pytest.mark.parametrize('folder', ['', 'results', 'ja'])
def test_every_page_is_in_the_menu(folder):
  """The menu of the site is made from the links of these tables."""
  index = DOCS / folder / 'README.md'
  pages = {path.name for path in index.parent.glob('*.md')} - {'README.md'}
  assert pages - {link.partition('#')[0] for link in links(index)} == set()


# --------------------------------------------------------------------- Japanese


def table_rows(text: str) -> list[list[str]]:
  """Return what has no language in each row of tables: numbers, code and links."""
  rows = re.findall(r'^\|.*\|$', FENCE.sub('', text), re.MULTILINE)
  common = r'`[^`]+`|\]\([^)]+\)|\d[\d,.]*(?:\d|M)|\d'
  return [re.findall(common, row) for row in rows]


@pytest.mark.parametrize(
  'english, japanese',
  [
    (read('README.md'), read('README.ja.md')),
    (
      section(read('docs/training.md'), 'The quickstart'),
      read('docs/ja/quickstart.md'),
    ),
  ],
  ids=['README', 'quickstart'],
)
def test_japanese_has_the_same_commands_and_numbers(english, japanese):
  assert FENCE.findall(japanese) == FENCE.findall(english)
  wanted, found = (
    collections.Counter(re.findall(r'\d[\d.,]*\d', prose(text)))
    for text in (english, japanese)
  )
  assert wanted - found == {}


def test_tables_of_the_japanese_readme():
  assert table_rows(read('README.ja.md')) == table_rows(read('README.md'))


def test_columns_of_the_japanese_quickstart():
  """It explains the columns that the English page explains, in their order."""
  english = section(read('docs/training.md'), 'What the numbers mean')
  japanese = section(read('docs/ja/quickstart.md'), '表の見方')

  def names(text):
    return re.findall(r'^\| ([\w, 、]+?) \|', text, re.MULTILINE)[1:]

  assert [name.replace('、', ', ') for name in names(japanese)] == names(english)


def test_headings_of_the_japanese_readme():
  levels = [
    re.findall(r'^#+ ', FENCE.sub('', read(path)), re.MULTILINE)
    for path in ('README.md', 'README.ja.md')
  ]
  assert levels[0] == levels[1]


def test_figures_of_the_method_page_are_those_of_the_configuration():
  method = read('docs/ja/method.md')
  recipe = read('configs/faces_16_128.py')
  paper = re.findall(
    r'\d+\.\d+', section(method, '論文の結果').split('PSNR と SSIM')[0]
  )
  assert len(paper) == 8
  assert set(paper) <= set(re.findall(r'\d+\.\d+', recipe))
  widths = re.findall(r'^\| \d+ x \d+ \| (\d+) \|', method, re.MULTILINE)
  (channels,) = re.findall(r'c\.model\.channels = (\d+)', recipe)
  (multipliers,) = re.findall(r'c\.model\.multipliers = \(([\d, ]+)\)', recipe)
  wanted = [int(channels) * int(number) for number in multipliers.split(',')]
  assert [int(width) for width in widths] == wanted


def test_names_of_the_method_page_are_in_the_code():
  code = ''.join(path.read_text() for path in (ROOT / 'sr3_jax').rglob('*.py'))
  names = re.findall(r'`(?:\w+\.)?(?!py`)([A-Za-z_]\w+)`', read('docs/ja/method.md'))
  assert len(names) > 25
  defined = r'(?:def |class |\')({0})\b|\b({0})(?: =|:)'
  assert {n for n in names if not re.search(defined.format(n), code)} == set()


# ------------------------------------------------------------------------- site


def test_site(tmp_path):
  """It is built strictly where `pip install -e '.[docs]'` was done: a job of CI."""
  pytest.importorskip('mkdocs')
  pytest.importorskip('latex2mathml')
  command = [sys.executable, '-m', 'mkdocs', 'build', '--strict', '-d', str(tmp_path)]
  environment = os.environ | {'NO_MKDOCS_2_WARNING': '1'}
  built = subprocess.run(
    command, cwd=ROOT, env=environment, capture_output=True, text=True
  )
  assert built.returncode == 0, built.stderr

  def page(path):
    return (tmp_path / path / 'index.html').read_text()

  home = page('.')
  assert 'href="ja/"' in home and 'href="upscale/"' in home
  assert (tmp_path / re.findall(r'<img alt="[^"]*" src="([^"]+)"', home)[0]).is_file()
  assert 'https://github.com/sr3-jax/sr3_jax/blob/main/LICENSE' in home
  api = page('api/core/sr3')
  assert 'id="sr3_jax.core.sr3.SR3.denoise"' in api
  assert 'Side of the training crops.' in api  # a comment of a field
  method = page('ja/method')
  assert '<html lang="ja"' in method
  assert method.count('<math') > 50 and 'arithmatex' not in method
  assert not list(tmp_path.rglob('*.py'))
