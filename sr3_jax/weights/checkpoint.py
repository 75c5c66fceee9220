"""Checkpoints with Orbax: WORKDIR/checkpoints/STEP/{params,ema,optimizer,data,sums}.

The copies of the weights have names of their own, so that it is plain which one a
reader gets: `ema` is what sampling and evaluation use, `params` what training goes on
from. `data` is the position of the input pipeline. `sums` are checksums, made on the
devices before anything is written: what comes back later is compared with them.

Saving is asynchronous, and a checkpoint appears under its name only when it is
complete. One that is damaged nevertheless is moved to WORKDIR/damaged, and the one
before it is taken.
"""

import contextlib
import functools
import json
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from orbax.checkpoint import checkpoint_managers as policies

from sr3_jax.runtime import devices
from sr3_jax.runtime.errors import UserError, first_line
from sr3_jax.weights import checksums
from sr3_jax.weights.background_save import Manager
from sr3_jax.weights.model_files import checkpoint_folder

PARTS = ('params', 'ema', 'optimizer')
# Of what is in a checkpoint and how: raised when older programs can't read it any more.
# Kept in `sums`; those from before there were checksums count as 0.
VERSION = 1


class CheckpointError(UserError):
  """One line: which checkpoint, what is wrong, what to do."""


class Damaged(CheckpointError):
  """One line: what of a checkpoint can't be read, or isn't what was written."""


@contextlib.contextmanager
def open_manager(
  workdir: epath.PathLike,
  *,
  keep: int,
  keep_every: int = 0,
  best: str = '',
  lower_is_better: bool = False,
) -> Iterator[Manager]:
  """Manager of a run's checkpoints, for its one writer; all is written at the end.

  Args:
    workdir: of the run.
    keep: the newest so many are kept.
    keep_every: so are those at multiples of so many steps; 0 for none.
    best: so is the best by this metric of those saved with metrics; '' for none.
    lower_is_better: of that metric.

  Raises:
    CheckpointError: a checkpoint couldn't be written.
  """
  kept = [policies.LatestN(keep)]
  if keep_every:
    kept.append(policies.EveryNSteps(keep_every))
  options: dict[str, Any] = {}
  if best:
    worst = float('inf') if lower_is_better else -float('inf')
    metric = lambda metrics: metrics.get(best, worst)  # of those without any, too
    kept.append(policies.BestN(get_metric_fn=metric, reverse=lower_is_better, n=1))
    options = {'best_fn': metric, 'best_mode': 'min' if lower_is_better else 'max'}
  path = checkpoint_folder(workdir)
  if jax.process_index() == 0:
    path.mkdir(parents=True, exist_ok=True)
  devices.barrier('folder of checkpoints')
  manager = Manager(
    path,
    ocp.CheckpointManagerOptions(
      preservation_policy=policies.AnyPreservationPolicy(kept),
      create=False,
      cleanup_tmp_directories=True,  # of runs that were killed while saving
      **options,
    ),
  )
  try:
    yield manager
    with _written(manager):
      manager.wait_until_finished()
  finally:
    # Closing tells again what has been told, and would hide it.
    with contextlib.suppress(OSError, ValueError, RuntimeError):
      manager.close()


def save(
  manager: Manager,
  step: int,
  state: dict[str, Any],
  data: Any,
  metrics: dict[str, float] | None = None,
  stacked: bool = False,
) -> None:
  """Starts writing a checkpoint; returns as soon as the state is copied.

  Args:
    manager: from `open_manager`.
    step: number of training steps done.
    state: {'params', 'ema', 'optimizer'}: pytrees of arrays.
    data: the iterator whose position is kept.
    metrics: of an evaluation at this step, if there was one.
    stacked: arrays have an axis of length 1 in front, which is not written.

  Raises:
    CheckpointError: this one or the one before couldn't be written.
  """
  sums = checksums.of_state(state, stacked)
  for leaf in jax.tree.leaves(state):
    if leaf.is_fully_addressable:
      leaf.copy_to_host_async()

  state = jax.tree.map(functools.partial(_copy, stacked=stacked), state)
  parts = {name: ocp.args.StandardSave(state[name]) for name in PARTS}
  args = ocp.args.Composite(
    **parts,
    data=ocp.args.JsonSave(data.get_state()),
    sums=ocp.args.JsonSave(sums | {'version': VERSION}),
  )
  with _written(manager):
    manager.begin_save(step, args=args, metrics=metrics or {})


def check(manager: Manager) -> None:
  """Looks after a save that goes on; does not wait.

  Raises:
    CheckpointError: it couldn't be written.
  """
  if manager.failed:
    with _written(manager):
      manager.wait_until_finished()


def _copy(leaf: jax.Array, stacked: bool) -> Any:
  """What is written of an array, in memory that the next step does not take over."""
  if not leaf.is_fully_addressable:  # every process writes its parts
    return jax.device_put(leaf, leaf.sharding.with_memory_kind('pinned_host'))
  # What a process has whole: Orbax takes half the time for NumPy's arrays, and writes
  # those of process 0.
  shape = leaf.shape[1:] if stacked else leaf.shape
  if jax.process_index():
    return np.zeros(shape, leaf.dtype)
  # Only on CPUs the host's array is the device's.
  host = np.array(leaf) if jax.default_backend() == 'cpu' else np.asarray(leaf)
  return host.reshape(shape)


