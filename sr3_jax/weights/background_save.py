"""Saves checkpoints with Orbax in a thread of their own."""

import threading
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from sr3_jax.weights import checkpoint_files


class Manager(ocp.CheckpointManager):
  """Orbax's manager of checkpoints, whose saves can also run in the background.

  Orbax's own asynchronous saves spend about 0.2 s in Python before they return,
  whatever the size of the state (benchmarks/saving.py measures it): more than a step of
  a small network, and more still with several processes. Of the options those about
  processes and asynchrony are replaced.
  """

  def __init__(self, directory: epath.Path, options: ocp.CheckpointManagerOptions):
    # With this option processes wait for each other at the coordinator. Without it they
    # would wait in a collective, which would mix with those of the training.
    options.multiprocessing_options = ocp.options.MultiprocessingOptions(
      active_processes=set(range(jax.process_count()))
    )
    options.enable_async_checkpointing = False
    super().__init__(directory, options=options)
    self._begun: threading.Thread | None = None
    self._error: BaseException | None = None

  def begin_save(self, step: int, **options: Any) -> None:
    """Start `save` in the background; until it is done no array of it may change.

    Raises:
      Exception: what the save before this one raised.
    """
    self.wait_until_finished()
    # A daemon thread does not hold up a process that ends because another died.
    self._begun = threading.Thread(
      target=self._save_here, args=(step,), kwargs=options, daemon=True
    )
    self._begun.start()

  def _save_here(self, step: int, **options: Any) -> None:
    """Save, and remember what goes wrong."""
    try:
      self.save(step, **options)
      if jax.process_index() == 0:
        checkpoint_files.remember(self.directory, step)
    except BaseException as error:
      self._error = error

  @property
  def failed(self) -> bool:
    """Whether a save in the background failed and nothing has raised its error yet."""
    return self._error is not None

  def wait_until_finished(self) -> None:
    """Wait for the save in the background; raise the error that it met."""
    # `save` calls this method, too, and its thread must not wait for itself.
    if self._begun and threading.current_thread() is not self._begun:
      self._begun.join()
      self._begun, error, self._error = None, self._error, None
      if error:
        raise error
    super().wait_until_finished()

  def reached_preemption(self, step: int) -> bool:
    """Return False: the training loop itself asks JAX for preemption notices."""
    del step
    return False
