"""What files hold beside pixels goes from the input to the output."""

import io
import json
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, PngImagePlugin

from sr3_jax.images import exif_block, metadata, photoshop, picture_codec, png_chunks
from sr3_jax.images.png_chunks import Chunk

pytestmark = pytest.mark.filterwarnings(r'ignore:::PIL\.')

SETTINGS = {'input': {'name': 'ä'}, 'request': 'abc'}
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
XMP = (
  '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="r">'
  '<rdf:Description tiff:Orientation="6" exif:PixelXDimension="640" dc:title="Ü">'
  '<tiff:ImageWidth>640</tiff:ImageWidth><xmp:Rating>4</xmp:Rating>'
  '<xmp:Thumbnails>old pixels</xmp:Thumbnails></rdf:Description></rdf:RDF></x:xmpmeta>'
).encode()
MAKER_NOTE = b'maker\0' + bytes(range(64))
COMMENT = b'ASCII\0\0\0a comment of the owner'


def owners_exif(orientation=6, thumbnail=True):
  """A block with all that a phone and a photo manager write."""
  exif = Image.Exif()
  exif[0x010E], exif[0x010F], exif[0x0132] = 'words', 'Maker', '2026:11:22 10:00:00'
  exif[0x0112], exif[0x0100], exif[0x0101] = orientation, 640, 480
  exif[0x9C9B], exif[0x4746] = 'Titel'.encode('utf-16-le') + b'\0\0', 4
  exif[0x011A], exif[0x011B], exif[0x0128] = 300.0, 150.0, 2
  camera = {0x829D: 2.8, 0xA002: 640, 0xA003: 480, 0x927C: MAKER_NOTE, 0x9286: COMMENT}
  exif[0x8769] = camera
  exif[0x8825] = {1: 'N', 2: (52.0, 31.0, 12.0)}
  block = exif.tobytes()
  if not thumbnail:
    return block
  # A second directory with a thumbnail, as cameras write it.
  data = bytearray(block.removeprefix(exif_block.PREFIX))
  order = '<' if data[:2] == b'II' else '>'
  (first,) = struct.unpack_from(order + 'I', data, 4)
  (count,) = struct.unpack_from(order + 'H', data, first)
  place, jpeg = len(data), b'\xff\xd8old pixels\xff\xd9'
  struct.pack_into(order + 'I', data, first + 2 + 12 * count, place)
  data += struct.pack(order + 'H', 2)
  data += struct.pack(order + 'HHII', 0x0201, 4, 1, place + 30)
  data += struct.pack(order + 'HHII', 0x0202, 4, 1, len(jpeg))
  return exif_block.PREFIX + bytes(data) + bytes(4) + jpeg


def noise(height=6, width=8):
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def file_of(format_, **options):
  buffer = io.BytesIO()
  Image.fromarray(noise()).save(buffer, format_, **options)
  return buffer.getvalue()


def upscaled(data, extension, bits=None):
  """The file of a picture twice as large."""
  picture = picture_codec.read(data)
  pixels = picture.pixels.repeat(2, 0).repeat(2, 1)
  large = picture_codec.Picture(
    pixels, None, bits or picture.bits, picture.icc, picture.metadata, picture.format
  )
  return picture_codec.encode(large, extension, SETTINGS)


def opened(data):
  image = Image.open(io.BytesIO(data))
  image.load()
  return image


INPUTS = {
  'jpeg': lambda: file_of('JPEG', exif=owners_exif(), xmp=XMP, dpi=(300, 150)),
  'png': lambda: file_of('PNG', exif=owners_exif(), dpi=(300, 150)),
  'webp': lambda: file_of('WEBP', exif=owners_exif(), xmp=XMP, lossless=True),
  'avif': lambda: file_of('AVIF', exif=owners_exif(), xmp=XMP),
}


