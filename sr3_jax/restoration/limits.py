"""Says what the options of an `Upscaler` may be, for Python and the command line.

What a model can take of it is checked when the model is there.
"""

from sr3_jax.runtime.values import Kind, Number, Whole

LIMITS: dict[str, Kind] = {
  'steps': Whole(1, 10**6),
  'temperature': Number(0, 1, above=True),
  'seed': Whole(),
  'num_samples': Whole(1, 1000),
  'label': Whole(0, 10**6),
  'guidance': Number(0, 100),
  'outscale': Number(0, 64, above=True),
  'blur': Number(0, 2),
  'noise': Number(0, 1),
  'tile': Whole(0, 2**14),  # pixels of the input; 0 is none
  'tile_pad': Whole(0, 2**12),
}
