"""Measures quality against sampling steps: --mode=sweep, how few a model needs.

Every sampler of `samplers.SAMPLERS` takes levels of every family:

  time, log_snr, cosine  trained levels, even in that coordinate (`diffusion.respace`)
  linear                 those of a line of betas, whose ends are searched over a small
                         grid, as the paper did for its at most 100 steps (section 2.4)

on the same held-out images, from the same starting noise. A trajectory is data, so one
compiled program takes them all, whatever their length. The yardstick is the paper's
sampler, alone with the most steps; `sweep_choice` says what is as good as it.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from sr3_jax.config import as_json
from sr3_jax.core.check import check_config
from sr3_jax.core.samplers import make_trajectory
from sr3_jax.core.sr3 import SR3
from sr3_jax.data import input_pipeline
from sr3_jax.evaluation import measure as evaluation_measure
from sr3_jax.evaluation import summary, sweep_choice
from sr3_jax.evaluation.scoring import Scorer
from sr3_jax.evaluation.sweep_choice import Row, Setting, SweepError
from sr3_jax.images import image_files
from sr3_jax.metrics.feature_nets import FeatureNet, load_nets
from sr3_jax.restoration.restorer import Restorer, progress
from sr3_jax.runtime import activity, atomic_files, devices, foreign_files
from sr3_jax.weights import hub

FILE = 'sweep.json'
# What sweep.json holds: 'measured', 'step', 'yardstick', 'rows', and 'presets' when all
# is measured.
Record = dict[str, Any]


def sweep_run(config: ConfigDict, workdir: epath.PathLike) -> list[Row]:
  """Do --mode=sweep: measure what sweep.json does not hold yet; choose presets.

  It writes sweep.json in the workdir (or model folder) after every setting, then
  presets.json and sweep.png. It returns a row for every setting, the yardstick first.

  Raises:
    SweepError: there is nothing to choose from.
    UserError: weights or images that cannot be read.
  """
  check_config(config)
  if config.method == 'regression':
    raise SweepError('a regression model takes one step: there is nothing to sweep')
  c, nets = config.sweep, _nets(config)
  workdir = epath.Path(workdir)
  model = SR3.from_config(config)
  learned = model.learned_variance
  settings = sweep_choice.all_settings(
    model.gammas, c.num_steps, c.search_steps, learned, c.temperatures
  )
  with activity.doing('reading the weights'):
    step, params = hub.load_weights(workdir, model)
  with activity.doing('reading the held-out images'):
    reader = input_pipeline.evaluation_data(config, c.num_images)
    batches = list(reader)
  reader.close()
  measured = _measured(config, hub.fingerprint(params), nets)
  rows = _rows_of(workdir / FILE, measured)
  record: Record = {
    'measured': measured,
    'step': step,
    'yardstick': settings[0],
    'rows': [row for row in rows if row['setting'] in settings],
  }
  longest = max(setting['num_steps'] for setting in settings)
  restorer = Restorer(model, params, config.seed, capacity=longest)
  _measure(record, settings, restorer, batches, nets, config.seed, workdir / FILE)
  record['rows'].sort(key=lambda row: settings.index(row['setting']))
  rows = record['rows']
  record['presets'] = presets = sweep_choice.choose(rows, c.judge)
  if jax.process_index() == 0:
    atomic_files.write_json(workdir / FILE, record)
    atomic_files.write_json(workdir / 'presets.json', presets)
    image_files.write(workdir / 'sweep.png', sweep_choice.plot(rows, c.judge))
    print(summary.format_table(sweep_choice.shown(rows, c.judge)))
    print(sweep_choice.verdicts(rows, presets, c.judge))
    print(f'presets: {workdir / "presets.json"}, plot: {workdir / "sweep.png"}')
  return rows


def _measure(
  record: Record,
  settings: Sequence[Setting],
  restorer: Restorer,
  batches: Sequence[dict[str, np.ndarray]],
  nets: dict[str, FeatureNet],
  seed: int,
  path: epath.Path,
) -> None:
  """Add the rows that are missing to a record, and write it after each."""
  done = [row['setting'] for row in record['rows']]
  missing = [s for s in settings if devices.agree(s not in done)]
  logging.info('%d settings, %d of them to measure', len(settings), len(missing))
  total = sum(setting['num_steps'] for setting in missing) * len(batches)
  scorer = Scorer(nets=nets)
  with progress(total) as on_steps:
    for setting in missing:
      restorer.choose(*make_trajectory(restorer.model.gammas, **setting))
      table = evaluation_measure.evaluate(
        restorer.model,
        {'it': restorer},
        batches,
        seed=seed,
        scorer=scorer,
        beside=(),
        on_steps=on_steps,
      ).table()
      scores = {k: v if math.isfinite(v) else None for k, v in table['it'].items()}
      record['rows'].append({'setting': setting} | scores)
      if jax.process_index() == 0:
        atomic_files.write_json(path, record)


def _nets(config: ConfigDict) -> dict[str, FeatureNet]:
  """Load the feature network that `sweep.judge` names, if it names one."""
  name = config.sweep.judge
  if name == 'spectrum_db':
    return {}
  side = config.eval.image_size or config.data.image_size
  nets, missing = load_nets([name], config.eval.weights, side, config.data.channels)
  if missing:
    raise SweepError(f'sweep.judge {name}: {missing[0]["why"]}')
  return nets


def _measured(
  config: ConfigDict, weights: str, nets: dict[str, FeatureNet]
) -> dict[str, object]:
  """Return all that a row depends on beside its setting."""
  values = as_json(config)
  parts = ('seed', 'method', 'task', 'data', 'model', 'diffusion')
  return {part: values[part] for part in parts} | {
    'weights': weights,
    **{key: config['sampler'][key] for key in ('clip', 'consistency')},
    'image_size': config['eval']['image_size'],
    'num_images': config['sweep']['num_images'],
    **{name: net.fingerprint for name, net in nets.items()},
  }


def _rows_of(path: epath.Path, measured: Mapping[str, object]) -> list[Row]:
  """Return the rows of an earlier sweep with the same weights and images."""
  if not path.exists():
    return []
  why = 'was made by other weights or images'
  try:
    record = foreign_files.read_json(path, {'measured': dict, 'rows': list})
    if record['measured'] == measured:
      return [foreign_files.checked(r, {'setting': dict}) for r in record['rows']]
  except ValueError:  # no file, no record, or rows that are none
    why = 'cannot be read as the record of a sweep'
  logging.warning('%s %s: measuring anew', path, why)
  return []
