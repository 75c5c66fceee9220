"""What build writes: a site that tells nothing, a key that tells all, or one line."""

import collections
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from sr3_jax.human_study import design as human_study_design
from sr3_jax.human_study import site_builder
from sr3_jax.images import image_files
from tests.support import studies
from tests.support.studies import OPTIONS, SIDE, build, plan_of


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  return studies.make_site(tmp_path_factory.mktemp('study'))


@pytest.fixture(scope='module')
def folders(made):
  return made[0].parent


@pytest.fixture(scope='module')
def site(made):
  return made[0]


@pytest.fixture(scope='module')
def key(made):
  return made[1]


def test_build_says_what_it_did(folders, tmp_path, capsys):
  assert build(folders, tmp_path / 'site', '--subjects=3', '--num-images=9') == 0
  out = capsys.readouterr().out
  assert 'truth: 1 of 15 images left out, other folders have no such name' in out
  assert 'inputs:' not in out.split('task')[0]
  assert 'task 1 and 2: 9 images, 2 methods' in out
  assert '13 trials: 3 of practice, 9 that count, 1 attention check' in out
  assert 'exactly even after every 8 subjects' in out
  assert 'plans for 3, which is not a multiple of it' in out
  assert len(plan_of(tmp_path / 'site')['subjects']) == 3


def test_the_site_does_not_tell_what_is_real(site, key):
  plan = plan_of(site)
  words = re.compile(
    r'scene|bicubic|sharp|truth|"real"|check|photograph', re.IGNORECASE
  )
  assert not words.search((site / 'plan.js').read_text())
  assert 'seed' not in plan
  files = sorted((site / 'pictures').iterdir())
  assert [f.stem for f in files] == plan['pictures'] == sorted(key['pictures'])
  for file in files:
    assert re.fullmatch(r'[0-9a-f]{20}\.png', file.name)
    data, at, chunks = file.read_bytes(), 8, set()
    while at < len(data):
      chunks.add(data[at + 4 : at + 8])
      at += 12 + int.from_bytes(data[at : at + 4], 'big')
    assert chunks == {b'IHDR', b'IDAT', b'IEND'}
    assert Image.open(file).size == (SIDE, SIDE)
    assert Image.open(file).mode == 'RGB'
  assert len({file.stat().st_mtime for file in files}) == 1
  assert not list(site.rglob('*key*'))
  names = {p.name for p in site.iterdir()}
  assert names == {*site_builder.PAGES, 'plan.js', 'pictures'}


def test_site_and_key_agree_and_pictures_are_the_given_ones(site, key, folders):
  """What plan.js shows on which side is what the key says, pixel for pixel."""
  plan = plan_of(site)
  kinds = collections.Counter()
  for own, keyed in zip(plan['subjects'], key['subjects'], strict=True):
    assert own['task'] == keyed['task']
    for row, (image, shown, real) in zip(own['trials'], keyed['trials'], strict=True):
      names = [plan['pictures'][i] for i in row]
      roles = [key['pictures'][name] for name in names]
      easy = shown in (human_study_design.CHECK, human_study_design.PRACTICE)
      pair = [[image, 'real'], [image, human_study_design.CHECK if easy else shown]]
      assert roles[:2] == (pair if real == 'left' else pair[::-1])
      assert roles[2:] == ([[image, 'input']] if own['task'] == 1 else [])
      kinds[shown] += 1
  assert set(kinds) == {
    'bicubic',
    'sharp',
    human_study_design.CHECK,
    human_study_design.PRACTICE,
  }
  for name, (image, role) in key['pictures'].items():
    pixels = image_files.read(site / 'pictures' / f'{name}.png')
    if role in ('real', 'bicubic', 'sharp'):
      folder = 'truth' if role == 'real' else role
      assert (pixels == image_files.read(folders / folder / f'{image}.png')).all()
    elif role == 'input':  # upsampled as the bicubic method does
      assert (pixels == image_files.read(folders / 'bicubic' / f'{image}.png')).all()
    else:
      truth = image_files.read(folders / 'truth' / f'{image}.png').astype(float)
      assert np.abs(np.diff(pixels.astype(float), axis=0)).mean() < (
        0.7 * np.abs(np.diff(truth, axis=0)).mean()
      )


