"""The command: files in, files out; a stand-in for the model, and once a model."""

import io
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import tifffile
import tiny
from PIL import Image, ImageCms

from sr3_jax import batch, folders, images, jobs, pictures, pipeline, upscale
from sr3_jax.sr3 import SR3

pytestmark = pytest.mark.filterwarnings(r'ignore:::PIL\.')

# Made once: it carries the second it was made in.
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()


class Standin:
  """Repeats pixels twice and adds noise that depends on seed and sample."""

  num_steps = 4
  channels, value_range = 3, None
  takes_masks = needs_masks = False

  def __init__(self, seed=0, **settings):
    self.seed, self.given = seed, settings
    self.groups, self.reserved, self.fail_at = [], None, set()

  def settings(self, outscale=None):
    own = {'model': 'standin', 'weights': 'abc', 'version': '1', 'seed': self.seed}
    own |= {'outscale': outscale or 2, 'sampler': 'none', 'task': 'repetition'}
    return own | self.given

  def margins(self, height, width):
    return 0, 0, 0, 0

  def output_size(self, height, width, outscale=None):
    return tuple(max(1, round(side * (outscale or 2))) for side in (height, width))

  def work(self, height, width, outscale=None, num_samples=1):
    return self.num_steps * num_samples * height * width

  def reserve(self, sizes, outscale=None):
    self.reserved = list(sizes)

  def memory(self, height, width, outscale=None, label=None):
    return 10**9, 2 * 10**9

  def check(self, outscale, label, masked=False):
    if masked:
      raise pipeline.PipelineError('no masks: this model is for repetition')
    if label is not None:
      raise pipeline.PipelineError('this model has no classes')
    return outscale or 2, 0

  def upscale_many(
    self, images, outscale=None, *, masks, num_samples=1, label=None, on_steps=None
  ):
    assert masks == [None] * len(images)
    self.groups.append([image.shape[:2] for image in images])
    results = []
    for image in images:
      if image.shape[:2] in self.fail_at:
        raise self.fail_at[image.shape[:2]]
      sides = self.output_size(*image.shape[:2], outscale)
      rows, columns = (
        np.arange(side) * had // side
        for side, had in zip(sides, image.shape, strict=False)
      )
      large = image[rows][:, columns]
      noise = np.random.default_rng(self.seed).normal(0, 0.01, (num_samples, 1, 1, 1))
      noise[0] = 0
      for _ in range(self.num_steps):
        on_steps(num_samples * image.shape[0] * image.shape[1])
      settings = self.settings(outscale)
      samples = (large + noise).astype(np.float32)
      results.append(pipeline.Result(samples, image, large, settings))
    return results


@pytest.fixture
def standin(monkeypatch):
  standin = Standin()
  monkeypatch.setattr(upscale, 'load', lambda args: standin)
  return standin


@pytest.fixture
def command(standin, tmp_path, monkeypatch):
  """Runs the command in an empty folder; returns its exit code."""
  monkeypatch.chdir(tmp_path)
  return lambda *args: upscale.main(['--model=m', '--output=out', '--cache=', *args])


def _save(path, height=6, width=8, channels=3, seed=0, **options):
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  rng = np.random.default_rng(seed)
  pixels = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
  stored = pixels[..., 0] if channels == 1 else pixels
  Image.fromarray(stored).save(path, **options)
  return pixels


def _written(folder='out'):
  files = sorted(path for path in pathlib.Path(folder).rglob('*') if path.is_file())
  return [path.relative_to(folder).as_posix() for path in files]


def _last_line(capsys):
  return capsys.readouterr().out.strip().splitlines()[-1]


# ------------------------------------------------------------------- which files


