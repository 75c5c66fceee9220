"""HTML pages as tests read them, strict about what browsers forgive."""

import html.parser
import itertools
import re

VOID = {'meta', 'img', 'br', 'hr', 'link', 'input'}


class Page(html.parser.HTMLParser):
  """A page's tags and texts; strict about what browsers forgive."""

  def __init__(self, text: str):
    super().__init__()
    self.tags: list[tuple[str, dict[str, str | None]]] = []
    self.texts: list[tuple[str, str]] = []
    self._open: list[str] = []
    assert text.startswith('<!DOCTYPE html>')
    self.feed(text)
    self.close()
    assert not self._open, f'left open: {self._open}'

  def handle_starttag(self, tag, attrs):
    assert len(dict(attrs)) == len(attrs), f'attribute twice: {tag} {attrs}'
    self.tags.append((tag, dict(attrs)))
    if tag not in VOID:
      self._open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))  # of SVG

  def handle_endtag(self, tag):
    assert self._open and self._open[-1] == tag, f'</{tag}> in {self._open}'
    self._open.pop()

  def handle_data(self, data):
    if data.strip():
      self.texts.append((self._open[-1] if self._open else '', data.strip()))

  def of(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
    return [
      a
      for t, a in self.tags
      if t == tag and all(a.get(k) == v for k, v in wanted.items())
    ]

  def all_text(self) -> str:
    return ' '.join(' '.join(text.split()) for _, text in self.texts)


def check_structure(page: Page) -> None:
  ids = [a['id'] for _, a in page.tags if 'id' in a]
  assert len(set(ids)) == len(ids)
  for tag, attributes in page.tags:
    for name in ('aria-labelledby', 'aria-describedby'):
      assert set((attributes.get(name) or '').split()) <= set(ids), tag
    assert not any(name.startswith('on') for name in attributes)
    href = attributes.get('href')
    assert href is None or (href[0] == '#' and href[1:] in ids)
  for image in page.of('img'):
    assert image['alt'] and image['src'].startswith('data:image/')
    assert int(image['width']) > 0 and int(image['height']) > 0
  assert all('scope' in a for a in page.of('th'))
  assert all({'role', 'aria-labelledby'} <= a.keys() for a in page.of('svg'))
  tables = len(page.of('table'))
  assert (
    tables
    == len(page.of('caption'))
    == len(page.of('div', role='region'))
    - sum(1 for tag, _ in page.tags if tag == 'pre')
  )
  levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r'h[1-6]', tag)]
  assert levels[0] == 1 and levels.count(1) == 1
  assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
  assert {'header', 'nav', 'main', 'footer'} <= {tag for tag, _ in page.tags}
  assert not {'script', 'link', 'iframe', 'object'} & {
    tag for tag, a in page.tags if 'src' in a or tag != 'script'
  }
