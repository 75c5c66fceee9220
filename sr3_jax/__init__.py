"""SR3 in JAX: super-resolution by iterative refinement (arXiv:2104.07636)."""

from sr3_jax.runtime.version import __version__ as __version__

# The import of `typing` takes longer than all else here, and signals are taken over
# only after this file. Type checkers know this name.
TYPE_CHECKING = False
if TYPE_CHECKING:
  from collections.abc import Callable, Sequence

  from etils.epath import PathLike

  from sr3_jax.restoration.upscaler import Upscaler


def load(
  model: 'PathLike' = 'photo-x4',
  *,
  steps: int | str = 'balanced',
  sampler: str | None = None,
  temperature: float | None = None,
  tile: int | None = None,
  tile_pad: int | None = None,
  seed: int = 0,
  consistency: bool | None = None,
  expand: 'int | str | Sequence[int | str] | None' = None,
  blur: float = 0.0,
  noise: float = 0.0,
  guidance: float | None = None,
  batch: int | None = None,
  on_note: 'Callable[[str], None] | None' = None,
  progress: bool = False,
) -> 'Upscaler':
  """Load a model: `sr3_jax.load().upscale('small.png').save('large.png')`.

  Args:
    model: the name of a model that comes with the package, 'photo-x4', 'photo-clean',
      'photo-fill', 'face-x4' or 'face-x8'; a model folder, a run's workdir, a
      .safetensors file with config.json beside it, or hf://owner/name.
    steps: a number of sampling steps, or 'fast', 'balanced' or 'best'.
    sampler: 'ddpm', 'ddim', 'dpmpp_2m' ...; None takes that of `steps`.
    temperature: of the noise, above 0 to 1: less gives less detail and less grain; None
      takes that of `steps`.
    tile: side of tiles in input pixels; 0: no tiles; None chooses.
    tile_pad: half of the overlap of tiles in input pixels; None chooses.
    seed: of the noise.
    consistency: make outputs that, downsampled, are the input; None: as the model does.
    expand: pixels or '25%' to add on all sides, or four of them: top, right, bottom,
      left; for models that fill in.
    blur: of the inputs of cascade stages, standard deviation in their pixels.
    noise: of the inputs of cascade stages, share of the amplitude.
    guidance: how much the class counts, for models trained for it.
    batch: tiles at a time on each device; None chooses.
    on_note: called with a line of text when something is worth telling, such as terms
      of use that don't allow everything; None prints it on stderr.
    progress: say on stderr what is being done, here and in `upscale`, which takes
      minutes.

  Raises:
    UserError: one line that says what is wrong with the model or an option.
  """
  # Here, so that importing the package doesn't start JAX.
  import contextlib

  from sr3_jax.runtime import activity

  shown = activity.shown(f'loading {model}') if progress else None
  with shown or contextlib.nullcontext():
    from sr3_jax.restoration import upscaler
    from sr3_jax.weights import hub

    return upscaler.Upscaler(
      hub.load(model),
      steps=steps,
      sampler=sampler,
      temperature=temperature,
      tile=tile,
      tile_pad=tile_pad,
      seed=seed,
      consistency=consistency,
      expand=expand,
      blur=blur,
      noise=noise,
      guidance=guidance,
      batch=batch,
      on_note=on_note,
      progress=progress,
    )
