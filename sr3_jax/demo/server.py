"""Serves the page of a demo, with no file in reach but uploads and results.

Gradio is imported only where a server starts. It keeps its files in a folder that is
made for one server and removed with it.
"""

import contextlib
import os
import re
import shutil
import socket
import tempfile
import threading
from typing import TYPE_CHECKING, Any

from sr3_jax.runtime import activity, interruption
from sr3_jax.runtime.errors import UserError, reason

if TYPE_CHECKING:
  from sr3_jax.demo.jobs import Limits, Models

# Seconds between two looks for old files, and the age at which they are deleted.
_EVERY, _OLD = 300, 3600
# What Gradio also serves and no demo needs: other sites' pages through this server,
# screen recordings, its editor of programs, and a store of parts of pictures in memory.
_UNUSED = re.compile(
  r'/(proxy=|file=\w+:|process_recording|vibe|monitoring|run-history|component_server)'
)


def import_gradio() -> Any:
  """Return the module gradio.

  It is told to send no statistics, and where its files are until a server starts.

  Raises:
    UserError: it isn't installed; one line says what to install.
  """
  os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
  with activity.doing('loading Gradio'):
    try:
      import gradio
    except ImportError as error:
      text = f"sr3-demo needs gradio: pip install 'sr3_jax[demo]' ({error})"
      raise UserError(text) from None
  return gradio


def free_port(host: str, port: int) -> int:
  """Return the port, or a free one if it is 0.

  Raises:
    UserError: it is taken, or there is no such address.
  """
  family = socket.AF_INET6 if ':' in host else socket.AF_INET
  try:
    with socket.socket(family) as found:
      # As the server does: ports of servers that have just ended are free.
      found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      found.bind((host, port))
      return found.getsockname()[1]
  except (OSError, UnicodeError) as error:
    why = reason(error) if isinstance(error, OSError) else 'no such address'
    raise UserError(
      f'--host={host} --port={port}: {why}: choose another port, or 0 for a free one'
    ) from None


class Server:
  """A running server of a demo; `close` it, or use it in a `with`.

  Args:
    models: by the names that visitors see.
    limits: for visitors.
    host: address to listen at.
    port: a free one.
    share: make a public link, through Gradio's servers.

  Attributes:
    urls: the addresses at which it is.
    folder: of uploads and results.
    page: the gradio.Blocks.

  Raises:
    UserError: no Gradio, or no public link.
  """

  def __init__(
    self, models: 'Models', limits: 'Limits', host: str, port: int, share: bool = False
  ):
    self.folder = tempfile.mkdtemp(prefix='sr3-demo-')
    self._stack = contextlib.ExitStack()
    self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
    # A signal ends the process without unwinding the stack of this thread.
    self._stack.enter_context(interruption.at_end(lambda number: self.close()))
    os.environ['GRADIO_TEMP_DIR'] = self.folder  # read when a page is made
    try:
      self.urls = self._start(models, limits, host, port, share)
    except BaseException:
      self.close()
      raise

  def _start(
    self, models: 'Models', limits: 'Limits', host: str, port: int, share: bool
  ) -> list[str]:
    """Start it; return its addresses."""
    import_gradio()
    from starlette.middleware import Middleware

    from sr3_jax.demo import page

    self.page = blocks = page.make(models, limits, self.folder, (_EVERY, _OLD))
    self._stack.callback(blocks.close, verbose=False)
    if share:
      self._stack.callback(_close_tunnels)
    blocks.queue(max_size=limits.queue, default_concurrency_limit=1, api_open=False)
    blocks.launch(
      prevent_thread_lock=True,
      quiet=True,
      server_name=host,
      server_port=port,
      share=share,
      inline=False,
      max_file_size=round(limits.megabytes * 10**6),
      footer_links=['api'],
      run_history=False,
      enable_monitoring=False,
      ssr_mode=False,
      mcp_server=False,
      app_kwargs={'middleware': [Middleware(_Refusing)]},
      **page.style(),
    )
    if share and not blocks.share_url:
      raise UserError('--share: there is no public link: Gradio says why above')
    return [blocks.local_url, *([blocks.share_url] if share else [])]

  def wait(self) -> None:
    """Wait until a signal ends the process."""
    threading.Event().wait()

  def close(self) -> None:
    """Stop serving, and delete all uploads and results."""
    self._stack.close()

  def __enter__(self) -> 'Server':
    return self

  def __exit__(self, *_: object) -> None:
    self.close()


def _close_tunnels() -> None:
  """End the processes behind public links."""
  from gradio.tunneling import CURRENT_TUNNELS

  for tunnel in CURRENT_TUNNELS:
    tunnel.kill()


class _Refusing:
  """An ASGI application that answers 404 for what a demo doesn't need.

  Args:
    app: answers everything else.
  """

  def __init__(self, app: Any):
    self._app = app

  async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
    """Answer a request."""
    if scope['type'] == 'http' and _UNUSED.search(scope['path']):
      from starlette.responses import PlainTextResponse

      await PlainTextResponse('not found', 404)(scope, receive, send)
    else:
      await self._app(scope, receive, send)
