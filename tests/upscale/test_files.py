"""The upscale command: which files it takes, skips, makes again and leaves."""

import os
import pathlib
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from sr3_jax.images import picture_codec
from sr3_jax.upscale import files as upscale_files
from sr3_jax.upscale import jobs
from sr3_jax.upscale import run as upscale_run
from tests.support import upscaling
from tests.support.upscaling import last_line, names_in, save

standin, command = upscaling.standin, upscaling.command

pytestmark = pytest.mark.filterwarnings(r'ignore:::PIL\.')


# ------------------------------------------------------------------- which files


def test_a_folder_is_mirrored(command, standin, capsys):
  truth = save('in/a b.png')
  save('in/sub/ü.tif', 5, 5)
  save('in/sub/deep/c.JPG', 4, 9)
  save('in/.hidden.png')
  save('in/.thumbnails/t.png')
  pathlib.Path('in/notes.txt').write_text('no picture')
  assert command('in') == 0
  assert names_in() == ['a b_out.png', 'sub/deep/c_out.jpg', 'sub/ü_out.tif']
  rest = '; passed over: 2 hidden, 1 .txt'
  assert last_line(capsys) == f'3 done, 0 skipped, 0 failed{rest}'
  with Image.open('out/a b_out.png') as image:
    expected = truth.repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(np.asarray(image), expected)
  assert standin.reserved == [(6, 8), (4, 9), (5, 5)]


def test_files_patterns_and_both_spellings(command):
  save('x/1.png')
  save('x/y/2.png', seed=1)
  save('x/y/3.webp', seed=2, lossless=True)
  save('z.bmp', seed=3)
  assert command('x/**/*.png', '-i', 'z.bmp', 'x/1.png', '--suffix=') == 0
  assert names_in() == ['1.png', 'y/2.png', 'z.png']


def test_several_folders_keep_their_names(command):
  save('a/1.png')
  save('b/1.png')
  assert command('a', 'b') == 0
  assert names_in() == ['a/1_out.png', 'b/1_out.png']


def test_equal_names_are_told_apart(command):
  save('a/1.png')
  save('b/1.png', seed=1)
  save('b/1.webp', seed=2, lossless=True)
  save('b/2.png', seed=3)
  files = ['a/1.png', 'b/1.png', 'b/1.webp', 'b/2.png']
  assert command(*files, '--ext=png') == 0
  names = ['1_png_2_out.png', '1_png_out.png', '1_webp_out.png', '2_out.png']
  assert names_in() == names
  before = {name: pathlib.Path('out', name).read_bytes() for name in names}
  assert command(*files[::-1], '--ext=png', '--overwrite') == 0
  assert {name: pathlib.Path('out', name).read_bytes() for name in names} == before


@pytest.mark.parametrize('names', [('a.png', 'a_1.png', 'b/a.png'), ('a.png', 'A.png')])
def test_stems_of_derived_names(names):
  """Outputs of one may be called as another's, or nearly, for some file systems."""
  places = [pathlib.PurePath(name) for name in names]
  sources = [
    upscale_files.Source('', pathlib.Path('x', place), place) for place in places
  ]

  def outputs(i, stem):
    return [f'{stem}.png', f'{stem}_1.png']

  stems = upscale_files.stems(sources, outputs)
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
  save('in/a.png')
  save('in/sub/b.png', 5, 5)
  options = ('--num_samples=2', '--spread', '--compare', f'--output={output}')
  assert command('in', *options) == 0
  first = names_in('.')
  assert command('in', *options) == 0
  rest = '; passed over: 12 own output(s) or mask(s)' if output != '.' else ''
  assert last_line(capsys) == f'0 done, 2 skipped, 0 failed{rest}'
  assert command('in/**/*.png', *options) == 0
  assert names_in('.') == first
  if output == 'in/large':  # where nothing is an input, whoever wrote it
    save('in/large/stripped.png')
    assert command('in', *options) == 0
    assert last_line(capsys) == f'0 done, 2 skipped, 0 failed{rest.replace("12", "13")}'
  # Unless they are asked for.
  where = pathlib.Path(output, 'a_out_1.png')
  assert command(str(where), '--output=twice') == 0
  assert names_in('twice') == ['a_out_1_out.png']


def test_inputs_are_never_replaced(command, capsys):
  save('in/a.png')
  before = pathlib.Path('in/a.png').read_bytes()
  assert command('in', '--suffix=', '--output=in', '--overwrite') == 1
  assert 'would replace an input' in capsys.readouterr().err
  assert pathlib.Path('in/a.png').read_bytes() == before


