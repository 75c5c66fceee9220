"""The upscale command: animations and files of several pages, whole and in time."""

import io
import pathlib
import weakref
from fractions import Fraction

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from sr3_jax.images import frames, picture_codec
from tests.support import upscaling
from tests.support.upscaling import last_line, names_in

standin, command = upscaling.standin, upscaling.command

Y, X = np.mgrid[:16, :24]
SMOOTH = np.stack([X * 10, Y * 15, 255 - X * 10], -1).astype(np.uint8)
DURATIONS = [100, 50, 200, 70]


def film(path, alpha=False, **options):
  """Write four frames, of which the second and the last are equal; return them."""
  shown = [SMOOTH, np.roll(SMOOTH, 8, 1), SMOOTH[::-1], np.roll(SMOOTH, 8, 1)]
  if alpha:
    opaque = np.where(X < 12, 255, 0)[..., None].astype(np.uint8)
    shown = [np.dstack([frame, np.roll(opaque, i, 1)]) for i, frame in enumerate(shown)]
  images = [Image.fromarray(np.ascontiguousarray(frame)) for frame in shown]
  options = {
    'save_all': True,
    'append_images': images[1:],
    'duration': DURATIONS,
  } | options
  images[0].save(path, **options)
  return shown


def twice(frame):
  return frame.repeat(2, 0).repeat(2, 1)


def frames_of(path):
  """Return pixels, durations in ms and the loop count, as Pillow has them."""
  with Image.open(path) as image:
    found, durations = [], []
    for number in range(image.n_frames):
      image.seek(number)
      image.load()
      found.append(np.asarray(image.convert('RGBA')).astype(int))
      durations.append(image.info['duration'])
    return found, durations, image.info.get('loop')


@pytest.mark.parametrize(
  ('name', 'output', 'loop', 'off', 'options'),
  [
    ('a.webp', 'a_out.webp', 3, 0, {'lossless': True, 'loop': 3}),
    ('a.png', 'a_out.png', 0, 0, {'loop': 0}),
    ('b.png', 'b_out.png', 2, 0, {'loop': 2}),
    ('a.gif', 'a_out.webp', 3, 12, {'loop': 2}),  # two repetitions are three plays
    ('b.gif', 'b_out.webp', 1, 12, {}),
    ('a.avif', 'a_out.webp', 0, 8, {'quality': 95, 'subsampling': '4:4:4'}),
  ],
)
def test_every_frame_is_done_and_keeps_its_time(
  command, standin, capsys, name, output, loop, off, options
):
  shown = film(name, **options)
  assert command(name) == 0
  assert names_in() == [output]
  found, durations, plays = frames_of(f'out/{output}')
  assert durations == DURATIONS and plays == loop
  for frame, expected in zip(found, shown, strict=True):
    assert np.abs(frame[..., :3] - twice(expected)).mean() <= off
    assert (frame[..., 3] == 255).all()
  np.testing.assert_array_equal(found[1], found[3])
  assert last_line(capsys) == '1 done (with 4 frames or pages), 0 skipped, 0 failed'
  # Equal frames are restored once (a lossy format might tell them apart).
  assert len(standin.groups) == 3 or name.endswith('.avif')
  assert command(name) == 0
  assert last_line(capsys) == '0 done, 1 skipped, 0 failed'


@pytest.mark.parametrize('name', ['a.webp', 'a.png'])
def test_frames_with_alpha(command, name):
  shown = film(name, alpha=True, **({'lossless': True} if name == 'a.webp' else {}))
  assert command(name) == 0
  found, *_ = frames_of(f'out/{pathlib.Path(name).stem}_out{pathlib.Path(name).suffix}')
  for frame, expected in zip(found, shown, strict=True):
    inside = twice(expected)[..., 3] == 255
    assert np.abs(frame - twice(expected))[inside].mean() < 3
    assert np.abs(frame[..., 3] - twice(expected)[..., 3]).mean() < 20


