"""The README.md of a model folder: front matter for model hubs, then plain words."""

import json
import re
from collections.abc import Iterator
from typing import Any

import ml_collections

# What a results table shows: key -> title and digits.
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


def make(
  config: ml_collections.ConfigDict,
  *,
  name: str,
  version: str,
  num_params: int,
  fingerprint: str,
  step: int,
  source: str,
  presets: dict[str, dict[str, Any]],
  results: dict[str, Any] | None,
  license: str,
  dtype: str,
  hours: float = 0.0,
  notes: str = '',
) -> str:
  """Markdown that says what a model is, from what its run wrote.

  Args:
    config: of the run, fit to be published.
    name: of the model.
    version: of sr3_jax.
    num_params: numbers in the network.
    fingerprint: of the weights.
    step: training steps done.
    source: where the weights come from.
    presets: sampler settings by name.
    results: as results.json of a run holds them; None if not measured.
    license: identifier or name; 'unknown' if it is not known.
    dtype: of the stored weights.
    hours: that the training took; 0 if that is not known.
    notes: Markdown of whoever trained it.
  """
  return '\n'.join(
    [
      *_front_matter(license, config),
      f'# {_plain(name)}',
      '',
      *_what(config, num_params),
      *_use(),
      *_training(config, step, source, hours),
      *((notes.strip(), '') if notes.strip() else ()),
      *_results(results),
      *_presets(presets, config),
      *_format(config, version, fingerprint, dtype),
      *_limits(config),
    ]
  )


def _plain(text: Any) -> str:
  """One line of text with nothing that Markdown would take for markup."""
  return re.sub(r'[`|<>\[\]*\\]', '', ' '.join(str(text).split()))


def _front_matter(license: str, config) -> Iterator[str]:
  yield '---'
  license = ' '.join(license.split()) or 'unknown'
  if re.fullmatch(r'[a-z0-9][a-z0-9.+-]*', license.lower()):
    yield f'license: {license.lower()}'
  else:  # hubs know identifiers only; JSON strings are YAML strings
    yield 'license: other'
    yield f'license_name: {json.dumps(license)}'
  yield 'library_name: sr3_jax'
  yield 'pipeline_tag: image-to-image'
  yield 'tags:'
  for tag in ('super-resolution', 'diffusion', config.method, 'jax', 'flax'):
    yield f'- {tag}'
  yield from ('---', '')


def _what(config, num_params: int) -> Iterator[str]:
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


def _use() -> Iterator[str]:
  yield from (
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


def _training(config, step: int, source: str, hours: float) -> Iterator[str]:
  data = config.data
  where = f' ({_plain(data.path)})' if data.path else ''
  yield from ('## Training', '')
  yield f'- weights: {_plain(source)}'
  if config.train.init_from:
    yield f'- fine-tuned from: {_plain(config.train.init_from)}'
  if step:
    yield f'- data: {_plain(data.source)}{where}, split {_plain(data.split)}'
    yield f'- crops: {_plain(data.crop)}, {data.image_size} pixels'
    weight = config.diffusion.noise_weight
    yield (
      f'- {step} steps of {config.train.batch_size} images, '
      f'{config.diffusion.loss.upper()} loss'
      f'{f" times (1 - gamma)^{weight:g}" if weight else ""}, Adam, learning rate '
      f'{config.train.learning_rate:g}; these are the averaged weights '
      f'(decay {config.train.ema_decay:g}); seed {config.seed}'
    )
  if hours:
    yield f'- {hours:.1f} hours of training'
  yield ''


def _results(results: dict[str, Any] | None) -> Iterator[str]:
  yield from ('## Results', '')
  table = (results or {}).get('table') or {}
  if not table:
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


def _presets(presets: dict[str, dict[str, Any]], config) -> Iterator[str]:
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


def _format(config, version: str, fingerprint: str, dtype: str) -> Iterator[str]:
  yield from (
    '## Format',
    '',
    f'- inputs: {_plain(config.task.name)}: {_inputs(config)}',
    f'- the network sees the input enlarged by a {config.model.upsampling} kernel',
    '- value range: RGB, sRGB, float32 in [-1, 1] inside; 8 bits map to it linearly',
    *_kept(config),
    f'- weights: safetensors, {dtype}, fingerprint `{fingerprint}`',
    f'- written by sr3_jax {version}; `config.json` holds the whole configuration',
    '',
  )


def _kept(config) -> Iterator[str]:
  """That outputs agree with inputs, where they are made to."""
  if config.sampler.consistency:
    yield (
      '- every estimate is moved to the nearest one that, made small again, is the '
      'input (`sampler.consistency`)'
    )


def _inputs(config) -> str:
  """What the model was trained for, and what not."""
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


def _limits(config) -> Iterator[str]:
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
