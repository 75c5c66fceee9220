"""Makes samples of one input out of what the model gives."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from sr3_jax.core.sr3 import SR3
from sr3_jax.images import resizing
from sr3_jax.restoration import given as given_images
from sr3_jax.restoration.given import Given
from sr3_jax.restoration.inputs import Prepared
from sr3_jax.restoration.result import Result
from sr3_jax.restoration.tiling import Size


def finish(
  outputs: list[np.ndarray], given: Prepared, size: Size, consistency: bool
) -> np.ndarray:
  """Return the model's outputs [h, w, C] as samples [n, *size, C or 1].

  Outputs are taken off their list one by one, so that they and the samples share the
  memory. Samples are grey if the input is and, with `consistency`, downsample to it.
  """
  samples = np.empty((len(outputs), *size, given.channels), np.float32)
  for sample in samples:
    sample[...] = _finished(outputs.pop(0), given, size, consistency)
  return samples


def with_belongings(
  result: Result, given: Given, model: SR3, margins: Sequence[int] | None
) -> Result:
  """Return a result with what belonged to its input beside the pixels.

  `margins` were added around the input, above, right, below and left; without them the
  result has no transparency.
  """
  alpha = None
  if margins is not None and given.alpha is not None:
    size = result.samples.shape[1:3]
    alpha = given_images.enlarge_alpha(given.alpha, margins, size)
  return dataclasses.replace(
    result,
    like=dataclasses.replace(given.like, alpha=alpha),
    value_range=model.value_range,
    floating=model.task.paired,
  )


def _finished(
  output: np.ndarray, given: Prepared, size: Size, consistency: bool
) -> np.ndarray:
  """Return one sample."""
  image = given.observed
  if output.shape[:2] != size:
    output = np.clip(resizing.resize(output, *size), -1, 1)
  if given.channels < output.shape[-1]:
    output = output.mean(-1, keepdims=True)
  larger = size[0] >= image.shape[0] and size[1] >= image.shape[1]
  return resizing.make_consistent(output, image) if consistency and larger else output
