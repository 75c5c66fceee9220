"""The networks of FID, LPIPS and DISTS, written down once more from their publications.

As functions of a set of layers, so that the same text runs in plain NumPy (float64,
[B, C, H, W]), in PyTorch, and on nothing but channel numbers, which gives the names and
shapes of the weights. Names are those of the PyTorch state dicts.
"""

import numpy as np

State = dict[str, np.ndarray]


class Shapes:
  """x is a number of channels; `found` gathers name -> shape."""

  def __init__(self):
    self.found: dict[str, tuple[int, ...]] = {}

  def conv(self, x, name, out, size, stride=1, pad=0):
    self.found |= {f'{name}.weight': (out, x, *size), f'{name}.bias': (out,)}
    return out

  def normed(self, x, name, out, size, stride=1, pad=(0, 0)):
    self.found[f'{name}.conv.weight'] = (out, x, *size)
    for part in ('weight', 'bias', 'running_mean', 'running_var'):
      self.found[f'{name}.bn.{part}'] = (out,)
    self.found[f'{name}.bn.num_batches_tracked'] = ()
    return out

  def max_pool(self, x, size, stride, pad=0):
    return x

  def l2_pool(self, x):
    return x

  def average_pool(self, x):
    return x

  def join(self, parts):
    return sum(parts)


class Plain:
  """NumPy, float64."""

  def __init__(self, state: State):
    self.state = state

  def conv(self, x, name, out, size, stride=1, pad=0):
    return np.maximum(self._conv(x, name, stride, (pad, pad)), 0)

  def normed(self, x, name, out, size, stride=1, pad=(0, 0)):
    x = self._conv(x, f'{name}.conv', stride, pad)
    weight, bias, mean, variance = (
      np.float64(self.state[f'{name}.bn.{part}'])[:, None, None]
      for part in ('weight', 'bias', 'running_mean', 'running_var')
    )
    return np.maximum((x - mean) / np.sqrt(variance + 1e-3) * weight + bias, 0)

  def _conv(self, x, name, stride, pad):
    weight = np.float64(self.state[f'{name}.weight'])
    windows = _windows(x, weight.shape[2:], stride, pad, 0)
    y = np.einsum('bchwij,ocij->bohw', windows, weight, optimize=True)
    bias = self.state.get(f'{name}.bias', np.zeros(len(weight)))
    return y + np.float64(bias)[:, None, None]

  def max_pool(self, x, size, stride, pad=0):
    return _windows(x, (size, size), stride, (pad, pad), -np.inf).max((-1, -2))

  def l2_pool(self, x):
    windows = _windows(x**2, (3, 3), 2, (1, 1), 0)
    return np.einsum('bchwij,ij->bchw', windows, _hann()) ** 0.5

  def average_pool(self, x):
    return np.nanmean(_windows(x, (3, 3), 1, (1, 1), np.nan), (-1, -2))

  def join(self, parts):
    return np.concatenate(parts, axis=1)

  def constant(self, value):
    return value


def _hann():
  side = np.hanning(5)[1:-1]
  return np.outer(side, side) / side.sum() ** 2


def _windows(x, size, stride, pad, value):
  pads = ((0, 0), (0, 0), (pad[0], pad[0]), (pad[1], pad[1]))
  x = np.pad(x, pads, constant_values=value)
  windows = np.lib.stride_tricks.sliding_window_view(x, size, (2, 3))
  return windows[:, :, ::stride, ::stride]


