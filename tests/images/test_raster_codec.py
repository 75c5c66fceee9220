"""Rasters come back from files as they were written, with what made them."""

import numpy as np
import pytest

from sr3_jax.images import picture_codec, pixels, raster_codec, rasters

SETTINGS = {'steps': 3, 'note': 'Größe'}


@pytest.mark.parametrize('extension', ['.npy', '.tif', '.png'])
@pytest.mark.parametrize('bits', [8, 16])
def test_outputs_come_back_with_their_settings(tmp_path, extension, bits):
  channels = 1 if extension == '.png' else 4
  codec = raster_codec.choose_codec(
    channels, (np.zeros(channels), np.full(channels, 200.0)), ''
  )
  stored = np.arange(5 * 6 * channels).reshape(5, 6, channels) % 201
  stored = stored.astype(f'uint{bits}')
  path = tmp_path / f'sub/a{extension}'
  codec.write(path, codec.read(rasters.encode(stored, extension)), SETTINGS)
  np.testing.assert_array_equal(rasters.read(path), stored)
  assert rasters.read(path).dtype == stored.dtype
  assert raster_codec.metadata(path) == SETTINGS
  height, width, format_, transparent, *_ = codec.header(path)
  assert (height, width, transparent) == (5, 6, False) and codec.extension(
    format_, 5, 6
  ) == extension
  codec.check_sides(extension, 5, 6)


def test_floating_point_needs_a_range(tmp_path):
  array = np.linspace(-2, 7, 5 * 4 * 2, dtype=np.float32).reshape(5, 4, 2)
  np.save(tmp_path / 'a.npy', array)
  codec = raster_codec.RasterCodec(2, (0.0, 0.0), (5.0, 5.0))
  codec.write(tmp_path / 'b.npy', codec.read(tmp_path / 'a.npy'), SETTINGS)
  np.testing.assert_allclose(np.load(tmp_path / 'b.npy'), array, atol=1e-6)
  with pytest.raises(pixels.ImageError, match=r'a.npy: .* no range of their own'):
    raster_codec.RasterCodec(2).read(tmp_path / 'a.npy')
  with pytest.raises(pixels.ImageError, match='needed'):
    raster_codec.RasterCodec(3).header(tmp_path / 'a.npy')


def test_which_models_need_rasters():
  ends = np.zeros(3), np.ones(3)
  assert (
    raster_codec.choose_codec(3, None, '.png')
    is raster_codec.choose_codec(1, None, '')
    is picture_codec
  )
  assert raster_codec.choose_codec(3, ends, '.png') == raster_codec.RasterCodec(
    3, (0.0,) * 3, (1.0,) * 3
  )
  assert raster_codec.choose_codec(2, None, '.tif') == raster_codec.RasterCodec(2)
  assert raster_codec.choose_codec(3, None, '.NPY') == raster_codec.RasterCodec(3)


def test_formats_that_hold_no_rasters():
  for extension in ('.jpg', '.webp', '.png'):
    with pytest.raises(pixels.ImageError, match=r'use \.tif'):
      raster_codec.RasterCodec(4).check_sides(extension, 5, 6)


def test_an_array_has_the_settings_of_the_drawing_beside_it(tmp_path):
  picture = picture_codec.Picture(np.zeros((4, 4, 3), np.float32))
  picture_codec.write(tmp_path / 'a_spread.png', picture, SETTINGS)
  np.save(tmp_path / 'a_spread.npy', np.zeros((4, 4)))
  np.save(tmp_path / 'b_spread.npy', np.zeros((4, 4)))
  assert raster_codec.metadata(tmp_path / 'a_spread.npy') == SETTINGS
  assert raster_codec.metadata(tmp_path / 'b_spread.npy') is None
