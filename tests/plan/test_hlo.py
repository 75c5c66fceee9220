"""sr3_jax.plan.hlo, hlo_flops and hlo_costs, against XLA and sums done by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from sr3_jax.plan import hlo, hlo_costs, hlo_flops


def costs(text: str) -> list[hlo_costs.Operation]:
  return hlo_costs.operations(hlo.parse(text))


def flops(text: str) -> float:
  return sum(o.times * o.flops for o in costs(text))


@pytest.mark.parametrize(
  ('shape', 'size', 'moved'),
  [
    ('f32[]', 4, 4),
    ('bf16[3,5]{1,0}', 30, 30),
    ('pred[7]{0}', 7, 7),
    # The fastest axis is the last but one: 48 columns become 128, 5 rows 8.
    ('f32[3,48,5]{1,2,0:T(8,128)}', 3 * 8 * 128 * 4, 3 * 8 * 128 * 4),
    ('bf16[16,128]{1,0:T(8,128)(2,1)S(1)}', 16 * 128 * 2, 0),
    ('s4[6]{0:T(8)}', 4, 4),
  ],
)
def test_arrays_are_as_large_as_their_tiles(shape, size, moved):
  (array,) = hlo.arrays(shape)
  assert (array.bytes, array.moved) == (size, moved)


def test_tuples_are_flat():
  dims = [a.dims for a in hlo.arrays('(f32[2,3]{1,0}, /*index=1*/(s32[], u8[4]{0}))')]
  assert dims == [(2, 3), (), (4,)]


def test_a_text_without_a_program_is_refused():
  with pytest.raises(ValueError, match='no ENTRY'):
    hlo.parse('HloModule nothing\n')


def conv(x, w, **options):
  numbers = ('NHWC', 'HWIO', 'NHWC')
  return jax.lax.conv_general_dilated(x, w, dimension_numbers=numbers, **options)


def strided(x, w):
  return conv(x, w, window_strides=(2, 3), padding='SAME')


def dilated(x, w):
  options = {'rhs_dilation': (2, 1), 'padding': [(2, 2), (0, 1)]}
  return conv(x, w, window_strides=(1, 1), **options)


def transposed(x, w):
  options = {'lhs_dilation': (2, 2), 'padding': [(1, 2), (2, 2)]}
  return conv(x, w, window_strides=(1, 1), **options)


def grouped(x, w):
  return conv(x, w, window_strides=(1, 1), padding='VALID', feature_group_count=2)


def batch_grouped(x, w):
  return conv(x, w, window_strides=(1, 1), padding='VALID', batch_group_count=2)


@pytest.mark.parametrize(
  ('function', 'inputs'),
  [(strided, 6), (dilated, 6), (transposed, 6), (grouped, 12), (batch_grouped, 6)],
)
def test_flops_of_convolutions_are_those_of_xla(function, inputs):
  x, w = jnp.zeros((2, 9, 11, inputs)), jnp.zeros((3, 4, 6, 8))
  lowered = jax.jit(function).lower(x, w)
  assert flops(lowered.as_text(dialect='hlo')) == lowered.cost_analysis()['flops']


def test_flops_of_gradients_are_those_of_xla():
  x, w = jnp.zeros((2, 8, 8, 6)), jnp.zeros((3, 3, 6, 8))
  # Linear in both: no other arithmetic. Images become channels for that of the weights.
  y, pull = jax.eval_shape(functools.partial(jax.vjp, strided), x, w)
  del pull

  def back(x, w, y):
    return jax.vjp(strided, x, w)[1](y)

  lowered = jax.jit(back).lower(x, w, y)
  analysis, counted = lowered.cost_analysis()['flops'], lowered.as_text(dialect='hlo')
  assert flops(counted) == pytest.approx(analysis, rel=0.01)


def test_a_matrix_product_is_2mnk_and_three_arrays():
  a, b = jnp.zeros((64, 96)), jnp.zeros((96, 32))
  program = jax.jit(jnp.matmul).lower(a, b).compile()
  made = costs(program.as_text())
  assert sum(o.flops for o in made) == 2 * 64 * 96 * 32
  assert sum(o.bytes for o in made) == 4 * (64 * 96 + 96 * 32 + 64 * 32)
  assert sum(o.flops for o in made) == program.cost_analysis()['flops']
  assert sum(o.bytes for o in made) == program.cost_analysis()['bytes accessed']
  assert [o.source for o in made if o.flops] == ['jit(matmul)/dot_general']


def test_equal_products_of_one_fusion_both_count():
  text = """HloModule jit_f

