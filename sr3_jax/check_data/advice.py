"""Advises settings for a set of images: rules of thumb, each with its reason."""

import dataclasses
import math

import numpy as np

from sr3_jax.check_data.findings import SOFT, CheckedSet

_PAPER = 'arXiv:2104.07636'
_SIZES = (256, 128, 64, 32)
_CROPS = {
  'none': 'All images are squares of one size, as aligned faces are.',
  'center': 'One object fills the picture, as in sets with classes: the largest square '
  'is downsampled (as the paper does with ImageNet).',
  'random': 'Photographs of any size: every part of them is an example. For pictures '
  "of one object each take 'center'.",
}


@dataclasses.dataclass(frozen=True)
class Advice:
  """A setting, and the rule that it comes from."""

  setting: str
  value: str
  why: str


def advise(training: CheckedSet, *, devices: int, accelerator: bool) -> list[Advice]:
  """Advise settings to begin with.

  Args:
    training: the training set.
    devices: how many there are in all processes.
    accelerator: whether they are GPUs or TPUs.

  Returns:
    A configuration and what to change in it; nothing if no image can be decoded.
  """
  scan = training.scan
  sound = np.flatnonzero(scan.decodable)
  if not len(sound):
    return []
  height, width = scan.height[sound], scan.width[sound]
  aligned = bool((height == width).all() and (height == height[0]).all())
  classes = len(scan.labels)
  # The least downsampling at which photographs are sharp; 1 if it isn't known.
  sharp = [factor for factor, value in training.details.items() if value >= SOFT]
  factor = 1 if aligned else min(sharp, default=1)
  low = float(np.percentile(np.minimum(height, width), 5)) / factor
  size = next((s for s in _SIZES if s <= low), max(8, 2 ** int(math.log2(max(low, 8)))))
  if not accelerator:
    size = min(size, 128 if aligned else 32 if classes else 64)
  crop = 'center' if aligned or classes else 'random'
  if aligned and height[0] == size:
    crop = 'none'
  why = 'The largest of 32, 64, 128 and 256 that 95 % of the images have'
  why += f' when they are downsampled {factor} times' if factor > 1 else ''
  why += '.' if accelerator else ', but small: there is no GPU or TPU.'
  found = [
    _configuration(size, aligned, classes, accelerator),
    Advice('data.image_size', str(size), why),
    Advice('data.crop', crop, _CROPS[crop]),
  ]
  if factor > 1:
    why = f'Images are soft at full size and sharp downsampled {factor} times.'
    found.append(Advice('data.reduce', f'({factor},)', why))
  examples = float(len(sound))
  if crop == 'random':
    examples = float((height.astype(float) * width).sum()) / (size * factor) ** 2
  if not accelerator:
    return found + _schedule_on_cpu(examples, devices)
  found += _schedule(examples, devices)
  if len(sound) < 10_000:
    why = (
      f'{len(sound)} images are few: a large network memorises them. The paper uses '
      f'dropout 0.2 for its faces 16 to 128 ({_PAPER}, Table A.1).'
    )
    found.append(Advice('model.dropout', '0.1 to 0.2', why))
  return found


def _configuration(size: int, aligned: bool, classes: int, accelerator: bool) -> Advice:
  """Return the nearest of the configurations that come with the program."""
  cpu = not accelerator
  cases = (
    (classes and size <= 32, 'small/classes_8_16', 'small labelled images'),
    (
      cpu and aligned and size >= 128,
      'small/portraits_16_128',
      'aligned square images of 128 pixels, on a CPU',
    ),
    (cpu and aligned, 'small/portraits_16_64', 'aligned square images, on a CPU'),
    (cpu and size >= 64, 'small/photo_x4', 'photographs, on a CPU'),
    (cpu, 'quickstart', 'small photographs, on a CPU'),
    (aligned and size >= 128, 'faces_16_128', 'aligned square images'),
    (size >= 256, 'imagenet_64_256', 'photographs of at least 256 pixels'),
    (True, 'small/portraits_16_64', 'images of 64 pixels'),
  )
  name, kind = next((name, kind) for fits, name, kind in cases if fits)
  return Advice('--config', name, f'It is made for {kind}.')


def _schedule_on_cpu(examples: float, devices: int) -> list[Advice]:
  """Advise batch size, learning rate and length of a training of a small network."""
  batch = math.lcm(16, devices)
  steps = _round_steps(60 * examples / batch, 3000, 10_000)
  runs = 'The runs on CPUs in docs/results have it, with 2 to 5 million parameters.'
  passes = (
    f'60 passes over {examples:.0f} distinct crops, as face-x4 was trained; at least '
    '3000 and at most 10,000 steps, some hours of a core.'
  )
  half = 'That of the configuration may be longer than this training.'
  return [
    Advice('train.batch_size', str(batch), runs),
    Advice('train.learning_rate', '1e-3', 'The same runs; for small networks only.'),
    Advice('train.num_steps', str(steps), passes),
    Advice('train.decay_steps', str(steps // 2), half),
  ]


def _schedule(examples: float, devices: int) -> list[Advice]:
  """Advise batch size, learning rate and length of a training on accelerators."""
  batch = max(32 * devices, 1) if devices < 8 else math.lcm(256, devices)
  rate = 1e-4 * math.sqrt(batch / 256)
  steps = _round_steps(200 * examples / batch, 10_000, 1_000_000)
  fewer = (
    f'The paper has 256 ({_PAPER}, section 4), on many devices; 32 a device where '
    'there are fewer than 8. --mode=plan says what fits.'
  )
  root = (
    'The paper has 1e-4 at batch 256; with Adam it goes by the square root of the '
    'batch (Malladi et al. 2022, arXiv:2205.10287).'
  )
  passes = (
    f'200 passes over {examples:.0f} distinct crops, as the paper makes over ImageNet '
    '(a million steps of 256 over 1.28 million images); at least 10,000 steps and at '
    'most a million. Stop when held-out figures get worse.'
  )
  return [
    Advice('train.batch_size', str(batch), fewer),
    Advice('train.learning_rate', f'{rate:.2g}', root),
    Advice('train.num_steps', str(steps), passes),
  ]


def _round_steps(steps: float, least: int, most: int) -> int:
  """Round steps to one digit, within limits."""
  return int(min(max(round(steps, 1 - len(str(int(steps)))), least), most))
