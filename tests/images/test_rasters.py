"""Tests of rasters against NumPy, Pillow and tifffile, to files and back."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from ml_collections import ConfigDict
from PIL import Image

from sr3_jax.core import model_fields, sr3
from sr3_jax.images import image_files, picture_codec, rasters
from sr3_jax.images.pixels import ImageError

# pytest undoes the filter that images.py sets.
pytestmark = pytest.mark.filterwarnings(r'ignore:::PIL\.')

H, W = 5, 7


def noise(channels: int, dtype) -> np.ndarray:
  """Return [H, W, C] with values of the whole range of a type and both ends."""
  rng = np.random.default_rng(channels)
  if np.dtype(dtype).kind == 'f':
    return rng.normal(0, 1e4, (H, W, channels)).astype(dtype)
  info = np.iinfo(dtype)
  array = rng.integers(info.min, info.max, (H, W, channels), dtype, endpoint=True)
  array[0, 0], array[-1, -1] = info.min, info.max
  return array


def saved(array, **options) -> bytes:
  buffer = io.BytesIO()
  np.save(buffer, array, **options)
  return buffer.getvalue()


def tiff(array, **options) -> bytes:
  buffer = io.BytesIO()
  tifffile.imwrite(buffer, array, **options)
  return buffer.getvalue()


def picture(array, format_='PNG') -> bytes:
  buffer = io.BytesIO()
  Image.fromarray(array).save(buffer, format_)
  return buffer.getvalue()


def assert_same(found, array):
  assert found.dtype == array.dtype
  np.testing.assert_array_equal(found, array)


# ----------------------------------------------------------------------------- files


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize('channels', [1, 2, 3, 4, 13])
@pytest.mark.parametrize('extension', ['.npy', '.tif', '.TIFF', '.png'])
def test_what_is_written_is_read(tmp_path, extension, channels, dtype):
  array, path = noise(channels, dtype), tmp_path / 'new' / f'a{extension}'
  if extension == '.png' and (dtype == np.float32 or channels not in (1, 3)):
    with pytest.raises(ImageError, match=r'a\.png: PNG has no'):
      rasters.write(path, array)
    assert not path.exists()
    return
  rasters.write(path, array, 'made by: a test')
  assert [p.name for p in path.parent.iterdir()] == [path.name]
  assert_same(rasters.read(path), array)
  assert_same(rasters.read(path.read_bytes(), channels=channels), array)
  found = rasters.header(path, channels=channels)
  assert found == (H, W, channels, np.dtype(dtype))
  assert rasters.header(path)[:2] == (H, W)
  # Other programs read the same values.
  if extension == '.npy':
    assert_same(np.load(path), array)
  elif extension != '.png':
    with tifffile.TiffFile(path) as file:
      assert file.pages.first.description == 'made by: a test'
      assert_same(file.asarray().reshape(array.shape), array)
  else:
    with Image.open(path) as image:
      assert image.info['Description'] == 'made by: a test'
      if dtype == np.uint8 or channels == 1:
        assert_same(np.asarray(image).astype(dtype).reshape(array.shape), array)


LAYOUTS = {
  'samples': ((H, W, 4), {'photometric': 'minisblack', 'planarconfig': 'contig'}),
  'planes': ((4, H, W), {'photometric': 'minisblack', 'planarconfig': 'separate'}),
  'pages': ((4, H, W), {'metadata': None, 'photometric': 1}),
  'shaped': ((4, H, W), {'photometric': 'minisblack'}),
  'channels': ((4, H, W), {'metadata': {'axes': 'CYX'}, 'photometric': 1}),
  'imagej': ((4, H, W), {'imagej': True, 'metadata': {'axes': 'CYX'}}),
  'ome': ((4, H, W), {'ome': True, 'metadata': {'axes': 'CYX'}}),
  'tiled': ((4, H, W), {'photometric': 1, 'tile': (16, 16), 'compression': 'lzw'}),
  'big': ((4, H, W), {'photometric': 1, 'bigtiff': True, 'byteorder': '>'}),
}


@pytest.mark.parametrize('layout', LAYOUTS)
def test_channels_of_tiffs_are_found_by_their_axes(layout):
  shape, options = LAYOUTS[layout]
  array = noise(4, np.uint16)
  stored = array if shape == array.shape else np.moveaxis(array, -1, 0)
  data = tiff(np.ascontiguousarray(stored), **options)
  assert rasters.header(data) == (H, W, 4, np.dtype(np.uint16))
  assert_same(rasters.read(data), array)
  for wanted in (1, 3, 5):
    with pytest.raises(ImageError, match=rf'^a: 4 channel\(s\), {wanted} are needed$'):
      rasters.header(data, 'a', channels=wanted)


def test_a_single_row_and_a_single_pixel_are_images():
  for shape in ((1, 6, 2), (6, 1, 2), (1, 1, 2), (1, 1, 1)):
    array = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    for extension in ('.tif', '.npy'):
      assert_same(rasters.read(rasters.encode(array, extension)), array)


def test_numpy_files_of_two_axes_and_of_any_order():
  array = noise(3, np.uint16)
  assert_same(rasters.read(saved(array[..., 0])), array[..., :1])
  assert_same(rasters.read(saved(np.asfortranarray(array))), array)
  assert_same(rasters.read(saved(array.astype('>u2'))), array)


@pytest.mark.parametrize('dtype', ['float16', 'float64', 'int8', 'int16', '>i2', '>f4'])
def test_signed_and_wide_values_become_float32(dtype):
  array = noise(2, np.int8).astype(dtype)
  for data in (saved(array), tiff(np.ascontiguousarray(np.moveaxis(array, -1, 0)))):
    assert rasters.header(data).dtype == np.float32
    assert_same(rasters.read(data), array.astype(np.float32))


def test_orientation_and_white_is_zero_of_tiffs():
  array = noise(2, np.uint16)
  stored = array.swapaxes(0, 1)  # what orientation 5 undoes
  data = tiff(
    np.ascontiguousarray(stored),
    photometric='minisblack',
    planarconfig='contig',
    extratags=[(274, 'H', 1, 5, True)],
  )
  assert rasters.header(data)[:2] == (H, W)
  assert_same(rasters.read(data), array)
  data = tiff(array[..., 0], photometric='miniswhite')
  assert_same(rasters.read(data), 65535 - array[..., :1])


def test_grey_of_16_bits_is_pillows(tmp_path):
  array = noise(1, np.uint16)
  data = picture(array[..., 0])  # I;16
  assert rasters.header(data, channels=1) == (H, W, 1, np.dtype(np.uint16))
  assert_same(rasters.read(data, channels=1), array)
  with pytest.raises(ImageError, match='3 are needed'):
    rasters.read(data, channels=3)


@pytest.mark.parametrize('format_', ['PNG', 'JPEG', 'WEBP', 'BMP', 'TIFF'])
def test_pictures_are_read_in_grey_or_colour(tmp_path, format_):
  for array in (noise(3, np.uint8), noise(1, np.uint8)[..., 0]):
    path = tmp_path / 'a'
    path.write_bytes(picture(array, format_))
    for channels in (1, 3):
      truth = image_files.read(path, channels=channels)
      assert rasters.header(path, channels=channels) == (*truth.shape, np.uint8)
      assert_same(rasters.read(path, channels=channels), truth)
    own = 1 if array.ndim == 2 and format_ != 'WEBP' else 3
    assert rasters.header(path).channels == own
    with pytest.raises(ImageError, match=f'{own} channel.*2 are needed'):
      rasters.read(path, channels=2)


def test_a_palette_and_alpha_are_what_they_look_like(tmp_path):
  rgb = noise(3, np.uint8)
  for name, image in {
    'palette.tif': Image.fromarray(rgb).quantize(16),
    'alpha.tif': Image.fromarray(noise(4, np.uint8)),
    'one_bit.tif': Image.fromarray(noise(1, np.uint8)[..., 0]).convert('1'),
  }.items():
    image.save(tmp_path / name)
    for channels in (1, 3):
      truth = image_files.read(tmp_path / name, channels=channels)
      assert_same(rasters.read(tmp_path / name, channels=channels), truth)
  assert_same(rasters.read(tmp_path / 'alpha.tif', channels=4), noise(4, np.uint8))


# --------------------------------------------------------------------------- mistakes


def header_of(shape, descr="'<u2'") -> bytes:
  """Write a .npy file that is nothing but its header."""
  text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}"
  text = text.ljust(117) + '\n'
  return b'\x93NUMPY\1\0' + struct.pack('<H', len(text)) + text.encode()


def tiff_claims(width, height, samples, *, tile=0) -> bytes:
  """Write a TIFF that is nothing but its header, with empty segments."""
  tags = [(256, 4, width), (257, 4, height), (258, 3, 16), (259, 3, 8), (262, 3, 1)]
  tags += [(277, 3, samples), (339, 3, 1)]
  if tile:
    tags += [(322, 4, tile), (323, 4, tile), (324, 4, 8), (325, 4, 8)]
  else:
    tags += [(273, 4, 8), (278, 4, height), (279, 4, 8)]
  body = b''.join(
    struct.pack('<HHII', tag, kind, 1, value) for tag, kind, value in sorted(tags)
  )
  return struct.pack('<2sHI8sH', b'II', 42, 16, b'', len(tags)) + body + bytes(4)


def bomb() -> bytes:
  """Write a PNG of 16 bits that claims 100 Mpx."""

  def chunk(kind: bytes, body: bytes) -> bytes:
    checksum = struct.pack('>I', zlib.crc32(kind + body))
    return struct.pack('>I', len(body)) + kind + body + checksum

  ihdr = chunk(b'IHDR', struct.pack('>IIBBBBB', 10_000, 10_000, 16, 0, 0, 0, 0))
  return b'\x89PNG\r\n\x1a\n' + ihdr + chunk(b'IDAT', b'') + chunk(b'IEND', b'')


BAD = {
  'empty': (b'', 'zero bytes'),
  'text': (b'no image at all, but a text', 'not a JPEG, PNG'),
  'object': (saved(np.array([[{}]]), allow_pickle=True), 'object values: only uint8'),
  'complex': (saved(np.zeros((2, 2), complex)), 'complex128 values: only uint8'),
  'wide': (saved(np.zeros((2, 2), np.int64)), 'int64 values: only uint8'),
  'one axis': (saved(np.zeros(4)), r'shape \(4,\), not \[H, W\]'),
  'four axes': (saved(np.zeros((1, 2, 2, 1))), r'not \[H, W\]'),
  'nothing': (saved(np.zeros((0, 2))), r'shape \(0, 2\)'),
  'nan': (saved(np.array([[np.nan, np.inf, 1.0]])), '2 values are not finite'),
  'overflow': (saved(np.array([[1e300, 1.0]])), '1 values are not finite'),
  'cut npy': (saved(noise(2, np.uint16))[:-1], 'truncated'),
  'cut header': (saved(noise(2, np.uint16))[:20], 'EOF'),
  'cut tiff': (tiff(noise(2, np.uint16)[..., 0])[:-60], 'bad.bin: .'),
  'huge npy': (header_of((2**62, 2**62)), 'truncated'),
  'big tiff': (tiff_claims(20_000, 20_000, 1), 'more than the limit of 89 Mpx'),
  'many values': (tiff_claims(9000, 9000, 5), 'million values'),
  'tiles': (tiff_claims(64, 64, 1, tile=32768), 'tiles of 32768 x 32768'),
  'png': (bomb(), 'more than the limit of 89 Mpx'),
  'depth': (
    tiff(np.zeros((9, 5, 6), np.uint16), imagej=True, metadata={'axes': 'ZYX'}),
    'a stack with axes ZYX',
  ),
  'time': (
    tiff(np.zeros((2, 3, 5, 6), np.uint16), ome=True, metadata={'axes': 'TCYX'}),
    'a stack with axes TCYX',
  ),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_files_are_one_line(tmp_path, case):
  data, reason = BAD[case]
  path = tmp_path / 'bad.bin'
  path.write_bytes(data)
  for read in (rasters.read, lambda path: rasters.read(data, str(path))):
    with pytest.raises(ImageError, match=reason) as error:
      read(path)
    text = str(error.value)
    assert text.startswith(f'{path}: ') and '\n' not in text
    assert text.count('bad.bin') == 1 and error.value.__suppress_context__


def test_limits_hold_before_anything_is_decoded(tmp_path, monkeypatch):
  monkeypatch.setattr(np, 'load', None)
  monkeypatch.setattr(tifffile.TiffPageSeries, 'asarray', None)
  for name in ('big tiff', 'many values', 'tiles', 'png'):
    with pytest.raises(ImageError, match=BAD[name][1]):
      rasters.read(BAD[name][0])
  for shape, reason in {
    (20_000, 20_000): 'more than the limit of 89 Mpx',
    (9000, 9000, 5): 'more than the limit of 358 million values',
  }.items():
    with (tmp_path / 'sparse.npy').open('wb') as file:
      file.write(header_of(shape))
      file.truncate(10**9)
    with pytest.raises(ImageError, match=reason):
      rasters.header(tmp_path / 'sparse.npy')
  array = noise(4, np.uint16)
  for extension in ('.npy', '.tif'):
    data = rasters.encode(array, extension)
    monkeypatch.setattr(image_files, 'MAX_PIXELS', H * W)
    assert rasters.header(data).channels == 4
    monkeypatch.setattr(image_files, 'MAX_PIXELS', H * W - 1)
    with pytest.raises(ImageError, match='more than the limit'):
      rasters.header(data)


def test_hostile_bytes_raise_nothing_else():
  rng = np.random.default_rng(0)
  whole = [rasters.encode(noise(2, np.uint16), e) for e in ('.npy', '.tif')]
  whole += [picture(noise(1, np.uint16)[..., 0]), tiff(noise(4, np.uint8), ome=False)]
  outcomes = set()
  for data in whole:
    for _ in range(30):
      damaged = np.frombuffer(data, np.uint8).copy()
      at = rng.integers(0, min(len(data), 400), rng.integers(1, 6))
      damaged[at] = rng.integers(0, 256, len(at))
      damaged = damaged[: rng.integers(len(data) // 2, len(data) + 1)].tobytes()
      try:
        outcomes.add(str(rasters.read(damaged, 'x').dtype))
      except ImageError as error:
        assert str(error).startswith('x: ') and '\n' not in str(error)
        outcomes.add('error')
  assert {'error', 'uint16'} <= outcomes


def test_missing_files_and_unknown_names(tmp_path):
  with pytest.raises(ImageError, match=r'gone\.npy: no such file'):
    rasters.read(tmp_path / 'gone.npy')
  with pytest.raises(
    ImageError, match=r"cannot write '\.jpg' files, only \.npy, \.tif"
  ):
    rasters.write(tmp_path / 'a.jpg', noise(1, np.uint8))
  for array in (np.zeros((4, 4)), np.zeros((4, 4, 1)), np.zeros((4, 0, 1), np.uint8)):
    with pytest.raises(ImageError, match='not an image'):
      rasters.encode(array, '.npy')
  assert picture_codec.metadata(tmp_path / 'gone.tif') is None


# ----------------------------------------------------------------------------- values


@pytest.mark.parametrize(
  'low, high', [((), ()), ((0.0,), (65535.0,)), ((-12.5,), (70000.25,)), ((7,), (999,))]
)
def test_all_16_bit_values_survive(low, high):
  levels = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
  floats = rasters.to_float(levels, low, high)
  assert floats.dtype == np.float32
  assert_same(rasters.from_float(floats, np.uint16, low, high), levels)


def test_ranges_are_of_single_channels_and_those_of_the_model():
  array = noise(3, np.uint16)
  low, high = (0, 100, -5.5), (65535, 4000, 70000)
  found = rasters.to_float(array, low, high)
  for c in range(3):
    truth = np.interp(array[..., c], (low[c], high[c]), (-1, 1))
    inside = (array[..., c] >= low[c]) & (array[..., c] <= high[c])
    np.testing.assert_allclose(found[..., c][inside], truth[inside], atol=1e-6)
  assert found[..., 1].max() > 10  # beyond the range, not clipped
  config = ConfigDict({'low': low, 'high': high, 'channels': 3})
  limits = model_fields.value_range(config)
  model = sr3.SR3.__new__(sr3.SR3)
  object.__setattr__(model, 'value_range', limits)
  of_model = model.to_float(array[None])[0]
  np.testing.assert_allclose(of_model, found, rtol=1e-6, atol=1e-6)
  object.__setattr__(model, 'value_range', None)
  plain = rasters.to_float(array)
  np.testing.assert_allclose(model.to_float(array[None])[0], plain, atol=1e-6)


def test_from_float_rounds_and_clips_to_the_type():
  image = np.array([[[-1.5, -1.0, 0.5 / 127.5 * 1.02 - 1, 1.0, 3.0]]])
  found = rasters.from_float(image, np.uint8)
  np.testing.assert_array_equal(found[0, 0], [0, 0, 1, 255, 255])
  wide = rasters.from_float(image[..., :2], np.uint8, (50, 50), (100, 100))
  np.testing.assert_array_equal(wide[0, 0], [38, 50])  # the type ends at 0, not at 50
  exact = rasters.from_float(image, np.float32, [0] * 5, [10] * 5)
  assert exact.dtype == np.float32
  np.testing.assert_allclose(exact[0, 0], (image[0, 0] + 1) * 5, rtol=1e-6)
  with pytest.raises(ImageError, match=r'data\.low and data\.high'):
    rasters.to_float(np.zeros((2, 2, 1), np.float32))
  with pytest.raises(ImageError, match=r'data\.low and data\.high'):
    rasters.from_float(image, np.float32)
