"""Blind 4x super-resolution of photographs, 64 to 256.

The recipe of imagenet_64_256.py for pictures as they are found: blurred, noisy and
compressed twice over before they are made small (Real-ESRGAN's second-order model,
arXiv:2107.10833), the degradation being drawn anew for every image and step.

  python -m sr3_jax.main --config=configs/blind_64_256.py --workdir=runs/blind_64_256 \
    --config.data.path=FOLDER --config.data.eval_path=FOLDER
"""

from sr3_jax.config import ConfigDict
from sr3_jax.config import get_config as default


def get_config() -> ConfigDict:
  """What differs from the paper's 64 -> 256 experiment."""
  c = default()
  c.task.name = 'blind_super_resolution'
  c.data.crop = 'random'
  c.data.reduce = (1, 2)
  return c
