r"""Measures class-conditional images with a classifier trained on real ones.

  python benchmarks/classes.py --data=FILE.npz --workdir=runs/classes \
    --stages runs/classes_8 runs/classes_8_16 [--guidance 1 2 3]

It samples images of every class from a cascade, once for each guidance of its first
stage. Then it measures them with a small network, which it trains first on the training
images of the data: how many images the network assigns to the class that they were
sampled for, and how far the distribution of its features is from that of the held-out
images. The first rows of the table are for real images. It writes WORKDIR/classes.json
and WORKDIR/classes.png, with a column for each class and a row for each guidance.
Images that are there already are not sampled again.

`FD` is a Frechet distance as FID is, of 64 features of that network: smaller is better,
and no number of another network or data set compares with it.
"""

import argparse
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import serialization

from sr3_jax import config
from sr3_jax.cascade import run as cascade_run
from sr3_jax.data import sources
from sr3_jax.images import contact_sheets, image_files, pixels
from sr3_jax.metrics import fid_kid_is
from sr3_jax.runtime import atomic_files, process_log
from sr3_jax.runtime.progress import Progress
from sr3_jax.weights import hub

FEATURES = 64


class Classifier(nn.Module):
  """A network of four convolutions and two layers: its logits and its features."""

  num_classes: int

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Map images [B, H, W, C] in [-1, 1] to logits [B, classes], features [B, 64]."""
    for channels in (32, 64):
      x = nn.relu(nn.Conv(channels, (3, 3))(x))
      x = nn.relu(nn.GroupNorm(8)(nn.Conv(channels, (3, 3))(x)))
      x = nn.max_pool(x, (2, 2), (2, 2))
    features = nn.relu(nn.Dense(FEATURES)(x.reshape(len(x), -1)))
    return nn.Dense(self.num_classes)(features), features


def read_all(source: sources.Source) -> tuple[np.ndarray, np.ndarray]:
  """Return all images as float32 in [-1, 1], and their labels."""
  records = [source[i] for i in range(len(source))]
  images = np.stack([record['image'] for record in records])
  return pixels.to_float(images), np.stack([record['label'] for record in records])


def train(
  model: Classifier, x: np.ndarray, y: np.ndarray, *, epochs: int, batch: int = 64
):
  """Return parameters after some epochs of Adam on randomly flipped images."""
  params = model.init(jax.random.key(0), x[:1])
  steps = epochs * (len(x) // batch)
  # Without a slow start all 64 features of larger images may become 0 for ever.
  rate = optax.warmup_cosine_decay_schedule(0.0, 1e-3, steps // 5, steps)
  optimizer = optax.adam(rate)

  @jax.jit
  def step(params, state, x, y):
    def loss(params):
      logits, _ = model.apply(params, x)
      return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    value, gradient = jax.value_and_grad(loss)(params)
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(params, updates), state, value

  state, rng = optimizer.init(params), np.random.default_rng(0)
  with Progress(steps) as progress:
    for number in range(steps):
      rows = rng.integers(len(x), size=batch)
      flip = rng.integers(2, size=batch)[:, None, None, None]
      shown = np.where(flip, x[rows, :, ::-1], x[rows])
      params, state, value = step(params, state, shown, y[rows])
      progress.update(number + 1, loss=value)
  return params


class Evaluator:
  """A trained classifier that measures sets of images.

  Args:
    model: the classifier.
    params: its parameters.
    truth: held-out images, [N, H, W, C] in [-1, 1].
  """

  def __init__(self, model: Classifier, params, truth: np.ndarray):
    self._apply = jax.jit(lambda x: model.apply(params, x))
    self._truth = fid_kid_is.Moments.of(self(truth)[1])

  def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return logits and features, computed in portions of one shape."""
    found = []
    for start in range(0, len(x), 250):
      part = x[start : start + 250]
      padding = ((0, 250 - len(part)), (0, 0), (0, 0), (0, 0))
      found.append([a[: len(part)] for a in self._apply(jnp.pad(part, padding))])
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))

  def row(self, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Return accuracy, its 1.96 standard errors, and FD to the held-out images."""
    logits, features = self(x)
    right = (logits.argmax(-1) == y).mean()
    interval = fid_kid_is.frechet_interval(features, self._truth)
    low, high = interval or (float('nan'), float('nan'))
    return {
      'images': len(x),
      'accuracy': float(right),
      'accuracy_error': float(1.96 * np.sqrt(right * (1 - right) / len(x))),
      'fd': fid_kid_is.frechet_distance(fid_kid_is.Moments.of(features), self._truth),
      'fd_low': low,
      'fd_high': high,
    }


def sample(
  args: argparse.Namespace, guidance: float, side: int
) -> tuple[np.ndarray, np.ndarray]:
  """Sample with the cascade; return images of the last stage and their classes."""
  c = config.get_config()
  stages = [str(pathlib.Path(stage).resolve()) for stage in args.stages]
  c.cascade.stages = tuple(stages)
  c.cascade.guidance = (guidance, *[1.0] * (len(stages) - 1))
  c.cascade.blur = (0.0, *[args.blur] * (len(stages) - 1))
  c.cascade.noise = (0.0, *[args.noise] * (len(stages) - 1))
  c.cascade.images_per_class = args.images_per_class
  c.cascade.batch_size = args.batch_size
  workdir = args.workdir / f'guidance_{guidance:g}'
  cascade_run.sample_run(c, workdir)
  folders = sorted((workdir / 'samples' / str(side)).iterdir())
  x, y = [], []
  for folder in folders:
    # The name of a folder begins with the number of its class: 003_cat.
    label = int(folder.name.partition('_')[0])
    for path in sorted(folder.glob('*.png'))[: args.images_per_class]:
      x.append(image_files.read(path))
      y.append(label)
  return pixels.to_float(np.stack(x)), np.array(y)


def sheet(rows: dict[str, tuple[np.ndarray, np.ndarray]], names) -> np.ndarray:
  """Return a picture with four images of each class in a cell; a row for each set."""

  def cell(x, y, label):
    found = x[y == label][:4]
    quads = np.concatenate(
      [np.concatenate(pair, axis=1) for pair in (found[:2], found[2:])]
    )
    return pixels.to_uint8(quads)

  cells = [[cell(x, y, k) for k in range(len(names))] for x, y in rows.values()]
  return contact_sheets.sheet(cells, list(names), list(rows), cell=96)


def main() -> None:
  """Run the command."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--data', required=True, help='.npz as of data.source=arrays')
  parser.add_argument('--stages', nargs='+', required=True, help='runs, first to last')
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--guidance', type=float, nargs='+', default=[1.0, 2.0, 3.0])
  parser.add_argument('--images_per_class', type=int, default=50)
  parser.add_argument('--batch_size', type=int, default=50)
  parser.add_argument('--epochs', type=int, default=8)
  parser.add_argument('--blur', type=float, default=0.0, help='of later stages')
  parser.add_argument('--noise', type=float, default=0.0, help='of later stages')
  args = parser.parse_args()
  process_log.setup()

  side = hub.load(args.stages[-1]).model.image_size
  sets = {}
  for split in ('train', 'test'):
    source = sources.make_source('arrays', path=args.data, split=split)
    x, y = read_all(source)
    factor = x.shape[1] // side
    x = x.reshape(len(x), side, factor, side, factor, -1).mean((2, 4))
    sets[split] = x, y
  model = Classifier(len(source.classes))
  cached = args.workdir / f'classifier_{side}.msgpack'
  if cached.exists():
    params = serialization.msgpack_restore(cached.read_bytes())
  else:
    params = train(model, *sets['train'], epochs=args.epochs)
    atomic_files.write_bytes(
      cached, serialization.msgpack_serialize(jax.device_get(params))
    )
  evaluator = Evaluator(model, params, sets['test'][0])

  # As many real images as generated ones: the distance depends on their number.
  count = args.images_per_class * len(source.classes)
  few = np.random.default_rng(0).permutation(len(sets['train'][0]))[:count]
  real = tuple(part[few] for part in sets['train'])
  table, shown = {'held-out images': evaluator.row(*sets['test'])}, {}
  table['training images'] = evaluator.row(*real)
  for guidance in args.guidance:
    x, y = sample(args, guidance, side)
    table[f'guidance {guidance:g}'] = evaluator.row(x, y)
    shown[f'guidance {guidance:g}'] = x, y
    atomic_files.write_json(args.workdir / 'classes.json', table)
  image_files.write(args.workdir / 'classes.png', sheet(shown, source.classes))
  for name, row in table.items():
    print(
      f'{name:16} {row["images"]:6d} images   accuracy {row["accuracy"]:.3f} +- '
      f'{row["accuracy_error"]:.3f}   FD {row["fd"]:.2f} '
      f'({row["fd_low"]:.2f} to {row["fd_high"]:.2f})'
    )


if __name__ == '__main__':
  main()
