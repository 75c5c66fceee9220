"""The upscale command: what it writes and says; once with a model."""

import io
import json
import os
import pathlib
import sys

import jax
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from sr3_jax.core.sr3 import SR3
from sr3_jax.images import image_files, picture_codec
from sr3_jax.images import pixels as images_pixels
from sr3_jax.restoration.memory import Memory
from sr3_jax.upscale import command as upscale_command
from tests.support import programs, runs, upscaling
from tests.support.upscaling import last_line, names_in, save

standin, command = upscaling.standin, upscaling.command

pytestmark = pytest.mark.filterwarnings(r'ignore:::PIL\.')

# Made once: it carries the second it was made in.
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()


# ------------------------------------------------------------------ what is written


def test_what_belongs_to_a_picture_is_kept(command):
  exif = Image.Exif()
  exif[274], exif[271] = 6, 'Camera'
  truth = save('in/a.png', 6, 8, 4, exif=exif, icc_profile=SRGB)
  stored = np.random.default_rng(0).integers(0, 2**16, (5, 7, 3), dtype=np.uint16)
  tifffile.imwrite('in/b.tif', stored, photometric='rgb')
  save('in/c.png', 4, 4, 1)
  assert command('in') == 0
  with Image.open('out/a_out.png') as image:
    assert image.mode == 'RGBA' and image.size == (12, 16)
    assert image.info['icc_profile'] == SRGB
    assert image.getexif()[271] == 'Camera' and image.getexif().get(274, 1) == 1
    upright = np.rot90(truth, -1)
    pixels = np.asarray(image)
  shown = upright[..., 3] >= 4  # less is hardly there, and may change
  np.testing.assert_array_equal(pixels[::2, ::2, :3][shown], upright[..., :3][shown])
  bicubic = Image.fromarray(np.ascontiguousarray(upright[..., 3])).resize(
    (12, 16), Image.Resampling.BICUBIC
  )
  close = np.abs(pixels[..., 3].astype(int) - np.asarray(bicubic)) <= 1
  assert close.mean() > 0.8  # Pillow clips between the axes, too
  np.testing.assert_array_equal(tifffile.imread('out/b_out.tif')[::2, ::2], stored)
  with Image.open('out/c_out.png') as image:
    assert image.mode == 'L'


def test_samples_mean_spread_and_sheet(command, capsys):
  save('a.png')
  options = ('--num_samples=3', '--spread', '--compare')
  assert command('a.png', *options) == 0
  assert names_in() == [
    'a_out_1.png',
    'a_out_2.png',
    'a_out_3.png',
    'a_out_compare.png',
    'a_out_mean.png',
    'a_out_spread.npy',
    'a_out_spread.png',
  ]
  stack = np.stack([image_files.read(f'out/a_out_{i}.png') for i in (1, 2, 3)]) / 127.5
  spread = np.load('out/a_out_spread.npy', allow_pickle=False)
  assert spread.dtype == np.float32 and spread.shape == (12, 16)
  np.testing.assert_allclose(stack.std(0).mean(-1), spread, atol=1 / 127.5)
  mean = image_files.read('out/a_out_mean.png') / 127.5
  np.testing.assert_allclose(mean, stack.mean(0), atol=1.01 / 127.5)
  with Image.open('out/a_out_compare.png') as sheet:
    assert sheet.width > 5 * sheet.height
  for name in names_in():
    if name.endswith('.png'):
      assert picture_codec.metadata(pathlib.Path('out', name))['num_samples'] == 3
  assert command('a.png', *options) == 0
  assert last_line(capsys) == '0 done, 1 skipped, 0 failed'


def test_settings_in_every_output(command, standin):
  save('in/a.png')
  for ext in ('png', 'jpg', 'webp', 'tif'):
    assert command('in', f'--ext={ext}') == 0
    found = picture_codec.metadata(pathlib.Path(f'out/a_out.{ext}'))
    assert found['weights'] == 'abc' and found['seed'] == 0 and found['version'] == '1'
    assert found['input']['name'] == 'a.png'
    assert str(pathlib.Path.cwd()) not in json.dumps(found)
  with Image.open('out/a_out.png') as image:
    assert json.loads(image.text['sr3_jax'])['outscale'] == 2


