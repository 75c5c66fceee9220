"""Tests of the program sr3-train, mostly in processes of its own."""

import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import PIL.Image
import pytest

from sr3_jax import main
from sr3_jax.core.relations import check_relations
from sr3_jax.runtime.errors import UserError
from sr3_jax.training import run as training_run
from sr3_jax.weights import checkpoint, hub
from tests.support import runs

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = '--config=tests/support/runs.py'
QUICKSTART = ROOT / 'configs' / 'quickstart.py'

# Stands in for packages that the program must not import, and records who imports them.
TELLTALE = """
import os, traceback
with open(os.environ['TELLTALE'], 'a') as file:
  file.write(''.join(traceback.format_stack()))
raise ImportError('a telltale of test_main.py')
"""


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
  """Run the program on eight devices, as conftest.py sets them."""
  return subprocess.run(
    [sys.executable, '-m', 'sr3_jax.main', *arguments],
    cwd=ROOT,
    env=os.environ | environment,
    capture_output=True,
    text=True,
  )


# ------------------------------------------------------------------------- errors

# Arguments after --config and --workdir, and the words of the error.
MISTAKES = {
  'key': (
    ['--config.train.num_stps=5'],
    ['train.num_stps', 'init_from, distill_from, profile, tensorboard'],
  ),
  'type': (
    ['--config.train.num_steps=many'],
    ["train.num_steps='many' must be a whole number from 1"],
  ),
  'mode': (['--mode=trian'], ['mode', 'train|eval|sample|sweep']),
  'argument': (['extra'], ['extra']),
  'eval untrained': (['--mode=eval'], ['no checkpoints', 'train first']),
  'border': (
    ['--config.eval.border=8'],
    ['eval.border=8', 'nothing of data.image_size=16'],
  ),
  'folder': (
    ['--config.data.source=folder', '--config.data.path=/no/such'],
    ['/no/such', 'no such folder'],
  ),
  'sampler': (
    ['--config.sampler.name=dpm'],
    ["sampler.name='dpm'", "'ddpm', 'ddpm_posterior'"],
  ),
  'held out': (
    ['--config.data.eval_split=validation'],
    ["'validation'", 'train, eval'],
  ),
}
SPECIAL = {
  'no config file': (['--config=configs/nothing.py', '--workdir=x'], ['nothing.py']),
  'no config name': (
    ['--config=quickstrat', '--workdir=x'],
    ["'quickstrat'", 'imagenet_64_256', 'palette_256, quickstart; in cascades/: '],
  ),
  'no workdir': ([CONFIG], ['--workdir missing', '--help']),
  'nothing': ([], ['--config and --workdir missing', '--config=quickstart']),
  'workdir is a file': ([CONFIG, '--workdir=setup.py'], ['setup.py is a file']),
}


@pytest.mark.parametrize(
  ('name', 'every', 'said'),
  [
    ('fid', 5, r"keep_best='fid' must be one of '', 'psnr', 'ssim'"),
    ('psnr', 0, r'eval\.every_steps=0 to be a multiple of checkpoint\.every_steps=5'),
    ('psnr', 7, r'eval\.every_steps=7 to be a multiple'),
  ],
)
def test_keep_best_needs_a_metric_that_is_measured_at_every_checkpoint(
  name, every, said
):
  config = runs.get_config()
  config.checkpoint.keep_best, config.eval.every_steps = name, every
  with pytest.raises(ValueError, match=said):
    check_relations(config)
  config.checkpoint.keep_best, config.eval.every_steps = 'psnr', 10
  check_relations(config)


@pytest.fixture(scope='module')
def mistakes(tmp_path_factory):
  """Return the finished process of every mistake; two run at a time."""
  base = tmp_path_factory.mktemp('mistakes')
  broken = base / 'broken.py'
  broken.write_text('def get_config():\n  return 1 / 0\n')
  cases = {
    name: [CONFIG, f'--workdir={base / name}', '--cache=', *arguments]
    for name, (arguments, _) in MISTAKES.items()
  }
  cases |= {name: arguments for name, (arguments, _) in SPECIAL.items()}
  cases['broken config'] = [f'--config={broken}', f'--workdir={base / "b"}']
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    outcomes = pool.map(lambda arguments: run(*arguments), cases.values())
    return dict(zip(cases, outcomes, strict=True))


