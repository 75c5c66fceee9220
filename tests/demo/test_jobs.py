"""Tests what visitors of a demo may ask for and get, without a page."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from sr3_jax.demo import jobs
from sr3_jax.images import picture_codec
from sr3_jax.restoration.upscaler import Upscaler
from sr3_jax.runtime.errors import UserError
from tests.support import demos, models


@pytest.fixture(scope='module')
def offered():
  return demos.small_models()


@pytest.fixture
def ask(offered, tmp_path):
  """Return a function that does a request for a.png."""
  if not (tmp_path / 'a.png').exists():
    demos.save(tmp_path / 'a.png')

  def do(path=tmp_path / 'a.png', model='large', **options):
    on_progress = options.pop('on_progress', lambda share, text: None)
    request = jobs.Request(path, path.name, model, **options)
    return jobs.restore(request, offered, demos.LIMITS, tmp_path / 'out', on_progress)

  return do


def pixels(path):
  return np.asarray(Image.open(path))


def test_the_result_is_that_of_the_package(ask, offered, tmp_path):
  told = []
  done = ask(steps='3', seed=7, on_progress=lambda *args: told.append(args))
  own = Upscaler(offered['large'].loaded, steps=3, seed=7, on_note=str)
  result = own.upscale(tmp_path / 'a.png')
  (sample,) = done.samples
  np.testing.assert_array_equal(pixels(sample), result.array)
  before = np.rint((result.bicubic + 1) * 127.5)
  np.testing.assert_allclose(pixels(done.before), before, atol=1)
  assert done.spread is None and sample.name == 'a_large.png'
  assert done.about.startswith('96 x 64 pixels in ') and '3 steps' in done.about
  shares = [share for share, _ in told]
  assert shares == sorted(shares) and (shares[0], shares[-1]) == (0, 1)
  texts = [text for _, text in told]
  assert texts[0] == 'Step 0 of 3' and 'Step 3 of 3' in texts


def test_several_samples_and_their_spread(ask):
  done = ask(num_samples=3.0, temperature=0.5)  # JSON may write 3 as 3.0
  assert [path.name for path in done.samples] == [f'a_large_{i}.png' for i in (1, 2, 3)]
  one, two, _ = map(pixels, done.samples)
  assert (one != two).any()
  assert pixels(done.spread).shape[0] > 64  # a scale is below


def test_orientation_and_transparency_come_through(ask, tmp_path):
  path = tmp_path / 'turned.jpg'
  exif = Image.Exif()
  exif[0x0112] = 6  # a quarter turn
  demos.save(path, exif=exif)
  done = ask(path)
  assert pixels(done.samples[0]).shape == (96, 64, 3)
  assert pixels(done.before).shape == (96, 64, 3)
  clear = np.zeros((16, 24, 4), np.uint8)
  clear[:8] = 255
  Image.fromarray(clear).save(tmp_path / 'clear.png')
  alpha = pixels(ask(tmp_path / 'clear.png').samples[0])[..., 3]
  assert alpha[:24].min() > 250 and alpha[40:].max() < 5


def test_what_is_painted_over_is_filled_in_and_nothing_else(ask, tmp_path):
  rng = np.random.default_rng(0)
  drawn = np.zeros((16, 24, 4), np.uint8)
  drawn[4:8, 6:12] = 255, 102, 255, 255  # as the brush of the page
  Image.fromarray(drawn).save(tmp_path / 'mask.png')
  mask = tmp_path / 'mask.png'
  known = demos.save(tmp_path / 'a.png')
  for masks in ([mask], [mask, mask]):
    done = ask(model='fills', masks=masks, seed=int(rng.integers(99)))
    changed = (pixels(done.samples[0]) != known).any(-1)
    assert changed[4:8, 6:12].mean() > 0.5
    changed[4:8, 6:12] = False
    assert not changed.any()


@pytest.mark.parametrize(
  ('options', 'words'),
  [
    ({'model': 'nix'}, "model 'nix': choose one of large, fills"),
    ({'model': ['large']}, 'choose one of large, fills'),
    ({'steps': 'slow'}, "steps='slow' is no number and no preset"),
    ({'steps': '21'}, '21 steps: this demo takes up to 20'),
    ({'steps': '51'}, 'this model can take 1 to 50'),
    ({'steps': [3]}, 'a preset or a whole number'),
    ({'num_samples': 4}, 'samples 4 must be a whole number from 1 to 3'),
    ({'num_samples': None}, 'samples None must be a whole number from 1 to 3'),
    ({'temperature': 1.5}, 'temperature=1.5 must be a number above 0 up to 1'),
    ({'temperature': 'hot'}, "temperature='hot' must be"),
    ({'seed': -1}, 'seed=-1 must be a whole number'),
    ({'seed': 'a' * 10**6}, 'must be a whole number'),
    ({'model': 'fills'}, 'a.png: paint over what is missing'),
  ],
)
def test_refused_in_one_line(ask, tmp_path, options, words):
  with pytest.raises(UserError) as error:
    ask(**options)
  text = str(error.value)
  assert words in text and '\n' not in text and len(text) < 300
  assert str(tmp_path) not in text and '/secret' not in text


def test_pictures_that_are_refused(ask, tmp_path):
  def refusal(path):
    with pytest.raises(UserError) as error:
      ask(path)
    assert str(tmp_path) not in str(error.value)
    return str(error.value)

  demos.save(tmp_path / 'big.png', 41, 30)
  assert 'big.png: 41 x 30 pixels are more than the 1200' in refusal(
    tmp_path / 'big.png'
  )
  (tmp_path / 'text.png').write_text('hello')
  assert refusal(tmp_path / 'text.png').startswith('text.png: a text, not a')
  data = (tmp_path / 'a.png').read_bytes()
  (tmp_path / 'cut.png').write_bytes(data[: len(data) // 2])
  assert refusal(tmp_path / 'cut.png').startswith('cut.png: ')
  with pytest.raises(UserError, match='the mask: 41 x 30 pixels, the picture 24 x 16'):
    ask(model='fills', masks=[tmp_path / 'big.png'])


def test_a_large_header_is_refused_before_anything_is_decoded(
  ask, tmp_path, monkeypatch
):
  Image.new('L', (5000, 5000)).save(tmp_path / 'bomb.png')
  monkeypatch.setattr(picture_codec, 'read', lambda *args: pytest.fail('decoded'))
  with pytest.raises(UserError, match='5000 x 5000 pixels are more'):
    ask(tmp_path / 'bomb.png')
  with pytest.raises(UserError, match='5000 x 5000 pixels are more'):
    jobs.preview(tmp_path / 'bomb.png', 'bomb.png', demos.LIMITS)
  with pytest.raises(UserError, match='the mask: 5000 x 5000 pixels'):
    ask(model='fills', masks=[tmp_path / 'bomb.png'])


def test_notes_do_not_name_the_place_of_a_model(ask, offered, monkeypatch):
  loaded = dataclasses.replace(offered['large'].loaded, license='cc-by-nc-4.0')
  restricted = Upscaler(loaded, on_note=lambda text: None)
  monkeypatch.setitem(offered, 'large', restricted)
  about = ask().about
  assert 'terms of use: cc-by-nc-4.0' in about and 'secret' not in about
  text = jobs.describe(restricted)
  assert text == 'Super resolution, 4 times larger; terms of use: cc-by-nc-4.0.'


def test_names_of_files_lead_nowhere(ask, tmp_path):
  name = '../..\\\0:x y' + 'z' * 300 + '.png'
  request = jobs.Request(tmp_path / 'a.png', name, 'large')
  stem = jobs._stem(request)
  assert len(stem) < 80 and not set(stem) & set('./\\\0 :')
  assert jobs._stem(request._replace(name='...')) == 'picture_large'


def test_models_that_a_page_cannot_offer():
  rasters = models.loaded(None, data__channels=5)
  with pytest.raises(UserError, match='--model=runs/five: for measurements'):
    jobs.check_model(Upscaler(rasters), 'runs/five')


def test_models_have_the_names_that_visitors_see(hub_models):
  found = jobs.load_models([str(hub_models.exported)])
  shipped = ['photo-x4', 'face-x4', 'face-x8', 'photo-clean', 'photo-fill']
  assert list(found) == ['photos4x', *shipped]
  with pytest.raises(UserError, match="is 'photos4x', too: rename one"):
    jobs.load_models([str(hub_models.exported), f'{hub_models.exported}/../photos4x'])
  with pytest.raises(UserError, match='runs/none: no model: no such file or folder'):
    jobs.load_models(['runs/none'])
