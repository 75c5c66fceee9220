"""Tests of loggers, whose files are read back by other means than they are written.

TensorBoard's own reader reads events where it is installed. Everywhere they are taken
out of their records by hand, as are the records of Weights & Biases.
"""

import io
import json
import os
import struct
import sys
import types

import numpy as np
import pytest
from absl import logging
from PIL import Image

from sr3_jax.runtime import loggers, metrics_log
from sr3_jax.runtime.errors import UserError
from sr3_jax.runtime.loggers import Settings
from sr3_jax.training import run as training_run
from sr3_jax.training import train
from tests.support import runs

RED = np.zeros((4, 6, 3), np.uint8) + np.array([200, 0, 0], np.uint8)


@pytest.fixture
def warnings(monkeypatch):
  lines = []
  monkeypatch.setattr(logging, 'warning', lambda text, *a: lines.append(text % a))
  return lines


def steps(workdir):
  return [row['step'] for row in metrics_log.read_metrics(workdir)]


def write(workdir, settings, *, resume_step=None, first=1, last=3, factor=1.0):
  with metrics_log.MetricsWriter(
    workdir, resume_step=resume_step, settings=settings
  ) as writer:
    for step in range(first, last + 1):
      writer.write(step * 10, loss=factor / step, bad=float('nan'))
    writer.write_image(last * 10, 'samples', RED)


# ---------------------------------------------------------------------- TensorBoard

EVENTS = Settings(('tensorboard',))


def events(workdir):
  """Return the events of all files in order: records are length, CRC, bytes, CRC."""
  event_pb2 = pytest.importorskip('tensorboardX.proto.event_pb2')
  found = []
  for path in sorted((workdir / 'tensorboard').iterdir(), key=os.path.getmtime):
    data, at = path.read_bytes(), 0
    while at < len(data):
      (length,) = struct.unpack_from('<Q', data, at)
      found.append(event_pb2.Event.FromString(data[at + 12 : at + 12 + length]))
      at += 16 + length
    assert at == len(data)
  return found


def values(workdir):
  return [(e.step, v) for e in events(workdir) for v in e.summary.value]


def test_tensorboard_gets_scalars_and_images(tmp_path):
  pytest.importorskip('tensorboardX')
  write(tmp_path, EVENTS)
  found = values(tmp_path)
  losses = [(step, v.simple_value) for step, v in found if v.tag == 'loss']
  assert [step for step, _ in losses] == [10, 20, 30]
  assert [loss for _, loss in losses] == pytest.approx([1, 0.5, 1 / 3])
  assert {v.tag for _, v in found} == {'loss', 'samples'}
  ((step, image),) = [(s, v.image) for s, v in found if v.tag == 'samples']
  shown = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))
  assert step == 30 and (image.height, image.width) == (4, 6)
  np.testing.assert_array_equal(shown, RED)
  assert steps(tmp_path) == [10, 20, 30]


def test_events_are_there_as_soon_as_they_are_written(tmp_path):
  pytest.importorskip('tensorboardX')
  with metrics_log.MetricsWriter(tmp_path, settings=EVENTS) as writer:
    writer.write(7, loss=1)
    assert [step for step, _ in values(tmp_path)] == [7]


def test_a_resumed_run_goes_on_in_the_same_folder(tmp_path):
  pytest.importorskip('tensorboardX')
  write(tmp_path, EVENTS)
  write(tmp_path, EVENTS, resume_step=20, first=3, last=4, factor=5.0)
  starts = [e for e in events(tmp_path) if e.HasField('session_log')]
  assert [(e.step, e.session_log.status) for e in starts] == [(21, 1)]
  accumulator = pytest.importorskip(
    'tensorboard.backend.event_processing.event_accumulator'
  )
  read = accumulator.EventAccumulator(os.fspath(tmp_path / 'tensorboard')).Reload()
  # What the first start wrote of step 30 is not shown.
  shown = {e.step: e.value for e in read.Scalars('loss')}
  assert shown == pytest.approx({10: 1, 20: 0.5, 30: 5 / 3, 40: 1.25})
  assert [e.step for e in read.Images('samples')] == [40]


def test_grey_samples_are_shown_too(tmp_path):
  pytest.importorskip('tensorboardX')
  with metrics_log.MetricsWriter(tmp_path, settings=EVENTS) as writer:
    writer.write_image(1, 'grey', RED[..., :1])
  ((_, value),) = values(tmp_path)
  shown = Image.open(io.BytesIO(value.image.encoded_image_string)).convert('L')
  np.testing.assert_array_equal(np.asarray(shown), RED[..., 0])


