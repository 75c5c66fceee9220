"""Tests that what lies under transparent pixels never shows."""

import io

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from sr3_jax.images import image_files, picture_codec, transparency
from sr3_jax.images.picture_codec import Picture
from tests.support import upscaling

standin, command = upscaling.standin, upscaling.command

Y, X = np.mgrid[:24, :28]
RADIUS = np.hypot(Y - 12, X - 13)
DISC = np.array([255, 220, 40], np.uint8)
BACKGROUNDS = {'white': 255, 'black': 0, 'magenta': (255, 0, 255)}


def disc(soft, dtype=np.uint8, grey=False):
  """Make a disc of one colour on a transparent ground that hides noise: RGBA or LA."""
  top = np.iinfo(dtype).max
  alpha = np.clip((9 - RADIUS) / 3, 0, 1) if soft else RADIUS < 9
  alpha = np.round(alpha * 255) / 255
  colours = DISC[:1] if grey else DISC
  hidden = np.random.default_rng(0).integers(0, 256, (24, 28, len(colours)))
  stored = np.where(alpha[..., None] > 0, colours, hidden) * (top // 255)
  return np.dstack([stored, np.round(alpha * top)]).astype(dtype)


def pillow(image, format_, **options):
  buffer = io.BytesIO()
  image.save(buffer, format_, **options)
  return buffer.getvalue()


def tiff(stored, kind):
  """Write a TIFF with alpha as it is, or premultiplied ('assocalpha')."""
  top = np.iinfo(stored.dtype).max
  if kind == 'assocalpha':
    premultiplied = np.round(stored[..., :-1].astype(float) * stored[..., -1:] / top)
    stored = np.dstack([premultiplied, stored[..., -1]]).astype(stored.dtype)
  buffer = io.BytesIO()
  photometric = 'rgb' if stored.shape[-1] == 4 else 'minisblack'
  options = {'photometric': photometric, 'planarconfig': 'contig', 'metadata': None}
  tifffile.imwrite(buffer, stored, extrasamples=[kind], **options)
  return buffer.getvalue()


def palette():
  """Make a palette with a transparent entry, whose colour is not the disc's."""
  image = Image.fromarray(np.where(RADIUS < 9, 1, 0).astype(np.uint8)).convert('P')
  image.putpalette([0, 0, 255, *DISC.tolist()])
  return image


def keyed(mode):
  """Make a PNG in which one colour is transparent."""
  stored = disc(False, grey=mode == 'L')
  stored[stored[..., -1] == 0] = 7
  image = Image.fromarray(stored[..., :-1].squeeze())
  return pillow(image, 'PNG', transparency=7 if mode == 'L' else (7, 7, 7))


def deep(grey=False):
  return imagecodecs.png_encode(disc(True, np.uint16, grey))


FILES = {
  'RGBA.png': lambda: pillow(Image.fromarray(disc(True)), 'PNG'),
  'LA.png': lambda: pillow(Image.fromarray(disc(True, grey=True)), 'PNG'),
  'P.png': lambda: pillow(palette(), 'PNG', transparency=0),
  'P.gif': lambda: pillow(palette(), 'GIF', transparency=0),
  'RGB_keyed.png': lambda: keyed('RGB'),
  'L_keyed.png': lambda: keyed('L'),
  'RGBA16.png': deep,
  'LA16.png': lambda: deep(grey=True),
  'RGBA.webp': lambda: pillow(
    Image.fromarray(disc(True)), 'WEBP', lossless=True, exact=True
  ),
  'lossy.webp': lambda: pillow(Image.fromarray(disc(True)), 'WEBP', quality=90),
  'RGBA.avif': lambda: pillow(
    Image.fromarray(disc(True)), 'AVIF', quality=95, subsampling='4:4:4'
  ),
  'RGBA.jxl': lambda: imagecodecs.jpegxl_encode(disc(True), lossless=True),
  'PA.tif': lambda: pillow(Image.fromarray(disc(False)).convert('PA'), 'TIFF'),
  **{
    f'{"LA" if grey else "RGBA"}{8 * np.dtype(dtype).itemsize}_{kind}.tif': (
      lambda dtype=dtype, grey=grey, kind=kind: tiff(disc(True, dtype, grey), kind)
    )
    for dtype in (np.uint8, np.uint16)
    for grey in (False, True)
    for kind in ('unassalpha', 'assocalpha')
  },
}


def laid_over(picture, background):
  """Lay a picture over a colour, as a viewer does; levels [h, w, 3]."""
  colours = np.broadcast_to((picture.pixels + 1) * 127.5, (*picture.alpha.shape, 3))
  alpha = picture.alpha[..., None]
  return colours * alpha + np.asarray(BACKGROUNDS[background]) * (1 - alpha)


@pytest.mark.parametrize('name', FILES)
def test_hidden_colours_never_show(command, tmp_path, name):
  """The output is the disc's own colour, however transparent, on any background."""
  (tmp_path / name).write_bytes(FILES[name]())
  assert command(name, '--compare', '--ext=png') == 0
  given = picture_codec.read(tmp_path / name)
  assert given.alpha is not None and given.alpha.min() == 0 and given.alpha.max() == 1
  grey = given.pixels.shape[-1] == 1
  stem = name.rpartition('.')[0]
  found = picture_codec.read(tmp_path / 'out' / f'{stem}_out.png')
  assert found.alpha.shape == (48, 56) and found.alpha.min() == 0
  lossy = 25 if name in ('lossy.webp', 'RGBA.avif', 'PA.tif') else 2
  colours = DISC[:1] if grey else DISC
  for background in BACKGROUNDS:
    plain = np.broadcast_to(colours / 127.5 - 1, found.pixels.shape)
    expected = laid_over(Picture(plain, found.alpha), background)
    off = np.abs(laid_over(found, background) - expected)
    assert off.max() <= lossy and off.mean() < 1
  # A lower bound on what is visible: the disc has not become transparent.
  assert found.alpha[20:28, 22:30].min() > 0.99
  # The input on white, as training and evaluation see it.
  flat = image_files.read(tmp_path / name).astype(float)
  assert np.abs(flat - laid_over(given, 'white')).max() <= 2


def test_sheets_show_white_where_it_is_transparent(command, tmp_path):
  (tmp_path / 'a.png').write_bytes(FILES['RGBA.png']())
  assert command('a.png', '--compare') == 0
  sheet = image_files.read(tmp_path / 'out' / 'a_out_compare.png').astype(int)
  blue = sheet[..., 2] - sheet[..., 0]  # noise has it, the disc and white have not
  assert blue.max() < 40


def test_visible_pixels_stay_and_hidden_ones_are_smooth():
  rng = np.random.default_rng(0)
  alpha = np.zeros((37, 50), np.float32)
  alpha[10:20, 10:30] = rng.uniform(4 / 255, 1, (10, 20))
  pixels = rng.uniform(-1, 1, (37, 50, 3)).astype(np.float32)
  pixels[alpha == 0] = np.nan
  filled = transparency.extend_colours(pixels, alpha)
  np.testing.assert_array_equal(filled[alpha > 0], pixels[alpha > 0])
  assert np.isfinite(filled).all() and np.abs(filled).max() <= 1
  far = filled[25:]
  assert np.abs(np.diff(far, axis=0)).max() < 0.5
  other = np.where(alpha[..., None] > 0, pixels, 0.3).astype(np.float32)
  np.testing.assert_array_equal(transparency.extend_colours(other, alpha), filled)


@pytest.mark.parametrize('shape', [(1, 1), (1, 9), (8, 1), (5, 7)])
def test_all_or_nothing(shape):
  pixels = np.full((*shape, 1), 0.5, np.float32)
  hidden = np.zeros(shape, np.float32)
  assert transparency.extend_colours(pixels, hidden + 1) is pixels
  assert not transparency.extend_colours(pixels, hidden).any()
  hidden[-1, -1] = 1
  np.testing.assert_allclose(
    transparency.extend_colours(pixels, hidden), 0.5, atol=1e-6
  )
