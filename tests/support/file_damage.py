"""Damages to a file or folder, each a function of its path."""

import os
import pathlib
import shutil


def _remove(path: pathlib.Path) -> None:
  if path.is_dir() and not path.is_symlink():
    shutil.rmtree(path)
  else:
    path.unlink()


def truncate(path: pathlib.Path) -> None:
  """Cut the file in the middle."""
  os.truncate(path, path.stat().st_size // 2)


def cut_last(path: pathlib.Path) -> None:
  """Cut off the last byte."""
  os.truncate(path, path.stat().st_size - 1)


def grow(path: pathlib.Path) -> None:
  """Append zeros, as a file system may after a crash."""
  path.write_bytes(path.read_bytes() + b'\0' * 100)


def empty(path: pathlib.Path) -> None:
  """Leave no byte."""
  path.write_bytes(b'')


def zero(path: pathlib.Path) -> None:
  """Make all bytes zero, as a file system may after a crash."""
  path.write_bytes(b'\0' * path.stat().st_size)


def flip_first(path: pathlib.Path) -> None:
  """Flip a bit of the first byte."""
  _flip(path, 0)


def flip_middle(path: pathlib.Path) -> None:
  """Flip a bit in the middle."""
  _flip(path, path.stat().st_size // 2)


def flip_last(path: pathlib.Path) -> None:
  """Flip a bit of the last byte."""
  _flip(path, -1)


def _flip(path: pathlib.Path, place: int) -> None:
  data = bytearray(path.read_bytes())
  data[place] ^= 1
  path.write_bytes(data)


def other_text(path: pathlib.Path) -> None:
  """Put other JSON in its place, which can be read."""
  path.write_bytes(b'[{}, null]')


def delete(path: pathlib.Path) -> None:
  """Delete it."""
  _remove(path)


def folder(path: pathlib.Path) -> None:
  """Put an empty folder in its place."""
  _remove(path)
  path.mkdir()


def dangling(path: pathlib.Path) -> None:
  """Put a link in its place that leads nowhere."""
  _remove(path)
  path.symlink_to('nowhere')


def own_link(path: pathlib.Path) -> None:
  """Put a link to itself in its place."""
  _remove(path)
  path.symlink_to(path.name)


def parent_link(path: pathlib.Path) -> None:
  """Put a link to the folder that it is in in its place."""
  _remove(path)
  path.symlink_to('.')


def endless(path: pathlib.Path) -> None:
  """Put a link to /dev/zero in its place."""
  _remove(path)
  path.symlink_to('/dev/zero')


def pipe(path: pathlib.Path) -> None:
  """Put a named pipe in its place, which nobody writes to."""
  _remove(path)
  os.mkfifo(path)


def text_file(path: pathlib.Path) -> None:
  """Put a file in the place of a folder."""
  _remove(path)
  path.write_bytes(b'x')


CONTENT = (truncate, cut_last, grow, empty, zero, flip_first, flip_middle, flip_last)
CONTENT += (other_text,)
PLACE = (delete, folder, dangling, own_link, parent_link, endless, pipe)
OF_FILES = CONTENT + PLACE
OF_FOLDERS = (delete, folder, text_file, dangling, own_link, parent_link, endless, pipe)
