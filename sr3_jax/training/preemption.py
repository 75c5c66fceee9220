"""Notices SIGTERM, which clusters and Cloud TPU send before they take a machine away.

A single process looks at a flag that a signal handler sets. Several processes must
agree on a step: JAX's preemption service tells all of them when one gets the notice,
and all stop after the same step.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import jax
from absl import logging
from jax.experimental import multihost_utils


@contextlib.contextmanager
def notices() -> Iterator[Callable[[int], bool]]:
  """Provide a function of the step that returns whether to save now and stop.

  With several processes every process must call it at every step. Signals reach only
  the main thread; in other threads (notebooks, tests) the function returns False.
  """
  if jax.process_count() > 1:
    yield multihost_utils.reached_preemption_sync_point
    return
  if threading.current_thread() is not threading.main_thread():
    yield lambda step: False
    return
  noticed = threading.Event()

  def handle(*_):
    logging.warning('SIGTERM: saving after this step')
    noticed.set()

  before = signal.signal(signal.SIGTERM, handle)
  try:
    yield lambda step: noticed.is_set()
  finally:
    signal.signal(signal.SIGTERM, before)