def test_a_full_disk_is_one_warning(tmp_path, monkeypatch, warnings):
  pytest.importorskip('tensorboardX')
  from tensorboardX import record_writer

  def full(*_):
    raise OSError(28, 'No space left on device')

  with metrics_log.MetricsWriter(tmp_path, settings=EVENTS) as writer:
    writer.write(1, loss=1)
    monkeypatch.setattr(record_writer.RecordWriter, 'write', full)
    for step in range(2, 40):
      writer.write(step, loss=1)
      writer.write_image(step, 'samples', RED)
  assert steps(tmp_path) == [*range(1, 40)]
  (line,) = warnings
  assert 'tensorboard failed and is given up: [Errno 28] No space left' in line


def test_a_place_that_cannot_be_written_is_one_warning(tmp_path, warnings):
  (tmp_path / 'tensorboard').write_text('a file')
  write(tmp_path, EVENTS)
  assert steps(tmp_path) == [10, 20, 30] and len(warnings) == 1


@pytest.mark.parametrize('place', ['bucket', 'no tensorboardX'])
def test_clu_writes_where_tensorboardx_cannot(tmp_path, monkeypatch, place):
  calls = []

  class SummaryWriter:
    def __init__(self, folder):
      calls.append(('open', folder))

    def __getattr__(self, name):
      return lambda *args: calls.append((name, *args))

  module = types.ModuleType('clu.metric_writers')
  module.SummaryWriter = SummaryWriter
  monkeypatch.setitem(sys.modules, 'clu.metric_writers', module)
  monkeypatch.setattr('clu.metric_writers', module, raising=False)
  folder = tmp_path / 'run'
  if place == 'bucket':
    folder = loggers.epath.Path('gs://bucket/run')
  else:
    monkeypatch.setitem(sys.modules, 'tensorboardX', None)
  writers = loggers.Loggers(folder, EVENTS, 3)
  writers.scalars(5, {'loss': 0.5})
  writers.image(5, 'grid', RED)
  writers.flush()
  writers.close()
  (_, shown), (_, step, named) = calls[0], calls[2]
  assert shown == os.fspath(folder / 'tensorboard')
  assert calls[1] == ('write_scalars', 5, {'loss': 0.5})
  assert step == 5 and named['grid'].shape == (1, 4, 6, 3)
  assert [call[0] for call in calls[3:]] == ['flush', 'close']


# ------------------------------------------------------------------ Weights & Biases

WANDB = Settings(('wandb',), 'flowers', '', 'first try', {'train': {'steps': 7}})
_BLOCK = 2**15


def wandb_records(path):
  """Yield the records of a .wandb file: LevelDB's log format, after 7 bytes."""
  from wandb.proto import wandb_internal_pb2

  data, at, parts = path.read_bytes(), 7, b''
  while at + 7 <= len(data):
    if _BLOCK - at % _BLOCK < 7:
      at += _BLOCK - at % _BLOCK
      continue
    length, kind = struct.unpack_from('<HB', data, at + 4)
    parts += data[at + 7 : at + 7 + length]
    at += 7 + length
    if kind in (1, 4):  # whole, last
      yield wandb_internal_pb2.Record.FromString(parts)
      parts = b''


def wandb_history(folder):
  """Return id, name and project of a stored run, its options, and its rows."""
  rows, run = [], None
  for record in wandb_records(next(folder.glob('*.wandb'))):
    if record.WhichOneof('record_type') == 'run':
      run = record.run
    if record.WhichOneof('record_type') == 'history':
      items = record.history.item
      keys = [item.key or '.'.join(item.nested_key) for item in items]
      values = [json.loads(item.value_json) for item in items]
      rows.append(dict(zip(keys, values, strict=True)))
  options = {item.key: json.loads(item.value_json) for item in run.config.update}
  return (run.run_id, run.display_name, run.project), options, rows


@pytest.fixture
def offline(monkeypatch):
  wandb = pytest.importorskip('wandb')
  monkeypatch.setenv('WANDB_MODE', 'offline')
  monkeypatch.setenv('WANDB_SILENT', 'true')
  yield
  wandb.teardown()


def test_weights_and_biases_gets_scalars_images_and_options(tmp_path, offline):
  write(tmp_path, WANDB)
  write(tmp_path, WANDB, resume_step=30, first=4, last=5)
  first, second = sorted(
    (tmp_path / 'wandb').glob('offline-run-*'), key=os.path.getmtime
  )
  about, options, rows = wandb_history(first)
  assert about[1:] == ('first try', 'flowers')
  assert options['train'] == {'steps': 7}
  losses = {row['_step']: row['loss'] for row in rows if 'loss' in row}
  assert losses == pytest.approx({10: 1, 20: 0.5, 30: 1 / 3})
  assert not any('bad' in row for row in rows)
  (image,) = [row for row in rows if any('samples' in key for key in row)]
  assert image['_step'] == 30
  (file,) = first.glob('files/media/images/samples*.png')
  np.testing.assert_array_equal(np.asarray(Image.open(file)), RED)
  # A resumed run is the same run.
  again, _, rows = wandb_history(second)
  assert again == about
  assert again[0] == json.loads((tmp_path / 'wandb.json').read_text())['id']
  assert [row['_step'] for row in rows if 'loss' in row] == [40, 50]


