"""Tests of the notebooks: how they are stored, and that they run from top to bottom."""

import json
import pathlib
import re

import nbclient
import nbformat
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parents[2]
STEPS, EVALUATION = 'sr3_step_by_step', 'colab_evaluation'
COLAB = 'https://colab.research.google.com'


def read(name: str) -> nbformat.NotebookNode:
  return nbformat.read(ROOT / 'notebooks' / f'{name}.ipynb', nbformat.NO_CONVERT)


def execute(
  name: str, work: pathlib.Path, cache: pathlib.Path, wanted: str, **environment: str
) -> dict:
  """Run a notebook with its fast settings and return the value of an expression.

  Args:
    name: name of the notebook.
    work: the empty folder in which it runs.
    cache: folder of compiled programs.
    wanted: a Python expression that is evaluated after the last cell.
    **environment: more environment variables.
  """
  notebook = read(name)
  last = nbformat.v4.new_code_cell(f'import json\nprint(json.dumps({wanted}))')
  notebook.cells.append(last)
  environment |= {
    'SR3_NOTEBOOK_FAST': '1',
    'PYTHONPATH': str(ROOT),
    'JAX_COMPILATION_CACHE_DIR': str(cache),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'IPYTHONDIR': str(work.parent / 'ipython'),
  }
  resources = {'metadata': {'path': str(work)}}
  with pytest.MonkeyPatch.context() as patch:
    for key, value in environment.items():
      patch.setenv(key, value)
    nbclient.NotebookClient(notebook, timeout=900, resources=resources).execute()
  return json.loads(last.outputs[0].text)


# ------------------------------------------------------------------ how they are stored


def test_all_notebooks_are_tested():
  found = {path.stem for path in (ROOT / 'notebooks').rglob('*.ipynb')}
  assert found == {STEPS, EVALUATION}


@pytest.mark.parametrize('name', [STEPS, EVALUATION])
def test_a_notebook_is_stored_without_outputs(name):
  notebook = read(name)
  nbformat.validate(notebook)
  assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
  assert notebook.metadata == {
    'kernelspec': {
      'display_name': 'Python 3',
      'language': 'python',
      'name': 'python3',
    },
    'language_info': {'name': 'python'},
  }
  names = [cell.id for cell in notebook.cells]
  assert len(set(names)) == len(names)
  for cell in notebook.cells:
    assert re.fullmatch('[a-z]+(-[a-z]+)*', cell.id), 'names of cells are words'
    assert not cell.metadata
    if cell.cell_type == 'code':
      assert not cell.outputs
      assert cell.execution_count is None


@pytest.mark.parametrize('name', [STEPS, EVALUATION])
def test_links_exist_and_there_are_no_absolute_paths(name):
  notebook = read(name)
  text = '\n'.join(cell.source for cell in notebook.cells)
  link = f'{COLAB}/github/sr3-jax/sr3_jax/blob/main/notebooks/{name}.ipynb'
  badge = f'[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({link})'
  assert badge in notebook.cells[0].source
  # Linked files of this repository exist.
  for path in re.findall(r'sr3-jax/sr3_jax/blob/main/([\w./-]+)', text):
    assert (ROOT / path).is_file(), path
  local = re.sub(r'\w+://[^\s)\'"]+', '', text)
  assert not re.findall(r'(?<![\w.<{)}*\]])/[A-Za-z_]\w*', local), 'absolute paths'
  assert not re.findall(r'\b[A-Z]:\\', local)


# ------------------------------------------------------------------- what they compute


def test_sr3_step_by_step_computes_what_its_text_says(compile_cache, tmp_path):
  work = tmp_path / 'work'
  work.mkdir()
  found = execute(
    STEPS,
    work,
    compile_cache,
    """{
      'largest_difference_of_small': float(difference),
      'untrained': float(np.mean(untrained)),
      'trained': float(np.mean(trained)),
      'from_restore': restore_difference,
      'steps': SAMPLING_STEPS,
      'edge': [float(one), float(mean)],
      'errors': errors.tolist(),
      'details': {name: score[1] for name, score in scores.items()},
      'by_steps': {name: [row[1] for row in rows] for name, rows in comparison.items()},
      'cascade': [list(first.shape[1:]), list(second[0].shape)],
    }""",
  )
  # The large pictures differ, and their downsampled pictures are equal.
  assert found['largest_difference_of_small'] < 0.5
  assert found['trained'] < 0.95 * found['untrained']
  # The loop of the notebook gives the same pictures as model.restore.
  assert found['from_restore'] < 1e-4
  with Image.open(work / 'sr3_step_by_step' / 'reverse.gif') as animation:
    assert animation.n_frames == found['steps'] + 1
  one, mean = found['edge']
  assert one == pytest.approx(2 * mean)
  # Averaging samples lowers the error and the detail.
  assert found['errors'] == sorted(found['errors'], reverse=True)
  details = found['details']
  assert details['SR3, mean of 8'] < 0.5 * details['SR3, one sample']
  # After one step both samplers give the first prediction.
  ddpm, dpmpp = found['by_steps'].values()
  assert ddpm[0] == pytest.approx(dpmpp[0], abs=1e-3)
  assert ddpm[0] > ddpm[-1]
  assert found['cascade'] == [[32, 32, 3], [128, 128, 3]]


@pytest.mark.slow
def test_colab_evaluation_writes_a_report(compile_cache, tmp_path):
  work, home = tmp_path / 'work', tmp_path / 'home'
  work.mkdir()
  # Commands cache compiled programs below the home folder; this shares them with tests.
  cache = home / '.cache' / 'sr3_jax'
  cache.mkdir(parents=True)
  (cache / 'xla').symlink_to(compile_cache, target_is_directory=True)
  found = execute(
    EVALUATION,
    work,
    compile_cache,
    """{
      'images': report['images'],
      'methods': methods,
      'rows': len(lines) - 2,
      'metrics': len(report['metrics']),
      'psnr': {name: report['table'][name]['psnr']['value'] for name in methods},
      'page': len(page),
    }""",
    HOME=str(home),
  )
  assert found['images'] == 6
  assert {'bicubic', 'sr3'} <= set(found['methods'])
  assert found['rows'] == found['metrics'] > 4
  # The network, trained for four steps, adds noise to upsampled photographs.
  assert all(10 < value < 45 for value in found['psnr'].values())
  folder = work / 'evaluation'
  with Image.open(folder / 'large' / 'picture_out_compare.png') as sheet:
    assert min(sheet.size) > 100
  report = json.loads((folder / 'tiny_run' / 'report' / 'report.json').read_text())
  assert report['table'].keys() == set(found['methods'])
  assert (folder / 'report.zip').stat().st_size > 10_000
  assert found['page'] > 10_000
