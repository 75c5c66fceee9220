"""Weights of other projects: fetched from a server on loopback, checked, cached."""

import dataclasses
import hashlib
import http.server
import pathlib
import socket
import threading

import numpy as np
import pytest
import safetensors.numpy

from sr3_jax.metrics import net_weights
from sr3_jax.metrics.net_weights import Source, Weights, WeightsMissing
from sr3_jax.weights import torch_files

BODY = b'stands for a file of PyTorch'
SHA = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def server():
  """A server on loopback: its address, its answers by path, the paths it was asked."""

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
      asked.append(self.path)
      # A broken answer is one byte shorter than its header says.
      broken = answers.get(f'{self.path}, broken')
      body = broken or answers.get(self.path)
      self.send_response(404 if body is None else 200)
      self.send_header('Content-Length', str(len(body or b'') + bool(broken)))
      self.end_headers()
      self.wfile.write(body or b'')

    def log_message(self, *args):
      pass

  answers, asked = {'/a.pth': BODY, '/b.pth': BODY}, []
  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f'http://127.0.0.1:{server.server_port}', answers, asked
    server.shutdown()
    thread.join()


@pytest.fixture
def net(server, tmp_path, monkeypatch):
  """A network of two files in the table; the folder its weights go to."""
  address = server[0]
  sources = tuple(
    Source(f'{address}/{name}.pth', SHA, len(BODY), (keep,))
    for name, keep in (('a', 'features.'), ('b', 'lin'))
  )
  monkeypatch.setattr(
    net_weights, 'WEIGHTS', {'net': Weights('a net', 'free', sources)}
  )
  monkeypatch.setenv('SR3_JAX_WEIGHTS', str(tmp_path / 'weights'))

  def read(path):  # so that no PyTorch is needed
    if path.suffix == '.safetensors':
      return original(path)
    assert path.read_bytes() == BODY
    part = {'a': 'features.0', 'b': 'lin0'}[path.stem]
    return {f'{part}.weight': np.float32([1, 2]), 'classifier.weight': np.float32([3])}

  original = torch_files.read
  monkeypatch.setattr(torch_files, 'read', read)
  monkeypatch.setattr(net_weights.importlib.util, 'find_spec', lambda name: True)
  return tmp_path / 'weights'


def _refused(*args, **kwargs):
  with pytest.raises(WeightsMissing) as error:
    net_weights.load('net', *args, **kwargs)
  assert '\n' not in str(error.value) and str(error.value).startswith('net: ')
  return str(error.value)


def _files(folder):
  return sorted(path.name for path in folder.iterdir())


def test_fetched_once_checked_and_cached(server, net):
  _, answers, asked = server
  loaded = net_weights.load('net')
  assert asked == ['/a.pth', '/b.pth']
  assert sorted(loaded.tensors) == ['features.0.weight', 'lin0.weight']
  assert loaded.standard and loaded.origin == {'a.pth': SHA, 'b.pth': SHA}
  assert _files(net) == ['a.pth', 'b.pth', 'net.safetensors']
  # What was cached is enough, with no server and no PyTorch.
  answers.clear()
  for name in 'ab':
    (net / f'{name}.pth').unlink()
  again = net_weights.load('net')
  assert (again.origin, again.fingerprint) == (loaded.origin, loaded.fingerprint)
  np.testing.assert_array_equal(again.tensors['lin0.weight'], [1, 2])
  assert asked == ['/a.pth', '/b.pth']


def test_a_wrong_file_is_deleted(server, net):
  server[1]['/b.pth'] = BODY + b'!'
  message = _refused()
  sent = hashlib.sha256(BODY + b'!').hexdigest()
  assert '/b.pth sent something else, try again later: ' in message
  assert f'expected {SHA} but got {sent}' in message
  assert _files(net) == ['a.pth']


def test_without_network_it_says_what_to_do(server, net):
  address, answers, _ = server
  answers.clear()
  message = _refused()
  assert message == (
    f'net: download {address}/a.pth (SHA-256 {SHA}) and {address}/b.pth (SHA-256 '
    f'{SHA}) into {net} (trying that failed: 404 Client Error: Not Found for url: '
    f'{address}/a.pth)'
  )
  # Once that is done, it works.
  for name in 'ab':
    (net / f'{name}.pth').write_bytes(BODY)
  assert net_weights.load('net').standard


def test_a_wrong_file_of_the_user_is_refused(net):
  net.mkdir()
  for name in 'ab':
    (net / f'{name}.pth').write_bytes(BODY if name == 'a' else b'other')
  message = _refused()
  assert f'{net}/b.pth is not the file it should be (its SHA-256 is ' in message
  assert f'not {SHA}): delete it and get it from http' in message


def test_without_pytorch_nothing_is_fetched(server, net, monkeypatch):
  monkeypatch.setattr(net_weights.importlib.util, 'find_spec', lambda name: None)
  message = _refused()
  assert "pip install 'sr3_jax[convert]'" in message and server[2] == []
  assert f'or copy net.safetensors from a machine that has it to {net}' in message


