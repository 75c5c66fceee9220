"""Tests that near copies are found after many changes, and nothing else is found."""

import io
import pathlib

import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageEnhance, ImageOps

from sr3_jax.check_data import near_duplicates

FOLDER = pathlib.Path(skimage.data.__file__).parent
NAMES = (
  'astronaut.png',
  'camera.png',
  'chelsea.png',
  'coffee.png',
  'hubble_deep_field.jpg',
)
NAMES += ('ihc.png', 'motorcycle_left.png', 'rocket.jpg')
SIDE = 150


def _thumbnail(image):
  small = image.convert('L').resize((16, 16), Image.Resampling.BILINEAR)
  return np.asarray(small)


def _signatures(pictures):
  return near_duplicates.make_signatures(
    np.array([_thumbnail(image) for image in pictures])
  )


@pytest.fixture(scope='module')
def photos():
  """Return parts of photographs, no two of the same place."""
  found = []
  for name in NAMES:
    image = Image.open(FOLDER / name).convert('RGB')
    for top in range(0, min(image.height, 3 * SIDE) - SIDE + 1, SIDE):
      for left in range(0, min(image.width, 4 * SIDE) - SIDE + 1, SIDE):
        found.append(image.crop((left, top, left + SIDE, top + SIDE)))
  return [part for part in found if np.asarray(part.convert('L')).std() > 20]


def _jpeg(image, quality):
  buffer = io.BytesIO()
  image.save(buffer, 'JPEG', quality=quality)
  return Image.open(buffer)


def _less(image, *sides):
  left, top, right, bottom = (round(SIDE * side) for side in sides)
  return image.crop((left, top, SIDE - right, SIDE - bottom))


