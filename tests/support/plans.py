"""Makes operations and machines of round numbers, for tests of plans."""

from sr3_jax.plan import machines
from sr3_jax.plan.hlo_costs import Operation


def operation(**values) -> Operation:
  plain = {'name': 'o', 'opcode': 'fusion', 'source': 's', 'times': 1}
  return Operation(**plain | {'flops': 0.0, 'bytes': 0} | values)


def chip(**values) -> machines.Chip:
  """Return a chip of 10 FLOP/s and 1 byte/s."""
  plain = {'flops': 10.0, 'bandwidth': 1.0, 'memory': 100.0, 'link': 2.0, 'links': 4}
  plain |= {'ring': 4, 'clock': 2.0, 'source': ''}
  return machines.Chip(**plain | values)


def machine(*sides: int, **values) -> machines.Machine:
  return machines.Machine('it:1', chip(**values), sides, is_tpu=True)
