"""The program through its real entry point, in processes of its own."""

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
from sr3_jax.runtime.errors import UserError
from sr3_jax.training import run as training_run
from sr3_jax.weights import checkpoint, hub
from tests.support import runs

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = '--config=tests/support/runs.py'
FOUND = ROOT / 'configs' / 'quickstart.py'

# Stands in for packages that the program must not import, and tells who did.
TELLTALE = """
import os, traceback
with open(os.environ['TELLTALE'], 'a') as file:
  file.write(''.join(traceback.format_stack()))
raise ImportError('a telltale of test_main.py')
"""


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
  """Runs the program on eight devices, as conftest.py sets them."""
  return subprocess.run(
    [sys.executable, '-m', 'sr3_jax.main', *arguments],
    cwd=ROOT,
    env=os.environ | environment,
    capture_output=True,
    text=True,
  )


# ------------------------------------------------------------------------- errors

# Arguments after --config and --workdir -> what the line must hold.
MISTAKES = {
  'key': (
    ['--config.train.num_stps=5'],
    ['train.num_stps', 'num_steps, profile, tensorboard'],
  ),
  'type': (['--config.train.num_steps=many'], ['num_steps', 'many']),
  'mode': (['--mode=trian'], ['mode', 'train|eval|sample|sweep']),
  'argument': (['extra'], ['extra']),
  'eval untrained': (['--mode=eval'], ['no checkpoints', 'train first']),
  'border': (['--config.eval.border=8'], ['eval.border=8', 'nothing of 16']),
  'folder': (
    ['--config.data.source=folder', '--config.data.path=/no/such'],
    ['/no/such', 'no such folder'],
  ),
  'sampler': (['--config.sampler.name=dpm'], ["'dpm'", 'ddpm, ddpm_posterior']),
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
  'no workdir': ([CONFIG], ['workdir']),
}


@pytest.mark.parametrize(
  ('name', 'every', 'said'),
  [
    ('fid', 5, r"no metric 'fid' .* only psnr, ssim"),
    ('psnr', 0, r'eval\.every_steps=0 to be a multiple of checkpoint\.every_steps=5'),
    ('psnr', 7, r'eval\.every_steps=7 to be a multiple'),
  ],
)
def test_the_best_checkpoint_must_be_known(name, every, said):
  config = runs.get_config()
  config.checkpoint.keep_best, config.eval.every_steps = name, every
  with pytest.raises(ValueError, match=said):
    training_run.check_retention(config)
  config.checkpoint.keep_best, config.eval.every_steps = 'psnr', 10
  training_run.check_retention(config)


@pytest.fixture(scope='module')
def mistakes(tmp_path_factory):
  """Every mistake's outcome; two at a time, for most of it is imports."""
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
def test_a_mistake_is_one_line(mistakes, name):
  done = mistakes[name]
  assert done.returncode == 1, done.stderr
  (line,) = done.stderr.splitlines()
  assert line.startswith('error: '), line
  assert len(line) < 600
  for word in EXPECTED[name]:
    assert word in line
  assert done.stdout == ''


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    ({'model.dtype': 'float31'}, ["'float31'", 'float32, bfloat16']),
    ({'method': 'gan'}, ["'gan'", 'sr3, regression']),
    ({'train.batch_size': 12}, ['batch of 12', 'multiple of 8']),
    ({'train.accumulate': 2}, ['batch of 8', 'multiple of 16']),
    ({'eval.batch_size': 9}, ['batch of 9', 'multiple of 8']),
    ({'data.image_size': 18}, ['18 x 18', '4x smaller']),
    ({'data.image_size': 20, 'model.patch': 8}, ['multiples of 8', '20 x 20']),
    ({'eval.image_size': 22}, ['22 x 22', '4x smaller']),
  ],
  ids=str,
)
def test_what_does_not_fit_together_is_refused_at_once(change, words):
  config = runs.get_config()
  training_run.check_training(config)
  config.update_from_flattened_dict(change)
  with runs.compilations() as compiled, pytest.raises(UserError) as error:
    training_run.check_training(config)
  assert 'jit(init)' not in compiled
  for word in words:
    assert word in str(error.value)


