"""Masks: what the papers say of their area, brushes against distances, fair draws."""

import jax
import numpy as np
import pytest
import scipy.spatial
import scipy.stats
import skimage.draw
import skimage.measure

from sr3_jax.core.degradations import masks

COUNT, SIDE = 256, 32
KEYS = jax.random.split(jax.random.key(0), COUNT)
KINDS = {
  'rectangles': masks.rectangles,
  'free_form': masks.free_form,
  'inpainting': masks.inpainting,
  'uncropping': masks.uncropping,
}


@pytest.fixture(scope='module')
def drawn():
  """Kind -> float32 [256, 32, 32, 1], drawn in a compiled function."""

  def draw(k):
    return {kind: f(k, SIDE, SIDE) for kind, f in KINDS.items()}

  return jax.device_get(jax.jit(draw)(KEYS))


@pytest.mark.parametrize('kind', KINDS)
def test_masks_are_zeros_and_ones(kind, drawn):
  mask = drawn[kind]
  assert mask.shape == (COUNT, SIDE, SIDE, 1) and mask.dtype == np.float32
  assert set(np.unique(mask)) == {0.0, 1.0}
  area = mask.mean((1, 2, 3))
  assert area.min() > 0 and area.max() < 0.75
  # Nothing is drawn twice, but for the five masks of uncropping.
  assert len(np.unique(mask, axis=0)) == (5 if kind == 'uncropping' else COUNT)


@pytest.mark.parametrize('kind', KINDS)
def test_an_example_depends_on_its_key_alone(kind, drawn):
  """Results stay in another order and batch size, and without jit."""
  some = np.array([7, 3, 90])
  np.testing.assert_array_equal(KINDS[kind](KEYS[some], SIDE, SIDE), drawn[kind][some])


def test_rectangles_hide_palettes_share(drawn):
  mask = drawn['rectangles'][..., 0]
  area = mask.mean((1, 2))
  assert area.min() >= 0.1 and area.max() <= 0.4
  # Uniform from 10 to 40 %: the edges of whole pixels move it by little.
  assert scipy.stats.kstest(area, 'uniform', (0.1, 0.3)).statistic < 0.08


def test_rectangles_are_one_to_five(drawn):
  """Upper left corners and components say how many there are at least."""
  mask = np.pad(drawn['rectangles'][..., 0] > 0, ((0, 0), (1, 0), (1, 0)))
  here, above, left = mask[:, 1:, 1:], mask[:, :-1, 1:], mask[:, 1:, :-1]
  corners = (here & ~above & ~left).sum((1, 2))
  assert corners.min() == 1 and corners.max() == 5
  parts = [skimage.measure.label(m, connectivity=1) for m in mask]
  assert max(p.max() for p in parts) >= 4
  # One rectangle fills its bounding box: a fifth of the masks, and the few in which
  # the others are hidden behind it or continue it.
  alone = [
    p.max() == 1 and skimage.measure.regionprops(p)[0].extent == 1 for p in parts
  ]
  assert 0.14 < np.mean(alone) < 0.3


def test_free_form_area_is_spread(drawn):
  area = drawn['free_form'].mean((1, 2, 3))
  low, quarter, three_quarters, high = np.percentile(area, [4, 25, 75, 97])
  assert low > 0.04 and high < 0.55
  assert quarter < 0.18 and three_quarters > 0.3


@pytest.mark.parametrize('kind', ['rectangles', 'free_form'])
def test_masks_look_alike_at_other_sizes(kind, drawn):
  """The same key at twice the size, every second pixel: the same mask but for edges."""
  large = KINDS[kind](KEYS[:40], 2 * SIDE, 2 * SIDE)
  small = drawn[kind][:40, ..., 0]
  shrunk = np.asarray(large)[..., 0].reshape(40, SIDE, 2, SIDE, 2).mean((2, 4))
  assert abs(shrunk - small).mean() < 0.05
  assert abs(shrunk.mean() - small.mean()) < 0.01


@pytest.mark.parametrize('kind', ['rectangles', 'free_form', 'inpainting'])
def test_no_corner_is_preferred(kind, drawn):
  """The mean mask equals itself mirrored and turned, within its standard error."""
  mask = drawn[kind][..., 0]
  for half, other in [
    (mask[:, :16], mask[:, 16:]),  # above, below
    (mask[:, :, :16], mask[:, :, 16:]),  # left, right
    (mask[:, :16, :16], mask[:, 16:, 16:]),
    (mask[:, 8:24], mask[:, :, 8:24]),  # middle rows, middle columns
  ]:
    difference = half.mean((1, 2)) - other.mean((1, 2))
    assert abs(difference.mean()) < 3.5 * difference.std() / COUNT**0.5


def test_strokes_are_few_and_unbroken(drawn, monkeypatch):
  """At most five, each in one piece, even of a brush of an eighth of a pixel."""

  def pieces(mask):
    return [skimage.measure.label(m, connectivity=2).max() for m in mask]

  parts = pieces(drawn['free_form'][..., 0])
  assert min(parts) == 1 and 3 <= max(parts) <= 5
  monkeypatch.setattr(masks, 'RADIUS', (0.5 / 256, 1 / 256))
  parts = pieces(masks.free_form(KEYS[:64], SIDE, SIDE)[..., 0])
  assert min(parts) == 1 and 3 <= max(parts) <= 5