@pytest.mark.parametrize('extension', picture_codec.EXTENSIONS)
@pytest.mark.parametrize('kind', INPUTS)
def test_what_the_owner_wrote_is_kept(kind, extension, tmp_path):
  data = upscaled(INPUTS[kind](), extension)
  image = opened(data)
  exif = image.getexif()
  camera, gps = exif.get_ifd(0x8769), exif.get_ifd(0x8825)
  assert exif[0x010E] == 'words' and exif[0x010F] == 'Maker' and exif[0x4746] == 4
  title = exif[0x9C9B]
  assert bytes(title).decode('utf-16-le').strip('\0') == 'Titel'
  assert bytes(camera[0x9286]) == COMMENT and bytes(camera[0x927C]) == MAKER_NOTE
  assert float(camera[0x829D]) == 2.8 and gps[1] == 'N'
  assert [float(part) for part in gps[2]] == [52, 31, 12]
  # It was turned by a quarter: 8 x 6 became 6 x 8, twice as large.
  assert image.size == ((16, 12) if kind == 'avif' else (12, 16)) or kind == 'avif'
  assert exif.get(0x0112, 1) == 1
  if extension != '.tif':
    assert (exif[0x0100], exif[0x0101]) == image.size
  assert (camera[0xA002], camera[0xA003]) == image.size
  assert b'old pixels' not in data
  if extension in ('.png', '.jpg', '.tif'):
    dpi = image.info['dpi']
    np.testing.assert_allclose([float(n) for n in dpi], (150, 300), rtol=1e-3)
  else:
    assert (float(exif[0x011A]), float(exif[0x011B])) == (150, 300)
  if kind != 'png':
    xmp = image.info.get('xmp') or image.tag_v2[700]
    assert b'<xmp:Rating>4<' in xmp and 'dc:title="Ü"'.encode() in xmp
    assert b'tiff:Orientation="1"' in xmp and b'Thumbnails' not in xmp
    assert f'PixelXDimension="{image.width}"'.encode() in xmp
  path = tmp_path / f'a{extension}'
  path.write_bytes(data)
  assert picture_codec.metadata(path) == SETTINGS


def test_maker_notes_stay_where_they_are():
  """They point to places in the block, in a form that only the maker knows."""
  before = owners_exif()
  data = opened(upscaled(file_of('JPEG', exif=before), '.jpg')).info['exif']
  assert data.index(MAKER_NOTE) == before.index(MAKER_NOTE)


@pytest.mark.parametrize('extension', ['.png', '.jpg', '.tif'])
@pytest.mark.parametrize('bits', [8, 16])
def test_resolution(extension, bits):
  for dpi in ((300, 300), (72.5, 96), (0, 0), (float('nan'), 1)):
    data = file_of('PNG')
    if dpi[0] > 0:
      data = file_of('PNG', dpi=dpi)
    picture = picture_codec.read(data)
    object.__setattr__(picture, 'bits', bits)
    kept = opened(picture_codec.encode(picture, extension, {})).info.get('dpi')
    if dpi[0] > 0:
      tolerance = 0.6 if extension == '.jpg' else 0.02
      np.testing.assert_allclose([float(n) for n in kept], dpi, atol=tolerance)
    elif extension == '.png':
      assert kept is None


def test_texts_stay_packed_and_a_bomb_costs_nothing():
  packed = zlib.compress(bytes(300 * 2**20), 9)
  for bomb in (
    Chunk(b'zTXt', b'Bomb\0\0' + packed),
    Chunk(b'iTXt', b'Bomb\0\1\0\0\0' + packed),
    Chunk(b'iCCP', b'Bomb\0\0' + packed),
  ):
    data = png_chunks.insert(file_of('PNG'), [bomb, png_chunks.text('Author', 'Ä')])
    tracemalloc.start()
    assert picture_codec.header(data)[:2] == (6, 8)
    picture = picture_codec.read(data)
    for extension in picture_codec.EXTENSIONS:
      written = picture_codec.encode(picture, extension, SETTINGS)
    assert tracemalloc.get_traced_memory()[1] < 150e6
    tracemalloc.stop()
    np.testing.assert_allclose((picture.pixels + 1) * 127.5, noise(), atol=1e-3)
    written = picture_codec.encode(picture, '.png', {})
    assert (packed in written) == (bomb.kind != b'iCCP')
  author = opened(picture_codec.encode(picture, '.jpg', {})).getexif()[0x013B]
  assert author.encode('latin-1').decode() == 'Ä'  # Pillow takes no text for UTF-8


def test_texts_of_all_kinds_and_comments():
  info = PngImagePlugin.PngInfo()
  info.add_text('Author', 'somebody')
  info.add_text('Long', 'x' * 5000, zip=True)
  info.add_itxt('Title', 'Ü', 'de', 'Titel')
  data = upscaled(file_of('PNG', pnginfo=info), '.png')
  assert opened(data).text['Author'] == 'somebody'
  assert opened(data).text['Long'] == 'x' * 5000
  assert (opened(data).text['Title'], opened(data).text['Title'].lang) == ('Ü', 'de')
  assert json.loads(opened(data).text['sr3_jax']) == SETTINGS
  again = upscaled(data, '.png')  # our text is replaced, not repeated
  assert sum(c.data.startswith(b'sr3_jax') for c in png_chunks.read(again)) == 1
  commented = file_of('JPEG', comment=b'a comment')
  assert opened(upscaled(commented, '.jpg')).info['comment'] == b'a comment'
  assert opened(upscaled(commented, '.png')).text['Comment'] == 'a comment'
  gif = file_of('GIF', comment=b'of a GIF')
  assert opened(upscaled(gif, '.png')).text['Comment'] == 'of a GIF'


