"""The network against its published sizes, Flax's own layers and plain NumPy."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from sr3_jax.config import load_config
from sr3_jax.core import diffusion
from sr3_jax.core.networks import unet
from sr3_jax.core.sr3 import SR3
from tests.support.networks import random_weights

TINY = {'channels': 8, 'multipliers': (1, 2), 'num_blocks': 1}


def _inputs(batch=2, size=16, channels=6):
  rng = np.random.default_rng(0)
  x = rng.standard_normal((batch, size, size, channels), np.float32)
  return x, np.linspace(0.1, 0.9, batch, dtype=np.float32)


def _apply(network):
  return jax.jit(lambda params, *inputs: network.apply({'params': params}, *inputs))


# ------------------------------------------------------------- published sizes


@pytest.mark.parametrize(
  ('config', 'millions', 'blocks_at_16'),
  [
    ('faces_16_128', 550, 7),
    ('imagenet_64_256', 625, 7),
    ('faces_64_512', 625, 7),
    ('faces_256_1024', 150, 5),
  ],
)
def test_table_a1(config, millions, blocks_at_16):
  """Parameters of Table A.1 within 3 %, down to 8 x 8, attention at 16 x 16."""
  model = SR3.from_config(load_config(config))
  side = model.image_size
  inputs = jnp.zeros((1, side, side, 6))

  def init(key, inputs, gamma):
    return model.network.init(
      key, inputs, gamma, mutable=True, capture_intermediates=True
    )

  shapes = jax.eval_shape(init, jax.random.key(0), inputs, jnp.ones((1,)))
  params = jax.tree.leaves(shapes['params'])
  assert all(leaf.dtype == jnp.float32 for leaf in params)
  count = sum(leaf.size for leaf in params)
  assert abs(count / 1e6 / millions - 1) < 0.03, f'{count / 1e6:.1f}M'

  outputs = flatten_dict(shapes['intermediates'])
  outputs = {path[0]: out[0].shape for path, out in outputs.items() if len(path) == 2}
  sides = {shape[1] for name, shape in outputs.items() if name.startswith('down')}
  assert min(sides) == 8 and max(sides) == side
  assert outputs['middle_block0'][1:3] == (8, 8)
  attention = [shape[1] for name, shape in outputs.items() if 'attention' in name]
  assert sorted(attention) == [8] + [16] * blocks_at_16
  assert outputs['conv_out'] == (1, side, side, 3)


# ---------------------------------------------------------------------- layers


def _conv(layer, x):
  kernel, bias = jnp.asarray(layer['kernel']), layer['bias']
  numbers = ('NHWC', 'HWIO', 'NHWC')
  conv = jax.lax.conv_general_dilated
  return (
    conv(x, kernel, (1, 1), 'SAME', dimension_numbers=numbers) + bias[None, None, None]
  )


@pytest.mark.parametrize('tpu', [False, True])
@pytest.mark.parametrize('resample', ['', 'down', 'up'])
def test_res_block(resample, tpu):
  """NCSN++'s ResnetBlockBigGANpp, written out with Flax's and JAX's own operations."""
  x, emb = _inputs(2, 8, 8)[0], np.float32([[1, -2, 3], [0.5, 0, 1]])
  block = unet.ResBlock(8 if not resample else 12, resample, tpu=tpu)
  params = random_weights(block, x, emb, True)
  change = {
    '': lambda h: h,
    'down': lambda h: nn.avg_pool(h, (2, 2), (2, 2)),
    'up': lambda h: jax.image.resize(
      h, (h.shape[0], 2 * h.shape[1], 2 * h.shape[2], h.shape[3]), 'nearest'
    ),
  }[resample]

  def reference(p, x):
    def norm(name, h, groups):
      return nn.GroupNorm(groups).apply({'params': p[name]}, h)

    h = _conv(p['conv1'], change(nn.swish(norm('norm1', x, 2))))
    level = nn.swish(emb) @ p['emb']['kernel'] + p['emb']['bias'][None]
    h = h + level[:, None, None]
    h = _conv(p['conv2'], nn.swish(norm('norm2', h, block.channels // 4)))
    x = change(x)
    if resample:
      x = x @ p['skip']['kernel'] + p['skip']['bias'][None, None, None]
    return (x + h) / np.sqrt(2)

  found = jax.jit(lambda p: block.apply({'params': p}, x, emb, True))(params)
  truth = jax.jit(reference)(params, x)
  assert found.shape == truth.shape
  np.testing.assert_allclose(found, truth, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(('channels', 'heads'), [(24, 1), (128, 2), (200, 2)])
def test_attention(channels, heads):
  """Softmax attention over all positions, written out in NumPy."""
  x = _inputs(2, 4, channels)[0]
  layer = unet.Attention()
  params = random_weights(layer, x)
  found = _apply(layer)(params, x)
  h = nn.GroupNorm(min(channels // 4, 32) if channels < 200 else 25).apply(
    {'params': params['norm']}, x
  )
  h = np.asarray(h).reshape(2, 16, channels)
  qkv = h @ params['qkv']['kernel'] + params['qkv']['bias']
  out = np.zeros_like(h)
  width = channels // heads
  for head in range(heads):
    mine = qkv[..., 3 * head * width : 3 * (head + 1) * width]
    q, k, v = np.split(mine.astype(np.float64), 3, axis=-1)
    logits = q @ k.transpose(0, 2, 1) / np.sqrt(width)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    out[..., head * width : (head + 1) * width] = weights @ v
  out = out @ params['out']['kernel'] + params['out']['bias']
  truth = (x + out.reshape(x.shape)) / np.sqrt(2)
  np.testing.assert_allclose(found, truth, atol=1e-3, rtol=1e-3)


def test_fold():
  """A patch of p x p pixels becomes p * p * C channels, row by row; and back."""
  x = np.arange(2 * 6 * 9 * 2, dtype=np.float32).reshape(2, 6, 9, 2)
  folded = unet.fold(x, 3)
  assert folded.shape == (2, 2, 3, 18)
  for row in range(3):
    for column in range(3):
      at = 2 * (3 * row + column)
      np.testing.assert_array_equal(folded[..., at : at + 2], x[:, row::3, column::3])
  np.testing.assert_array_equal(unet.unfold(folded, 3), x)
  np.testing.assert_array_equal(unet.fold(x, 1), x)


# ----------------------------------------------------------------- noise level


def test_noise_embedding_separates_levels():
  """Distances between training levels, of at most 16 at width 128.

  Without a scale factor they are 0.03 to 0.9, which is the usual port's; with
  WaveGrad's they are 8 to 11.
  """
  gammas = diffusion.linear_gammas(2000)[[0, 1, 100, 500, 1000, 1500, 1999]]
  embedding = unet.noise_embedding(jnp.asarray(gammas, jnp.float32), 128)
  assert embedding.shape == (7, 128)
  np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 8, rtol=1e-5)
  distances = np.linalg.norm(np.diff(embedding, axis=0), axis=1)
  assert distances[1:].min() > 7
  # The clean image and the first level differ by 1e-6 in gamma.
  assert distances[0] > 1
  assert np.all(np.isfinite(unet.noise_embedding(jnp.array([0.0, 1.0]), 9)))


# ------------------------------------------------------------- the whole network


@pytest.fixture(scope='module')
def tiny():
  """A network with everything: attention, classes, two levels."""
  network = unet.UNet(**TINY, attention_levels=(1,), num_classes=3, out_channels=2)
  params = random_weights(network, *_inputs(), np.zeros(2, np.int32))
  return network, params, _apply(network)


def test_the_start(tiny):
  """Blocks and attention begin as the identity, and the prediction as zero."""
  network, params, apply = tiny
  label = np.zeros(2, np.int32)

  @jax.jit
  def start(key):  # only these are compiled, not the random ones
    params = network.init(key, *_inputs(), label)['params']

    def last(name, module):
      return {
        layer: leaf
        for layer, leaf in module.items()
        if (name == 'conv_out' or layer in ('conv2', 'out'))
      }

    return {name: last(name, module) for name, module in params.items()}

  zeros = start(jax.random.key(0))
  assert len(jax.tree.leaves(zeros)) == 2 * (10 + 4 + 1)  # blocks, attention, conv_out
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(zeros))
  out = apply(params | {'conv_out': zeros['conv_out']}, *_inputs(), label)
  assert out.shape == (2, 16, 16, 2) and out.dtype == jnp.float32
  np.testing.assert_array_equal(out, 0)


def test_an_example_depends_on_its_own_inputs_only(tiny):
  """Its image, its noise level and its label reach it alone."""
  _, params, apply = tiny
  x, gamma = _inputs()
  label = np.array([0, 3], np.int32)  # 3 is "no class"
  out = apply(params, x, gamma, label)
  swapped = apply(params, x[::-1], gamma[::-1], label[::-1])
  np.testing.assert_allclose(swapped, out[::-1], atol=1e-4)
  changes = (
    (x + np.float32([0.1, 0])[:, None, None, None], gamma, label),
    (x, np.float32([0.11, gamma[1]]), label),
    (x, gamma, np.array([1, 3], np.int32)),
  )
  for change in changes:
    changed = apply(params, *change)
    np.testing.assert_allclose(changed[1], out[1], atol=1e-5)
    assert np.abs(changed[0] - out[0]).max() > 1e-3


def test_classes_have_embeddings(tiny):
  _, params, _ = tiny
  assert params['label']['embedding'].shape == (4, 32)  # one for "no class"
  shapes = jax.eval_shape(unet.UNet(**TINY).init, jax.random.key(0), *_inputs())
  assert 'label' not in shapes['params']


def test_attention_is_where_it_was_asked_for():
  for levels, middle in (((), False), ((1,), False), ((0,), True)):
    network = unet.UNet(**TINY, attention_levels=levels, middle_attention=middle)
    shapes = jax.eval_shape(network.init, jax.random.key(0), *_inputs())
    names = sorted(name for name in shapes['params'] if 'attention' in name)
    blocks = [f'{way}{level}_block' for level in levels for way in ('down', 'up', 'up')]
    truth = [
      f'{block}{i}_attention' for block, i in zip(blocks, (0, 0, 1), strict=False)
    ]
    assert names == sorted(truth + ['middle_attention'] * middle)


@pytest.mark.parametrize('patch', [1, 2])
def test_sizes(patch):
  """Any multiple, not only squares or the size of training; else a clear error."""
  network = unet.UNet(**TINY, attention_levels=(), middle_attention=False, patch=patch)
  params = jax.eval_shape(network.init, jax.random.key(0), *_inputs())
  gamma = jnp.ones((2,))

  def run(h, w):
    return jax.eval_shape(network.apply, params, jnp.ones((2, h, w, 6)), gamma)

  assert run(24, 40).shape == (2, 24, 40, 3)
  for height, width in ((16, 15), (15, 16), (16, 2 * patch - 1)):
    with pytest.raises(
      ValueError, match=rf'multiples of {2 * patch}: {height} x {width}'
    ):
      run(height, width)


def test_odd_channel_counts_build():
  """Widths that neither 4 nor 32 nor heads of 64 divide."""
  for channels in (5, 30, 104, 200):
    network = unet.UNet(**{**TINY, 'channels': channels}, attention_levels=(1,))
    jax.eval_shape(network.init, jax.random.key(0), *_inputs())


def test_dropout_acts_in_training_only():
  network = unet.UNet(**{**TINY, 'multipliers': (1,)}, dropout=0.5)
  x, gamma = _inputs()
  params = random_weights(network, x, gamma)

  @jax.jit
  def run(key):
    return [
      network.apply(
        {'params': params}, x, gamma, deterministic=d, rngs={'dropout': key}
      )
      for d in (True, False)
    ]

  (calm, dropped), (calm2, dropped2) = run(jax.random.key(0)), run(jax.random.key(1))
  np.testing.assert_array_equal(calm, calm2)
  assert np.abs(dropped - calm).max() > 1e-2
  assert np.abs(dropped - dropped2).max() > 1e-2


def test_remat_changes_memory_only():
  """Same parameters, same gradients; and blocks really are recomputed."""
  x, gamma = _inputs(size=8)
  gradients, convolutions = [], []
  for remat, keep in ((False, 'inputs'), (True, 'inputs'), (True, 'convolutions')):
    network = unet.UNet(**{**TINY, 'multipliers': (1,)}, remat=remat, keep=keep)
    params = random_weights(network, x, gamma)

    def loss(params, n=network):
      return jnp.square(n.apply({'params': params}, x, gamma)).mean()

    program = str(jax.make_jaxpr(jax.grad(loss))(params))
    # One down, two in the middle with attention between, two up.
    assert program.count('remat') >= (6 if remat else 0)
    assert remat or 'remat' not in program
    convolutions.append(program.count('= conv_general_dilated'))
    gradients.append(jax.jit(jax.grad(loss))(params))
  for found in gradients[1:]:
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-3),
      found,
      gradients[0],
    )
  # The first of each of five blocks runs again, unless its result is kept.
  none, inputs, kept = convolutions
  assert inputs == none + 5
  assert kept == none


def test_bfloat16_computes_between_float32_ends():
  x, gamma = _inputs()
  options = {**TINY, 'multipliers': (1,), 'middle_attention': False}
  exact, rough = (unet.UNet(**options, dtype=d) for d in (jnp.float32, jnp.bfloat16))
  params = random_weights(rough, x, gamma)
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
  truth, found = (_apply(network)(params, x, gamma) for network in (exact, rough))
  assert found.dtype == jnp.float32
  error = np.abs(found - truth).max() / truth.std()
  assert 1e-4 < error < 0.2
  # No convolution or matrix product is left in float32: they are the cost on a TPU.
  program = str(jax.make_jaxpr(_apply(rough))(params, x, gamma))
  products = re.findall(r':(\w+)\[[\d,]*\] = (?:conv_general|dot_general)', program)
  assert len(products) > 10 and set(products) == {'bf16'}
