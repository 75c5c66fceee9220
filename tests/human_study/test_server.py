"""The server: the site's files and nothing else, results under its own names."""

import http.client
import json
import re
import socket
import struct
import threading
import time

import pytest

from sr3_jax.human_study import command as human_study_command
from sr3_jax.human_study import results as human_study_results
from sr3_jax.human_study import server as human_study_server
from sr3_jax.human_study import site_builder
from tests.support import studies
from tests.support.studies import make_result


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  return studies.make_site(tmp_path_factory.mktemp('study'))


@pytest.fixture(scope='module')
def site(made):
  return made[0]


@pytest.fixture(scope='module')
def key(made):
  return made[1]


@pytest.fixture
def server(site, monkeypatch, tmp_path):
  monkeypatch.setattr(
    human_study_server, 'results_path', lambda _: tmp_path / 'results'
  )
  server = human_study_server.make_server(site, 0)
  thread = threading.Thread(target=server.serve_forever, args=(0.02,))
  thread.start()
  yield server
  server.shutdown()
  server.server_close()
  thread.join()


PARTS = {
  'nothing': b'',
  'half a line': b'GET /pl',
  'half of the headers': b'GET / HTTP/1.1\r\nHost: 127.0',
  'no wait for the answer': b'GET /plan.js HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n' * 50,
  'half a result': b'POST /results HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: '
  b'application/json\r\nContent-Length: 900\r\n\r\n{',
  'no HTTP': b'\x16\x03\x01\x02\x00' * 200,
}


@pytest.mark.parametrize('part', PARTS)
@pytest.mark.parametrize('reset', [False, True], ids=['closed', 'reset'])
def test_a_client_that_hangs_up_leaves_no_word(server, part, reset, capfd):
  for _ in range(5):
    client = socket.create_connection(('127.0.0.1', server.server_port))
    if reset:  # the kernel sends RST in place of a polite end
      client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    port = b'%d' % server.server_port
    client.sendall(PARTS[part].replace(b'%d', port))
    client.close()
  response, _ = ask(server, 'GET', '/')
  assert response.status == 200
  time.sleep(0.2)
  assert capfd.readouterr() == ('', '')


def ask(server, method, path, body=None, **headers):
  connection = http.client.HTTPConnection('127.0.0.1', server.server_port, timeout=5)
  connection.putrequest(method, path, skip_host='Host' in headers)
  if body is not None and 'Content_Length' not in headers:
    headers['Content_Length'] = str(len(body))
  for name, value in headers.items():
    connection.putheader(name.replace('_', '-'), value)
  connection.endheaders(body)
  response = connection.getresponse()
  data = response.read()
  connection.close()
  return response, data


def test_the_server_is_on_the_loopback_and_serves_the_site_only(server, site):
  assert server.server_address[0] == '127.0.0.1'
  response, data = ask(server, 'GET', '/?subject=3')
  assert (response.status, data) == (200, (site / 'index.html').read_bytes())
  picture = next((site / 'pictures').iterdir())
  response, data = ask(server, 'GET', f'/pictures/{picture.name}')
  assert response.getheader('Content-Type') == 'image/png'
  assert data == picture.read_bytes()
  response, data = ask(server, 'HEAD', '/study.js')
  assert (response.status, data) == (200, b'')
  for path in (
    '/../site-key.json',
    '/pictures/../../site-key.json',
    '/%2e%2e/site-key.json',
    '//etc/passwd',
    '/..%2fsite-key.json',
    str(site_builder.key_path(site)),
    '/pictures',
    '/pictures/',
    '/results',
    '/%00',
  ):
    assert ask(server, 'GET', path)[0].status == 404, path
  assert ask(server, 'GET', '/', Host='evil.example')[0].status == 403
  assert ask(server, 'DELETE', '/')[0].status == 501


def test_the_server_keeps_valid_results_under_its_own_names(server, key, tmp_path):
  body = json.dumps(make_result(key)).encode()
  kind = {'Content_Type': 'application/json'}

  def post(body=body, path='/results', **h):
    return ask(server, 'POST', path, body, **{**kind, **h})[0].status

  assert post(path='/results/../x') == 404
  assert post(Content_Type='text/plain') == 415
  assert post(Content_Length='-1') == 411
  assert post(Content_Length='99999999999999999999') == 413
  assert post(Content_Length=str(human_study_results.MAX_BYTES + 1)) == 413
  assert post(body=b'{"id": 1}') == 400
  assert post(body=b'[' * 99_999) == 400
  assert post(Origin='https://evil.example') == 403
  assert post(Host='evil.example') == 403
  assert not (tmp_path / 'results').exists()
  assert post(Origin=f'http://localhost:{server.server_port}') == 201
  assert post() == 201
  files = sorted((tmp_path / 'results').iterdir())
  assert len(files) == 2
  for file in files:
    assert re.fullmatch(r'\d{8}-\d{6}-[0-9a-f]{12}\.json', file.name)
    assert file.read_bytes() == body


def test_serve_refuses_what_is_no_site(tmp_path, capsys):
  with pytest.raises(SystemExit):
    human_study_command.main(['serve', str(tmp_path)])
  assert 'not a site that `build` made' in capsys.readouterr().err
