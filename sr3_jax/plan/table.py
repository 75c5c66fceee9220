"""Writes a plan as text."""

from typing import Any

from sr3_jax.runtime import activity, text

GIB = 2**30
HEAD = ('machine', 'strategy', 'memory', 'of', 'fits', 'step', 'waited', 'MFU')
HEAD += ('images/s', 'time', 'chip-hours', 'money', 'largest batch a chip')


def format_plan(made: dict[str, Any]) -> str:
  """Return the table, what takes the time, the sampler, and what the figures mean.

  Args:
    made: result of `run.make_plan`.
  """
  flops = made['flops_per_image'] * made['batch_size']
  lines = [
    f'{made["parameters"]:,} parameters, batch {made["batch_size"]}, '
    f'{made["num_steps"]:,} steps; {flops:.3g} FLOP a step without recomputation',
    '',
    *text.align([HEAD, *(row(p, made['price']) for p in made['plans'])], left=(0, 1)),
    '',
  ]
  for plan in made['plans']:
    lines += details(plan)
  lines += map(sampler_line, made['samplers'])
  if best := made['cheapest']:
    cost = f', {best["money"]:,.2f} at {made["price"]:g} an hour'
    lines.append(
      f'cheapest that fits: {best["topology"]} with {best["strategy"]}, '
      f'{best["chip_hours"]:,.1f} chip-hours{cost if made["price"] else ""}'
    )
  return '\n'.join([*lines, '', *notes(made)])


def row(plan: dict[str, Any], price: float) -> tuple[str, ...]:
  """Return the row of one machine and strategy, with a cell for each of HEAD."""
  memory, fits, available = plan['memory'], plan['fits'], plan['memory']['available']
  at_least = '> ' if memory['temporaries'] is None and fits is not False else ''
  first = (
    plan['topology'],
    plan['strategy'],
    f'{at_least}{memory["total"] / GIB:.2f} GiB',
    f'{available / GIB:.2f} GiB' if available else '?',
    {True: 'yes', False: 'NO', None: '?'}[fits],
  )
  largest = str(plan.get('largest_batch_per_chip', '-'))
  if 'time' not in plan:
    return (*first, *['-'] * 7, largest)
  return (
    *first,
    _ms(plan['step_seconds']),
    f'{plan["time"]["waited"] * 1e3:.3g} ms',
    f'{plan["mfu_serial"]:.0%} - {plan["mfu"]:.0%}',
    f'{plan["images_per_second"]:.4g}',
    activity.duration(plan['hours'] * 3600),
    f'{plan["chip_hours"]:,.1f}',
    f'{plan["money"]:,.2f}' if price else '-',
    largest,
  )


def _ms(seconds: float) -> str:
  return f'{seconds * 1e3:.4g} ms'


def details(plan: dict[str, Any]) -> list[str]:
  """Return lines that say what one plan's time and memory are made of."""
  if 'time' not in plan:
    return []
  time, memory = plan['time'], plan['memory']
  parts = [
    f'{name} {memory[name] / 2**20:.1f} MiB'
    for name in ('arguments', 'temporaries', 'outputs', 'code')
    if memory[name] is not None
  ]
  lines = [f'{plan["topology"]} {plan["strategy"]}', f'  a chip has {", ".join(parts)}']
  if plan['measured']:
    seconds, bound = plan['step_seconds'], time['seconds']
    lines.append(
      f'  measured here: {_ms(seconds)}, {seconds / bound:.1f} times the bound; '
      f'{_speed(plan, seconds)}'
    )
  compiler = _ms(time['compiler']) if time['compiler'] else 'no plausible estimate'
  lines.append(
    f'  a step: arithmetic {_ms(time["arithmetic"])} '
    f'({plan["hardware_flops"]:.3g} FLOP a chip), memory {_ms(time["memory"])} '
    f'({plan["bytes"]:.3g} bytes), network {_ms(time["network"])} '
    f'({plan["sent"]:.3g} bytes); one after the other {_ms(time["serial"])}; '
    f'the compiler: {compiler}'
  )
  if rows := plan.get('weak_scaling'):
    scaling = ', '.join(f'{one["chips"]}: {one["efficiency"]:.0%}' for one in rows)
    lines.append(f'  efficiency of chips with as large a share each: {scaling}')
  for one in plan['heaviest'][:5]:
    lines.append(f'  {one["share"]:6.1%} {one["bound"]:10} {one["source"]}')
  return [*lines, '']


def _speed(plan: dict[str, Any], seconds: float) -> str:
  """Return the measured speed of a step as text."""
  return (
    f'{plan["hardware_flops"] / seconds / 1e9:.4g} GFLOP/s, '
    f'{plan["share_of_ceiling"]:.0%} of a matrix product; '
    f'compiled in {plan["compile_seconds"]:.1f} s'
  )


def sampler_line(one: dict[str, Any]) -> str:
  """Return a line about the sampler on one machine."""
  at_least = '> ' if one['fits'] is None else ''
  line = (
    f'{one["topology"]} sampler: {one["images"]} images in {one["steps"]} steps, '
    f'{at_least}{one["memory"] / GIB:.2f} GiB a chip'
  )
  if one['fits'] is False:
    return f'{line}: does NOT fit, make eval.batch_size smaller'
  seconds = one['seconds_per_step']
  line += f', {_ms(seconds)} a step, {one["images_per_second"]:.4g} images/s'
  return f'{line}; {_speed(one, seconds)}' if one['measured'] else line


def notes(made: dict[str, Any]) -> list[str]:
  """Return lines that say what the figures assume."""
  lines = [
    'Times are bounds: every operation runs at the peak of its chip or of its memory.',
    'The first figure of MFU is for one operation after the other; for the second,',
    'copies and collectives run beside the arithmetic where the program starts them',
    'early. "waited" is the time of sending while nothing else runs. Latencies, input,',
    'evaluation and checkpoints are not counted.',
  ]
  if made['effort'] and any(plan['compiled'] for plan in made['plans']):
    lines += [
      f'The compiler made less of an effort ({made["effort"]:g}): bytes and times are',
      'too high, and memory may be a tenth off; arithmetic and what is sent are right.',
    ]
  run = [plan['topology'] for plan in made['plans'] if plan['measured']]
  if run:
    lines += [
      f'Run on this machine: {run[0]}, with images that are in memory already. The',
      'step, MFU and what follows from them are measured. The peak behind the MFU is',
      'assumed; the FLOP/s of a matrix product are measured.',
    ]
  estimated = dict.fromkeys(
    plan['topology']
    for plan in made['plans']
    if not (plan['compiled'] or plan['measured'])
  )
  if estimated:
    lines += [
      f'Estimates, not compiled: {", ".join(estimated)}. Memory after a >',
      'lacks temporaries, which only a compiler knows. Bytes are those of convolutions',
      'and matrix products, as if all else were fused with them. Collectives are those',
      'of the strategy, and the program waits for all of them.',
    ]
  return lines