def test_links_and_doubles(command):
  save('in/a.png')
  os.symlink(pathlib.Path('in/a.png').resolve(), 'link.png')
  os.symlink('nowhere', 'in/broken.png')
  assert command('in/a.png', 'link.png', './in/a.png') == 0
  assert names_in() == ['a_out.png']
  assert command('in') == 1


def test_a_link_does_not_hide_the_picture(command, capsys):
  """Whatever the order of their names, a picture is done under its own."""
  for name in ('a', 'z'):
    save(f'in/{name}/m.png')
    os.symlink('m.png', f'in/{name}/{name}.png')
  os.symlink('../../in/z/m.png', 'in/a/b.png')
  assert command('in') == 0
  assert names_in() == ['a/m_out.png', 'z/m_out.png']
  rest = 'passed over: 3 link(s) to what is read already'
  assert last_line(capsys) == f'2 done, 0 skipped, 0 failed; {rest}'
  shutil.rmtree('out')
  assert command('in/**/*.png') == 0
  assert names_in() == ['a/m_out.png', 'z/m_out.png']


def test_odd_entries_of_a_folder_are_accounted_for(command, capsys):
  save('in/good.png')
  save('elsewhere/far.png', seed=1)
  os.symlink('loop.png', 'in/loop.png')
  os.symlink('nowhere', 'in/broken.png')
  os.symlink('../elsewhere', 'in/linked')
  os.symlink('../elsewhere', 'in/linked_too')
  os.symlink('..', 'in/up')
  os.symlink('.', 'in/self')
  os.mkfifo('in/pipe.png')
  for name in ('b.mov', 'c.MOV', 'notes', '.aabbcc.tmp'):
    pathlib.Path('in', name).touch()
  assert command('in') == 1
  captured = capsys.readouterr()
  failed = [line for line in captured.err.splitlines() if line.startswith('failed: ')]
  assert [line.split(': ')[1] for line in failed] == ['in/broken.png', 'in/loop.png']
  assert names_in() == ['good_out.png', 'linked/far_out.png']
  assert captured.out.strip().splitlines()[-1] == (
    '2 done, 0 skipped, 2 failed; passed over: 3 link(s) to what is read already, '
    '2 .mov, 1 hidden, 1 named pipe(s), 1 without an ending'
  )


@pytest.mark.parametrize(
  ('name', 'reason'),
  [
    ('pipe.png', 'a named pipe, not a file'),
    ('loop.png', 'a link that leads nowhere'),
    ('x' * 300 + '.png', 'no such file or folder'),
  ],
)
def test_inputs_that_are_no_files(command, capsys, name, reason):
  save('a.png')
  os.mkfifo('pipe.png')
  os.symlink('loop.png', 'loop.png')
  assert command('a.png', name) == 1
  assert f'failed: {name}: {reason}' in capsys.readouterr().err
  with pytest.raises(SystemExit):
    command(name)


def test_an_input_without_a_name_is_refused(command, capsys):
  with pytest.raises(SystemExit):
    command('')
  assert "'' must be a text that is not empty" in capsys.readouterr().err


def test_no_images_says_what_is_there(command, capsys):
  pathlib.Path('in').mkdir()
  pathlib.Path('in/a.mov').touch()
  with pytest.raises(SystemExit):
    command('in')
  text = capsys.readouterr().err
  assert 'in: no image files in this folder; passed over: 1 .mov' in text


# --------------------------------------------------------------- skip, remake, fail


def test_finished_files_are_skipped_until_something_changes(
  command, standin, capsys, monkeypatch
):
  save('in/a.png')
  save('in/b.jpg', seed=1)
  assert command('in') == 0
  written = {name: os.stat(f'out/{name}').st_mtime_ns for name in names_in()}
  standin.groups.clear()
  assert command('in') == 0
  assert last_line(capsys) == '0 done, 2 skipped, 0 failed'
  assert standin.groups == []
  assert written == {n: os.stat(f'out/{n}').st_mtime_ns for n in names_in()}

  save('in/a.png', seed=5)  # another picture
  assert command('in') == 0
  assert last_line(capsys) == '1 done, 1 skipped, 0 failed'
  standin.seed = 3
  assert command('in') == 0
  assert last_line(capsys) == '2 done, 0 skipped, 0 failed'
  standin.given = {'model': 'renamed'}
  assert command('in') == 0
  assert last_line(capsys) == '0 done, 2 skipped, 0 failed'
  standin.given = {'weights': 'others'}
  assert command('in') == 0
  assert last_line(capsys) == '2 done, 0 skipped, 0 failed'
  assert command('in', '--overwrite') == 0
  assert last_line(capsys) == '2 done, 0 skipped, 0 failed'
  # What is missing is made again.
  assert command('in', '--num_samples=2') == 0
  os.remove('out/a_out_mean.png')
  assert command('in', '--num_samples=2') == 0
  assert last_line(capsys) == '1 done, 1 skipped, 0 failed'
  # A folder that was moved is still the same.
  shutil.move('in', 'elsewhere')
  assert command('elsewhere') == 0
  assert last_line(capsys) == '0 done, 2 skipped, 0 failed'


