"""A plan as text."""

from typing import Any

from sr3_jax.runtime import progress

GIB = 2**30


def format_plan(made: dict[str, Any]) -> str:
  """The table, what takes the time, the sampler, and what the figures mean.

  Args:
    made: by `plan.make_plan`.
  """
  flops = made['flops_per_image'] * made['batch_size']
  lines = [
    f'{made["parameters"]:,} parameters, batch {made["batch_size"]}, '
    f'{made["num_steps"]:,} steps; {flops:.3g} FLOP a step without recomputation',
    '',
    *align([HEAD, *(row(plan, made['price']) for plan in made['plans'])]),
    '',
  ]
  for plan in made['plans']:
    lines += details(plan)
  for one in made['samplers']:
    lines.append(sampler_line(one))
  best = made['cheapest']
  if best:
    cost = f', {best["money"]:,.2f} at {made["price"]:g} an hour' * bool(made['price'])
    lines.append(
      f'cheapest that holds it: {best["topology"]} with {best["strategy"]}, '
      f'{best["chip_hours"]:,.1f} chip-hours{cost}'
    )
  return '\n'.join([*lines, '', *notes(made)])


HEAD = (
  'machine',
  'strategy',
  'memory',
  'of',
  'fits',
  'step',
  'waited',
  'MFU',
  'images/s',
  'time',
  'chip-hours',
  'money',
  'largest batch a chip',
)


def row(plan: dict[str, Any], price: float) -> tuple[str, ...]:
  """One machine and strategy."""
  memory, fits = plan['memory'], plan['fits']
  total = f'{memory["total"] / GIB:.2f} GiB'
  if memory['temporaries'] is None and fits is not False:
    total = f'> {total}'
  available = memory['available']
  largest = plan.get('largest_batch_per_chip')
  first = (
    plan['topology'],
    plan['strategy'],
    total,
    f'{available / GIB:.2f} GiB' if available else '?',
    {True: 'yes', False: 'NO', None: '?'}[fits],
  )
  if 'time' not in plan:
    return (*first, *['-'] * 7, _or_dash(largest))
  time = plan['time']
  return (
    *first,
    f'{plan["step_seconds"] * 1e3:.4g} ms',
    f'{time["waited"] * 1e3:.3g} ms',
    f'{plan["mfu_serial"]:.0%} - {plan["mfu"]:.0%}',
    f'{plan["images_per_second"]:.4g}',
    progress.duration(plan['hours'] * 3600),
    f'{plan["chip_hours"]:,.1f}',
    f'{plan["money"]:,.2f}' if price else '-',
    _or_dash(largest),
  )


def _or_dash(number: int | None) -> str:
  return '-' if number is None else str(number)


def align(rows: list[tuple[str, ...]]) -> list[str]:
  """Columns as wide as what they hold; the first two to the left."""
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return [
    '  '.join(
      cell.ljust(width) if i < 2 else cell.rjust(width)
      for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ).rstrip()
    for row in rows
  ]


def details(plan: dict[str, Any]) -> list[str]:
  """What one plan's time and memory are made of."""
  if 'time' not in plan:
    return []
  time, memory = plan['time'], plan['memory']
  own = f'{time["compiler"] * 1e3:.4g} ms' if time['compiler'] else 'none to believe'
  parts = ', '.join(
    f'{name} {memory[name] / 2**20:.1f} MiB'
    for name in ('arguments', 'temporaries', 'outputs', 'code')
    if memory[name] is not None
  )
  lines = [
    f'{plan["topology"]} {plan["strategy"]}',
    f'  a chip has {parts}',
    *measured_line(plan),
    f'  a step: arithmetic {time["arithmetic"] * 1e3:.4g} ms '
    f'({plan["hardware_flops"]:.3g} FLOP a chip), memory {time["memory"] * 1e3:.4g} ms '
    f'({plan["bytes"]:.3g} bytes), network {time["network"] * 1e3:.4g} ms '
    f'({plan["sent"]:.3g} bytes); one after the other {time["serial"] * 1e3:.4g} ms; '
    f'the compiler: {own}',
  ]
  if 'weak_scaling' in plan:
    scaling = ', '.join(
      f'{one["chips"]}: {one["efficiency"]:.0%}' for one in plan['weak_scaling']
    )
    lines.append(f'  efficiency of chips with as large a share each: {scaling}')
  lines += [
    f'  {one["share"]:6.1%} {one["bound"]:10} {one["source"]}'
    for one in plan['heaviest'][:5]
  ]
  return [*lines, '']


def measured_line(plan: dict[str, Any]) -> list[str]:
  """How far from the bound a step was that was run."""
  if not plan['measured']:
    return []
  seconds, bound = plan['step_seconds'], plan['time']['seconds']
  return [
    f'  measured here: {seconds * 1e3:.4g} ms, {seconds / bound:.1f} times the bound'
  ]


def sampler_line(one: dict[str, Any]) -> str:
  """The sampler on one machine."""
  start = f'{one["topology"]} sampler: {one["images"]} images in {one["steps"]} steps, '
  start += f'{"> " * (one["fits"] is None)}{one["memory"] / GIB:.2f} GiB a chip'
  if one['fits'] is False:
    return f'{start}: does NOT fit, make eval.batch_size smaller'
  return (
    f'{start}, {one["seconds_per_step"] * 1e3:.4g} ms a step, '
    f'{one["images_per_second"]:.4g} images/s'
  )


def notes(made: dict[str, Any]) -> list[str]:
  """What the figures assume."""
  lines = [
    'Times are bounds: every operation at the peak of its chip or of its memory. The',
    'first figure of MFU has nothing beside anything else, the second has copies and',
    'collectives beside the arithmetic where the program starts them early. "waited"',
    'is what is sent while nothing else runs. Latencies, input, evaluation and',
    'checkpoints are not counted.',
  ]
  if made['effort'] and any(plan['compiled'] for plan in made['plans']):
    lines += [
      f'The compiler made less of an effort ({made["effort"]:g}): bytes and times are',
      'too long, memory may be a tenth off; arithmetic and what is sent are right.',
    ]
  run = [plan['topology'] for plan in made['plans'] if plan['measured']]
  if run:
    lines += [
      f'Run on this machine: {run[0]}, with images that were there already. Step, MFU',
      'and what follows from them are measured; MFU is of a peak that is assumed.',
    ]
  guessed = [
    plan['topology']
    for plan in made['plans']
    if not plan['compiled'] and not plan['measured']
  ]
  if guessed:
    lines += [
      f'Estimates, not compiled: {", ".join(dict.fromkeys(guessed))}. Memory after a >',
      'lacks temporaries, which nobody knows before; bytes are those of convolutions',
      'and matrix products, as if all else were joined with them; collectives are',
      'those of the strategy, and all are waited for.',
    ]
  return lines
