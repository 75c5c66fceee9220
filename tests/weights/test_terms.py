"""Terms of use in model cards."""

import os

import pytest
from etils import epath

from sr3_jax.weights import hub, terms


@pytest.mark.parametrize(
  ('license', 'free'),
  [
    ('Apache-2.0', True),
    ('cc-by-3.0', True),
    ('bsd-3-clause', True),
    ('unknown', True),
    ('cc-by-nc-4.0', False),
    ('cc-by-nc-nd-3.0', False),
    ('cc-by-nd-4.0', False),
    ('creativeml-openrail-m', False),
    ('h-research', False),
    ('other', False),
    ('bsds500-non-commercial-research', False),
    ('', False),
  ],
)
def test_which_terms_allow_every_use(license, free):
  assert terms.are_free(license) == free


def test_what_hubs_know_and_what_not():
  assert terms.front_matter('  MIT ') == {'license': 'mit'}
  assert terms.front_matter('', 'x') == {'license': 'unknown'}
  own = {'license': 'other', 'license_name': 'my-own-1.0'}
  assert terms.front_matter('My "own"\n 1.0!') == own
  assert terms.front_matter('My own 1.0', 'https://a/b') == {
    **own,
    'license_link': 'https://a/b',
  }
  assert terms.front_matter('私の')['license_name'] == 'own'


@pytest.mark.parametrize(
  'text',
  [
    '',
    'no head',
    '---\n- a list\n---\nx',
    '---\na: [\n---\nx',
    '---\nnever ended\n',
    '---',
  ],
)
def test_a_card_without_a_head_states_no_terms(tmp_path, text):
  (tmp_path / 'README.md').write_text(text)
  assert terms.of_folder(tmp_path) == 'unknown'
  head, below = terms.split_card(text)
  assert head == {} and terms.join_card({'a': 1}, below).startswith('---\na: 1\n---\n')


def test_a_pipe_in_the_place_of_a_card_states_no_terms(tmp_path):
  os.mkfifo(tmp_path / 'README.md')
  assert terms.of_folder(epath.Path(tmp_path)) == 'unknown'


def test_the_models_of_the_package_say_their_terms(tmp_path):
  stated = {name: terms.of_folder(hub.SHIPPED / name) for name in hub.shipped()}
  assert stated == {
    'face-x4': 'cc-by-3.0',
    'face-x8': 'cc-by-3.0',
    'photo-clean': 'cc-by-sa-4.0',
    'photo-fill': 'cc-by-sa-4.0',
    'photo-x4': 'cc-by-sa-4.0',
  }
  (tmp_path / 'README.md').write_text('---\nlicense: other\nlicense_name: a b\n---\n')
  assert terms.of_folder(tmp_path) == 'a b'
  told = terms.note('photo-x4', 'a\nb', '/m/photo')
  assert '\n' not in told and '/m/photo' in told
