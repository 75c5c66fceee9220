"""Write options.md: every option of a configuration, from `sr3_jax.options`.

python docs/make_options.py
"""

import pathlib

from sr3_jax.options import OPTIONS
from sr3_jax.runtime.values import Option

HEAD = """\
# Options

Every option of a configuration, with its default, the values that it may have, and its
meaning. Set one on the command line with `--config.KEY=VALUE`, or in a configuration
file with `config.KEY = VALUE`. A value that an option can't have ends the program with
one line before anything is read, compiled or written; so do options that don't go
together, such as a `train.decay_steps` above `train.num_steps`. Tuples are quoted on
the command line:
`--config.model.multipliers="(1, 2, 4)"`.

This page is made from [`sr3_jax/options.py`](../sr3_jax/options.py) by
`python docs/make_options.py`.
"""


def page() -> str:
  """Return the text of options.md."""
  alone = {key: entry for key, entry in OPTIONS.items() if isinstance(entry, Option)}
  parts = [HEAD, *table('', alone)]
  for name, section in OPTIONS.items():
    if not isinstance(section, Option):
      parts += [f'\n## {name}\n', *table(f'{name}.', section)]
  return '\n'.join(parts) + '\n'


def table(prefix: str, section: dict[str, Option]) -> list[str]:
  """Return the lines of a table of options."""
  rows = ['| key | default | values | meaning |', '|---|---|---|---|']
  for key, option in section.items():
    cells = (f'`{prefix}{key}`', f'`{option.default!r}`', option.kind, option.about)
    rows.append(f'| {" | ".join(str(cell).replace("|", "/") for cell in cells)} |')
  return rows


if __name__ == '__main__':
  pathlib.Path(__file__).with_name('options.md').write_text(page())
