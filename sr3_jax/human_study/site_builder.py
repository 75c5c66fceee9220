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
import shutil
import urllib.parse
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from sr3_jax.human_study import design as human_study_design
from sr3_jax.human_study import results as human_study_results
from sr3_jax.images import image_files
from sr3_jax.runtime import atomic_files
from sr3_jax.runtime.errors import UserError

FORMAT = 1
SPOILT = 8  # reduction of the photograph that attention checks show beside it
FIXATION = 0.8  # seconds
MAX_KEY_BYTES = 1 << 26
PAGES = ('index.html', 'study.css', 'study.js', 'icon.svg')
NAME = r'[A-Za-z0-9_.-][A-Za-z0-9_. -]{0,39}'
Folder = Mapping[str, pathlib.Path]


class StudyError(UserError):
  """One line: what is wrong, where, what to do."""


@dataclasses.dataclass(frozen=True)
class Key:
  """What stands in the key file.

  Attributes:
    study: id of the study.
    seconds: for which pictures are shown.
    plans: task and trials of every subject.
  """

  study: str
  seconds: float
  plans: list[tuple[int, list[human_study_design.Trial]]]


def key_path(site: pathlib.Path) -> pathlib.Path:
  """SITE-key.json, beside the site and not in it.

  Whoever can open the site can open all files in it; with the key in their reach,
  subjects could look up which picture is real.
  """
  return site.resolve().with_name(site.resolve().name + '-key.json')