def restore(
  manager: Manager, state: dict[str, Any], data: Any
) -> tuple[int, dict[str, Any]]:
  """Reads the newest good checkpoint and sets the iterator to its position.

  Damaged ones are moved to WORKDIR/damaged, with a warning that says what was wrong.

  Args:
    manager: from `open_manager`; must hold a checkpoint.
    state: like what was saved; leaves tell shapes, dtypes and where parts are to be
      (`strategies`); neither devices nor processes need be those of the writer.
    data: the iterator to set.

  Returns:
    The step and the state.

  Raises:
    CheckpointError: it belongs to another network or optimizer or a version that this
      program doesn't know, or none is good.
  """
  args = {name: ocp.args.StandardRestore(state[name]) for name in PARTS}
  args['data'] = ocp.args.JsonRestore()
  damaged: dict[int, Any] = {}
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
      restored = _checked(manager, step, args)
    except Damaged as error:
      damaged[step] = error
    # One process may have met what others have not: all take the same.
    if all(devices.everywhere([restored is not None])):
      for other, reason in damaged.items():
        _set_aside(manager, other, reason)
      data.set_state(restored['data'])
      return step, {name: restored[name] for name in PARTS}
    damaged.setdefault(step, f'{path}: another process could not read it')
  # Left where they are: with none there, the next start would begin at step 0.
  raise CheckpointError(
    f'{next(iter(damaged.values()))}; no checkpoint here is good: bring back a copy, '
    'or remove the folder to start anew'
  )


def load_ema(workdir: epath.PathLike, params: Any) -> tuple[int, Any]:
  """Step and averaged weights of a run's newest good checkpoint.

  Args:
    workdir: of the run.
    params: like the parameters; leaves tell shapes and dtypes.

  Raises:
    CheckpointError: there is none, or it belongs to another network or a version that
      this program doesn't know.
  """
  path = checkpoint_folder(workdir)
  if not path.exists():
    raise CheckpointError(
      f'{workdir}: no checkpoints here; train first, or check --workdir'
    )
  with ocp.CheckpointManager(path) as manager:
    steps = sorted(manager.all_steps(), reverse=True)
    if not steps:
      raise CheckpointError(f'{path}: no complete checkpoint yet')
    ema = ocp.args.StandardRestore(devices.whole(params))
    for step in steps:
      version = _version(path / str(step))
      try:
        _check_fits(path / str(step) / 'ema', params)
        return step, _checked(manager, step, {'ema': ema}, summed=version > 0)['ema']
      except Damaged as error:
        if step == steps[-1]:
          raise CheckpointError(
            f'{error}; no checkpoint here is good: bring back a copy, or train again'
          ) from None
        logging.warning('%s; the checkpoint before it is taken', error)
  raise AssertionError


def _checked(
  manager: ocp.CheckpointManager, step: int, args: dict[str, Any], summed: bool = True
) -> Any:
  """What a checkpoint holds, compared with its checksums, if it has any.

  Raises:
    Damaged: it can't be read, or isn't what was written.
  """
  path = manager.directory / str(step)
  if summed:
    args = args | {'sums': ocp.args.JsonRestore()}
  with _explained(path):
    restored = manager.restore(step, args=ocp.args.Composite(**args))
  read = {name: restored[name] for name in PARTS if name in restored}
  for name, total in (checksums.of_state(read) if summed else {}).items():
    if total != restored['sums'].get(name):
      raise Damaged(f'{path / name}: damaged: not the numbers that were written')
  return restored


def _version(path: epath.Path) -> int:
  """The version of a checkpoint; this program's if it is too damaged to say.

  Raises:
    CheckpointError: it is of a later one.
  """
  if any((path / 'data').glob('process_*.json')):  # the iterator had a file
    return 0
  try:
    version = int(json.loads((path / 'sums' / 'metadata').read_text())['version'])
  except (OSError, ValueError, KeyError, TypeError):
    return VERSION
  if version > VERSION:
    raise CheckpointError(
      f'{path}: of a later sr3_jax (version {version} of checkpoints, this one knows '
      f'those up to {VERSION}): update sr3_jax'
    )
  return version


def _set_aside(manager: ocp.CheckpointManager, step: int, reason: Any) -> None:
  """Moves a damaged checkpoint out of the way, and says so."""
  path = manager.directory / str(step)
  place = manager.directory.parent / 'damaged'
  if jax.process_index() == 0:
    place.mkdir(parents=True, exist_ok=True)
    there = {p.name for p in place.iterdir()}
    names = (str(step), *(f'{step}.{i}' for i in range(1, 1000)))
    target = place / next(name for name in names if name not in there)
    logging.warning('%s; moved to %s, the one before it is taken', reason, target)
    try:
      path.rename(target)
    except OSError as error:
      raise CheckpointError(
        f'{path}: damaged, and cannot be moved ({error.strerror}): move it away, and '
        'the one before it is taken'
      ) from None
  devices.barrier(f'set aside {step}')
  manager.reload()


def _check_fits(path: epath.Path, tree: Any) -> None:
  """Compares names and shapes with what is stored.

  Orbax would find out halfway and leave pages of its own on the screen.

  Raises:
    CheckpointError: names an array that differs.
    Damaged: it can't be read.
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


@contextlib.contextmanager
def _explained(path: epath.Path) -> Iterator[None]:
  """Turns Orbax's pages about what it can't read into one line."""
  try:
    yield
  except (ValueError, KeyError, EOFError, FileNotFoundError, NotADirectoryError) as e:
    raise Damaged(f'{path}: damaged: {first_line(e)[:200]}') from None


@contextlib.contextmanager
def _written(manager: ocp.CheckpointManager) -> Iterator[None]:
  """Turns what stands in the way of writing into one line."""
  try:
    yield
  except (OSError, ValueError, RuntimeError) as error:
    steps = manager.all_steps()
    good = f'that of step {max(steps)} is good' if steps else 'there is no other'
    raise CheckpointError(
      f'{manager.directory}: a checkpoint could not be written; {good}. Is the disk '
      f'full? Make room, and the same command goes on: {first_line(error)[:200]}'
    ) from None
