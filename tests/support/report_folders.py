"""A report folder as an evaluation writes it, small, from real photographs.

Truth are crops of scikit-image's photographs; 'regression' is a blurred truth and 'sr3'
a sharp, wrong one, so that the figures have the order that real ones have.
"""

import json
import pathlib
from typing import Any

import numpy as np
import skimage.data
import skimage.metrics
from PIL import Image, ImageFilter

PAPER = {
  'title': 'Table 1: 16 to 128 faces, CelebA-HQ',
  'metrics': ['psnr', 'ssim', 'consistency'],
  'rows': {
    'PULSE': {'psnr': 16.88, 'ssim': 0.44, 'consistency': 161.1},
    'FSRGAN': {'psnr': 23.01, 'ssim': 0.62, 'consistency': 33.8},
    'Regression': {'psnr': 23.96, 'ssim': 0.69, 'consistency': 2.71},
    'SR3': {'psnr': 23.04, 'ssim': 0.65, 'consistency': 2.68},
  },
  'note': 'Other images, another size and another training set: not comparable.',
}
METRICS = [
  ('psnr', 'PSNR dB', 2, 'higher', 'Peak signal to noise ratio over all pixels, RGB.'),
  ('ssim', 'SSIM', 3, 'higher', 'Structural similarity, 7 x 7 windows, RGB.'),
  ('consistency', 'Consistency 1e-5', 2, 'lower', 'Squared error after reduction.'),
  (
    'colour_drift',
    'Colour drift',
    2,
    'lower',
    'Distance of mean colours, 8-bit units.',
  ),
  ('lpips_alex', 'LPIPS (AlexNet)', 3, 'lower', 'Perceptual distance; here: of edges.'),
  (
    'contrast',
    'Contrast',
    3,
    '1 is right',
    'Standard deviation over that of the truth.',
  ),
]
METHODS = {
  'bicubic': 'Bicubic enlargement with antialiasing, as Pillow does it.',
  'lanczos': 'Lanczos enlargement, as Pillow does it.',
  'regression': 'The same network trained to predict the mean.',
  'sr3': 'This model, 256 steps; the first of 3 samples.',
}


def make(
  folder: pathlib.Path,
  *,
  count: int = 12,
  title: str = 'faces_16_64, step 3000',
  grain: float = 3.0,
  seed: int = 0,
  **changes: Any,
) -> dict[str, Any]:
  """Writes report.json, values.npz and pictures/ into a folder.

  Args:
    folder: made if needed.
    count: number of images.
    title: of the report.
    grain: how wrong 'sr3' is, in 8-bit units.
    seed: of its noise.
    **changes: keys of the report to set.

  Returns:
    The report.
  """
  folder = pathlib.Path(folder)
  (folder / 'pictures').mkdir(parents=True, exist_ok=True)
  rng = np.random.default_rng(seed)
  values: dict[str, list[float]] = {}
  for index, truth in enumerate(_crops(count)):
    small = truth.resize((16, 16), Image.Resampling.BICUBIC)
    blurred = truth.filter(ImageFilter.GaussianBlur(1.2))
    samples = [_wrong(truth, grain, rng) for _ in range(3)]
    spread = np.std([np.asarray(s, float) for s in samples], axis=0).mean(-1)
    heat = np.stack([spread * 6, spread * 3, 40 + 0 * spread], -1)
    outputs = {
      'bicubic': small.resize((64, 64), Image.Resampling.BICUBIC),
      'lanczos': small.resize((64, 64), Image.Resampling.LANCZOS),
      'regression': blurred,
      'sr3': samples[0],
    }
    shown = outputs | {
      'input': small,
      'sr3_2': samples[1],
      'sr3_3': samples[2],
      'spread': Image.fromarray(np.clip(heat, 0, 255).astype(np.uint8)),
      'truth': truth,
    }
    for name, picture in shown.items():
      picture.save(folder / 'pictures' / f'{index:05d}_{name}.png')
    for name, output in outputs.items():
      for key, value in _measure(output, truth, small).items():
        values.setdefault(f'{name}/{key}', []).append(value)
  arrays = {key: np.array(value, np.float32) for key, value in values.items()}
  np.savez(folder / 'values.npz', index=np.arange(count), **arrays)
  report = _report(arrays, count, title, rng) | changes
  (folder / 'report.json').write_text(json.dumps(report, indent=1))
  return report


def _crops(count: int):
  photos = [getattr(skimage.data, n)() for n in ('astronaut', 'chelsea', 'coffee')]
  places = np.random.default_rng(7)
  for i in range(count):
    photo = photos[i % len(photos)]
    y, x = (places.integers(0, side - 192) for side in photo.shape[:2])
    crop = Image.fromarray(photo[y : y + 192, x : x + 192])
    yield crop.resize((64, 64), Image.Resampling.BOX)


def _wrong(truth: Image.Image, grain: float, rng: np.random.Generator) -> Image.Image:
  """As sharp as the truth, but its details are a pixel or so from where they were."""
  x, y = rng.normal(0.5, 0.4, 2) + 4
  padded = Image.fromarray(np.pad(truth, ((4, 4), (4, 4), (0, 0)), mode='edge'))
  moved = padded.transform(truth.size, Image.Transform.AFFINE, (1, 0, x, 0, 1, y))
  noise = rng.normal(0, grain, (64, 64, 1)) + rng.normal(0, 2, 3)
  return Image.fromarray(
    np.clip(np.asarray(moved, float) + noise, 0, 255).astype(np.uint8)
  )