EXPECTED = {name: words for name, (_, words) in (MISTAKES | SPECIAL).items()}
EXPECTED['broken config'] = ['ZeroDivisionError', 'division by zero']


@pytest.mark.parametrize('name', EXPECTED)
def test_a_wrong_argument_is_an_error_of_one_line(mistakes, name):
  done = mistakes[name]
  assert done.returncode == 1, done.stderr
  *said, line = done.stderr.splitlines()
  assert line.startswith('error: '), line
  # Before it are only lines that say what is being done.
  assert not any(re.match('error|Traceback| ', words) for words in said), said
  assert len(line) < 600
  for word in EXPECTED[name]:
    assert word in line
  assert done.stdout == ''


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    ({'model.dtype': 'float31'}, ["model.dtype='float31'", "'float32', 'bfloat16'"]),
    ({'method': 'gan'}, ["method='gan'", "'sr3', 'regression'"]),
    ({'train.batch_size': 12}, ['train.batch_size=12', 'multiple of 8']),
    ({'train.accumulate': 2}, ['train.batch_size=8', 'multiple of 16']),
    ({'eval.batch_size': 9}, ['eval.batch_size=9', 'multiple of 8']),
    ({'data.image_size': 18}, ['data.image_size=18', 'task.scale=4']),
    (
      {'data.image_size': 20, 'model.patch': 8},
      ['data.image_size=20', 'multiple of 8', 'model.patch=8'],
    ),
    ({'eval.image_size': 22}, ['eval.image_size=22', 'task.scale=4']),
  ],
  ids=str,
)
def test_settings_that_do_not_fit_together_are_refused_before_compilation(
  change, words
):
  config = runs.get_config()
  training_run.check_training(config)
  config.update_from_flattened_dict(change)
  with runs.compilations() as compiled, pytest.raises(UserError) as error:
    training_run.check_training(config)
  assert 'jit(init)' not in compiled
  for word in words:
    assert word in str(error.value)


