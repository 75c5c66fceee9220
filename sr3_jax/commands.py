"""What the commands of this package have in common."""

import argparse
import os
from typing import NoReturn

# Where compiled programs are kept between starts.
CACHE = os.path.join(os.path.expanduser('~'), '.cache', 'sr3_jax', 'xla')


class Parser(argparse.ArgumentParser):
  """Keeps the lines of its texts, and says what is wrong in one line."""

  def __init__(self, **options):
    super().__init__(
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,
      **options,
    )

  def error(self, message: str) -> NoReturn:
    # A message may quote a stranger's file: nothing in it steers the terminal.
    line = ''.join(c if c.isprintable() else '?' for c in ' '.join(message.split()))
    self.exit(2, f'error: {line}; --help shows all options\n')