%both (p: f32[4,8], q: f32[8,4]) -> (f32[4,4], f32[4,4]) {
  %p = f32[4,8]{1,0} parameter(0)
  %q = f32[8,4]{1,0} parameter(1)
  %a = f32[4,4]{1,0} convolution(%p, %q), dim_labels=bf_io->bf
  %b = f32[4,4]{1,0} dot(%p, %q), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %t = (f32[4,4]{1,0}, f32[4,4]{1,0}) tuple(%a, %b)
}

ENTRY %main (p: f32[4,8], q: f32[8,4]) -> (f32[4,4], f32[4,4]) {
  %p = f32[4,8]{1,0} parameter(0)
  %q = f32[8,4]{1,0} parameter(1)
  ROOT %f = (f32[4,4]{1,0}, f32[4,4]{1,0}) fusion(%p, %q), kind=kOutput, calls=%both
}
"""
  (made,) = costs(text)
  assert (made.flops, made.bytes) == (2 * 2 * 4 * 4 * 8, 4 * (2 * 4 * 8 + 2 * 4 * 4))


def test_batches_of_products_with_other_axes():
  def product(a, b):
    return jnp.einsum('bij,bkj->ibk', a, b)

  lowered = jax.jit(product).lower(jnp.zeros((5, 4, 7)), jnp.zeros((5, 3, 7)))
  assert flops(lowered.as_text(dialect='hlo')) == 2 * 5 * 4 * 7 * 3


def test_bodies_of_loops_count_as_often_as_they_run():
  def loop(x, w):
    return jax.lax.scan(lambda x, _: (x @ w, None), x, None, length=7)[0]

  lowered = jax.jit(loop).lower(jnp.zeros((4, 16)), jnp.zeros((16, 16)))
  assert flops(lowered.as_text(dialect='hlo')) == 7 * 2 * 4 * 16 * 16
  assert flops(lowered.compile().as_text()) == 7 * 2 * 4 * 16 * 16


def test_a_loop_of_unknown_length_counts_once():
  def loop(n, x, w):
    return jax.lax.fori_loop(0, n, lambda _, x: x @ w, x)

  lowered = jax.jit(loop).lower(3, jnp.zeros((4, 16)), jnp.zeros((16, 16)))
  assert flops(lowered.as_text(dialect='hlo')) == 2 * 4 * 16 * 16


def reduced(x):
  return jax.lax.psum(x, 'all')


def gathered(x):
  return jax.lax.all_gather(x, 'all', tiled=True)


def scattered(x):
  return jax.lax.psum_scatter(x, 'all', tiled=True)


def shifted(x):
  return jax.lax.ppermute(x, 'all', [(i, (i + 1) % 8) for i in range(8)])


@pytest.mark.parametrize(
  ('function', 'name', 'sent'),
  # What each of 8 devices has is 64 floats. See the table of costs of collectives of
  # arXiv:1910.02054, section 7: 2, 1 and 1 times the whole array for many devices.
  [
    (reduced, 'all-reduce', 2 * 7 / 8 * 256),
    (gathered, 'all-gather', 7 * 256),
    (scattered, 'reduce-scatter', 7 / 8 * 256),
    (shifted, 'collective-permute', 256),
  ],
)
def test_bytes_of_collectives(function, name, sent):
  mesh, spec = Mesh(np.array(jax.devices()), ('all',)), PartitionSpec('all')
  mapped = jax.shard_map(
    function, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False
  )
  program = jax.jit(mapped).lower(jnp.zeros(8 * 64)).compile()
  made = [o for o in costs(program.as_text()) if o.collective]
  assert [(o.collective, o.group, o.sent) for o in made] == [(name, 8, sent)]


def test_collectives_within_groups():
  mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ('some', 'all'))
  spec = PartitionSpec(('some', 'all'))
  mapped = jax.shard_map(
    gathered, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False
  )
  program = jax.jit(mapped).lower(jnp.zeros(8 * 64)).compile()
  (made,) = [o for o in costs(program.as_text()) if o.collective]
  assert (made.group, made.sent) == (4, 3 * 256)


GROUPS = """HloModule jit_f, num_partitions=8

