"""The card of a model folder, as YAML reads it and as people do."""

import json
import shutil

import pytest
import yaml

import sr3_jax
from sr3_jax.weights import convert, hub, model_card, model_writer
from tests.support import model_folders
from tests.support.model_folders import PRESETS, rewrite

run, loaded, exported = model_folders.run, model_folders.loaded, model_folders.exported


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
    '| fast | dpmpp_2m | 4 | log_snr | 0 | 1 |',
    '| best | ddpm | 5 | betas 0.01 to 0.9 | 0 |',
    'bicubic kernel with anti-aliasing',
    '[-1, 1]',
    loaded.fingerprint,
    f'sr3_jax {sr3_jax.__version__}',
    'sr3-upscale',
    'sr3_jax.load(',
    'not true',
  ):
    assert words in text, words


def test_the_card_says_how_errors_counted(loaded, tmp_path):
  config = loaded.config.copy_and_resolve_references()
  for weight, words in ((0.0, 'L2 loss, Adam'), (0.5, 'loss times (1 - gamma)^0.5,')):
    config.diffusion.loss, config.diffusion.noise_weight = 'l2', weight
    folder = tmp_path / str(weight)
    model_writer.save(folder, loaded.params, config, step=3, source='a run')
    assert words in card(folder)[1]


def test_the_card_of_a_model_that_restores_says_what(loaded):
  config = loaded.config.copy_and_resolve_references()
  config.task.scale = 4  # these tasks have none
  about = {'name': 'm', 'num_params': 1, 'fingerprint': 'f', 'step': 3, 'source': 's'}
  about |= {'dtype': 'float32', 'hours': 0.0, 'license': 'mit', 'license_link': ''}
  given = about | {'presets': {}, 'results': None, 'notes': ''}
  tasks = ('jpeg', 'inpainting')
  for name, words in (
    ('inpainting', ('Restores pictures (inpainting)', '--mask=holes.png')),
    ('mixture', ('Restores pictures (jpeg, inpainting)', 'one of jpeg, inpainting,')),
    ('jpeg', ('Restores pictures (jpeg)', "upscale('photo.jpg')", 'restored.png')),
    ('generation', ('Generates pictures',)),
  ):
    config.task.name, config.task.mixture = name, tasks
    text = model_card.make(config, **given)
    assert 'trained at 16 pixels' in text and 'times larger' not in text
    assert all(word in text for word in words), text


def test_the_card_says_that_outputs_agree_with_inputs(loaded, tmp_path):
  config = loaded.config.copy_and_resolve_references()
  for consistency in (True, False):
    config.sampler.consistency = consistency
    folder = tmp_path / str(consistency)
    model_writer.save(folder, loaded.params, config, step=3, source='a run')
    assert ('downsampled, is the input' in card(folder)[1]) == consistency


def test_the_card_of_unmeasured_weights(loaded, tmp_path):
  model_writer.save(
    tmp_path / 'm', loaded.params, loaded.config, step=0, source='a`b|\n[c](d)'
  )
  front, text = card(tmp_path / 'm')
  assert front['license'] == 'unknown'
  assert 'weights: ab c(d)' in text
  assert 'Not measured' in text
  assert 'default is ddpm, 3 steps' in text
  assert 'steps of' not in text
  # What hubs don't know as an identifier has a field of its own.
  model_writer.save(
    tmp_path / 'm', {**loaded.params}, loaded.config, step=0, license='My: "own"'
  )
  assert card(tmp_path / 'm')[0]['license'] == 'other'
  assert card(tmp_path / 'm')[0]['license_name'] == 'my-own'
  assert '- terms of use of the weights: My: "own"\n' in card(tmp_path / 'm')[1]


@pytest.mark.parametrize(
  ('task', 'words'),
  [
    ('photo_super_resolution', 'half also a little blurred, noisy and compressed'),
    ('blind_super_resolution', 'blind_super_resolution: as docs/tasks.md'),
  ],
)
def test_the_card_says_what_inputs_it_was_trained_for(loaded, tmp_path, task, words):
  config = loaded.config.copy_and_resolve_references()
  config.task.name = task
  model_writer.save(tmp_path / 'm', loaded.params, config, step=0)
  assert words in card(tmp_path / 'm')[1]


def test_results_of_other_weights_stay_out(run, tmp_path):
  shutil.copytree(run, tmp_path / 'run')
  rewrite(tmp_path / 'run' / 'results.json', lambda r: r.update(step=15))
  model_writer.export(tmp_path / 'run', tmp_path / 'm')
  assert 'Not measured' in card(tmp_path / 'm')[1]


def test_a_model_folder_exports_too(exported, tmp_path):
  """Its results are left out, because rounding may have changed them."""
  loaded = model_writer.export(exported, tmp_path / 'm', dtype='bfloat16')
  again = hub.load(tmp_path / 'm')
  assert again.presets == loaded.presets == PRESETS
  assert (again.step, again.source) == (loaded.step, loaded.source)
  assert 'Not measured' in card(tmp_path / 'm')[1]


def test_the_card_has_notes_and_hours(run, tmp_path):
  """8 images a step: 1000 steps at 4 a second, 2000 at 2, a thousand done again."""
  shutil.copytree(run, tmp_path / 'run')
  log = [(1000, 4.0), (3000, 2.0), (1000, 4.0)]
  lines = [json.dumps({'step': s, 'images_per_second': r}) for s, r in log]
  lines.append(json.dumps({'step': 3000, 'psnr': 30.0}))
  (tmp_path / 'run' / 'metrics.jsonl').write_text('\n'.join(lines))
  notes = tmp_path / 'notes.md'
  notes.write_text('## Data\n\nPortraits, CC BY 3.0, UK Parliament.\n')
  convert.main(
    [str(tmp_path / 'run'), f'--output={tmp_path / "m"}', f'--notes={notes}']
  )
  text = card(tmp_path / 'm')[1]
  assert '\n## Data\n\nPortraits, CC BY 3.0, UK Parliament.\n\n## Results' in text
  assert f'- {(2000 + 8000) / 3600:.1f} hours' in text
  assert 'seed 0' in text


def test_an_unreadable_log_costs_no_export(run, tmp_path):
  shutil.copytree(run, tmp_path / 'run')
  (tmp_path / 'run' / 'metrics.jsonl').write_text(
    '{"step": 1, "images_per_second": null}\n{"step": 2, "images_per_second"'
  )
  model_writer.export(tmp_path / 'run', tmp_path / 'm')
  assert 'hours' not in card(tmp_path / 'm')[1]


def test_notes_must_be_text(exported, tmp_path, capsys):
  (tmp_path / 'notes.md').write_bytes(b'\xff\xfe\x00')
  with pytest.raises(SystemExit) as stop:
    convert.main(
      [str(exported), f'--output={tmp_path / "m"}', f'--notes={tmp_path / "notes.md"}']
    )
  assert stop.value.code == f'error: {tmp_path / "notes.md"}: not a text in UTF-8'
  assert not (tmp_path / 'm').exists()
