"""Writes the model card: the README.md of a model folder.

Front matter for model hubs comes first, then Markdown for people.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from ml_collections import ConfigDict

from sr3_jax.runtime.version import __version__
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


@dataclasses.dataclass(frozen=True)
class Facts:
  """What a card says beside the configuration.

  Attributes:
    name: of the model.
    num_params: numbers in the network.
    fingerprint: of the weights.
    step: training steps done.
    source: where the weights come from, in words.
    presets: sampler settings by name.
    results: results.json of the run; None if the model was not measured.
    license: identifier or name; 'unknown' if it is not known.
    dtype: of the stored weights.
    hours: that the training took; 0 if that is not known.
    notes: Markdown of whoever trained the model.
  """

  name: str
  num_params: int
  fingerprint: str
  step: int
  source: str
  presets: Presets
  results: Results | None
  license: str
  dtype: str
  hours: float = 0.0
  notes: str = ''


def make(config: ConfigDict, facts: Facts) -> str:
  """Return the Markdown of a model card.

  Args:
    config: of the run, fit to be published.
    facts: what else the card says.
  """
  notes = facts.notes.strip()
  return '\n'.join(
    [
      *_front_matter(facts.license, config),
      f'# {_plain(facts.name)}',
      '',
      *_description(config, facts.num_params),
      *_USE,
      *_training(config, facts),
      *((notes, '') if notes else ()),
      *_results(facts.results),
      *_presets(facts.presets, config),
      *_format(config, facts),
      *_limits(config),
    ]
  )


def _plain(text: object) -> str:
  """Return one line of text without what Markdown takes for markup."""
  return re.sub(r'[`|<>\[\]*\\]', '', ' '.join(str(text).split()))


def _front_matter(license: str, config: ConfigDict) -> Iterator[str]:
  """Yield the YAML that model hubs read."""
  license = ' '.join(license.split()) or 'unknown'
  known = re.fullmatch(r'[a-z0-9][a-z0-9.+-]*', license.lower())
  # Hubs know identifiers only.
  licenses = (
    {'license': license.lower()}
    if known
    else {'license': 'other', 'license_name': license}
  )
  front = {
    **licenses,
    'library_name': 'sr3_jax',
    'pipeline_tag': 'image-to-image',
    'tags': ['super-resolution', 'diffusion', config.method, 'jax', 'flax'],
  }
  text = yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=1000)
  yield from ('---', *text.splitlines(), '---', '')


def _description(config: ConfigDict, num_params: int) -> Iterator[str]:
  """Yield what the model does and what its network is."""
  scale, size = config.task.scale, config.data.image_size
  kind = {
    'sr3': 'a diffusion model (SR3, arXiv:2104.07636); every run draws one of the '
    'pictures that fit the input',
    'regression': 'a one-step regression network: one blurry answer, no sampling',
  }[config.method]
  yield f'Makes pictures {scale} times larger in each direction: {kind}.'
  yield ''
  yield f'- scale: {scale}, trained from {size // scale} to {size} pixels a side'
  yield f'- network: {config.model.network}, {num_params / 1e6:.2f} million parameters'
  d = config.diffusion
  of = ' of the difference to the upsampled input' if d.residual else ''
  yield f'- predicts {d.prediction}{of}; {d.num_levels} training levels, {d.schedule}'
  yield ''


_USE = (
  '## Use',
  '',
  '`MODEL` is the path of this folder, or `hf://owner/name`.',
  '',
  '```',
  'sr3-upscale photo.jpg --model=MODEL --output=upscaled',
  '```',
  '',
  '```python',
  'import sr3_jax',
  '',
  "upscaler = sr3_jax.load('MODEL')",
  'result = upscaler.upscale(image)  # uint8 [height, width, 3] or a PIL image',
  '```',
  '',
)


def _training(config: ConfigDict, facts: Facts) -> Iterator[str]:
  """Yield how the weights were trained."""
  data = config.data
  where = f' ({_plain(data.path)})' if data.path else ''
  yield from ('## Training', '')
  yield f'- weights: {_plain(facts.source)}'
  if config.train.init_from:
    yield f'- fine-tuned from: {_plain(config.train.init_from)}'
  if facts.step:
    yield f'- data: {_plain(data.source)}{where}, split {_plain(data.split)}'
    yield f'- crops: {_plain(data.crop)}, {data.image_size} pixels'
    weight = config.diffusion.noise_weight
    yield (
      f'- {facts.step} steps of {config.train.batch_size} images, '
      f'{config.diffusion.loss.upper()} loss'
      f'{f" times (1 - gamma)^{weight:g}" if weight else ""}, Adam, learning rate '
      f'{config.train.learning_rate:g}; these are the averaged weights '
      f'(decay {config.train.ema_decay:g}); seed {config.seed}'
    )
  if facts.hours:
    yield f'- {facts.hours:.1f} hours of training'
  yield ''


def _results(results: Results | None) -> Iterator[str]:
  """Yield the table of results, and the sampler that they were measured with."""
  yield from ('## Results', '')
  table = (results or {}).get('table') or {}
  if not results or not table:
    yield from ('Not measured.', '')
    return
  images = next(iter(table.values())).get('images', '?')
  step = results.get('step', '?')
  yield f'On {images} held-out images, rounded to 8 bits, after step {step}:'
  yield ''
  columns = {k: v for k, v in _METRICS.items() if any(k in r for r in table.values())}
  yield '| | ' + ' | '.join(title for title, _ in columns.values()) + ' |'
  yield '|---' * (1 + len(columns)) + '|'
  for name, row in table.items():
    cells = [
      f'{row[k]:.{digits}f}' if isinstance(row.get(k), int | float) else ''
      for k, (_, digits) in columns.items()
    ]
    yield f'| {_plain(name)} | ' + ' | '.join(cells) + ' |'
  yield ''
  sampler = results.get('config', {}).get('sampler', {})
  if sampler:
    yield (
      f'Sampler: {_plain(sampler.get("name"))}, {_plain(sampler.get("num_steps"))} '
      f'steps, spacing {_plain(sampler.get("spacing"))}, temperature '
      f'{_plain(sampler.get("temperature", 1.0))}.'
    )
    yield ''


def _presets(presets: Presets, config: ConfigDict) -> Iterator[str]:
  """Yield the table of sampler presets."""
  yield from ('## Sampler presets', '')
  if not presets:
    s = config.sampler
    yield f'None; the default is {s.name}, {s.num_steps} steps, spacing {s.spacing}.'
  else:
    yield '| preset | sampler | steps | spacing | eta | temperature |'
    yield '|---|---|---|---|---|---|'
  for name, p in presets.items():
    spacing = p['spacing']
    if spacing == 'linear':
      spacing = f'betas {p["start"]:.3g} to {p["end"]:.3g}'
    yield (
      f'| {_plain(name)} | {_plain(p["name"])} | {p["num_steps"]} | {_plain(spacing)} '
      f'| {p.get("eta", 0.0):g} | {p.get("temperature", 1.0):g} |'
    )
  yield ''


def _format(config: ConfigDict, facts: Facts) -> Iterator[str]:
  """Yield what goes into the network, and how the weights are stored."""
  yield from (
    '## Format',
    '',
    f'- inputs: {_plain(config.task.name)}: {_inputs(config)}',
    f'- the network sees the input upsampled by a {config.model.upsampling} kernel',
    '- value range: RGB, sRGB, float32 in [-1, 1] inside; 8 bits map to it linearly',
    *_consistency(config),
    f'- weights: safetensors, {facts.dtype}, fingerprint `{facts.fingerprint}`',
    f'- written by sr3_jax {__version__}; `config.json` holds the whole configuration',
    '',
  )


def _consistency(config: ConfigDict) -> Iterator[str]:
  """Yield that outputs agree with inputs, where the sampler makes them."""
  if config.sampler.consistency:
    yield (
      '- every prediction of the image is moved to the nearest one that, downsampled, '
      'is the input (`sampler.consistency`)'
    )


def _inputs(config: ConfigDict) -> str:
  """Return which inputs the model was trained for, and which not."""
  kernel = f'{config.task.scale} times smaller by a bicubic kernel with anti-aliasing'
  other = 'are not what the model was trained for'
  match config.task.name:
    case 'super_resolution':
      return (
        f'{kernel} (as Pillow); others (blurred, noisy, compressed, '
        f'nearest-neighbour) {other}'
      )
    case 'photo_super_resolution':
      return (
        f'half of them {kernel} (as Pillow), half also a little blurred, noisy and '
        'compressed as JPEG, as cameras and web pages have them; much worse ones '
        f'{other}'
      )
  return f'as docs/tasks.md of sr3_jax says; others {other}'


def _limits(config: ConfigDict) -> Iterator[str]:
  """Yield what outputs must not be used for."""
  yield from ('## Limits', '')
  if config.method == 'sr3':
    yield (
      'Detail finer than the input is invented: plausible, not true. Draw several '
      'samples and look at their spread. Not evidence: do not use it to recognise '
      'people, read plates or judge medical images.'
    )
  else:
    yield 'Gives the mean of what is possible: fine detail is missing.'
  yield ''
