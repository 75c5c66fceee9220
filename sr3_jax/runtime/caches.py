"""Says where files are cached that can be made or fetched again."""

import os


def folder(name: str) -> str:
  """Return this package's cache folder of a name: ~/.cache/sr3_jax/NAME.

  Instead of ~/.cache it takes $XDG_CACHE_HOME, unless that is relative: such a value
  counts as not set.
  """
  given = os.path.expanduser(os.environ.get('XDG_CACHE_HOME', ''))
  home = given if os.path.isabs(given) else os.path.expanduser('~/.cache')
  return os.path.join(home, 'sr3_jax', name)


def programs() -> str:
  """Return the folder of compiled programs: $JAX_COMPILATION_CACHE_DIR, or our own."""
  return os.environ.get('JAX_COMPILATION_CACHE_DIR') or folder('xla')
