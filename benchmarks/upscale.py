"""Times the upscaling of images beside the PyTorch original of most SR3 users.

  python benchmarks/upscale.py --peer=PATH [--network=16_128] [--steps=20]

PATH is a checkout of Janspiry/Image-Super-Resolution-via-Iterative-Refinement; torch
must be installed (pip install 'sr3_jax[convert]'). Both have the same random weights,
saved by the original and converted by sr3-convert, and restore the same images in as
many steps, on all cores, in turns. Figures are medians; the ratio is the median over
pairs of runs. Without --peer only ours is timed.

What is timed:
  image     one image from pixels to pixels, with everything compiled and loaded.
  folder    --images images. Theirs restores one image at a time.
  start     a new process: imports, weights, compilation, one image. Ours twice, with
            an empty and with a filled folder of compiled programs.
  default   one image as users get it: their 2000 steps against --steps=fast. The time
            of theirs is that of a step of `image` times 2000, unless --full runs it.
"""

import argparse
import functools
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np

import sr3_jax
from sr3_jax.config import get_config
from sr3_jax.core.sr3 import SR3
from sr3_jax.images import image_files, pixels
from sr3_jax.weights import convert, model_writer

# The U-Nets of the original: width, multipliers, blocks, sides with attention, groups,
# side of the images, scale.
NETWORKS = {
  'small': (32, (1, 2, 4, 8), 1, (16,), 16, 64, 4),
  '16_128': (64, (1, 2, 4, 8, 8), 2, (16,), 32, 128, 8),
}
THEIR_STEPS = 2000

THEIR_PROCESS = """
import sys
sys.path[:0] = [{benchmarks!r}]
import upscale
network = upscale.their_network({peer!r}, {network!r})
import torch
network.load_state_dict(torch.load({weights!r}, weights_only=True), strict=False)
upscale.their_image(network, {steps}, upscale.inputs({network!r}, 1)[0], {network!r})
"""


def inputs(network: str, count: int) -> list[np.ndarray]:
  """Return images of noise, uint8 [h, w, 3]; speed does not depend on their content."""
  *_, side, scale = NETWORKS[network]
  rng = np.random.default_rng(0)
  shape = count, side // scale, side // scale, 3
  return list(rng.integers(0, 256, shape, np.uint8))


def their_network(peer: str, network: str):
  """Return their diffusion model with random weights of seed 0."""
  sys.path.insert(0, peer)
  import torch
  from model.sr3_modules import diffusion, unet

  width, multipliers, blocks, attention, groups, side, _ = NETWORKS[network]
  torch.manual_seed(0)
  net = unet.UNet(
    in_channel=6,
    out_channel=3,
    inner_channel=width,
    norm_groups=groups,
    channel_mults=multipliers,
    attn_res=attention,
    res_blocks=blocks,
    dropout=0.2,
    image_size=side,
  )
  return diffusion.GaussianDiffusion(net, side, conditional=True).eval()


def their_schedule(steps: int) -> dict[str, object]:
  """Return their noise schedule of so many steps."""
  betas = {'linear_start': 1e-6, 'linear_end': 1e-2}
  return {'schedule': 'linear', 'n_timestep': steps} | betas


def their_image(model, steps: int, image: np.ndarray, network: str) -> np.ndarray:
  """Restore one image with their model, from 8-bit pixels to 8-bit pixels."""
  import torch
  from PIL import Image

  side = NETWORKS[network][5]
  if getattr(model, 'num_timesteps', None) != steps:
    model.set_new_noise_schedule(their_schedule(steps), torch.device('cpu'))
  large = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
  x = torch.from_numpy(np.asarray(large).transpose(2, 0, 1)[None] / 127.5 - 1).float()
  with torch.no_grad():
    y = model.super_resolution(x, False)
  return pixels.to_uint8(y.numpy().reshape(3, side, side).transpose(1, 2, 0))


def timed(function, *args) -> float:
  """Return the seconds of a call."""
  began = time.perf_counter()
  function(*args)
  return time.perf_counter() - began


def alternate(ours, theirs, repeats: int) -> dict[str, float]:
  """Time two functions in turns; return median seconds and the median ratio."""
  ours()
  if theirs is None:
    return {'ours_s': float(np.median([timed(ours) for _ in range(repeats)]))}
  theirs()
  pairs = np.array([(timed(ours), timed(theirs)) for _ in range(repeats)])
  medians = np.median(pairs, axis=0)
  ratio = float(np.median(pairs[:, 1] / pairs[:, 0]))
  return {'ours_s': medians[0], 'theirs_s': medians[1], 'times_faster': ratio}


