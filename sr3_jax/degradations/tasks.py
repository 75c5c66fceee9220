"""Tasks: pure functions `degrade(key, hr, **options) -> condition`.

float32 [B, H, W, C] in [-1, 1] in and out (a bicubic kernel may overshoot slightly).
The same function makes training pairs, evaluation inputs and the consistency metric,
inside the compiled step, so they cannot drift apart. `key` holds one key per example.
"""

from collections.abc import Callable

import jax

from sr3_jax.degradations.resizing import resize


def super_resolution(
  key: jax.Array, hr: jax.Array, *, scale: int, through: int = 0
) -> jax.Array:
  """The small image: bicubic, anti-aliased, `scale` times smaller (paper, section 4).

  Args:
    key: not used: nothing is random.
    hr: [B, H, W, C].
    scale: magnification.
    through: if not 0, the image is first reduced to this side and then enlarged to
      H // scale, as the paper does for its classification test (56, then 64).

  Returns:
    [B, H // scale, W // scale, C].

  Raises:
    ValueError: a side that scale does not divide.
  """
  del key  # nothing random
  height, width = hr.shape[1:3]
  if height % scale or width % scale:
    raise ValueError(f'images of {height} x {width} cannot be made {scale}x smaller')
  if through:
    hr = resize(
      hr, through * height // min(height, width), through * width // min(height, width)
    )
  return resize(hr, height // scale, width // scale)


TASKS: dict[str, Callable[..., jax.Array]] = {
  'super_resolution': super_resolution,
}
