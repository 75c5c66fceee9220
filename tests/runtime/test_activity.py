"""Tests of the lines that say what a command is doing."""

import io
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from sr3_jax.runtime import activity
from sr3_jax.runtime.progress import Progress


class Terminal(io.StringIO):
  """A stream that says it is a terminal."""

  def isatty(self):
    return True


@pytest.fixture
def quick(monkeypatch):
  """Make all that takes seconds take hundredths."""
  monkeypatch.setattr(activity, '_TICK', 0.005)
  monkeypatch.setattr(activity, '_FIRST', 0.01)
  monkeypatch.setattr(activity, '_SOON', 0.02)
  monkeypatch.setattr(activity, 'EVERY', 0.1)


@pytest.fixture
def log(quick, monkeypatch):
  stream, screen = io.StringIO(), activity.Screen
  monkeypatch.setattr(activity, 'Screen', lambda: screen(stream))
  return stream


def test_a_log_has_a_line_soon_then_what_takes_long_again_and_again(log):
  with activity.shown('it'):
    time.sleep(0.05)
    assert log.getvalue() == 'it: starting\n'
    with activity.doing('compiling'):
      time.sleep(0.35)
    with activity.doing('blinking'):
      pass
    with activity.doing('writing'):
      time.sleep(0.05)
  lines = log.getvalue().splitlines()
  assert 3 <= lines.count('compiling') <= 5 and lines.count('writing') == 1
  assert 'blinking' not in lines and '\x1b' not in log.getvalue()


def test_the_line_says_how_long_it_has_been():
  with activity.doing('compiling') as now:
    now.began -= 75
    assert now.line() == 'compiling, 1m15s so far'
    now.what = 'compiling the second'
    assert now.line() == 'compiling the second, 1m15s so far'


def test_a_short_thing_that_comes_again_and_again_floods_no_log(log):
  with activity.shown('it'):
    for _ in range(20):
      with activity.doing('writing'):
        time.sleep(0.03)
  assert log.getvalue().count('writing') < 9


def test_progress_comes_again_while_a_step_takes_long(log):
  with activity.shown('it'), Progress(3) as progress:
    progress.update(1, loss=0.5)
    time.sleep(0.3)
  lines = log.getvalue().splitlines()
  assert lines.count('step 1/3  33.3%  0s so far  loss 0.5') >= 3


def test_the_innermost_is_shown_and_then_the_outer_again(log):
  with activity.shown('it'), activity.doing('planning'):
    with activity.doing('compiling'):
      time.sleep(0.15)
    time.sleep(0.25)
  lines = log.getvalue().splitlines()
  assert lines[0].startswith('it: ') and lines[-1] == 'planning'
  assert 'compiling' in lines[0] or 'compiling' in lines[1]


def test_a_mistake_that_is_found_at_once_is_the_only_line(log, monkeypatch):
  monkeypatch.setattr(activity, '_FIRST', 0.5)
  with pytest.raises(SystemExit), activity.shown('it'), activity.doing('reading'):
    sys.exit(2)
  time.sleep(0.05)
  assert log.getvalue() == ''


def test_a_terminal_has_one_line_which_is_gone_before_anything_is_printed(
  quick, monkeypatch
):
  screen = Terminal()
  monkeypatch.setattr(sys, 'stderr', screen)
  monkeypatch.setattr(sys, 'stdout', screen)
  with activity.shown('it'), activity.doing('compiling'):
    time.sleep(0.1)
    print('result')
    print('warning', file=sys.stderr)
  assert sys.stdout is screen and sys.stderr is screen
  shown = screen.getvalue()
  assert shown.startswith('\r\x1b[Kit: ')
  assert 'compiling\r\r\x1b[Kresult\n' in shown
  assert 'warning\n' in shown and shown.count('\n') == 2
  assert shown.rpartition('\r\x1b[K')[2] in ('', 'result\nwarning\n')


def test_a_name_steers_no_terminal(log):
  with activity.shown('reading \x1b[2J'):
    time.sleep(0.05)
  assert 'reading' in log.getvalue()
  assert '\x1b' not in log.getvalue()


def test_silence_and_quiet(log):
  with activity.shown('it', quiet=True), activity.doing('compiling'):
    time.sleep(0.15)
    with Progress(2) as progress:
      progress.update(1)
  assert log.getvalue() == ''
  with activity.shown('it'):
    time.sleep(0.05)
    activity.silence()
    with activity.doing('compiling'):
      time.sleep(0.15)
  assert log.getvalue() == 'it: starting\n'


def test_within_another_command_nothing_begins_anew(log):
  with activity.shown('outer'):
    count = threading.active_count()
    with activity.shown('inner'):
      assert threading.active_count() == count
    assert activity._screen is not None
    time.sleep(0.05)
  assert log.getvalue() == 'outer: starting\n'


def test_a_reader_that_went_away_ends_no_work(quick, monkeypatch):
  class Closed(io.StringIO):
    def write(self, text):
      raise BrokenPipeError

  monkeypatch.setattr(sys, 'stderr', Closed())
  with activity.shown('it'), activity.doing('compiling'):
    time.sleep(0.1)


def test_a_library_is_silent_and_has_no_thread(capsys):
  with activity.doing('compiling'):
    assert all(thread.name != 'activity' for thread in threading.enumerate())
  assert capsys.readouterr().err == ''


def test_only_the_first_call_says_that_it_compiles():
  said = []

  def function(x):
    said.append([one.what for one in activity._doing])
    return 2 * x

  call = activity.first_call('compiling', function)
  assert (call(1), call(2)) == (2, 4)
  assert said == [['compiling'], []]


def test_a_program_that_never_comes_back_ends_with_its_lines():
  """The thread ends with the process, also where it ends in the middle."""
  code = """
    import sys, time
    from sr3_jax.runtime import activity
    with activity.shown('it'), activity.doing('compiling'):
      time.sleep(1)
      sys.exit('error: enough')
  """
  began = time.monotonic()
  done = subprocess.run(
    [sys.executable, '-c', textwrap.dedent(code)], capture_output=True, text=True
  )
  assert done.returncode == 1 and time.monotonic() - began < 20
  lines = done.stderr.splitlines()
  assert lines == ['it: compiling', 'error: enough']