ENTRY %main (a: f32[64]) -> f32[256] {
  %a = f32[64]{0} parameter(0)
  ROOT %gather = f32[256]{0} all-gather(%a), channel_id=1, replica_groups=PLACE, dimensions={0}
}
"""  # noqa: E501


@pytest.mark.parametrize(
  ('written', 'group'),
  [
    ('{{0,1,2,3},{4,5,6,7}}', 4),
    ('[2,4]<=[8]', 4),
    ('[4,2]<=[2,4]T(1,0)', 2),
    ("mesh['some'=2,'all'=4] {'all'}", 4),  # since JAX 0.11 or 0.12
    ("mesh['a'=2,'b'=2,'c'=2] {'a','c'}", 4),
    ("mesh['a'=2,'b'=4] {'a','b'}", 8),
    ('{}', 8),
  ],
)
def test_every_way_to_write_groups_is_read(written, group):
  (gather,) = costs(GROUPS.replace('PLACE', written))
  assert gather.group == group


# As TPUs have it: S(1) is the core's own memory, which costs the other nothing.
COPIES = """HloModule jit_f, is_scheduled=true

ENTRY %main (a: f32[8,128]) -> f32[8,128] {
  %a = f32[8,128]{1,0:T(8,128)} parameter(0)
  %copy-start = (f32[8,128]{1,0:T(8,128)S(1)}, f32[8,128]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%a)
  %copy-done = f32[8,128]{1,0:T(8,128)S(1)} copy-done(%copy-start)
  ROOT %add = f32[8,128]{1,0:T(8,128)} add(%copy-done, %copy-done), backend_config={"window_config":{"estimated_cycles":"321"}}
}
"""  # noqa: E501


def test_copies_into_the_core_are_counted_once_and_run_beside():
  start, add = costs(COPIES)
  assert (start.opcode, start.bytes, start.background) == ('copy-start', 4096, True)
  assert (add.opcode, add.bytes, add.background) == ('add', 4096, False)
  assert (start.cycles, add.cycles) == (0, 321)


PREFETCH = """HloModule jit_f, is_scheduled=true

ENTRY %main (a: f32[80,128]) -> f32[8,128] {
  %a = f32[80,128]{1,0:T(8,128)} parameter(0)
  %slice-start = ((f32[80,128]{1,0:T(8,128)}), f32[8,128]{1,0:T(8,128)S(1)}, u32[]{:S(2)}) slice-start(%a), slice={[0:8], [0:128]}
  %slice-done = f32[8,128]{1,0:T(8,128)S(1)} slice-done(%slice-start)
  ROOT %add = f32[8,128]{1,0:T(8,128)} add(%slice-done, %slice-done)
}
"""  # noqa: E501


def test_only_the_slice_is_read_when_it_is_fetched_early():
  start, _ = costs(PREFETCH)
  assert (start.bytes, start.background) == (4096, True)


SLICES = """HloModule jit_f

%fused_read (p0: f32[100,128], p1: s32[]) -> f32[1,128] {
  %p0 = f32[100,128]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %part = f32[1,128]{1,0} dynamic-slice(%p0, %p1, %zero), dynamic_slice_sizes={1,128}
}

%fused_write (p0: f32[100,128], p1: f32[1,128], p2: s32[]) -> f32[100,128] {
  %p0 = f32[100,128]{1,0} parameter(0)
  %p1 = f32[1,128]{1,0} parameter(1)
  %p2 = s32[] parameter(2)
  %zero = s32[] constant(0)
  ROOT %new = f32[100,128]{1,0} dynamic-update-slice(%p0, %p1, %p2, %zero)
}

ENTRY %main (a: f32[100,128], i: s32[]) -> f32[100,128] {
  %a = f32[100,128]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %read = f32[1,128]{1,0} fusion(%a, %i), kind=kLoop, calls=%fused_read
  ROOT %write = f32[100,128]{1,0} fusion(%a, %read, %i), kind=kLoop, calls=%fused_write
}
"""  # noqa: E501


def test_only_the_slices_of_a_large_array_are_touched():
  read, write = costs(SLICES)
  # A slice in and out, and the index.
  assert (read.bytes, write.bytes) == (2 * 512 + 4, 2 * 512 + 4)


# A TPU spreads an all-gather over the fusions that run meanwhile.
CHAIN = """HloModule jit_f, num_partitions=4

