"""Makes conditions from images: downsampled, masked, blurred, compressed ones.

All are pure functions of arrays. `tasks` names them; start with `make`.
"""

from sr3_jax.core.degradations.fills import smooth
from sr3_jax.core.degradations.resizing import RESIZE, area, nearest_consistent, resize
from sr3_jax.core.degradations.tasks import (
  MIXTURE,
  TASKS,
  Task,
  augment,
  describe,
  make,
  super_resolution,
  with_hole,
)

__all__ = [
  'MIXTURE',
  'RESIZE',
  'TASKS',
  'Task',
  'area',
  'augment',
  'describe',
  'make',
  'nearest_consistent',
  'resize',
  'smooth',
  'super_resolution',
  'with_hole',
]