def test_a_folder_is_mirrored(command, standin, capsys):
  truth = _save('in/a b.png')
  _save('in/sub/ü.tif', 5, 5)
  _save('in/sub/deep/c.JPG', 4, 9)
  _save('in/.hidden.png')
  _save('in/.thumbnails/t.png')
  pathlib.Path('in/notes.txt').write_text('no picture')
  assert command('in') == 0
  assert _written() == ['a b_out.png', 'sub/deep/c_out.jpg', 'sub/ü_out.tif']
  assert _last_line(capsys) == '3 done, 0 skipped, 0 failed'
  with Image.open('out/a b_out.png') as image:
    expected = truth.repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(np.asarray(image), expected)
  assert standin.reserved == [(6, 8), (4, 9), (5, 5)]


def test_files_patterns_and_both_spellings(command):
  _save('x/1.png')
  _save('x/y/2.png', seed=1)
  _save('x/y/3.webp', seed=2, lossless=True)
  _save('z.bmp', seed=3)
  assert command('x/**/*.png', '-i', 'z.bmp', 'x/1.png', '--suffix=') == 0
  assert _written() == ['1.png', 'y/2.png', 'z.png']


def test_several_folders_keep_their_names(command):
  _save('a/1.png')
  _save('b/1.png')
  assert command('a', 'b') == 0
  assert _written() == ['a/1_out.png', 'b/1_out.png']


def test_equal_names_are_told_apart(command):
  _save('a/1.png')
  _save('b/1.png', seed=1)
  _save('b/1.webp', seed=2, lossless=True)
  _save('b/2.png', seed=3)
  files = ['a/1.png', 'b/1.png', 'b/1.webp', 'b/2.png']
  assert command(*files, '--ext=png') == 0
  names = ['1_png_2_out.png', '1_png_out.png', '1_webp_out.png', '2_out.png']
  assert _written() == names
  before = {name: pathlib.Path('out', name).read_bytes() for name in names}
  assert command(*files[::-1], '--ext=png', '--overwrite') == 0
  assert {name: pathlib.Path('out', name).read_bytes() for name in names} == before


@pytest.mark.parametrize('names', [('a.png', 'a_1.png', 'b/a.png'), ('a.png', 'A.png')])
def test_stems_of_derived_names(names):
  """Outputs of one may be called as another's, or nearly, for some file systems."""
  places = [pathlib.PurePath(name) for name in names]
  sources = [folders.Source('', pathlib.Path('x', place), place) for place in places]
  outputs = lambda i, stem: [f'{stem}.png', f'{stem}_1.png']
  stems = folders.stems(sources, outputs)
  files = [
    str(place.parent / name).lower()
    for place, stem in zip(places, stems, strict=True)
    for name in outputs(0, stem)
  ]
  assert len(set(files)) == len(files)
  if 'b/a.png' in names:
    assert stems[2] == 'a'


@pytest.mark.parametrize('output', ['in', 'in/large', '.'])
def test_own_outputs_are_no_inputs(command, standin, output, capsys):
  _save('in/a.png')
  _save('in/sub/b.png', 5, 5)
  options = ('--num_samples=2', '--spread', '--compare', f'--output={output}')
  assert command('in', *options) == 0
  first = _written('.')
  assert command('in', *options) == 0
  assert _last_line(capsys) == '0 done, 2 skipped, 0 failed'
  assert command('in/**/*.png', *options) == 0
  assert _written('.') == first
  if output == 'in/large':  # where nothing is an input, whoever wrote it
    _save('in/large/stripped.png')
    assert command('in', *options) == 0
    assert _last_line(capsys) == '0 done, 2 skipped, 0 failed'
  # Unless they are asked for.
  where = pathlib.Path(output, 'a_out_1.png')
  assert command(str(where), '--output=twice') == 0
  assert _written('twice') == ['a_out_1_out.png']


def test_inputs_are_never_replaced(command, capsys):
  _save('in/a.png')
  before = pathlib.Path('in/a.png').read_bytes()
  assert command('in', '--suffix=', '--output=in', '--overwrite') == 1
  assert 'would replace an input' in capsys.readouterr().err
  assert pathlib.Path('in/a.png').read_bytes() == before


