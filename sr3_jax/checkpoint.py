"""Checkpoints with Orbax: WORKDIR/checkpoints/STEP/{params,ema,optimizer,data}.

The copies of the weights have names of their own, so that it is plain which one a
reader gets: `ema` is what sampling and evaluation use, `params` what training goes on
from. `data` is the position of the input pipeline. Saving is asynchronous, and a
checkpoint appears under its name only when it is complete.
"""

import os
from typing import Any

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

PARTS = ('params', 'ema', 'optimizer')


class CheckpointError(ValueError):
  """One line: which checkpoint, what is wrong, what to do."""


def folder(workdir: epath.PathLike) -> epath.Path:
  """Where a run keeps its checkpoints; absolute, as Orbax wants it."""
  path = epath.Path(workdir) / 'checkpoints'
  # `resolve` would take gs:// for a folder of this machine.
  return path if '://' in os.fspath(path) else path.resolve()


def open_manager(workdir: epath.PathLike, *, keep: int) -> ocp.CheckpointManager:
  """Manager of a run's checkpoints, for its one writer; the newest `keep` are kept."""
  options = ocp.CheckpointManagerOptions(
    max_to_keep=keep,
    create=True,
    enable_async_checkpointing=True,
    cleanup_tmp_directories=True,  # of runs that were killed while saving
  )
  return ocp.CheckpointManager(folder(workdir), options=options)


def save(
  manager: ocp.CheckpointManager, step: int, state: dict[str, Any], data: Any
) -> None:
  """Starts writing a checkpoint; returns as soon as the state is copied.

  Args:
    manager: from `open_manager`.
    step: number of training steps done.
    state: {'params', 'ema', 'optimizer'}: pytrees of arrays.
    data: the Grain iterator.
  """
  if jax.process_count() > 1:
    # Every process holds the same copy: as NumPy, Orbax writes that of process 0.
    state = jax.device_get(state)
  parts = {name: ocp.args.StandardSave(state[name]) for name in PARTS}
  manager.save(
    step, args=ocp.args.Composite(**parts, data=grain.checkpoint.CheckpointSave(data))
  )


def restore(
  manager: ocp.CheckpointManager, state: dict[str, Any], data: Any
) -> tuple[int, dict[str, Any]]:
  """Reads the newest checkpoint and sets the iterator to its position.

  Args:
    manager: from `open_manager`; must hold a checkpoint.
    state: like what was saved; leaves tell shapes and dtypes.
    data: the Grain iterator to set.

  Returns:
    The step and the state.

  Raises:
    CheckpointError: it belongs to another network or optimizer.
  """
  step = manager.latest_step()
  parts = {name: ocp.args.StandardRestore(_abstract(state[name])) for name in PARTS}
  args = ocp.args.Composite(**parts, data=grain.checkpoint.CheckpointRestore(data))
  for name in PARTS:
    _check_fits(manager.directory / str(step) / name, state[name])
  with _explained(manager.directory / str(step)):
    restored = manager.restore(step, args=args)
  return step, {name: restored[name] for name in PARTS}


def load_ema(workdir: epath.PathLike, params: Any) -> tuple[int, Any]:
  """Step and averaged weights of a run's newest checkpoint.

  Args:
    workdir: of the run.
    params: like the parameters; leaves tell shapes and dtypes.

  Raises:
    CheckpointError: there is none, or it belongs to another network.
  """
  path = folder(workdir)
  if not path.exists():
    raise CheckpointError(
      f'{workdir}: no checkpoints here; train first, or check --workdir'
    )
  with ocp.CheckpointManager(path) as manager:
    step = manager.latest_step()
    if step is None:
      raise CheckpointError(f'{path}: no complete checkpoint yet')
    args = ocp.args.Composite(ema=ocp.args.StandardRestore(_abstract(params)))
    _check_fits(path / str(step) / 'ema', params)
    with _explained(path / str(step)):
      return step, manager.restore(step, args=args)['ema']


def _abstract(tree: Any) -> Any:
  """Shapes and dtypes: to the first device of one process, to NumPy in several."""
  if jax.process_count() > 1:
    return jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), tree)
  sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
  )


def _check_fits(path: epath.Path, tree: Any) -> None:
  """Compares names and shapes with what is stored.

  Orbax would find out halfway and leave pages of its own on the screen.

  Raises:
    CheckpointError: names an array that differs.
  """

  def shapes(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator='/')
    return {name(path): list(leaf.shape) for path, leaf in leaves}

  with _explained(path):
    stored = shapes(ocp.StandardCheckpointHandler().metadata(path).tree)
  wanted = shapes(tree)
  for name in sorted(stored.keys() | wanted.keys()):
    there, here = stored.get(name, 'missing'), wanted.get(name, 'missing')
    if there != here:
      raise CheckpointError(
        f'{path}: of another network or optimizer than this configuration: {name} is '
        f'{there} there, {here} here; take another --workdir, or the settings in its '
        'config.json'
      )


class _explained:
  """Turns Orbax's pages about what it can't read into one line."""

  def __init__(self, path: epath.Path):
    self._path = path

  def __enter__(self) -> None:
    pass

  def __exit__(self, kind, error, trace) -> None:
    del kind, trace
    if isinstance(error, ValueError | KeyError | FileNotFoundError):
      first = str(error).strip().splitlines()[0][:200]
      raise CheckpointError(
        f'{self._path}: damaged; remove this step, and the one before is taken. Orbax '
        f'says: {first}'
      ) from None
