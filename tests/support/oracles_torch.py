"""The two PyTorch networks that can be converted, written down once more.

In plain NumPy, float64, [B, C, H, W], straight over the names of a PyTorch state dict:
what `networks.janspiry` and `networks.guided` are compared with where PyTorch and the
originals are not at hand.
"""

import numpy as np

State = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]


def random_state(shapes: Shapes, seed: int = 0) -> State:
  """Weights as if trained: nothing is zero, activations keep their size."""
  rng = np.random.default_rng(seed)
  state = {}
  for name, shape in shapes.items():
    noise = rng.standard_normal(shape, np.float32)
    if len(shape) > 1:
      state[name] = noise / np.float32(np.sqrt(np.prod(shape[1:])))
    else:
      state[name] = np.float32(name.endswith('weight')) + np.float32(0.3) * noise
  return state


# ----------------------------------------------------------------------- layers


def conv(state: State, name: str, x: np.ndarray, stride: int = 1) -> np.ndarray:
  """Convolution with as many zeros on all four sides as keep the size."""
  weight = np.float64(state[f'{name}.weight'])
  if weight.ndim == 3:  # of a one-dimensional convolution
    weight = weight[..., None]
  pad = weight.shape[2] // 2
  x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
  patches = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], (2, 3))
  patches = patches[:, :, ::stride, ::stride]
  y = np.einsum('bchwij,ocij->bohw', patches, weight, optimize=True)
  return y + np.float64(state.get(f'{name}.bias', np.zeros(len(weight))))[:, None, None]


def linear(state: State, name: str, x: np.ndarray) -> np.ndarray:
  return x @ np.float64(state[f'{name}.weight']).T + state[f'{name}.bias']


def group_norm(state: State, name: str, x: np.ndarray, groups: int) -> np.ndarray:
  b, c, h, w = x.shape
  parts = x.reshape(b, groups, -1)
  mean, var = parts.mean(-1, keepdims=True), parts.var(-1, keepdims=True)
  y = ((parts - mean) / np.sqrt(var + 1e-5)).reshape(b, c, h, w)
  scale, bias = np.float64(state[f'{name}.weight']), np.float64(state[f'{name}.bias'])
  return y * scale[:, None, None] + bias[:, None, None]


def swish(x: np.ndarray) -> np.ndarray:
  return x / (1 + np.exp(-x))


def double(x: np.ndarray) -> np.ndarray:
  return x.repeat(2, axis=2).repeat(2, axis=3)


def halve(x: np.ndarray) -> np.ndarray:
  return (
    x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]
  ) / 4


def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
  """Attention of [C, positions] each."""
  logits = q.T @ k / np.sqrt(len(q))
  weight = np.exp(logits - logits.max(axis=1, keepdims=True))
  return v @ (weight / weight.sum(axis=1, keepdims=True)).T


# --------------------------------------------------------------------- Janspiry


def janspiry_shapes(
  channels: int,
  multipliers: tuple[int, ...],
  blocks: int,
  attention: tuple[int, ...],
  affine: bool = False,
  inputs: int = 6,
) -> Shapes:
  """Names and shapes of the network; attention is at levels, 0 for full size."""
  shapes: Shapes = {}

  def layer(name, *shape):
    shapes[f'{name}.weight'] = shape
    shapes[f'{name}.bias'] = shape[:1]

  def block(name, before, after, with_attention):
    res = f'{name}.res_block'
    layer(f'{res}.noise_func.noise_func.0', after * (1 + affine), channels)
    layer(f'{res}.block1.block.0', before)
    layer(f'{res}.block1.block.3', after, before, 3, 3)
    layer(f'{res}.block2.block.0', after)
    layer(f'{res}.block2.block.3', after, after, 3, 3)
    if before != after:
      layer(f'{res}.res_conv', after, before, 1, 1)
    if with_attention:
      layer(f'{name}.attn.norm', after)
      shapes[f'{name}.attn.qkv.weight'] = (3 * after, after, 1, 1)
      layer(f'{name}.attn.out', after, after, 1, 1)

  layer('noise_level_mlp.1', 4 * channels, channels)
  layer('noise_level_mlp.3', channels, 4 * channels)
  layer('downs.0', channels, inputs, 3, 3)
  widths, now = [channels], channels
  for level, multiplier in enumerate(multipliers):
    for _ in range(blocks):
      block(f'downs.{len(widths)}', now, channels * multiplier, level in attention)
      now = channels * multiplier
      widths.append(now)
    if level + 1 < len(multipliers):
      layer(f'downs.{len(widths)}.conv', now, now, 3, 3)
      widths.append(now)
  block('mid.0', now, now, True)
  block('mid.1', now, now, False)
  number = 0
  for level in range(len(multipliers))[::-1]:
    for _ in range(blocks + 1):
      after = channels * multipliers[level]
      block(f'ups.{number}', now + widths.pop(), after, level in attention)
      now, number = after, number + 1
    if level:
      layer(f'ups.{number}.conv', now, now, 3, 3)
      number += 1
  layer('final_conv.block.0', now)
  layer('final_conv.block.3', 3, now, 3, 3)
  return shapes