def test_disposal_and_blending_are_composed(command):
  """A GIF of partial frames: each is seen on what the ones before have left."""
  ground = Image.new('P', (16, 16), 0)
  ground.putpalette([0, 0, 0, 250, 0, 0, 0, 250, 0])
  spots = []
  for i in (1, 2):
    spot = ground.copy()
    spot.paste(i, (4 * i, 4, 4 * i + 4, 8))
    spots.append(spot)
  ground.save(
    'a.gif', save_all=True, append_images=spots, duration=40, disposal=[1, 3, 2]
  )
  with Image.open('a.gif') as image:
    expected = []
    for number in range(image.n_frames):
      image.seek(number)
      expected.append(np.asarray(image.convert('RGB')))
  assert command('a.gif') == 0
  found, durations, _ = frames_of('out/a_out.webp')
  assert durations == [40, 40, 40]
  for frame, one in zip(found, expected, strict=True):
    np.testing.assert_array_equal(frame[..., :3], twice(one))


def test_the_hidden_picture_of_an_animated_png_is_no_frame(command):
  frame, other = Image.fromarray(SMOOTH), Image.fromarray(SMOOTH[::-1].copy())
  hidden = Image.new('RGB', frame.size, 'red')
  hidden.save(
    'a.png',
    save_all=True,
    append_images=[frame, other],
    default_image=True,
    duration=40,
  )
  assert command('a.png') == 0
  found, durations, _ = frames_of('out/a_out.png')
  assert durations == [40, 40]
  np.testing.assert_array_equal(found[0][..., :3], twice(SMOOTH))


def test_every_page_is_done_as_it_is(command, capsys):
  """Pages have their own sizes, bits, channels and profiles; thumbnails are none."""
  rng = np.random.default_rng(0)
  pages = [
    rng.integers(0, 256, (6, 8, 3), np.uint8),
    rng.integers(0, 65536, (5, 5), np.uint16),
    rng.integers(0, 65536, (9, 4, 3), np.uint16),
    rng.integers(0, 256, (7, 7), np.uint8),
  ]
  with tifffile.TiffWriter('a.tiff') as writer:
    for number, page in enumerate(pages):
      writer.write(
        page,
        photometric='rgb' if page.ndim == 3 else 'minisblack',
        metadata=None,
        description=f'page {number}',
        software=False,
      )
    writer.write(pages[0][:2, :2], photometric='rgb', subfiletype=1, metadata=None)
  assert command('a.tiff') == 0
  assert last_line(capsys) == '1 done (with 4 frames or pages), 0 skipped, 0 failed'
  with tifffile.TiffFile('out/a_out.tif') as tiff:
    assert len(tiff.pages) == 4
    for page, expected in zip(tiff.pages, pages, strict=True):
      assert page.dtype == expected.dtype
      np.testing.assert_array_equal(page.asarray(), twice(expected))


@pytest.mark.parametrize('order', ['<', '>'])
@pytest.mark.parametrize('big', [False, True])
def test_pages_of_all_kinds_of_tiff(order, big):
  buffer = io.BytesIO()
  with tifffile.TiffWriter(buffer, bigtiff=big, byteorder=order) as writer:
    for i in range(3):
      writer.write(SMOOTH[i:], photometric='rgb', metadata=None)
  found = list(frames.read(buffer.getvalue()))
  assert [frame.picture.pixels.shape[0] for frame in found] == [16, 15, 14]
  assert picture_codec.header(buffer.getvalue()).frames == 3


def test_only_the_first_frame_if_asked_for(command, standin, capsys):
  film('a.webp', lossless=True)
  assert command('a.webp', '--frames=first') == 0
  with Image.open('out/a_out.webp') as image:
    assert image.n_frames == 1
    np.testing.assert_array_equal(np.asarray(image), twice(SMOOTH))
  assert last_line(capsys) == '1 done, 0 skipped, 0 failed'
  assert command('a.webp') == 0  # more than there is
  assert last_line(capsys) == '1 done (with 4 frames or pages), 0 skipped, 0 failed'