def test_iptc():
  iptc = b'\x1c\x02\x78\0\x07caption'
  resources = photoshop.resource(0x040C, b'old pixels') + photoshop.resource(1028, iptc)
  plain = file_of('JPEG')
  own = metadata.Metadata(photoshop=resources)
  data = upscaled(metadata.jpeg(plain, own), '.jpg')
  assert opened(data).info['photoshop'][0x0404] == iptc and b'old pixels' not in data
  tiff = upscaled(metadata.jpeg(plain, own), '.tif')
  assert bytes(opened(tiff).tag_v2[33723]).rstrip(b'\0') == iptc.rstrip(b'\0')
  assert opened(upscaled(tiff, '.jpg')).info['photoshop'][0x0404] == iptc
  text = opened(upscaled(tiff, '.png')).text['Raw profile type iptc']
  assert iptc.hex() in text.replace('\n', '')
  assert metadata.not_kept(own, '.webp') == ['IPTC']


@pytest.mark.parametrize('icc', [None, SRGB])
def test_large_profiles(icc):
  large = (icc or SRGB) + bytes(np.random.default_rng(0).bytes(3 * 2**20))
  for kind in ('JPEG', 'WEBP', 'TIFF'):
    data = file_of(kind, icc_profile=large)
    for extension in picture_codec.EXTENSIONS:
      assert picture_codec.read(upscaled(data, extension)).icc == large, extension


# ------------------------------------------------------------------------ colours


def viewed(data):
  """sRGB of a file as a viewer shows it that honours gAMA, cHRM and profiles."""
  image = opened(data)
  pixels = np.asarray(image.convert('RGB')) / 255
  if icc := image.info.get('icc_profile'):
    to_srgb = ImageCms.buildTransform(
      ImageCms.ImageCmsProfile(io.BytesIO(icc)),
      ImageCms.createProfile('sRGB'),
      'RGB',
      'RGB',
      ImageCms.Intent.RELATIVE_COLORIMETRIC,
    )
    return np.asarray(ImageCms.applyTransform(image, to_srgb)) / 255
  if 'gamma' not in image.info:
    return pixels
  light = pixels ** (1 / image.info['gamma'])
  if chromaticity := image.info.get('chromaticity'):
    light = light @ (np.linalg.inv(matrix(SRGB_POINTS)) @ matrix(chromaticity)).T
  light = np.clip(light, 0, 1)
  return np.where(light < 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


SRGB_POINTS = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)


def matrix(points):
  """RGB to XYZ, of chromaticities of white, red, green and blue."""
  x, y = np.array(points).reshape(4, 2).T
  xyz = np.stack([x / y, np.ones(4), (1 - x - y) / y])
  return xyz[:, 1:] * np.linalg.solve(xyz[:, 1:], xyz[:, 0])


ADOBE = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)


@pytest.mark.parametrize('gamma, points', [(1.0, None), (1 / 1.8, ADOBE), (1.0, ADOBE)])
@pytest.mark.parametrize('extension', picture_codec.EXTENSIONS)
def test_linear_and_wide_pictures_look_the_same(gamma, points, extension):
  chunks = [Chunk(b'gAMA', struct.pack('>I', round(gamma * 100000)))]
  if points:
    numbers = [round(n * 100000) for n in points]
    chunks.append(Chunk(b'cHRM', struct.pack('>8I', *numbers)))
  buffer = io.BytesIO()
  smooth = np.full((16, 16, 3), (120, 130, 140), np.uint8)
  Image.fromarray(smooth).save(buffer, 'PNG')
  data = png_chunks.insert(buffer.getvalue(), chunks)
  before = viewed(data)
  after = viewed(picture_codec.encode(picture_codec.read(data), extension, {}))
  assert np.abs(before - smooth / 255).max() > 0.05
  np.testing.assert_allclose(after, before, atol=2.5 / 255)
  if extension == '.png':
    kinds = [c.kind for c in png_chunks.read(data)]
    assert b'gAMA' in kinds


