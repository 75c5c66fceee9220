r"""Trains from nothing side by side with the PyTorch original of most SR3 users.

  python benchmarks/train_peer.py --peer=PATH --data=TRAIN_FOLDER --test=TEST_FOLDER \
    --workdir=runs/peer --images=20000

PATH is a checkout of Janspiry/Image-Super-Resolution-via-Iterative-Refinement; torch
must be installed (pip install 'sr3_jax[convert]'). Both learn to upsample 16 to 64
pixels from the same images with random flips, in batches of the same size, on all
cores, one after the other:

  theirs      their network of 9.9M parameters, their loss, schedule and learning rate
  images      configs/small/portraits_16_64.py, but a network as theirs with 9.2M
              parameters, which works on blocks of 2 x 2 pixels and predicts v, as many
              images
  time        the same, for as long as theirs took

Then all are measured alike: their own validation loss (mean absolute error of the
noise, at levels of their schedule; for ours computed from its prediction of the image,
given the same ratio of signal to noise), images/s of training, and, with the same
sampler and steps, everything that sr3-evaluate measures. Times are those of training
steps, without compilation and start. What is finished stays in WORKDIR and is not done
again. The validation loss divides the error of a prediction by the noise, which is near
0 at some levels, so it is only for networks that predict noise or v.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import shipped
import upscale as speed

from sr3_jax.core import degradations
from sr3_jax.evaluation import image_folders
from sr3_jax.images import image_files, pixels
from sr3_jax.runtime import atomic_files, metrics_log
from sr3_jax.runtime.progress import Progress
from sr3_jax.upscale import command as upscale_command
from sr3_jax.weights import hub

SIDE, SCALE, NETWORK = 64, 4, 'small'
# 9.2M parameters, on blocks whose noise fits through the channels.
OURS = (
  '--config.model.patch=2',
  '--config.model.channels=32',
  '--config.model.multipliers=(1,2,4,7)',
  '--config.diffusion.prediction=v',
  '--config.diffusion.noise_weight=0.0',
)
LEVELS = 16  # of the validation loss


def load(folder: pathlib.Path) -> np.ndarray:
  """Return the images of a folder, float32 [N, 64, 64, 3] in [-1, 1]."""
  found = [image_files.read(path) for path in image_folders.find(folder).values()]
  if any(image.shape[:2] != (SIDE, SIDE) for image in found):
    raise SystemExit(f'error: {folder}: all images must be {SIDE} x {SIDE} pixels')
  return pixels.to_float(np.stack(found))


def upsampled(hr: np.ndarray) -> np.ndarray:
  """Return what the networks are given: images downsampled and upsampled, bicubic."""
  down = degradations.resize(hr, SIDE // SCALE, SIDE // SCALE)
  return np.asarray(degradations.resize(down, SIDE, SIDE))


def train_theirs(args: argparse.Namespace, folder: pathlib.Path) -> float:
  """Train theirs to a model folder; return the seconds of the training steps."""
  import torch

  hr = load(args.data)
  x = upsampled(hr)
  model = speed.their_network(str(args.peer), NETWORK).train()
  model.set_loss(torch.device('cpu'))
  model.set_new_noise_schedule(
    speed.their_schedule(speed.THEIR_STEPS), torch.device('cpu')
  )
  adam = torch.optim.Adam(model.parameters(), lr=args.their_rate)
  rng = np.random.default_rng(0)
  seconds, order = 0.0, np.zeros(0, int)

  def tensor(a):
    return torch.from_numpy(np.ascontiguousarray(a.transpose(0, 3, 1, 2)))

  steps = args.images // args.batch_size
  with Progress(steps, unit='step') as progress:
    for step in range(steps):
      if len(order) < args.batch_size:
        order = np.append(order, rng.permutation(len(hr)))
      picked, order = np.split(order, [args.batch_size])
      flip = rng.random(args.batch_size)[:, None, None, None] < 0.5
      some = [np.where(flip, a[picked, :, ::-1], a[picked]) for a in (hr, x)]
      began = time.perf_counter()
      adam.zero_grad()
      loss = model({'HR': tensor(some[0]), 'SR': tensor(some[1])})
      loss = loss.sum() / some[0].size
      loss.backward()
      adam.step()
      if step:  # the first step is slower; the second counts twice instead
        seconds += (time.perf_counter() - began) * (1 + (step == 1))
      progress.update(step + 1)
  weights = folder / 'theirs.pth'
  torch.save(model.state_dict(), weights)
  command = [sys.executable, '-m', 'sr3_jax.weights.convert', weights, '--groups=16']
  command += [f'--scale={SCALE}', f'--image_size={SIDE}']
  command += [f'--output={folder / "model"}']
  subprocess.run([str(part) for part in command], check=True)
  return seconds


def train_ours(args: argparse.Namespace, folder: pathlib.Path, steps: int) -> float:
  """Train ours to the folder of a run; return the seconds of the training steps."""
  command = [sys.executable, '-m', 'sr3_jax.main', f'--config={args.config}']
  command += [f'--workdir={folder / "model"}', *OURS]
  command += [f'--config.data.path={args.data}', f'--config.data.eval_path={args.test}']
  command += [f'--config.train.batch_size={args.batch_size}']
  command += [f'--config.train.num_steps={steps}']
  command += [f'--config.train.decay_steps={steps // 2}', '--config.regression_steps=0']
  command += ['--config.eval.every_steps=0', '--config.eval.final_images=1']
  command += ['--config.sampler.num_steps=1', '--config.eval.networks=()']
  subprocess.run(command, check=True)
  return metrics_log.training_seconds(folder / 'model', args.batch_size)


def validation_loss(loaded: hub.Loaded, hr: np.ndarray) -> float:
  """Return the mean absolute error of the noise at LEVELS levels of their schedule.

  A model with other variables, y0 = scale (image - x), is given the same signal and
  noise: noise of standard deviation n in units of the image has
  gamma = 1 / (1 + scale^2 n^2).
  """
  model = loaded.model
  betas = np.linspace(1e-6, 1e-2, speed.THEIR_STEPS)
  theirs = np.cumprod(1 - betas)[:: len(betas) // LEVELS]
  x = jnp.asarray(upsampled(hr))
  y0 = model.encode(hr, x)

  @jax.jit
  def error(key, noise):
    eps = jax.random.normal(key, hr.shape)
    gamma = 1 / (1 + jnp.square(model.y0_scale * noise))
    level = jnp.full(len(hr), gamma)
    y = jnp.sqrt(gamma) * y0 + jnp.sqrt(1 - gamma) * eps
    predicted = model.decode(model.denoise(loaded.params, x, y, level).y0, x)
    return jnp.mean(jnp.abs(predicted - hr)) / noise

  noises = np.sqrt((1 - theirs) / theirs)
  keys = jax.random.split(jax.random.key(0), len(noises))
  return float(
    np.mean([error(k, np.float32(n)) for k, n in zip(keys, noises, strict=True)])
  )


def main() -> None:
  """Run the command."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add, path = parser.add_argument, pathlib.Path
  add('--peer', type=path, required=True, metavar='PATH')
  add('--data', type=path, required=True, metavar='DIR', help='64-pixel images')
  add('--test', type=path, required=True, metavar='DIR', help='others')
  add('--workdir', type=path, required=True, metavar='DIR')
  add('--config', default='configs/small/portraits_16_64.py', help='of ours')
  add('--images', type=int, default=20_000, help='that both see')
  add('--batch_size', type=int, default=16)
  add('--their_rate', type=float, default=1e-4, help='their learning rate')
  add('--steps', type=int, default=100, help='of sampling')
  add('--sampler', default='ddpm')
  add('--weights', default='', metavar='DIR', help='of networks, as sr3-evaluate')
  args = parser.parse_args()
  test = load(args.test)
  figures: dict[str, dict] = {}

  def trained(name: str, train, *options) -> float:
    """Return the seconds of a training, done now or before; add to `figures`."""
    folder = args.workdir / name
    done = folder / 'seconds.json'
    if not done.exists():
      folder.mkdir(parents=True, exist_ok=True)
      atomic_files.write_json(done, {'seconds': train(args, folder, *options)})
    seconds = json.loads(done.read_text())['seconds']
    loaded = hub.load(folder / 'model')
    count = sum(leaf.size for leaf in jax.tree.leaves(loaded.params))
    figures[name] = {
      'parameters': count,
      'seconds': seconds,
      'validation loss': validation_loss(loaded, test),
    }
    return seconds

  steps = args.images // args.batch_size
  theirs = trained('theirs', train_theirs)
  ours = trained('images', train_ours, steps)
  longer = max(steps, round(steps * theirs / ours))
  trained('time', train_ours, longer)
  for name, count in (('theirs', steps), ('images', steps), ('time', longer)):
    figures[name]['images/s'] = count * args.batch_size / figures[name]['seconds']

  folder = args.workdir / 'test'
  shipped.prepare(args.test, folder, SCALE)
  for name in figures:
    shipped.run(
      *(upscale_command.main, folder / 'inputs', f'--output={folder / name}'),
      *(f'--model={args.workdir / name / "model"}', f'--sampler={args.sampler}'),
      *(f'--steps={args.steps}', '--suffix=', '--ext=png'),
    )
  rows = shipped.measure(folder, list(figures), weights=args.weights)
  lines = ['| | ' + ' | '.join(figures) + ' |', '|---' * (1 + len(figures)) + '|']
  for key in figures['theirs']:
    cells = [f'{row[key]:.4g}' for row in figures.values()]
    lines.append(f'| {key} | ' + ' | '.join(cells) + ' |')
  lines += ['', *shipped.markdown('test', rows, len(test))]
  atomic_files.write_bytes(args.workdir / 'results.md', '\n'.join(lines).encode())
  shipped.write_sheet(folder, list(figures), 5, SIDE)
  print('\n'.join(lines))


if __name__ == '__main__':
  main()
