"""Uploads a model folder, or a run's newest weights, to the Hugging Face hub."""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from etils import epath

from sr3_jax.runtime import activity, atomic_files, foreign_files, printing
from sr3_jax.runtime.errors import line
from sr3_jax.runtime.printing import one_line
from sr3_jax.weights import hub, model_writer, terms
from sr3_jax.weights.model_files import CARD, CONFIG, FILES, PRESETS, WEIGHTS, HubError

_HOW = 'hf auth login, or set HF_TOKEN'


def push(
  model: epath.PathLike,
  repo: str,
  *,
  public: bool = False,
  message: str = '',
  token: str | None = None,
) -> str:
  """Upload a model; return the address of its page.

  The model is loaded first, so that nothing is uploaded that can't be loaded. The terms
  in the card get the form that the hub accepts.

  Args:
    model: as `hub.load` takes it.
    repo: owner/name; it is made if it isn't there.
    public: whether everybody may see a new repository. A public one that is there is
      only written to if this is said.
    message: of the commit.
    token: of the hub; None takes that of $HF_TOKEN or of `hf auth login`.

  Raises:
    HubError: no model, no token, no library, or the hub refuses; one line.
    CheckpointError: a run's checkpoint is missing or damaged.
  """
  repo = repo.removeprefix('hf://')
  api = _api(repo, token)
  with activity.doing(f'reading {model}'):
    loaded = hub.load(model)
  with _folder(model, repo, api.endpoint) as folder:
    try:
      with activity.doing(f'looking for {repo}'):
        _make(api, repo, public)
      with activity.doing(f'uploading to {repo}'), printing.unguarded_errors():
        api.upload_folder(
          repo_id=repo,
          folder_path=os.fspath(folder),
          allow_patterns=list(FILES),
          commit_message=message or f'{loaded.name}, step {loaded.step}',
        )
    except HubError:
      raise
    except Exception as error:  # the library's own, and those of libraries it uses
      raise HubError(f'{repo}: {_reason(error)}') from None
  return f'{api.endpoint}/{repo}'


def _api(repo: str, token: str | None) -> Any:
  """Return the library's interface to the hub."""
  if not re.fullmatch(r'\w[\w.-]*/\w[\w.-]*', repo):
    raise HubError(f'{repo}: should be owner/name')
  try:
    import huggingface_hub
  except ImportError:
    raise HubError(
      f"{repo}: needs huggingface_hub: pip install 'sr3_jax[hub]'"
    ) from None
  token = token or huggingface_hub.get_token()
  if not token:
    raise HubError(f'{repo}: no token of the hub: {_HOW}')
  return huggingface_hub.HfApi(token=token, library_name='sr3_jax')


def _make(api: Any, repo: str, public: bool) -> None:
  """Make a repository, or check that the one that is there may be written to."""
  import huggingface_hub.errors

  try:
    private = bool(api.model_info(repo).private)
  except huggingface_hub.errors.RepositoryNotFoundError:
    api.create_repo(repo, private=not public)
    return
  if not private and not public:
    raise HubError(f'{repo} is public: say --public (public=True) if you want that')


@contextlib.contextmanager
def _folder(model: epath.PathLike, repo: str, endpoint: str) -> Iterator[epath.Path]:
  """Yield a folder with the files to upload; it is removed at the end."""
  place, _ = hub.find(model)
  with tempfile.TemporaryDirectory() as made:
    folder = epath.Path(made) / repo.rpartition('/')[2]
    if hub.is_run(place) or place.name != WEIGHTS:
      model_writer.export(model, folder)
    else:
      folder.mkdir()
      for name in (CONFIG, PRESETS, CARD):
        if (place.parent / name).exists():
          atomic_files.write_bytes(
            folder / name, foreign_files.read_bytes(place.parent / name)
          )
      shutil.copyfile(place, folder / WEIGHTS)
    _rewrite_terms(folder / CARD, f'{endpoint}/{repo}/blob/main/{CARD}')
    yield folder


def _rewrite_terms(card: epath.Path, link: str) -> None:
  """Give the terms in a card's head the form that the hub accepts."""
  text = foreign_files.read_text(card, replace=True) if card.exists() else ''
  head, below = terms.split_card(text)
  link = str(head.get('license_link') or link)
  stated = terms.front_matter(terms.of_head(head), link)
  rest = {k: v for k, v in head.items() if not k.startswith('license')}
  card.write_text(terms.join_card({**stated, **rest}, below))


def _reason(error: Exception) -> str:
  """Return why the hub refuses, in one line, with what to do."""
  response = getattr(error, 'response', None)
  code = getattr(response, 'status_code', None)
  if code in (401, 403):
    return f'the hub refuses the token ({code}): it needs one that may write: {_HOW}'
  said = getattr(error, 'server_message', None) or line(error)
  return f'cannot be uploaded: {one_line(said)[:300]}'
