"""sr3_jax.plan.machines and sr3_jax.plan.roofline, against sums done by hand."""

import math

import pytest

from sr3_jax.plan import machines, roofline
from tests.support.plans import machine, operation

# ----------------------------------------------------------------------------- machines


@pytest.mark.parametrize(
  ('name', 'count'),
  [
    ('v5e:2x4', 8),
    ('v4:2x2x4', 16),
    ('v5p:1x1x1', 1),
    ('v6e:16x16', 256),
    ('h100:8', 8),
    ('cpu', 1),
  ],
)
def test_names_of_machines(name, count):
  assert machines.parse(name).count == count


@pytest.mark.parametrize(
  ('name', 'hint'),
  [
    ('v9:2x2', 'v5e:4x4'),
    ('', 'h100:8, h200:8, cpu'),
    ('v5e', 'write v5e:4x4'),
    ('v5e:2x2x2', 'write v5e:4x4'),
    ('v4:2x4', 'write v4:2x2x4'),
    ('v5e:0x4', 'write v5e:4x4'),
    ('h100:two', 'write h100:8'),
  ],
)
def test_unknown_machines_are_answered_with_known_ones(name, hint):
  with pytest.raises(ValueError, match=hint) as error:
    machines.parse(name)
  assert repr(name) in str(error.value)


def test_peaks_are_those_of_the_matrix_units():
  # 2 FLOP x units x side^2 x clock, as the makers' papers describe the cores.
  units = {'v4': (8, 128), 'v5e': (4, 128), 'v5p': (8, 128), 'v6e': (4, 256)}
  for name, (count, side) in units.items():
    one = machines.CHIPS[name]
    assert one.flops == pytest.approx(2 * count * side**2 * one.clock, rel=0.01)


def test_links_that_a_ring_can_use():
  assert machine(4, 4).network == 2 * 4  # two closed axes of two links
  assert machine(2, 4).network == 2 * 3
  assert machine(1, 2).network == 2 * 1
  assert machine(1, 1).network == math.inf
  assert machines.parse('h100:8').network == 18 * 25e9


def test_other_sizes_are_near_a_square_or_cube():
  v5e, v4 = machines.parse('v5e:2x4'), machines.parse('v4:2x2x1')
  assert [v5e.of_size(n).name for n in (8, 64, 256)] == [
    'v5e:2x4',
    'v5e:8x8',
    'v5e:16x16',
  ]
  assert [v4.of_size(n).name for n in (4, 16, 256)] == [
    'v4:1x2x2',
    'v4:2x2x4',
    'v4:4x8x8',
  ]
  assert machines.parse('h100:8').of_size(64).count == 64


# ----------------------------------------------------------------------------- roofline


def test_an_operation_takes_the_longer_of_arithmetic_and_memory():
  one = machine(1, 1)
  assert roofline.seconds_of(operation(flops=100.0, bytes=4), one) == 10
  assert roofline.seconds_of(operation(flops=10.0, bytes=4), one) == 4


def test_a_program_is_the_sum_of_its_operations():
  made = roofline.estimate(
    [operation(flops=100.0, bytes=4, times=3), operation(flops=10.0, bytes=4)],
    machine(1, 1),
  )
  assert (made.seconds, made.serial) == (34, 34)
  assert (made.arithmetic, made.memory, made.network) == (31, 16, 0)


def test_copies_beside_the_rest_cost_only_what_is_left_over():
  front = operation(flops=100.0, bytes=4)  # 10 s; the memory is free for 6 of them
  few, many = (operation(opcode='copy-start', bytes=n, background=True) for n in (5, 9))
  assert roofline.estimate([front, few], machine(1, 1)).seconds == 10
  made = roofline.estimate([front, many], machine(1, 1))
  assert (made.seconds, made.serial) == (13, 19)


def test_collectives_are_waited_for_unless_they_run_beside():
  # 8 chips send 7/8 of 64 bytes over 3 links of 2 bytes/s.
  sent = {'collective': 'all-gather', 'payload': 48, 'group': 8}
  front = operation(flops=100.0)
  wait = roofline.estimate([front, operation(**sent)], machine(2, 4))
  beside = roofline.estimate([front, operation(background=True, **sent)], machine(2, 4))
  assert (wait.seconds, wait.waited, wait.network) == (17, 7, 7)
  assert (beside.seconds, beside.waited, beside.serial) == (10, 0, 17)


@pytest.mark.parametrize(
  ('optimal', 'cycles', 'believed'),
  [
    (12.0, 8, 12.0),
    (-3.0, 30, 15.0),
    (math.nan, 30, 15.0),
    (9.0, 2, None),
    (None, 0, None),
  ],
)
def test_the_compilers_estimate_counts_where_it_is_possible(optimal, cycles, believed):
  made = roofline.estimate(
    [operation(flops=100.0, cycles=cycles)], machine(1, 1), optimal
  )
  assert made.compiler == believed


def test_weak_scaling_pays_for_longer_rings():
  sent = {'collective': 'all-reduce', 'payload': 48, 'group': 4}
  program = [operation(flops=900.0), operation(**sent)]
  rows = roofline.weak_scaling(program, machine(2, 2, ring=64), (4, 16))
  # Two links of 2 bytes/s; 2 x 3/4 and 2 x 15/16 of the array.
  assert [row['seconds'] for row in rows] == [90 + 72 / 4, 90 + 90 / 4]
  assert [row['efficiency'] for row in rows] == [1, 108 / 112.5]


def test_the_heaviest_places_and_what_bounds_them():
  program = [
    operation(source='conv', flops=100.0),
    operation(source='norm', bytes=7, times=2),
    operation(source='conv', flops=100.0),
    operation(source='sum', collective='all-reduce', payload=48, group=8),
  ]
  first, second, third = roofline.heaviest(program, machine(2, 4))
  assert [one['source'] for one in (first, second, third)] == ['conv', 'norm', 'sum']
  bounds = [one['bound'] for one in (first, second, third)]
  assert bounds == ['arithmetic', 'memory', 'network']
  assert first['share'] == pytest.approx(20 / 48)