@pytest.mark.parametrize(
  ('name', 'words'),
  [
    ('trian.num_steps', ['config.trian', 'task, train']),
    ('seed.a', ['config.seed.a', 'a value']),
    ('model.depth', ['config.model.depth', 'channels, dropout']),
  ],
)
def test_an_unknown_key_is_answered_with_the_known_ones(name, words):
  main.check_key('train.num_steps')
  with pytest.raises(SystemExit) as error:
    main.check_key(name)
  for word in words:
    assert word in str(error.value)


@pytest.mark.parametrize(
  'given', [['--config=quickstart'], ['-config=quickstart'], ['--config', 'quickstart']]
)
def test_a_configuration_is_found_by_its_name(given, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  found = main.with_paths(['sr3-train', '--workdir=config', *given, '--config.seed=1'])
  assert '='.join(found[2:-1]) == f'{given[0].partition("=")[0]}={FOUND}'
  assert found[:2] + found[-1:] == ['sr3-train', '--workdir=config', '--config.seed=1']


def test_a_name_works_from_any_folder(tmp_path):
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
  assert done.stderr.startswith('error: run: no checkpoints'), done.stderr


@pytest.mark.parametrize('flag', ['--help', '-h', '--helpfull'])
def test_help_is_instant(flag):
  """Neither JAX nor NumPy is imported for it, and it is no error."""
  code = (
    'import sys\n'
    'from sr3_jax import main\n'
    'try: main.parse_flags(["sr3-train", "--config=nowhere.py", sys.argv[1]])\n'
    'except SystemExit as stop: print("ended with", stop.code)\n'
    'print(sorted({"jax", "numpy", "PIL", "flax"} & set(sys.modules)))'
  )
  done = subprocess.run(
    [sys.executable, '-c', code, flag], cwd=ROOT, capture_output=True, text=True
  )
  assert done.stderr == ''
  assert done.stdout.endswith('ended with 0\n[]\n')
  for name in main.OURS:
    assert f'\n--{name}' in done.stdout


def test_a_wrong_start_is_refused_before_the_baseline_is_trained(tmp_path):
  config = runs.get_config()
  config.regression_steps, config.train.init_from = 2, str(tmp_path / 'nothing')
  with pytest.raises(hub.HubError, match='nothing: no model'):
    main.run(config, tmp_path / 'work', 'train')
  assert not (tmp_path / 'work').exists()


@pytest.mark.parametrize(
  ('method', 'trained'),
  [('sr3', ['work/regression', 'work']), ('regression', ['work'])],
)
def test_a_baseline_has_no_baseline(tmp_path, monkeypatch, method, trained):
  """`--config.method=regression` of a configuration that trains one first."""
  config, done = runs.get_config(), []
  config.method, config.regression_steps = method, 2
  note = lambda config, workdir: done.append(str(workdir.relative_to(tmp_path)))
  monkeypatch.setattr(training_run.train, 'train', note)
  monkeypatch.setattr(training_run, 'evaluate_run', lambda config, workdir: None)
  main.run(config, tmp_path / 'work', 'train')
  assert done == trained


# --------------------------------------------------------------------- a whole run


@pytest.fixture(scope='module')
def story(compile_cache, tmp_path_factory):
  """Workdir and outcomes of: half a run, the rest of it, and the same once more."""
  base = tmp_path_factory.mktemp('story')
  for package in ('tensorflow', 'torch'):
    (base / 'path' / package).mkdir(parents=True)
    (base / 'path' / package / '__init__.py').write_text(TELLTALE)
  go = lambda *arguments: run(
    CONFIG,
    f'--workdir={base / "work"}',
    f'--cache={compile_cache}',
    '--config.regression_steps=2',
    *arguments,
    PYTHONPATH=str(base / 'path'),
    TELLTALE=str(base / 'telltale'),
  )
  return base / 'work', go, [go('--config.train.num_steps=10'), go(), go()]


def test_training_runs_and_says_what_it_does(story):
  workdir, _, (first, second, _) = story
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


def test_everything_promised_is_there(story):
  workdir, _, _ = story
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


def test_two_processes_end_where_one_run_ends(story, trained):
  """Resumed by the same command in a new process: the same averaged weights."""
  workdir, _, _ = story
  shapes = jax.eval_shape(lambda: trained.state.ema)
  step, ema = checkpoint.load_ema(workdir, shapes)
  assert step == 20
  jax.tree.map(np.testing.assert_array_equal, ema, trained.state.ema)


def test_a_finished_run_says_so(story):
  workdir, _, (_, second, third) = story
  assert third.returncode == 0
  assert f'{workdir}: finished, 20 steps' in third.stdout
  assert 'compiling' not in third.stderr
  table = [line for line in second.stdout.splitlines() if line.startswith('sr3')]
  assert table[0] in third.stdout


def test_neither_tensorflow_nor_torch_is_imported(story):
  workdir, _, _ = story
  telltale = workdir.parent / 'telltale'
  assert not telltale.exists(), telltale.read_text()


def test_the_telltale_tells(story):
  """Else the test above proves nothing."""
  base = story[0].parent
  environment = {'PYTHONPATH': str(base / 'path'), 'TELLTALE': str(base / 'other')}
  command = [sys.executable, '-c', 'import tensorflow']
  done = subprocess.run(command, env=os.environ | environment, capture_output=True)
  assert done.returncode
  assert (base / 'other').exists()


def test_eval_takes_another_sampler_and_training_notices(story):
  workdir, go, (_, second, _) = story
  before = json.loads((workdir / 'results.json').read_text())
  done = go('--mode=eval', '--config.sampler.name=ddim', '--config.sampler.num_steps=2')
  assert done.returncode == 0, done.stderr
  results = json.loads((workdir / 'results.json').read_text())
  assert results['config']['sampler']['num_steps'] == 2
  assert results['table']['bicubic'] == before['table']['bicubic']
  assert results['table']['sr3'] != before['table']['sr3']
  # Those were not the results of this configuration: it measures again.
  again = go()
  assert again.returncode == 0, again.stderr
  assert f'{workdir}: already trained for 20 steps' in again.stderr
  assert json.loads((workdir / 'results.json').read_text()) == before
  assert again.stdout == second.stdout


def test_sample_writes_files(story):
  workdir, go, _ = story
  done = go('--mode=sample')
  assert done.returncode == 0, done.stderr
  files = sorted(path.name for path in (workdir / 'samples').iterdir())
  names = ('0', '1', 'input', 'truth')
  assert files == [f'{i:05d}_{name}.png' for i in range(2) for name in names]
  assert str(workdir / 'samples') in done.stdout


def test_sweep_writes_presets(story):
  workdir, go, _ = story
  less = ['--config.sweep.num_images=8', '--config.sweep.search_steps=0']
  done = go('--mode=sweep', '--config.sweep.num_steps=(1,2)', *less)
  assert done.returncode == 0, done.stderr
  assert 'sampling step' in done.stderr
  assert 'ddpm, 2 steps, time' in done.stdout
  presets = json.loads((workdir / 'presets.json').read_text())
  assert list(presets) == ['fast', 'balanced', 'best']
  assert (workdir / 'sweep.png').exists()


def test_a_changed_network_is_refused(story):
  _, go, _ = story
  for arguments in (['--mode=eval'], ['--config.train.num_steps=30']):
    done = go('--config.model.channels=12', *arguments)
    assert done.returncode == 1
    *lines, error = done.stderr.splitlines()
    assert error.startswith('error: ')
    assert 'another network' in error
    assert all(re.match(r'\d\d:\d\d:\d\d ', line) for line in lines)


@pytest.mark.slow
def test_kill_loop():
  command = [sys.executable, 'tests/system/kill_loop.py', '--kills=5', '--seed=1']
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert 'bit for bit' in done.stdout
