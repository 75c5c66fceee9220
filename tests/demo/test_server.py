"""The demo's API, as programs call it, and what it does not give away."""

import http.server
import os
import pathlib
import threading

import numpy as np
import pytest
from PIL import Image

from sr3_jax.demo import server
from sr3_jax.restoration.upscaler import Upscaler
from tests.support import demos

pytest.importorskip('gradio')
gradio_client = pytest.importorskip('gradio_client')
exceptions = pytest.importorskip('gradio_client.exceptions')
httpx = pytest.importorskip('httpx')


@pytest.fixture(scope='module')
def offered():
  return demos.small_models()


@pytest.fixture(scope='module')
def running(offered):
  host = '127.0.0.1'
  port = server.free_port(host, 0)
  with server.Server(offered, demos.LIMITS, host, port) as found:
    yield found


@pytest.fixture(scope='module')
def client(running, tmp_path_factory):
  folder = tmp_path_factory.mktemp('downloads')
  return gradio_client.Client(running.urls[0], verbose=False, download_files=folder)


@pytest.fixture
def picture(tmp_path):
  demos.save(tmp_path / 'a.png')
  return gradio_client.handle_file(tmp_path / 'a.png')


def test_a_program_gets_what_the_package_gives(client, offered, picture, tmp_path):
  file, samples, about, both = client.predict(
    picture, samples=2, steps='3', seed=7, api_name='/restore'
  )
  own = Upscaler(offered['large'].loaded, steps=3, seed=7, on_note=str)
  result = own.upscale(tmp_path / 'a.png', num_samples=2)
  np.testing.assert_array_equal(np.asarray(Image.open(file)), result.array)
  assert [one['caption'] for one in samples] == ['sample 1', 'sample 2', 'spread']
  assert len(both) == 2 and about.startswith('96 x 64 pixels')
  assert Image.open(both[0]).size == Image.open(both[1]).size == (96, 64)


def test_one_sample_has_no_spread(client, picture):
  _, samples, *_ = client.predict(picture, api_name='/restore')
  assert not samples


def test_a_mask_is_a_file(client, picture, tmp_path):
  mask = np.zeros((16, 24), np.uint8)
  mask[4:8, 6:12] = 255
  Image.fromarray(mask).save(tmp_path / 'mask.png')
  layers = [gradio_client.handle_file(tmp_path / 'mask.png')]
  file, *_ = client.predict(
    picture, model='fills', mask={'layers': layers}, api_name='/restore'
  )
  known = np.asarray(Image.open(tmp_path / 'a.png'))
  changed = (np.asarray(Image.open(file)) != known).any(-1)
  assert changed.any() and not changed[mask == 0].any()


def test_the_api_is_documented(client):
  (found,) = client.view_api(return_format='dict')['named_endpoints'].items()
  name, about = found
  assert name == '/restore'
  names = [p['parameter_name'] for p in about['parameters']]
  wanted = ['picture', 'model', 'steps', 'samples', 'temperature', 'seed', 'mask']
  assert names == wanted
  page = (pathlib.Path(__file__).parents[2] / 'docs' / 'demo.md').read_text()
  assert all(f'`{name}`' in page for name in wanted)
  assert [
    p['parameter_name']
    for p in about['parameters']
    if not p.get('parameter_has_default')
  ] == ['picture']


def test_mistakes_are_one_line(client, picture, tmp_path):
  (tmp_path / 'text.png').write_text('hello')
  text = gradio_client.handle_file(tmp_path / 'text.png')
  for given, options, words in (
    (None, {}, 'drop a picture first'),
    (picture, {'samples': 9}, 'samples 9 must be a whole number from 1 to 3'),
    (text, {}, 'text.png: a text, not a JPEG'),
  ):
    with pytest.raises(exceptions.AppError) as error:
      client.predict(given, **options, api_name='/restore')
    assert str(error.value).startswith(words)


def call(url, *values):
  """Return what the server answers to a program that makes requests of its own."""
  place = f'{url}gradio_api/call/restore'
  event = httpx.post(place, json={'data': [*values, 'large', '3', 1, 0, 0, None]})
  return httpx.get(f'{place}/{event.json()["event_id"]}', timeout=60).text


@pytest.mark.parametrize(
  'path', ['/etc/passwd', '/proc/self/environ', os.path.abspath(__file__), '../a.png']
)
def test_no_file_of_the_server_is_read(running, path):
  text = call(running.urls[0], {'path': path, 'meta': {'_type': 'gradio.FileData'}})
  assert 'event: error' in text and 'root:' not in text
  answer = httpx.get(f'{running.urls[0]}gradio_api/file={path}')
  assert answer.status_code == 403


def test_no_address_is_fetched(running):
  asked = []

  class Other(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
      asked.append(self.path)

  with http.server.HTTPServer(('127.0.0.1', 0), Other) as other:
    threading.Thread(target=other.serve_forever, daemon=True).start()
    url = f'http://127.0.0.1:{other.server_port}/a.png'
    meta = {'meta': {'_type': 'gradio.FileData'}}
    text = call(running.urls[0], {'path': url, **meta})
    assert 'addresses are not fetched' in text
    assert 'error' in call(running.urls[0], {'url': url, **meta})
    for route in ('file', 'proxy'):
      assert httpx.get(f'{running.urls[0]}gradio_api/{route}={url}').status_code == 404
    other.shutdown()
  assert not asked


@pytest.mark.parametrize(
  'path',
  [
    'gradio_api/process_recording',
    'gradio_api/vibe-edit/',
    'gradio_api/component_server',
    'monitoring/',
  ],
)
def test_what_no_demo_needs_is_off(running, path):
  assert httpx.post(running.urls[0] + path).status_code == 404


def test_a_large_upload_is_refused(running):
  files = {'files': ('a.png', bytes(250_000))}
  answer = httpx.post(f'{running.urls[0]}gradio_api/upload', files=files)
  assert answer.status_code == 413


def test_old_files_go_and_all_go_at_the_end(offered, tmp_path):
  from gradio.route_utils import delete_files_created_by_app

  demos.save(tmp_path / 'a.png')
  port = server.free_port('127.0.0.1', 0)
  with server.Server(offered, demos.LIMITS, '127.0.0.1', port) as found:
    folder = pathlib.Path(found.folder)
    client = gradio_client.Client(found.urls[0], verbose=False, download_files=False)
    picture = gradio_client.handle_file(tmp_path / 'a.png')
    client.predict(picture, samples=2, api_name='/restore')

    def files():
      return [path for path in folder.rglob('*') if path.is_file()]

    assert len(files()) == 5  # the upload, before, two samples, their spread
    assert found.page.delete_cache == (300, 3600)
    delete_files_created_by_app(found.page, 3600)
    assert len(files()) == 5
    delete_files_created_by_app(found.page, 0)  # what Gradio does by the clock
    assert files() == []
  assert not folder.exists()
