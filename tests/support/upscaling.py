"""The upscale command with a stand-in for the model, and pictures for it."""

import pathlib
import types

import numpy as np
import pytest
from PIL import Image

from sr3_jax.restoration import upscaler
from sr3_jax.restoration.memory import Memory
from sr3_jax.upscale import command as upscale_command


class Standin:
  """Repeats pixels twice and adds noise that depends on seed and sample."""

  num_steps = 4
  model = types.SimpleNamespace(
    channels=3,
    value_range=None,
    input_channels=3,
    input_range=None,
    task=types.SimpleNamespace(paired=False),
  )
  takes_masks = needs_masks = False

  def __init__(self, seed=0, **settings):
    self.seed, self.given = seed, settings
    self.groups, self.reserved, self.fail_at = [], None, set()
    self.broken_at = None  # size of an image that becomes NaN

  def settings(self, outscale=None):
    own = {'model': 'standin', 'weights': 'abc', 'version': '1', 'seed': self.seed}
    own |= {'outscale': outscale or 2, 'sampler': 'none', 'task': 'repetition'}
    return own | self.given

  def margins(self, height, width):
    return 0, 0, 0, 0

  def output_size(self, height, width, outscale=None):
    return tuple(max(1, round(side * (outscale or 2))) for side in (height, width))

  def work(self, height, width, outscale=None, num_samples=1):
    return self.num_steps * num_samples * height * width

  def reserve(self, sizes, outscale=None):
    self.reserved = list(sizes)

  def canvas(self, height, width, outscale=None):
    return height * width

  def memory(self, height, width, outscale=None, label=None, num_samples=1, frames=1):
    return Memory(10**9, 2 * 10**9)

  def check(self, outscale, label, masked=False):
    if masked:
      raise upscaler.UpscalerError('no masks: this model is for repetition')
    if label is not None:
      raise upscaler.UpscalerError('this model has no classes')
    return outscale or 2, 0

  def upscale_many(
    self,
    images,
    outscale=None,
    *,
    masks,
    num_samples=1,
    label=None,
    on_steps=None,
    allow_broken=False,
  ):
    assert masks == [None] * len(images)
    self.groups.append([image.shape[:2] for image in images])
    results = []
    for image in images:
      if image.shape[:2] in self.fail_at:
        raise self.fail_at[image.shape[:2]]
      sides = self.output_size(*image.shape[:2], outscale)
      rows, columns = (
        np.arange(side) * had // side
        for side, had in zip(sides, image.shape, strict=False)
      )
      large = image[rows][:, columns]
      noise = np.random.default_rng(self.seed).normal(0, 0.01, (num_samples, 1, 1, 1))
      noise[0] = 0
      for _ in range(self.num_steps):
        on_steps(num_samples * image.shape[0] * image.shape[1])
      settings = self.settings(outscale)
      samples = (large + noise).astype(np.float32)
      if image.shape[:2] == self.broken_at:
        samples[0, 0, 0] = np.nan
      results.append(upscaler.Result(samples, image, settings))
    return results


@pytest.fixture
def standin(monkeypatch):
  standin = Standin()
  monkeypatch.setattr(upscale_command, 'load', lambda args: standin)
  return standin


@pytest.fixture
def command(standin, tmp_path, monkeypatch):
  """Runs the command in an empty folder; returns its exit code."""
  monkeypatch.chdir(tmp_path)
  return lambda *args: upscale_command.main(
    ['--model=m', '--output=out', '--cache=', *args]
  )


def save(path, height=6, width=8, channels=3, seed=0, **options):
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  rng = np.random.default_rng(seed)
  pixels = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
  stored = pixels[..., 0] if channels == 1 else pixels
  Image.fromarray(stored).save(path, **options)
  return pixels


def names_in(folder='out'):
  files = sorted(path for path in pathlib.Path(folder).rglob('*') if path.is_file())
  return [path.relative_to(folder).as_posix() for path in files]


def last_line(capsys):
  return capsys.readouterr().out.strip().splitlines()[-1]
