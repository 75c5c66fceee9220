"""Makes the page of a demo with Gradio, which is imported when a page is made."""

import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

from sr3_jax.demo import jobs
from sr3_jax.demo.jobs import Limits, Models
from sr3_jax.runtime.errors import UserError, line

_TITLE = 'sr3_jax demo'
_CSS = """
.gradio-container { width: 100%; }
#about, #terms { font-size: 0.9rem; }
"""
_PRESETS = ['fast', 'balanced', 'best']
# Bright, so that it counts as missing, and seen on most pictures.
_BRUSH = '#ff66ff'


def style() -> dict[str, Any]:
  """Return how the page looks, as arguments of `Blocks.launch`.

  Fonts are the system's: Gradio's would be fetched from another site. Texts have the
  contrast of WCAG AA, 4.5 to 1.
  """
  import gradio as gr

  fonts = {'font': ['system-ui', 'sans-serif'], 'font_mono': ['monospace']}
  theme = gr.themes.Default(primary_hue='indigo', **fonts).set(
    block_info_text_color='*neutral_600',
    body_text_color_subdued='*neutral_600',
    button_primary_background_fill='*primary_600',
    button_primary_background_fill_hover='*primary_700',
  )
  return {'theme': theme, 'css': _CSS}


def make(models: Models, limits: Limits, folder: str, delete: tuple[int, int]) -> Any:
  """Return the page as gradio.Blocks, not yet launched.

  Args:
    models: by the names that visitors see; the first is chosen.
    limits: for visitors.
    folder: in which a job's files get a folder of their own.
    delete: seconds between two looks for old files, and their age.
  """
  import gradio as gr

  first = next(iter(models))
  fills = {name: model.takes_masks for name, model in models.items()}
  with gr.Blocks(title=_TITLE, delete_cache=delete, analytics_enabled=False) as blocks:
    gr.Markdown('# Restore a picture')
    with gr.Row():
      with gr.Column():
        picture = gr.Image(
          type='filepath',
          image_mode=None,
          sources=['upload', 'clipboard'],
          label='Picture',
          buttons=[],
          height=220,
        )
        model = gr.Dropdown(list(models), value=first, label='Model', filterable=False)
        terms = gr.Markdown(jobs.describe(models[first]), elem_id='terms')
        with gr.Group(visible=fills[first]) as painting:
          mask = _editor(gr) if any(fills.values()) else None
        settings = _settings(gr, limits)
        button = gr.Button('Restore', variant='primary')
      with gr.Column():
        shown, outputs = _outputs(gr)
    _only_uploads(picture, mask)
    job = button.click(
      _job(models, limits, folder),
      [picture, model, *settings, *([mask] if mask else [])],
      outputs,
      api_name='restore',
      concurrency_limit=1,
      preprocess=False,
      show_progress_on=outputs[-1],
    )
    hidden = {'api_visibility': 'private', 'show_progress': 'hidden', 'queue': False}
    job.success(_show, outputs[1], shown, preprocess=False, **hidden)

    def chosen(name: Any) -> tuple[Any, ...]:
      return jobs.describe(models[name]), gr.Group(visible=fills[name])

    model.change(chosen, model, [terms, painting], **hidden)
    if mask:
      picture.change(_preview(limits), picture, mask, preprocess=False, **hidden)
  return blocks


def _outputs(gr: Any) -> tuple[list[Any], list[Any]]:
  """Return what `_show` shows or hides, and the components that a job fills."""
  slider = gr.ImageSlider(
    type='filepath', label='Before and after', interactive=False, buttons=[]
  )
  with gr.Column(visible=False) as made:
    about = gr.Markdown(label='About', elem_id='about')
    file = gr.DownloadButton('Download')
  with gr.Column(visible=False) as several:
    samples = gr.Gallery(
      label='Samples and their spread: where they differ, the model guesses',
      columns=2,
      height='auto',
      object_fit='contain',
      interactive=False,
      buttons=[],
    )
  return [made, several], [file, samples, about, slider]


def _show(files: Any) -> tuple[Any, ...]:
  """Show what a job has made; `files` are its samples, if there are several."""
  import gradio as gr

  return gr.Column(visible=True), gr.Column(visible=bool(files))


def _editor(gr: Any) -> Any:
  """Return the component in which what is missing is painted over."""
  return gr.ImageEditor(
    type='filepath',
    label='Paint over what is missing',
    sources=[],
    transforms=[],
    layers=False,
    buttons=[],
    brush=gr.Brush(12, [_BRUSH], _BRUSH, color_mode='fixed'),
  )