def janspiry_buffers(betas: np.ndarray) -> State:
  """The twelve tables that lie beside the weights."""
  a, before = np.cumprod(1 - betas), np.append(1, np.cumprod(1 - betas)[:-1])
  variance = betas * (1 - before) / (1 - a)
  tables = {
    'betas': betas,
    'alphas_cumprod': a,
    'alphas_cumprod_prev': before,
    'sqrt_alphas_cumprod': np.sqrt(a),
    'sqrt_one_minus_alphas_cumprod': np.sqrt(1 - a),
    'log_one_minus_alphas_cumprod': np.log(1 - a),
    'sqrt_recip_alphas_cumprod': np.sqrt(1 / a),
    'sqrt_recipm1_alphas_cumprod': np.sqrt(1 / a - 1),
    'posterior_variance': variance,
    'posterior_log_variance_clipped': np.log(np.maximum(variance, 1e-20)),
    'posterior_mean_coef1': betas * np.sqrt(before) / (1 - a),
    'posterior_mean_coef2': (1 - before) * np.sqrt(1 - betas) / (1 - a),
  }
  return {name: np.float32(table) for name, table in tables.items()}


def janspiry(state: State, x: np.ndarray, s: np.ndarray, groups: int) -> np.ndarray:
  """The network: x [B, 6, H, W], s [B] the root of the signal's power -> [B, 3, H, W].

  What each entry of the lists is, its names tell.
  """
  width = state['noise_level_mlp.1.weight'].shape[1]
  angle = s[:, None] * 1e4 ** (-np.arange(width // 2) / (width // 2))
  emb = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
  emb = linear(state, 'noise_level_mlp.1', emb)
  emb = linear(state, 'noise_level_mlp.3', swish(emb))

  def half(name, h):
    h = group_norm(state, f'{name}.block.0', h, groups)
    return conv(state, f'{name}.block.3', swish(h))

  def entry(name, h):
    """A block with its attention, or a resampling."""
    if f'{name}.conv.weight' in state:
      down = name.startswith('downs')
      return conv(state, f'{name}.conv', h if down else double(h), 1 + down)
    res = f'{name}.res_block'
    before, h = h, half(f'{res}.block1', h)
    level = linear(state, f'{res}.noise_func.noise_func.0', emb)[:, :, None, None]
    if level.shape[1] == h.shape[1]:
      h = h + level
    else:
      h = h * (1 + level[:, : h.shape[1]]) + level[:, h.shape[1] :]
    h = half(f'{res}.block2', h)
    if f'{res}.res_conv.weight' in state:
      before = conv(state, f'{res}.res_conv', before)
    h = h + before
    if f'{name}.attn.qkv.weight' not in state:
      return h
    b, c, height, width = h.shape
    qkv = group_norm(state, f'{name}.attn.norm', h, groups)
    qkv = conv(state, f'{name}.attn.qkv', qkv).reshape(b, 3, c, -1)
    out = np.stack([attend(*one) for one in qkv]).reshape(b, c, height, width)
    return h + conv(state, f'{name}.attn.out', out)

  def count(part):
    return len({n.split('.')[1] for n in state if n.startswith(part)})

  stack = [conv(state, 'downs.0', x)]
  for number in range(1, count('downs')):
    stack.append(entry(f'downs.{number}', stack[-1]))
  h = entry('mid.1', entry('mid.0', stack[-1]))
  for number in range(count('ups')):
    if f'ups.{number}.conv.weight' not in state:
      h = np.concatenate([h, stack.pop()], axis=1)
    h = entry(f'ups.{number}', h)
  assert not stack
  return half('final_conv', h)


# -------------------------------------------------------------- guided-diffusion


def guided_shapes(
  channels: int,
  multipliers: tuple[int, ...],
  blocks: int,
  attention: tuple[int, ...],
  classes: int = 0,
  outputs: int = 6,
) -> Shapes:
  """Names and shapes of the upsampler; attention is at levels, 0 for full size."""
  shapes: Shapes = {}

  def layer(name, *shape):
    shapes[f'{name}.weight'] = shape
    shapes[f'{name}.bias'] = shape[:1]

  def block(name, before, after):
    layer(f'{name}.in_layers.0', before)
    layer(f'{name}.in_layers.2', after, before, 3, 3)
    layer(f'{name}.emb_layers.1', 2 * after, 4 * channels)
    layer(f'{name}.out_layers.0', after)
    layer(f'{name}.out_layers.3', after, after, 3, 3)
    if before != after:
      layer(f'{name}.skip_connection', after, before, 1, 1)

  def attention_layers(name, width):
    layer(f'{name}.norm', width)
    layer(f'{name}.qkv', 3 * width, width, 1)
    layer(f'{name}.proj_out', width, width, 1)

  layer('time_embed.0', 4 * channels, channels)
  layer('time_embed.2', 4 * channels, 4 * channels)
  if classes:
    shapes['label_emb.weight'] = (classes, 4 * channels)
  widths = [channels * multipliers[0]]
  now = widths[0]
  layer('input_blocks.0.0', now, 6, 3, 3)
  for level, multiplier in enumerate(multipliers):
    for _ in range(blocks):
      block(f'input_blocks.{len(widths)}.0', now, channels * multiplier)
      now = channels * multiplier
      if level in attention:
        attention_layers(f'input_blocks.{len(widths)}.1', now)
      widths.append(now)
    if level + 1 < len(multipliers):
      block(f'input_blocks.{len(widths)}.0', now, now)
      widths.append(now)
  block('middle_block.0', now, now)
  attention_layers('middle_block.1', now)
  block('middle_block.2', now, now)
  number = 0
  for level in range(len(multipliers))[::-1]:
    for i in range(blocks + 1):
      name, after = f'output_blocks.{number}', channels * multipliers[level]
      block(f'{name}.0', now + widths.pop(), after)
      now, number = after, number + 1
      if level in attention:
        attention_layers(f'{name}.1', now)
      if level and i == blocks:
        block(f'{name}.{1 + (level in attention)}', now, now)
  layer('out.0', now)
  layer('out.2', outputs, now, 3, 3)
  return shapes


def guided(
  state: State,
  noisy: np.ndarray,
  condition: np.ndarray,
  t: np.ndarray,
  label: np.ndarray | None,
  *,
  heads: int,
  blocks: int,
) -> np.ndarray:
  """The upsampler: [B, 3, H, W] twice, steps t [B] from 0 -> [B, 6, H, W]."""
  width = state['time_embed.0.weight'].shape[1]
  angle = t[:, None] * 1e4 ** (-np.arange(width // 2) / (width // 2))
  emb = np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
  emb = linear(state, 'time_embed.2', swish(linear(state, 'time_embed.0', emb)))
  if label is not None:
    emb = emb + state['label_emb.weight'][label]

  def block(name, x, resample=lambda h: h):
    h = swish(group_norm(state, f'{name}.in_layers.0', x, 32))
    h = conv(state, f'{name}.in_layers.2', resample(h))
    level = linear(state, f'{name}.emb_layers.1', swish(emb))[:, :, None, None]
    scale, shift = level[:, : h.shape[1]], level[:, h.shape[1] :]
    h = group_norm(state, f'{name}.out_layers.0', h, 32) * (1 + scale) + shift
    h = conv(state, f'{name}.out_layers.3', swish(h))
    x = resample(x)
    if f'{name}.skip_connection.weight' in state:
      x = conv(state, f'{name}.skip_connection', x)
    return x + h

  def attention(name, x):
    b, c, height, width = x.shape
    qkv = conv(state, f'{name}.qkv', group_norm(state, f'{name}.norm', x, 32))
    # Each head's queries, keys and values lie together.
    qkv = qkv.reshape(b, heads, 3, c // heads, height * width)
    out = np.stack([[attend(*head) for head in one] for one in qkv])
    return x + conv(state, f'{name}.proj_out', out.reshape(x.shape))

  def count(part):
    return len({n.split('.')[1] for n in state if n.startswith(part)})

  stack = [conv(state, 'input_blocks.0.0', np.concatenate([noisy, condition], axis=1))]
  for number in range(1, count('input_blocks')):
    name = f'input_blocks.{number}'
    down = number % (blocks + 1) == 0
    h = block(f'{name}.0', stack[-1], halve if down else lambda h: h)
    if f'{name}.1.qkv.weight' in state:
      h = attention(f'{name}.1', h)
    stack.append(h)
  h = block('middle_block.0', stack[-1])
  h = block('middle_block.2', attention('middle_block.1', h))
  for number in range(count('output_blocks')):
    name = f'output_blocks.{number}'
    h = block(f'{name}.0', np.concatenate([h, stack.pop()], axis=1))
    for part in (f'{name}.1', f'{name}.2'):
      if f'{part}.qkv.weight' in state:
        h = attention(part, h)
      elif f'{part}.in_layers.0.weight' in state:
        h = block(part, h, double)
  assert not stack
  return conv(state, 'out.2', swish(group_norm(state, 'out.0', h, 32)))
