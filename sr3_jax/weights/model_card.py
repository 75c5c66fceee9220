"""Writes the model card: the README.md of a model folder.

Front matter for model hubs comes first, then Markdown for people; the words are in
templates/model_card.md.
"""

import re
from collections.abc import Mapping
from typing import Any

import yaml
from ml_collections import ConfigDict

from sr3_jax.core import degradations
from sr3_jax.runtime.printing import one_line, printable
from sr3_jax.runtime.version import __version__
from sr3_jax.weights import terms
from sr3_jax.weights.model_files import Presets

# Columns of the results table: key in results.json -> title and digits.
_METRICS = {
  'psnr': ('PSNR dB, higher is better', 2),
  'ssim': ('SSIM, higher', 3),
  'consistency': ('consistency 1e-5, lower', 2),
  'detail': ('detail, 1 is right', 2),
  'spectrum_db': ('spectrum dB, lower', 2),
  'lpips_alex': ('LPIPS AlexNet, lower', 3),
  'kid': ('KID 1e-3, lower', 1),
  'colour_drift': ('colour drift, 0 to 255, lower', 2),
}

# A run's results.json, as evaluation writes it.
Results = Mapping[str, Any]


def make(
  config: ConfigDict,
  *,
  presets: Presets,
  results: Results | None,
  license: str,
  license_link: str,
  notes: str,
  **facts: str | float,
) -> str:
  """Return the Markdown of a model card.

  Args:
    config: of the run, fit to be published.
    presets: as `model_writer.save` takes them, like results, license and notes.
    results: None if the model was not measured.
    license: 'unknown' if it is not known.
    license_link: where its words are; '' for nowhere.
    notes: '' for none.
    **facts: name, num_params, fingerprint and step of the model; source, dtype and
      hours as `model_writer.save` takes them.
  """
  import jinja2  # only those who write a model wait for it

  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('sr3_jax.weights'),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    keep_trailing_newline=True,
  )
  environment.filters['plain'] = _plain
  results = results or {}
  table = results.get('table') or {}
  return environment.get_template('model_card.md').render(
    facts,
    c=config,
    task=degradations.make(config.task.name, config.task),
    front_matter=_front_matter(license, license_link, config.method),
    license=license,
    presets=presets,
    results=results,
    table=table,
    metrics={k: v for k, v in _METRICS.items() if any(k in r for r in table.values())},
    sampler=results.get('config', {}).get('sampler', {}),
    notes=printable(notes.strip(), keep='\n\t'),
    version=__version__,
  )


def _plain(text: object) -> str:
  """Return one line of text without what Markdown takes for markup."""
  return re.sub(r'[`|<>\[\]*\\]', '', one_line(text))


def _front_matter(license: str, link: str, method: str) -> str:
  """Return the YAML that model hubs read."""
  front = {
    **terms.front_matter(license, link),
    'library_name': 'sr3_jax',
    'pipeline_tag': 'image-to-image',
    'tags': ['super-resolution', 'diffusion', method, 'jax', 'flax'],
  }
  return yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=1000).strip()
