"""The command sr3-demo: help, mistakes, and how it ends; no page is opened."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys

import pytest

from sr3_jax.demo import command, server
from tests.support import programs

ROOT = pathlib.Path(__file__).parents[2]


def refused(capsys, *arguments):
  with pytest.raises(SystemExit) as ended:
    command.main([*arguments, '-q'])
  text = capsys.readouterr().err.strip()
  assert ended.value.code == 2 and '\n' not in text
  return text


def test_help_imports_nothing_heavy(capsys):
  code, modules = programs.run_main('sr3_jax.demo.command', '--help')
  assert code == 0
  assert not modules & {'gradio', 'jax', 'numpy', 'PIL'}
  parser = command.make_parser()
  page = (ROOT / 'docs' / 'demo.md').read_text()
  for action in parser._actions:
    if (name := action.option_strings[-1]) not in ('--help', '--version'):
      assert f'`{name}' in page or name in ('--quiet', '--verbose'), name


@pytest.mark.parametrize(
  ('option', 'words'),
  [
    ('--port=70000', '--port: 70000 must be a whole number from 0 to 65535'),
    ('--max-pixels=0', '--max-pixels: 0 must be a whole number'),
    ('--max-upload=0', '--max-upload: 0.0 must be a number'),
    ('--host=nowhere.invalid', '--host=nowhere.invalid --port=7860: '),
    ('--model=', '--model: '),
    ('x', 'unrecognized arguments: x'),
  ],
)
def test_mistakes(capsys, option, words):
  assert words in refused(capsys, option)


def test_a_port_that_is_taken(capsys):
  with socket.create_server(('127.0.0.1', 0)) as other:
    port = other.getsockname()[1]
    text = refused(capsys, f'--port={port}')
  assert f'--port={port}: Address already in use: choose another port, or 0' in text


def test_without_gradio(capsys, monkeypatch):
  monkeypatch.setitem(sys.modules, 'gradio', None)
  text = refused(capsys, '--port=0')
  assert "sr3-demo needs gradio: pip install 'sr3_jax[demo]'" in text


def test_a_model_that_is_not_there(capsys, monkeypatch):
  monkeypatch.setattr(server, 'import_gradio', lambda: None)
  text = refused(capsys, '--port=0', '--model=runs/none')
  assert 'runs/none: no model: no such file or folder' in text


def test_ctrl_c_ends_it_with_one_line_and_its_files(tmp_path):
  pytest.importorskip('gradio')
  process = subprocess.Popen(
    [sys.executable, '-m', 'sr3_jax.demo', '--port=0', '--max-pixels=100'],
    cwd=ROOT,
    env=os.environ | {'TMPDIR': str(tmp_path)},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  line = process.stdout.readline()
  assert re.fullmatch(r'http://127\.0\.0\.1:\d+/ \(Ctrl\+C ends it\)\n', line)
  assert list(tmp_path.glob('sr3-demo-*'))
  process.send_signal(signal.SIGINT)
  out, err = process.communicate(timeout=60)
  assert process.returncode == 130 and out == ''
  assert err.splitlines()[-1] == 'interrupted' and 'Traceback' not in err
  assert not list(tmp_path.glob('sr3-demo-*'))
