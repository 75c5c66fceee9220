"""Makes the site of a human study: pictures under opaque names, pages, the plan.

The site is static: any web host can serve it, and it works from the disk. What is real
stands only in the key, a file beside the site.
"""

import contextlib
import dataclasses
import hashlib
import importlib.resources
import io
import json
import os
import pathlib
import re
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from sr3_jax.human_study import design as study_design
from sr3_jax.human_study.design import CHECK, PRACTICE, SIDES, Design, Plan, Trial
from sr3_jax.human_study.results import load_json
from sr3_jax.images import image_files
from sr3_jax.runtime import atomic_files, foreign_files, interruption
from sr3_jax.runtime.errors import UserError

FORMAT = 1
BLURRED = 8  # factor by which attention checks downsample the photograph
FIXATION = 0.8  # seconds
MAX_KEY_BYTES = 1 << 26
PAGES = ('index.html', 'study.css', 'study.js', 'icon.svg')
NAME = r'[A-Za-z0-9_.-][A-Za-z0-9_. -]{0,39}'
Folder = Mapping[str, pathlib.Path]  # name of a scene -> file
Names = dict[tuple[str, str], str]  # scene and role -> name of the picture


class Pictures(NamedTuple):
  """The folders that a study shows."""

  truth: Folder  # photographs
  outputs: Mapping[str, Folder]  # of every method
  inputs: Folder | None = None  # low-resolution inputs for task 1; None without it


class StudyError(UserError):
  """One line: what is wrong, where, what to do."""


class Key(NamedTuple):
  """A key file: what is real, kept out of the subjects' reach."""

  study: str  # id of the study
  seconds: float  # for which pictures are shown
  plans: list[Plan]  # of every subject


def key_path(site: pathlib.Path) -> pathlib.Path:
  """Return SITE-key.json, beside the site and not in it.

  Whoever can open the site can open all files in it; with the key in their reach,
  subjects could look up which picture is real.
  """
  return site.resolve().with_name(site.resolve().name + '-key.json')


def common(folders: Mapping[str, Folder]) -> tuple[list[str], list[str]]:
  """Return names that all folders have, and a line for each folder with others.

  Raises:
    StudyError: there is none.
  """
  shared = sorted(set.intersection(*(set(folder) for folder in folders.values())))
  notes = [
    f'{what}: {len(folder) - len(shared)} of {len(folder)} images left out, other '
    f'folders have no such name'
    for what, folder in folders.items()
    if len(folder) > len(shared)
  ]
  if not shared:
    raise StudyError(
      'no image is in all folders; they are matched by name: truth/a.png, outputs/a.png'
    )
  return shared, notes


def count(design: Design, inputs: Folder | None) -> int:
  """Return how many pictures `build` writes."""
  images, easy = len(design.images), len(design.practice) + len(design.checks)
  low = 0 if inputs is None else images + easy
  return images * (1 + len(design.methods)) + 2 * easy + low


def build(
  site: pathlib.Path,
  pictures: Pictures,
  design: Design,
  *,
  subjects: int,
  seconds: float = 3.0,
  post: str | None = None,
  contact: str = '',
  on_picture: Callable[[int], None] | None = None,
) -> Key:
  """Write the site and, beside it, its key; the same arguments give the same bytes.

  Neither may be there before. The site has plans for so many subjects, shows pictures
  for some seconds, and sends results to the URL `post`, if there is one; `contact` says
  on its first page who asks. `on_picture` is called with the number of pictures done.

  Raises:
    StudyError: something is there already, pictures that can't be compared, or a URL
      that isn't one.
    ImageError: a file that can't be read or written.
  """
  origin, site = _origin(post), site.resolve()
  for path in (site, key_path(site)):
    if path.exists():
      raise StudyError(
        f'{path} is there already; results that were collected with it need it, so '
        f'choose another --out or remove it'
      )
  plans = [study_design.plan(design, subject) for subject in range(subjects)]
  with contextlib.ExitStack() as stack:
    with image_files.errors(site):
      made = stack.enter_context(atomic_files.temporary_folder(site.parent))
    part = pathlib.Path(made)
    names, size = _write_pictures(part, design, pictures, on_picture)
    key = _key(design, plans, seconds, names)
    plan = {
      'format': FORMAT,
      'study': key['study'],
      'seconds': seconds,
      'fixation': min(FIXATION, seconds),
      'practice': study_design.NUM_PRACTICE,
      'questions': study_design.QUESTIONS,
      'size': size,
      'post': post,
      'contact': contact,
      **_plan(plans, names),
    }
    _write_pages(part, plan, origin)
    with interruption.writing(), image_files.errors(site):
      atomic_files.write_bytes(key_path(site), (_compact(key) + '\n').encode('ascii'))
      part.rename(site)
  return Key(str(key['study']), seconds, plans)


