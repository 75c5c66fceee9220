"""Tells how long each stage of a cascade takes."""

from collections.abc import Sequence
from typing import Any

import jax

from sr3_jax.cascade.cascade import Cascade
from sr3_jax.runtime import text


def make(
  cascade: Cascade, times: Sequence[float], compiled: Sequence[float], count: int
) -> dict[str, Any]:
  """Return samples/times.json: the time of each stage on this process's devices.

  Args:
    cascade: the models.
    times: seconds of sampling, of each stage.
    compiled: seconds of compiling, of each stage.
    count: images that were sampled.
  """
  whole = sum(times)
  rows = [
    {
      'stage': stage.name,
      'side': stage.side,
      'steps': stage.num_steps,
      'guidance': stage.guidance,
      **stage.levels._asdict(),
      'compile_seconds': round(waited, 2),
      'seconds': round(seconds, 4),
      'seconds_per_image': round(seconds / count, 5),
      'share': round(seconds / whole, 4),
    }
    for stage, seconds, waited in zip(cascade.stages, times, compiled, strict=True)
  ]
  machine = f'{jax.local_device_count()} x {jax.devices()[0].device_kind}'
  return {'images': count, 'devices': machine, 'seconds': whole, 'stages': rows}


def as_text(table: dict[str, Any]) -> str:
  """Return the time of each stage as aligned text."""
  lines = [('stage', 'size', 'steps', 'guidance', 'compile s', 's/image', 'share')]
  lines += [
    (
      row['stage'],
      f'{row["side"]} x {row["side"]}',
      str(row['steps']),
      f'{row["guidance"]:g}',
      f'{row["compile_seconds"]:.1f}',
      f'{row["seconds_per_image"]:.3g}',
      f'{100 * row["share"]:.1f}%',
    )
    for row in table['stages']
  ]
  total = f'{table["images"]} images on {table["devices"]}'
  return '\n'.join([*text.align(lines), total])
