"""A stand-in for the Hugging Face hub on loopback: models, their files and a token.

It speaks what huggingface_hub calls to make a repository, to upload a folder (small
files in the commit, large ones by LFS) and to download it again.
"""

import base64
import hashlib
import http.server
import json
import re
import threading

import yaml

TOKEN = 'hf_right'
# What the hub says of names: https://huggingface.co/docs/hub/model-cards
_NAME = re.compile(r'[a-z0-9.-]+')


class Hub(http.server.ThreadingHTTPServer):
  """The hub. `repos` has the files of each model, `private` the hidden ones."""

  daemon_threads = True

  def __init__(self):
    super().__init__(('127.0.0.1', 0), _Handler)
    self.repos: dict[str, dict[str, bytes]] = {}
    self.private: set[str] = set()
    self.large: dict[str, bytes] = {}  # by SHA-256, as LFS has them
    self.messages: list[str] = []
    self.address = f'http://127.0.0.1:{self.server_port}'
    threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(http.server.BaseHTTPRequestHandler):
  server: Hub
  protocol_version = 'HTTP/1.1'

  def log_message(self, *args):
    pass

  def _answer(self, value=None, code=200, data=None, **headers):
    data = json.dumps(value or {}).encode() if data is None else data
    self.send_response(code)
    self.send_header('Content-Length', str(len(data)))
    for name, text in headers.items():
      self.send_header(name.replace('_', '-'), text)
    self.end_headers()
    if self.command != 'HEAD':
      self.wfile.write(data)

  def _body(self):
    return self.rfile.read(int(self.headers.get('Content-Length') or 0))

  def _allowed(self):
    if self.headers.get('Authorization') == f'Bearer {TOKEN}':
      return True
    self._answer({'error': 'Invalid credentials'}, 401)
    return False

  def _missing(self, name):
    if name in self.server.repos:
      return False
    headers = {
      'X_Error_Code': 'RepoNotFound',
      'X_Error_Message': 'Repository not found',
    }
    self._answer({'error': 'Repository not found'}, 404, **headers)
    return True

  def do_GET(self):
    path = self.path.partition('?')[0]
    if match := re.fullmatch(r'/api/models/([^/]+/[^/]+)(/revision/\w+)?', path):
      if self._allowed() and not self._missing(match[1]):
        self._answer(self._info(match[1]))
    elif match := re.fullmatch(r'/api/models/([^/]+/[^/]+)/tree/\w+', path):
      if self._allowed() and not self._missing(match[1]):
        files = self.server.repos[match[1]].items()
        entry = {'type': 'file', 'oid': '1' * 40}
        tree = [{**entry, 'path': name, 'size': len(data)} for name, data in files]
        self._answer(data=json.dumps(tree).encode())
    elif match := re.fullmatch(r'/([^/]+/[^/]+)/resolve/\w+/([\w.]+)', path):
      if not self._allowed() or self._missing(match[1]):
        return
      data = self.server.repos[match[1]].get(match[2])
      if data is None:
        self._answer({}, 404, X_Error_Code='EntryNotFound')
      else:
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        self._answer(data=data, X_Repo_Commit='c' * 40, ETag=etag)
    else:
      self._answer({'error': f'no such place: {path}'}, 404)

  do_HEAD = do_GET

  def _info(self, name):
    files = [{'rfilename': file} for file in self.server.repos[name]]
    private = name in self.server.private
    return {'id': name, 'sha': 'c' * 40, 'private': private, 'siblings': files}

  def do_POST(self):
    body, path = self._body(), self.path.partition('?')[0]
    if not self._allowed():
      return
    if path == '/api/repos/create':
      made = json.loads(body)
      name = f'{made.get("organization") or "me"}/{made["name"]}'
      if made.get('private') or made.get('visibility') == 'private':
        self.server.private.add(name)
      self.server.repos[name] = {}
      self._answer({'url': f'{self.server.address}/{name}'})
    elif path == '/api/validate-yaml':
      self._validate(json.loads(body)['content'])
    elif '/preupload/' in path:
      self._answer({'files': [_mode(file) for file in json.loads(body)['files']]})
    elif path.endswith('/info/lfs/objects/batch'):
      self._answer({'transfer': 'basic', 'objects': self._objects(json.loads(body))})
    elif '/commit/' in path:
      self._commit(path.split('/api/models/')[1].rpartition('/commit/')[0], body)
    else:
      self._answer({'error': f'no such place: {path}'}, 404)

  def do_PUT(self):
    data = self._body()
    assert hashlib.sha256(data).hexdigest() == self.path.rpartition('/')[2]
    self.server.large[self.path.rpartition('/')[2]] = data
    self._answer()

  def _objects(self, batch):
    return [
      {
        'oid': entry['oid'],
        'size': entry['size'],
        'actions': {'upload': {'href': f'{self.server.address}/lfs/{entry["oid"]}'}},
      }
      for entry in batch['objects']
    ]

  def _validate(self, text):
    """Refuse terms as the hub does: no identifier, and no name and link instead."""
    head, errors = yaml.safe_load(text.split('---\n')[1]), []
    known = ('apache-2.0', 'mit', 'cc-by-3.0', 'unknown')
    if head['license'] not in (*known, 'other'):
      errors.append('"license" must be one of [apache-2.0, ...]')
    if head['license'] == 'other':
      if not _NAME.fullmatch(str(head.get('license_name'))):
        errors.append('"license_name" fails to match the required pattern')
      if not re.match('https?://|LICENSE', str(head.get('license_link'))):
        errors.append('"license_link" must be a valid uri')
    found = {'errors': [{'message': text} for text in errors], 'warnings': []}
    self._answer(found, 400 if errors else 200)

  def _commit(self, name, body):
    for line in body.decode().splitlines():
      entry = json.loads(line)
      value = entry['value']
      if entry['key'] == 'header':
        self.server.messages.append(value['summary'])
      elif entry['key'] == 'file':
        data = base64.b64decode(value['content'])
        self.server.repos[name][value['path']] = data
      elif entry['key'] == 'lfsFile':
        self.server.repos[name][value['path']] = self.server.large[value['oid']]
    url = f'{self.server.address}/{name}/commit/{"c" * 40}'
    self._answer({'commitUrl': url, 'commitOid': 'c' * 40})


def _mode(file):
  large = file['path'].endswith('.safetensors')
  mode = 'lfs' if large else 'regular'
  return {'path': file['path'], 'uploadMode': mode, 'shouldIgnore': False}
