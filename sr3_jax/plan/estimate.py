"""What a program says that is not compiled: an estimate for machines that are not here.

Convolutions and matrix products are counted, as if everything else cost nothing but its
place in them.
"""

import functools
import math
from typing import Any

import jax
import ml_collections

from sr3_jax.core.sr3 import SR3
from sr3_jax.plan import hlo, hlo_costs
from sr3_jax.plan.hlo_costs import Operation
from sr3_jax.plan.programs import CARRY, Measured, image_batch


def model_flops(config: ml_collections.ConfigDict) -> float:
  """FLOPs of the loss of one image and its gradient, nothing computed twice."""
  plain = config.copy_and_resolve_references()
  plain.model.remat = False
  model = SR3.from_config(plain)
  params = jax.eval_shape(model.init, jax.random.key(0))
  key = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
  gradient = jax.jit(jax.value_and_grad(model.loss))
  lowered = gradient.lower(params, key, image_batch(plain, 1))
  return sum(o.times * o.flops for o in counted(lowered))


def counted(lowered: Any) -> list[Operation]:
  """The convolutions and products of a program that is not compiled."""
  text = lowered.as_text(dialect='hlo', debug_info=True)  # says where things are from
  return [o for o in hlo_costs.operations(hlo.parse(text)) if o.flops]


def estimated(lowered: Any, strategy: str, chips: int, state: Any) -> Measured:
  """What can be said of a training step without a compiler for the machine.

  Args:
    lowered: a step of one chip.
    strategy: what is sent, and how much of the state a chip has, follows from it.
    chips: of the machine.
    state: shapes of the whole state.
  """
  size = lambda tree: sum(
    leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)
  )
  weights, everything = size(state.params), size(state)
  own = everything // chips if strategy == 'fsdp' else everything
  send = functools.partial(Operation, opcode='collective', times=1, flops=0.0, bytes=0)
  # Gathered for the forward pass and the backward pass.
  sent = (
    [
      send(
        'weights',
        source='all weights, twice',
        collective='all-gather',
        payload=2 * weights,
        group=chips,
      ),
      send(
        'gradients',
        source='sum of gradients',
        collective='reduce-scatter',
        payload=weights,
        group=chips,
      ),
    ]
    if strategy == 'fsdp'
    else [
      send(
        'gradients',
        source='sum of gradients',
        collective='all-reduce',
        payload=weights,
        group=chips,
      )
    ]
  )
  update = Operation('update', 'update', 'update of the state', 1, 0.0, 2 * own)
  operations = (*counted(lowered), update, *(sent if chips > 1 else ()))
  return Measured(operations, own, own, None, own, counted=True)


def estimated_sampling(lowered: Any) -> Measured:
  """What can be said of `sampling` without a compiler for the machine."""
  (arguments, _) = lowered.args_info
  size = lambda tree: sum(
    math.prod(leaf.shape[1:]) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)
  )
  carry, found = size(arguments[CARRY]), tuple(counted(lowered))
  return Measured(found, size(arguments), carry, None, carry, counted=True)