def test_links_and_doubles(command):
  _save('in/a.png')
  os.symlink(pathlib.Path('in/a.png').resolve(), 'link.png')
  os.symlink('nowhere', 'in/broken.png')
  assert command('in/a.png', 'link.png', './in/a.png') == 0
  assert _written() == ['a_out.png']
  assert command('in') == 1


# --------------------------------------------------------------- skip, remake, fail


def test_finished_files_are_skipped_until_something_changes(
  command, standin, capsys, monkeypatch
):
  _save('in/a.png')
  _save('in/b.jpg', seed=1)
  assert command('in') == 0
  written = {name: os.stat(f'out/{name}').st_mtime_ns for name in _written()}
  standin.groups.clear()
  assert command('in') == 0
  assert _last_line(capsys) == '0 done, 2 skipped, 0 failed'
  assert standin.groups == []
  assert written == {n: os.stat(f'out/{n}').st_mtime_ns for n in _written()}

  _save('in/a.png', seed=5)  # another picture
  assert command('in') == 0
  assert _last_line(capsys) == '1 done, 1 skipped, 0 failed'
  standin.seed = 3
  assert command('in') == 0
  assert _last_line(capsys) == '2 done, 0 skipped, 0 failed'
  standin.given = {'model': 'renamed'}
  assert command('in') == 0
  assert _last_line(capsys) == '0 done, 2 skipped, 0 failed'
  standin.given = {'weights': 'others'}
  assert command('in') == 0
  assert _last_line(capsys) == '2 done, 0 skipped, 0 failed'
  assert command('in', '--overwrite') == 0
  assert _last_line(capsys) == '2 done, 0 skipped, 0 failed'
  # What is missing is made again.
  assert command('in', '--num_samples=2') == 0
  os.remove('out/a_out_mean.png')
  assert command('in', '--num_samples=2') == 0
  assert _last_line(capsys) == '1 done, 1 skipped, 0 failed'
  # A folder that was moved is still the same.
  shutil.move('in', 'elsewhere')
  assert command('elsewhere') == 0
  assert _last_line(capsys) == '0 done, 2 skipped, 0 failed'


def test_outputs_of_others_are_not_replaced(command, capsys):
  _save('x/a.png')
  _save('y/a.png', seed=1)
  _save('out/b_out.png', seed=2)
  _save('b.png')
  assert command('x/a.png') == 0
  before = pathlib.Path('out/a_out.png').read_bytes()
  assert command('y/a.png', 'b.png') == 1
  errors = [line for line in capsys.readouterr().err.splitlines() if 'failed: ' in line]
  assert len(errors) == 2 and all('--overwrite' in line for line in errors)
  assert pathlib.Path('out/a_out.png').read_bytes() == before
  assert command('y/a.png', 'b.png', '--overwrite') == 0
  assert pathlib.Path('out/a_out.png').read_bytes() != before


def test_bad_files_are_listed_and_the_others_done(command, capsys, monkeypatch):
  _save('in/good.png')
  good = pathlib.Path('in/good.png').read_bytes()
  pathlib.Path('in/cut.png').write_bytes(good[:-40])
  pathlib.Path('in/text.png').write_text('hello')
  pathlib.Path('in/empty.jpg').touch()
  assert command('in', 'missing.png') == 1
  captured = capsys.readouterr()
  assert captured.out.strip() == '1 done, 0 skipped, 4 failed'
  lines = [line for line in captured.err.splitlines() if line.startswith('failed: ')]
  assert sorted(line.split(': ')[1] for line in lines) == [
    'in/cut.png',
    'in/empty.jpg',
    'in/text.png',
    'missing.png',
  ]
  assert 'failed: in/empty.jpg: zero bytes' in lines
  assert 'failed: missing.png: no such file or folder' in lines
  assert 'Traceback' not in captured.err
  assert _written() == ['in/good_out.png']


