"""SR3 in one file: network + noise levels + task + sampler.

Symbols, as in arXiv:2104.07636:
  condition  what is observed, e.g. the downsampled image     [B, h, w, K]
  x          the condition at full size, the network's input  [B, H, W, K]
  y0         what the diffusion models: the image, or its (scaled) residual over x
  y          y0 with noise: sqrt(gamma) y0 + sqrt(1 - gamma) eps
Images are float32 in [-1, 1]. The first C of the K channels of a condition are an
image; a task may add others (which pixels are missing), or have none at all: K = 0.
Conditions of real pairs come from files, and may have any number of channels.
"""

import dataclasses
from functools import partial
from typing import TypeVar, cast

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from sr3_jax.core import degradations, diffusion, samplers
from sr3_jax.core.distillation import Teacher
from sr3_jax.core.model_fields import model_fields
from sr3_jax.core.networks.blocks import Network, predict_both
from sr3_jax.core.perceptual import Distance, looks_different
from sr3_jax.images import pixels
from sr3_jax.runtime.types import Array, Params

A = TypeVar('A', np.ndarray, jax.Array)
Batch = dict[str, jax.Array]

# An example's key is folded with this number for its degradation, and with smaller
# numbers for the noise of training and sampling: the two must never be the same noise.
_DEGRADATION = 2**30


