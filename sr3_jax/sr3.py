"""SR3 in one file: network + noise levels + task + sampler.

Symbols, as in arXiv:2104.07636:
  condition  what is observed, e.g. the small image           [B, h, w, C]
  x          the condition at full size, the network's input  [B, H, W, C]
  y0         what the diffusion models: the image, or its (scaled) residual over x
  y          y0 with noise: sqrt(gamma) y0 + sqrt(1 - gamma) eps
Images are float32 in [-1, 1].
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from sr3_jax import degradations, diffusion, images, samplers
from sr3_jax.unet import UNet

Batch = dict[str, jax.Array]

DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}


@dataclasses.dataclass(frozen=True, eq=False)
class SR3:
  """A model: pure functions of parameters; it holds no arrays but the noise levels."""

  network: Any  # a Flax module: UNet, or one of other people's weights
  degrade: Callable[[jax.Array, jax.Array], jax.Array]
  scale: int  # output side over condition side
  image_size: int  # side of the training crops
  gammas: np.ndarray  # trained levels, [T + 1]
  upsampling: str  # how x is made of the condition: 'bicubic' or 'bilinear'
  method: str  # 'sr3' or 'regression'
  prediction: str  # 'eps', 'v' or 'y0'
  residual: bool
  y0_scale: float
  learned_variance: bool  # the network gives that of each step too (C more channels)
  loss_power: int  # 1 or 2
  walk: tuple[np.ndarray, np.ndarray]  # levels and table of the default sampler
  clip: bool

  @classmethod
  def from_config(cls, config: ml_collections.ConfigDict) -> 'SR3':
    """Builds the model that a configuration describes.

    Raises:
      ValueError: an unknown name, answered with the known ones, or sizes that do not
        fit together.
    """
    d, m = config.diffusion, config.model
    task, sampler = dict(config.task), dict(config.sampler)
    clip = sampler.pop('clip')
    degrade = partial(pick('task', degradations.TASKS, task.pop('name')), **task)
    make_gammas = pick('schedule', diffusion.SCHEDULES, d.schedule)
    if d.schedule == 'linear':
      make_gammas = partial(make_gammas, start=d.start, end=d.end)
    gammas = make_gammas(d.num_levels)
    if sampler['name'] == 'ddpm_learned' and not d.learned_variance:
      raise ValueError("the sampler 'ddpm_learned' needs diffusion.learned_variance")
    return cls(
      network=make_network(config, gammas),
      degrade=degrade,
      scale=config.task.scale,
      image_size=config.data.image_size,
      gammas=gammas,
      upsampling=pick('upsampling', {k: k for k in degradations.RESIZE}, m.upsampling),
      method=pick('method', {'sr3': 'sr3', 'regression': 'regression'}, config.method),
      prediction=pick('prediction', {k: k for k in diffusion.TARGETS}, d.prediction),
      residual=d.residual,
      y0_scale=d.y0_scale,
      learned_variance=d.learned_variance,
      loss_power=pick('loss', {'l1': 1, 'l2': 2}, d.loss),
      walk=make_walk(gammas, **sampler),
      clip=clip,
    )

  def init(self, key: jax.Array, side: int | None = None) -> Any:
    """Parameters of the network, float32; those of any image side are the same."""
    side = side or self.image_size
    inputs = jnp.zeros((1, side, side, 6))
    label = jnp.zeros((1,), jnp.int32)
    return jax.jit(self.network.init)(key, inputs, jnp.ones((1,)), label)['params']

  # ------------------------------------------------------------- the two spaces

  def upsample(self, condition: jax.Array) -> jax.Array:
    """The condition at the size of the output: x, [B, H, W, C]."""
    height, width = (self.scale * side for side in condition.shape[1:3])
    return degradations.resize(condition, height, width, self.upsampling)

  def encode(self, image: jax.Array, x: jax.Array) -> jax.Array:
    """Image to y0."""
    return (image - x if self.residual else image) * self.y0_scale

  def decode(self, y0: jax.Array, x: jax.Array) -> jax.Array:
    """y0 to image: the inverse of `encode`."""
    image = y0 / self.y0_scale
    return image + x if self.residual else image

  def predict(
    self,
    params: Any,
    x: jax.Array,
    y: jax.Array,
    gamma: jax.Array,
    label: jax.Array | None = None,
    dropout_key: jax.Array | None = None,
  ) -> jax.Array:
    """f(x, y, gamma): the network's output, [B, H, W, C]."""
    return self.network.apply(
      {'params': params},
      jnp.concatenate([x, y], axis=-1),
      gamma,
      label,
      deterministic=dropout_key is None,
      rngs=None if dropout_key is None else {'dropout': dropout_key},
    )

  # ------------------------------------------------------------------- training

  def loss(self, params: Any, key: jax.Array, batch: Batch) -> jax.Array:
    """Algorithm 1: mean over pixels of |f(x, y, gamma) - target|^p.

    Args:
      params: of the network.
      key: a key, or [B] keys: all that is random in example b is a function of key[b]
        alone (dropout excepted), so results don't depend on how a batch is split.
      batch: 'image', uint8 [B, H, W, 3] clean crops; 'label', int32 [B], for models
        with classes.

    Returns:
      float32 scalar.
    """
    hr = images.to_float(batch['image'])
    key = samplers.example_keys(key, hr.shape[0])
    x = self.upsample(self.degrade(key, hr))
    y0 = self.encode(hr, x)
    dropout_key = jax.random.fold_in(key[0], 2) if self.network.dropout else None
    predict = partial(self.predict, label=batch.get('label'), dropout_key=dropout_key)
    if self.method == 'regression':
      # The paper's baseline: same network, no noise, one step, squared error.
      prediction = predict(params, x, jnp.zeros_like(x), jnp.zeros(x.shape[:1]))
      return jnp.mean(jnp.square(prediction - y0))
    # Folded, because split(k)[1], which sample_gamma uses, is fold_in(k, 1), of eps.
    level = lambda k: diffusion.sample_gamma(jax.random.fold_in(k, 0), self.gammas, 1)
    gamma = jax.vmap(level)(key)[:, 0]
    eps = samplers.normal(key, 1, y0.shape[1:])
    prediction = predict(params, x, diffusion.q_sample(y0, gamma, eps), gamma)
    error = prediction - diffusion.target(self.prediction, y0, eps, gamma)
    return jnp.mean(jnp.abs(error) ** self.loss_power)

  # ------------------------------------------------------------------- sampling

  def denoise(
    self,
    params: Any,
    x: jax.Array,
    y: jax.Array,
    gamma: jax.Array,
    label: jax.Array | None = None,
  ) -> Any:
    """The estimate of y0 from a noisy y; (y0, share) for a learned variance.

    The regression baseline ignores y and the level: the last step of any walk takes
    its estimate as it is.
    """
    if self.method == 'regression':
      return self.predict(params, x, jnp.zeros_like(x), jnp.zeros(x.shape[:1]), label)
    prediction = self.predict(params, x, y, gamma, label)
    channels = y.shape[-1]
    estimate = diffusion.estimate_y0(
      self.prediction, prediction[..., :channels], y, gamma
    )
    if self.clip:
      estimate = self.encode(jnp.clip(self.decode(estimate, x), -1, 1), x)
    if not self.learned_variance:
      return estimate
    return estimate, (prediction[..., channels:] + 1) / 2

  def restore(
    self,
    params: Any,
    key: jax.Array,
    condition: jax.Array,
    table: np.ndarray | None = None,
    gammas: np.ndarray | None = None,
    label: jax.Array | None = None,
    noise: jax.Array | None = None,
  ) -> jax.Array:
    """Draws one restored image for each condition.

    Args:
      params: of the network.
      key: a key, or [B] keys: sample b depends on key[b] alone.
      condition: [B, h, w, C].
      table: [steps, 4] sampler made from `gammas`; None is the configured sampler.
      gammas: [steps + 1] levels of that table.
      label: int32 [B], for models with classes.
      noise: [steps + 1, B, H, W, C] to use instead of drawing it: the start, then that
        of each step; for comparisons with other programs.

    Returns:
      [B, H, W, C] in [-1, 1].
    """
    if table is None:
      gammas, table = self.walk
    x = self.upsample(condition)
    source = self.noise(key, x) if noise is None else jnp.asarray(noise).__getitem__
    carry = self.begin(source, x)
    steps = samplers.steps(gammas, table)
    source = source if samplers.is_stochastic(table) else None
    return self.finish(x, self.advance(params, source, x, carry, steps, label))

  # `restore` in three parts, so that a long walk can show progress between stretches.

  def noise(self, key: jax.Array, x: jax.Array) -> samplers.Noise:
    """Step number -> noise like x; number 0 is the start."""
    key = samplers.example_keys(key, x.shape[0])
    return lambda index: samplers.normal(key, index, x.shape[1:])

  def begin(self, noise: samplers.Noise, x: jax.Array) -> Any:
    """The first carry of a walk: pure noise."""
    return noise(0), jnp.zeros_like(x)

  def advance(
    self,
    params: Any,
    noise: samplers.Noise | None,
    x: jax.Array,
    carry: Any,
    steps: dict[str, Any],
    label: jax.Array | None = None,
  ) -> Any:
    """Takes `steps` of the walk; regression needs one and ignores what they say."""
    if self.method == 'regression':
      y0 = self.denoise(params, x, *carry, label)
      return y0, y0

    denoise = lambda y, gamma: self.denoise(params, x, y, gamma, label)
    return samplers.advance(denoise, noise, carry, steps)

  def finish(self, x: jax.Array, carry: Any) -> jax.Array:
    """The image at the end of a walk, clipped to [-1, 1]."""
    return jnp.clip(self.decode(carry[0], x), -1, 1)