def test_what_is_too_large_is_refused_with_its_size(command, standin, capsys):
  _save('in/a.png', 10, 12)
  _save('in/b.webp', 200, 1)
  assert command('in', '--outscale=2000', '--ext=png') == 1
  errors = capsys.readouterr().err
  assert '12 x 10 pixels would become 24000 x 20000, more than' in errors
  assert '134 Mpx' in errors
  assert standin.groups == []
  assert command('in/b.webp', '--outscale=100') == 0  # 20000 rows: no WebP
  assert _written() == ['b_out.png']
  assert command('in/b.webp', '--outscale=100', '--ext=webp') == 1
  assert '.webp files hold no 100 x 20000 pixels: use .png' in capsys.readouterr().err


def test_a_failing_group_is_done_one_by_one(command, standin, capsys):
  for i in range(3):
    _save(f'in/{i}.png', 6, 8 + i)
  standin.fail_at = {(6, 9): RuntimeError('boom\n twice')}
  assert command('in') == 1
  assert standin.groups == [
    [(6, 10), (6, 9), (6, 8)],
    [(6, 10)],
    [(6, 9)],
    [(6, 8)],
  ]
  assert 'failed: in/1.png: RuntimeError boom twice' in capsys.readouterr().err
  assert _written() == ['0_out.png', '2_out.png']


def test_groups(standin):
  source = folders.Source('', None, pathlib.PurePath('a'))
  todo = [
    jobs.Job(source, b'', pictures, size, '.png', {})
    for size in [(1000, 800), (300, 200), *[(20, 20)] * 600]
  ]
  room = batch.GROUP * jax.local_device_count()
  groups = list(batch._groups(standin, jobs.Options(None), todo))
  assert [job for group in groups for job in group] == todo
  assert len(groups[0]) == 1
  for group in groups[1:]:
    assert sum(max(64**2, 4 * job.size[0] * job.size[1]) for job in group) <= room


def test_an_output_that_cannot_be_written(command, standin, capsys):
  _save('in/a.png')
  _save('in/b.png')
  os.makedirs('out/a_out.png/in the way')
  assert command('in') == 1
  assert 'failed: in/a.png: ' in capsys.readouterr().err
  assert _written() == ['b_out.png']


def test_interrupted_then_continued(command, standin, capsys, monkeypatch):
  for i in range(3):
    _save(f'in/{i}.png', 6, 8 + i)
  monkeypatch.setattr(batch, 'GROUP', 0)
  standin.fail_at = {(6, 9): KeyboardInterrupt()}
  assert command('in') == 130
  captured = capsys.readouterr()
  assert captured.err.strip().splitlines()[-1].startswith('interrupted; the same')
  assert 'Traceback' not in captured.err and captured.out == ''
  assert _written() == ['2_out.png']
  standin.fail_at = {}
  assert command('in') == 0
  assert _last_line(capsys) == '2 done, 1 skipped, 0 failed'


# ------------------------------------------------------------------ what is written


def test_what_belongs_to_a_picture_is_kept(command):
  exif = Image.Exif()
  exif[274], exif[271] = 6, 'Camera'
  truth = _save('in/a.png', 6, 8, 4, exif=exif, icc_profile=SRGB)
  stored = np.random.default_rng(0).integers(0, 2**16, (5, 7, 3), dtype=np.uint16)
  tifffile.imwrite('in/b.tif', stored, photometric='rgb')
  _save('in/c.png', 4, 4, 1)
  assert command('in') == 0
  with Image.open('out/a_out.png') as image:
    assert image.mode == 'RGBA' and image.size == (12, 16)
    assert image.info['icc_profile'] == SRGB
    assert image.getexif()[271] == 'Camera' and image.getexif().get(274, 1) == 1
    upright = np.rot90(truth, -1)
    pixels = np.asarray(image)
  np.testing.assert_array_equal(pixels[::2, ::2, :3], upright[..., :3])
  bicubic = Image.fromarray(np.ascontiguousarray(upright[..., 3])).resize(
    (12, 16), Image.Resampling.BICUBIC
  )
  close = np.abs(pixels[..., 3].astype(int) - np.asarray(bicubic)) <= 1
  assert close.mean() > 0.8  # Pillow clips between the axes, too
  np.testing.assert_array_equal(tifffile.imread('out/b_out.tif')[::2, ::2], stored)
  with Image.open('out/c_out.png') as image:
    assert image.mode == 'L'


