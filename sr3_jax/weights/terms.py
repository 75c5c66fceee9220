"""Reads and writes a model card's terms of use, in the form that model hubs accept.

A hub knows some identifiers. Other terms are `license: other` there, with a name in
small letters and a link.
"""

import os
import re
from typing import Any

import yaml
from etils import epath

from sr3_jax.runtime import foreign_files
from sr3_jax.runtime.printing import one_line
from sr3_jax.weights.model_files import CARD

# The identifiers of https://huggingface.co/docs/hub/repositories-licenses.
_KNOWN = """
afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m
  bigscience-bloom-rail-1.0 bigscience-openrail-m bsd bsd-2-clause bsd-3-clause
  bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0
  cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0
  cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0
  cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0
  creativeml-openrail-m ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 gfdl gpl
  gpl-2.0 gpl-3.0 h-research intel-research isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr
  lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openrail openrail++ osl-3.0
  pddl postgresql unknown unlicense wtfpl zlib
"""
KNOWN = frozenset(_KNOWN.split())
# Known ones that allow every use, some with conditions such as to name the author.
_RESTRICTED = re.compile(
  r'-n[cd]\b|research|openrail|rail-1|apple-|c-uda|^(cc|other|unknown)$'
)
_MOST = 2**16  # characters of a card's head


def front_matter(license: str, link: str = '') -> dict[str, str]:
  """Return the entries of a card's head for terms, an identifier or any words.

  `link` leads to the terms; it is left out where an identifier says all.
  """
  license = ' '.join(license.split()) or 'unknown'
  if license.lower() in KNOWN:
    return {'license': license.lower()}
  name = re.sub(r'[^a-z0-9.]+', '-', license.lower()).strip('-.') or 'own'
  return {
    'license': 'other',
    'license_name': name,
    **({'license_link': link} if link else {}),
  }


def split_card(text: str) -> tuple[dict[str, Any], str]:
  """Return the entries of a card's head and the text below it; {} without a head."""
  match = re.match(r'---[ \t]*\n(.*?\n)---[ \t]*\n', text[:_MOST], re.DOTALL)
  if not match:
    return {}, text
  try:
    head = yaml.safe_load(match[1])
  except (yaml.YAMLError, ValueError, RecursionError):
    return {}, text
  return (head if isinstance(head, dict) else {}), text[match.end() :]


def join_card(head: dict[str, Any], text: str) -> str:
  """Return the card of a head and the text below it."""
  options = {'sort_keys': False, 'allow_unicode': True, 'width': 1000}
  return f'---\n{yaml.safe_dump(head, **options)}---\n{text}'


def of_head(head: dict[str, Any]) -> str:
  """Return the terms that a card's head states; 'unknown' if it states none."""
  license = head.get('license')
  if license in (None, 'other'):
    license = head.get('license_name') or license
  return ' '.join(str(license or 'unknown').split())[:200]


def of_folder(folder: epath.Path) -> str:
  """Return the terms that the card of a model folder states; 'unknown' without."""
  text = foreign_files.start_of(folder / CARD, _MOST).decode('utf-8', 'replace')
  return of_head(split_card(text)[0])


def are_free(license: str) -> bool:
  """Return whether terms allow every use; those that nobody stated count as free.

  A model that its owner trained has no stated terms: there is nothing to be said.
  """
  license = license.lower()
  if license == 'unknown':
    return True
  return license in KNOWN and not _RESTRICTED.search(license)


def note(name: str, license: str, place: epath.PathLike) -> str:
  """Return the line that tells of terms which don't allow every use."""
  where = os.fspath(place)
  card = f'its card ({where})' if '/' in where else 'its card'
  return f'{name}: terms of use: {one_line(license)}, not every use is free; see {card}'
