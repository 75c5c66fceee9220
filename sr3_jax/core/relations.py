"""Checks how the values of a configuration go together.

What a key may be by itself is said in `sr3_jax.options`.
"""

from collections.abc import Iterator

import ml_collections
import numpy as np

from sr3_jax.config import ConfigError, check_values
from sr3_jax.core import degradations, diffusion
from sr3_jax.core.perceptual import LEAST_SIDE
from sr3_jax.images import pair_grid

# Group normalisations of 'guided' have this many groups.
_GUIDED_GROUPS = 32


def check_relations(config: ml_collections.ConfigDict) -> None:
  """Refuse a configuration of a run whose values can't be, alone or together.

  Raises:
    ConfigError: which keys, and why.
  """
  check_values(config)
  if config.cascade.stages:  # they have configurations of their own
    return
  check_model(config)
  for fault in (*_data(config), *_run(config)):
    raise ConfigError(fault)


def check_model(config: ml_collections.ConfigDict) -> None:
  """Refuse a configuration whose model can't be, as far as the values go together.

  Every value by itself must be one that its key can have.

  Raises:
    ConfigError: which keys, and why.
  """
  try:
    task = degradations.make(config.task.name, config.task)
  except ValueError as error:
    raise ConfigError(error) from None
  faults = (
    *_task(config, task),
    *_sizes(config),
    *_network(config, task),
    *_costs(config),
    *_levels(config),
    *_sampler(config, task),
  )
  for fault in faults:
    raise ConfigError(fault)


def _task(config: ml_collections.ConfigDict, task: degradations.Task) -> Iterator[str]:
  """Say what is wrong with a task and the images that it is for."""
  data, name = config.data, config.task.name
  if task.colour and data.channels != 3:
    yield f'data.channels={data.channels}: task.name={name!r} is for 3 channels'
  if config.diffusion.residual and not task.conditional:
    yield f'diffusion.residual needs a condition; task.name={name!r} has none'
  if config.model.smooth_holes and 'mask' not in task.extras:
    yield f'model.smooth_holes=True: task.name={name!r} has no holes'
  for prefix, count in (('', data.channels), ('input_', input_channels(data, task))):
    ends = tuple(data[f'{prefix}low']), tuple(data[f'{prefix}high'])
    low, high = (np.array(limits, np.float32) for limits in ends)
    wrong = {len(low), len(high)} != {count} or np.any(high <= low)
    if (len(low) or len(high)) and wrong:
      yield (
        f'data.{prefix}low={ends[0]} and data.{prefix}high={ends[1]} must be '
        f'data.{prefix}channels={count} numbers each, one for each channel, and rising'
      )
  yield from _pairs(config, task)


def _pairs(config: ml_collections.ConfigDict, task: degradations.Task) -> Iterator[str]:
  """Say what is wrong with pairs, and with options that are for them."""
  data, name = config.data, config.task.name
  columns = data.source in ('tfds', 'hf')
  if data.input_column and not columns:
    yield (
      f"data.input_column={data.input_column!r} is for data.source='tfds' or 'hf', not "
      f'{data.source!r}'
    )
  if task.paired != (data.source == 'pairs' or bool(data.input_column)):
    needed = 'data.input_column' if columns else "data.source='pairs'"
    yield (
      f'data.source={data.source!r} and task.name={name!r}: inputs from files need '
      f"{needed} and task.name='pairs', both"
    )
  if not task.paired:
    return
  if config.diffusion.residual and input_channels(data, task) != data.channels:
    yield (
      f'diffusion.residual is a difference of images of data.channels={data.channels} '
      f'and data.input_channels={data.input_channels}: set it to False'
    )
  if data.reduced_decoding:
    yield "data.reduced_decoding is not for task.name='pairs'"
  if (best := config.checkpoint.keep_best) in ('consistency', 'colour_drift'):
    yield (
      f'checkpoint.keep_best={best!r} cannot be measured: inputs come from files, and '
      'nothing makes one of an output'
    )


def input_channels(data: ml_collections.ConfigDict, task: degradations.Task) -> int:
  """Return the number of channels of the image in a condition."""
  return (data.input_channels if task.paired else 0) or data.channels