def fake_wandb(monkeypatch, **parts):
  module = types.ModuleType('wandb')
  module.Settings = module.Image = lambda *args, **options: options
  for name, part in parts.items():
    setattr(module, name, part)
  monkeypatch.setitem(sys.modules, 'wandb', module)


def test_steps_that_weights_and_biases_has_are_not_sent_twice(tmp_path, monkeypatch):
  sent, asked = [], {}

  class Run:
    step, offline, url = 31, False, 'https://example.org'

    def log(self, values, step):
      sent.append(step)

    def finish(self):
      sent.append('finish')

  def init(**options):
    asked.update(options)
    return Run()

  fake_wandb(monkeypatch, init=init)
  settings = WANDB._replace(name='', entity='team')
  write(tmp_path / 'runs' / 'mine', settings, resume_step=20, first=3, last=5)
  assert sent == [40, 50, 50, 'finish']
  assert (asked['name'], asked['entity'], asked['resume']) == (
    'runs/mine',
    'team',
    'allow',
  )


def test_a_network_that_fails_is_one_warning(tmp_path, monkeypatch, warnings):
  def init(**_):
    raise ConnectionError('no route\nto host')

  fake_wandb(monkeypatch, init=init)
  write(tmp_path, WANDB)
  assert steps(tmp_path) == [10, 20, 30]
  (line,) = warnings
  assert 'wandb failed and is given up: no route; training goes on' in line


def test_one_that_fails_does_not_stop_the_other(tmp_path, monkeypatch, warnings):
  pytest.importorskip('tensorboardX')
  fake_wandb(monkeypatch)  # without init
  write(tmp_path, WANDB._replace(writers=('tensorboard', 'wandb')))
  assert len(values(tmp_path)) == 4 and len(warnings) == 1


def test_a_damaged_id_is_replaced(tmp_path):
  path = loggers.epath.Path(tmp_path / 'wandb.json')
  path.write_text('{"id": 3')
  first = loggers._wandb_id(path)
  assert len(first) == 8 and loggers._wandb_id(path) == first


# ------------------------------------------------------------------------- options


@pytest.mark.parametrize(
  ('option', 'modules', 'extra'),
  [
    ({'log.writers': ('wandb',)}, ['wandb'], 'wandb'),
    ({'log.writers': ('tensorboard',)}, ['tensorboardX', 'tensorflow'], 'tensorboard'),
    ({'train.tensorboard': True}, ['tensorboardX', 'tensorflow'], 'tensorboard'),
  ],
)
def test_a_missing_library_is_one_line_before_anything_else(
  monkeypatch, tmp_path, option, modules, extra
):
  for module in modules:
    monkeypatch.setitem(sys.modules, module, None)
  c = runs.get_config()
  c.update_from_flattened_dict(option)
  message = rf"log.writers: '{extra}' .*pip install 'sr3_jax\[{extra}\]'$"
  with pytest.raises(UserError, match=message):
    training_run.train_run(c, tmp_path)
  assert not any(tmp_path.iterdir())


def test_the_baseline_is_a_run_of_its_own():
  c = runs.get_config()
  c.log.writers, c.log.name, c.train.tensorboard = ('wandb',), 'mine', True
  assert train.log_settings(c).writers == ('tensorboard', 'wandb')
  assert train.log_settings(train.regression_config(c)).name == 'mine regression'


def test_figures_and_samples_of_the_final_evaluation_are_sent(tmp_path):
  pytest.importorskip('tensorboardX')
  c = runs.get_config()
  c.log.writers = ('tensorboard',)
  Image.fromarray(RED).save(tmp_path / 'samples.png')
  table = {'sr3': {'psnr': 23.5, 'fid': float('nan')}, 'bicubic': {'psnr': 20.0}}
  training_run.log_results(c, loggers.epath.Path(tmp_path), table)
  last = c.train.num_steps + 1
  (step, value), (image_step, image) = values(tmp_path)
  assert (step, value.tag, value.simple_value) == (last, 'final_psnr', 23.5)
  assert (image_step, image.tag) == (last, 'final_samples')
