"""What was done to an image before it is restored: pure functions of arrays."""

from sr3_jax.degradations.resizing import RESIZE, resize
from sr3_jax.degradations.tasks import TASKS, super_resolution

__all__ = ['RESIZE', 'TASKS', 'resize', 'super_resolution']
