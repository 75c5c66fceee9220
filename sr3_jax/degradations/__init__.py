"""What was done to an image before it is restored: pure functions of arrays."""

from sr3_jax.degradations.resizing import RESIZE, area, resize
from sr3_jax.degradations.tasks import (
  TASKS,
  Task,
  augment,
  make,
  super_resolution,
  with_hole,
)

__all__ = [
  'RESIZE',
  'TASKS',
  'Task',
  'area',
  'augment',
  'make',
  'resize',
  'super_resolution',
  'with_hole',
]
