"""Quality against sampling steps: --mode=sweep finds out how few steps a model needs.

Every sampler of `samplers.SAMPLERS` takes levels of every family:

  time, log_snr, cosine  trained levels, even in that coordinate (`diffusion.respace`)
  linear                 those of a line of betas, whose ends are searched over a small
                         grid, as the paper did for its at most 100 steps (section 2.4)

on the same held-out images, from the same starting noise. A trajectory is data, so one
compiled program takes them all, whatever their length. The yardstick is the paper's
sampler, alone with the most steps; `sweep_choice` says what is as good as it.
"""

import json
import math
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging
from etils import epath

from sr3_jax.config import as_json
from sr3_jax.core.check import check_config
from sr3_jax.core.samplers import make_trajectory
from sr3_jax.core.sr3 import SR3
from sr3_jax.data import input_pipeline
from sr3_jax.evaluation import measure as evaluation_measure
from sr3_jax.evaluation import summary
from sr3_jax.evaluation.scoring import Scorer
from sr3_jax.evaluation.sweep_choice import (
  JUDGES,
  Row,
  SweepError,
  all_settings,
  choose,
  plot,
  shown,
  verdicts,
)
from sr3_jax.images import image_files
from sr3_jax.metrics.feature_nets import FeatureNet, load_nets
from sr3_jax.restoration.restorer import Restorer, progress
from sr3_jax.runtime import atomic_files, devices
from sr3_jax.weights import hub


def sweep_run(config: ml_collections.ConfigDict, workdir: epath.PathLike) -> list[Row]:
  """--mode=sweep: measures what sweep.json does not hold yet; chooses presets.

  Writes sweep.json after every setting, then presets.json and sweep.png.

  Args:
    config: of the model.
    workdir: of its run, or its model folder.

  Returns:
    A row for every setting, the yardstick first.

  Raises:
    SweepError: there is nothing to choose from.
    hub.HubError, checkpoint.CheckpointError, sources.DataError: as they say.
  """
  check_config(config)
  if config.method == 'regression':
    raise SweepError('a regression model takes one step: there is nothing to sweep')
  judge, nets = config.sweep.judge, _nets(config)
  workdir = epath.Path(workdir)
  model = SR3.from_config(config)
  settings = all_settings(
    model.gammas,
    config.sweep.num_steps,
    config.sweep.search_steps,
    model.learned_variance,
    config.sweep.temperatures,
  )
  step, params = hub.load_weights(workdir, model)
  batches = evaluation_batches(config)
  path = workdir / 'sweep.json'
  record = {
    'measured': _measured(config, hub.fingerprint(params), nets),
    'step': step,
    'yardstick': settings[0],
    'rows': [],
  }
  done = _rows_of(path, record['measured'])
  todo = [s for s in settings if devices.agree(s not in [r['setting'] for r in done])]
  record['rows'] = [row for row in done if row['setting'] in settings]
  logging.info('%d settings, %d of them to measure', len(settings), len(todo))
  scorer = Scorer(nets=nets)
  longest = max(setting['num_steps'] for setting in settings)
  restorer = Restorer(model, params, config.seed, capacity=longest)
  main_process = jax.process_index() == 0
  total = sum(setting['num_steps'] for setting in todo) * len(batches)
  with progress(total) as on_steps:
    for setting in todo:
      restorer.choose(*make_trajectory(model.gammas, **setting))
      table = evaluation_measure.evaluate(
        model,
        {'it': restorer},
        batches,
        seed=config.seed,
        scorer=scorer,
        beside=(),
        on_steps=on_steps,
      ).table()
      scores = {k: v if math.isfinite(v) else None for k, v in table['it'].items()}
      record['rows'].append({'setting': setting} | scores)
      if main_process:
        atomic_files.write_json(path, record)
  rows = sorted(record['rows'], key=lambda row: settings.index(row['setting']))
  presets = choose(rows, judge)
  if main_process:
    atomic_files.write_json(path, record | {'rows': rows, 'presets': presets})
    atomic_files.write_json(workdir / 'presets.json', presets)
    image_files.write(workdir / 'sweep.png', plot(rows, judge))
    print(summary.format_table(shown(rows, judge)))
    print(verdicts(rows, presets, judge))
    print(f'presets: {workdir / "presets.json"}, plot: {workdir / "sweep.png"}')
  return rows


def _nets(config: ml_collections.ConfigDict) -> dict[str, FeatureNet]:
  """The network that judges, if one does."""
  judge = config.sweep.judge
  if judge not in JUDGES:
    raise SweepError(f'sweep.judge {judge!r}: give {", ".join(JUDGES)}')
  if judge == 'spectrum_db':
    return {}
  side = config.eval.image_size or config.data.image_size
  nets, missing = load_nets([judge], config.eval.weights, side, config.data.channels)
  if missing:
    raise SweepError(f'sweep.judge {judge}: {missing[0]["why"]}')
  return nets


def evaluation_batches(
  config: ml_collections.ConfigDict,
) -> list[dict[str, np.ndarray]]:
  """The held-out images, read once for all settings."""
  reader = input_pipeline.evaluation_data(config, config.sweep.num_images)
  batches = list(reader)
  reader.close()
  return batches


def _measured(
  config: ml_collections.ConfigDict, weights: str, nets: dict[str, FeatureNet]
) -> dict[str, Any]:
  """All that a row depends on beside its setting."""
  config = as_json(config)
  parts = ('seed', 'method', 'task', 'data', 'model', 'diffusion')
  return {part: config[part] for part in parts} | {
    'weights': weights,
    'clip': config['sampler']['clip'],
    'consistency': config['sampler']['consistency'],
    'image_size': config['eval']['image_size'],
    'num_images': config['sweep']['num_images'],
    **{name: net.fingerprint for name, net in nets.items()},
  }


def _rows_of(path: epath.Path, measured: dict[str, Any]) -> list[Row]:
  """The rows of an earlier sweep, if they are of the same weights and images."""
  if not path.exists():
    return []
  try:
    record = json.loads(path.read_text())
    if record['measured'] == measured:
      return record['rows']
  except (ValueError, KeyError, TypeError):
    logging.warning('%s: not a sweep of ours: measuring anew', path)
    return []
  logging.warning('%s is of other weights or images: measuring anew', path)
  return []
