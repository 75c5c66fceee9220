"""To the hub and back: `sr3-push` and hf://, with a stand-in for the hub."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from sr3_jax.weights import hub, push_command
from tests.support import hub_server, model_folders

pytest.importorskip('huggingface_hub')
run, loaded, exported = model_folders.run, model_folders.loaded, model_folders.exported

# Pushes models and loads one; prints what came back. All in one process, because
# huggingface_hub takes the hub's address from the environment when it is imported.
_CODE = """
import json, sys
import sr3_jax
from sr3_jax.weights import push, push_command
exported, run, own = sys.argv[1:4]
assert push_command.main([exported, 'me/photos', '-q', '--message=first']) == 0
upscaler = sr3_jax.load(run, steps=1, on_note=lambda text: None)
print(upscaler.push_to_hub('me/run', public=True))
push.push(own, 'me/own')
errors = []
for args in (['me/open'], ['me/refused'], ['nonsense'], ['a/b/c']):
  try:
    push_command.main([exported, *args, '-q'])
  except SystemExit as stop:
    errors.append(stop.code)
again = sr3_jax.load('hf://me/own', steps=1, on_note=errors.append)
loaded = sr3_jax.load('hf://me/photos', steps=1, on_note=errors.append).loaded
print(json.dumps([errors, loaded.fingerprint, loaded.name, again.license]))
"""


@pytest.fixture(scope='module')
def server():
  with hub_server.Hub() as found:
    yield found
    found.shutdown()


def environment(server, home, token=hub_server.TOKEN):
  own = {'HF_ENDPOINT': server.address, 'HF_HOME': str(home), 'HF_TOKEN': token}
  return {**os.environ, **own, 'HF_HUB_DISABLE_XET': '1'}


def head_of(files):
  return yaml.safe_load(files['README.md'].decode().split('---\n')[1])


def test_to_the_hub_and_back(server, exported, run, loaded, tmp_path):
  own = tmp_path / 'own'
  own.mkdir()
  for file in exported.iterdir():
    (own / file.name).write_bytes(file.read_bytes())
  (own / 'notes.txt').write_text('secret')
  card = (own / 'README.md').read_text()
  # As cards were written before hubs' identifiers were known here.
  terms = 'license: Bsds500_non commercial'
  (own / 'README.md').write_text(card.replace('license: apache-2.0', terms))
  server.repos['me/open'] = {}
  done = subprocess.run(
    [sys.executable, '-c', _CODE, str(exported), str(run), str(own)],
    env=environment(server, tmp_path / 'home'),
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  *lines, last = done.stdout.splitlines()
  assert f'{server.address}/me/photos' in lines and f'{server.address}/me/run' in lines
  errors, fingerprint, name, license = json.loads(last)
  assert (fingerprint, name) == (loaded.fingerprint, 'me/photos')
  assert license == 'bsds500-non-commercial'
  assert 'me/open is public' in errors[0] and 'owner/name' in errors[2] + errors[3]
  assert 'terms of use: bsds500-non-commercial' in errors[-1] and len(errors) == 4
  photos = server.repos['me/photos']
  assert {*photos} == {file.name for file in exported.iterdir()}
  for file in ('model.safetensors', 'config.json'):
    assert photos[file] == (exported / file).read_bytes()
  assert head_of(photos)['license'] == 'apache-2.0'
  assert {'me/photos', 'me/own'} <= server.private and 'me/run' not in server.private
  head = head_of(server.repos['me/own'])
  assert head['license'] == 'other' and head['library_name'] == 'sr3_jax'
  assert head['license_name'] == 'bsds500-non-commercial'
  assert head['license_link'] == f'{server.address}/me/own/blob/main/README.md'
  assert 'notes.txt' not in server.repos['me/own'] and 'first' in server.messages


@pytest.mark.parametrize(
  ('model', 'token', 'words'),
  [
    ('model', '', 'no token of the hub: hf auth login'),
    ('model', 'hf_wrong', 'refuses the token'),
    ('empty', hub_server.TOKEN, 'no model: a model folder has model.safetensors'),
    ('nowhere', hub_server.TOKEN, 'no such file or folder'),
  ],
)
def test_refusals_are_one_line(server, exported, tmp_path, model, token, words):
  (tmp_path / 'empty').mkdir()
  place = exported if model == 'model' else tmp_path / model
  before = {name: {*files} for name, files in server.repos.items()}
  done = subprocess.run(
    [sys.executable, '-m', 'sr3_jax.weights.push_command', str(place), 'me/x', '-q'],
    env=environment(server, tmp_path / 'home', token),
    capture_output=True,
    text=True,
  )
  assert done.returncode == 1 and words in done.stderr
  assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1
  assert {name: {*files} for name, files in server.repos.items()} == before


def test_without_the_library_one_line_says_what_to_install(
  exported, monkeypatch, tmp_path
):
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  with pytest.raises(SystemExit, match="pip install 'sr3_jax\\[hub\\]'"):
    push_command.main([str(exported), 'me/x', '-q'])


def test_a_loaded_model_knows_its_terms_and_place(exported):
  found = hub.load(exported)
  assert found.license == 'apache-2.0' and found.place == exported
  assert hub.load('face-x4').license == 'cc-by-3.0'
