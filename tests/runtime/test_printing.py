"""Tests that names of any characters are shown, and steer nothing."""

import io
import logging as python_logging
import sys
import unicodedata

import numpy as np
import pytest
from PIL import Image

from sr3_jax import main as program
from sr3_jax.data import channels
from sr3_jax.evaluation import command as evaluate
from sr3_jax.human_study import command as study
from sr3_jax.metrics import net_weights
from sr3_jax.reports import command as report
from sr3_jax.reports import svg_chart, views
from sr3_jax.runtime import errors, printing, process_log, text
from sr3_jax.runtime.progress import Progress
from sr3_jax.upscale import command as upscale
from sr3_jax.weights import convert, model_card

# ESC and BEL set titles, CR and CSI overwrite, C1 does what ESC [ does, bidirectional
# overrides and line separators forge other names, and a byte is no UTF-8.
EVIL = 'a\x1b]0;t\x07\r\x9b2J\u202egnp\u2066\u2028\u200b\x7f\udcff'


def assert_shown(shown: str) -> None:
  """Check that a text has no character that steers, hides or forges."""
  odd = [c for c in shown if unicodedata.category(c)[0] == 'C' and c not in '\n\t']
  assert not odd, (odd, shown)
  assert '\u2028' not in shown and '\u2029' not in shown


def test_characters_that_show_nothing_are_written_out():
  assert printing.printable(EVIL) == (
    r'a\x1b]0;t\x07\x0d\x9b2J\u202egnp\u2066\u2028\u200b\x7f\xff'
  )
  good = 'Zürich 東京 ３　4\u00a05 🙂 é a\\b'  # spaces of every width stay
  assert printing.printable(good) == good
  assert printing.printable('a\nb\tc') == r'a\x0ab\x09c'
  assert printing.printable('a\nb', keep='\n') == 'a\nb'
  assert printing.printable('\U000e0041') == r'\U000e0041'
  assert printing.one_line('a \n b\x1b') == r'a b\x1b'


def test_every_character_is_safe():
  every = ''.join(map(chr, [*range(0x3000), *range(0xD800, 0xE010), 0xFEFF, 0xFFF9]))
  assert_shown(printing.printable(every))


def test_messages_of_errors_are_one_printable_line():
  for shown in (
    errors.line(ValueError(EVIL)),
    errors.line(OSError(2, 'No such file', EVIL)),
    errors.line(KeyError(EVIL)),
    errors.first_line(ValueError(EVIL)),
    errors.some([EVIL, 'b']),
  ):
    assert_shown(shown)
    assert '\n' not in shown


def test_a_guarded_stream_shows_printable_text_and_passes_the_rest(monkeypatch):
  raw = io.BytesIO()
  stream = io.TextIOWrapper(raw, 'ascii')
  monkeypatch.setattr(sys, 'stdout', stream)
  monkeypatch.setattr(sys, 'stderr', None)  # started without a screen
  printing.guard()
  printing.guard()  # once is enough
  print(EVIL, 'ü')
  sys.stdout.writelines(['b\x1b\n'])
  sys.stdout.flush()
  sys.stdout.buffer.write(b'\x1bpicture')
  assert not sys.stdout.isatty()
  assert printing.unguarded(sys.stdout) is stream
  shown = raw.getvalue().decode()
  assert shown.startswith(r'a\x1b]0;t') and r'\xff \xfc' in shown
  assert shown.endswith('b\\x1b\n\x1bpicture')


def test_a_progress_line_moves_the_cursor_and_shows_names_printed(monkeypatch):
  class Terminal(io.StringIO):
    def isatty(self) -> bool:
      return True

  terminal = Terminal()
  monkeypatch.setattr(sys, 'stderr', terminal)
  printing.guard()
  with Progress(2, unit=EVIL) as progress:
    progress.update(1)
  lines = terminal.getvalue().replace('\r\x1b[K', '').replace('\r', '')
  assert '\r\x1b[K' in terminal.getvalue()
  assert_shown(lines)


def test_a_log_has_no_control_characters_and_no_forged_lines():
  record = python_logging.LogRecord(
    'x', 30, __file__, 1, 'left out: %s', (EVIL + '\n12:00:00 done',), None
  )
  line = process_log._LineFormatter(datefmt='%H:%M:%S').format(record)
  assert_shown(line)
  assert line.splitlines()[1] == '  12:00:00 done'
  record.exc_info = (ValueError, ValueError(EVIL), None)
  record.pathname = process_log.__file__
  assert_shown(process_log._LineFormatter().format(record))


def test_tables_charts_cards_and_pages_show_names_printed():
  assert_shown('\n'.join(text.align([[EVIL, '1'], ['b\nc', '2']])))
  chart = svg_chart.rows_chart(50, 10)
  chart.text(1, 2, EVIL, 'axis')
  assert_shown(model_card._plain(EVIL + '\n# Title'))
  page = views._environment().from_string('<p>{{ a }}{{ b }}</p>')
  made = page.render(a=f'<script>{EVIL}"\'&', b=views.Markup('<b>\x01</b>'))
  assert made.startswith('<p>&lt;script&gt;a\\x1b]0;t\\x07\\x0d')
  assert '<b>\x01</b>' in made  # what the program wrote itself


COMMANDS = {
  'sr3-upscale': (upscale.main, ['x.png', '-o', 'out', '--ext=' + EVIL]),
  'sr3-evaluate': (evaluate.main, ['--truth', EVIL, '--outputs', f'a={EVIL}']),
  'sr3-report': (report.main, [EVIL.replace('\udcff', '')]),
  'sr3-study': (study.main, ['serve', EVIL]),
  'sr3-channels': (channels.main, [EVIL]),
  'sr3-convert': (convert.main, [EVIL, '-o', 'out']),
  'net_weights': (net_weights.main, ['--' + EVIL]),
  'sr3-train': (lambda argv: program.parse_flags(['x', *argv]), [f'--config={EVIL}']),
}


@pytest.mark.parametrize('name', COMMANDS)
def test_no_command_lets_a_name_steer_the_terminal(name, capsys, monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  main, argv = COMMANDS[name]
  with pytest.raises(SystemExit) as ended:
    main(argv)
  assert ended.value.code
  if isinstance(ended.value.code, str):
    print(ended.value.code, file=sys.stderr)  # as Python does
  found = capsys.readouterr()
  assert found.err.count('\n') >= 1 and '\\x1b' in found.err
  assert_shown(found.out + found.err)


def test_an_unreadable_picture_is_named_in_printable_characters(
  tmp_path, capsys, monkeypatch
):
  """The net below is off: the messages themselves must be clean."""
  monkeypatch.setattr(printing, 'guard', lambda: None)
  folder = tmp_path / 'in'
  folder.mkdir()
  (folder / f'{EVIL[:-1]}\n.png').write_bytes(b'x')
  Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / 'b.png')
  code = upscale.main([str(folder), '-o', str(tmp_path / 'out'), '--steps=1'])
  found = capsys.readouterr()
  assert code == 1
  assert_shown(found.out + found.err)
  (line,) = [x for x in found.err.splitlines() if x.startswith('failed: ')]
  assert '\\x1b]0;t' in line