%begin (p: bf16[64,128]) -> (bf16[64,128], bf16[256,128]) {
  %p = bf16[64,128]{1,0} parameter(0)
  %g0 = bf16[256,128]{1,0} all-gather(%p), replica_groups={{0,1,2,3}}, dimensions={0}, frontend_attributes={chain_id="5"}
  ROOT %s = (bf16[64,128]{1,0}, bf16[256,128]{1,0}) custom-call(%g0), custom_call_target="AsyncCollectiveStart"
}

%middle (p0: f32[8,16], p1: f32[16,8], p2: bf16[64,128], p3: bf16[256,128]) -> (f32[8,8], bf16[64,128], bf16[256,128]) {
  %p0 = f32[8,16]{1,0} parameter(0)
  %p1 = f32[16,8]{1,0} parameter(1)
  %p2 = bf16[64,128]{1,0} parameter(2)
  %p3 = bf16[256,128]{1,0} parameter(3)
  %g1 = bf16[256,128]{1,0} all-gather(%p2), replica_groups={{0,1,2,3}}, dimensions={0}, frontend_attributes={chain_id="5"}
  %d = f32[8,8]{1,0} convolution(%p0, %p1), dim_labels=bf_io->bf
  ROOT %t = (f32[8,8]{1,0}, bf16[64,128]{1,0}, bf16[256,128]{1,0}) tuple(%d, %p2, %g1)
}

%end (p0: bf16[64,128], p1: bf16[256,128]) -> bf16[256,128] {
  %p0 = bf16[64,128]{1,0} parameter(0)
  %p1 = bf16[256,128]{1,0} parameter(1)
  %g2 = bf16[256,128]{1,0} all-gather(%p0), replica_groups={{0,1,2,3}}, dimensions={0}, frontend_attributes={chain_id="5"}
  ROOT %c = bf16[256,128]{1,0} custom-call(%g2), custom_call_target="AsyncCollectiveDone"
}

ENTRY %main (a: bf16[64,128], x: f32[8,16], y: f32[16,8]) -> bf16[256,128] {
  %a = bf16[64,128]{1,0} parameter(0)
  %x = f32[8,16]{1,0} parameter(1)
  %y = f32[16,8]{1,0} parameter(2)
  %start = (bf16[64,128]{1,0}, bf16[256,128]{1,0}) fusion(%a), kind=kCustom, calls=%begin
  %part = bf16[64,128]{1,0} get-tuple-element(%start), index=0
  %all = bf16[256,128]{1,0} get-tuple-element(%start), index=1
  %both = (f32[8,8]{1,0}, bf16[64,128]{1,0}, bf16[256,128]{1,0}) fusion(%x, %y, %part, %all), kind=kOutput, calls=%middle
  %part2 = bf16[64,128]{1,0} get-tuple-element(%both), index=1
  %all2 = bf16[256,128]{1,0} get-tuple-element(%both), index=2
  ROOT %done = bf16[256,128]{1,0} fusion(%part2, %all2), kind=kCustom, calls=%end
}
"""  # noqa: E501


def test_a_collective_spread_over_fusions_is_counted_once():
  start, both, done = costs(CHAIN)
  assert (start.collective, start.background) == ('all-gather', True)
  assert start.sent == 3 / 4 * 256 * 128 * 2
  assert (both.collective, done.collective) == ('', '')
  # The product reads and writes its own; what it only hands on costs nothing.
  assert (both.flops, both.bytes) == (2 * 8 * 8 * 16, 4 * (2 * 8 * 16 + 8 * 8))
  assert not both.background


def test_the_heavier_branch_counts():
  def either(flag, x, w):
    return jax.lax.cond(flag, lambda: x @ w @ w, lambda: x + 1)

  lowered = jax.jit(either).lower(True, jnp.zeros((4, 16)), jnp.zeros((16, 16)))
  assert flops(lowered.as_text(dialect='hlo')) == 2 * 2 * 4 * 16 * 16


def test_padding_does_not_count():
  # SAME with 3 on a side of 5: the two at the ends meet 2 of 3.
  assert hlo_flops.valid_positions(size=5, kernel=3, made=5, before=1) == 13