def _sizes(config: ml_collections.ConfigDict) -> Iterator[str]:
  """Say which sizes of images don't fit the task and the network."""
  t, model = config.task, config.model
  names = t.mixture if t.name == degradations.MIXTURE else (t.name,)
  tasks = [degradations.make(name, t) for name in names]
  scale = max(task.scale for task in tasks)
  levels = len(model.multipliers)
  grid = model.network == 'refine'  # which has one level
  multiple = model.patch * (1 if grid else 2 ** (levels - 1))
  for key in ('data.image_size', 'eval.image_size'):
    size = config[key]
    if tasks[0].paired:
      try:
        pair_grid.input_side(size, tasks[0].ratio)
      except ValueError as error:
        yield f'{key}: {error}'
    elif size % scale:
      yield f'{key}={size} must be a multiple of task.scale={scale}'
    if size % multiple:
      rest = f' and {levels} model.multipliers, each but the first at half the size'
      yield (
        f'{key}={size} must be a multiple of {multiple}: '
        f'model.patch={model.patch}{"" if grid else rest}'
      )
    if size and t.through > size and 'super_resolution' in names:
      yield f'task.through={t.through} must not be above {key}={size}'


def _network(
  config: ml_collections.ConfigDict, task: degradations.Task
) -> Iterator[str]:
  """Say which options the network doesn't have, or can't have together."""
  m, network = config.model, f'model.network={config.model.network!r}'
  if m.network == 'sr3':
    return
  if m.network == 'refine':
    yield from _refine(config, task)
    return
  channels, given = config.data.channels, input_channels(config.data, task)
  if {channels, given} != {3} or not task.conditional or task.extras:
    more = '' if given == channels else f', data.input_channels={given}'
    yield (
      f'{network} is for data.channels=3 and tasks whose condition is an image of 3 '
      f'channels, not for data.channels={channels}{more} and '
      f'task.name={config.task.name!r}'
    )
  if m.patch != 1:
    yield f'model.patch={m.patch}: {network} has none, it must be 1'
  if m.label_dropout:
    yield (
      f'model.label_dropout={m.label_dropout:g}: {network} has no row for "no class", '
      'it must be 0'
    )
  if m.network == 'janspiry' and m.num_classes:
    yield f'model.num_classes={m.num_classes}: {network} has no classes'
  widths = [m.channels * factor for factor in m.multipliers]
  groups = m.groups if m.network == 'janspiry' else _GUIDED_GROUPS
  if any(width % groups for width in widths):
    of = 'model.groups' if m.network == 'janspiry' else f'the groups of {network}'
    yield (
      f'model.channels={m.channels} times each of model.multipliers must be multiples '
      f'of {groups}, {of}'
    )
  sides = (config.data.image_size / 2**level for level in range(len(widths) - 1))
  attend = [
    w for w, side in zip(widths, sides, strict=False) if side in m.attention_resolutions
  ]
  if m.network == 'guided' and any(w % m.num_heads for w in (*attend, widths[-1])):
    yield (
      f'model.num_heads={m.num_heads} must divide model.channels={m.channels} times '
      'the model.multipliers of all sides that have attention'
    )


def _costs(config: ml_collections.ConfigDict) -> Iterator[str]:
  """Say what is wrong with options that change speed and memory only."""
  m, most = config.model, 2 ** (len(config.model.multipliers) - 1)
  if m.fold > 1 and m.network != 'sr3':
    yield f'model.fold={m.fold}: model.network={m.network!r} has none, it must be 1'
  if m.fold & (m.fold - 1) or m.fold > most:
    yield (
      f'model.fold={m.fold} must be a power of 2, up to {most} with '
      f'{len(m.multipliers)} model.multipliers'
    )
  if m.keep != 'inputs' and not m.remat:
    yield f'model.keep={m.keep!r} is for model.remat=True, which is False'


def _refine(
  config: ml_collections.ConfigDict, task: degradations.Task
) -> Iterator[str]:
  """Say which options the network that predicts and refines doesn't have."""
  m, d, network = config.model, config.diffusion, "model.network='refine'"
  if d.prediction != 'v':
    yield f"diffusion.prediction={d.prediction!r}: {network} needs 'v'"
  if m.num_classes or m.dropout:
    yield f'model.num_classes and model.dropout: {network} has no classes, no dropout'
  if not task.conditional:
    yield f'task.name={config.task.name!r}: {network} needs a condition'


