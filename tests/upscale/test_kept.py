"""The upscale command keeps what belongs to a picture beside its pixels."""

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from tests.support import upscaling
from tests.support.upscaling import names_in, save

standin, command = upscaling.standin, upscaling.command


def test_a_comment_and_the_resolution(command, capsys):
  exif = Image.Exif()
  exif[0x4746] = 5
  exif[0x8769] = {0x9286: b'ASCII\0\0\0of the owner'}
  save('in/a.jpg', exif=exif, dpi=(300, 300), quality=95)
  assert command('in') == 0
  with Image.open('out/a_out.jpg') as image:
    assert image.getexif().get_ifd(0x8769)[0x9286] == b'ASCII\0\0\0of the owner'
    assert image.getexif()[0x4746] == 5 and image.info['dpi'] == (300, 300)
  # Finished files are known by settings that stand beside the comment.
  assert command('in') == 0
  assert '0 done, 1 skipped, 0 failed' in capsys.readouterr().out


def test_linear_pictures_stay_linear_also_on_sheets(command):
  info = PngImagePlugin.PngInfo()
  info.add(b'gAMA', (100000).to_bytes(4, 'big'))
  info.add_text('Author', 'somebody')
  truth = save('a.png', pnginfo=info)
  assert command('a.png', '--compare') == 0
  for name in ('a_out.png', 'a_out_compare.png'):
    with Image.open(f'out/{name}') as image:
      assert image.info['gamma'] == 1
      if name == 'a_out.png':
        assert image.info['Author'] == 'somebody'
        np.testing.assert_array_equal(np.asarray(image)[::2, ::2], truth)


def test_what_a_format_cannot_hold_is_said(command, caplog):
  info = PngImagePlugin.PngInfo()
  info.add_text('Weather', 'rain')
  save('in/a.png', pnginfo=info)
  save('in/b.png', pnginfo=info)
  assert command('in') == 0
  assert 'not kept' not in caplog.text
  assert command('in', '--ext=jpg') == 0
  assert 'not kept of 2 pictures: texts of PNG (not in .jpg files)' in caplog.text


@pytest.mark.parametrize('format_', ['JPEG', 'MPO'])
def test_known_pixels_of_every_kind_of_jpeg_stay_exact(command, standin, format_):
  """A model that fills holes writes PNG, whatever the input is."""
  truth = Image.fromarray(save('small.png'))
  others = {'append_images': [truth.resize((4, 4))]} if format_ == 'MPO' else {}
  truth.save('phone.jpg', format=format_, save_all=bool(others), **others)
  standin.takes_masks = True
  assert command('phone.jpg') == 0
  assert names_in() == ['phone_out.png']
  with Image.open('phone.jpg') as before, Image.open('out/phone_out.png') as after:
    np.testing.assert_array_equal(np.asarray(after)[::2, ::2], np.asarray(before))
