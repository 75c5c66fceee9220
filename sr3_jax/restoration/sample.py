"""Restores a few held-out images several times, for `--mode=sample`."""

import jax
import numpy as np
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from sr3_jax.core.check import check_config
from sr3_jax.data.input_pipeline import evaluation_data
from sr3_jax.images import contact_sheets, image_files, pixels
from sr3_jax.restoration.restorer import (
  TRUTH,
  check_finite,
  degrader,
  load_method,
  progress,
)
from sr3_jax.runtime import activity, devices


def sample_run(config: ConfigDict, workdir: epath.PathLike) -> None:
  """Write IMAGE_{input,truth,SAMPLE}.png and sheet.png into WORKDIR/samples.

  Raises:
    UserError: the options don't fit, the data can't be read, there are no weights, or
      they give NaN.
  """
  check_config(config)
  workdir = epath.Path(workdir)
  count, samples = config.sample.num_images, config.sample.num_samples
  with activity.doing('looking for the held-out images'):
    batches = evaluation_data(config, count)
  with activity.doing('reading the weights'):
    step, method, _ = load_method(config, workdir)
  degrade = degrader(method.model, config.seed)
  titles = [f'sample {i + 1}' for i in range(samples)]
  if method.model.task.conditional:
    titles = ['input', *titles, TRUTH]
  rows = []
  with progress(method.num_steps * batches.num_batches * samples) as on_steps:
    for batch in batches:
      real = np.flatnonzero(batch['mask'])  # the others fill up the batch
      mask, indices = batch['mask'], batch['index'].tolist()
      numbers = batch['index'][real]
      batch = devices.shard(batch)
      hr, condition, _ = degrade(batch)
      outputs = [method(condition, batch, i, on_steps) for i in range(samples)]
      names = [batches.image_name(index) for index in indices]
      for output in outputs:
        check_finite(output, mask, names.__getitem__, config.method)
      shown = dict(zip(map(str, range(samples)), outputs, strict=True))
      if method.model.task.conditional:
        observed = method.model.observed(condition)
        shown = {'input': observed} | shown | {TRUTH: hr}
      columns = [pixels.to_picture(c) for c in devices.gather([*shown.values()])]
      for i, number in zip(real, numbers, strict=True):
        rows.append([column[i] for column in columns])
        for name, column in zip(shown, columns, strict=True):
          image_files.write(workdir / 'samples' / f'{number:05d}_{name}.png', column[i])
  batches.close()
  if jax.process_index() == 0:
    # WORKDIR/samples.png is the run's result.
    sheet = workdir / 'samples' / 'sheet.png'
    image_files.write(sheet, contact_sheets.sheet(rows[:16], titles))
    logging.info('step %d: %d samples of each of %d images', step, samples, count)
    print(f'pictures: {workdir / "samples"}, sheet: {sheet}')