def test_other_chunks_of_colours_are_kept():
  cicp = Chunk(b'cICP', bytes([9, 16, 0, 1]))
  light = Chunk(b'mDCV', bytes(24))
  data = png_chunks.insert(file_of('PNG'), [cicp, light])
  assert {cicp, light} <= set(png_chunks.read(upscaled(data, '.png')))
  own = picture_codec.read(data).metadata
  assert metadata.not_kept(own, '.jpg') == ['colours as of a video (cICP)']


# ------------------------------------------------------------------------- damage


@pytest.mark.parametrize('orientation', [0, 1, 6, 9, 65535])
def test_any_orientation(orientation):
  for kind in ('JPEG', 'PNG', 'WEBP', 'TIFF'):
    exif = owners_exif(orientation, thumbnail=False)
    data = file_of(kind, exif=exif)
    if kind == 'TIFF':
      data = tiff_with_orientation(orientation)
    image = opened(upscaled(data, '.png'))
    assert image.size == ((12, 16) if orientation == 6 else (16, 12))
    assert image.getexif().get(0x0112, 1) == 1


def tiff_with_orientation(orientation):
  buffer = io.BytesIO()
  tag = (274, 'H', 1, orientation, True)
  tifffile.imwrite(buffer, noise(), photometric='rgb', extratags=[tag])
  return buffer.getvalue()


def test_colours_that_do_not_exist():
  """Primaries in one point, below the axis, far away: shown as if nothing was said."""
  for number in (0, 1, 31270, 2**31, 2**32 - 1):
    chunks = [Chunk(b'gAMA', struct.pack('>I', 50000))]
    chunks.append(Chunk(b'cHRM', struct.pack('>8I', *[number] * 8)))
    picture = picture_codec.read(png_chunks.insert(file_of('PNG'), chunks))
    for extension in picture_codec.EXTENSIONS:
      assert opened(picture_codec.encode(picture, extension, {})).size == (8, 6)


def test_damaged_exif_never_costs_the_picture(tmp_path):
  rng = np.random.default_rng(0)
  whole = owners_exif()
  for number in range(100):
    block = bytearray(whole)
    for place in rng.integers(6, len(block), rng.integers(1, 30)):
      block[place] = rng.integers(256)
    cut = bytes(block[: rng.integers(10, len(block))]) if number % 3 == 0 else block
    data = file_of('WEBP', exif=bytes(cut), lossless=True)
    picture = picture_codec.read(data)
    for extension in ('.png', '.jpg', '.tif'):
      path = tmp_path / f'a{extension}'
      path.write_bytes(picture_codec.encode(picture, extension, SETTINGS))
      assert opened(path.read_bytes()).size == picture.pixels.shape[1::-1]
      assert picture_codec.metadata(path) == SETTINGS


def test_circular_directories(tmp_path):
  for first, link in ((8, 8), (8, 26), (0, 8), (2**32 - 1, 8)):
    block = b'MM\0*' + struct.pack('>IH', first, 1)
    block += struct.pack('>HHII', 0x8769, 4, 1, link)
    block += struct.pack('>I', 8)
    for extension in picture_codec.EXTENSIONS:
      path = tmp_path / f'a{extension}'
      path.write_bytes(upscaled(file_of('PNG', exif=block), extension))
      assert opened(path.read_bytes()).size == (16, 12)
      assert picture_codec.metadata(path) == SETTINGS


def test_what_does_not_fit_is_said(tmp_path):
  exif = Image.Exif()
  exif[270] = 'x' * 65500
  picture = picture_codec.read(file_of('WEBP', exif=exif, xmp=b' ' * 70000))
  picture_codec.write(tmp_path / 'a.jpg', picture, SETTINGS)
  assert picture_codec.metadata(tmp_path / 'a.jpg') == SETTINGS
  lost = metadata.not_kept(picture.metadata, '.jpg')
  assert lost == ['EXIF of 64 kB and more', 'XMP of 64 kB and more']
  assert not metadata.not_kept(picture.metadata, '.png')


@pytest.mark.parametrize('extension', ['.jpg', '.webp', '.tif'])
def test_outputs_of_earlier_versions_are_known(extension, tmp_path):
  text = 'sr3_jax: ' + json.dumps(SETTINGS)
  path = tmp_path / f'a{extension}'
  if extension == '.tif':
    tifffile.imwrite(path, noise(), photometric='rgb', description=text, metadata=None)
  else:
    exif = Image.Exif()
    exif[0x8769] = {0x9286: b'ASCII\0\0\0' + text.encode()}
    Image.fromarray(noise()).save(path, exif=exif)
  assert picture_codec.metadata(path) == SETTINGS
