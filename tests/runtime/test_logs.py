"""Tests of metrics.jsonl and the progress line."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import textwrap

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from sr3_jax.runtime import metrics_log
from sr3_jax.runtime.loggers import Settings
from sr3_jax.runtime.progress import Progress, Throughput, duration


def read(workdir):
  """Return the records of metrics.jsonl, which has to be strict JSON."""
  text = (epath.Path(workdir) / 'metrics.jsonl').read_text()
  assert not text or text.endswith('\n')

  def refuse(constant):
    raise ValueError(f'{constant} is not JSON')

  return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def steps(workdir):
  return [record['step'] for record in read(workdir)]


class Clock:
  """A clock that a test sets."""

  def __init__(self):
    self.now = 1000.0

  def __call__(self):
    return self.now


class Terminal(io.StringIO):
  """A stream that says it is a terminal."""

  def isatty(self):
    return True


def test_a_line_is_json_and_is_written_at_once(tmp_path):
  writer = metrics_log.MetricsWriter(tmp_path / 'new' / 'run')
  writer.write(3, loss=jnp.float32(0.1), images=12_800_000, **{'psnr/sr3': 23.5})
  (record,) = read(tmp_path / 'new' / 'run')  # not closed, not flushed
  assert record.pop('time') > 1.7e9
  assert record == {'step': 3, 'loss': 0.1, 'images': 12_800_000, 'psnr/sr3': 23.5}


def test_values_that_are_not_finite_become_null_and_others_are_rounded(tmp_path):
  with metrics_log.MetricsWriter(tmp_path) as writer:
    writer.write(1, a=float('nan'), b=np.float32('inf'), c=1 / 3, d=1e-9 / 3)
  (record,) = read(tmp_path)
  assert [record[k] for k in 'abcd'] == [None, None, 0.3333333, 3.333333e-10]


def test_a_scalar_cannot_replace_step_and_time(tmp_path):
  with metrics_log.MetricsWriter(tmp_path) as writer:
    writer.write(1, step=7, time=7)
  assert read(tmp_path)[0]['step'] == 1
  assert read(tmp_path)[0]['time'] > 1.7e9


def test_resume_drops_lines_that_will_be_written_again(tmp_path):
  with metrics_log.MetricsWriter(tmp_path) as writer:
    for step in (10, 20, 30, 40):
      writer.write(step, loss=1)
  with metrics_log.MetricsWriter(tmp_path, resume_step=20) as writer:
    assert steps(tmp_path) == [10, 20]
    for step in (30, 40, 50):
      writer.write(step, loss=2)
  assert [r['loss'] for r in read(tmp_path)] == [1, 1, 2, 2, 2]
  assert steps(tmp_path) == [10, 20, 30, 40, 50]
  assert [p.name for p in tmp_path.iterdir()] == ['metrics.jsonl']
  with metrics_log.MetricsWriter(tmp_path) as writer:  # evaluation afterwards
    writer.write(50, psnr=20)
  assert steps(tmp_path) == [10, 20, 30, 40, 50, 50]


@pytest.mark.parametrize('resume_step', [None, 100])
def test_every_torn_last_line_is_dropped(tmp_path, resume_step):
  with metrics_log.MetricsWriter(tmp_path) as writer:
    writer.write(1, loss=1)
    writer.write(2, psnr=123)
  path = tmp_path / 'metrics.jsonl'
  whole = path.read_bytes()
  first = whole.index(b'\n') + 1
  for end in range(first, len(whole)):
    path.write_bytes(whole[:end])
    with metrics_log.MetricsWriter(tmp_path, resume_step=resume_step) as writer:
      writer.write(3, loss=1)
    assert steps(tmp_path) == [1, 3]


def test_a_file_of_a_killed_process_can_be_continued(tmp_path):
  program = f"""
    from sr3_jax.runtime import metrics_log
    writer = metrics_log.MetricsWriter({os.fspath(tmp_path)!r})
    step = 0
    while True:
      step += 1
      writer.write(step, loss=step)
      if step == 100:
        print('go', flush=True)
  """
  process = subprocess.Popen(
    [sys.executable, '-c', textwrap.dedent(program)], stdout=subprocess.PIPE
  )
  assert process.stdout.readline() == b'go\n'
  process.send_signal(signal.SIGKILL)
  process.wait()
  process.stdout.close()
  with metrics_log.MetricsWriter(tmp_path, resume_step=50) as writer:
    writer.write(51, loss=51)
  assert steps(tmp_path) == list(range(1, 52))


@contextlib.contextmanager
def object_store(folder, monkeypatch):
  """Serve gs:// from a folder that refuses to append, as Cloud Storage does."""
  from etils.epath import backend, gpath

  class Store(backend._OsPathBackend):
    def open(self, path, mode):
      assert 'a' not in mode and '+' not in mode
      return super().open(self._local(path), mode)

    def _local(self, path):
      return os.fspath(path).replace('gs://', f'{folder}/')

    def exists(self, path):
      return super().exists(self._local(path))

    def mkdir(self, path, **kwargs):
      return super().mkdir(self._local(path), **kwargs)

    def makedirs(self, path, **kwargs):
      return super().makedirs(self._local(path), **kwargs)

    def replace(self, path, dst):
      return super().replace(self._local(path), self._local(dst))

  monkeypatch.setattr(gpath._GPath, '_backend', property(lambda self: Store()))
  yield