@pytest.mark.parametrize(
  'given', [['--config=quickstart'], ['-config=quickstart'], ['--config', 'quickstart']]
)
def test_a_configuration_is_found_by_its_name(given, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  found = main.with_config_path(
    ['sr3-train', '--workdir=config', *given, '--config.seed=1']
  )
  assert '='.join(found[2:-1]) == f'{given[0].partition("=")[0]}={QUICKSTART}'
  assert found[:2] + found[-1:] == ['sr3-train', '--workdir=config', '--config.seed=1']


def test_a_configuration_is_found_by_its_name_from_any_folder(tmp_path):
  done = subprocess.run(
    [
      *(sys.executable, '-m', 'sr3_jax.main', '--config=small/photo_x4'),
      *('--workdir=run', '--mode=eval', '--cache=', '--config.eval.networks=()'),
    ],
    cwd=tmp_path,
    env=os.environ | {'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
  )
  assert 'error: run: no checkpoints' in done.stderr, done.stderr


def test_a_wrong_init_from_is_refused_before_the_baseline_is_trained(tmp_path):
  config = runs.get_config()
  config.regression_steps, config.train.init_from = 2, str(tmp_path / 'nothing')
  with pytest.raises(hub.HubError, match='nothing: no model'):
    main.run(config, tmp_path / 'work', 'train')
  assert not (tmp_path / 'work').exists()


@pytest.mark.parametrize(
  ('key', 'value', 'wanted'),
  [
    ('eval.reference', 'nothing.npz', 'nothing.npz: no such file'),
    ('eval.classifier', 'nothing.onnx', 'nothing.onnx: no such file'),
    ('eval.regression', 'nothing', 'nothing: no model'),
    ('data.reduce', (64,), 'no held-out image could be read'),
  ],
)
def test_what_the_evaluation_cannot_use_is_refused_before_training(
  key, value, wanted, tmp_path
):
  config = runs.get_config()
  config.update_from_flattened_dict({key: value})
  with pytest.raises(UserError, match=wanted):
    main.run(config, tmp_path / 'work', 'train')
  assert not (tmp_path / 'work').exists()


# --------------------------------------------------------------------- a whole run


@pytest.fixture(scope='module')
def whole_run(compile_cache, tmp_path_factory):
  """Train half a run, then the rest of it, then call the program once more.

  Returns:
    The workdir, a function that calls the program again, and the three processes.
  """
  base = tmp_path_factory.mktemp('whole_run')
  for package in ('tensorflow', 'torch'):
    (base / 'path' / package).mkdir(parents=True)
    (base / 'path' / package / '__init__.py').write_text(TELLTALE)

  def call(*arguments):
    return run(
      CONFIG,
      f'--workdir={base / "work"}',
      f'--cache={compile_cache}',
      '--config.regression_steps=2',
      *arguments,
      PYTHONPATH=str(base / 'path'),
      TELLTALE=str(base / 'telltale'),
    )

  return base / 'work', call, [call('--config.train.num_steps=10'), call(), call()]


def test_training_reports_its_start_its_resumption_and_its_results(whole_run):
  workdir, _, (first, second, _) = whole_run
  assert first.returncode == 0, first.stderr
  assert second.returncode == 0, second.stderr
  assert 'Traceback' not in first.stderr + second.stderr
  assert re.search(r'sr3, 0\.0\dM parameters, 8 device\(s\)', first.stderr)
  assert 'step 10/10' in first.stderr
  assert 'resuming' not in first.stderr
  assert 'regression: already trained for 2 steps' in second.stderr
  assert 'resuming from step 10' in second.stderr
  assert 'config.train.num_steps was 10, is now 20' in second.stderr
  for name in ('bicubic', 'regression', 'sr3'):
    assert re.search(rf'^{name} +\d', second.stdout, re.MULTILINE)
  assert str(workdir / 'samples.png') in second.stdout


def test_a_run_writes_configuration_metrics_results_and_pictures(whole_run):
  workdir, _, _ = whole_run
  config = json.loads((workdir / 'config.json').read_text())
  assert config['train']['num_steps'] == 20
  lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').open()]
  steps = [line['step'] for line in lines if 'loss' in line]
  assert steps == [4, 5, 8, 10, 12, 15, 16, 20]
  assert [line['step'] for line in lines if 'eval_psnr' in line] == [5, 15]
  results = json.loads((workdir / 'results.json').read_text())
  assert results['step'] == 20
  assert list(results['table']) == ['bicubic', 'lanczos', 'regression', 'sr3']
  assert results['table']['sr3']['images'] == 13
  pictures = [workdir / 'samples.png', *(workdir / 'progress').iterdir()]
  assert [p.name for p in pictures[1:]].count('00000015.png') == 1
  for path in pictures:
    image = np.asarray(PIL.Image.open(path))
    assert image.std() > 10, path
  baseline = json.loads((workdir / 'regression' / 'config.json').read_text())
  assert baseline['method'] == 'regression'
  assert not list(workdir.rglob('*.part'))


def test_a_run_resumed_in_a_new_process_ends_with_the_weights_of_an_undisturbed_one(
  whole_run, trained
):
  workdir, _, _ = whole_run
  shapes = jax.eval_shape(lambda: trained.state.ema)
  step, ema = checkpoint.load_ema(workdir, shapes)
  assert step == 20
  jax.tree.map(np.testing.assert_array_equal, ema, trained.state.ema)


def test_a_finished_run_prints_its_results_again(whole_run):
  workdir, _, (_, second, third) = whole_run
  assert third.returncode == 0
  assert f'{workdir}: finished, 20 steps' in third.stdout
  assert 'compiling' not in third.stderr
  table = [line for line in second.stdout.splitlines() if line.startswith('sr3')]
  assert table[0] in third.stdout


def test_neither_tensorflow_nor_torch_is_imported(whole_run):
  workdir, _, _ = whole_run
  telltale = workdir.parent / 'telltale'
  assert not telltale.exists(), telltale.read_text()


def test_an_import_of_the_stand_in_is_recorded(whole_run):
  """Without this, the test above would prove nothing."""
  base = whole_run[0].parent
  environment = {'PYTHONPATH': str(base / 'path'), 'TELLTALE': str(base / 'other')}
  command = [sys.executable, '-c', 'import tensorflow']
  done = subprocess.run(command, env=os.environ | environment, capture_output=True)
  assert done.returncode
  assert (base / 'other').exists()


def contents(workdir) -> dict[str, bytes]:
  """Return what a run gave: files by name, those of other modes and logs left out."""
  own = (
    'samples.png',
    'results.json',
    'config.json',
    'report/**/*',
    'checkpoints/**/*',
  )
  files = (path for pattern in own for path in workdir.glob(pattern))
  return {str(p.relative_to(workdir)): p.read_bytes() for p in files if p.is_file()}


def test_eval_with_another_sampler_has_a_place_of_its_own(whole_run):
  workdir, call, _ = whole_run
  kept = contents(workdir)
  before = json.loads((workdir / 'results.json').read_text())
  done = call(
    '--mode=eval', '--config.sampler.name=ddim', '--config.sampler.num_steps=2'
  )
  assert done.returncode == 0, done.stderr
  place = workdir / 'evaluations' / 'sampler.name=ddim,sampler.num_steps=2'
  results = json.loads((place / 'results.json').read_text())
  assert (place / 'samples.png').exists() and (place / 'report/report.html').exists()
  assert str(place / 'report' / 'report.html') in done.stdout
  assert results['config']['sampler']['num_steps'] == 2
  assert results['table']['bicubic'] == before['table']['bicubic']
  assert results['table']['sr3'] != before['table']['sr3']
  assert contents(workdir) == kept
  again = call()
  assert again.returncode == 0, again.stderr
  assert again.stdout.startswith(f'{workdir}: finished, 20 steps; nothing left to do')


def test_sample_writes_inputs_truths_and_samples(whole_run):
  workdir, call, _ = whole_run
  kept = contents(workdir)
  done = call('--mode=sample')
  assert done.returncode == 0, done.stderr
  assert contents(workdir) == kept
  files = sorted(path.name for path in (workdir / 'samples').iterdir())
  names = ('0', '1', 'input', 'truth')
  assert files[:-1] == [f'{i:05d}_{name}.png' for i in range(2) for name in names]
  assert files[-1] == 'sheet.png'
  assert str(workdir / 'samples') in done.stdout


def test_sweep_writes_presets(whole_run):
  workdir, call, _ = whole_run
  options = ['--config.sweep.num_images=8', '--config.sweep.search_steps=0']
  done = call('--mode=sweep', '--config.sweep.num_steps=(1,2)', *options)
  assert done.returncode == 0, done.stderr
  assert 'sampling step' in done.stderr
  assert 'ddpm, 2 steps, time' in done.stdout
  presets = json.loads((workdir / 'presets.json').read_text())
  assert list(presets) == ['fast', 'balanced', 'best']
  assert (workdir / 'sweep.png').exists()


def test_a_changed_network_is_refused(whole_run):
  _, call, _ = whole_run
  for arguments in (['--mode=eval'], ['--config.train.num_steps=30']):
    done = call('--config.model.channels=12', *arguments)
    assert done.returncode == 1
    *lines, error = done.stderr.splitlines()
    assert error.startswith('error: ')
    assert 'another network' in error
    assert 'Traceback' not in ''.join(lines)
