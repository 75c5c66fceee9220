"""Writes programs as StableHLO, by `jax.export`, and as ONNX, by jax2onnx."""

import json
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from sr3_jax.export.program import ExportError, Program
from sr3_jax.runtime import activity, atomic_files
from sr3_jax.runtime.errors import line

PLATFORMS = ('cpu', 'cuda', 'tpu')
OPSET = 20  # of ONNX: read by onnxruntime from 1.17 on
# Both formats are one message of at most 2 GiB, with the weights in it.
MAX_WEIGHTS = 2**31 - 2**26


def check_weights(params: Any) -> None:
  """Raise ExportError for weights that don't fit into one file."""
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
  if size > MAX_WEIGHTS:
    raise ExportError(
      f'the weights have {size / 2**30:.1f} GiB: one file of these formats holds 2 GiB'
    )


def write_stablehlo(
  path: epath.PathLike, program: Program, metadata: dict[str, Any]
) -> None:
  """Write what `jax.export.deserialize` reads, and metadata as JSON beside it.

  Raises:
    OSError: the place can't be written.
  """
  shapes = _shapes(program)
  with activity.doing('tracing and lowering the program'):
    lowered = jax.export.export(jax.jit(program.function), platforms=PLATFORMS)
    data = bytes(lowered(*shapes).serialize())
  with activity.doing(f'writing {path}'):
    atomic_files.write_bytes(path, data)
    atomic_files.write_json(f'{path}.json', metadata)


def write_onnx(
  path: epath.PathLike, program: Program, metadata: dict[str, Any]
) -> None:
  """Write an ONNX file that holds the metadata as JSON, under 'sr3_jax'.

  Raises:
    ExportError: jax2onnx is missing or has no way to write a part of the network.
    OSError: the place can't be written.
  """
  jax2onnx = import_jax2onnx()
  with activity.doing('converting to ONNX'):
    try:
      # Its own convolutions and dense layers add biases of fewer dimensions.
      with jax.numpy_rank_promotion('allow'):
        model = jax2onnx.to_onnx(
          program.function,
          _shapes(program),
          model_name='sr3_jax',
          opset=OPSET,
          input_names=[*program.inputs],
          output_names=['output'],
        )
    except Exception as error:  # it raises whatever its many converters have
      raise ExportError(
        f"jax2onnx can't write this {metadata['part']} as ONNX ({line(error)}); "
        '--format=stablehlo can'
      ) from error
  entry = model.metadata_props.add()
  entry.key, entry.value = 'sr3_jax', json.dumps(metadata)
  with activity.doing(f'writing {path}'):
    atomic_files.write_bytes(path, model.SerializeToString())


def import_jax2onnx():
  """Return the module jax2onnx, or raise ExportError: one line says what to install."""
  with activity.doing('loading jax2onnx'):
    try:
      import jax2onnx
    except ImportError as error:
      text = (
        f"--format=onnx needs jax2onnx: pip install 'sr3_jax[onnx-export]' ({error})"
      )
      raise ExportError(text) from None
  return jax2onnx


def _shapes(program: Program) -> list[jax.ShapeDtypeStruct]:
  """Return the inputs as JAX describes arrays."""
  return [
    jax.ShapeDtypeStruct(value.shape, jnp.dtype(value.dtype))
    for value in program.inputs.values()
  ]