CHANGES = {
  'quality 40': lambda image: _jpeg(image, 40),
  'quality 10': lambda image: _jpeg(image, 10),
  'half as large': lambda image: image.resize((SIDE // 2, SIDE // 2), Image.BICUBIC),
  'other proportions': lambda image: image.resize((SIDE, SIDE // 2), Image.LANCZOS),
  'grey': lambda image: image.convert('L'),
  'brighter': lambda image: ImageEnhance.Brightness(image).enhance(1.25),
  'darker': lambda image: ImageEnhance.Brightness(image).enhance(0.5),
  'more contrast': lambda image: ImageEnhance.Contrast(image).enhance(1.3),
  'cropped': lambda image: _less(image, 0.02, 0.02, 0.02, 0.02),
  'one side cropped': lambda image: _less(image, 0, 0.03, 0, 0),
}


@pytest.mark.parametrize('mirrored', [False, True])
@pytest.mark.parametrize('change', CHANGES)
def test_copies_are_found(photos, change, mirrored):
  changed = [CHANGES[change](image) for image in photos]
  if mirrored:
    changed = [ImageOps.mirror(image) for image in changed]
  found = near_duplicates.find_between(_signatures(changed), _signatures(photos))
  right = found.partner == np.arange(len(photos))
  assert right.mean() >= 0.97
  assert set(np.flatnonzero(~right)) == set(np.flatnonzero(found.partner < 0))
  assert (found.mirrored[right] == mirrored).all()
  assert (found.correlation[right] >= near_duplicates.CORRELATION).all()


def test_different_photographs_are_no_copies(photos):
  assert len(photos) > 40
  found = near_duplicates.find_within(_signatures(photos))
  assert not len(found.found), found.found


def test_what_is_not_found_is_as_documented(photos):
  half = [_less(image, 0, 0, 0.5, 0) for image in photos]
  turned = [image.transpose(Image.Transpose.ROTATE_90) for image in photos]
  for others in (half, turned):
    found = near_duplicates.find_between(_signatures(others), _signatures(photos))
    assert len(found.found) <= 1


def _plain():
  """Return different images of one colour, of nearly one colour, and even gradients."""
  rng = np.random.default_rng(0)
  down, across = np.mgrid[:16, :16] / 15
  yield from (np.full((16, 16), level, np.uint8) for level in (0, 7, 128, 255))
  for level in (10, 200):
    yield np.round(level + rng.normal(0, 0.7, (16, 16))).astype(np.uint8)
  for angle in np.linspace(0, 2 * np.pi, 9)[:-1]:
    slope = np.cos(angle) * down + np.sin(angle) * across
    yield np.round(120 + 60 * slope).astype(np.uint8)


def test_plain_images_have_no_signature_and_match_nothing():
  plain = np.array([*_plain()])
  found = near_duplicates.make_signatures(plain)
  assert not found.any()
  twice = near_duplicates.make_signatures(np.concatenate([plain, plain]))
  assert not len(near_duplicates.find_within(twice).found)
  assert not len(near_duplicates.find_between(found, found).found)


def test_signatures_are_cosine_frequencies_by_their_frequency():
  down, across = np.mgrid[:16, :16] + 0.5
  waves = {  # amplitude of the wave with so many half periods down and across
    (2, 1): 30.0,
    (1, 4): 15.0,
    (0, 3): 14.0,
    (5, 2): 11.0,
    (3, 0): 13.0,
    (7, 7): 6.0,
    (12, 1): 9.0,  # too fine to count
  }
  image = 128 + sum(
    a * np.cos(np.pi * down * i / 16) * np.cos(np.pi * across * j / 16)
    for (i, j), a in waves.items()
  )
  signature = near_duplicates.make_signatures(np.round(image).astype(np.uint8)[None])[0]
  # An orthonormal wave along both axes has half the norm of one along one axis only.
  norms = {wave: 8.0 if all(wave) else 8 * 2**0.5 for wave in waves}
  expected = sorted(
    (a * norms[wave] * np.hypot(*wave) for wave, a in waves.items() if wave[0] < 8),
    key=abs,
  )
  expected = np.array(expected) / np.linalg.norm(expected)
  largest = np.sort(signature)[-len(expected) :]
  np.testing.assert_allclose(largest, expected, atol=0.01)
  np.testing.assert_allclose(np.linalg.norm(signature), 1, rtol=1e-5)


def _clusters(count, seed, clusters=12):
  """Make signatures in clusters of several spreads, some mirrored, some missing."""
  rng = np.random.default_rng(seed)
  centres = rng.normal(size=(clusters, 63))
  spread = rng.choice([0.1, 0.35, 0.5, 3.0], size=(count, 1))
  found = centres[rng.integers(clusters, size=count)]
  found = found + spread * rng.normal(size=(count, 63))
  odd = np.arange(63) >= 31
  found = np.where(odd & (rng.random((count, 1)) < 0.3), -found, found)
  found /= np.linalg.norm(found, axis=1, keepdims=True)
  found[rng.random(count) < 0.05] = 0
  return found.astype(np.float32)


def _alike(one, other):
  """Return correlation and mirroring of two signatures; None if they aren't near."""
  best = None
  for mirrored in (False, True):
    turned = np.concatenate([other[:31], -other[31:]]) if mirrored else other
    correlation = float(np.dot(np.float64(one), np.float64(turned)))
    bits = sum((a > 0) != (b > 0) for a, b in zip(one, turned, strict=True))
    near = bits <= near_duplicates.BITS and correlation >= near_duplicates.CORRELATION
    if near and (best is None or correlation > best[0]):
      best = correlation, mirrored
  return best


@pytest.fixture
def small_tiles(monkeypatch):
  """Make blocks so small that a hundred images need several of each kind."""
  monkeypatch.setattr(near_duplicates, '_ROWS', 11)
  monkeypatch.setattr(near_duplicates, '_COLUMNS', 40)
  monkeypatch.setattr(near_duplicates, '_TILE', (3, 7))


def test_within_takes_each_image_for_a_copy_of_the_first_like_it(small_tiles):
  # There are few clusters, so that copies of copies meet within one block of rows.
  signatures = _clusters(110, seed=0, clusters=3)
  partner = np.full(len(signatures), -1)
  for i, one in enumerate(signatures):
    if partner[i] < 0:
      for j in range(i + 1, len(signatures)):
        if partner[j] < 0 and _alike(one, signatures[j]):
          partner[j] = i
  rows = []
  found = near_duplicates.find_within(signatures, rows.append)
  np.testing.assert_array_equal(found.partner, partner)
  assert 20 < len(found.found) < 90
  assert rows == sorted(rows) and rows[-1] <= len(signatures)
  for i in found.found:
    correlation, mirrored = _alike(signatures[i], signatures[found.partner[i]])
    assert found.mirrored[i] == mirrored
    assert found.correlation[i] == pytest.approx(correlation, abs=1e-6)
  assert np.all(np.diff(found.correlation[found.found]) <= 0)


def test_between_gives_the_most_similar_one(small_tiles):
  mine, theirs = _clusters(90, seed=1), _clusters(100, seed=1)[::-1]
  found = near_duplicates.find_between(mine, theirs)
  hits = 0
  for i, one in enumerate(mine):
    alike = {j: _alike(one, other) for j, other in enumerate(theirs)}
    alike = {j: pair for j, pair in alike.items() if pair}
    best = max(alike, key=lambda j: alike[j][0], default=-1)
    if best < 0:
      assert found.partner[i] < 0
      continue
    hits += 1
    # Two images may have the same correlation to the last digit.
    assert alike[found.partner[i]][0] == pytest.approx(alike[best][0], abs=1e-6)
  assert hits > 30


def test_empty_sets_have_no_copies():
  nothing, some = np.zeros((0, 63), np.float32), _clusters(5, seed=2)
  assert not len(near_duplicates.find_within(nothing).found)
  assert not len(near_duplicates.find_between(some, nothing).found)
  assert not len(near_duplicates.find_between(nothing, some).found)
  assert not len(near_duplicates.find_identical(np.zeros(0, np.uint64)).found)
  none = near_duplicates.find_identical(
    np.array([1], np.uint64), np.zeros(0, np.uint64)
  )
  assert none.partner.tolist() == [-1]


def test_identical_content_has_the_first_as_its_partner():
  digests = np.array([7, 2**63 + 5, 7, 1, 2**63 + 5, 7], np.uint64)
  assert near_duplicates.find_identical(digests).partner.tolist() == [
    -1,
    -1,
    0,
    -1,
    1,
    0,
  ]
  others = np.array([1, 2**63 + 5, 1], np.uint64)
  found = near_duplicates.find_identical(digests, others)
  assert found.partner.tolist() == [-1, 1, -1, 0, 1, -1]


def test_digest_zero_matches_nothing():
  digests = np.array([0, 5, 0, 5], np.uint64)
  assert near_duplicates.find_identical(digests).partner.tolist() == [-1, -1, -1, 1]
  found = near_duplicates.find_identical(digests, np.array([0, 7, 5], np.uint64))
  assert found.partner.tolist() == [-1, 2, -1, 2]
  assert found.correlation.tolist() == [0, 1, 0, 1]


def test_what_is_sure_comes_first():
  sure = near_duplicates.find_identical(np.array([5, 5, 6], np.uint64))
  near = near_duplicates.find_identical(np.array([5, 6, 5], np.uint64))
  both = near_duplicates.merge(sure, near)
  assert both.partner.tolist() == [-1, 0, 0]
  assert both.correlation.tolist() == [0, 1, 1]