def _write_pages(folder: pathlib.Path, plan: Mapping[str, object], origin: str) -> None:
  """Write the pages of a site, which may talk to `origin` too, and their plan."""
  for name in PAGES:
    file = importlib.resources.files('sr3_jax.human_study') / 'site' / name
    data = file.read_bytes()
    if name == 'index.html' and origin:
      policy = b"connect-src 'self'"
      assert policy in data
      data = data.replace(policy, policy + f' {origin}'.encode('ascii'))
    atomic_files.write_bytes(folder / name, data)
  # A script, because pages that were opened from the disk can't fetch JSON.
  text = f"'use strict';\nwindow.STUDY = {_compact(plan)};\n"
  atomic_files.write_bytes(folder / 'plan.js', text.encode('ascii'))


def _write_pictures(
  folder: pathlib.Path,
  design: Design,
  pictures: Pictures,
  on_picture: Callable[[int], None] | None,
) -> tuple[Names, list[int]]:
  """Write the pictures of a site; return their names, and their largest sides.

  A name is always the same and says nothing about the picture.
  """
  with image_files.errors(folder):
    (folder / 'pictures').mkdir(parents=True)
  names: Names = {}
  size = [1, 1]
  for done, (image, role, pixels) in enumerate(_shown(design, pictures), 1):
    # An image in two roles may have the same pixels, never the same name.
    seed = repr((design.seed, image, role)).encode()
    name = hashlib.blake2b(seed + pixels.tobytes(), digest_size=10).hexdigest()
    path = folder / 'pictures' / f'{name}.png'
    # All files have the same settings, and no name, date or profile inside.
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, 'PNG')
    atomic_files.write_bytes(path, buffer.getvalue())
    # Each photograph is written first, which dates of files would tell.
    with contextlib.suppress(OSError):
      os.utime(path, (0, 0))
    names[image, role] = name
    size = [max(s, n) for s, n in zip(size, pixels.shape[1::-1], strict=True)]
    if on_picture:
      on_picture(done)
  return names, size


def read_key(path: pathlib.Path) -> Key:
  """Read a key file.

  Raises:
    StudyError: it isn't one.
  """
  with foreign_files.explained(path, 'the key of a study', StudyError):
    data = foreign_files.read_bytes(path, MAX_KEY_BYTES)
  try:
    value: Any = load_json(data)
    if value['format'] != FORMAT:
      raise StudyError(
        f'{path}: format {value["format"]!r} is not known, only {FORMAT}'
      )
    known = {CHECK, PRACTICE, *value['methods']}
    plans = []
    for entry in value['subjects']:
      trials = [Trial(*map(str, trial)) for trial in entry['trials']]
      if any(t.real not in SIDES or t.shown not in known for t in trials):
        raise ValueError
      plans.append((int(entry['task']), trials))
    return Key(str(value['study']), float(value['seconds']), plans)
  except StudyError:
    raise
  except (ValueError, KeyError, TypeError):
    raise StudyError(f'{path}: not the key of a study (SITE-key.json)') from None