class Torch:
  """PyTorch, float32."""

  def __init__(self, state: State):
    import torch

    self.f = torch.nn.functional
    self.cat, self.tensor = torch.cat, torch.as_tensor
    self.state = {name: torch.as_tensor(value) for name, value in state.items()}

  def conv(self, x, name, out, size, stride=1, pad=0):
    weight, bias = self.state[f'{name}.weight'], self.state[f'{name}.bias']
    return self.f.relu(self.f.conv2d(x, weight, bias, stride, pad))

  def normed(self, x, name, out, size, stride=1, pad=(0, 0)):
    x = self.f.conv2d(x, self.state[f'{name}.conv.weight'], None, stride, pad)
    mean, variance, weight, bias = (
      self.state[f'{name}.bn.{part}']
      for part in ('running_mean', 'running_var', 'weight', 'bias')
    )
    return self.f.relu(self.f.batch_norm(x, mean, variance, weight, bias, eps=1e-3))

  def max_pool(self, x, size, stride, pad=0):
    return self.f.max_pool2d(x, size, stride, pad)

  def l2_pool(self, x):
    kernel = self.constant(_hann())[None, None].repeat(x.shape[1], 1, 1, 1)
    return self.f.conv2d(x**2, kernel, None, 2, 1, groups=x.shape[1]) ** 0.5

  def average_pool(self, x):
    return self.f.avg_pool2d(x, 3, 1, 1, count_include_pad=False)

  def join(self, parts):
    return self.cat(parts, 1)

  def constant(self, value):
    return self.tensor(value).float()


