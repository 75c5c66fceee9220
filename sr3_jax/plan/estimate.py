"""Estimates what a program costs without compiling it, for machines that are not here.

Only convolutions and matrix products are counted, as if everything else were part of
one of them and cost nothing.
"""

import math

import jax

from sr3_jax.config import ConfigDict
from sr3_jax.core.sr3 import SR3
from sr3_jax.plan import hlo, hlo_costs
from sr3_jax.plan.hlo_costs import Operation
from sr3_jax.plan.programs import CARRY, ProgramCost, image_batch


def model_flops(config: ConfigDict) -> float:
  """Return the FLOPs of one image's loss and gradient, with nothing computed twice."""
  plain = config.copy_and_resolve_references()
  plain.model.update({'remat': False, 'keep': 'inputs', 'fold': 1})
  model = SR3.from_config(plain)
  params = jax.eval_shape(model.init, jax.random.key(0))
  key = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
  gradient = jax.jit(jax.value_and_grad(model.loss))
  lowered = gradient.lower(params, key, image_batch(plain, 1))
  return hlo_costs.total_flops(count_operations(lowered))


def count_operations(lowered: jax.stages.Lowered) -> list[Operation]:
  """Return the convolutions and matrix products of a program that is not compiled."""
  # With debug information every operation names the place that it comes from.
  text = lowered.as_text(dialect='hlo', debug_info=True)
  return [o for o in hlo_costs.operations(hlo.parse(text)) if o.flops]


def estimate_training(
  lowered: jax.stages.Lowered, strategy: str, chips: int
) -> ProgramCost:
  """Estimate a training step without a compiler for the machine.

  Args:
    lowered: a step of one chip, from `programs.lower_training`.
    strategy: 'pmap' or 'fsdp'; it decides what is sent, and how much of the state each
      chip has.
    chips: number of chips of the machine.
  """
  state = lowered.args_info[0][0]
  own = _bytes(state) // chips if strategy == 'fsdp' else _bytes(state)
  update = Operation('update', 'update', 'update of the state', 1, 0.0, 2 * own)
  sent = _collectives(strategy, chips, _bytes(state.params)) if chips > 1 else []
  operations = (*count_operations(lowered), update, *sent)
  return ProgramCost(operations, own, own, None, own, counted=True)


def _bytes(tree: object, axes: slice = slice(None)) -> int:
  """Return the bytes of all arrays of a tree, of each only these axes."""
  leaves = jax.tree.leaves(tree)
  return sum(math.prod(leaf.shape[axes]) * leaf.dtype.itemsize for leaf in leaves)


def _collectives(strategy: str, chips: int, weights: int) -> list[Operation]:
  """Return what a strategy sends in a step, for weights of so many bytes."""

  def send(source: str, collective: str, payload: int) -> Operation:
    return Operation(
      source, 'collective', source, 1, 0.0, 0, collective, payload, group=chips
    )

  if strategy != 'fsdp':
    return [send('sum of gradients', 'all-reduce', weights)]
  return [  # weights for the forward pass and for the backward pass
    send('all weights, twice', 'all-gather', 2 * weights),
    send('sum of gradients', 'reduce-scatter', weights),
  ]


def estimate_sampling(lowered: jax.stages.Lowered) -> ProgramCost:
  """Estimate a step of the sampler without a compiler for the machine.

  Args:
    lowered: result of `programs.lower_sampling`, arrays [chips, ...].
  """
  (arguments, _) = lowered.args_info
  one_chip = slice(1, None)
  carry = _bytes(arguments[CARRY], one_chip)
  given, operations = _bytes(arguments, one_chip), tuple(count_operations(lowered))
  return ProgramCost(operations, given, carry, None, carry, counted=True)