def _measure(output: Image.Image, truth: Image.Image, small: Image.Image):
  a, b = np.asarray(output, float), np.asarray(truth, float)
  reduced = np.asarray(output.resize((16, 16), Image.Resampling.BICUBIC), float)
  edges = [np.abs(np.diff(image, axis=0)).mean() for image in (a, b)]
  options = {'data_range': 255, 'channel_axis': -1}
  return {
    'psnr': skimage.metrics.peak_signal_noise_ratio(b, a, data_range=255),
    'ssim': skimage.metrics.structural_similarity(b, a, **options),
    'consistency': ((reduced - np.asarray(small, float)) ** 2).mean() / 255**2 * 1e5,
    'colour_drift': np.linalg.norm(a.mean((0, 1)) - b.mean((0, 1))),
    'lpips_alex': abs(edges[0] / edges[1] - 1) * 0.4 + 0.05,
    'contrast': a.std() / b.std(),
  }


def _report(arrays, count: int, title: str, rng) -> dict[str, Any]:
  table: dict[str, Any] = {}
  for name in METHODS:
    for key, *_ in METRICS:
      array = arrays[f'{name}/{key}'].astype(float)
      draws = array[rng.integers(0, count, (400, count))].mean(1)
      low, high = np.percentile(draws, [2.5, 97.5])
      entry = {'value': array.mean(), 'low': low, 'high': high}
      if name == 'sr3':
        entry['seeds'] = [array.mean() * f for f in (1, 0.995, 1.004)]
      table.setdefault(name, {})[key] = entry
  distributions = {}
  for key in ('psnr', 'ssim', 'lpips_alex'):
    of_all = [arrays[f'{name}/{key}'] for name in METHODS]
    edges = np.linspace(np.min(of_all), np.max(of_all), 13)
    counts = {
      name: np.histogram(a, edges)[0].tolist()
      for name, a in zip(METHODS, of_all, strict=True)
    }
    distributions[key] = {'edges': edges.tolist(), 'counts': counts}
  steps = np.arange(10, 3010, 10)
  loss = 0.6 * np.exp(-steps / 250) + 0.03 + rng.normal(0, 0.004, len(steps))
  columns = ['input', *METHODS, 'sr3 sample 2', 'sr3 sample 3', 'spread', 'truth']
  files = ['input', *METHODS, 'sr3_2', 'sr3_3', 'spread', 'truth']
  sheets = [_sheet('Samples', columns, files, range(min(4, count)), 'image {}'.format)]
  for key, metric, *_ in METRICS[:2]:
    array = arrays[f'sr3/{key}']
    order = np.argsort(-array)
    labels = {
      i: f'{rank}: {array[i]:.2f}, image {i}'
      for i, rank in zip(
        order[[0, count // 2, -1]], ('best', 'median', 'worst'), strict=True
      )
    }
    some = ['input', 'bicubic', 'sr3', 'truth']
    sheets.append(
      _sheet(f'{metric} of sr3: best, median, worst', some, some, labels, labels.get)
    )
  return {
    'format': 1,
    'title': title,
    'protocol': {
      'resize': 'Pillow 13.0 BICUBIC (a = -0.5), antialiased, 8 bits',
      'colour': 'RGB, no conversion',
      'crop': 0,
      'value range': [0, 255],
      'sampler': {'name': 'ddpm', 'steps': 256, 'variance': 'beta', 'clip': True},
      'seeds': 3,
      'image list': '4c1f0e77a93b',
      'weights': '9d3c5a77',
      'machine': {'devices': '1 x cpu', 'host': 'linux'},
    },
    'metrics': [
      dict(zip(('key', 'title', 'digits', 'better', 'about'), m, strict=True))
      for m in METRICS
    ],
    'perceptual': 'lpips_alex',
    'methods': [{'name': name, 'about': about} for name, about in METHODS.items()],
    'table': table,
    'left_out': [
      {
        'metrics': ['fid', 'kid', 'is'],
        'why': 'They need pt_inception-2015-12-05-6726825d.pth (91 MB): put it into '
        '~/.cache/sr3_jax, or name it with --inception.',
      }
    ],
    'images': count,
    'paper': PAPER,
    'distributions': distributions,
    'curves': {
      'loss': {'sr3': np.stack([steps, loss], -1).tolist()},
      'PSNR dB': {
        'sr3': [[s, 20 + 2 * (1 - np.exp(-s / 900))] for s in range(0, 3001, 500)],
        'regression': [
          [s, 20 + 3.1 * (1 - np.exp(-s / 700))] for s in range(0, 3001, 500)
        ],
      },
    },
    'sheets': sheets,
    'code': {'sr3_jax': '0.1.0', 'jax': '0.10.2', 'flax': '0.12.8'},
    'time': '2026-11-22T18:00:00Z',
  }


def _sheet(title: str, columns, files, indices, label) -> dict[str, Any]:
  rows = [
    {'label': label(i), 'cells': [f'pictures/{i:05d}_{name}.png' for name in files]}
    for i in indices
  ]
  return {'title': title, 'columns': columns, 'rows': rows}
