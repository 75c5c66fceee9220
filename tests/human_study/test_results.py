"""Results of strangers: what is skipped, what is said, what is printed of the rest."""

import json
import math
import re

import pytest

from sr3_jax.human_study import command as human_study_command
from sr3_jax.human_study import results as human_study_results
from sr3_jax.human_study import site_builder
from tests.support import programs, studies
from tests.support.studies import make_result


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  return studies.make_site(tmp_path_factory.mktemp('study'))


@pytest.fixture(scope='module')
def site(made):
  return made[0]


@pytest.fixture(scope='module')
def key(made):
  return made[1]


def hostile(key):
  """name -> bytes of a result file that must be skipped, and what is said of it."""
  good = make_result(key)

  def changed(**changes):
    return json.dumps(good | changes).encode()

  def answer(**changes):
    return changed(answers=[good['answers'][0] | changes, *good['answers'][1:]])

  return {
    'empty': (b'', 'not JSON'),
    'binary': (bytes(range(256)), 'not JSON'),
    'torn': (changed()[:-9], 'not JSON'),
    'deep': (b'[' * 500_000, 'not JSON'),
    'long number': (b'{"format": ' + b'9' * 9999 + b'}', 'not JSON'),
    'nan': (changed(number=math.nan), 'NaN is no number'),
    'large': (
      b' ' * human_study_results.MAX_BYTES + changed(),
      'larger than 1 MB',
    ),
    'list': (b'[]', 'not a JSON object'),
    'format': (changed(format=2), 'format 2 is not known'),
    'bool': (changed(number=True), '"number" must be an integer'),
    'zero': (changed(number=0), '"number" must be an integer'),
    'unknown subject': (changed(number=999), 'subject 999 of 104 is not in the plan'),
    'id': (changed(id='../../etc/passwd'), '"id" must match'),
    'id type': (changed(id=['a'] * 32), '"id" must match'),
    'other study': (changed(study='0' * 16), 'is of study 0000000000000000, not of'),
    'time': (changed(finished='soon'), '"finished" must be a time'),
    'reduced': (changed(reduced=None), '"reduced" must be true or false'),
    'no answers': (changed(answers={}), '"answers" must be a list'),
    'few': (changed(answers=good['answers'][:-1]), 'the plan has'),
    'order': (changed(answers=good['answers'][::-1]), 'answer 0: its number is wrong'),
    'doubled': (changed(answers=good['answers'] * 2), 'its number is wrong'),
    'answer': (answer(answer='both'), 'answer 0: "answer" must be one of'),
    'answer type': (answer(answer={}), 'answer 0: "answer" must be one of'),
    'negative': (answer(shown_ms=-1), '"shown_ms" must be a number'),
    'huge': (answer(answer_ms=1e300), '"answer_ms" must be a number'),
    'text': (answer(shown_ms='3000'), '"shown_ms" must be a number'),
    'views': (answer(views=0), '"views" must be an integer'),
    'device': (answer(device='\x1b[31m'), '"device" must be one of'),
    'no record': (changed(answers=[None] * 5), 'answer 0: it is not a JSON object'),
  }


def test_hostile_results_are_skipped_one_line_each(site, key, tmp_path, capsys):
  cases = hostile(key)
  for i, (data, _) in enumerate(cases.values()):
    (tmp_path / f'{i:02d}.json').write_bytes(data)
  (tmp_path / 'good.json').write_text(json.dumps(make_result(key, fools=['sharp'])))
  again = make_result(key, number=2, id=f'{1:032x}')
  (tmp_path / 'same session.json').write_text(json.dumps(again))
  (tmp_path / 'evil\x1b[31m\n.json').write_text('{}')
  (tmp_path / 'folder.json').mkdir()
  out = tmp_path / 'all.out'
  args = ['analyse', str(site_builder.key_path(site)), str(tmp_path), f'--json={out}']
  assert human_study_command.main(args) == 0
  captured = capsys.readouterr()
  lines = captured.err.strip().splitlines()
  assert len(lines) == len(cases) + 3
  assert all(line.startswith('skipped: ') for line in lines)
  assert '\x1b' not in captured.err
  for i, (name, (_, reason)) in enumerate(cases.items()):
    line = next(line for line in lines if f'{i:02d}.json' in line)
    assert reason in line, name
  assert f'{len(cases) + 3} files skipped' in captured.out
  found = json.loads(out.read_text())
  assert len(found['skipped']) == len(cases) + 3
  assert found['subjects'] == 1
  rates = {rate['method']: rate for rate in found['rates']}
  assert rates['sharp']['rate'] == 1 and rates['bicubic']['rate'] == 0
  assert rates['sharp']['low'] is None  # one subject


def test_analyse_prints_the_papers_figures_beside(site, key, tmp_path, capsys):
  for number in (1, 2, 3, 4):
    fools = ['sharp'] if number < 3 else []
    result = make_result(key, number, fools + ['check'] * (number == 4))
    (tmp_path / f'{number}.json').write_text(json.dumps(result))
  args = ['analyse', str(site_builder.key_path(site)), str(tmp_path)]
  assert human_study_command.main(args) == 0
  out = capsys.readouterr().out
  task1, task2 = out.split('Task 2: Which image would you guess is from a camera?')
  assert 'Task 1: Which is the better high-quality version' in task1
  assert re.search(r'SR3 +54\.1 % \*', task1) and re.search(r'SR3 +38\.8 % \*', task1)
  assert re.search(r'SR3 +47\.4 %\n', task2) and re.search(r'SR3 +39\.0 %\n', task2)
  assert '* quoted from memory, not verified' in out
  assert '3 subjects, 1 left out (more than 20.0 % of the attention checks' in out
  assert re.search(r'sharp +50\.0 % +0\.0 to 100\.0 %', task1)
  assert re.search(r'sharp +100\.0 % +- ', task2)
  assert re.search(r'4 +2 .*left out', task2)
  assert human_study_command.main([*args, '--keep-all']) == 0
  out = capsys.readouterr().out
  assert '4 subjects, 1 would be left out but for --keep-all' in out
  assert re.search(r'sharp +50\.0 % +0\.0 to 100\.0 %', out.split('Task 2')[1])


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('{}', 'not the key of a study'),
    ('[1]', 'not the key of a study'),
    ('{"format": 1, "subjects": [{}], "methods": []}', 'not the key of a study'),
    ('{"format": 2}', 'format 2 is not known'),
  ],
)
def test_what_is_no_key_is_refused(tmp_path, capsys, text, message):
  (tmp_path / 'key.json').write_text(text)
  with pytest.raises(SystemExit):
    human_study_command.main(['analyse', str(tmp_path / 'key.json'), str(tmp_path)])
  assert message in capsys.readouterr().err


def test_no_result_at_all_is_said(site, tmp_path, capsys):
  with pytest.raises(SystemExit):
    human_study_command.main(
      ['analyse', str(site_builder.key_path(site)), str(tmp_path)]
    )
  assert 'no result of this study among these files' in capsys.readouterr().err


def test_help_needs_no_library():
  code, modules = programs.run_main('sr3_jax.human_study.command', '--help')
  assert code == 0
  assert not {'numpy', 'PIL', 'etils', 'jax'} & modules
