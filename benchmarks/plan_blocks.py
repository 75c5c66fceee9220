r"""Plans one residual block on one TPU chip, plain and folded, within a minute each.

  JAX_PLATFORMS=cpu python benchmarks/plan_blocks.py --channels=16 --side=1024 \
    --folds=1,8
  JAX_PLATFORMS=cpu python benchmarks/plan_blocks.py --channels=16 --side=1024 \
    --folds=1,8 --resample=down

It compiles the block's output and its gradients, with recomputation, in bfloat16, and
prints the table of docs/scaling.md, "Folded execution".
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from absl import app, flags

from sr3_jax.core.networks import unet
from sr3_jax.plan import hlo_costs, machines, programs, roofline

FLAGS = flags.FLAGS
flags.DEFINE_integer('channels', 16, 'Of input and result.')
flags.DEFINE_integer('side', 1024, 'Of the input, in pixels.')
flags.DEFINE_integer('batch', 8, 'Images.')
flags.DEFINE_list('folds', ['1', '8'], 'Pixels that are folded in the input.')
flags.DEFINE_string('resample', '', "'', 'down' or 'up'.")
flags.DEFINE_string('chip', 'v5e:1x1', 'A slice of one chip.')
flags.DEFINE_float('effort', -1.0, 'As plan.effort.')


def lower(fold: int, chip: jax.Device) -> jax.stages.Lowered:
  """Return the program of one block, for a chip that need not be there."""
  c, batch, side = FLAGS.channels, FLAGS.batch, FLAGS.side
  made = {'': fold, 'down': max(1, fold // 2), 'up': fold * 2}[FLAGS.resample]
  folds = (fold, made) if fold > 1 else (1, 1)
  block_class = nn.remat(unet.ResBlock, static_argnums=(3,))
  block = block_class(c, FLAGS.resample, 0.0, jnp.bfloat16, folds, tpu=True)
  place = jax.sharding.SingleDeviceSharding(chip)

  def shape(like):
    return jax.ShapeDtypeStruct(like.shape, like.dtype, sharding=place)

  def run(params, x, emb):
    return block.apply(params, x, emb, True)

  def step(params, x, emb, gradient):
    out, pull = jax.vjp(run, params, x, emb)
    return out, pull(gradient)

  x = jax.ShapeDtypeStruct((batch, side, side // fold, c * fold), jnp.bfloat16)
  emb = jax.ShapeDtypeStruct((batch, 4 * c), jnp.bfloat16)
  params = jax.eval_shape(block.init, jax.random.key(0), x, emb, True)
  out = jax.eval_shape(run, params, x, emb)
  return jax.jit(step).lower(*jax.tree.map(shape, (params, x, emb, out)))


def main(argv: list[str]) -> None:
  """Run the command."""
  del argv
  machine = machines.parse(FLAGS.chip)
  (chip,) = programs.tpu_devices(machine)
  print(
    '| fold | bytes | FLOPs | temporaries | bound | compiler |\n' + '|---' * 6 + '|'
  )
  for fold in map(int, FLAGS.folds):
    lowered = lower(fold, chip)
    cost = programs.compile_for_tpu(lowered, machine, 'block', None, FLAGS.effort)
    if cost.temporaries is None:
      print(f'| {fold} | needs {cost.needed / 2**30:.1f} GiB |' + ' - |' * 4)
      continue
    moved = sum(o.times * o.bytes for o in cost.operations)
    cycles = sum(o.times * o.cycles for o in cost.operations)
    flops = hlo_costs.total_flops(cost.operations)
    bound = roofline.estimate(cost.operations, machine).seconds
    print(
      f'| {fold} | {moved / 1e9:.1f} GB | {flops / 1e12:.2f} T '
      f'| {cost.temporaries / 2**30:.2f} GiB | {bound * 1e3:.1f} ms '
      f'| {cycles / machine.chip.clock * 1e3:.0f} ms |',
      flush=True,
    )


if __name__ == '__main__':
  app.run(main)