def test_samples_mean_spread_and_sheet(command, capsys):
  _save('a.png')
  options = ('--num_samples=3', '--spread', '--compare')
  assert command('a.png', *options) == 0
  assert _written() == [
    'a_out_1.png',
    'a_out_2.png',
    'a_out_3.png',
    'a_out_compare.png',
    'a_out_mean.png',
    'a_out_spread.npy',
    'a_out_spread.png',
  ]
  stack = np.stack([images.read(f'out/a_out_{i}.png') for i in (1, 2, 3)]) / 127.5
  spread = np.load('out/a_out_spread.npy', allow_pickle=False)
  assert spread.dtype == np.float32 and spread.shape == (12, 16)
  np.testing.assert_allclose(stack.std(0).mean(-1), spread, atol=1 / 127.5)
  mean = images.read('out/a_out_mean.png') / 127.5
  np.testing.assert_allclose(mean, stack.mean(0), atol=1.01 / 127.5)
  with Image.open('out/a_out_compare.png') as sheet:
    assert sheet.width > 5 * sheet.height
  for name in _written():
    if name.endswith('.png'):
      assert pictures.metadata(pathlib.Path('out', name))['num_samples'] == 3
  assert command('a.png', *options) == 0
  assert _last_line(capsys) == '0 done, 1 skipped, 0 failed'


def test_settings_in_every_output(command, standin):
  _save('in/a.png')
  for ext in ('png', 'jpg', 'webp', 'tif'):
    assert command('in', f'--ext={ext}') == 0
    found = pictures.metadata(pathlib.Path(f'out/a_out.{ext}'))
    assert found['weights'] == 'abc' and found['seed'] == 0 and found['version'] == '1'
    assert found['input']['name'] == 'a.png'
    assert str(pathlib.Path.cwd()) not in json.dumps(found)
  with Image.open('out/a_out.png') as image:
    assert json.loads(image.text['sr3_jax'])['outscale'] == 2


def test_one_pixel(command):
  _save('in/a.png', 1, 1)
  _save('in/b.png', 1, 9, 1)
  Image.new('L', (3, 1)).save('in/c.png')
  assert command('in', '--outscale=0.4') == 0
  for name in _written():
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
  truth = _save('a.png')
  data = pathlib.Path('a.png').read_bytes()
  monkeypatch.setattr(sys, 'stdin', _Stream(data))
  with monkeypatch.context() as patch:
    patch.setattr(sys, 'stdout', out := _Stream())
    code = upscale.main(['-', '-m', 'm', '-o', '-', '--cache=', '--ext=webp'])
  assert code == 0
  image = Image.open(io.BytesIO(out.buffer.getvalue()))
  assert image.format == 'WEBP'
  np.testing.assert_array_equal(np.asarray(image)[::2, ::2], truth)

  monkeypatch.setattr(sys, 'stdin', _Stream(data))
  assert upscale.main(['-i', '-', '-m', 'm', '-o', 'out', '--cache=']) == 0
  assert _written() == ['stdin_out.png']

  monkeypatch.setattr(sys, 'stdin', _Stream(b'text'))
  assert upscale.main(['-', '-m', 'm', '-o', 'out', '--cache=']) == 1
  assert 'failed: standard input: not a JPEG' in capsys.readouterr().err


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
    (['a.png', '--outscal=2'], '--outscal'),
  ],
)
def test_mistakes_are_one_line(command, capsys, arguments, message):
  _save('a.png')
  _save('b.png')
  os.makedirs('empty')
  with pytest.raises(SystemExit) as stop:
    command(*arguments)
  assert stop.value.code == 2
  error = capsys.readouterr().err.strip()
  assert error.startswith('error: ') and '\n' not in error and message in error