@dataclasses.dataclass(frozen=True, eq=False)
class SR3:
  """A model: pure functions of parameters; it holds no arrays but the noise levels."""

  network: Network  # `UNet`, or one for weights of other projects
  task: degradations.Task  # makes conditions from images
  image_size: int  # side of the training crops
  channels: int  # C, of images
  input_channels: int  # of the image in a condition: C, but for pairs
  value_range: pixels.Range  # stored values that mean -1 and 1
  input_range: pixels.Range  # those of conditions: not the same for pairs
  gammas: np.ndarray  # trained levels, [T + 1]
  upsampling: str  # kernel that makes x of the condition: 'bicubic' or 'bilinear'
  smooth_holes: bool  # x has the surroundings where pixels are missing, not grey
  method: str  # 'sr3' or 'regression'
  prediction: str  # what the network's output means: 'eps', 'v' or 'y0'
  residual: bool  # y0 is the image minus x, not the image
  y0_scale: float  # factor of y0
  learned_variance: bool  # the output has C more channels: the variance of each step
  loss_power: int  # 1 or 2
  start_share: float  # share of training examples at the last level
  perceptual: float  # weight of the perceptual distance in the loss
  noise_weight: float  # errors count (1 - gamma)^this
  hole_loss: bool  # the loss is of missing pixels only, where the task has some
  num_classes: int  # 0: none; this number as a label means "no class"
  label_dropout: float  # share of training examples without their class
  trajectory: samplers.Trajectory  # of the configured sampler
  clip: bool  # predictions of y0 to the image range
  consistency: bool  # every prediction of y0, downsampled, equals the condition

  @classmethod
  def from_config(cls, config: ml_collections.ConfigDict, platform: str = '') -> 'SR3':
    """Build the model that a configuration describes, see `networks.make_network`.

    Raises:
      ConfigError: a value that its key can't have, or values that don't go together.
    """
    return cls(**model_fields(config, platform))

  def init(self, key: jax.Array, side: int | None = None) -> Params:
    """Initialise the network's float32 parameters; `side` of images changes none."""
    side = side or self.image_size
    condition = self.task.num_channels(self.input_channels)
    inputs = jnp.zeros((1, side, side, condition + self.channels))
    label = jnp.zeros((1,), jnp.int32)
    return jax.jit(self.network.init)(key, inputs, jnp.ones((1,)), label)['params']

  @property
  def scale(self) -> int:
    """Output side over condition side."""
    return self.task.scale

  def degrade(
    self, key: jax.Array, hr: jax.Array, given: jax.Array | None = None
  ) -> jax.Array:
    """Return the condition of images [B, H, W, C], with one key for each.

    Those of real pairs are made of their inputs as stored, `given` [B, h, w, K].
    """
    own = jax.vmap(jax.random.fold_in, (0, None))(key, _DEGRADATION)
    if self.task.paired:
      assert given is not None, "pairs need 'condition' in their batches: the inputs"
      hr = pixels.from_stored(given, self.input_range)
    return self.task.degrade(own, hr)

  # ------------------------------------------------------------- the two spaces

  def to_float(self, stored: jax.Array) -> jax.Array:
    """Return stored images, integers or float, as float32 in [-1, 1]."""
    return pixels.from_stored(stored, self.value_range)

  def upsample(self, condition: jax.Array) -> jax.Array:
    """Return x: the condition at the size of the output, [B, H, W, K]."""
    if self.scale == 1:
      return self.fill(condition)
    height, width = (self.scale * side for side in condition.shape[1:3])
    return degradations.resize(condition, height, width, self.upsampling)

  def fill(self, condition: A) -> A:
    """Return a condition [B, H, W, K] with smooth holes, if the model has those."""
    if not self.smooth_holes or 'mask' not in self.task.extras:
      return condition
    image, rest = self.observed(condition), condition[..., self.input_channels :]
    image = degradations.smooth(image, self.missing(condition))
    xp = np if isinstance(image, np.ndarray) else jnp
    return cast('A', xp.concatenate([image, rest], -1))

  def encode(self, image: jax.Array, x: jax.Array) -> jax.Array:
    """Return the y0 of an image."""
    return (image - self.observed(x) if self.residual else image) * self.y0_scale

  def decode(self, y0: A, x: A) -> A:
    """Return the image of a y0: the inverse of `encode`."""
    image = y0 / self.y0_scale
    return cast('A', image + self.observed(x) if self.residual else image)

  def observed(self, x: A) -> A:
    """Return the image among the channels of a condition."""
    return x[..., : self.input_channels]

  def keep_known(self, y0: jax.Array, x: jax.Array) -> jax.Array:
    """Return a y0 or y whose known pixels are those of the condition, without noise."""
    if 'mask' not in self.task.extras:
      return y0
    return jnp.where(self.missing(x) > 0, y0, self.encode(self.observed(x), x))

  def missing(self, x: Array) -> Array:
    """Return 1 where pixels are missing, 0 where they are known: [B, H, W, 1]."""
    place = self.input_channels + self.task.extras.index('mask')
    return x[..., place : place + 1]

  def predict(
    self,
    params: Params,
    x: jax.Array,
    y: jax.Array,
    gamma: jax.Array,
    label: Array | None = None,
    dropout_key: jax.Array | None = None,
  ) -> jax.Array:
    """Return f(x, y, gamma): the network's output, [B, H, W, C or 2 C]."""
    output = self.network.apply(
      {'params': params},
      jnp.concatenate([x, y], axis=-1),
      gamma,
      label,
      deterministic=dropout_key is None,
      rngs=None if dropout_key is None else {'dropout': dropout_key},
    )
    return cast('jax.Array', output)  # Flax returns more only where it is asked for it

  # ------------------------------------------------------------------- training

  def loss(
    self,
    params: Params,
    key: jax.Array,
    batch: Batch,
    perceptual: Distance | None = None,
    teacher: Teacher | None = None,
  ) -> jax.Array:
    """Return Algorithm 1's mean over pixels of (1 - gamma)^w |f(x, y, gamma) - t|^p.

    t is the target. w is 0 in the paper. With a larger w, what is decided under much
    noise, the composition of detail, counts more than the last grain; it is meant for
    'y0', whose errors are alike at all levels.

    Two terms can be added: a network that predicts y0 from the condition alone is
    trained for the squared error of that as well, and `perceptual` distances of the
    predicted image from the true one count with the weight of that name.

    Args:
      params: of the network.
      key: a key, or [B] keys: all that is random in example b is a function of key[b]
        alone (dropout excepted), so results don't depend on how a batch is split.
      batch: 'image', [B, H, W, C] clean crops as stored; 'condition', [B, h, w, K]
        their inputs as stored, for pairs; 'label', int32 [B], for models with classes.
      perceptual: the distance [B] between two stacks of images [B, H, W, C]; needed if
        the weight `self.perceptual` is not 0.
      teacher: whose steps are learned; None, as in the paper, learns from the images.
    """
    hr = self.to_float(batch['image'])
    key = samplers.example_keys(key, hr.shape[0])
    condition = self.degrade(key, hr, batch.get('condition'))
    x = self.upsample(condition)
    y0 = self.encode(hr, x)
    label = batch.get('label')
    if self.label_dropout:
      share, nothing = self.label_dropout, self.num_classes
      label = diffusion.drop_labels(key, batch['label'], share, nothing)
    dropout_key = jax.random.fold_in(key[0], 2) if self.network.dropout else None
    predict = partial(self.predict, label=label, dropout_key=dropout_key)
    if self.method == 'regression':
      # The paper's baseline: same network, no noise, one step, squared error.
      output = predict(params, x, jnp.zeros_like(y0), jnp.zeros(x.shape[:1]))
      return self._mean(jnp.square(output - y0), x)
    gamma = jax.vmap(partial(self._sample_gamma, teacher=teacher))(key)
    eps = samplers.normal(key, 1, y0.shape[1:])
    y = self.keep_known(diffusion.q_sample(y0, gamma, eps), x)
    goal = y0
    if teacher is not None:
      denoise = self._denoiser(teacher.params, x, condition, label)
      goal, eps = teacher.goal(denoise, y, gamma)
      hr = self.decode(goal, x)
    target = diffusion.target(self.prediction, goal, eps, gamma)
    if self.network.predicts:
      inputs = jnp.concatenate([x, y], axis=-1)
      output, own = predict_both(self.network, params, inputs, gamma)
    else:
      output, own = predict(params, x, y, gamma), None
    error = jnp.abs(output - target) ** self.loss_power
    if self.noise_weight:
      error *= ((1 - gamma) ** self.noise_weight)[:, None, None, None]
    loss = self._mean(error, x)
    if own is not None:
      loss += self._mean(jnp.square(own - y0), x)
    if self.perceptual:
      if perceptual is None:
        raise ValueError('a loss with a perceptual weight needs the distance')
      predicted = diffusion.predict_y0(self.prediction, output, y, gamma)
      image = self.decode(self.keep_known(predicted, x), x)
      given = perceptual, key, image, hr, self.network.patch
      loss += self.perceptual * looks_different(*given)
    return loss

  def _sample_gamma(self, key: jax.Array, teacher: Teacher | None = None) -> jax.Array:
    """Draw one noise level; students start their steps at some levels only."""
    # Folded, because split(k)[1], which `sample_gamma` uses, is the key of eps,
    # fold_in(k, 1): level and noise would be made from the same bits.
    own = jax.random.fold_in(key, 0)
    if teacher is None:
      gamma = diffusion.sample_gamma(own, self.gammas, 1)[0]
    else:
      gamma = teacher.sample_gamma(own)
    if not self.start_share:
      return gamma
    start = jax.random.bernoulli(jax.random.fold_in(key, 4), self.start_share)
    return jnp.where(start, self.gammas[-1], gamma)

  def _mean(self, error: jax.Array, x: jax.Array) -> jax.Array:
    """Return the mean error of the pixels that the loss is of."""
    if not self.hole_loss or 'mask' not in self.task.extras:
      return jnp.mean(error)
    missing = self.missing(x)
    share = jnp.mean(missing, axis=(1, 2, 3), keepdims=True)
    return jnp.mean(error * missing / jnp.maximum(share, 1e-6))

  # ------------------------------------------------------------------- sampling

  def denoise(
    self,
    params: Params,
    x: jax.Array,
    y: jax.Array,
    gamma: jax.Array,
    label: Array | None = None,
    guidance: Array | None = None,
  ) -> samplers.Prediction:
    """Predict y0 from a noisy y.

    The regression baseline ignores y and the level: the last step of any trajectory
    takes its prediction as it is. With `guidance` [B] the network runs twice, with the
    class and without: u + guidance (c - u), arXiv:2207.12598; 1 changes nothing.
    """
    y = self.keep_known(y, x)
    if self.method == 'regression':
      blank, level = jnp.zeros_like(y), jnp.zeros(x.shape[:1])
      y0 = self.predict(params, x, blank, level, label)
      return samplers.Prediction(self.keep_known(y0, x))
    if guidance is None:
      output = self.predict(params, x, y, gamma, label)
    elif label is None:
      raise ValueError('guidance needs the classes of the images: give label')
    else:
      labels = jnp.concatenate([label, jnp.full_like(label, self.num_classes)])
      xs, ys, gammas = (jnp.concatenate([a, a]) for a in (x, y, gamma))
      both = self.predict(params, xs, ys, gammas, labels)
      with_class, without = jnp.split(both, 2)
      weight = guidance[:, None, None, None]
      output = without + weight * (with_class - without)
    channels = y.shape[-1]
    y0 = diffusion.predict_y0(self.prediction, output[..., :channels], y, gamma)
    if self.clip:
      y0 = self.encode(diffusion.clip_finite(self.decode(y0, x)), x)
    y0 = self.keep_known(y0, x)
    variance = (output[..., channels:] + 1) / 2 if self.learned_variance else None
    return samplers.Prediction(y0, variance)

  def restore(
    self,
    params: Params,
    key: jax.Array,
    condition: jax.Array,
    coefficients: np.ndarray | None = None,
    gammas: np.ndarray | None = None,
    label: Array | None = None,
    noise: jax.Array | None = None,
    guidance: jax.Array | None = None,
  ) -> jax.Array:
    """Sample an image [B, H, W, C] in [-1, 1] for each condition [B, h, w, K].

    With [B] keys, sample b depends on key[b] alone. The sampler is the configured one,
    or `coefficients` [steps, 4 to 6] that were made from levels `gammas` [steps + 1].
    `label` [B] and `guidance` [B] are for models with classes, see `denoise`. For
    comparisons with other programs, `noise` [steps + 1, B, H, W, C] replaces what would
    be drawn: the start, then the noise of each step.
    """
    if coefficients is None:
      gammas, coefficients = self.trajectory
    elif gammas is None:
      raise ValueError('coefficients need the gammas that they were made from')
    x = self.upsample(condition)
    source = self.noise(key, x) if noise is None else jnp.asarray(noise).__getitem__
    carry = self.begin(source, x)
    steps = samplers.steps(gammas, coefficients)
    source = source if samplers.is_stochastic(coefficients) else None
    carry = self.advance(params, source, x, carry, steps, label, guidance, condition)
    return self.finish(x, carry)

  # `restore` in three parts, so that progress can be shown between stretches of steps.

  def noise(self, key: jax.Array, x: jax.Array) -> samplers.Noise:
    """Return the function step number -> noise [B, H, W, C]; number 0 is the start."""
    key = samplers.example_keys(key, x.shape[0])
    return partial(samplers.normal, key, shape=(*x.shape[1:3], self.channels))

  def begin(self, noise: samplers.Noise, x: jax.Array) -> samplers.Carry:
    """Return the first carry of a trajectory: pure noise, no prediction yet."""
    return noise(0), jnp.zeros((*x.shape[:3], self.channels))

  def advance(
    self,
    params: Params,
    noise: samplers.Noise | None,
    x: jax.Array,
    carry: samplers.Carry,
    steps: samplers.Steps,
    label: Array | None = None,
    guidance: jax.Array | None = None,
    condition: jax.Array | None = None,
  ) -> samplers.Carry:
    """Take the steps of a stretch of a trajectory; return the carry after the last.

    Regression needs one step, of any content. `noise` is None for samplers that add
    none. Models with `consistency` need the condition: every prediction of y0 is moved
    to the nearest one that downsamples to it.
    """
    if self.method == 'regression':
      y0 = self.denoise(params, x, *carry, label).y0
      return y0, y0

    denoise = self._denoiser(params, x, condition, label, guidance)
    return samplers.advance(denoise, noise, carry, steps)

  def _denoiser(
    self, params: Params, x: jax.Array, small: jax.Array | None, *label: Array | None
  ) -> samplers.Denoise:
    """Return `denoise`, consistent where the model is; guidance may follow `label`."""

    def denoise(y, gamma):
      prediction = self.denoise(params, x, y, gamma, *label)
      if not self.consistency:
        return prediction
      if small is None:
        raise ValueError('a model with consistency needs the condition')
      image = self.decode(prediction.y0, x)
      image = degradations.nearest_consistent(image, small)
      return prediction._replace(y0=self.encode(image, x))

    return denoise

  def finish(self, x: jax.Array, carry: samplers.Carry) -> jax.Array:
    """Return the images at the end of a trajectory, [B, H, W, C] in [-1, 1].

    Known pixels are exactly those of the condition. NaN is where the network's output
    was not finite.
    """
    image = diffusion.clip_finite(self.decode(carry[0], x))
    if 'mask' not in self.task.extras:
      return image
    return jnp.where(self.missing(x) > 0, image, self.observed(x))