def find(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """The images directly in a folder, by the stem of their names.

  Raises:
    StudyError: no folder, no image, or two of one stem.
  """
  if not folder.is_dir():
    raise StudyError(f'{folder}: no such folder')
  found: dict[str, pathlib.Path] = {}
  for path in sorted(folder.iterdir()):
    hidden = path.name.startswith('.')
    if (
      hidden or path.suffix.lower() not in image_files.EXTENSIONS or not path.is_file()
    ):
      continue
    if path.stem in found:
      names = f'{found[path.stem].name} and {path.name}'
      raise StudyError(f'{folder}: {names} share one name; keep one of them')
    found[path.stem] = path
  if not found:
    raise StudyError(f'{folder}: no images in this folder')
  return found


def common(folders: Mapping[str, Folder]) -> tuple[list[str], list[str]]:
  """Names that all folders have, and a line for every folder that has others.

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


def count(design: human_study_design.Design, inputs: Folder | None) -> int:
  """Pictures that `build` writes."""
  counted = len(design.images) * (1 + len(design.methods))
  easy = 2 * (len(design.practice) + len(design.checks))
  scenes = len(design.images) + len(design.practice) + len(design.checks)
  return counted + easy + (scenes if inputs is not None else 0)


def build(
  site: pathlib.Path,
  truth: Folder,
  outputs: Mapping[str, Folder],
  inputs: Folder | None,
  design: human_study_design.Design,
  *,
  subjects: int,
  seconds: float = 3.0,
  post: str | None = None,
  contact: str = '',
  on_picture: Callable[[int], None] | None = None,
) -> Key:
  """Writes the site and, beside it, its key; the same arguments give the same bytes.

  Args:
    site: folder to be made; none may be there.
    truth: photographs by name.
    outputs: of every method, by name.
    inputs: low-resolution inputs by name, for task 1.
    design: who sees what.
    subjects: plans to write.
    seconds: for which pictures are shown.
    post: URL to which results are sent.
    contact: who runs the study, for the first page.
    on_picture: called with the number of pictures done.

  Raises:
    StudyError: something is there already, pictures that can't be compared, or a URL
      that isn't one.
    images.ImageError: a file that can't be read or written.
  """
  if post:
    _origin(post)
  site = site.resolve()
  for path in (site, key_path(site)):
    if path.exists():
      raise StudyError(
        f'{path} is there already; results that were collected with it need it, so '
        f'choose another --out or remove it'
      )
  plans = [human_study_design.plan(design, subject) for subject in range(subjects)]
  pictures = _pictures(design, truth, outputs, inputs)
  names: dict[tuple[str, str], str] = {}
  part = site.with_name(f'.{site.name}-{uuid.uuid4().hex}.tmp')
  try:
    with image_files.errors(part):
      (part / 'pictures').mkdir(parents=True)
    size = [1, 1]
    for done, (image, role, pixels) in enumerate(pictures, 1):
      name = _name(design.seed, image, role, pixels)
      # An image in two roles may have the same pixels, never the same name.
      atomic_files.write_bytes(part / 'pictures' / f'{name}.png', _png(pixels))
      names[image, role] = name
      size = [max(s, n) for s, n in zip(size, pixels.shape[1::-1], strict=True)]
      if on_picture:
        on_picture(done)
    rows = [_rows(task, trials, names) for task, trials in plans]
    key = _key(design, plans, seconds, names)
    for page in PAGES:
      atomic_files.write_bytes(part / page, _page(page, post))
    value = {
      'format': FORMAT,
      'study': key['study'],
      'seconds': seconds,
      'fixation': min(FIXATION, seconds),
      'practice': human_study_design.NUM_PRACTICE,
      'questions': human_study_design.QUESTIONS,
      'size': size,
      'post': post,
      'contact': contact,
      **_indexed(rows),
    }
    # A script, because pages that were opened from the disk can't fetch JSON.
    text = f"'use strict';\nwindow.STUDY = {_compact(value)};\n"
    atomic_files.write_bytes(part / 'plan.js', text.encode('ascii'))
    _stamp(part)
    atomic_files.write_bytes(key_path(site), (_compact(key) + '\n').encode('ascii'))
    with image_files.errors(site):
      part.rename(site)
  finally:
    shutil.rmtree(part, ignore_errors=True)
  return Key(key['study'], seconds, plans)


def read_key(path: pathlib.Path) -> Key:
  """Reads a key file.

  Raises:
    StudyError: it isn't one.
  """
  try:
    if path.stat().st_size > MAX_KEY_BYTES:
      raise StudyError(f'{path}: too large for the key of a study')
    value = human_study_results.load_json(path.read_bytes())
    if value['format'] != FORMAT:
      raise StudyError(
        f'{path}: format {value["format"]!r} is not known, only {FORMAT}'
      )
    known = {human_study_design.CHECK, human_study_design.PRACTICE, *value['methods']}
    plans = []
    for entry in value['subjects']:
      trials = [human_study_design.Trial(*map(str, trial)) for trial in entry['trials']]
      if any(
        t.real not in human_study_design.SIDES or t.shown not in known for t in trials
      ):
        raise ValueError
      plans.append((int(entry['task']), trials))
    return Key(str(value['study']), float(value['seconds']), plans)
  except OSError as error:
    raise StudyError(f'{path}: {error.strerror}') from None
  except StudyError:
    raise
  except (ValueError, KeyError, TypeError):
    raise StudyError(f'{path}: not the key of a study (SITE-key.json)') from None


# ------------------------------------------------------------------- pictures


def _pictures(
  design: human_study_design.Design,
  truth: Folder,
  outputs: Mapping[str, Folder],
  inputs: Folder | None,
) -> Iterator[tuple[str, str, np.ndarray]]:
  """(name of the scene, role, uint8 [H, W, 3]): role is 'real', 'input' or a method."""
  for image in (*design.practice, *design.checks, *design.images):
    real = image_files.read(truth[image])
    height, width = real.shape[:2]
    yield image, 'real', real
    if image in design.practice or image in design.checks:
      small = _resized(real, max(2, height // SPOILT), max(2, width // SPOILT))
      yield image, human_study_design.CHECK, _resized(small, height, width)
    else:
      for method in design.methods:
        output = image_files.read(outputs[method][image])
        if output.shape != real.shape:
          raise StudyError(
            f'{outputs[method][image]} is {output.shape[1]} x {output.shape[0]}, its '
            f'truth {width} x {height}: only pictures of one size can be compared'
          )
        yield image, method, output
    if inputs is not None:
      low = image_files.read(inputs[image])
      # Within a pixel of the same shape.
      if abs(low.shape[0] * width - low.shape[1] * height) >= max(height, width):
        raise StudyError(
          f'{inputs[image]} is {low.shape[1]} x {low.shape[0]}, which is no smaller '
          f'version of {width} x {height}'
        )
      yield image, 'input', _resized(low, height, width)


def _resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
  """Bicubic, uint8: how the paper enlarges what the network is given."""
  picture = Image.fromarray(image)
  return np.array(picture.resize((width, height), Image.Resampling.BICUBIC))


def _png(pixels: np.ndarray) -> bytes:
  """The same settings for all and nothing but pixels: no name, date or profile."""
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, 'PNG')
  return buffer.getvalue()


def _name(seed: int, image: str, role: str, pixels: np.ndarray) -> str:
  digest = hashlib.blake2b(repr((seed, image, role)).encode(), digest_size=10)
  digest.update(pixels.tobytes())
  return digest.hexdigest()


def _stamp(folder: pathlib.Path) -> None:
  """Pictures are made photograph first: their dates would tell."""
  with contextlib.suppress(OSError):
    for path in (folder / 'pictures').iterdir():
      os.utime(path, (0, 0))


# ----------------------------------------------------------------- plan and pages


def _rows(
  task: int,
  trials: Sequence[human_study_design.Trial],
  names: Mapping[tuple[str, str], str],
) -> dict[str, Any]:
  """A subject's trials as names of pictures: left, right and, in task 1, input."""
  rows = []
  for trial in trials:
    easy = trial.shown in (human_study_design.CHECK, human_study_design.PRACTICE)
    role = human_study_design.CHECK if easy else trial.shown
    pair = [names[trial.image, 'real'], names[trial.image, role]]
    if trial.real == 'right':
      pair.reverse()
    rows.append(pair + ([names[trial.image, 'input']] if task == 1 else []))
  return {'task': task, 'trials': rows}


def _indexed(subjects: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """The same with every name once, sorted, so that no order tells anything."""
  pictures = sorted({n for s in subjects for row in s['trials'] for n in row})
  index = {name: i for i, name in enumerate(pictures)}
  numbered = [
    {'task': s['task'], 'trials': [[index[n] for n in row] for row in s['trials']]}
    for s in subjects
  ]
  return {'pictures': pictures, 'subjects': numbered}


def _key(
  design: human_study_design.Design,
  plans: Sequence[tuple[int, Sequence[human_study_design.Trial]]],
  seconds: float,
  names: Mapping[tuple[str, str], str],
) -> dict[str, Any]:
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


def _page(name: str, post: str | None) -> bytes:
  data = (importlib.resources.files('sr3_jax.human_study') / 'site' / name).read_bytes()
  origin = _origin(post) if post else ''
  if name == 'index.html' and origin:
    # The only other place that the page may talk to.
    policy = b"connect-src 'self'"
    assert policy in data
    data = data.replace(policy, policy + f' {origin}'.encode('ascii'))
  return data


def _origin(post: str) -> str:
  """Scheme, host and port of a URL; '' for a path on the site's own host.

  Raises:
    StudyError: it is neither.
  """
  if re.fullmatch(r'/[A-Za-z0-9_./?&=%-]*', post) and not post.startswith('//'):
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


def _compact(value: Any) -> str:
  return json.dumps(value, separators=(',', ':'), allow_nan=False)
