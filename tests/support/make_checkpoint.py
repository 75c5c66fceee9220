"""Makes the checkpoint that is stored with the tests, of a still smaller run.

    python tests/support/make_checkpoint.py tests/support/data/checkpoint_1.zip

Run it only when `checkpoint.VERSION` is raised, with a new name: the stored files were
written by former releases, and every release has to read them. The archive holds
checkpoints/3/ and expected.json, with the results of the release that made it.
"""

import json
import os
import pathlib
import sys
import tempfile
import zipfile

import jax
import numpy as np

from sr3_jax.config import ConfigDict
from sr3_jax.training import train
from tests.support import runs

STEPS = 3


def get_config() -> ConfigDict:
  """Return the configuration of a run of three steps."""
  c = runs.get_config()
  c.model.channels = 2
  c.model.patch = 1
  c.train.num_steps = STEPS
  c.train.log_every = 1
  c.eval.every_steps = 0
  c.checkpoint.every_steps = STEPS
  return c


def norm(tree) -> float:
  """Return the norm of all floating-point numbers of a tree."""
  leaves = [np.float64(a) for a in jax.tree.leaves(tree) if a.dtype.kind == 'f']
  return float(np.sqrt(sum(np.sum(a**2) for a in leaves)))


def norms(state) -> dict[str, float]:
  """Return the norm of each part of a state."""
  return {name: norm(tree) for name, tree in state.saved().items()}


def last_loss(workdir: pathlib.Path) -> float:
  """Return the loss in the last line of metrics.jsonl."""
  return json.loads((workdir / 'metrics.jsonl').read_text().splitlines()[-1])['loss']


def main(target: str) -> None:
  """Write the archive `target`."""
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(temporary)
    config = get_config()
    expected = {'norms': norms(train.train(config, folder))}
    files = [p for p in (folder / 'checkpoints').rglob('*') if p.is_file()]
    with zipfile.ZipFile(target, 'x', zipfile.ZIP_DEFLATED) as archive:
      for path in files:
        archive.write(path, path.relative_to(folder))
      config.train.num_steps = STEPS + 1
      expected['norms after a step'] = norms(train.train(config, folder))
      expected['loss of that step'] = last_loss(folder)
      archive.writestr('expected.json', json.dumps(expected, indent=2))
  print(target, os.path.getsize(target), expected)


if __name__ == '__main__':
  main(*sys.argv[1:])
