"""Advises settings for a set of images: rules of thumb, each with its reason."""

import dataclasses
import math

import numpy as np

from sr3_jax.check_data.findings import SOFT, CheckedSet

_PAPER = 'arXiv:2104.07636'
_SIZES = (256, 128, 64, 32)


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
  whole = np.flatnonzero(scan.whole)
  if not len(whole):
    return []
  height, width = scan.height[whole], scan.width[whole]
  aligned = bool((height == width).all() and (height == height[0]).all())
  classes = len(scan.labels)
  factor = _factor(training) if not aligned else 1
  low = float(np.percentile(np.minimum(height, width), 5)) / factor
  size = next((s for s in _SIZES if s <= low), max(8, 2 ** int(math.log2(max(low, 8)))))
  if not accelerator:
    size = min(size, 128 if aligned else 32 if classes else 64)
  crop = 'none' if aligned and height[0] == size else 'center'
  if not (aligned or classes):
    crop = 'random'
  found = [_configuration(size, aligned, classes, accelerator)]
  found.append(
    Advice(
      'data.image_size',
      str(size),
      'The largest of 32, 64, 128 and 256 that 95 % of the images have'
      + (f' when they are downsampled {factor} times' if factor > 1 else '')
      + ('' if accelerator else ', but small: there is no GPU or TPU')
      + '.',
    )
  )
  found.append(_crop(crop))
  if factor > 1:
    text = f'Images are soft at full size and sharp downsampled {factor} times.'
    found.append(Advice('data.reduce', f'({factor},)', text))
  batch, rate = _rates(devices, accelerator)
  found += [batch, rate]
  examples = float(len(whole))
  if crop == 'random':
    examples = float((height.astype(float) * width).sum()) / (size * factor) ** 2
  found += _steps(examples, int(batch.value), accelerator)
  if accelerator and len(whole) < 10_000:
    text = (
      f'{len(whole)} images are few: a large network memorises them. The paper uses '
      f'dropout 0.2 for its faces 16 to 128 ({_PAPER}, Table A.1).'
    )
    found.append(Advice('model.dropout', '0.1 to 0.2', text))
  return found


def _factor(training: CheckedSet) -> int:
  """Return the least downsampling at which images are sharp; 1 if it isn't known."""
  sharp = [factor for factor, value in training.details.items() if value >= SOFT]
  return min(sharp, default=1)


def _configuration(size: int, aligned: bool, classes: int, accelerator: bool) -> Advice:
  """Return the nearest of the configurations that come with the program."""
  if classes and size <= 32:
    name, why = 'small/classes_8_16', 'small labelled images'
  elif not accelerator and aligned and size >= 128:
    name, why = (
      'small/portraits_16_128',
      'aligned square images of 128 pixels, on a CPU',
    )
  elif not accelerator and aligned:
    name, why = 'small/portraits_16_64', 'aligned square images, on a CPU'
  elif not accelerator and size >= 64:
    name, why = 'small/photo_x4', 'photographs, on a CPU'
  elif not accelerator:
    name, why = 'quickstart', 'small photographs, on a CPU'
  elif aligned and size >= 128:
    name, why = 'faces_16_128', 'aligned square images'
  elif size >= 256:
    name, why = 'imagenet_64_256', 'photographs of at least 256 pixels'
  else:
    name, why = 'small/portraits_16_64', 'images of 64 pixels'
  return Advice('--config', name, f'It is made for {why}.')


def _crop(crop: str) -> Advice:
  why = {
    'none': 'All images are squares of one size, as aligned faces are.',
    'center': 'One object fills the picture, as in sets with classes: the largest '
    'square is downsampled (as the paper does with ImageNet).',
    'random': 'Photographs of any size: every part of them is an example. For pictures '
    "of one object each take 'center'.",
  }
  return Advice('data.crop', crop, why[crop])


def _rates(devices: int, accelerator: bool) -> tuple[Advice, Advice]:
  """Advise a batch size and a learning rate."""
  if not accelerator:
    return (
      Advice(
        'train.batch_size',
        str(math.lcm(16, devices)),
        'The runs on CPUs in docs/results have it, with 2 to 5 million parameters.',
      ),
      Advice('train.learning_rate', '1e-3', 'The same runs; for small networks only.'),
    )
  batch = max(32 * devices, 1) if devices < 8 else math.lcm(256, devices)
  rate = 1e-4 * math.sqrt(batch / 256)
  return (
    Advice(
      'train.batch_size',
      str(batch),
      f'The paper has 256 ({_PAPER}, section 4), on many devices; 32 a device where '
      'there are fewer than 8. --mode=plan says what fits.',
    ),
    Advice(
      'train.learning_rate',
      f'{rate:.2g}',
      'The paper has 1e-4 at batch 256; with Adam it goes by the square root of the '
      'batch (Malladi et al. 2022, arXiv:2205.10287).',
    ),
  )


def _steps(examples: float, batch: int, accelerator: bool) -> list[Advice]:
  """Advise the length of the training."""
  if not accelerator:
    steps = _rounded(60 * examples / batch, 3000, 10_000)
    text = (
      f'60 passes over {examples:.0f} distinct crops, as face-x4 was trained; at least '
      '3000 and at most 10,000 steps, some hours of a core.'
    )
    half = 'That of the configuration may be longer than this training.'
    return [
      Advice('train.num_steps', str(steps), text),
      Advice('train.decay_steps', str(steps // 2), half),
    ]
  steps = _rounded(200 * examples / batch, 10_000, 1_000_000)
  text = (
    f'200 passes over {examples:.0f} distinct crops, as the paper makes over ImageNet '
    '(a million steps of 256 over 1.28 million images); at least 10,000 steps and at '
    'most a million. Stop when held-out figures get worse.'
  )
  return [Advice('train.num_steps', str(steps), text)]


def _rounded(steps: float, least: int, most: int) -> int:
  """Round steps to one digit, within limits."""
  return int(min(max(round(steps, 1 - len(str(int(steps)))), least), most))
