"""Mistakes in calling `sr3-evaluate` end in one line."""

import pathlib

import numpy as np
import pytest

from sr3_jax.evaluation import command as evaluation_command
from tests.support import image_folders, programs
from tests.support.image_folders import NAMES, arguments

folders, network = image_folders.folders, image_folders.network
tiny_networks = image_folders.tiny_networks

MISTAKES = {
  'no truth': (['--truth={}/nowhere'], 'nowhere: no such folder'),
  'border': (['--border=12'], '--border=12 leaves nothing of images of 16 pixels'),
  'negative border': (['--border=-1'], '--border: -1 must be'),
  'batch': (['--batch_size=0'], '--batch_size: 0 must be'),
  'no labels': (['--classifier=net.onnx'], 'belong together'),
  'no such labels': (
    ['--classifier={}/net.onnx', '--labels={}/no.txt'],
    'no.txt: no such file',
  ),
  'no photographs': (['--photographs={}/no.txt'], 'no.txt: no such file'),
  'no such network': (['--classifier={}/x.onnx', '--labels={}/labels.txt'], 'x.onnx'),
  'no ONNX': (['--classifier={}/labels.txt', '--labels={}/labels.txt'], 'ONNX'),
  'network name': (['--networks', 'vgg'], 'invalid choice'),
  'report is a file': (['--report={}/labels.txt'], 'labels.txt'),
  'outputs twice': (['--outputs', 'a={}/mine', 'a={}/theirs'], "'a' is taken"),
  'outputs alike': (['--outputs', 'a={}/mine', 'A={}/theirs'], "'A' is 'a' to some"),
  'outputs taken alike': (['--outputs', 'Truth={}/mine'], "'Truth' is 'truth' to some"),
  'outputs taken': (['--outputs', 'truth={}/mine'], "'truth' is taken"),
  'outputs of a batch': (['--outputs', 'index={}/mine'], "'index' is taken"),
  'no name': (['--outputs', 'a/b={}/mine'], 'is no name; give NAME=DIR'),
  'hidden name': (['--outputs', '.a={}/mine'], 'is no name; give NAME=DIR'),
  'empty': (['--outputs', 'a={}/empty'], 'no image files'),
  'statistics': (['--reference={}/labels.txt'], 'not reference statistics'),
  'other statistics': (['--reference={}/three.npz'], '3 features, inception has 4'),
  'unknown': (['--speed=1'], 'unrecognized arguments'),
}


@pytest.mark.parametrize('name', MISTAKES)
def test_mistakes_are_one_line(folders, network, tiny_networks, capsys, name):
  (folders / 'empty').mkdir(exist_ok=True)
  np.savez(folders / 'three.npz', mu=np.zeros(3), sigma=np.eye(3))
  more, message = MISTAKES[name]
  more = [text.replace('{}', str(folders)) for text in more]
  assert_refused(arguments(folders, 'wrong', *more), message, capsys)
  assert not (folders / 'wrong' / 'report.json').exists()


LABELS = {
  'text': ('a cat\n', ':1: not "NAME CLASS"'),
  'alone': ('a 1\n3\nb\n', ':3: not "NAME CLASS"'),
  'huge': ('a 99999999999\n', ':1: not "NAME CLASS"'),
  'some': ('a 1\n', 'no class for b and 6 more'),
  'binary': (b'\xff\xfe\x00', ':1: not "NAME CLASS"'),
  'unknown': (''.join(f'{n} 7\n' for n in NAMES), 'labels go from 7 to 7'),
}


@pytest.mark.parametrize('name', LABELS)
def test_wrong_labels_are_one_line(folders, network, tmp_path, capsys, name):
  text, message = LABELS[name]
  path = tmp_path / 'labels.txt'
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  more = [f'--classifier={network}', f'--labels={path}', '--networks', '--border=2']
  assert_refused(arguments(folders, 'wrong', *more), message, capsys)


def assert_refused(args, message: str, capsys) -> None:
  with pytest.raises(SystemExit) as exit_:
    evaluation_command.main(args)
  assert exit_.value.code == 2
  lines = capsys.readouterr().err.strip().splitlines()
  errors = [line for line in lines if line.startswith('error: ')]
  assert errors == lines[-1:] and message in errors[0], lines
  assert not any('Traceback' in line for line in lines)


def test_images_that_all_break_are_one_line(folders, tmp_path, capsys):
  data = (folders / 'truth' / 'a.png').read_bytes()
  for name in ('truth', 'mine'):
    (tmp_path / name).mkdir()
    (tmp_path / name / 'a.png').write_bytes(data[: len(data) // 2])
  args = [f'--truth={tmp_path / "truth"}', '--outputs', str(tmp_path / 'mine')]
  args += [f'--report={tmp_path / "report"}', '--cache=', '--networks']
  assert_refused(args, 'not one image could be read', capsys)


def test_names_of_outputs():
  def parse(*texts):
    return evaluation_command._outputs(evaluation_command.make_parser(), texts)

  path = pathlib.Path
  assert parse('runs/a', 'b=runs/c') == {'a': path('runs/a'), 'b': path('runs/c')}
  assert parse('mine=runs/lr=1e-4/out') == {'mine': path('runs/lr=1e-4/out')}
  assert parse('=runs/a') == {'a': path('runs/a')}
  assert list(parse('.')) == [path.cwd().name]


def test_help_is_readable(capsys):
  with pytest.raises(SystemExit) as exit_:
    evaluation_command.main(['--help'])
  assert exit_.value.code == 0
  text = capsys.readouterr().out
  options = {a.option_strings[0] for a in evaluation_command.make_parser()._actions}
  assert all(option in text for option in options - {'-h'})
  assert all(len(line) <= 88 for line in text.splitlines())


def test_help_needs_no_library():
  code, modules = programs.run_main('sr3_jax.evaluation.command', '--help')
  assert code == 0
  assert not {'numpy', 'PIL', 'etils', 'absl', 'jax'} & modules
