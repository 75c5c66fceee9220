"""Writes a plan as text."""

from sr3_jax.plan.figures import Plan, SamplerPlan, TrainingPlan
from sr3_jax.runtime import progress, text

GIB = 2**30


def format_plan(made: Plan) -> str:
  """Return the table, what takes the time, the sampler, and what the figures mean."""
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
  for one in made['samplers']:
    lines.append(sampler_line(one))
  best = made['cheapest']
  if best:
    cost = ''
    if made['price']:
      cost = f', {best["money"]:,.2f} at {made["price"]:g} an hour'
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


def row(plan: TrainingPlan, price: float) -> tuple[str, ...]:
  """Return the row of one machine and strategy, with a cell for each of HEAD."""
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
  """Return a number as text; '-' for none."""
  return '-' if number is None else str(number)


def details(plan: TrainingPlan) -> list[str]:
  """Return lines that say what one plan's time and memory are made of."""
  if 'time' not in plan:
    return []
  time, memory = plan['time'], plan['memory']
  own = (
    f'{time["compiler"] * 1e3:.4g} ms' if time['compiler'] else 'no plausible estimate'
  )
  parts = ', '.join(
    f'{name} {size / 2**20:.1f} MiB'
    for name, size in (
      ('arguments', memory['arguments']),
      ('temporaries', memory['temporaries']),
      ('outputs', memory['outputs']),
      ('code', memory['code']),
    )
    if size is not None
  )
  lines = [
    f'{plan["topology"]} {plan["strategy"]}',
    f'  a chip has {parts}',
    *measured_lines(plan),
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


def measured_lines(plan: TrainingPlan) -> list[str]:
  """Return the speed of a step that was run, and how far it is from the bound."""
  if not plan['measured']:
    return []
  seconds, bound = plan['step_seconds'], plan['time']['seconds']
  return [
    f'  measured here: {seconds * 1e3:.4g} ms, {seconds / bound:.1f} times the bound; '
    + _speed(plan['hardware_flops'] / seconds, plan['share_of_ceiling'])
    + f'; compiled in {plan["compile_seconds"]:.1f} s'
  ]


def _speed(rate: float, share: float) -> str:
  """Return FLOP/s as text, with the share of those of a matrix product."""
  return f'{rate / 1e9:.4g} GFLOP/s, {share:.0%} of a matrix product'


def sampler_line(one: SamplerPlan) -> str:
  """Return a line about the sampler on one machine."""
  at_least = '> ' if one['fits'] is None else ''
  line = (
    f'{one["topology"]} sampler: {one["images"]} images in {one["steps"]} steps, '
    f'{at_least}{one["memory"] / GIB:.2f} GiB a chip'
  )
  if one['fits'] is False:
    return f'{line}: does NOT fit, make eval.batch_size smaller'
  seconds = one['seconds_per_step']
  line += f', {seconds * 1e3:.4g} ms a step, {one["images_per_second"]:.4g} images/s'
  if not one['measured']:
    return line
  speed = _speed(one['hardware_flops'] / seconds, one['share_of_ceiling'])
  return f'{line}; {speed}; compiled in {one["compile_seconds"]:.1f} s'


def notes(made: Plan) -> list[str]:
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
  guessed = [
    plan['topology']
    for plan in made['plans']
    if not plan['compiled'] and not plan['measured']
  ]
  if guessed:
    lines += [
      f'Estimates, not compiled: {", ".join(dict.fromkeys(guessed))}. Memory after a >',
      'lacks temporaries, which only a compiler knows. Bytes are those of convolutions',
      'and matrix products, as if all else were fused with them. Collectives are those',
      'of the strategy, and the program waits for all of them.',
    ]
  return lines