def random_state(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> State:
  """Weights as if trained: activations keep their size, no statistic is trivial."""
  rng = np.random.default_rng(seed)
  state = {}
  for name, shape in shapes.items():
    noise = rng.standard_normal(shape, np.float32)
    if len(shape) > 1:  # half of what a ReLU lets through is zero
      state[name] = noise * np.float32(np.sqrt(2 / np.prod(shape[1:])))
    elif name.endswith(('running_var', 'bn.weight')):
      state[name] = np.exp(np.float32(0.3) * noise)
    else:
      state[name] = np.float32(0.2) * noise
    if name.startswith(('lin', 'alpha', 'beta')):
      state[name] = np.abs(noise)  # distances are weighed, never below zero
    if not shape:
      state[name] = np.array(1, np.int64)
  return state


# ----------------------------------------------------------------- Inception-v3


def noisy_pair(shape: tuple[int, ...], seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
  """Return images [B, H, W, C] with noise, most in the first, and without."""
  rng = np.random.default_rng(seed)
  truth = rng.uniform(-1, 1, shape).astype(np.float32)
  noise = rng.normal(0, 0.2, shape).astype(np.float32)
  noise[0] *= 2
  return truth + noise, truth


def nchw(x: np.ndarray) -> np.ndarray:
  """Return images [B, H, W, C] as PyTorch has them, in float64."""
  return np.moveaxis(np.float64(x), -1, 1)


def inception(net, x):
  """Szegedy et al., arXiv:1512.00567, as in the graph of 2015-12-05; up to the mean."""
  x = net.normed(x, 'Conv2d_1a_3x3', 32, (3, 3), stride=2)
  x = net.normed(x, 'Conv2d_2a_3x3', 32, (3, 3))
  x = net.normed(x, 'Conv2d_2b_3x3', 64, (3, 3), pad=(1, 1))
  x = net.max_pool(x, 3, 2)
  x = net.normed(x, 'Conv2d_3b_1x1', 80, (1, 1))
  x = net.normed(x, 'Conv2d_4a_3x3', 192, (3, 3))
  x = net.max_pool(x, 3, 2)
  for name, pooled in (('Mixed_5b', 32), ('Mixed_5c', 64), ('Mixed_5d', 64)):
    x = net.join(
      [
        chain(net, x, name, [('branch1x1', 64, 1, 1)]),
        chain(net, x, name, [('branch5x5_1', 48, 1, 1), ('branch5x5_2', 64, 5, 5)]),
        chain(
          net, x, name, dbl('branch3x3dbl', (64, 96, 96), ((1, 1), (3, 3), (3, 3)))
        ),
        chain(net, net.average_pool(x), name, [('branch_pool', pooled, 1, 1)]),
      ]
    )
  x = net.join(
    [
      net.normed(x, 'Mixed_6a.branch3x3', 384, (3, 3), stride=2),
      net.normed(
        chain(net, x, 'Mixed_6a', dbl('branch3x3dbl', (64, 96), ((1, 1), (3, 3)))),
        'Mixed_6a.branch3x3dbl_3',
        96,
        (3, 3),
        stride=2,
      ),
      net.max_pool(x, 3, 2),
    ]
  )
  widths = {'Mixed_6b': 128, 'Mixed_6c': 160, 'Mixed_6d': 160, 'Mixed_6e': 192}
  for name, c in widths.items():
    seven = dbl('branch7x7', (c, c, 192), ((1, 1), (1, 7), (7, 1)))
    double = dbl(
      'branch7x7dbl', (c, c, c, c, 192), ((1, 1), (7, 1), (1, 7), (7, 1), (1, 7))
    )
    x = net.join(
      [
        chain(net, x, name, [('branch1x1', 192, 1, 1)]),
        chain(net, x, name, seven),
        chain(net, x, name, double),
        chain(net, net.average_pool(x), name, [('branch_pool', 192, 1, 1)]),
      ]
    )
  three = chain(net, x, 'Mixed_7a', [('branch3x3_1', 192, 1, 1)])
  seven = dbl('branch7x7x3', (192, 192, 192), ((1, 1), (1, 7), (7, 1)))
  seven = chain(net, x, 'Mixed_7a', seven)
  x = net.join(
    [
      net.normed(three, 'Mixed_7a.branch3x3_2', 320, (3, 3), stride=2),
      net.normed(seven, 'Mixed_7a.branch7x7x3_4', 192, (3, 3), stride=2),
      net.max_pool(x, 3, 2),
    ]
  )
  for name in ('Mixed_7b', 'Mixed_7c'):
    three = chain(net, x, name, [('branch3x3_1', 384, 1, 1)])
    double = dbl('branch3x3dbl', (448, 384), ((1, 1), (3, 3)))
    double = chain(net, x, name, double)
    last = name == 'Mixed_7c'
    pool = net.max_pool(x, 3, 1, 1) if last else net.average_pool(x)
    x = net.join(
      [
        chain(net, x, name, [('branch1x1', 320, 1, 1)]),
        chain(net, three, name, [('branch3x3_2a', 384, 1, 3)]),
        chain(net, three, name, [('branch3x3_2b', 384, 3, 1)]),
        chain(net, double, name, [('branch3x3dbl_3a', 384, 1, 3)]),
        chain(net, double, name, [('branch3x3dbl_3b', 384, 3, 1)]),
        chain(net, pool, name, [('branch_pool', 192, 1, 1)]),
      ]
    )
  return x


def dbl(name, channels, sizes):
  """Convolutions NAME_1, NAME_2, ..."""
  pairs = zip(channels, sizes, strict=True)
  return [(f'{name}_{i}', c, *size) for i, (c, size) in enumerate(pairs, 1)]


def chain(net, x, block, convs):
  """Convolutions that keep the size, one after the other."""
  for name, channels, height, width in convs:
    pad = (height // 2, width // 2)
    x = net.normed(x, f'{block}.{name}', channels, (height, width), pad=pad)
  return x


def inception_shapes() -> dict[str, tuple[int, ...]]:
  net = Shapes()
  inception(net, 3)
  return net.found | {'fc.weight': (1008, 2048), 'fc.bias': (1008,)}


# ------------------------------------------------------------------------ LPIPS

CHANNELS = {'alex': (64, 192, 384, 256, 256), 'vgg': (64, 128, 256, 512, 512)}


def alex(net, x):
  """Krizhevsky, arXiv:1404.5997, as torchvision has it: after each ReLU."""
  seen = [net.conv(x, 'features.0', 64, (11, 11), 4, 2)]
  x = net.max_pool(seen[-1], 3, 2)
  seen.append(net.conv(x, 'features.3', 192, (5, 5), 1, 2))
  x = net.max_pool(seen[-1], 3, 2)
  for place, channels in ((6, 384), (8, 256), (10, 256)):
    x = net.conv(x, f'features.{place}', channels, (3, 3), 1, 1)
    seen.append(x)
  return seen


def vgg(net, x, pool='max_pool'):
  """Simonyan and Zisserman, arXiv:1409.1556, D: after the last ReLU of each size."""
  seen, place = [], 0
  for channels, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
    if seen:
      x = net.l2_pool(x) if pool == 'l2_pool' else net.max_pool(x, 2, 2)
      place += 1
    for _ in range(count):
      x = net.conv(x, f'features.{place}', channels, (3, 3), 1, 1)
      place += 2
    seen.append(x)
  return seen


def lpips_shapes(kind: str) -> dict[str, tuple[int, ...]]:
  net = Shapes()
  {'alex': alex, 'vgg': vgg}[kind](net, 3)
  return net.found | {
    f'lin{i}.model.1.weight': (1, c, 1, 1) for i, c in enumerate(CHANNELS[kind])
  }


def lpips(net, kind: str, state: State, image, truth):
  """Zhang et al., arXiv:1801.03924, version 0.1; anything that adds like an array."""
  shift = net.constant(np.reshape([-0.030, -0.088, -0.188], (3, 1, 1)))
  scale = net.constant(np.reshape([0.458, 0.448, 0.450], (3, 1, 1)))
  backbone = {'alex': alex, 'vgg': vgg}[kind]

  def unit(y):
    return y / ((y**2).sum(1)[:, None] ** 0.5 + 1e-10)

  seen = [backbone(net, (x - shift) / scale) for x in (image, truth)]
  total = 0
  for i, (a, b) in enumerate(zip(*seen, strict=True)):
    weight = net.constant(state[f'lin{i}.model.1.weight'][0])
    total = total + ((unit(a) - unit(b)) ** 2 * weight).sum(1).mean((1, 2))
  return total


# ------------------------------------------------------------------------ DISTS


def dists_shapes() -> dict[str, tuple[int, ...]]:
  net = Shapes()
  vgg(net, 3)
  weights = (1, 3 + sum(CHANNELS['vgg']), 1, 1)
  return net.found | {'alpha': weights, 'beta': weights}


def dists(net, state: State, image, truth):
  """Ding et al., arXiv:2004.07728, equations 3 to 7, of images in [-1, 1]."""
  shift = net.constant(np.reshape([0.485, 0.456, 0.406], (3, 1, 1)))
  scale = net.constant(np.reshape([0.229, 0.224, 0.225], (3, 1, 1)))
  image, truth = ((x + 1) / 2 for x in (image, truth))
  first, second = (
    [x, *vgg(net, (x - shift) / scale, 'l2_pool')] for x in (image, truth)
  )
  alpha, beta = (net.constant(state[name][0, :, 0, 0]) for name in ('alpha', 'beta'))
  similar, start = 0, 0
  for x, y in zip(first, second, strict=True):
    mean_x, mean_y = x.mean((2, 3)), y.mean((2, 3))
    square_x, square_y = mean_x**2, mean_y**2
    variance_x, variance_y = ((z**2).mean((2, 3)) - z.mean((2, 3)) ** 2 for z in (x, y))
    covariance = (x * y).mean((2, 3)) - mean_x * mean_y
    texture = (2 * mean_x * mean_y + 1e-6) / (square_x + square_y + 1e-6)
    structure = (2 * covariance + 1e-6) / (variance_x + variance_y + 1e-6)
    end = start + x.shape[1]
    terms = alpha[start:end] * texture + beta[start:end] * structure
    similar, start = similar + terms.sum(1), end
  return 1 - similar / (alpha.sum() + beta.sum())
