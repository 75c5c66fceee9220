"""SR3 in JAX: super-resolution by iterative refinement (arXiv:2104.07636)."""

from typing import TYPE_CHECKING, Any

from sr3_jax.runtime.version import __version__ as __version__

if TYPE_CHECKING:
  from etils.epath import PathLike

  from sr3_jax.restoration.upscaler import Upscaler


def load(model: 'PathLike' = 'photo-x4', **options: Any) -> 'Upscaler':
  """Load a model that upscales pictures: `sr3_jax.load().upscale(image)`.

  Args:
    model: the name of a model that comes with the package, 'photo-x4', 'face-x4' or
      'face-x8'; a model folder, a run's workdir, a .safetensors file with config.json
      beside it, or hf://owner/name.
    **options: those of `sr3_jax.restoration.upscaler.Upscaler`. With progress=True it
      says on stderr what it does, here and in `upscale`, which takes minutes.

  Raises:
    UserError: one line that says what is wrong with the model.
  """
  # Here, so that importing the package doesn't start JAX.
  import contextlib

  from sr3_jax.runtime import activity

  shown = activity.shown(f'loading {model}') if options.get('progress') else None
  with shown or contextlib.nullcontext():
    from sr3_jax.restoration import upscaler
    from sr3_jax.weights import hub

    return upscaler.Upscaler(hub.load(model), **options)