def test_files_on_object_stores_are_written_whole_at_flush(tmp_path, monkeypatch):
  local = tmp_path / 'bucket' / 'run'
  with object_store(tmp_path, monkeypatch):
    writer = metrics_log.MetricsWriter('gs://bucket/run')
    writer.write(1, loss=1)
    assert not (local / 'metrics.jsonl').exists()
    writer.flush()
    first = (local / 'metrics.jsonl').read_bytes()
    assert first.count(b'\n') == 1
    writer.write(2, loss=1)
    writer.close()
    assert (local / 'metrics.jsonl').read_bytes().startswith(first)
    with metrics_log.MetricsWriter('gs://bucket/run', resume_step=1) as writer:
      writer.write(2, loss=2)
      writer.write(3, loss=2)
    assert [(r['step'], r['loss']) for r in read('gs://bucket/run')] == [
      (1, 1),
      (2, 2),
      (3, 2),
    ]


def test_a_disabled_writer_writes_nothing(tmp_path):
  with metrics_log.MetricsWriter(
    tmp_path / 'run', enabled=False, settings=Settings(('tensorboard', 'wandb'))
  ) as writer:
    writer.write(1, loss=1)
    writer.write_image(1, 'grid', np.zeros((2, 2, 3), np.uint8))
    writer.flush()
  assert not (tmp_path / 'run').exists()


def test_speed_and_time_left_ignore_compilation_and_pauses():
  clock, out = Clock(), io.StringIO()
  progress = Progress(
    200, start=100, images_per_step=8, stream=out, clock=clock, interval=10
  )
  assert progress.seconds_left is progress.images_per_second is None
  clock.now += 90  # compilation
  progress.update(101, loss=1.0)
  assert progress.seconds_left is None
  for step in range(102, 121):
    clock.now += 0.5
    progress.update(step, loss=jnp.float32(0.123456))
    if step == 110:
      with progress.pause():
        clock.now += 1000
  assert progress.images_per_second == pytest.approx(16)
  assert progress.seconds_left == pytest.approx(80 * 0.5)
  clock.now += 0.5
  progress.update(121, loss=0.123456)
  clock.now += 10
  progress.update(141, loss=0.123456)
  assert out.getvalue().splitlines()[-1] == (
    'step 141/200  70.5%  16.0 images/s  18m30s so far  30s to go  loss 0.1235'
  )