def test_samples_and_drawings_of_frames(command):
  film('a.png')
  assert command('a.png', '--num_samples=2', '--spread', '--compare') == 0
  assert names_in() == [
    *('a_out_1.png', 'a_out_2.png', 'a_out_compare.png', 'a_out_mean.png'),
    *('a_out_spread.npy', 'a_out_spread.png'),
  ]
  for name in ('1', '2', 'mean'):
    assert len(frames_of(f'out/a_out_{name}.png')[0]) == 4
  with Image.open('out/a_out_compare.png') as image:
    assert getattr(image, 'n_frames', 1) == 1


@pytest.mark.parametrize(
  ('name', 'ext', 'reason'),
  [
    (
      'a.gif',
      'jpg',
      '.jpg files do not hold its 4 frames and their timing: use --ext=png',
    ),
    ('a.gif', 'tif', '.tif files do not hold its 4 frames and their timing'),
    ('a.tiff', 'png', '.png files do not hold its 4 pages: use --ext=tif, or take'),
  ],
)
def test_formats_that_hold_one_picture_are_refused(command, capsys, name, ext, reason):
  film(name)
  assert command(name, f'--ext={ext}') == 1
  error = capsys.readouterr().err
  assert reason in error and '--frames=first' in error
  assert command(name, f'--ext={ext}', '--frames=first') == 0


def test_a_jpeg_xl_animation_is_refused_unless_its_first_frame_is_wanted(
  command, capsys
):
  stack = np.stack([SMOOTH, SMOOTH[::-1]])
  pathlib.Path('a.jxl').write_bytes(imagecodecs.jpegxl_encode(stack, lossless=True))
  assert command('a.jxl') == 1
  assert 'timing of JXL animations is not read' in capsys.readouterr().err
  assert command('a.jxl', '--frames=first') == 0
  with Image.open('out/a_out.png') as image:
    np.testing.assert_array_equal(np.asarray(image), twice(SMOOTH))


def test_a_damaged_frame_is_named_and_nothing_written(command, capsys):
  film('a.png')
  data = pathlib.Path('a.png').read_bytes()
  place = data.rindex(b'fdAT') + 40
  pathlib.Path('a.png').write_bytes(data[:place] + bytes(30) + data[place + 30 :])
  assert command('a.png') == 1
  assert 'failed: a.png: frame ' in capsys.readouterr().err
  assert names_in('.') == ['a.png']


def test_frames_that_fail_are_named(command, standin, capsys):
  film('a.png')
  standin.fail_at = {(16, 24): ValueError('too much')}
  assert command('a.png') == 1
  assert 'failed: a.png: frame 1: too much' in capsys.readouterr().err


def test_times_that_are_no_milliseconds(command):
  """A thirtieth of a second stays one in PNG; a second and more are whole."""
  film('a.png', duration=[100 / 3, 0, 70_000, 1])
  assert command('a.png') == 0
  data = pathlib.Path('out/a_out.png').read_bytes()
  found = [frame.seconds for frame in frames.read(data)]
  assert found[0] == Fraction(1, 30) and found[1:] == [
    Fraction(1, 10),
    70,
    Fraction(1, 1000),
  ]


def test_memory_is_that_of_one_frame(command, monkeypatch):
  """Frames are read, restored and encoded one by one."""
  film('a.png')
  alive, most = [0], [0]
  made = picture_codec.from_opened

  def counted(image, like):
    picture = made(image, like)
    alive[0] += 1
    most[0] = max(most[0], alive[0])
    weakref.finalize(picture, lambda: alive.__setitem__(0, alive[0] - 1))
    return picture

  monkeypatch.setattr(picture_codec, 'from_opened', counted)
  assert command('a.png') == 0
  assert most[0] <= 3


def test_a_page_that_would_be_too_large_is_named(command, capsys, monkeypatch):
  monkeypatch.setattr(picture_codec, 'MAX_OUTPUT', 1600)
  with tifffile.TiffWriter('a.tif') as writer:
    for side in (16, 24):
      page = np.zeros((side, side, 3), np.uint8)
      writer.write(page, photometric='rgb', metadata=None)
  assert command('a.tif') == 1
  error = capsys.readouterr().err
  assert 'failed: a.tif: page 2: 24 x 24 pixels would become 48 x 48' in error
