"""Fetches and reads the weights of the networks behind metrics.

They belong to other projects, so none come with this package. At first use they are
fetched, checked against the SHA-256 in `published_weights`, read once with PyTorch
(`pip install 'sr3_jax[convert]'`) and cached as .safetensors; those can be copied to
machines without PyTorch or network. The folder is `caches.folder('weights')` or
$SR3_JAX_WEIGHTS.

`python -m sr3_jax.metrics.net_weights` shows what is there and what is missing.
"""

if __name__ == '__main__':  # before the imports, which a signal may interrupt
  import sys

  from sr3_jax.runtime import start

  sys.exit(start.net_weights())

import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import os
import pathlib
import sys

import numpy as np
import safetensors.numpy

from sr3_jax.metrics.published_weights import WEIGHTS, Source, Weights
from sr3_jax.runtime import activity, atomic_files, caches, foreign_files, printing
from sr3_jax.runtime.cli import Parser, add_quiet, path
from sr3_jax.runtime.errors import UserError, line
from sr3_jax.runtime.progress import Progress
from sr3_jax.weights import safetensors_files, torch_files
from sr3_jax.weights.torch_files import Tensors, WeightsError

VARIABLE = 'SR3_JAX_WEIGHTS'
_TIMEOUT = 30  # seconds without an answer until a download fails


class WeightsMissing(UserError):
  """One line: which file is missing or wrong, where to get it, where to put it."""


@dataclasses.dataclass(frozen=True)
class Loaded:
  """Weights that were read."""

  tensors: Tensors  # by their PyTorch names
  origin: dict[str, str]  # SHA-256 of the files they were first read from, by name
  standard: bool  # whether those are the files that `WEIGHTS` names

  @property
  def fingerprint(self) -> str:
    """16 hexadecimal digits that change with any byte of the files of `origin`."""
    digests = ''.join(sorted(self.origin.values()))
    return hashlib.sha256(digests.encode()).hexdigest()[:16]

  @property
  def source(self) -> str:
    """The files of `origin` in words, for a protocol."""
    files = ', '.join(f'{file} ({sha[:8]})' for file, sha in self.origin.items())
    return files + ('' if self.standard else ', not the published files')


def folder() -> pathlib.Path:
  """Return the folder of weights; it need not exist."""
  given = os.environ.get(VARIABLE) or caches.folder('weights')
  return pathlib.Path(given).expanduser().absolute()


def load(name: str, path: str = '', *, place: pathlib.Path | None = None) -> Loaded:
  """Return the weights of a network; fetch them if they aren't there.

  Args:
    name: a key of `WEIGHTS`.
    path: a folder, or a file that holds all tensors, .safetensors or PyTorch's, to use
      instead; nothing is fetched.
    place: their folder, `folder()` by default.

  Raises:
    WeightsMissing: there are none; says what to do.
  """
  weights = WEIGHTS[name]
  given = pathlib.Path(path).expanduser().absolute() if path else None
  place = given or place or folder()
  try:
    if given and not given.is_dir():
      return _read(given, weights)
    return _from_folder(name, weights, place, fetch=not given)
  except WeightsMissing as error:
    reason = str(error)
  except WeightsError as error:
    text = str(error)
    reason = text if str(place) in text else f'{place}: {text}'
  except OSError as error:
    reason = f'{error.filename or place}: {error.strerror or error}'
  raise WeightsMissing(f'{name}: {reason}')