def test_speed_is_that_of_the_last_minute():
  clock = Clock()
  rate = Throughput(window=60, clock=clock)
  rate.add(5)
  for seconds, expected in ((1, 1), (10, 0.1)):
    for _ in range(100):
      clock.now += seconds
      rate.add(1)
    assert rate.per_second() == pytest.approx(expected)
  clock.now += 1000  # one step longer than the window
  rate.add(1)
  assert rate.per_second() == pytest.approx(1 / 1000)


def test_a_pause_ends_when_its_body_raises():
  clock = Clock()
  rate = Throughput(clock=clock)
  rate.add(1)
  with pytest.raises(RuntimeError), rate.pause():
    clock.now += 100
    raise RuntimeError
  clock.now += 2
  rate.add(1)
  assert rate.per_second() == pytest.approx(0.5)


def test_plain_lines_are_written_every_interval_and_at_the_end():
  clock, out = Clock(), io.StringIO()
  with Progress(100, stream=out, clock=clock, interval=10) as progress:
    for step in range(1, 101):
      clock.now += 0.5
      progress.update(step, loss=1 / step)
  lines = out.getvalue().splitlines()
  assert [line.split()[1] for line in lines] == [
    f'{step}/100' for step in (1, 21, 41, 61, 81, 100)
  ]
  assert lines[0] == 'step 1/100  1.0%  0s so far  loss 1'
  assert lines[1] == (
    'step 21/100  21.0%  2.0 steps/s  10s so far  40s to go  loss 0.04762'
  )
  assert lines[-1] == 'step 100/100  100.0%  2.0 steps/s  50s so far  loss 0.01'
  assert '\r' not in out.getvalue() and '\x1b' not in out.getvalue()


def test_a_plain_line_is_written_once_before_a_pause():
  clock, out = Clock(), io.StringIO()
  with Progress(10, stream=out, clock=clock) as progress:
    for step in (1, 2):
      clock.now += 1
      progress.update(step)
    for _ in range(2):
      with progress.pause():
        clock.now += 100
        assert out.getvalue().splitlines()[-1].startswith('step 2/10')
  assert [line.split()[1] for line in out.getvalue().splitlines()] == ['1/10', '2/10']


def test_a_terminal_gets_one_line_that_is_rewritten_and_fits(monkeypatch):
  monkeypatch.setenv('COLUMNS', '51')
  clock, out = Clock(), Terminal()
  with Progress(10, stream=out, clock=clock) as progress:
    for step in range(1, 11):
      clock.now += 1
      progress.update(step, loss=0.5, psnr=23.0)
  assert out.getvalue().count('\n') == 1 and out.getvalue().endswith('\n')
  drawn = [line.strip() for line in out.getvalue().split('\r\x1b[K')[1:]]
  assert drawn[1] == 'step 2/10  20.0%  1.0 steps/s  2s so far  8s to go'
  assert all(len(line) < 51 for line in drawn)


def test_values_are_only_read_when_a_line_is_written():
  class Pending:
    reads = 0

    def __float__(self):
      Pending.reads += 1
      return 1.0

  clock, out = Clock(), io.StringIO()
  progress = Progress(1000, stream=out, clock=clock, interval=10)
  for step in range(1, 100):
    clock.now += 0.01
    progress.update(step, loss=Pending())
  assert Pending.reads == 1


def test_disabled_progress_writes_nothing_and_still_measures():
  clock, out = Clock(), Terminal()
  with Progress(
    4, images_per_step=2, stream=out, clock=clock, enabled=False
  ) as progress:
    for step in range(1, 5):
      clock.now += 1
      progress.update(step)
    with progress.pause():
      pass
  assert out.getvalue() == ''
  assert progress.images_per_second == 2


@pytest.mark.parametrize(
  ('seconds', 'text'),
  [
    (0.2, '0s'),
    (59.4, '59s'),
    (59.6, '1m00s'),
    (725, '12m05s'),
    (12000, '3h20m'),
    (187200, '2d04h'),
  ],
)
def test_duration_as_text(seconds, text):
  assert duration(seconds) == text