def make_network(config: ml_collections.ConfigDict, gammas: np.ndarray) -> Any:
  """The network that `config.model` describes.

  Raises:
    ValueError: an unknown name.
  """
  m = config.model
  first = config.data.image_size // m.patch
  common = {
    'channels': m.channels,
    'multipliers': tuple(m.multipliers),
    'num_blocks': m.num_blocks,
    'attention_levels': tuple(
      level
      for level in range(len(m.multipliers))
      if first / 2**level in m.attention_resolutions
    ),
    'dropout': m.dropout,
    'dtype': pick('dtype', DTYPES, m.dtype),
  }
  # The other two are imported where they are used: few need them.
  if m.network == 'janspiry':
    from sr3_jax.janspiry import JanspiryUNet

    return JanspiryUNet(**common, groups=m.groups, affine=m.affine)
  if m.network == 'guided':
    from sr3_jax.guided import GuidedUNet

    return GuidedUNet(
      **common,
      num_heads=m.num_heads,
      num_classes=m.num_classes,
      out_channels=6 if config.diffusion.learned_variance else 3,
      gammas=tuple(gammas.tolist()),
    )
  pick('network', {'sr3': UNet, 'janspiry': None, 'guided': None}, m.network)
  return UNet(
    **common,
    middle_attention=m.middle_attention,
    num_classes=m.num_classes,
    patch=m.patch,
    remat=m.remat,
  )


