"""Makes configurations of the options, checks their values, and finds their files.

`options` lists what can be set. A file in configs/ starts from the defaults and sets
what its experiment needs.
"""

import json
import pathlib
import runpy
import traceback
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import ml_collections

from sr3_jax.options import OPTIONS
from sr3_jax.runtime.errors import UserError
from sr3_jax.runtime.values import Option, cut, shown

ConfigDict = ml_collections.ConfigDict
T = TypeVar('T')


class ConfigError(UserError):
  """One line: which key of a configuration, what it may be, and what it is."""


def get_config() -> ConfigDict:
  """Return the default configuration, every key with its type."""
  config = ConfigDict()
  for key, entry in OPTIONS.items():
    if isinstance(entry, Option):
      config[key] = entry.default
    else:
      config[key] = ConfigDict({name: option.default for name, option in entry.items()})
  return config


def find_option(name: str) -> Option:
  """Return the option of a key such as 'train.num_steps'.

  Raises:
    ConfigError: there is none; the message lists those that are near.
  """
  entry: Any = OPTIONS
  keys = name.split('.')
  name = cut(name)
  for i, key in enumerate(keys):
    if isinstance(entry, Option) or key not in entry:
      at = '.'.join(['config', *keys[:i]])
      known = 'a value, no keys' if isinstance(entry, Option) else ', '.join(entry)
      raise ConfigError(f'no key config.{name}; {at} has: {known}')
    entry = entry[key]
  if isinstance(entry, Option):
    return entry
  raise ConfigError(f'config.{name} is no value; it has keys: {", ".join(entry)}')


def flat_options() -> Iterator[tuple[str, Option]]:
  """List all options with the names of their keys: 'seed', 'train.num_steps'."""
  for key, entry in OPTIONS.items():
    if isinstance(entry, Option):
      yield key, entry
    else:
      yield from ((f'{key}.{name}', option) for name, option in entry.items())


def check_values(config: ConfigDict) -> None:
  """Refuse a configuration with a value that its key can't have.

  How keys go together is checked by `core.relations`.

  Raises:
    ConfigError: a key is missing or unknown, or its value is of another type or out of
      its range.
  """
  values = dict(_flat(config, ''))
  options = dict(flat_options())
  for name in values.keys() - options.keys():
    find_option(name)
  for name, option in options.items():
    if name not in values:
      raise ConfigError(f'no key config.{name}; begin with sr3_jax.config.get_config()')
    check_value(name, option, values[name])


def check_value(name: str, option: Option, value: Any) -> None:
  """Raise ConfigError for a value that an option can't have."""
  if not option.kind.fits(value):
    raise refused(name, option, shown(value))


def refused(name: str, option: Option, given: str) -> ConfigError:
  """Return the error for a value that an option can't have, shown as `given`."""
  return ConfigError(f'{name}={given} must be {option.kind}')


def _flat(section: ConfigDict, prefix: str) -> Iterator[tuple[str, Any]]:
  """List the values of a configuration with the names of their keys."""
  for key in section:
    if isinstance(section[key], ConfigDict) and isinstance(OPTIONS.get(key), dict):
      yield from _flat(section[key], f'{prefix}{key}.')
    else:
      yield f'{prefix}{key}', section[key]


def as_json(config: ConfigDict) -> dict[str, Any]:
  """Return the configuration as it reads back from a JSON file."""
  return json.loads(config.to_json_best_effort())


def check_name(what: str, known: Iterable[str], name: str) -> str:
  """Return a name that the option `what` can have.

  Raises:
    ValueError: an unknown name; the message lists the known ones.
  """
  if name not in known:
    raise ValueError(f'unknown {what} {name!r}; known: {", ".join(known)}')
  return name


def pick(what: str, known: Mapping[str, T], name: str) -> T:
  """Return known[name]; arguments and errors are those of `check_name`."""
  return known[check_name(what, known, name)]


def config_names() -> list[str]:
  """Return the names of the configurations that come with the program, sorted.

  A name is a path in configs/ without its ending: 'quickstart', 'small/photo_x4'.
  """
  folder = _configs()
  paths = folder.rglob('[!_]*.py')
  return sorted(path.relative_to(folder).with_suffix('').as_posix() for path in paths)


def find_config(name: str) -> str:
  """Return the path of a configuration file that is given by path or by name.

  A name is one of `config_names` (also written as its path in the source tree,
  configs/NAME.py, from any folder). An argument for the file may follow after a colon,
  as in 'palette_256:inpainting'; it is returned with the path.

  Raises:
    ValueError: there is neither such a file nor such a name.
  """
  path, colon, argument = name.partition(':')
  if not pathlib.Path(path).is_file():
    key = path.removeprefix('configs/').removesuffix('.py')
    if key not in config_names():
      raise ValueError(f'no file and no configuration {path!r}; known: {_listing()}')
    path = _configs() / f'{key}.py'
  return f'{path}{colon}{argument}'


def _listing() -> str:
  """Return the known names in a line, those of a folder together."""
  folders: dict[str, list[str]] = {}
  for name in config_names():
    folder, _, last = name.rpartition('/')
    folders.setdefault(folder, []).append(last)
  top = ', '.join(folders.pop('', ()))
  rest = (f'in {folder}/: {", ".join(names)}' for folder, names in folders.items())
  return '; '.join([top, *rest])


def load_config(name: str) -> ConfigDict:
  """Return the configuration that a path or a name stands for, as in `find_config`.

  Raises:
    ValueError: there is no such configuration, or it refuses its argument.
  """
  path, colon, argument = find_config(name).partition(':')
  # Any other program is not even run.
  if 'get_config' not in pathlib.Path(path).read_text():
    raise ConfigError(f'{path} is no configuration: it defines no get_config()')
  make = runpy.run_path(path)['get_config']
  config = make(argument) if colon else make()
  if not isinstance(config, ConfigDict):
    raise ConfigError(
      f'{path}: get_config() returns no ConfigDict, but {shown(config)}'
    )
  return config


def explain(error: BaseException) -> str:
  """Return what went wrong in a configuration's file, and in which line of it."""
  said = ' '.join(f'{type(error).__name__}: {error}'.split())[-300:]
  if isinstance(error, TypeError) and 'get_config() takes 0 positional' in said:
    return 'this configuration takes no argument: leave out the colon and what follows'
  place = ''
  for frame, number in traceback.walk_tb(error.__traceback__):
    names, here = frame.f_globals, frame.f_locals
    if 'get_config' in names and not names['__name__'].startswith('sr3_jax.'):
      place = f'{frame.f_code.co_filename}, line {number}: '
    if isinstance(here.get('self'), ConfigDict) and {'key', 'value'} <= here.keys():
      said = _refusal(here['self'], here['key'], here['value']) or said
  return place + said


def _refusal(section: ConfigDict, key: str, value: Any) -> str:
  """Return why a section of a configuration refuses a value; '' if it isn't ours."""
  for group, options in {'': OPTIONS, **OPTIONS}.items():
    if isinstance(options, dict) and set(section) == set(options):
      name = f'{group}.{key}'.lstrip('.')
      try:
        return str(refused(name, find_option(name), shown(value)))
      except ConfigError as error:
        return str(error)
  return ''


def _configs() -> pathlib.Path:
  """Return the folder of the configurations: in a wheel's package, or beside it."""
  package = pathlib.Path(__file__).resolve().parent
  inside = package / 'configs'
  return inside if inside.is_dir() else package.parent / 'configs'
