"""Damages files and values at random."""

import json
import random
from typing import Any

# What a value of JSON may become.
ODD = (
  *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308, 1e999),
  *(float('nan'), '', 'a', 'a\0b', '\x1b[31m', '../..', '/etc/passwd', 'ü' * 300),
  *([], {}, [[]], [1, 2], {'a': 1}, [None], ['a', 1, {}]),
)


def of_bytes(data: bytes, rng: random.Random) -> bytes:
  """Change, remove or add some bytes, most of them near the beginning."""
  data = bytearray(data)
  for _ in range(rng.choice([1, 1, 3, 20])):
    if not data:
      break
    place = rng.randrange(min(len(data), rng.choice([64, 400, len(data)])))
    kind = rng.random()
    if kind < 0.4:
      data[place] = rng.randrange(256)
    elif kind < 0.6:
      data[place] = rng.choice([0, 1, 127, 128, 254, 255])
    elif kind < 0.72:
      del data[place:]
    elif kind < 0.87:
      data[place:place] = rng.randbytes(rng.randrange(9))
    else:
      del data[place : place + rng.randrange(30)]
  return bytes(data)


def of_json(value: Any, rng: random.Random) -> Any:
  """Return a copy with one value, somewhere in it, removed, renamed or replaced."""
  value = json.loads(json.dumps(value))
  inner = [value]
  for one in inner:  # grows on the way: all objects and lists
    children = one.values() if isinstance(one, dict) else one
    inner += [child for child in children if isinstance(child, dict | list) and child]
  place = rng.choice(inner)
  if not isinstance(place, dict | list) or not place or rng.random() < 0.03:
    return rng.choice(ODD)
  key = rng.choice([*place] if isinstance(place, dict) else range(len(place)))
  kind = rng.random()
  if kind < 0.75:
    place[key] = rng.choice(ODD)
  elif kind < 0.9 or isinstance(place, list):
    del place[key]
  else:
    place[rng.choice(['', 'a', '\x1b]0;x\7', 'x' * 2000, f'{key}2'])] = place.pop(key)
  return value


def of_json_text(text: str, rng: random.Random) -> bytes:
  """Damage a JSON file: mostly a value of it, sometimes its bytes."""
  if rng.random() < 0.25:
    return of_bytes(text.encode(), rng)
  value = json.loads(text)
  for _ in range(rng.choice([1, 1, 2, 4])):
    value = of_json(value, rng) if isinstance(value, dict | list) else value
  return json.dumps(value, indent=rng.choice([None, 1])).encode()
