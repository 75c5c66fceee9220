"""`sr3-evaluate --networks dists`, from a folder of weights to the table."""

import numpy as np
import PIL.Image
import pytest

from sr3_jax import options
from sr3_jax.evaluation import command as evaluation_command
from sr3_jax.metrics import net_weights
from sr3_jax.reports import data as reports_data
from tests.support import image_folders
from tests.support import oracles_features as originals
from tests.support.image_folders import NAMES, SIZES, arguments

folders = image_folders.folders


def test_dists_of_folders(folders, tmp_path):
  """Plain NumPy on the same files; those of 16 pixels are too small."""
  state = originals.random_state(originals.dists_shapes())
  net_weights.save(tmp_path / 'dists.safetensors', state, {})
  more = [f'--weights={tmp_path}', '--networks', 'dists']
  assert evaluation_command.main(arguments(folders, 'dists', *more)) == 0
  report = reports_data.load(folders / 'dists')
  expected = []
  for name, size in zip(NAMES, SIZES, strict=True):
    if min(size) > 16:
      mine, truth = (
        np.asarray(PIL.Image.open(folders / kind / f'{name}.png')).transpose(2, 0, 1)
        for kind in ('mine', 'truth')
      )
      pair = (np.float64(x)[None] / 127.5 - 1 for x in (mine, truth))
      expected += originals.dists(originals.Plain(state), state, *pair).tolist()
  assert len(expected) == 5
  entry = report.data['table']['mine']['dists']
  assert entry['value'] == pytest.approx(np.mean(expected), rel=1e-4)
  left_out = {key: x['why'] for x in report.data['left_out'] for key in x['metrics']}
  assert '3 of 8 images are left out, smaller than 17 x 17' in left_out['dists']
  assert report.data['perceptual'] == 'dists'
  found = reports_data.values(report)['mine/dists']
  np.testing.assert_allclose(found[:5], expected, rtol=1e-4)
  assert np.isnan(found[5:]).all()


def test_dists_is_measured_only_where_it_is_named():
  parser = evaluation_command.make_parser()
  given = parser.parse_args(['--truth=a', '--outputs=b'])
  assert 'dists' not in given.networks and 'lpips_vgg' in given.networks
  assert given.networks == options.EVAL['networks'].default
