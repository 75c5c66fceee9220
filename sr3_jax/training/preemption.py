"""Being asked to go: SIGTERM, as clusters and Cloud TPU send it before they take all.

A process that is alone looks at a flag that a signal handler sets. Several have to
agree on a step, which JAX's preemption service does for them: whoever gets the notice
tells the others, and all go on to the same step.
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
  """Gives a function of the step: whether to save now and go.

  With several processes every process calls it at every step. Signals reach the main
  thread only; elsewhere (notebooks, tests) nothing is watched.
  """
  if jax.process_count() > 1:
    yield multihost_utils.reached_preemption_sync_point
    return
  if threading.current_thread() is not threading.main_thread():
    yield lambda step: False
    return
  noticed = threading.Event()

  def handle(number, frame):
    del number, frame
    logging.warning('SIGTERM: saving after this step')
    noticed.set()

  before = signal.signal(signal.SIGTERM, handle)
  try:
    yield lambda step: noticed.is_set()
  finally:
    signal.signal(signal.SIGTERM, before)