def _from_folder(
  name: str, weights: Weights, place: pathlib.Path, *, fetch: bool
) -> Loaded:
  """Return weights from a folder: the cached file, or else made from the sources.

  With `fetch`, missing sources are downloaded. WeightsMissing says what to do.
  """
  cached = place / f'{name}.safetensors'
  if cached.exists():
    try:
      return _read(cached, weights)
    except WeightsError as error:
      again = 'delete it to have it made again'
      reason = str(error).removeprefix(f'{cached}: ')
      raise WeightsMissing(f'{cached}: {reason}; {again}') from None
  missing = [s for s in weights.sources if not (place / s.file).exists()]
  files = ' and '.join(f'{s.url} (SHA-256 {s.sha256})' for s in missing)
  by_hand = f'download {files} into {_shown(place)}'
  convertible = importlib.util.find_spec('torch') is not None
  if missing and fetch and convertible:
    try:
      for source in missing:
        _fetch(source, place)
    except OSError as error:
      # If the connection failed, the error's first argument has a shorter reason.
      reason = getattr(next(iter(error.args), error), 'reason', error)
      failed = f'(trying that failed: {line(reason)})'
      raise WeightsMissing(f'{by_hand} {failed}') from None
  elif missing or not convertible:
    steps = [by_hand] if missing else []
    if not convertible:
      steps.append(
        "pip install 'sr3_jax[convert]', whose PyTorch reads them once; or copy "
        f'{cached.name} from a machine that has it to {_shown(place)}'
      )
    raise WeightsMissing(', and '.join(steps))
  tensors: Tensors = {}
  for source in weights.sources:
    tensors |= _read_source(source, place / source.file)
  origin = {source.file: source.sha256 for source in weights.sources}
  with contextlib.suppress(OSError):  # a folder may be read-only
    save(cached, tensors, origin)
  return _loaded(tensors, origin, weights)


def _shown(path: pathlib.Path) -> str:
  """Return a path for messages, without the user's name: they end up in reports."""
  home = pathlib.Path.home()
  return f'~/{path.relative_to(home)}' if path.is_relative_to(home) else str(path)


def _read_source(source: Source, path: pathlib.Path) -> Tensors:
  """Return the tensors of a file that are needed, or raise WeightsMissing."""
  if (digest := _sha256(path)) != source.sha256:
    raise WeightsMissing(
      f'{path} is not the file it should be (its SHA-256 is {digest}, not '
      f'{source.sha256}): delete it and get it from {source.url}'
    )
  try:
    tensors = torch_files.read(path)
  except WeightsError as error:
    raise WeightsMissing(f'{path}: {error}') from None
  return {name: x for name, x in tensors.items() if name.startswith(source.prefixes)}


def _fetch(source: Source, place: pathlib.Path) -> None:
  """Download a file; it gets its name once it is whole and its checksum is right.

  WeightsMissing is raised if the server sent something else, OSError for the rest.
  """
  import pooch  # takes a while, and is seldom needed

  pooch.get_logger().setLevel('WARNING')
  try:
    large = source.size >= 10e6  # bytes; of small files there is nothing to tell
    with Progress(source.size, unit='byte', enabled=large) as progress:
      bar = _Download(source.file, progress)
      downloader = pooch.HTTPDownloader(bar, chunk_size=1 << 20, timeout=_TIMEOUT)
      # Pooch's own downloader doesn't fit the protocol that it declares.
      path = pooch.retrieve(
        source.url,
        source.sha256,
        source.file,
        place,
        downloader=downloader,  # pyrefly: ignore[bad-argument-type]
      )
  except ValueError as error:
    trouble = f'{source.url} sent something else, try again later: {line(error)}'
    raise WeightsMissing(trouble) from None
  os.chmod(path, 0o644)  # pooch lets only its owner read it


class _Download:
  """A progress bar as pooch wants it, which sets `total`."""

  total = 0

  def __init__(self, file: str, progress: Progress):
    self._file, self._progress, self._done = file, progress, 0

  def update(self, count: int) -> None:
    """Count bytes that have come."""
    self._done = min(self._done + count, self.total)
    percent = 100 * self._done // max(self.total, 1)
    place = f'{self._file}: {percent}% of {self.total / 1e6:.1f} MB'
    self._progress.update(self._done, place)

  def reset(self) -> None:
    """Begin to count again, as pooch does at the end."""
    self._done = 0

  def close(self) -> None:
    """Do nothing: whoever made the progress line closes it."""


