"""Serves a study on this machine and stores the results that it is sent.

For a laboratory with one computer, and for trying a study out. It answers on the
loopback address only, with the files that the site had at the start and nothing else;
to reach subjects elsewhere, put the site on a web host.
"""

import contextlib
import datetime
import http.server
import pathlib
import sys
import uuid
from typing import cast

from sr3_jax.human_study import results
from sr3_jax.runtime import atomic_files, foreign_files
from sr3_jax.runtime.errors import UserError, line

TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
}
MAX_RESULTS = 10_000  # files; more would be a mistake or an attack


def results_path(site: pathlib.Path) -> pathlib.Path:
  """Return SITE-results, beside the site: answers are not published."""
  return site.resolve().with_name(site.resolve().name + '-results')


def make_server(site: pathlib.Path, port: int) -> http.server.ThreadingHTTPServer:
  """Return a server of a site on 127.0.0.1; it is ready to `serve_forever`.

  Port 0 takes a free one.

  Raises:
    OSError: the port is taken, or the folder can't be read.
  """
  # A request is looked up in this table, so that no path leads anywhere else.
  files = {
    '/' + path.relative_to(site).as_posix(): path
    for path in sorted(site.rglob('*'))
    if path.is_file() and not path.is_symlink() and path.suffix in TYPES
  }
  files['/'] = files['/index.html']

  class Handler(_Handler):
    """A handler of this site."""

  Handler.files, Handler.folder = files, results_path(site)
  return http.server.ThreadingHTTPServer(('127.0.0.1', port), Handler)


class _Handler(http.server.BaseHTTPRequestHandler):
  """A handler of requests: GET of the site's files, POST of results."""

  files: dict[str, pathlib.Path]
  folder: pathlib.Path  # of results
  protocol_version = 'HTTP/1.1'
  server_version, sys_version = 'sr3_jax', ''
  timeout = 30  # seconds for a client that says nothing

  def handle(self) -> None:
    """Answer until the client hangs up, which it may do at any moment."""
    with contextlib.suppress(ConnectionError, TimeoutError):
      super().handle()

  def finish(self) -> None:
    """Send what is left, if anybody still listens."""
    with contextlib.suppress(ConnectionError, TimeoutError):
      super().finish()

  def do_GET(self) -> None:
    """Answer with a file of the site."""
    path, data = self.files.get(self.path.partition('?')[0]), None
    if not self._is_own():
      self._answer(403, 'this host only')
      return
    with contextlib.suppress(OSError, UserError):
      data = foreign_files.read_bytes(path) if path else None
    if path is None or data is None:
      self._answer(404, 'no such page')
    else:
      self._answer(200, data, TYPES[path.suffix])

  do_HEAD = do_GET

  def do_POST(self) -> None:
    """Store a result, if it is one."""
    length = self.headers.get('Content-Length', '')
    # A body that is not read would be taken for the next request.
    self.close_connection = True
    if not self._is_own():
      self._answer(403, 'this host only')
    elif self.path != '/results':
      self._answer(404, 'results go to /results')
    elif self.headers.get_content_type() != 'application/json':
      # Pages of other sites can't send this type unasked.
      self._answer(415, 'application/json only')
    elif not (length.isascii() and length.isdigit()):
      self._answer(411, 'a length is needed')
    elif len(length) > 9 or int(length) > results.MAX_BYTES:
      self._answer(413, 'too large')
    else:
      self._store(self.rfile.read(int(length)))

  def _store(self, data: bytes) -> None:
    """Write a result to a file of its own, and answer."""
    try:
      result = results.parse(data)
    except results.ResultError as error:
      self._answer(400, str(error))
      return
    now = datetime.datetime.now(datetime.UTC)
    # Nothing that the client sent becomes part of the name.
    name = f'{now:%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:12]}.json'
    try:
      if self.folder.is_dir() and len(list(self.folder.iterdir())) >= MAX_RESULTS:
        self._answer(507, 'too many results')
        return
      atomic_files.write_bytes(self.folder / name, data)
    except OSError as error:
      print(f'error: {line(error)}', file=sys.stderr)
      self._answer(500, 'could not be written')
      return
    print(f'subject {result.number}: {self.folder.name}/{name}', flush=True)
    self._answer(201, 'thank you')

  def _is_own(self) -> bool:
    """Return whether the request is for this host by name, and from a page of it.

    A foreign name that resolves to 127.0.0.1 would let that site's pages read this one.
    """
    port = cast('http.server.HTTPServer', self.server).server_port
    hosts = {f'127.0.0.1:{port}', f'localhost:{port}'}
    origin = self.headers.get('Origin')
    own = origin is None or origin in {f'http://{host}' for host in hosts}
    return own and self.headers.get('Host') in hosts

  def _answer(
    self, status: int, body: bytes | str, kind: str = 'text/plain; charset=utf-8'
  ) -> None:
    """Send an answer of a status."""
    data = body.encode() if isinstance(body, str) else body
    self.send_response(status)
    self.send_header('Content-Type', kind)
    self.send_header('Content-Length', str(len(data)))
    self.send_header('Cache-Control', 'no-cache')
    self.send_header('X-Content-Type-Options', 'nosniff')
    self.send_header('X-Frame-Options', 'DENY')
    self.end_headers()
    if self.command != 'HEAD':
      self.wfile.write(data)

  def log_message(self, format: str, *args: object) -> None:
    """Print nothing: there would be a line for every picture."""
