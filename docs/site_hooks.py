"""Make a site of pages that are written for GitHub; mkdocs.yml names this file.

Pages link to files of the repository as GitHub needs it. Here such links become links
to pages of the site where it has one, and else to the repository. The menu is made from
the tables of the README files of docs/, and the pages of the API from that of api.md.
"""

import html
import os
import pathlib
import posixpath
import re
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = pathlib.Path(__file__).parents[1]
REPOSITORY = 'https://github.com/sr3-jax/sr3_jax'
# Files of the repository that are pages of the site under another name.
PAGES = {
  'README.md': 'index.md',
  'README.ja.md': 'ja/index.md',
  'CHANGELOG.md': 'changelog.md',
  'CONTRIBUTING.md': 'contributing.md',
  'docs/README.md': 'guides.md',
  'docs/ja/README.md': 'ja/guides.md',
} | {
  f'sr3_jax/models/{name}/README.md': f'models/{name}.md'
  for name in sorted(os.listdir(ROOT / 'sr3_jax' / 'models'))
}
# A page of the menu, or a group of such with a title.
Entry = Any
# Code, which is left as it is, or a link: text, address, end.
_LINK = re.compile(
  r'^```.*?^```|`[^`\n]+`'
  r'|(?P<head>\]\(|^\[[^\]\n]+\]: )(?P<address>[^)\s]+)(?P<end>\)?)',
  re.MULTILINE | re.DOTALL,
)
_MATH = re.compile(
  r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL
)


# ------------------------------------------------------------------------- menu


def on_config(config: MkDocsConfig) -> MkDocsConfig:
  """Make the menu."""
  models = [PAGES[path] for path in PAGES if path.startswith('sr3_jax/')]
  config.nav = [
    {'Home': 'index.md'},
    {'Guides': [{'All by goal': 'guides.md'}, *menu('docs/README.md')]},
    {'Results': [{'Overview': 'results/README.md'}, *menu('docs/results/README.md')]},
    {'Models': models},
    {'Python': [{'Overview': 'api.md'}, *menu('docs/api.md')]},
    {
      '日本語': [
        {'概要': 'ja/index.md'},
        *menu('docs/ja/README.md'),
        {'目次': 'ja/guides.md'},
      ]
    },
    {'Changes': ['changelog.md']},
  ]
  return config


def menu(path: str) -> list[Entry]:
  """Return the entries that the links of a page make; its headings make groups.

  A link counts if it leads to a page of the same folder of the site, in api.md if it
  leads to a module. Of several links to a page, the first counts.
  """
  entries: list[Entry] = []
  group = entries
  # These have places of their own.
  seen = {'api.md', *PAGES.values()} - {'contributing.md'}
  folder = 'api' if path == 'docs/api.md' else path[5:].rpartition('/')[0]
  for line in (ROOT / path).read_text().splitlines():
    if heading := re.match(r'(?:\| )?\*\*(.+?)\*\*|## (.+)', line):
      title, group = heading[1] or heading[2], []
      entries.append({title[0].upper() + title[1:]: group})
    for page in pages(path, line):
      inside = posixpath.dirname(page) == folder or folder == 'api' == page[:3]
      if inside and page not in seen:
        seen.add(page)
        name = page[4:-3].replace('/', '.')
        group.append({name: page} if folder == 'api' else page)
  return [entry for entry in entries if isinstance(entry, str) or any(entry.values())]


def pages(path: str, text: str) -> list[str]:
  """Return the pages of the site that a text of the file `path` links to."""
  found = [site_page(there, path) for there in targets(path, text)]
  return [page for page in found if page.endswith('.md')]


def targets(path: str, text: str) -> list[str]:
  """Return the paths in the repository that a text of the file `path` links to."""
  links = [link['address'] for link in _LINK.finditer(text)]
  return [target(path, link) for link in links if link]


# ------------------------------------------------------------------------ pages


def on_files(files: Files, config: MkDocsConfig) -> Files:
  """Add what lies outside of docs/, and the pages of the API."""
  for path, page in PAGES.items():
    if (old := files.get_file_from_path(path.removeprefix('docs/'))) and '/' in path:
      files.remove(old)
    text = (ROOT / path).read_text()
    files.append(File.generated(config, page, content=text))
  for path in targets('docs/api.md', (ROOT / 'docs/api.md').read_text()):
    page = site_page(path, 'docs/api.md')
    if page.startswith('api/') and not files.get_file_from_path(page):
      module = path.removesuffix('.py').removesuffix('/__init__').replace('/', '.')
      text = f'::: {module}\n\n[{path}]({REPOSITORY}/blob/main/{path})\n'
      files.append(File.generated(config, page, content=text))
  return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
  """Return a page's text with its links changed to those of the site."""
  own = page.file.src_uri
  if own in ('index.md', 'changelog.md'):
    page.meta['hide'] = ['navigation']  # it would be this page alone
  path = {site: path for path, site in PAGES.items()}.get(own, f'docs/{own}')

  def changed(link: re.Match[str]) -> str:
    if not link['address']:
      return link[0]
    return link['head'] + address(path, own, link['address']) + link['end']

  return _LINK.sub(changed, markdown)


def address(path: str, own: str, link: str) -> str:
  """Return a link of the file `path`, which is the page `own`, as the site needs it.

  What leads nowhere stays as it is, so that a strict build names it.
  """
  if re.match(r'[a-z]+:|#', link):
    return link
  file, _, anchor = link.partition('#')
  there = target(path, file)
  anchor = f'#{anchor}' if anchor else ''
  if page := site_page(there, path):
    return posixpath.relpath(page, posixpath.dirname(own) or '.') + anchor
  if not (ROOT / there).exists():
    return link
  kind = 'tree' if (ROOT / there).is_dir() else 'blob'
  return f'{REPOSITORY}/{kind}/main/{there}{anchor}'


def target(path: str, link: str) -> str:
  """Return the path in the repository that a relative link of the file `path` means."""
  return posixpath.normpath(posixpath.join(posixpath.dirname(path), link.split('#')[0]))


def site_page(there: str, path: str) -> str:
  """Return the page or picture of the site that the file `there` is, or ''.

  Only in links from api.md, `path`, modules are pages.
  """
  if there in PAGES:
    return PAGES[there]
  if path == 'docs/api.md' and re.fullmatch(r'sr3_jax/.*\.py', there):
    module = there[len('sr3_jax/') : -len('.py')]
    return f'api/{"sr3_jax" if module == "__init__" else module}.md'
  inside = there.startswith('docs/') and (ROOT / there).is_file()
  return there.removeprefix('docs/') if inside and not there.endswith('.py') else ''


# ------------------------------------------------------------------------- HTML


def on_page_content(html_text: str, **_: object) -> str:
  """Return a page whose formulas are MathML, which browsers show without a script."""

  def shown(found: re.Match[str]) -> str:
    display = 'block' if found[1] == 'div' else 'inline'
    formula = convert(html.unescape(found[3]).strip(), display=display)
    # It takes the relation "is distributed as" for a name, which has no space around.
    return formula.replace('<mi>&#x0007E;</mi>', '<mo>&#x0223C;</mo>')

  return _MATH.sub(shown, html_text)


def on_post_page(output: str, page: Page, **_: object) -> str:
  """Say that a page is Japanese: browsers choose the shapes of characters by it."""
  if page.file.src_uri.startswith('ja/'):
    return output.replace('<html lang="en"', '<html lang="ja"', 1)
  return output