def starts(args, folder: pathlib.Path) -> dict[str, float]:
  """Return the seconds of new processes that restore one image."""
  picture = folder / 'picture.png'
  image_files.write(picture, inputs(args.network, 1)[0])
  command = [sys.executable, '-m', 'sr3_jax.upscale.command', picture, '--overwrite']
  command += [f'--model={folder / "model"}', f'--output={folder / "out"}']
  command += [f'--steps={args.steps}', f'--cache={folder / "cache"}']

  def run(command):
    command = [str(part) for part in command]
    subprocess.run(command, check=True, capture_output=True)

  row = {'ours_s': timed(run, command), 'ours_again_s': timed(run, command)}
  if args.peer:
    code = THEIR_PROCESS.format(
      benchmarks=str(pathlib.Path(__file__).parent),
      weights=str(folder / 'weights.pth'),
      **vars(args),
    )
    row['theirs_s'] = timed(run, [sys.executable, '-c', code])
    row['times_faster'] = row['theirs_s'] / row['ours_again_s']
  return row


def make_model(args, folder: pathlib.Path):
  """Write ours with the weights of theirs; return theirs, None without --peer."""
  width, multipliers, blocks, attention, groups, side, scale = NETWORKS[args.network]
  if not args.peer:
    config = get_config()
    config.model.network, config.model.groups = 'janspiry', groups
    config.model.channels, config.model.multipliers = width, multipliers
    config.model.num_blocks, config.model.attention_resolutions = blocks, attention
    config.model.dtype = 'float32'
    config.data.image_size, config.task.scale = side, scale
    params = SR3.from_config(config).init(jax.random.key(0))
    model_writer.save(folder / 'model', params, config, step=0, source='random weights')
    return None
  import torch

  theirs = their_network(args.peer, args.network)
  torch.save(theirs.state_dict(), folder / 'weights.pth')
  convert.main(
    [
      str(folder / 'weights.pth'),
      f'--output={folder / "model"}',
      f'--groups={groups}',
      f'--scale={scale}',
      f'--image_size={side}',
    ]
  )
  return theirs


def main() -> None:
  """Run the command."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--peer', help='checkout of the PyTorch original')
  add('--network', choices=NETWORKS, default='small', help='which of its networks')
  add('--steps', type=int, default=20, help='sampling steps of both')
  add('--images', type=int, default=4, help='images of the folder')
  add('--repeats', type=int, default=5, help='timed pairs')
  add('--full', action='store_true', help='let theirs take its 2000 steps')
  add('--json', help='also write the figures to this file')
  args = parser.parse_args()

  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    theirs = make_model(args, folder)
    sampler = {'steps': args.steps, 'sampler': 'ddpm_posterior'}
    ours = sr3_jax.load(folder / 'model', **sampler)
    fast = sr3_jax.load(folder / 'model', steps='fast')
    pictures = inputs(args.network, args.images)

    def them(steps: int, pictures: list[np.ndarray]) -> None:
      for picture in pictures:
        their_image(theirs, steps, picture, args.network)

    one = functools.partial(them, args.steps, pictures[:1]) if args.peer else None
    every = functools.partial(them, args.steps, pictures) if args.peer else None
    rows = {
      'image': alternate(lambda: ours.upscale(pictures[0]), one, args.repeats),
      'folder': alternate(
        lambda: ours.upscale_many(pictures), every, max(2, args.repeats // 2)
      ),
      'start': starts(args, folder),
      'default': alternate(lambda: fast.upscale(pictures[0]), None, args.repeats),
    }
    if args.peer:
      row = rows['default']
      if args.full:
        row['theirs_s'] = timed(them, THEIR_STEPS, pictures[:1])
      else:
        row['theirs_s'] = rows['image']['theirs_s'] * THEIR_STEPS / args.steps
      row['times_faster'] = row['theirs_s'] / row['ours_s']

  count = f'{fast.num_steps} steps against {THEIR_STEPS}'
  print(f'{args.network}, {args.steps} steps, {args.images} images; default: {count}')
  for name, row in rows.items():
    print(f'{name:8}', '  '.join(f'{key} {value:.3f}' for key, value in row.items()))
  if args.json:
    pathlib.Path(args.json).write_text(json.dumps(rows, indent=2))


if __name__ == '__main__':
  main()
