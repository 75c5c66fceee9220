"""One output file instead of a folder: `sr3-upscale a.png -o b.png`."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from sr3_jax.images import formats
from sr3_jax.upscale import command as upscale_command
from tests.support import upscaling
from tests.support.upscaling import last_line, names_in, save

standin = upscaling.standin


@pytest.fixture
def command(standin, tmp_path, monkeypatch):
  """Runs the command in an empty folder; returns its exit code."""
  monkeypatch.chdir(tmp_path)

  def run(*args):
    try:
      return upscale_command.main(['--model=m', '--cache=', *args])
    except SystemExit as stop:
      return stop.code

  return run


@pytest.mark.parametrize(
  ('name', 'kind'),
  [
    ('b.png', 'PNG'),
    ('new/deep/b.jpg', 'JPEG'),
    ('B.JPEG', 'JPEG'),
    ('b.webp', 'WEBP'),
    ('b.tiff', 'TIFF'),
    ('é b.PNG', 'PNG'),
  ],
)
def test_the_file_is_written_in_the_format_of_its_name(command, capsys, name, kind):
  save('a.png')
  assert command('a.png', '-o', name) == 0
  assert last_line(capsys) == '1 done, 0 skipped, 0 failed'
  assert names_in('.') == sorted(['a.png', name])
  with Image.open(name) as image:
    assert image.format == kind and image.size == (16, 12)
  before = pathlib.Path(name).stat()
  assert command('a.png', '-o', name) == 0
  assert last_line(capsys) == '0 done, 1 skipped, 0 failed'
  assert pathlib.Path(name).stat() == before


def test_several_outputs_of_one_picture_stand_beside_it(command):
  save('in/sub/a.png')
  assert command('in', '-o', 'b.png', '--num-samples=2', '--compare', '--spread') == 0
  names = ('1', '2', 'compare', 'mean', 'spread')
  assert names_in('.') == sorted(
    [*(f'b_{name}.png' for name in names), 'b_spread.npy', 'in/sub/a.png']
  )


@pytest.mark.parametrize(
  ('args', 'words'),
  [
    (['a.png', 'c.png', '-o', 'b.png'], 'one INPUT, not of 2: name a folder'),
    (['in', '-o', 'b.png'], 'takes one picture, not 2: name a folder'),
    (['*.png', '-o', 'b.jpg'], 'takes one picture, not 2: name a folder'),
    (['a.png', '-o', 'b.gif'], 'outputs are .png, .jpg'),
    (['a.png', '-o', 'b.png/'], 'name the new folder otherwise'),
    (['a.png', '-o', 'b.png', '--ext=jpg'], '--ext=jpg and --output=b.png'),
    (['a.png', '-o', 'b.png', '--suffix=x'], '--suffix=x is for folders'),
    (['no.png', '-o', 'b.png'], 'no such file'),
  ],
)
def test_one_line_refuses_what_is_not_one_file(command, capsys, args, words):
  for path in ('a.png', 'c.png', 'in/a.png', 'in/c.png'):
    save(path)
  before = names_in('.')
  assert command(*args) == 2
  error = capsys.readouterr().err
  assert words in error and error.count('\n') == 1
  assert names_in('.') == before and not list(pathlib.Path().glob('b.*'))


def test_neither_the_input_nor_a_strange_picture_is_replaced(command, capsys):
  pixels = save('a.png')
  save('b.png', seed=1)
  for name, code, words in (
    ('a.png', 2, 'that is the input'),
    ('b.png', 1, 'is there and'),
  ):
    assert command('a.png', '-o', name) == code
    assert words in capsys.readouterr().err
  np.testing.assert_array_equal(np.asarray(Image.open('a.png')), pixels)
  assert command('a.png', '-o', 'b.png', '--overwrite') == 0


def test_a_folder_that_is_there_stays_a_folder(command):
  save('a.png')
  pathlib.Path('b.png').mkdir()
  assert command('a.png', '-o', 'b.png') == 0
  assert names_in('b.png') == ['a_out.png']


def test_an_output_among_the_inputs_is_no_input(command, capsys):
  save('in/a.png')
  for _ in range(2):
    assert command('in', '-o', 'in/b.png') == 0
  assert '0 done, 1 skipped' in capsys.readouterr().out
  assert names_in('in') == ['a.png', 'b.png']


def test_arrays_are_no_output_of_a_model_of_pictures(command, capsys):
  save('a.png')
  assert command('a.png', '-o', 'b.npy') == 1
  assert '.npy' in capsys.readouterr().err and names_in('.') == ['a.png']


def test_the_endings_that_are_written():
  assert formats.written_as('.JPE') == '.jpg' and formats.written_as('.apng') == '.png'
  assert formats.written_as('.heic') == formats.written_as('.bmp') == ''
  assert {formats.written_as(e) for e in ('.tif', '.TIFF')} == {'.tif'}
