"""Orbax's manager of checkpoints with saves in the background that cost little."""

import threading
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath


class Manager(ocp.CheckpointManager):
  """Orbax's manager, whose saves can also be made in the background.

  Its own asynchronous saves spend some 0.2 s in Python before they return, whatever the
  size of the state: more than a step of a small network, and with several processes
  more still.
  """

  def __init__(self, directory: epath.Path, options: ocp.CheckpointManagerOptions):
    # All processes, by their numbers: they then meet at the coordinator and not in a
    # collective, which in the background would get among those of the training.
    options.multiprocessing_options = ocp.options.MultiprocessingOptions(
      active_processes=set(range(jax.process_count()))
    )
    options.enable_async_checkpointing = False
    super().__init__(directory, options=options)
    self._begun: threading.Thread | None = None
    self._error: BaseException | None = None

  def begin_save(self, step: int, **options: Any) -> None:
    """`save` of arrays that nobody changes; raises what the one before it met."""
    self.wait_until_finished()
    # A daemon: a process that ends because another died does not wait for it.
    self._begun = threading.Thread(
      target=self._save_here, args=(step,), kwargs=options, daemon=True
    )
    self._begun.start()

  def _save_here(self, step: int, **options: Any) -> None:
    try:
      self.save(step, **options)
    except BaseException as error:
      self._error = error

  @property
  def failed(self) -> bool:
    """Whether a save in the background has met an error that nobody knows of yet."""
    return self._error is not None

  def wait_until_finished(self) -> None:
    # `save` calls this, too, and would wait for itself.
    if self._begun and threading.current_thread() is not self._begun:
      self._begun.join()
      self._begun, error, self._error = None, self._error, None
      if error:
        raise error
    super().wait_until_finished()

  def reached_preemption(self, step: int) -> bool:
    """Asked at every save; `preemption.notices` asks JAX, at the step of the loop."""
    del step
    return False