def test_no_model(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  _save('a.png')
  with pytest.raises(SystemExit) as stop:
    upscale.main(['a.png', '--model=nowhere', '--output=out', '--cache='])
  assert stop.value.code == 2
  error = capsys.readouterr().err.strip()
  assert error.startswith('error: ') and '\n' not in error and 'nowhere' in error


def test_help_is_instant():
  """Nothing heavy is imported for it, nor for a mistake."""
  code = (
    'import sys, sr3_jax.upscale as u\n'
    'try: u.main(sys.argv[1:])\n'
    'except SystemExit as stop: print(stop.code)\n'
    'print(sorted({"jax", "numpy", "PIL", "flax"} & set(sys.modules)))'
  )
  for argument, expected in (('--help', '0'), ('--nonsense', '2')):
    done = subprocess.run(
      [sys.executable, '-c', code, argument], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-2:] == [expected, '[]']


def test_progress_and_announcement(command, standin, capsys, caplog):
  _save('in/a.png', 20, 30)
  _save('in/b.png')
  assert command('in') == 0
  assert (
    '2 pictures, up to 30 x 20 pixels, 2 times larger; standin (abc)' in caplog.text
  )
  assert 'memory: 1.00 GB for the largest, 2.00 GB free' in caplog.text
  assert 'picture 2/2  100.0%' in capsys.readouterr().err
  standin.memory = lambda *size: (3 * 10**9, 2 * 10**9)
  assert command('in', '--overwrite') == 0
  assert 'smaller tiles (--tile) need less' in caplog.text


# -------------------------------------------------------------------------- a model


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  """A model folder with random weights."""
  from sr3_jax import hub

  config = tiny.get_config()
  network = SR3.from_config(config)
  shapes = jax.eval_shape(network.init, jax.random.key(0))
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda p: 0.1 * rng.standard_normal(p.shape).astype(np.float32), shapes
  )
  folder = tmp_path_factory.mktemp('models') / 'random'
  hub.save(folder, params, config, step=1)
  return folder


def test_with_a_model(model, tmp_path, monkeypatch, capsys, compile_cache):
  """A picture is the same alone, in a folder, and through the function."""
  import sr3_jax

  monkeypatch.chdir(tmp_path)
  for i, (height, width) in enumerate([(4, 4), (3, 9), (1, 1), (7, 5)]):
    _save(f'in/{i}.png', height, width, seed=i)
  _save('in/grey.png', 6, 6, 1)
  options = [f'--model={model}', f'--cache={compile_cache}', '--steps=2', '--seed=7']
  assert upscale.main(['in', '--output=out', *options]) == 0
  assert upscale.main(['in/1.png', '--output=alone', *options]) == 0
  one = pathlib.Path('out/1_out.png')
  np.testing.assert_array_equal(images.read('alone/1_out.png'), images.read(one))
  with Image.open('in/1.png') as image:
    result = sr3_jax.load(model, steps=2, seed=7).upscale(image)
  scale = result.settings['outscale']
  assert images.read(one).shape == (3 * scale, 9 * scale, 3)
  np.testing.assert_array_equal(images.to_uint8(result.image), images.read(one))
  found = pictures.metadata(one)
  assert found['weights'] == sr3_jax.load(model).loaded.fingerprint
  assert found['seed'] == 7 and found['num_steps'] == 2
  capsys.readouterr()
  assert upscale.main(['in', '--output=out', *options]) == 0
  assert _last_line(capsys) == '0 done, 5 skipped, 0 failed'
