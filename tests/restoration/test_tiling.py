"""Plans of canvases, tiles and their windows; mirrored borders."""

import math

import numpy as np
import pytest

from sr3_jax.restoration import tiling
from sr3_jax.restoration.tiling import MAX_WASTE, Planner, output_size


def planner(sides=(64, 128, 256), **options):
  options = {'scale': 4, 'multiple': 4, 'pad': 16, 'at_once': 1} | options
  return Planner(sides=sides, **options)


@pytest.mark.parametrize(
  'size, outscale, runs',
  [
    ((10, 20), 4, [(10, 20)]),
    ((10, 20), 2, [(10, 20)]),  # reduced afterwards: the input is used as it is
    ((10, 20), 0.5, [(10, 20)]),
    ((10, 20), 4.1, [(10, 20), (11, 21)]),  # 41 x 82 from 11 x 21, made 4 x larger
    ((10, 20), 16, [(10, 20), (40, 80)]),
    ((10, 20), 20, [(10, 20), (40, 80), (50, 100)]),
    ((1, 1), 6, [(1, 1), (2, 2)]),
  ],
)
def test_passes(size, outscale, runs):
  plan = planner()
  assert plan.passes(size, outscale) == runs
  # Every run is given no less than the one before produced or the output needs.
  assert all(
    have * 4 >= want
    for have, want in zip(runs[-1], output_size(size, outscale), strict=True)
  )


def test_passes_of_thousands_of_scales_reach_the_output():
  for outscale in np.linspace(0.3, 60, 500):
    runs = planner().passes((7, 5), outscale)
    assert len(runs) == max(1, math.ceil(math.log(outscale, 4) - 1e-9))
    for want, have in zip(output_size((7, 5), outscale), runs[-1], strict=True):
      assert have * 4 >= want


def test_layouts_hold_the_image_and_depend_on_its_size_only():
  plan = planner()
  for size in [(1, 1), (16, 16), (17, 3), (32, 32), (33, 33), (90, 200), (64, 1000)]:
    layout = plan.layout(size)
    height, width = plan.output(size)
    cover = plan.cover((height, width), layout)
    assert cover[0][0][-1] + layout.tile[0] >= height
    assert cover[1][0][-1] + layout.tile[1] >= width
    assert layout.height >= cover[0][0][-1] + layout.tile[0]
    assert layout.width >= cover[1][0][-1] + layout.tile[1]
    assert layout.height % 32 == layout.width % 32 == 0
    # Whatever other canvases there are, the tile is the same.
    other = planner()
    other.reserve([(500, 500)])
    assert other.layout(size).tile == layout.tile


def test_small_images_share_a_program_and_large_ones_a_canvas():
  plan = planner()
  assert {plan.layout((n, m)) for n in range(1, 17) for m in (1, 16)} == {
    plan.layout((16, 16))
  }
  sizes = [(h, w) for h in range(1, 200, 7) for w in range(1, 200, 11)]
  plan.reserve(sizes)
  assert len({plan.layout(size) for size in sizes}) == 3


def test_one_huge_image_does_not_cost_the_small_ones():
  plan = planner()
  plan.reserve([(40, 40), (4000, 100), (100, 4000)])
  small = plan.layout((40, 40))
  assert small.height * small.width <= MAX_WASTE * 160**2
  tall, wide = plan.layout((4000, 100)), plan.layout((100, 4000))
  assert tall.height > tall.width and wide.width > wide.height


def test_long_and_narrow_outputs_have_narrow_tiles():
  plan = planner()
  assert plan.layout((2, 4000)) == ((64, 256), 64, 16384, 1, True)
  plan.reserve([(2, 4000), (4000, 20), (300, 400)])
  assert plan.layout((2, 4000))[:3] == ((64, 256), 64, 16000)
  assert plan.layout((4000, 20))[:3] == ((256, 128), 16000, 128)
  assert plan.layout((300, 400))[:3] == ((256, 256), 1216, 1600)
  assert plan.count((8, 16000), plan.layout((2, 4000))) == 72


def test_no_tiles():
  plan = planner(sides=(0,))
  plan.reserve([(1000, 1000)])
  layout = plan.layout((30, 50))
  assert layout.tile == (layout.height, layout.width) == (128, 224)
  assert plan.work((30, 50)) == 128 * 224 // 64**2


def test_halving_stops_at_the_network():
  plan = planner(sides=(64, 128), pad=32)
  layout = plan.layout((200, 200))
  assert plan.halve(layout) == 64 and plan.sides == (64,)
  assert plan.pad == 16  # a quarter of the tile
  assert plan.layout((200, 200)).tile == (64, 64)
  assert plan.halve(plan.layout((200, 200))) == 32
  assert plan.halve(plan.layout((200, 200))) == 0


# --------------------------------------------------------------------------- tiles


@pytest.mark.parametrize('length', [1, 64, 65, 100, 129, 1000])
@pytest.mark.parametrize('tile, pad, multiple', [(64, 8, 4), (64, 16, 16), (32, 0, 8)])
def test_tiles_cover_and_their_windows_add_up_to_one(length, tile, pad, multiple):
  starts, windows = tiling.cover(length, tile, pad, multiple)
  total = max(tiling.round_up(length, multiple), tile)
  weight = np.zeros(total)
  for start, window in zip(starts, windows, strict=True):
    weight[start : start + tile] += window
  np.testing.assert_allclose(weight, 1, atol=1e-6)
  assert starts[0] == 0 and starts[-1] + tile == total
  assert np.all(starts % multiple == 0) and windows.min() >= 0
  assert np.all(np.diff(starts) <= max(tile - 2 * pad, multiple))


def test_windows_ignore_what_lies_at_the_edge_and_fade_smoothly():
  """Within pad / 2 of an inner edge a tile counts for nothing; at borders it counts."""
  starts, windows = tiling.cover(112, tile=64, pad=8, multiple=4)
  assert list(starts) == [0, 48]  # an overlap of 16 = 2 pad
  assert np.all(windows[0][60:] == 0) and np.all(windows[1][:4] == 0)
  assert np.all(windows[0][:52] == 1) and np.all(windows[1][12:] == 1)
  fade = windows[0][48:64]
  assert np.all(np.diff(fade) <= 0) and np.abs(np.diff(fade)).max() < 0.25
  np.testing.assert_allclose(fade, windows[1][:16][::-1], atol=1e-6)


def test_seam():
  """White noise has no borders; a step of 1 at two of them, over a mean of 1.13."""
  rng = np.random.default_rng(0)
  image = rng.standard_normal((400, 400, 3))
  rows = columns = np.array([100, 200, 300])
  assert abs(tiling.seam(image, rows, columns) - 1) < 0.02
  image[200:] += 20
  assert tiling.seam(image, rows, columns) > 1.5
  assert tiling.seam(image, rows + 20, columns) < 1


def test_mirror():
  image = np.arange(6, dtype=np.float32).reshape(2, 3, 1)
  wide = tiling.mirror(image, 5, 7)[..., 0]
  np.testing.assert_array_equal(wide[0], [0, 1, 2, 2, 1, 0, 0])
  np.testing.assert_array_equal(wide[:, 0], [0, 3, 3, 0, 0])
  assert tiling.mirror(image[:1, :1], 4, 4).max() == 0  # a single pixel
