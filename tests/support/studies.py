"""A small study that several test modules build: pictures, a site, results."""

import json

import numpy as np
import skimage.data
from PIL import Image

from sr3_jax.human_study import command as human_study_command
from sr3_jax.human_study import site_builder
from sr3_jax.images import image_files

SIDE, SECONDS = 48, 0.05
OPTIONS = ('--post=/results', '--contact=<b>Ann</b> & Bob', '--images-per-subject=10')


def make_folders(root):
  """15 scenes: photographs, inputs, two methods' outputs; one scene has no input."""
  sources = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.cat()]
  for i in range(15):
    y, x = 60 * (i // 3), 90 * (i % 5)
    crop = sources[i % 3][y : y + 2 * SIDE, x : x + 2 * SIDE]
    truth = Image.fromarray(crop).resize((SIDE, SIDE), Image.Resampling.BOX)
    low = truth.resize((SIDE // 4, SIDE // 4), Image.Resampling.BICUBIC)
    pictures = {
      'truth': truth,
      'low': low,
      'bicubic': low.resize(truth.size, Image.Resampling.BICUBIC),
      'sharp': low.resize(truth.size, Image.Resampling.LANCZOS),
    }
    for name, picture in pictures.items():
      if (name, i) != ('low', 14):
        image_files.write(root / name / f'scene{i:02d}.png', np.array(picture))


def build(folders, site, *options, inputs=True):
  return human_study_command.main(
    [
      'build',
      f'--truth={folders / "truth"}',
      '--outputs',
      f'bicubic={folders / "bicubic"}',
      f'sharp={folders / "sharp"}',
      *([f'--inputs={folders / "low"}'] if inputs else []),
      f'--out={site}',
      f'--seconds={SECONDS}',
      *options,
    ]
  )


def make_site(root):
  """Pictures and a site below a folder; returns the site and its key."""
  make_folders(root)
  assert build(root, root / 'site', *OPTIONS) == 0
  return root / 'site', json.loads(site_builder.key_path(root / 'site').read_text())


def plan_of(site):
  text = (site / 'plan.js').read_text()
  return json.loads(text[text.index('{') : text.rindex('}') + 1])


def make_result(key, number=1, fools=(), **changes):
  """A result as the page writes it; `fools` are methods whose outputs are preferred."""
  answers = []
  for i, (_, shown, real) in enumerate(key['subjects'][number - 1]['trials']):
    side = {'left': 'right', 'right': 'left'}[real] if shown in fools else real
    answers.append(
      {
        'trial': i,
        'answer': side,
        'shown_ms': 1000 * SECONDS,
        'answer_ms': 812.5,
        'views': 1,
        'interrupted': False,
        'device': 'mouse',
      }
    )
  result = {
    'format': 1,
    'study': key['study'],
    'id': f'{number:032x}',
    'number': number,
    'reduced': False,
    'finished': '2026-01-31T12:00:00.000Z',
    'answers': answers,
  }
  return result | changes