def _settings(gr: Any, limits: Limits) -> list[Any]:
  """Return the components of steps, samples, temperature and seed."""
  with gr.Row():
    steps = gr.Dropdown(
      _PRESETS,
      value='balanced',
      allow_custom_value=True,
      label='Steps',
      info=f'a preset, or a number up to {limits.steps}',
      min_width=120,
    )
    samples = gr.Slider(
      1,
      limits.samples,
      value=1,
      step=1,
      label='Samples',
      info='several show what is sure',
      min_width=120,
    )
  with gr.Row():
    temperature = gr.Slider(
      0,
      1,
      value=0,
      step=0.05,
      label='Temperature',
      info="0: the preset's",
      min_width=120,
    )
    seed = gr.Number(
      0, precision=0, label='Seed', info='of the noise', minimum=0, min_width=120
    )
  return [steps, samples, temperature, seed]


def _only_uploads(*components: Any) -> None:
  """Let components take files that were uploaded, and no addresses to fetch."""
  import gradio as gr

  def guarded(fetch: Callable[[Any], Any]) -> Callable[[Any], Any]:
    async def take(place: Any) -> Any:
      if '://' in str(place):
        text = 'upload a file: addresses are not fetched'
        raise gr.Error(text, print_exception=False)
      return await fetch(place)

    return take

  for component in components:
    if component is not None:
      take = guarded(component.async_move_resource_to_block_cache)
      component.async_move_resource_to_block_cache = take


def _place(payload: Any) -> tuple[pathlib.Path, str] | None:
  """Return the path and the name of an upload; Gradio has checked that it is one."""
  if not payload or not payload.get('path'):
    return None
  path = pathlib.Path(payload['path'])
  return path, pathlib.PurePath(str(payload.get('orig_name') or path.name)).name


def _preview(limits: Limits) -> Callable[[Any], Any]:
  """Return a function from an upload to what is painted on."""
  import gradio as gr

  def show(picture: Any) -> Any:
    place = _place(picture)
    if place is None:
      return None
    try:
      return jobs.preview(*place, limits)
    except UserError as error:
      raise gr.Error(line(error), print_exception=False) from None

  return show


def _job(models: Models, limits: Limits, folder: str) -> Callable[..., Any]:
  """Return the function behind the button, whose docstring documents the API."""
  import gradio as gr

  first = next(iter(models))

  def restore(
    picture: Any,
    model: Any = first,
    steps: Any = 'balanced',
    samples: Any = 1,
    temperature: Any = 0,
    seed: Any = 0,
    mask: Any = None,
    progress: Any = gr.Progress(),  # noqa: B008  Gradio finds it here
  ) -> tuple[Any, ...]:
    """Restore a picture with a model.

    Args:
      picture: an uploaded picture, of any format that sr3-upscale reads
      model: the name of a model
      steps: 'fast', 'balanced', 'best', or a number of sampling steps
      samples: how many to sample
      temperature: of the noise, up to 1; 0 takes that of the preset
      seed: of the noise
      mask: {"layers": [FILE]}: what is bright in FILE is missing in the picture
      progress: shows how far it is

    Returns:
      the first sample, a PNG file
      all samples and a map of how much they differ, if there are several
      what was made, in words
      the input and the first sample, of the same size
    """
    place = _place(picture)
    if place is None:
      raise gr.Error('drop a picture first', print_exception=False)
    own = (steps, samples, temperature, seed)
    request = jobs.Request(*place, model, *own, _layers(mask))
    place = pathlib.Path(tempfile.mkdtemp(dir=folder))
    try:
      done = jobs.restore(
        request, models, limits, place, lambda share, text: progress(share, desc=text)
      )
    except UserError as error:
      raise gr.Error(line(error), print_exception=False) from None
    several = len(done.samples) > 1
    named = [(str(path), f'sample {i}') for i, path in enumerate(done.samples, 1)]
    named.append((str(done.spread), 'spread'))
    return (
      str(done.samples[0]),
      named if several else None,
      done.about,
      (str(done.before), str(done.samples[0])),
    )

  return restore


def _layers(mask: Any) -> list[pathlib.Path]:
  """Return the files of a drawn mask."""
  if not mask:
    return []
  return [pathlib.Path(layer['path']) for layer in mask.get('layers') or []]
