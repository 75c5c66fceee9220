"""The figures of the SR3 paper (arXiv:2104.07636v2), to stand beside one's own.

Read in a transcription of the paper; rates that are quoted from memory say so.
"""

from sr3_jax.reports.data import PaperTable

_DIFFERENT = (
  'Other training data, images and networks than here: compare the order of methods, '
  'not the numbers.'
)
FACES: PaperTable = {
  'title': 'Paper, Table 1: 16 to 128, faces of CelebA-HQ',
  'metrics': ['psnr', 'ssim', 'consistency'],
  'rows': {
    'PULSE': {'psnr': 16.88, 'ssim': 0.44, 'consistency': 161.1},
    'FSRGAN': {'psnr': 23.01, 'ssim': 0.62, 'consistency': 33.8},
    'Regression': {'psnr': 23.96, 'ssim': 0.69, 'consistency': 2.71},
    'SR3': {'psnr': 23.04, 'ssim': 0.65, 'consistency': 2.68},
  },
  'note': _DIFFERENT,
}
NATURAL: PaperTable = {
  'title': 'Paper, Table 2: 64 to 256, ImageNet validation',
  'metrics': ['fid', 'is', 'psnr', 'ssim'],
  'rows': {
    'Reference': {'fid': 1.9, 'is': 240.8},
    'Regression': {'fid': 15.2, 'is': 121.1, 'psnr': 27.9, 'ssim': 0.801},
    'SR3': {'fid': 5.2, 'is': 180.1, 'psnr': 26.4, 'ssim': 0.762},
  },
  'note': _DIFFERENT,
}
CLASSIFICATION: PaperTable = {
  'title': 'Paper, Table 3: ResNet-50 on 4x outputs, first 1,000 ImageNet images',
  'metrics': ['top1_error', 'top5_error'],
  'rows': {
    'Original images': {'top1_error': 0.252, 'top5_error': 0.080},
    'DRCN': {'top1_error': 0.477, 'top5_error': 0.242},
    'FSRCNN': {'top1_error': 0.437, 'top5_error': 0.196},
    'PsyCo': {'top1_error': 0.454, 'top5_error': 0.224},
    'ENet-E': {'top1_error': 0.449, 'top5_error': 0.214},
    'RCAN': {'top1_error': 0.393, 'top5_error': 0.167},
    'Regression': {'top1_error': 0.383, 'top5_error': 0.173},
    'SR3': {'top1_error': 0.317, 'top5_error': 0.120},
  },
  'note': _DIFFERENT,
}
CASCADES: PaperTable = {
  'title': 'Paper, Tables 4 and 5: class-conditional ImageNet 256 x 256, 50,000 images',
  'metrics': ['fid'],
  'rows': {
    'VQ-VAE-2': {'fid': 38.1},
    'BigGAN, truncation 1.0': {'fid': 7.4},
    'BigGAN, truncation 1.5': {'fid': 11.8},
    'SR3, two stages': {'fid': 11.3},
    'SR3, no blur augmentation': {'fid': 13.1},
    'SR3, L2 instead of L1': {'fid': 11.8},
  },
  'note': f'{_DIFFERENT} FID of fewer than 50,000 images is higher.',
}
GENERATED = 0  # as a scale: images of given classes are sampled from nothing


def table_for(
  scale: float | None, image_size: int | None, *, classified: bool
) -> PaperTable | None:
  """Return the paper's table for a task, if it is one of the paper's.

  The scale is output side over input side or GENERATED, `image_size` the side of the
  outputs; `classified` says whether error rates of a classifier were measured.
  """
  if classified and scale == 4:
    return CLASSIFICATION
  tables: dict[tuple[float | None, int | None], PaperTable] = {
    (8, 128): FACES,
    (4, 256): NATURAL,
    (GENERATED, 256): CASCADES,
  }
  return tables.get((scale, image_size))