def _levels(config: ml_collections.ConfigDict) -> Iterator[str]:
  """Say what is wrong with the noise schedule and the steps over it."""
  d, sampler = config.diffusion, config.sampler
  if d.perceptual and config.data.channels != 3:
    yield (
      f'diffusion.perceptual={d.perceptual:g} is for data.channels=3, not '
      f'{config.data.channels}'
    )
  if d.schedule == 'linear':
    try:
      gammas = diffusion.linear_gammas(d.num_levels, d.start, d.end)
      # In float32 a smaller share of the signal is no number to divide by.
      if gammas[-1] < 1e-30:
        raise ValueError('betas must leave some signal at the last level')
      if np.any(np.diff(gammas) >= 0):
        raise ValueError('betas must be large enough to tell a level from the next')
    except ValueError as error:
      yield (
        f'diffusion.num_levels={d.num_levels} from diffusion.start={d.start:g} to '
        f'diffusion.end={d.end:g}: {error}'
      )
  if sampler.num_steps > d.num_levels:
    yield (
      f'sampler.num_steps={sampler.num_steps} must not be above '
      f'diffusion.num_levels={d.num_levels}'
    )


def _sampler(
  config: ml_collections.ConfigDict, task: degradations.Task
) -> Iterator[str]:
  """Say which options of the sampler the model doesn't have."""
  sampler, through = config.sampler, config.task.through
  if sampler.guidance != 1 and not config.model.label_dropout:
    yield f'sampler.guidance={sampler.guidance:g} needs model.label_dropout above 0'
  if sampler.name == 'ddpm_learned' and not config.diffusion.learned_variance:
    yield "sampler.name='ddpm_learned' needs diffusion.learned_variance"
  if sampler.consistency and (task.scale == 1 or task.extras or through or task.paired):
    with_through = f' with task.through={through}' if through else ''
    yield (
      f'sampler.consistency: task.name={config.task.name!r}{with_through} has no '
      'inputs that are its outputs downsampled'
    )


def _data(config: ml_collections.ConfigDict) -> Iterator[str]:
  """Say which ways to make crops don't go together, or with the loss."""
  d = config.data
  if d.crop != 'random' and tuple(d.reduce) != (1,):
    yield f"data.reduce={tuple(d.reduce)} is for data.crop='random', not {d.crop!r}"
  if d.crop == 'random' and d.reduced_decoding:
    yield "data.reduced_decoding is for data.crop='center' or 'none', not 'random'"
  if (weight := config.diffusion.perceptual) and d.image_size < LEAST_SIDE:
    yield (
      f'diffusion.perceptual={weight:g} needs data.image_size={LEAST_SIDE} or more, '
      f'not {d.image_size}'
    )


def _run(config: ml_collections.ConfigDict) -> Iterator[str]:
  """Say what is wrong with the lengths and parts of a run."""
  t, m, e = config.train, config.model, config.eval
  if t.decay_steps > t.num_steps:
    yield (
      f'train.decay_steps={t.decay_steps} must not be above '
      f'train.num_steps={t.num_steps}'
    )
  if t.profile and t.profile[1] > t.num_steps:
    yield (
      f'train.profile={tuple(t.profile)} must end by train.num_steps={t.num_steps}'
    )
  if t.batch_size % t.accumulate:
    yield (
      f'train.batch_size={t.batch_size} must be a multiple of '
      f'train.accumulate={t.accumulate}'
    )
  if m.label_dropout and not m.num_classes:
    yield f'model.label_dropout={m.label_dropout:g} needs model.num_classes above 0'
  if config.diffusion.learned_variance and m.network != 'guided':
    yield f"diffusion.learned_variance needs model.network='guided', not {m.network!r}"
  every, saves = e.every_steps, config.checkpoint.every_steps
  if config.checkpoint.keep_best and (not every or every % saves):
    yield (
      f'checkpoint.keep_best needs eval.every_steps={every} to be a multiple of '
      f'checkpoint.every_steps={saves}'
    )
  key = 'eval.image_size' if e.image_size else 'data.image_size'
  if config[key] <= 2 * e.border:
    yield f'eval.border={e.border} leaves nothing of {key}={config[key]}'