def test_brush_is_the_distance_to_a_segment():
  """SciPy's nearest of many points on the segments, within what is between them."""
  start = np.array([[3.2, 4.1], [20.0, 25.5], [10.0, 2.0], [1.0, 30.0]], np.float32)
  stop = np.array([[15.7, 21.3], [20.0, 25.5], [28.0, 2.0], [1.0, 22.0]], np.float32)
  radius = np.array([2.3, 4.2, 1.1, 0.0], np.float32)  # the last one draws nothing
  found = jax.jit(masks.brush, static_argnums=(3, 4))(start, stop, radius, 32, 28)
  grid = np.indices((32, 28)).reshape(2, -1).T + 0.5
  truth, near_edge = np.zeros(32 * 28, bool), np.zeros(32 * 28, bool)
  for a, b, r in zip(start[:3], stop[:3], radius[:3], strict=True):
    points = a + np.linspace(0, 1, 4001)[:, None] * (b - a)
    distance = scipy.spatial.KDTree(points).query(grid)[0]
    truth |= distance < r
    near_edge |= abs(distance - r) < 1e-3
  assert near_edge.sum() < 3
  np.testing.assert_array_equal(found.ravel()[~near_edge], truth[~near_edge])


def test_a_dot_is_a_disk():
  """A segment of no length against scikit-image; its pixels' centres are whole."""
  at = np.array([[9.3, 12.8]], np.float32)
  found = masks.brush(at, at, np.array([5.4]), 24, 24)
  truth = np.zeros((24, 24), bool)
  truth[skimage.draw.disk(at[0] - 0.5, 5.4, shape=truth.shape)] = True
  np.testing.assert_array_equal(found, truth)


def test_inpainting_mixes_as_palette(drawn):
  """Straight edges show which of the two a mask is."""

  def rounded(mask):
    # A round brush leaves stairs; a union of 5 rectangles has at most 5 + 5 rows in
    # which it differs from the row above, and as many columns.
    mask = mask[..., 0] > 0
    rows = (mask[:, 1:] != mask[:, :-1]).any(2).sum(1)
    columns = (mask[:, :, 1:] != mask[:, :, :-1]).any(1).sum(1)
    return ((rows > 10) | (columns > 10)).mean()

  assert rounded(drawn['rectangles']) == 0
  missed = 1 - rounded(drawn['free_form'])
  assert missed < 0.12
  spread = 3.5 * (0.6 * 0.4 / COUNT) ** 0.5
  assert abs(rounded(drawn['inpainting']) - 0.6 * (1 - missed)) < spread
  draw = jax.jit(lambda share: masks.inpainting(KEYS[:64], SIDE, SIDE, share))
  assert rounded(np.asarray(draw(0.0))) == 0
  assert rounded(np.asarray(draw(1.0))) > 0.8


def test_uncropping_hides_half(drawn):
  mask = drawn['uncropping'][..., 0]
  sides = {
    'top': np.s_[:16, :],
    'bottom': np.s_[16:, :],
    'left': np.s_[:, :16],
    'right': np.s_[:, 16:],
  }
  counts = {}
  for side, part in sides.items():
    truth = np.zeros((SIDE, SIDE))
    truth[part] = 1
    counts[side] = (mask == truth).all((1, 2)).sum()
  around = np.ones((SIDE, SIDE))
  around[5:27, 5:27] = 0  # 22 of 32: nearest to sqrt(1/2) with whole margins
  counts['all'] = (mask == around).all((1, 2)).sum()
  assert sum(counts.values()) == COUNT
  assert abs(counts['all'] - COUNT / 2) < 3.5 * (COUNT / 4) ** 0.5
  for side in sides:
    assert abs(counts[side] - COUNT / 8) < 3.5 * (COUNT * 7 / 64) ** 0.5


@pytest.mark.parametrize(('sides', 'kinds'), [('one', 4), ('all', 1)])
def test_uncropping_of_chosen_sides(sides, kinds):
  mask = np.asarray(masks.uncropping(KEYS[:40], 48, 60, sides=sides))
  assert len(np.unique(mask, axis=0)) == kinds
  np.testing.assert_allclose(mask.mean((1, 2, 3)), 0.5, atol=0.03)
  assert mask[:, 24, 30, 0].any() == (sides == 'one')  # the centre is known
  corners = mask[:, [0, 0, -1, -1], [0, -1, 0, -1], 0].sum(1)
  assert (corners == {'one': 2, 'all': 4}[sides]).all()


def test_border_is_numpys_pad():
  known = np.zeros((1, 5, 7, 1))
  truth = np.pad(known, ((0, 0), (2, 0), (1, 3), (0, 0)), constant_values=1)
  found = masks.border(7, 11, top=2, bottom=0, left=1, right=3)
  assert found.dtype == np.float32
  np.testing.assert_array_equal(found, truth)
  assert not masks.border(4, 4, 0, 0, 0, 0).any()


def test_border_refuses_what_leaves_nothing():
  with pytest.raises(ValueError, match='0 or more pixels'):
    masks.border(8, 8, -1, 0, 0, 0)
  with pytest.raises(ValueError, match='nothing known is left of 8 x 9 pixels'):
    masks.border(8, 9, 4, 4, 0, 0)