def test_one_pixel(command):
  save('in/a.png', 1, 1)
  save('in/b.png', 1, 9, 1)
  Image.new('L', (3, 1)).save('in/c.png')
  assert command('in', '--outscale=0.4') == 0
  for name in names_in():
    with Image.open(f'out/{name}') as image:
      assert image.height == 1


# ------------------------------------------------------------- streams and mistakes


class _Stream:
  def __init__(self, data=b''):
    self.buffer = io.BytesIO(data)

  def isatty(self):
    return False

  def write(self, text):
    raise AssertionError(f'text among the pixels: {text!r}')

  def flush(self):
    pass


def test_streams(standin, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  truth = save('a.png')
  data = pathlib.Path('a.png').read_bytes()
  monkeypatch.setattr(sys, 'stdin', _Stream(data))
  with monkeypatch.context() as patch:
    patch.setattr(sys, 'stdout', out := _Stream())
    code = upscale_command.main(['-', '-m', 'm', '-o', '-', '--cache=', '--ext=webp'])
  assert code == 0
  image = Image.open(io.BytesIO(out.buffer.getvalue()))
  assert image.format == 'WEBP'
  np.testing.assert_array_equal(np.asarray(image)[::2, ::2], truth)

  monkeypatch.setattr(sys, 'stdin', _Stream(data))
  assert upscale_command.main(['-i', '-', '-m', 'm', '-o', 'out', '--cache=']) == 0
  assert names_in() == ['stdin_out.png']

  monkeypatch.setattr(sys, 'stdin', _Stream(b'text'))
  assert upscale_command.main(['-', '-m', 'm', '-o', 'out', '--cache=']) == 1
  assert 'failed: standard input: a text, not a JPEG' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ([], 'no INPUT'),
    (['missing.png'], 'missing.png: no such file or folder'),
    (['empty'], 'no image files in this folder'),
    (['*.gif'], 'no image file matches'),
    (['a.png', '--outscale=0'], '--outscale'),
    (['a.png', '--outscale=nan'], '--outscale'),
    (['a.png', '--outscale=big'], '--outscale'),
    (['a.png', '--steps=0'], '--steps'),
    (['a.png', '--num_samples=0'], '--num_samples'),
    (['a.png', '--spread'], '--num_samples=2'),
    (['a.png', '--ext=gif'], '--ext'),
    (['a.png', '--suffix=x/y'], '--suffix'),
    (['a.png', '--output=a.png'], '--output=a.png: '),
    (['a.png', '--output=-', '--compare'], '--output=-'),
    (['a.png', 'b.png', '--output=-'], 'takes one picture, not 2'),
    (['gs://bucket/a.png'], 'local'),
    (['a.png', '--label=3'], 'no classes'),
    (['a.png', '--mask=b.png'], 'no masks: this model is for'),
    (['a.png', '--mask=holes'], '--mask=holes: no such file or folder'),
    (['a.png', '--noise=-1'], '--noise'),
    (['a.png', '--guidance=nan'], '--guidance'),
    (['a.png', '--temperature=0'], '--temperature'),
    (['a.png', '--outscal=2'], '--outscal'),
  ],
)
def test_mistakes_are_one_line(command, capsys, arguments, message):
  save('a.png')
  save('b.png')
  os.makedirs('empty')
  with pytest.raises(SystemExit) as stop:
    command(*arguments)
  assert stop.value.code == 2
  error = capsys.readouterr().err.strip()
  assert error.startswith('error: ') and '\n' not in error and message in error