def save(path: pathlib.Path, tensors: Tensors, origin: dict[str, str]) -> None:
  """Write a .safetensors file of what `Loaded` holds, for `load`.

  Raises:
    OSError: it cannot be written.
  """
  tensors = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
  metadata = {'origin': json.dumps(origin), 'tensors_sha256': _digest(tensors)}
  atomic_files.write_bytes(path, safetensors.numpy.save(tensors, metadata))


def _read(path: pathlib.Path, weights: Weights) -> Loaded:
  """Return the weights in a file of any origin, or raise WeightsError."""
  tensors, metadata = torch_files.read(path), {}
  if path.suffix == '.safetensors':
    with safetensors_files.opened(path, WeightsError) as file:
      metadata = file.metadata() or {}
  if 'tensors_sha256' not in metadata:  # not written by `save`
    return _loaded(tensors, {path.name: _sha256(path)}, weights)
  if metadata['tensors_sha256'] != _digest(tensors):
    raise WeightsError('is damaged, its checksum is wrong')
  with foreign_files.explained(path, 'the weights of a metric', WeightsError):
    origin = foreign_files.parse_json(metadata.get('origin', 'null'))
    wanted = dict.fromkeys(origin if isinstance(origin, dict) else (), str)
    return _loaded(tensors, foreign_files.checked(origin, wanted), weights)


def _loaded(tensors: Tensors, origin: dict[str, str], weights: Weights) -> Loaded:
  """Return tensors with their origin, and whether it is the published files."""
  standard = {source.sha256 for source in weights.sources}
  return Loaded(tensors, origin, set(origin.values()) == standard)


def _digest(tensors: Tensors) -> str:
  """Return the SHA-256 of names, types, shapes and values."""
  digest = hashlib.sha256()
  for name in sorted(tensors):
    tensor = tensors[name]
    digest.update(f'{name} {tensor.dtype} {tensor.shape} '.encode())
    digest.update(np.ascontiguousarray(tensor).data)
  return digest.hexdigest()


def _sha256(path: pathlib.Path) -> str:
  """Return the SHA-256 of a file."""
  foreign_files.check_file(path)
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def main(argv: list[str] | None = None) -> None:
  """Run the command; status 1 if something could not be fetched or read."""
  parser = Parser(
    prog='python -m sr3_jax.metrics.net_weights',
    description='Shows which weights of the networks behind FID, KID, the inception\n'
    'score, LPIPS and DISTS are there, and gets the missing ones.',
    epilog='Without network: download what is listed elsewhere, put it into a folder\n'
    "and run this again. PyTorch (pip install 'sr3_jax[convert]') is needed once, to\n"
    'make the .safetensors; these can be copied instead.',
  )
  parser.add_argument(
    '--fetch', action='store_true', help='download and convert what is missing'
  )
  parser.add_argument(
    '--folder',
    metavar='DIR',
    type=path,
    help=f'where the weights are, instead of ${VARIABLE} or {caches.folder("weights")}',
  )
  add_quiet(parser)
  args = parser.parse_args(argv)
  place = (args.folder or folder()).expanduser().absolute()
  print(f'folder: {place}')
  with activity.shown('net_weights', quiet=args.quiet):
    failed = _report(place, args.fetch)
  if failed:
    sys.exit(1)


def _report(place: pathlib.Path, fetch: bool) -> bool:
  """Print which weights are there; return whether something could not be had."""
  failed = False
  for name, weights in WEIGHTS.items():
    print(f'{name}: {weights.about}; {weights.licence}')
    cached = place / f'{name}.safetensors'
    try:
      if fetch or cached.exists():
        loaded = load(name, place=place)
        print(f'  there, from {loaded.source}')
        continue
    except (WeightsMissing, OSError) as error:
      print(printing.one_line(f'error: {error}'), file=sys.stderr)
      failed = True
      continue
    for source in weights.sources:
      state = 'there' if (place / source.file).exists() else 'missing'
      print(f'  {state}: {source.file}, {source.size / 1e6:,.1f} MB, {source.url}')
      print(f'    SHA-256 {source.sha256}')
  return failed
