"""The card of a model folder, as YAML reads it and as people do."""

import shutil

import hub_kit
import yaml
from hub_kit import PRESETS, rewrite

import sr3_jax
from sr3_jax import hub

run, loaded, exported = hub_kit.run, hub_kit.loaded, hub_kit.exported


def card(folder) -> tuple[dict, str]:
  """Front matter as YAML reads it, and the text."""
  _, front, text = (folder / 'README.md').read_text().split('---\n', 2)
  return yaml.safe_load(front), text


def test_the_card_says_what_hubs_and_people_ask(exported, loaded):
  front, text = card(exported)
  assert front['license'] == 'apache-2.0'
  assert front['library_name'] == 'sr3_jax'
  assert front['pipeline_tag'] == 'image-to-image'
  assert 'super-resolution' in front['tags']
  for words in (
    '# photos4x',
    '4 times larger',
    'from 4 to 16 pixels',
    '20 steps of 8 images',
    'photos',
    'On 64 held-out images',
    '| sr3 | 24.60 | 0.600 | 0.73 |',
    'ddim, 7 steps, spacing cosine',
    '| fast | dpmpp_2m | 4 | log_snr | 0 |',
    '| best | ddpm | 5 | betas 0.01 to 0.9 | 0 |',
    'bicubic with anti-aliasing',
    '[-1, 1]',
    loaded.fingerprint,
    f'sr3_jax {sr3_jax.__version__}',
    'python -m sr3_jax.upscale',
    'sr3_jax.load(',
    'not true',
  ):
    assert words in text, words


def test_the_card_of_unmeasured_weights(loaded, tmp_path):
  hub.save(tmp_path / 'm', loaded.params, loaded.config, step=0, source='a`b|\n[c](d)')
  front, text = card(tmp_path / 'm')
  assert front['license'] == 'unknown'
  assert 'weights: ab c(d)' in text
  assert 'Not measured' in text
  assert 'default is ddpm, 3 steps' in text
  assert 'steps of' not in text
  # What hubs don't know as an identifier has a field of its own.
  hub.save(
    tmp_path / 'm', {**loaded.params}, loaded.config, step=0, license='My: "own"'
  )
  assert card(tmp_path / 'm')[0]['license'] == 'other'
  assert card(tmp_path / 'm')[0]['license_name'] == 'My: "own"'


def test_results_of_other_weights_stay_out(run, tmp_path):
  shutil.copytree(run, tmp_path / 'run')
  rewrite(tmp_path / 'run' / 'results.json', lambda r: r.update(step=15))
  hub.export(tmp_path / 'run', tmp_path / 'm')
  assert 'Not measured' in card(tmp_path / 'm')[1]


def test_a_model_folder_exports_too(exported, tmp_path):
  """Say, to halve its size; what it was measured as may no longer hold."""
  loaded = hub.export(exported, tmp_path / 'm', dtype='bfloat16')
  again = hub.load(tmp_path / 'm')
  assert again.presets == loaded.presets == PRESETS
  assert (again.step, again.source) == (loaded.step, loaded.source)
  assert 'Not measured' in card(tmp_path / 'm')[1]
