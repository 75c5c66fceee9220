"""Classifiers in ONNX files: tiny ones, made here, against NumPy and Pillow."""

import numpy as np
import pytest
from PIL import Image

from sr3_jax.metrics import classifier
from sr3_jax.metrics.classifier import ClassifierError

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
helper, TensorProto = onnx.helper, onnx.TensorProto

CLASSES = 5


def _model(path, shape, *, dtype='FLOAT', axes=None, extra_input=False):
  """Mean over pixels, then a matrix of classes: saved, and the matrix returned."""
  channels = 1 if shape[1] == 1 else 3
  matrix = np.float32(np.random.default_rng(0).standard_normal((channels, CLASSES)))
  kind = getattr(TensorProto, dtype)
  axes = axes or ([1, 2] if shape[-1] == 3 else [2, 3])
  nodes = [
    helper.make_node('ReduceMean', ['x', 'axes'], ['pooled'], keepdims=0),
    helper.make_node('MatMul', ['pooled', 'matrix'], ['classes']),
  ]
  inputs = [helper.make_tensor_value_info('x', kind, shape)]
  if extra_input:
    inputs.append(helper.make_tensor_value_info('y', kind, [1]))
  graph = helper.make_graph(
    nodes,
    'tiny',
    inputs,
    [helper.make_tensor_value_info('classes', kind, None)],
    [
      helper.make_tensor('axes', TensorProto.INT64, [len(axes)], axes),
      helper.make_tensor('matrix', kind, matrix.shape, matrix.ravel()),
    ],
  )
  model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)])
  model.ir_version = 10
  onnx.save(model, path)
  return matrix


def _images(shape=(3, 8, 6, 3), seed=1):
  return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def _expected(images, matrix, mean=classifier.MEAN, std=classifier.STD):
  x = (np.float64(images) + 1) / 2
  return ((x - mean) / std).mean((1, 2)) @ matrix


@pytest.mark.parametrize(
  'shape, batch',
  [
    (['batch', 3, 8, 6], 0),
    ([None, 8, 6, 3], 0),
    ([2, 3, 8, 6], 2),
    ([7, 8, 6, 3], 7),
  ],
)
def test_logits_in_every_layout(tmp_path, shape, batch):
  matrix = _model(tmp_path / 'net.onnx', shape)
  net = classifier.load(tmp_path / 'net.onnx')
  assert (net.side, net.batch) == ((8, 6), batch)
  images = _images()
  np.testing.assert_allclose(net.logits(images), _expected(images, matrix), atol=1e-5)


def test_images_of_another_size_are_resized_as_pillow_does(tmp_path):
  matrix = _model(tmp_path / 'net.onnx', ['b', 3, 8, 6])
  net = classifier.load(tmp_path / 'net.onnx')
  images = _images((2, 21, 17, 3))

  def resize(channel):
    return np.asarray(Image.fromarray(channel).resize((6, 8), Image.Resampling.BICUBIC))

  small = np.stack([[resize(image[..., c]) for c in range(3)] for image in images])
  expected = _expected(np.moveaxis(small, 1, -1), matrix)
  np.testing.assert_allclose(net.logits(images), expected, atol=1e-5)


def test_open_sizes_mean_224(tmp_path):
  matrix = _model(tmp_path / 'net.onnx', ['b', 3, 'h', 'w'])
  net = classifier.load(tmp_path / 'net.onnx')
  assert net.side == (224, 224)
  images = np.broadcast_to(_images((1, 1, 1, 3)), (1, 224, 224, 3))
  # 50,176 float32 values are summed.
  np.testing.assert_allclose(net.logits(images), _expected(images, matrix), atol=1e-3)


def test_half_precision_and_own_normalisation(tmp_path):
  matrix = _model(tmp_path / 'net.onnx', ['b', 3, 8, 6], dtype='FLOAT16')
  normal = {'mean': (0.5, 0.5, 0.5), 'std': (0.5, 0.25, 1.0)}
  net = classifier.load(tmp_path / 'net.onnx', **normal)
  images = _images()
  logits = net.logits(images)
  assert logits.dtype == np.float32
  np.testing.assert_allclose(logits, _expected(images, matrix, **normal), atol=0.02)


def test_fingerprint_is_of_the_file(tmp_path):
  _model(tmp_path / 'a.onnx', ['b', 3, 8, 6])
  _model(tmp_path / 'b.onnx', ['b', 3, 8, 7])
  a, b = (classifier.load(tmp_path / f'{name}.onnx') for name in 'ab')
  assert a.fingerprint != b.fingerprint and len(a.fingerprint) == 16
  assert a.fingerprint in a.about and '8 x 6' in a.about


def test_what_is_no_classifier_is_refused_in_one_line(tmp_path):
  path = tmp_path / 'net.onnx'

  def refused():
    with pytest.raises(ClassifierError) as error:
      classifier.load(path).logits(_images())
    assert '\n' not in str(error.value)
    return str(error.value)

  assert refused() == f'{path}: no such file'
  path.write_bytes(b'not ONNX')
  assert refused().startswith(f'{path}: cannot be read as an ONNX model: ')
  _model(path, ['b', 3, 8, 6], extra_input=True)
  assert 'takes 2 inputs' in refused()
  _model(path, ['b', 3, 8, 6], dtype='DOUBLE')
  assert 'takes tensor(double)' in refused()
  _model(path, ['b', 1, 8, 6])
  assert 'should take [images, 3, height, width]' in refused()
  _model(path, ['b', 3, 8, 6], axes=[0, 2, 3])  # the mean over the batch too
  assert 'should be [images, classes], for 3 images it is [5]' in refused()


def test_hits():
  logits = np.array([[3, 1, 2], [3, 1, 2], [1, 1, 1], [0, 0, 5]])
  labels = np.array([0, 2, 1, 2])
  top = [classifier.top_k_hits(logits, labels, k).tolist() for k in (1, 2, 3)]
  assert top[0] == [True, False, False, True]
  assert top[1] == [True, True, False, True]
  assert top[2] == [True, True, True, True]
  with pytest.raises(ValueError, match='labels go from 0 to 3'):
    classifier.top_k_hits(logits, [*labels[:3], 3], 1)
