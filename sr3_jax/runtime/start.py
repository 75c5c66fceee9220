"""Starts the commands: console scripts and `python -m` call these functions.

Each takes over the signals first and imports its command then, which may take seconds.
"""

import contextlib
import importlib
import os
import sys

from sr3_jax.runtime import early

early.install()  # what is imported above is there already, or takes no time

_GOES_ON = 'the same command goes on from what is finished'
_CLOSED = 141  # exit code of a program whose reader is gone, as shells give it


def _start(module: str, function: str = 'main', advice: str = '') -> int | None:
  """Run a command; return its exit code."""
  from sr3_jax.runtime import interruption

  interruption.install(advice)
  try:
    try:
      return getattr(importlib.import_module(module), function)()
    finally:
      sys.stdout.flush()
  except BrokenPipeError:  # `| head` has seen enough
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return _CLOSED
  except Exception as error:
    return _explain(error)


def _explain(error: Exception) -> int:
  """Print one line about trouble of the machine; raise every other error again."""
  from sr3_jax.runtime import activity, errors

  explained = errors.of_machine(error)
  if explained is None or activity.tells_all():
    raise error
  if isinstance(error, OSError):  # else Python, too, tries to write what is left
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
  with contextlib.suppress(OSError):
    print(f'error: {explained}', file=sys.stderr)
  return 1


def channels() -> int | None:
  """Run sr3-channels; return its exit code."""
  return _start('sr3_jax.data.channels')


def convert() -> int | None:
  """Run sr3-convert; return its exit code."""
  return _start('sr3_jax.weights.convert')


def demo() -> int | None:
  """Run sr3-demo; return its exit code."""
  return _start('sr3_jax.demo.command')


def evaluate() -> int | None:
  """Run sr3-evaluate; return its exit code."""
  return _start('sr3_jax.evaluation.command', advice=_GOES_ON)


def export() -> int | None:
  """Run sr3-export; return its exit code."""
  return _start('sr3_jax.export.command')


def net_weights() -> int | None:
  """Run `python -m sr3_jax.metrics.net_weights`; return its exit code."""
  return _start('sr3_jax.metrics.net_weights', advice=_GOES_ON)


def push() -> int | None:
  """Run sr3-push; return its exit code."""
  return _start('sr3_jax.weights.push_command')


def report() -> int | None:
  """Run sr3-report; return its exit code."""
  return _start('sr3_jax.reports.command')


def study() -> int | None:
  """Run sr3-study; return its exit code."""
  return _start('sr3_jax.human_study.command')


def train() -> int | None:
  """Run sr3-train; return its exit code."""
  return _start('sr3_jax.main', 'cli', advice=_GOES_ON)


def upscale() -> int | None:
  """Run sr3-upscale; return its exit code."""
  return _start('sr3_jax.upscale.command', advice=_GOES_ON)
