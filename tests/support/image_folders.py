"""Folders of real 8-bit files of two sizes, for tests of evaluate.py."""

import functools
import pathlib

import numpy as np
import PIL.Image
import pytest
import skimage.data

from sr3_jax.metrics import feature_nets, net_weights
from tests.support import feature_networks

SIZES = [(24, 24)] * 5 + [(20, 16)] * 3  # height, width; four times the inputs
NAMES = [*'abcde', 'sub/f', 'sub/g', 'sub/h']
LOADERS = {
  'inception': lambda: feature_networks.inception(),
  'lpips_vgg': lambda: feature_networks.lpips('lpips_vgg'),
}


@functools.cache
def photograph() -> np.ndarray:
  return skimage.data.astronaut()


def crop(place: int, height: int, width: int) -> PIL.Image.Image:
  """A part of the photograph, without its darkest and brightest levels."""
  photo = photograph()[40 * place : 40 * place + 4 * height, 150:]
  small = PIL.Image.fromarray(photo[:, : 4 * width]).resize((width, height))
  return small.point(lambda level: 40 + level * 0.7)


@pytest.fixture(scope='module')
def folders(tmp_path_factory) -> pathlib.Path:
  """truth/, small/ (inputs), mine/ (noise, PNG), theirs/ (JPEG), labels and a network.

  One truth is alone, one of mine is broken.
  """
  root = tmp_path_factory.mktemp('folders')
  noise = np.random.default_rng(0)

  def save(image: PIL.Image.Image, name: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    image.save(root / name)

  for place, (name, size) in enumerate(zip(NAMES, SIZES, strict=True)):
    truth = crop(place, *size)
    low = truth.resize((size[1] // 4, size[0] // 4), PIL.Image.Resampling.BICUBIC)
    mine = np.asarray(truth, float) + noise.normal(0, 4 + 3 * place, (*size, 3))
    save(truth, f'truth/{name}.png')
    save(low, f'small/{name}.png')
    save(
      PIL.Image.fromarray(np.clip(mine, 0, 255).astype(np.uint8)), f'mine/{name}.png'
    )
    save(truth, f'theirs/{name}.jpg')
  save(crop(2, 24, 24), 'truth/alone.png')
  for folder in ('truth', 'small', 'theirs'):
    save(crop(3, 24, 24), f'{folder}/broken.png')
  (root / 'mine' / 'broken.png').write_bytes(b'broken')
  (root / 'labels.txt').write_text(
    ''.join(f'{name} {i % 7}\n' for i, name in enumerate(NAMES)) + '\nnobody 1\n'
  )
  return root


@pytest.fixture(scope='module')
def network(folders) -> pathlib.Path:
  """Seven classes from the mean colour, as ONNX."""
  onnx = pytest.importorskip('onnx')
  pytest.importorskip('onnxruntime')
  helper, types = onnx.helper, onnx.TensorProto
  matrix = np.random.default_rng(3).normal(size=(3, 7)).astype(np.float32)
  graph = helper.make_graph(
    [
      helper.make_node('ReduceMean', ['x', 'axes'], ['pooled'], keepdims=0),
      helper.make_node('MatMul', ['pooled', 'matrix'], ['classes']),
    ],
    'tiny',
    [helper.make_tensor_value_info('x', types.FLOAT, ['b', 3, 16, 16])],
    [helper.make_tensor_value_info('classes', types.FLOAT, None)],
    [
      helper.make_tensor('axes', types.INT64, [2], [2, 3]),
      helper.make_tensor('matrix', types.FLOAT, matrix.shape, matrix.ravel()),
    ],
  )
  model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)])
  model.ir_version = 10
  onnx.save(model, folders / 'net.onnx')
  return folders / 'net.onnx'


def load(name, folder):
  """Tiny networks in the place of two; the weights of the third are missing."""
  if name not in LOADERS:
    raise net_weights.WeightsMissing(f'{name}: download them')
  return LOADERS[name]()


@pytest.fixture
def tiny_networks(monkeypatch):
  monkeypatch.setattr(feature_nets, 'load', load)


def arguments(folders, report='report', *more: str) -> list[str]:
  return [
    f'--truth={folders / "truth"}',
    '--outputs',
    str(folders / 'mine'),
    f'other one={folders / "theirs"}',
    f'--report={folders / report}',
    '--cache=',
    *more,
  ]
