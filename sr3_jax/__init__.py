"""SR3 in JAX: super-resolution by iterative refinement (arXiv:2104.07636)."""

from typing import Any

from sr3_jax.runtime.version import __version__ as __version__


def load(model: Any = 'photo-x4', **options: Any) -> Any:
  """A model, ready to enlarge pictures: `sr3_jax.load().upscale(image)`.

  Args:
    model: the name of a model that comes with the package, 'photo-x4', 'face-x4' or
      'face-x8'; a model folder, a run's workdir, a .safetensors file with config.json
      beside it, or hf://owner/name.
    **options: of `sr3_jax.restoration.upscaler.Upscaler`.

  Returns:
    `sr3_jax.restoration.upscaler.Upscaler`.

  Raises:
    ValueError: one line that says what is wrong with the model.
  """
  # Here, so that importing the package doesn't start JAX.
  from sr3_jax.restoration import upscaler
  from sr3_jax.weights import hub

  return upscaler.Upscaler(hub.load(model), **options)
