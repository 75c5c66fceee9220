"""Pictures inside of pages: what is let in, and how large it gets."""

import base64
import io

import numpy as np
import pytest
from etils import epath
from PIL import Image

from sr3_jax.reports import inline_images
from sr3_jax.reports.data import ReportError


def picture(path, side=40, seed=0):
  pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
  Image.fromarray(pixels).save(path)
  return epath.Path(path)


def decoded(found: inline_images.Picture) -> Image.Image:
  head, data = found.uri.split(',')
  image = Image.open(io.BytesIO(base64.b64decode(data)))
  assert head == f'data:image/{image.format.lower()};base64'
  assert image.size == (found.width, found.height)
  return image


@pytest.mark.parametrize(
  'cell',
  [
    '../secret.png',
    'pictures/../../secret.png',
    '/etc/secret.png',
    'pictures//a.png',
    './a.png',
    '',
    'C:\\secret.png',
    '..\\secret.png',
    'file:///secret.png',
    'https://example.org/a.png',
    'a\0.png',
  ],
)
def test_cells_stay_inside_of_the_folder(tmp_path, cell):
  with pytest.raises(ReportError, match='inside of the report folder'):
    inline_images.locate(tmp_path, cell)


def test_links_out_of_the_folder_are_refused(tmp_path):
  picture(tmp_path / 'secret.png')
  (tmp_path / 'report').mkdir()
  (tmp_path / 'report' / 'a.png').symlink_to(tmp_path / 'secret.png')
  with pytest.raises(ReportError, match='leads out'):
    inline_images.locate(tmp_path / 'report', 'a.png')


@pytest.mark.parametrize('cell', ['a.svg', 'report.json', 'a.png.html', 'pictures/a'])
def test_other_files_are_refused(tmp_path, cell):
  with pytest.raises(ReportError, match=r'not a \.png'):
    inline_images.locate(tmp_path, cell)


def test_what_is_no_picture_is_refused(tmp_path):
  (tmp_path / 'a.png').write_text('<svg onload="alert(1)">')
  Image.new('RGB', (4, 4)).save(tmp_path / 'b.png', format='BMP')
  for name, reason in {'a': 'not a JPEG', 'b': 'BMP', 'c': 'no such file'}.items():
    file = inline_images.locate(tmp_path, f'{name}.png')
    with pytest.raises(ReportError, match=f'{name}.png.*{reason}') as error:
      inline_images.embed([[[file]]])
    assert '\n' not in str(error.value)


def test_pictures_go_in_as_they_are(tmp_path):
  files = [picture(tmp_path / f'{i}.{t}') for i, t in enumerate(['png', 'jpg', 'webp'])]
  ((row,),), note = inline_images.embed([[[*files, None]]])
  assert note == '' and row[3] is None
  for file, found in zip(files, row, strict=False):
    assert base64.b64decode(found.uri.split(',')[1]) == file.read_bytes()
    decoded(found)


def test_many_pictures_are_made_smaller_and_said_to_be(tmp_path):
  files = [picture(tmp_path / f'{i}.png', 64, i) for i in range(4)]
  whole = sum(len(p.uri) for p in inline_images.embed([[files]])[0][0][0])
  ((row,),), note = inline_images.embed([[files]], limit=whole - 1)
  assert 'WebP' in note and 'left out' not in note
  assert sum(len(p.uri) for p in row) < whole
  for file, found in zip(files, row, strict=True):
    reduced = decoded(found)
    assert reduced.format == 'WEBP'
    # Colours come at half the size in a lossy WebP: noise is its worst case.
    pixels = [np.asarray(i.convert('L'), float) for i in (reduced, Image.open(file))]
    assert np.abs(pixels[0] - pixels[1]).mean() < 25


def test_the_last_rows_of_all_sheets_go_if_that_is_not_enough(tmp_path):
  files = [picture(tmp_path / f'{i}.png', 64, i) for i in range(6)]
  sheets = [[[file] for file in files[:4]], [[file] for file in files[4:]]]
  limit = 25000
  found, note = inline_images.embed(sheets, limit)
  kept = [len(rows) for rows in found]
  assert note.endswith(f'left out: {6 - sum(kept)}.')
  assert 1 <= kept[0] < 4 and kept[1] >= 1
  assert sum(len(p.uri) for rows in found for row in rows for p in row) <= limit
