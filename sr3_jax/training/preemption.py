"""Notices SIGTERM, which clusters and Cloud TPU send before they take a machine away.

Ctrl-C asks for the same: save, then end. A single process looks at a note of the first
signal. Several processes must agree on a step: JAX's preemption service tells all of
them when one gets SIGTERM, and all stop after the same step.
"""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

import jax
from absl import logging
from jax.experimental import multihost_utils

from sr3_jax.runtime import interruption


@contextlib.contextmanager
def notices() -> Iterator[Callable[[int], bool]]:
  """Provide a function of the step that returns whether to save now and stop.

  It must be called after every step, in every process. Until its first call there is
  nothing to save, and signals end the process at once. Where no command took over the
  signals (notebooks, tests) it returns False.
  """
  several = jax.process_count() > 1

  def note(number: int) -> None:
    name = signal.Signals(number).name
    logging.warning('%s: saving after this step; Ctrl-C ends at once', name)
    if several:  # to itself: JAX has taken over this signal, and tells all processes
      os.kill(os.getpid(), signal.SIGTERM)

  with contextlib.ExitStack() as stack:
    armed = False

    def asked(step: int) -> bool:
      nonlocal armed
      if not armed:
        stack.enter_context(interruption.deferred(note))
        armed = True
      if several:
        return multihost_utils.reached_preemption_sync_point(step)
      return interruption.noted() is not None

    yield asked