def test_the_same_command_makes_the_same_bytes(site, folders, tmp_path):
  build(folders, tmp_path / 'a', *OPTIONS)
  build(folders, tmp_path / 'b', *OPTIONS, '--seed=1')
  files = [p.relative_to(site) for p in site.rglob('*') if p.is_file()]
  assert all(
    (tmp_path / 'a' / f).read_bytes() == (site / f).read_bytes() for f in files
  )
  assert not set(plan_of(site)['pictures']) & set(plan_of(tmp_path / 'b')['pictures'])


@pytest.mark.parametrize(
  ('post', 'policy'),
  [
    ('', "connect-src 'self';"),
    ('/results', "connect-src 'self';"),
    ('https://lab.example:8443/in?x=1', "connect-src 'self' https://lab.example:8443;"),
  ],
)
def test_the_policy_allows_one_other_place_at_most(folders, tmp_path, post, policy):
  options = ['--num-images=2', '--subjects=1', *([f'--post={post}'] if post else [])]
  build(folders, tmp_path / 's', *options)
  page = (tmp_path / 's' / 'index.html').read_text()
  assert policy in page and "default-src 'none'" in page
  assert not re.search(r'(src|href)="(https?:)?//', page)
  assert not re.search(r' (style|on\w+)=', page)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (['--post=javascript:alert(1)'], 'is no URL'),
    (["--post=https://a.b; script-src 'unsafe-inline'/"], 'is no URL'),
    (['--post=//evil.example/x'], 'is no URL'),
    (['--outputs', 'real=x'], "the name 'real' is taken"),
    (['--outputs', 'bicubic=x'], "the name 'bicubic' is taken"),
    (['--outputs', '../x=y'], 'is not NAME=DIR'),
    (['--outputs', 'new=nowhere'], 'nowhere: no such folder'),
    (['--seconds=nan'], 'from 0.01 to 600'),
    (['--images-per-subject=0'], 'from 1 to 5000'),
    (['--out='], 'not empty'),
  ],
)
def test_mistakes_end_in_one_line_and_leave_nothing(
  folders, tmp_path, capsys, options, message
):
  with pytest.raises(SystemExit) as caught:
    build(folders, tmp_path / 'site', *options)
  error = capsys.readouterr().err.strip().splitlines()
  assert caught.value.code == 2
  assert message in error[-1] and error[-1].startswith('error: ')
  assert not any(tmp_path.iterdir())


def test_pictures_that_cannot_be_compared_are_refused(folders, tmp_path, capsys):
  for name in ('truth', 'bicubic', 'sharp'):
    shutil.copytree(folders / name, tmp_path / name)
  image_files.write(
    tmp_path / 'sharp' / 'scene03.png', np.zeros((SIDE, SIDE + 1, 3), 'u1')
  )
  with pytest.raises(SystemExit):
    build(tmp_path, tmp_path / 'site', inputs=False)
  assert 'scene03.png is 49 x 48, its truth 48 x 48' in capsys.readouterr().err
  shutil.copy(tmp_path / 'truth' / 'scene00.png', tmp_path / 'truth' / 'scene00.jpg')
  with pytest.raises(SystemExit):
    build(tmp_path, tmp_path / 'site', inputs=False)
  assert 'scene00.png: scene00.jpg has the same name' in capsys.readouterr().err
  assert not list(tmp_path.glob('*site*'))


def test_a_study_is_never_overwritten(site, folders, capsys):
  before = site_builder.key_path(site).read_bytes()
  with pytest.raises(SystemExit):
    build(folders, site, '--seed=5')
  assert 'is there already' in capsys.readouterr().err
  assert site_builder.key_path(site).read_bytes() == before


def test_task_1_needs_inputs(folders, tmp_path, capsys):
  with pytest.raises(SystemExit):
    build(folders, tmp_path / 'site', '--task=1', inputs=False)
  assert 'give --inputs=DIR' in capsys.readouterr().err