def test_no_model(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  save('a.png')
  with pytest.raises(SystemExit) as stop:
    upscale_command.main(['a.png', '--model=nowhere', '--output=out', '--cache='])
  assert stop.value.code == 2
  error = capsys.readouterr().err.strip()
  assert error.startswith('error: ') and '\n' not in error and 'nowhere' in error


def test_help_is_instant():
  """Nothing heavy is imported for it, nor for a mistake."""
  for argument, code in (('--help', 0), ('--nonsense', 2)):
    stopped, imported = programs.run_main('sr3_jax.upscale.command', argument)
    assert stopped == code and not imported & {'jax', 'numpy', 'PIL', 'flax'}


def test_a_picture_needs_neither_orbax_nor_scipy(model, tmp_path, compile_cache):
  """Both take long to import, and only runs and stages of cascades need them."""
  save(tmp_path / 'a.png', 4, 4)
  stopped, imported = programs.run_main(
    'sr3_jax.upscale.command',
    str(tmp_path / 'a.png'),
    f'--model={model}',
    f'--output={tmp_path / "out"}',
    f'--cache={compile_cache}',
    '--steps=1',
  )
  assert stopped == 0 and names_in(tmp_path / 'out') == ['a_out.png']
  assert 'jax' in imported and not imported & {'orbax', 'tensorstore', 'scipy.ndimage'}


def test_progress_and_announcement(command, standin, capsys, caplog):
  save('in/a.png', 20, 30)
  save('in/b.png')
  assert command('in') == 0
  assert (
    '2 pictures, up to 30 x 20 pixels, 2 times larger; standin (abc)' in caplog.text
  )
  assert 'memory: at most 1.00 GB of 2.00 GB' in caplog.text
  errors = capsys.readouterr().err
  assert 'pictures 1-2/2, step 0/4  0.0%' in errors
  assert 'picture 2/2  100.0%' in errors
  assert command('in', '--overwrite', '--quiet') == 0
  assert capsys.readouterr().err == ''


def test_a_picture_that_does_not_fit_is_refused_and_the_others_are_done(
  command, standin, capsys
):
  save('in/large.png', 20, 30)
  save('in/small.png')

  def memory(height, *rest):
    return Memory(3 * 10**9 if height == 20 else 10**9, 2 * 10**9)

  standin.memory = memory
  assert command('in') == 1
  out, err = capsys.readouterr()
  assert '1 done, 0 skipped, 1 failed' in out and standin.reserved == [(6, 8)]
  assert 'large.png: 30 x 20 pixels need more memory than there is, 3.00 GB of' in err


# -------------------------------------------------------------------------- a model


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  """A model folder with random weights."""
  from sr3_jax.weights import model_writer

  config = runs.get_config()
  network = SR3.from_config(config)
  shapes = jax.eval_shape(network.init, jax.random.key(0))
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda p: 0.1 * rng.standard_normal(p.shape).astype(np.float32), shapes
  )
  folder = tmp_path_factory.mktemp('models') / 'random'
  model_writer.save(folder, params, config, step=1)
  return folder


def test_with_a_model(model, tmp_path, monkeypatch, capsys, compile_cache):
  """A picture is the same alone, in a folder, and through the function."""
  import sr3_jax

  monkeypatch.chdir(tmp_path)
  for i, (height, width) in enumerate([(4, 4), (3, 9), (1, 1), (7, 5)]):
    save(f'in/{i}.png', height, width, seed=i)
  save('in/grey.png', 6, 6, 1)
  options = [f'--model={model}', f'--cache={compile_cache}', '--steps=2', '--seed=7']
  assert upscale_command.main(['in', '--output=out', *options]) == 0
  assert upscale_command.main(['in/1.png', '--output=alone', *options]) == 0
  one = pathlib.Path('out/1_out.png')
  np.testing.assert_array_equal(
    image_files.read('alone/1_out.png'), image_files.read(one)
  )
  with Image.open('in/1.png') as image:
    result = sr3_jax.load(model, steps=2, seed=7).upscale(image)
  scale = result.settings['outscale']
  assert image_files.read(one).shape == (3 * scale, 9 * scale, 3)
  np.testing.assert_array_equal(
    images_pixels.to_uint8(result.image), image_files.read(one)
  )
  found = picture_codec.metadata(one)
  assert found['weights'] == sr3_jax.load(model).loaded.fingerprint
  assert found['seed'] == 7 and found['num_steps'] == 2
  capsys.readouterr()
  assert upscale_command.main(['in', '--output=out', *options]) == 0
  assert last_line(capsys) == '0 done, 5 skipped, 0 failed'