def test_outputs_of_others_are_not_replaced(command, capsys):
  save('x/a.png')
  save('y/a.png', seed=1)
  save('out/b_out.png', seed=2)
  save('b.png')
  assert command('x/a.png') == 0
  before = pathlib.Path('out/a_out.png').read_bytes()
  assert command('y/a.png', 'b.png') == 1
  errors = [line for line in capsys.readouterr().err.splitlines() if 'failed: ' in line]
  assert len(errors) == 2 and all('--overwrite' in line for line in errors)
  assert pathlib.Path('out/a_out.png').read_bytes() == before
  assert command('y/a.png', 'b.png', '--overwrite') == 0
  assert pathlib.Path('out/a_out.png').read_bytes() != before


def test_bad_files_are_listed_and_the_others_done(command, capsys, monkeypatch):
  save('in/good.png')
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
  assert names_in() == ['in/good_out.png']


def test_what_is_too_large_is_refused_with_its_size(command, standin, capsys):
  save('in/a.png', 200, 250)
  save('in/b.webp', 300, 1)
  assert command('in', '--outscale=64', '--ext=png') == 1
  errors = capsys.readouterr().err
  assert '250 x 200 pixels would become 16000 x 12800, more than' in errors
  assert '134 Mpx' in errors
  assert standin.groups == [[(300, 1)]]
  assert command('in/b.webp', '--outscale=64') == 0  # 19200 rows: no WebP
  assert names_in() == ['b_out.png']
  assert command('in/b.webp', '--outscale=64', '--ext=webp') == 1
  assert '.webp files hold no 64 x 19200 pixels: use .png' in capsys.readouterr().err


def test_a_failing_group_is_done_one_by_one(command, standin, capsys, caplog):
  for i in range(3):
    save(f'in/{i}.png', 6, 8 + i)
  standin.fail_at = {(6, 9): RuntimeError('boom\n twice')}
  assert command('in') == 1
  assert standin.groups == [[(6, 10), (6, 9), (6, 8)], [(6, 10)], [(6, 9)], [(6, 8)]]
  assert 'failed: in/1.png: RuntimeError boom twice' in capsys.readouterr().err
  assert '3 pictures at a time: boom twice; one by one' in caplog.text
  assert names_in() == ['0_out.png', '2_out.png']


def test_a_picture_that_is_not_finite_fails_by_its_name(command, standin, capsys):
  for i in range(3):
    save(f'in/{i}.png', 6, 8 + i)
  standin.broken_at = (6, 9)
  assert command('in') == 1
  assert standin.groups == [[(6, 10), (6, 9), (6, 8)]]  # nothing is done twice
  out, errors = capsys.readouterr()
  (line,) = [text for text in errors.splitlines() if text.startswith('failed: ')]
  assert line.startswith('failed: in/1.png: the output of the model standin is not fin')
  assert '2 done, 0 skipped, 1 failed' in out
  assert names_in() == ['0_out.png', '2_out.png']


def test_groups(standin):
  source = upscale_files.Source('', None, pathlib.PurePath('a'))
  todo = [
    jobs.Job(source, b'', picture_codec, picture_codec, size, '.png', {})
    for size in [(1000, 800), (300, 200), *[(20, 20)] * 600]
  ]
  capacity = upscale_run.GROUP * jax.local_device_count()
  groups = list(upscale_run._groups(standin, jobs.Options(None), todo))
  assert [job for group in groups for job in group] == todo
  assert len(groups[0]) == 1
  for group in groups[1:]:
    assert sum(max(64**2, 4 * job.size[0] * job.size[1]) for job in group) <= capacity


def test_an_output_that_cannot_be_written(command, standin, capsys):
  save('in/a.png')
  save('in/b.png')
  os.makedirs('out/a_out.png/in the way')
  assert command('in') == 1
  assert 'failed: in/a.png: ' in capsys.readouterr().err
  assert names_in() == ['b_out.png']


def test_interrupted_then_continued(command, standin, capsys, monkeypatch):
  for i in range(3):
    save(f'in/{i}.png', 6, 8 + i)
  monkeypatch.setattr(upscale_run, 'GROUP', 0)
  standin.fail_at = {(6, 9): KeyboardInterrupt()}
  with pytest.raises(KeyboardInterrupt):
    command('in')
  capsys.readouterr()
  assert names_in() == ['2_out.png']
  standin.fail_at = {}
  assert command('in') == 0
  assert last_line(capsys) == '2 done, 1 skipped, 0 failed'
