"""Saves and restores the checkpoints of runs with Orbax.

They lie in WORKDIR/checkpoints/STEP/{params,ema,optimizer,data,sums}. The two copies of
the weights have names of their own, so that it is plain which one a reader gets: `ema`
is what sampling and evaluation use, `params` what training goes on from. `data` is the
position of the input pipeline. `sums` are checksums, computed on the devices before
anything is written: what is read later is compared with them.

Saving is asynchronous, and a checkpoint appears under its name only when it is
complete. A damaged one is moved to WORKDIR/damaged, and the one before it is taken;
`checkpoint_files` finds damage to any file.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from orbax.checkpoint import checkpoint_managers as policies

from sr3_jax.runtime import activity, devices, foreign_files
from sr3_jax.runtime.errors import UserError, first_line
from sr3_jax.runtime.types import Params
from sr3_jax.weights import checkpoint_files, checksums
from sr3_jax.weights.background_save import Manager
from sr3_jax.weights.model_files import checkpoint_folder

PARTS = ('params', 'ema', 'optimizer')
# Format of a checkpoint, raised when older programs can't read it any more. Stored
# in `sums`; checkpoints from before there were checksums count as version 0.
VERSION = 1

_NONE_GOOD = 'no checkpoint here is good: bring back a copy, or start anew elsewhere'

State = dict[str, Any]  # PARTS -> pytrees of arrays


class CheckpointError(UserError):
  """One line: which checkpoint, what is wrong, what to do."""


class Damaged(CheckpointError):
  """One line: what of a checkpoint can't be read, or isn't what was written."""


class DataIterator(Protocol):
  """An input pipeline whose position is saved; `data.batches.Batches` is one."""

  def get_state(self) -> Any:
    """Return the position, as JSON."""

  def set_state(self, state: Any) -> None:
    """Go to a position."""


@contextlib.contextmanager
def open_manager(
  workdir: epath.PathLike,
  *,
  keep: int,
  keep_every: int = 0,
  best: str = '',
  lower_is_better: bool = False,
) -> Iterator[Manager]:
  """Yield the manager of a run's checkpoints; at the end wait until all are written.

  A run may have one such manager at a time; readers open their own.

  Args:
    workdir: of the run.
    keep: how many of the newest checkpoints are kept.
    keep_every: those at multiples of this number of steps are kept too; 0 for none.
    best: the best by this metric, of those with metrics, is kept too; '' for none.
    lower_is_better: whether low values of that metric are good.

  Raises:
    CheckpointError: a checkpoint couldn't be written, or the files of all that are
      there are damaged.
  """
  preserved: list[policies.PreservationPolicy] = [policies.LatestN(keep)]
  if keep_every:
    preserved.append(policies.EveryNSteps(keep_every))
  options: dict[str, Any] = {}
  if best:
    worst = float('inf') if lower_is_better else -float('inf')

    def metric(metrics: dict[str, float]) -> float:
      return metrics.get(best, worst)  # checkpoints without metrics come last

    preserved.append(policies.BestN(get_metric_fn=metric, reverse=lower_is_better, n=1))
    options = {'best_fn': metric, 'best_mode': 'min' if lower_is_better else 'max'}
  path = checkpoint_folder(workdir)
  if jax.process_index() == 0:
    path.mkdir(parents=True, exist_ok=True)
    _look_at_files(path)
  devices.barrier('folder of checkpoints')
  manager_options = ocp.CheckpointManagerOptions(
    preservation_policy=policies.AnyPreservationPolicy(preserved),
    create=False,
    cleanup_tmp_directories=True,  # of runs that were killed while saving
    **options,
  )
  manager = Manager(path, manager_options)
  try:
    yield manager
    with activity.doing('writing checkpoints'), _written(manager):
      manager.wait_until_finished()
  finally:
    # Closing raises an error of the last save again, and would hide the first one.
    with contextlib.suppress(OSError, ValueError, RuntimeError):
      manager.close()


def save(
  manager: Manager,
  step: int,
  state: State,
  data: DataIterator,
  metrics: dict[str, float] | None = None,
  stacked: bool = False,
) -> None:
  """Start writing a checkpoint; return as soon as the state is copied.

  Args:
    manager: from `open_manager`.
    step: number of training steps done.
    state: {'params', 'ema', 'optimizer'}: pytrees of arrays.
    data: the iterator whose position is saved.
    metrics: of an evaluation at this step, if there was one.
    stacked: whether arrays have an axis of length 1 in front, which is not written.

  Raises:
    CheckpointError: this one or the one before couldn't be written.
  """
  sums = checksums.of_state(state, stacked)
  position = data.get_state()
  for leaf in jax.tree.leaves(state):
    if leaf.is_fully_addressable:
      leaf.copy_to_host_async()
  state = jax.tree.map(functools.partial(_copy, stacked=stacked), state)
  args = ocp.args.Composite(
    **{name: ocp.args.StandardSave(state[name]) for name in PARTS},
    data=ocp.args.JsonSave(position),
    sums=ocp.args.JsonSave(
      sums | {'version': VERSION, 'data': checksums.of_json(position)}
    ),
  )
  with _written(manager):
    manager.begin_save(step, args=args, metrics=metrics or {})


def check(manager: Manager) -> None:
  """Raise the CheckpointError of a save in the background, if it failed; don't wait."""
  if manager.failed:
    with _written(manager):
      manager.wait_until_finished()


