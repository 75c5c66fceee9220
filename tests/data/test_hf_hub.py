"""Tests of datasets of the Hugging Face hub, which a stand-in on loopback plays."""

import hashlib
import http.server
import io
import json
import os
import subprocess
import sys
import threading
import urllib.parse

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('datasets')
COMMIT = 'a' * 40
CARD = b"""---
configs:
- config_name: small
  data_files: [{split: train, path: small/train-*}, {split: test, path: small/test-*}]
- config_name: big
  data_files: big/train-*
---
"""
# The hub's address is read when the library is imported, so this is another process.
READ = """
import json, sys
from sr3_jax.data import columns, hf_rows
from sr3_jax.runtime.errors import UserError

for path, split, options in json.loads(sys.argv[1]):
  try:
    rows = hf_rows.HfRows(path, split, cache_dir=sys.argv[2], **options)
    images = columns.make_images(rows, 3)
    values = [int(images[i]['image'][0, 0, 0]) for i in range(len(images))]
    print(json.dumps([images.name(0), list(images.classes), values]))
  except UserError as error:
    print(json.dumps(str(error)))
"""


def parquet(values):
  pa, pq = pytest.importorskip('pyarrow'), pytest.importorskip('pyarrow.parquet')
  images = []
  for value in values:
    file = io.BytesIO()
    Image.fromarray(np.full((6, 8), value, np.uint8)).save(file, 'PNG')
    images.append({'bytes': file.getvalue(), 'path': None})
  file = io.BytesIO()
  pq.write_table(pa.table({'image': images, 'label': [i % 2 for i in values]}), file)
  return file.getvalue()


class Hub(http.server.ThreadingHTTPServer):
  """A hub with one dataset, 'owner/name', of two configurations."""

  daemon_threads = True

  def __init__(self):
    super().__init__(('127.0.0.1', 0), Handler)
    self.files = {
      'README.md': CARD,
      'small/train-00000-of-00001.parquet': parquet([0, 1, 2]),
      'small/test-00000-of-00001.parquet': parquet([10, 11]),
      'big/train-00000-of-00001.parquet': parquet(range(20, 30)),
    }
    threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = 'HTTP/1.1'

  def log_message(self, *args):
    pass

  def answer(self, value=None, data=None, code=200, **headers):
    data = json.dumps(value).encode() if data is None else data
    self.send_response(code)
    self.send_header('Content-Length', str(len(data)))
    for name, text in headers.items():
      self.send_header(name.replace('_', '-'), text)
    self.end_headers()
    if self.command != 'HEAD':
      self.wfile.write(data)

  def entry(self, name):
    data = self.server.files[name]
    oid = hashlib.sha1(data).hexdigest()
    return {'type': 'file', 'path': name, 'size': len(data), 'oid': oid}

  def do_POST(self):
    wanted = json.loads(self.rfile.read(int(self.headers['Content-Length'])))['paths']
    self.answer([self.entry(name) for name in wanted if name in self.server.files])

  def do_HEAD(self):
    self.do_GET()

  def do_GET(self):
    files = self.server.files
    path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
    api, file = '/api/datasets/owner/name/', '/datasets/owner/name/resolve/'
    if path.startswith(file):
      name = path.removeprefix(file).partition('/')[2]
      if name not in files:
        return self.answer({}, code=404, X_Error_Code='EntryNotFound')
      tag = f'"{hashlib.sha1(files[name]).hexdigest()}"'
      return self.answer(data=files[name], ETag=tag, X_Repo_Commit=COMMIT)
    if path.startswith(f'{api}tree/'):
      folder = path.removeprefix(f'{api}tree/').partition('/')[2]
      inside = [n for n in files if n.startswith(f'{folder}/' if folder else '')]
      folders = () if folder else ('small', 'big')
      return self.answer(
        [self.entry(n) for n in inside if folder or '/' not in n]
        + [{'type': 'directory', 'path': name, 'oid': '0'} for name in folders]
      )
    if path.startswith(f'{api}revision/'):
      siblings = [{'rfilename': name} for name in files]
      return self.answer({'id': 'owner/name', 'sha': COMMIT, 'siblings': siblings})
    return self.answer({}, code=404, X_Error_Code='RepoNotFound')


def test_subsets_splits_and_revisions_of_the_hub(tmp_path):
  hub = Hub()
  asked = [
    ('owner/name', 'train', {'subset': 'small'}),
    ('owner/name', 'test', {'subset': 'small', 'revision': 'v1'}),
    ('owner/name', 'train[7:]', {'subset': 'big'}),
    ('owner/name', 'train', {}),
    ('owner/name', 'train', {'subset': 'gone'}),
    ('no/where', 'train', {}),
  ]
  environment = os.environ | {
    'HF_ENDPOINT': f'http://127.0.0.1:{hub.server_port}',
    'HF_HOME': str(tmp_path / 'home'),
    'HF_HUB_DISABLE_XET': '1',
  }
  done = subprocess.run(
    [sys.executable, '-c', READ, json.dumps(asked), str(tmp_path / 'cache')],
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  hub.shutdown()
  assert done.returncode == 0, done.stderr
  small, test, big, none, gone, nowhere = map(json.loads, done.stdout.splitlines())
  assert small == ['owner/name:train[0]', ['0', '1'], [0, 1, 2]]
  assert test == ['owner/name:test[0]', ['0', '1'], [10, 11]]
  assert big == ['owner/name:train[7:][0]', ['0', '1'], [27, 28, 29]]
  assert none.startswith('owner/name: Config name is missing')
  assert "['small', 'big']" in none and none.endswith('; set data.subset')
  assert "'gone' not found" in gone and gone.endswith('; set data.subset')
  assert nowhere.startswith("no/where: Dataset 'no/where' doesn't exist on the Hub")
  assert '\n' not in none + gone + nowhere