def make_walk(
  gammas: np.ndarray,
  *,
  name: str,
  num_steps: int,
  spacing: str,
  eta: float = 0.0,
  start: float = 0.0,
  end: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
  """Levels [steps + 1] and table [steps, 4 or 5] of a sampler setting.

  Args:
    gammas: [T + 1] trained levels.
    name: a key of `samplers.SAMPLERS`.
    num_steps: 1 to T.
    spacing: a key of `diffusion.SPACINGS`, for a subset of the trained levels; or
      'linear' for those of num_steps betas from `start` to `end`, as the paper searches
      them, as far as the trained levels reach.
    eta: of 'ddim'.
    start, end: of 'linear'.

  Raises:
    ValueError: a name or number that is not possible.
  """
  sampler = pick('sampler', samplers.SAMPLERS, name)
  if spacing == 'linear':
    levels = diffusion.linear_gammas(num_steps, start, end)
    levels = levels[levels >= gammas[-1] * (1 - 1e-6)]
    if len(levels) < 2:
      raise ValueError(f'betas from {start} to {end} are not of the trained levels')
  else:
    levels = diffusion.respace(gammas, num_steps, spacing)
  return levels, sampler(levels, eta=eta) if name == 'ddim' else sampler(levels)


def pick(what: str, known: dict[str, Any], name: str) -> Any:
  """known[name], or a ValueError that lists the known names."""
  if name not in known:
    raise ValueError(f'unknown {what} {name!r}; known: {", ".join(known)}')
  return known[name]