def _copy(leaf: jax.Array, stacked: bool) -> jax.Array | np.ndarray:
  """Return a copy of an array on the host, which the next step cannot overwrite."""
  if not leaf.is_fully_addressable:  # every process writes its parts
    return jax.device_put(leaf, leaf.sharding.with_memory_kind('pinned_host'))
  # Orbax takes half the time for NumPy's arrays as for JAX's, and of these it writes
  # those of process 0 alone.
  shape = leaf.shape[1:] if stacked else leaf.shape
  if jax.process_index():
    return np.zeros(shape, leaf.dtype)
  # On CPUs the host's array would be the device's own memory.
  host = np.array(leaf) if jax.default_backend() == 'cpu' else np.asarray(leaf)
  return host.reshape(shape)


def restore(manager: Manager, state: State, data: DataIterator) -> tuple[int, State]:
  """Read step and state of the newest good checkpoint; set the iterator's position.

  Damaged ones are moved to WORKDIR/damaged, with a warning that says what was wrong.

  Args:
    manager: from `open_manager`; must hold a checkpoint.
    state: like what was saved; its leaves have the shapes, dtypes and shardings that
      are wanted. Devices and processes need not be those of the writer.
    data: the iterator to set.

  Raises:
    CheckpointError: the checkpoint belongs to another network or optimizer, or to a
      version that this program doesn't know; or no checkpoint is good.
  """
  args: State = {name: ocp.args.StandardRestore(state[name]) for name in PARTS}
  args['data'] = ocp.args.JsonRestore()
  damaged: dict[int, Damaged | str] = {}
  for step in sorted(manager.all_steps(), reverse=True):
    path, restored = manager.directory / str(step), None
    if _version(path) == 0:
      raise CheckpointError(
        f'{path}: of an earlier version, whose runs cannot go on; begin another with '
        'its weights (--config.train.init_from)'
      )
    try:
      for name in PARTS:
        _check_fits(path / name, state[name])
      restored = _checked(path, manager.restore, step, args)
      with _explained(path / 'data'):
        data.set_state(restored['data'])
    except Damaged as error:
      damaged[step] = error
    # A file may be unreadable for one process only; all must take the same checkpoint.
    good = devices.everywhere([restored is not None])
    if restored is not None and all(good):
      for other, reason in damaged.items():
        _set_aside(manager, other, reason)
      return step, {name: restored[name] for name in PARTS}
    damaged.setdefault(step, f'{path}: another process could not read it')
  # They stay where they are: in an empty folder the next start would begin at step 0.
  raise CheckpointError(f'{next(iter(damaged.values()))}; {_NONE_GOOD}')


def load_ema(workdir: epath.PathLike, params: Params) -> tuple[int, Params]:
  """Return the step and the averaged weights of a run's newest good checkpoint.

  The leaves of `params` have the shapes and dtypes that are wanted.

  Raises:
    CheckpointError: there is no good one, or it belongs to another network or to a
      version that this program doesn't know.
  """
  path = checkpoint_folder(workdir)
  if not path.exists():
    advice = 'train first, or check --workdir'
    raise CheckpointError(f'{workdir}: no checkpoints here; {advice}')
  steps = checkpoint_files.steps_in(path)
  if not steps:
    raise CheckpointError(f'{path}: no complete checkpoint yet')
  for step in steps:
    try:
      return step, _read_ema(path / str(step), params)
    except Damaged as error:
      if step == steps[-1]:
        raise CheckpointError(
          f'{error}; no checkpoint here is good: bring back a copy, or train again'
        ) from None
      logging.warning('%s; the checkpoint before it is taken', error)
  raise AssertionError


def _read_ema(path: epath.Path, params: Params) -> Params:
  """Read the averaged weights of one checkpoint, or raise Damaged."""
  # Orbax's manager would read files of all checkpoints, and wait for a pipe.
  if reason := checkpoint_files.damage(path):
    raise Damaged(reason)
  summed = _version(path) > 0
  _check_fits(path / 'ema', params)
  wanted = ocp.args.StandardRestore(devices.restore_targets(params))
  with _explained(path / 'ema'):
    ema = ocp.StandardCheckpointHandler().restore(path / 'ema', args=wanted)
  if summed:
    with _explained(path / 'sums'):
      sums = foreign_files.read_json(path / 'sums' / 'metadata')
    _compare(path, {'ema': ema}, sums)
  for place, leaf in jax.tree_util.tree_leaves_with_path(ema):
    if not jnp.isfinite(leaf).all():
      name = jax.tree_util.keystr(place, simple=True, separator='/')
      raise CheckpointError(f'{path}: {name} of ema holds values that are not finite')
  return ema


