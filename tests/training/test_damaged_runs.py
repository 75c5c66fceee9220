"""Damaged files of a run: one line each, and the run goes on."""

import json
import logging as python_logging
import os
import sys

import pytest

from sr3_jax import main as program
from sr3_jax.config import as_json
from sr3_jax.runtime import foreign_files, metrics_log, process_log
from sr3_jax.runtime.errors import UserError
from sr3_jax.training import run as training_run
from sr3_jax.training import train
from sr3_jax.weights import model_writer
from tests.support import file_damage, runs


def warnings(caplog) -> list[str]:
  found = [r.getMessage() for r in caplog.records if r.levelname == 'WARNING']
  assert all('\n' not in line and len(line) < 500 for line in found)
  return found


@pytest.fixture
def results(tmp_path):
  """Return results.json of a finished run in `tmp_path`."""
  config = runs.get_config()
  value = {
    'step': config.train.num_steps,
    'table': {'sr3': {'psnr': 25.0}},
    'config': as_json(config),
  }
  path = tmp_path / 'results.json'
  path.write_text(json.dumps(value))
  assert training_run.finished(config, tmp_path) == value
  return path


@pytest.mark.parametrize('text', ['{', '[]', '{}', '', '{"step": "a"}', 'null'])
def test_damaged_results_are_a_line_and_the_run_is_measured_again(
  results, text, caplog
):
  results.write_text(text)
  assert training_run.finished(runs.get_config(), results.parent) is None
  assert model_writer._results(results.parent, 20) is None
  again, left_out = warnings(caplog)
  assert str(results) in again and 'measured again' in again
  assert 'left out of the card' in left_out


@pytest.mark.parametrize('row', [[], {'psnr': 'high'}, {'psnr': None}, 3])
def test_results_whose_values_are_none_are_measured_again(results, row, caplog):
  value = json.loads(results.read_text())
  results.write_text(json.dumps(value | {'table': {'sr3': row}}))
  assert training_run.finished(runs.get_config(), results.parent) is None
  assert len(warnings(caplog)) == 1


@pytest.mark.parametrize('damage', file_damage.PLACE[1:], ids=lambda d: d.__name__)
def test_results_that_are_no_file_are_a_line(results, damage, caplog):
  damage(results)
  assert training_run.finished(runs.get_config(), results.parent) is None
  assert len(warnings(caplog)) == 1


def test_damaged_lines_of_metrics_are_passed_over(tmp_path):
  good = b'{"step": 1, "loss": 2.0, "images_per_second": 4.0}\n'
  odd = b'[]\n{"loss": 1}\n{"step": "1"}\n{"step": 2, "x": "\xff"\n3\n\xff\xfe\n{\n'
  bad_rate = b'{"step": 2, "images_per_second": "fast"}\n'
  path = tmp_path / 'metrics.jsonl'
  path.write_bytes(odd + good + odd + bad_rate + b'{"step": 3, "lo')
  assert [row['step'] for row in metrics_log.read_metrics(tmp_path)] == [1, 2]
  assert metrics_log.training_seconds(tmp_path, 8) == 2
  with metrics_log.MetricsWriter(tmp_path, resume_step=1) as writer:
    writer.write(2, loss=1.0)
  lines = path.read_bytes().splitlines()
  assert lines[0] + b'\n' == good and len(lines) == 2


@pytest.mark.parametrize('damage', [file_damage.pipe, file_damage.endless])
def test_metrics_and_configurations_that_are_no_file_are_a_line(
  tmp_path, damage, caplog
):
  for name in ('metrics.jsonl', 'config.json'):
    (tmp_path / name).write_bytes(b'')
    damage(tmp_path / name)
  with pytest.raises(UserError, match=r'metrics\.jsonl: a .*, should be a file'):
    metrics_log.read_metrics(tmp_path)
  with pytest.raises(UserError, match=r'metrics\.jsonl'):
    metrics_log.MetricsWriter(tmp_path)
  train.write_config(runs.get_config(), tmp_path)
  (line,) = warnings(caplog)
  assert 'config.json' in line and 'written anew' in line
  assert json.loads((tmp_path / 'config.json').read_text())


def test_a_pipe_in_place_of_a_log_holds_nothing_up(tmp_path):
  (tmp_path / 'logs').mkdir()
  os.mkfifo(tmp_path / 'logs' / 'process_00000.log')
  with process_log.in_workdir(tmp_path, make=True):
    python_logging.getLogger('absl').warning('goes on')


def test_addresses_that_cannot_be_reached_are_refused_by_their_flag(
  tmp_path, monkeypatch
):
  config = runs.get_config()
  config.eval.reference = 's3://bucket/statistics.npz'
  flags = type('Flags', (), {'workdir': str(tmp_path), 'config': config})
  monkeypatch.setattr(program, 'FLAGS', flags)
  with pytest.raises(SystemExit) as ended:
    program.check_places()
  assert str(ended.value.code).startswith('error: --config.eval.reference=s3://bucket')
  config.eval.reference = 'hf://owner/name'
  program.check_places()
  monkeypatch.setattr(foreign_files, '_has_gcsfs', lambda: False)
  flags.workdir = 'gs://bucket/run'
  with pytest.raises(SystemExit) as ended:
    program.check_places()
  assert '--workdir=gs://bucket/run: gs:// needs gcsfs: pip install' in str(ended.value)
  assert sys.stdout


def test_a_table_of_another_shape_is_a_line_that_names_the_file(results, caplog):
  value = json.loads(results.read_text())
  results.write_text(json.dumps(value | {'table': {'sr3': [1]}}))
  assert training_run.finished(runs.get_config(), results.parent) is None
  assert str(results) in warnings(caplog)[0]
