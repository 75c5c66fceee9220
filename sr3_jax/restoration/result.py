"""What an upscaler returns: the restored samples of one input, and how to save them."""

import dataclasses
import io
import os
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from sr3_jax.images import (
  formats,
  pixels,
  raster_codec,
  resizing,
)
from sr3_jax.images.picture_codec import Picture
from sr3_jax.images.pixels import ImageError
from sr3_jax.runtime.errors import NotFiniteError

# What results depend on beside the input, fit for JSON.
Settings = dict[str, Any]
# Sides in pixels of what a notebook shows: more would make its file large.
_SHOWN = 2048


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Result:
  """Restored images of one input, float32; in [-1, 1] but for known pixels beyond it.

  `observed` is the input as the model sees it, 0 where pixels are missing. `settings`
  are all that the result depends on beside the input, fit for JSON.
  """

  samples: np.ndarray  # [n, H, W, C]; C = 1 for grey inputs
  observed: np.ndarray  # [h, w, C or 1]
  settings: Settings
  upsampled: bool = True  # whether the model upscales
  # What belongs to its file beside the pixels; the alpha is the output's, [H, W].
  like: Picture = dataclasses.field(
    default_factory=lambda: Picture(np.empty((0, 0, 1), np.float32))
  )
  # The stored values that mean -1 and 1, of models of rasters.
  value_range: tuple[np.ndarray, np.ndarray] | None = None
  floating: bool = False  # whether rasters are saved as floating point

  def __repr__(self) -> str:
    count, height, width, channels = self.samples.shape
    kind = {1: 'grey', 3: 'RGB'}.get(channels, f'{channels} channels')
    kind += '' if self.like.alpha is None else ' with transparency'
    many = f'{count} samples' if count > 1 else '1 sample'
    made = ', '.join(f'{self.settings.get(key)}' for key in ('model', 'sampler'))
    return f'<Result: {width} x {height} pixels, {kind}, {many} of {made}>'

  def _repr_png_(self) -> bytes:
    """Return what notebooks show: the first sample as a PNG file."""
    image, buffer = self.pil, io.BytesIO()
    image.thumbnail((_SHOWN, _SHOWN))
    image.save(buffer, 'PNG')
    return buffer.getvalue()

  @property
  def image(self) -> np.ndarray:
    """The first sample, [H, W, C]."""
    return self.samples[0]

  @property
  def array(self) -> np.ndarray:
    """The first sample as uint8, as Pillow and OpenCV's files have it.

    [H, W] if it is grey, else [H, W, C]. Transparency of the input is a channel more.
    """
    stored = pixels.to_uint8(self.image)
    if self.like.alpha is not None:
      alpha = np.clip(np.round(self.like.alpha * 255), 0, 255).astype(np.uint8)
      stored = np.concatenate([stored, alpha[..., None]], -1)
    return stored[..., 0] if stored.shape[-1] == 1 else stored

  @property
  def pil(self) -> Image.Image:
    """The first sample as a Pillow image: L, LA, RGB or RGBA, with its colour profile.

    Images of other numbers of channels are shown as `pixels.to_picture` does.
    """
    if self.image.shape[-1] not in (1, 3):
      return pixels.to_pillow(pixels.to_picture(self.image))
    image = pixels.to_pillow(self.array)
    if self.like.icc:
      image.info['icc_profile'] = self.like.icc
    return image

  def save(self, path: str | os.PathLike[str], image: np.ndarray | None = None) -> None:
    """Save the first sample as `sr3-upscale` writes it; the file appears when complete.

    It has the settings, the colour profile and the transparency. If the input was a
    path, it also has its metadata (EXIF, XMP, resolution ...) as far as the format
    holds them, and if the input had 16 bits, PNG and TIFF files have, too. Missing
    folders are made.

    Args:
      path: .png, .jpg, .webp or .tif; for models of rasters .tif, .npy or .png. A file
        that is there is replaced.
      image: another image of this result: one of `samples`, or `mean`.

    Raises:
      ImageError: another format, or the place can't be written.
      NotFiniteError: the image has NaN or infinity.
    """
    place = pathlib.Path(path).expanduser()
    chosen = self.image if image is None else np.asarray(image, np.float32)
    if chosen.shape != self.image.shape:
      raise ImageError(
        f'{place}: an image of shape {chosen.shape} is none of this result, whose '
        f'shape is {self.image.shape}'
      )
    if not np.isfinite(chosen).all():
      raise NotFiniteError([], f'the model {self.settings["model"]}')
    ending = formats.written_as(place.suffix)
    if not ending:
      raise ImageError(f'{place}: results are saved as .png, .jpg, .webp or .tif files')
    codec = raster_codec.choose_codec(
      chosen.shape[-1], self.value_range, ending, floating=self.floating
    )
    codec.check_sides(ending, *chosen.shape[:2])
    codec.write(place, dataclasses.replace(self.like, pixels=chosen), self.settings)

  @property
  def bicubic(self) -> np.ndarray | None:
    """The input, upsampled without a model: [H, W, C or 1]; None: it isn't upscaled."""
    if not self.upsampled:
      return None
    size = self.samples.shape[1:3]
    return np.clip(resizing.resize(self.observed, *size), -1, 1)

  @property
  def mean(self) -> np.ndarray:
    """The mean of the samples, [H, W, C]."""
    return self.samples.mean(0)

  @property
  def spread(self) -> np.ndarray:
    """Standard deviation over samples, averaged over channels: [H, W]."""
    mean, squares = self.mean, np.zeros(self.samples.shape[1:], np.float32)
    for sample in self.samples:
      squares += (sample - mean) ** 2
    return np.sqrt(squares / len(self.samples)).mean(-1)

  def check_finite(self) -> None:
    """Raise NotFiniteError if the model gave NaN or infinity for this input."""
    if not np.isfinite(self.samples).all():
      raise NotFiniteError([], f'the model {self.settings["model"]}')
