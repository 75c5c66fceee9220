"""Conversion of PyTorch weights: what is refused, and in which words."""

import re

import numpy as np
import pytest

from sr3_jax.weights import torch_to_flax
from sr3_jax.weights.torch_files import WeightsError
from tests.support import oracles_torch
from tests.support.torch_shapes import BETAS, GIVEN, HEADS, JANSPIRY, zeros

GUIDED = oracles_torch.guided_shapes(32, (1, 2), 1, (1,))


def _renamed(shapes, pattern, by):
  return {re.sub(pattern, by, name): shape for name, shape in shapes.items()}


REFUSED = {
  'ddpm': (
    _renamed(JANSPIRY, 'noise_level_mlp', 'time_mlp'),
    GIVEN,
    'DDPM variant .ddpm_modules',
  ),
  'unconditional': (
    oracles_torch.janspiry_shapes(8, (1, 2), 1, (1,), inputs=3),
    GIVEN,
    'takes 3 channels, not 6.*unconditional generator, with no input to upscale',
  ),
  'grey': (
    oracles_torch.janspiry_shapes(8, (1, 2), 1, (1,), inputs=2),
    GIVEN,
    'takes 2 channels, not 6',
  ),
  'unknown': ({'fc.weight': (3, 3)}, {}, 'unknown network, with fc.weight; known'),
  'empty': ({}, {}, 'unknown network'),
  'ours': ({'downs_0/kernel': (3, 3, 6, 8)}, {}, 'model of sr3_jax already'),
  'missing': (
    {k: v for k, v in JANSPIRY.items() if k != 'mid.0.attn.out.bias'},
    GIVEN,
    '1 missing: mid_0_attention/out/bias$',
  ),
  'left over': (
    JANSPIRY | {f'ema.{i}.weight': (4,) for i in range(9)},
    GIVEN,
    '9 left over: ema.0.weight, .*, ema.4.weight and 4 more$',
  ),
  'a second middle': (
    JANSPIRY | {'mid.1.attn.qkv.weight': (48, 16, 1, 1)},
    GIVEN,
    '1 left over: mid.1.attn.qkv.weight$',
  ),
  'shape': (
    JANSPIRY | {'final_conv.block.3.weight': (4, 8, 3, 3)},
    GIVEN,
    r'1 of another shape: final_conv.block.3.weight \[4, 8, 3, 3\]$',
  ),
  'no blocks': (
    {k: v for k, v in JANSPIRY.items() if k[:5] != 'downs' or k[:7] == 'downs.0'},
    GIVEN,
    'residual blocks of widths',
  ),
  'uneven': (
    JANSPIRY | {'downs.3.res_block.block1.block.3.weight': (12, 8, 3, 3)},
    GIVEN,
    r'widths \[\[8\], \[12\]\].*a multiple of 8',
  ),
  'absurd': (JANSPIRY | {'downs.0.weight': (0, 6)}, GIVEN, '.'),
  'flat': (JANSPIRY | {'downs.0.weight': ()}, GIVEN, '.'),
  'facts': (
    JANSPIRY,
    {'scale': 4},
    'no tensor tells --groups, --image_size: give them, or a --preset$',
  ),
  'groups': (JANSPIRY, GIVEN | {'groups': 3}, '3 groups do not divide the 8 of'),
  'side': (JANSPIRY, GIVEN | {'image_size': 18, 'scale': 2}, None),
  'odd side': (JANSPIRY, GIVEN | {'image_size': 20, 'scale': 3}, 'size of 20 does not'),
  'heads': (JANSPIRY, GIVEN | {'num_heads': 4}, 'where --num_heads means nothing'),
  'preset': (
    JANSPIRY,
    {'preset': '16_128'},
    r'not the network of --preset=16_128: channels 8 where that has 64, multipliers '
    r'\(1, 2\) where.*instead of it give --groups, --scale, --image_size$',
  ),
  'foreign preset': (
    JANSPIRY,
    {'preset': '64_256_upsampler'},
    'not the network.*it is of Janspiry',
  ),
  'guided heads': (GUIDED, HEADS | {'num_heads': 5}, '5 heads do not divide the 64'),
  'guided groups': (GUIDED, HEADS | {'groups': 32}, 'where --groups means nothing'),
  'guided facts': (GUIDED, {}, 'no tensor tells --num_heads, --scale, --image_size'),
  'guided generator': (
    GUIDED | {'input_blocks.0.0.weight': (32, 3, 3, 3)},
    HEADS,
    'takes 3 channels, not 6.*not one of the upsamplers',
  ),
  'guided convolutions': (
    GUIDED | {'input_blocks.2.0.op.weight': (32, 32, 3, 3)},
    HEADS,
    'only networks made with --resblock_updown True',
  ),
  'guided addition': (
    GUIDED | {'input_blocks.1.0.emb_layers.1.weight': (32, 128)},
    HEADS,
    'only networks made with --use_scale_shift_norm True',
  ),
  'guided one level': (
    oracles_torch.guided_shapes(32, (1,), 1, ()),
    HEADS,
    'one level',
  ),
  'guided widths': (
    oracles_torch.guided_shapes(32, (1, 2), 1, (1,))
    | {'input_blocks.3.0.in_layers.2.weight': (40, 32, 3, 3)},
    HEADS,
    'not multiples of 32 channels',
  ),
  'guided missing': (
    {k: v for k, v in GUIDED.items() if k != 'middle_block.1.qkv.bias'},
    HEADS,
    '1 missing: middle_1/qkv/bias$',
  ),
}


@pytest.mark.parametrize('case', REFUSED)
def test_refusals(case):
  shapes, given, words = REFUSED[case]
  if words is None:  # next to a refused one, one that is fine
    assert torch_to_flax.convert(zeros(shapes), **given)
    return
  with pytest.raises(WeightsError, match=words) as error:
    torch_to_flax.convert(zeros(shapes), **given)
  assert '\n' not in str(error.value)


def test_the_likely_preset_is_named():
  shapes = oracles_torch.janspiry_shapes(64, (1, 2, 4, 8, 16), 1, ())
  with pytest.raises(WeightsError, match=r'those of --preset=64_512\)$'):
    torch_to_flax.convert(zeros(shapes))


@pytest.mark.parametrize(
  ('betas', 'words'),
  [
    (np.linspace(1e-2, 0.1, 20) ** 2, '20 betas, 0.0001 to 0.01, do not lie on a line'),
    (1 / np.arange(20, 0, -1), 'no noise schedule'),  # the last one is 1
    (np.zeros(20), 'no noise schedule'),
    (np.full(20, np.nan), 'no noise schedule'),
    (BETAS[:1], 'no noise schedule'),
    (BETAS[None], 'no noise schedule'),
  ],
)
def test_other_schedules_are_refused(betas, words):
  tensors = zeros(JANSPIRY) | {'betas': np.float32(betas)}
  with pytest.raises(WeightsError, match=words):
    torch_to_flax.convert(tensors, **GIVEN)


def test_values_that_are_not_finite_are_refused():
  state = oracles_torch.random_state(JANSPIRY)
  state['mid.0.attn.out.bias'][3] = np.inf
  with pytest.raises(WeightsError, match=r'^mid.0.attn.out.bias holds values'):
    torch_to_flax.convert(state, **GIVEN)