def test_a_damaged_file_is_found(net):
  net_weights.load('net')
  path = net / 'net.safetensors'
  data = bytearray(path.read_bytes())
  data[-1] ^= 1
  path.write_bytes(data)
  assert 'net.safetensors: is damaged, its checksum is wrong; delete it' in _refused()
  path.write_bytes(data[:-3])
  assert 'net.safetensors: not a whole safetensors file (' in _refused()


def test_a_folder_of_the_user(server, net, tmp_path):
  own = tmp_path / 'own'
  own.mkdir()
  assert f'into {own}' in _refused(str(own))
  assert server[2] == []  # nothing is fetched into it
  for name in 'ab':
    (own / f'{name}.pth').write_bytes(BODY)
  assert net_weights.load('net', str(own)).standard
  assert _files(own) == ['a.pth', 'b.pth', 'net.safetensors'] and not net.exists()


def test_a_file_of_the_user(net, tmp_path):
  path = tmp_path / 'mine.safetensors'
  assert _refused(str(path)) == f'net: {path}: no such file'
  safetensors.numpy.save_file({'features.0.weight': np.float32([7])}, path)
  loaded = net_weights.load('net', str(path))
  digest = hashlib.sha256(path.read_bytes()).hexdigest()
  assert not loaded.standard and loaded.origin == {path.name: digest}
  assert loaded.source == f'{path.name} ({digest[:8]}), not the published files'
  assert loaded.fingerprint != net_weights.load('net').fingerprint


def test_a_read_only_folder_is_enough(net, monkeypatch):
  def save(*args):
    raise PermissionError('read-only')

  monkeypatch.setattr(net_weights, 'save', save)
  assert net_weights.load('net').standard
  assert _files(net) == ['a.pth', 'b.pth']


def test_a_killed_download_leaves_no_file(net, monkeypatch):
  def update(self, count):
    assert _files(net) != []  # a part of it has arrived
    raise KeyboardInterrupt

  monkeypatch.setattr(net_weights._Download, 'update', update)
  with pytest.raises(KeyboardInterrupt):
    net_weights.load('net')
  assert _files(net) == []


def test_a_connection_that_breaks_leaves_no_file(server, net):
  server[1]['/a.pth'] = server[1]['/b.pth'] = None
  server[1]['/a.pth, broken'] = BODY
  message = _refused()
  assert f'into {net} (trying that failed: ' in message and 'IncompleteRead' in message
  assert _files(net) == []


def test_without_server_the_reason_is_short(net, monkeypatch):
  (network,) = net_weights.WEIGHTS.values()
  with socket.socket() as taken:
    taken.bind(('127.0.0.1', 0))  # and not listening: connections are refused
    url = f'http://127.0.0.1:{taken.getsockname()[1]}/a.pth'
    sources = [dataclasses.replace(source, url=url) for source in network.sources]
    broken = dataclasses.replace(network, sources=tuple(sources))
    monkeypatch.setitem(net_weights.WEIGHTS, 'net', broken)
    message = _refused()
  assert message.endswith('Connection refused)')
  assert 'Max retries' not in message


def test_a_large_download_shows_progress(net, capsys, monkeypatch):
  (network,) = net_weights.WEIGHTS.values()
  net_weights.load('net')
  assert capsys.readouterr().err == ''  # of small files there is nothing to tell
  (net / 'net.safetensors').unlink()
  (net / 'a.pth').unlink()
  sources = [dataclasses.replace(source, size=95_628_359) for source in network.sources]
  large = dataclasses.replace(network, sources=tuple(sources))
  monkeypatch.setitem(net_weights.WEIGHTS, 'net', large)
  net_weights.load('net')
  assert 'a.pth: 100%' in capsys.readouterr().err


def test_folder(monkeypatch, tmp_path):
  monkeypatch.setenv('SR3_JAX_WEIGHTS', '~/w')
  assert net_weights.folder() == pathlib.Path.home() / 'w'
  monkeypatch.delenv('SR3_JAX_WEIGHTS')
  assert net_weights.folder() == pathlib.Path.home() / '.cache/sr3_jax/weights'


def test_published_files_have_addresses_and_checksums():
  for name, weights in net_weights.WEIGHTS.items():
    for source in weights.sources:
      assert source.url.startswith('https://') and source.url.endswith(source.file)
      assert len(source.sha256) == 64
      # PyTorch writes the first digits of the sum into the name.
      assert '-' not in source.file or source.sha256[:8] in source.file, name


def test_command_lists_and_fetches(server, net, capsys):
  net_weights.main([])
  shown = capsys.readouterr().out
  assert f'folder: {net}' in shown and 'missing: a.pth' in shown and SHA in shown
  assert server[2] == []
  net_weights.main(['--fetch'])
  assert 'there, from a.pth (' in capsys.readouterr().out
  net_weights.main([])
  assert 'missing' not in capsys.readouterr().out


def test_command_fails_in_one_line(server, net, capsys, tmp_path):
  server[1].clear()
  with pytest.raises(SystemExit) as error:
    net_weights.main(['--fetch', '--folder', str(tmp_path / 'e')])
  assert error.value.code == 1
  shown = capsys.readouterr().err
  assert shown.startswith('error: net: download http') and shown.count('\n') == 1
  assert str(tmp_path / 'e') in shown
