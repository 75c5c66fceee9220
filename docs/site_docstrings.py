"""Show comments of fields and indented lines of docstrings in the pages of the API."""

import re
import textwrap
from typing import Any

from griffe import Attribute, Class, Docstring, Extension, Module

_SECTION = re.compile(r'^(Args|Attributes|Raises|Returns|Yields):$', re.MULTILINE)


class Comments(Extension):
  """Lists fields by their comments, and shows indented lines as they are written."""

  def on_package(self, *, pkg: Module, **_: Any) -> None:
    """Go through the whole package, once it is read."""
    change(pkg)


def change(found: Module | Class) -> None:
  """Change the docstrings of a module or class, and of all that is in it."""
  fields = []
  for member in found.members.values():
    if member.is_alias:
      continue
    if isinstance(member, Attribute):
      if not member.docstring and not hidden(member.name) and (text := comment(member)):
        fields.append(f'  {member.name}: {text}')
        if member.annotation is None and not member.name.isupper():
          member.annotation = member.value  # a name for a type
    elif isinstance(member, Module | Class):
      change(member)
    elif member.docstring:
      member.docstring.value = with_code(member.docstring.value)
  text = with_code(found.docstring.value) if found.docstring else ''
  if fields and not re.search('^Attributes:$', text, re.MULTILINE):
    text += '\n\nAttributes:\n' + '\n'.join(fields)
  if text:
    found.docstring = Docstring(text, parent=found, parser='google')


def hidden(name: str) -> bool:
  """Return whether a name is none for users."""
  return name.startswith('_') or name == 'TYPE_CHECKING'


def comment(attribute: Attribute) -> str:
  """Return the comment behind an attribute, or else the one above it."""
  if attribute.lineno is None or isinstance(attribute.filepath, list):
    return ''
  lines = attribute.lines_collection[attribute.filepath]
  first, last = attribute.lineno - 1, (attribute.endlineno or attribute.lineno) - 1
  if found := re.search(r'  # (.+)$', lines[last]):
    return sentence(found[1])
  above = []
  while first and (found := re.match(r'\s*# (?!-)(.+)$', lines[first - 1])):
    above.insert(0, found[1])
    first -= 1
  return sentence(' '.join(above))


def sentence(text: str) -> str:
  """Return text that begins and ends as a sentence does."""
  return text and text[0].upper() + text[1:] + ('' if text.endswith('.') else '.')


def with_code(text: str) -> str:
  """Return a docstring whose indented lines, before its sections, are code blocks."""
  end = found.start() if (found := _SECTION.search(text)) else len(text)
  block = r'(?:^ {2,}.*\n?(?:\n(?= {2}))*)+'

  def fenced(found: re.Match[str]) -> str:
    return f'\n```text\n{textwrap.dedent(found[0]).strip()}\n```\n\n'

  head = re.sub(block, fenced, text[:end], flags=re.MULTILINE)
  return head + text[end:]