def _shown(design: Design, pictures: Pictures) -> Iterator[tuple[str, str, np.ndarray]]:
  """Yield name of the scene, role and uint8 [H, W, 3].

  A role is 'real', 'input', CHECK or a method.
  """
  for image in (*design.practice, *design.checks, *design.images):
    real = image_files.read(pictures.truth[image])
    height, width = real.shape[:2]
    yield image, 'real', real
    if image in design.practice or image in design.checks:
      small = _resized(real, max(2, height // BLURRED), max(2, width // BLURRED))
      yield image, CHECK, _resized(small, height, width)
    else:
      for method in design.methods:
        path = pictures.outputs[method][image]
        output = image_files.read(path)
        if output.shape != real.shape:
          raise StudyError(
            f'{path} is {output.shape[1]} x {output.shape[0]}, its truth {width} x '
            f'{height}: only pictures of one size can be compared'
          )
        yield image, method, output
    if pictures.inputs is not None:
      low = image_files.read(pictures.inputs[image])
      # Within a pixel of the same shape.
      if abs(low.shape[0] * width - low.shape[1] * height) >= max(height, width):
        raise StudyError(
          f'{pictures.inputs[image]} is {low.shape[1]} x {low.shape[0]}, which is no '
          f'smaller version of {width} x {height}'
        )
      yield image, 'input', _resized(low, height, width)


def _resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
  """Resize uint8 [H, W, 3] by the bicubic kernel, as the paper upsamples its inputs."""
  picture = Image.fromarray(image)
  return np.array(picture.resize((width, height), Image.Resampling.BICUBIC))


def _plan(plans: Sequence[Plan], names: Names) -> dict[str, object]:
  """Return the pictures by name, and the numbers of those that each trial shows.

  A trial shows left, right, maybe the input. Names are sorted, so that no order tells
  anything.
  """
  subjects = []
  for task, trials in plans:
    rows = []
    for image, shown, real in trials:
      role = CHECK if shown in (CHECK, PRACTICE) else shown
      roles = ['real', role] if real == 'left' else [role, 'real']
      rows.append(
        [names[image, r] for r in (*roles, *(['input'] if task == 1 else []))]
      )
    subjects.append((task, rows))
  pictures = sorted({name for _, rows in subjects for row in rows for name in row})
  index = {name: i for i, name in enumerate(pictures)}
  numbered = [
    {'task': task, 'trials': [[index[name] for name in row] for row in rows]}
    for task, rows in subjects
  ]
  return {'pictures': pictures, 'subjects': numbered}


def _key(
  design: Design, plans: Sequence[Plan], seconds: float, names: Names
) -> dict[str, object]:
  """Return what the key file holds, with the study's id, a hash of the rest."""
  value = {
    'format': FORMAT,
    'seconds': seconds,
    **dataclasses.asdict(design),
    'pictures': {name: list(what) for what, name in sorted(names.items())},
    'subjects': [
      {'task': task, 'trials': [[t.image, t.shown, t.real] for t in trials]}
      for task, trials in plans
    ],
  }
  digest = hashlib.blake2b(_compact(value).encode(), digest_size=8).hexdigest()
  return {'study': digest, **value}


def _origin(post: str | None) -> str:
  """Return scheme, host and port of a URL; '' for none or a path on the site's host."""
  own = r'/[A-Za-z0-9_./?&=%-]*'
  if not post or (re.fullmatch(own, post) and not post.startswith('//')):
    return ''
  parts = urllib.parse.urlsplit(post)
  # What stands in the page's policy must be a host and nothing else.
  if (
    parts.scheme not in ('http', 'https')
    or not re.fullmatch(r'[A-Za-z0-9.-]+(:[0-9]{1,5})?', parts.netloc)
    or not post.isascii()
    or any(c.isspace() for c in post)
  ):
    raise StudyError(
      f'--post: {post!r} is no URL; https://host/path, or /results for this host'
    )
  return f'{parts.scheme}://{parts.netloc}'


def _compact(value: object) -> str:
  """Return JSON without spaces."""
  return json.dumps(value, separators=(',', ':'), allow_nan=False)