def _checked(
  path: epath.Path, restore: Callable[..., Any], step: int, args: State
) -> Mapping[str, Any]:
  """Read the parts named in `args`, and compare them with their checksums."""
  args = args | {'sums': ocp.args.JsonRestore()}
  with _explained(path):
    restored = restore(step, args=ocp.args.Composite(**args))
    sums = foreign_files.checked(restored['sums'], {})
  _compare(path, {name: restored[name] for name in PARTS}, sums)
  # Checkpoints of earlier programs have no checksum of the position.
  if sums.get('data', total := checksums.of_json(restored['data'])) != total:
    raise Damaged(f'{path / "data"}: damaged: not the position that was written')
  return restored


def _compare(path: epath.Path, read: State, sums: Mapping[str, Any]) -> None:
  """Raise Damaged if parts that were read don't have their checksums."""
  for name, total in checksums.of_state(read).items():
    if total != sums.get(name):
      raise Damaged(f'{path / name}: damaged: not the numbers that were written')


def _version(path: epath.Path) -> int:
  """Return the version of a checkpoint; this program's if it is too damaged to say."""
  # Version 0 stored the iterator in a file for each process.
  if any((path / 'data').glob('process_*.json')):
    return 0
  try:
    sums = foreign_files.read_json(path / 'sums' / 'metadata', {'version': int})
  except UserError:
    return VERSION
  version = sums['version']
  if version > VERSION:
    raise CheckpointError(
      f'{path}: of a later sr3_jax (version {version} of checkpoints, this one knows '
      f'those up to {VERSION}): update sr3_jax'
    )
  return version


def _set_aside(
  manager: ocp.CheckpointManager, step: int, reason: Damaged | str
) -> None:
  """Move a damaged checkpoint to WORKDIR/damaged, with a warning."""
  if jax.process_index() == 0:
    _move(manager.directory / str(step), reason)
  devices.barrier(f'set aside {step}')
  manager.reload()


def _look_at_files(folder: epath.Path) -> None:
  """Move checkpoints whose files are damaged away, if there are good ones."""
  steps = checkpoint_files.steps_in(folder)
  reasons = {step: checkpoint_files.damage(folder / str(step)) for step in steps}
  damaged = {step: reason for step, reason in reasons.items() if reason}
  if damaged and len(damaged) == len(steps):
    raise CheckpointError(f'{damaged[steps[0]]}; {_NONE_GOOD}')
  for step, reason in damaged.items():
    _move(folder / str(step), reason)


def _move(path: epath.Path, reason: Damaged | str) -> None:
  """Move a damaged checkpoint to WORKDIR/damaged, with a warning."""
  place, step = path.parent.parent / 'damaged', path.name
  place.mkdir(parents=True, exist_ok=True)
  names = (step, *(f'{step}.{i}' for i in range(1, 1000)))
  target = next(place / name for name in names if not os.path.lexists(place / name))
  logging.warning('%s; moved to %s, the one before it is taken', reason, target)
  try:
    path.rename(target)
  except OSError as error:
    raise CheckpointError(
      f'{path}: damaged, and cannot be moved ({error.strerror}): move it away, and '
      'the one before it is taken'
    ) from None


def _shapes(tree: object) -> dict[str, list[int]]:
  """Return the shapes of a pytree's arrays by their names."""
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): list(leaf.shape)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def _check_fits(path: epath.Path, tree: object) -> None:
  """Raise an error that names the first array that isn't stored as it is in `tree`."""
  # Orbax would notice a difference while it reads, and print pages about it.
  with _explained(path):
    stored = _shapes(ocp.StandardCheckpointHandler().metadata(path).tree)
  wanted = _shapes(tree)
  for name in sorted(stored.keys() | wanted.keys()):
    there, here = stored.get(name, 'missing'), wanted.get(name, 'missing')
    if there != here:
      raise CheckpointError(
        f'{path}: of another network or optimizer than this configuration: {name} is '
        f'{there} there, {here} here; take another --workdir, or the settings in its '
        'config.json'
      )


@contextlib.contextmanager
def _explained(path: epath.Path) -> Iterator[None]:
  """Raise `Damaged`, one line, in place of the pages that Orbax prints."""
  try:
    yield
  except (CheckpointError, MemoryError, jax.errors.JaxRuntimeError):
    raise
  except PermissionError as error:
    raise CheckpointError(f'{path}: cannot be read: {error.strerror}') from None
  except Exception as error:  # TensorStore and Orbax raise many types for damage
    while isinstance(error, ExceptionGroup):
      error = error.exceptions[0]
    raise Damaged(f'{path}: damaged: {first_line(error)[:200]}') from None


@contextlib.contextmanager
def _written(manager: ocp.CheckpointManager) -> Iterator[None]:
  """Raise `CheckpointError`, one line, in place of the errors that Orbax raises."""
  try:
    yield
  except (OSError, ValueError, RuntimeError) as error:
    steps = manager.all_steps()
    good = f'that of step {max(steps)} is good' if steps else 'there is no other'
    raise CheckpointError(
      f'{manager.directory}: a checkpoint could not be written; {good}. Is the disk '
      f'full? Make room, and the same command goes on: {first_line(error)[:200]}'
    ) from None
