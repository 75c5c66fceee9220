"""Conversion of PyTorch weights: sizes as published, the command, files.

That a converted network computes the same: test_janspiry.py and test_guided.py.
"""

import json
import os
import re
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from sr3_jax.core.sr3 import SR3
from sr3_jax.weights import convert, hub, model_writer, torch_files, torch_to_flax
from sr3_jax.weights.released import RELEASED
from tests.support import oracles_torch, programs
from tests.support.torch_shapes import BETAS, GIVEN, HEADS, JANSPIRY, zeros

FLAGS = ['--groups=4', '--scale=4', '--image_size=16']


def _full_state():
  """As released files hold it: prefixed weights, and the twelve tables."""
  state = oracles_torch.random_state(JANSPIRY)
  state = {f'denoise_fn.{name}': tensor for name, tensor in state.items()}
  return state | oracles_torch.janspiry_buffers(BETAS)


# ----------------------------------------------------------------- released files


@pytest.mark.parametrize(
  ('preset', 'shapes', 'tensors', 'parameters', 'multiple'),
  [
    (
      '16_128',
      oracles_torch.janspiry_shapes(64, (1, 2, 4, 8, 8), 2, (3,)),
      362,
      97_807_491,
      16,
    ),
    (
      '64_512',
      oracles_torch.janspiry_shapes(64, (1, 2, 4, 8, 16), 1, ()),
      229,
      155_334_339,
      16,
    ),
    (
      '64_256_upsampler',
      oracles_torch.guided_shapes(192, (1, 1, 2, 2, 4, 4), 2, (3, 4, 5), 1000),
      567,
      311_795_910,
      32,
    ),
    (
      '128_512_upsampler',
      oracles_torch.guided_shapes(192, (1, 1, 2, 2, 4, 4), 2, (4, 5), 1000),
      537,
      308_835_270,
      32,
    ),
  ],
)
def test_released_files(preset, shapes, tensors, parameters, multiple):
  """Names and sizes as the originals count them; the network is the preset's."""
  config, params = torch_to_flax.convert(zeros(shapes), preset)
  leaves = jax.tree.leaves(params)
  assert (len(leaves), sum(leaf.size for leaf in leaves)) == (tensors, parameters)
  assert all(leaf.dtype == np.float32 for leaf in leaves)
  model = SR3.from_config(config)
  network = torch_to_flax.NETWORKS[preset]
  scale, side = RELEASED[preset]
  assert (model.scale, model.image_size) == (scale, side)
  assert network.multiple == multiple and network.has_attention
  if config.model.network == 'guided':
    network = network.clone(gammas=tuple(model.gammas.tolist()))
  assert model.network == network


def test_what_the_files_do_not_say():
  """Groups, noise levels and samplers of the originals' own settings."""
  shapes = oracles_torch.janspiry_shapes(64, (1, 2, 4, 8, 16), 1, ())
  config, _ = torch_to_flax.convert(zeros(shapes), '64_512')
  assert config.model.groups == 16
  d, s = config.diffusion, config.sampler
  assert (d.num_levels, d.start, d.end, d.loss) == (2000, 1e-6, 1e-2, 'l1')
  assert (s.name, s.num_steps, s.clip) == ('ddpm_posterior', 2000, True)
  assert (d.prediction, d.residual, d.learned_variance) == ('eps', False, False)
  assert config.model.upsampling == 'bicubic'

  shapes = oracles_torch.guided_shapes(32, (1, 2), 1, (1,), 7)
  config, _ = torch_to_flax.convert(zeros(shapes), **HEADS)
  d, s = config.diffusion, config.sampler
  assert (d.num_levels, d.start, d.end, d.loss) == (1000, 1e-4, 2e-2, 'l2')
  assert (s.name, s.num_steps, s.clip) == ('ddpm_learned', 250, True)
  assert (d.prediction, d.residual, d.learned_variance) == ('eps', False, True)
  assert (config.model.upsampling, config.model.num_classes) == ('bilinear', 7)

  shapes = oracles_torch.guided_shapes(32, (1, 2), 1, (1,), outputs=3)
  config, _ = torch_to_flax.convert(zeros(shapes), **HEADS)
  assert not config.diffusion.learned_variance and config.sampler.name == 'ddpm'
  assert config.model.num_classes == 0


def test_a_number_given_goes_before_the_presets():
  shapes = oracles_torch.janspiry_shapes(64, (1, 2, 4, 8, 8), 2, (3,), affine=True)
  config, _ = torch_to_flax.convert(zeros(shapes), '16_128', scale=4)
  assert (config.task.scale, config.model.groups, config.model.affine) == (4, 32, True)


@pytest.mark.parametrize(
  ('levels', 'blocks', 'attention'), [((1, 2, 3), 1, (0, 2)), ((2, 2), 2, ())]
)
def test_architecture_is_read_from_the_tensors(levels, blocks, attention):
  for width, shapes, hidden in (
    (8, oracles_torch.janspiry_shapes, {'groups': 8}),
    (32, oracles_torch.guided_shapes, {'num_heads': 2}),
  ):
    tensors = zeros(shapes(width, levels, blocks, attention))
    config, _ = torch_to_flax.convert(tensors, **hidden, scale=4, image_size=40)
    found = SR3.from_config(config).network
    assert (found.channels, found.num_blocks) == (width, blocks)
    assert tuple(found.multipliers) == levels and found.attention_levels == attention


def test_noise_levels_come_from_the_file():
  """To the digits in which they were once written, not those of float32."""
  config, _ = torch_to_flax.convert(
    oracles_torch.random_state(JANSPIRY) | oracles_torch.janspiry_buffers(BETAS),
    **GIVEN,
  )
  d = config.diffusion
  assert (d.num_levels, d.start, d.end) == (20, 1e-4, 2e-2)
  gammas = SR3.from_config(config).gammas
  np.testing.assert_allclose(gammas[1:], np.cumprod(1 - BETAS), rtol=1e-12)
  assert config.sampler.num_steps == 20


# ----------------------------------------------------------------------- command


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  """A file like the released ones, but small and without pickle."""
  path = tmp_path_factory.mktemp('weights') / 'I640000_E37_gen.safetensors'
  safetensors.numpy.save_file(_full_state(), path)
  return path


def _fails(argv, capsys):
  """The one line with which the command ends."""
  with pytest.raises(SystemExit) as error:
    convert.main([str(arg) for arg in argv])
  line = error.value.code
  assert isinstance(line, str) and line.startswith('error: ') and '\n' not in line
  out, said = capsys.readouterr()
  # A slow machine says meanwhile what it does.
  assert len(line) < 1000 and not out and 'error' not in said
  return line


@pytest.fixture(scope='module')
def model(source, tmp_path_factory):
  """The folder that the command makes of `source`."""
  folder = tmp_path_factory.mktemp('a') / 'faces'
  convert.main([str(source), f'--output={folder}', *FLAGS, '--license=apache-2.0'])
  return folder


def test_the_command_writes_a_model(source, model):
  loaded = hub.load(model)
  assert loaded.step == 640000
  assert 'I640000_E37_gen.safetensors' in loaded.source and 'Janspiry' in loaded.source
  assert 'license: apache-2.0' in (model / 'README.md').read_text()
  config, params = torch_to_flax.convert(torch_files.read(source), **GIVEN)
  assert loaded.model.network == SR3.from_config(config).network
  jax.tree.map(np.testing.assert_array_equal, loaded.params, params)
  weight = oracles_torch.random_state(JANSPIRY)['ups.0.res_block.res_conv.weight']
  kernel = loaded.params['ups_0']['skip']['kernel']
  np.testing.assert_array_equal(kernel, weight[:, :, 0, 0].T)
  # Sides with attention, not levels: as every other configuration has them.
  stored = json.loads((model / 'config.json').read_text())['config']
  assert stored['model']['attention_resolutions'] == [8]
  assert stored['data']['image_size'] == 16


def test_the_same_file_gives_the_same_bytes(source, model, tmp_path, capsys):
  again = tmp_path / model.name
  convert.main([str(source), '-o', str(again), *FLAGS, '--license=apache-2.0'])
  printed = capsys.readouterr().out
  count = sum(int(np.prod(shape)) for shape in JANSPIRY.values())
  assert f'{again}: {len(JANSPIRY)} tensors, {count:,} parameters' in printed
  assert printed.count('\n') == 1
  first, second = (
    {f.name: f.read_bytes() for f in o.iterdir()} for o in (model, again)
  )
  assert first == second and len(first) == 3


def test_a_model_is_exported_again(model, tmp_path, capsys):
  half = tmp_path / 'half'
  convert.main([str(model), '-o', str(half), '--dtype=bfloat16'])

  def size(folder):
    return (folder / 'model.safetensors').stat().st_size

  assert size(half) < 0.6 * size(model)
  old, new = hub.load(model), hub.load(half)
  assert old.model.network == new.model.network
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(a.astype(jnp.bfloat16), b),
    old.params,
    new.params,
  )
  capsys.readouterr()
  line = _fails([model, '-o', tmp_path / 'x', '--groups=4'], capsys)
  assert 'says itself what it is' in line


def test_mistakes_end_in_one_line(source, tmp_path, capsys):
  """And nothing is written."""
  (tmp_path / 'short.safetensors').write_bytes(source.read_bytes()[:-1])
  (tmp_path / 'text.safetensors').write_text('none of it' * 10)
  (tmp_path / 'x.onnx').write_bytes(b'')
  twice = {'downs.0.weight': np.ones(1), 'module.denoise_fn.downs.0.weight': np.ones(1)}
  safetensors.numpy.save_file(twice, tmp_path / 'twice.safetensors')
  (tmp_path / 'empty').mkdir()
  before = sorted(os.listdir(tmp_path))
  out = f'--output={tmp_path / "out"}'
  for name, words in (
    ('no.pth', 'no such file'),
    ('x.onnx', 'should end in .safetensors, .pth'),
    ('short.safetensors', 'not a whole safetensors file'),
    ('text.safetensors', 'not a whole safetensors file'),
    ('twice.safetensors', 'downs.0.weight is there twice'),
    ('empty', 'no model'),
  ):
    line = _fails([tmp_path / name, out], capsys)
    assert words in line and str(tmp_path / name) in line
  assert 'no tensor tells --groups' in _fails([source, out], capsys)
  assert 'not empty' in _fails([source, f'--output={tmp_path}', *FLAGS], capsys)
  file = f'--output={tmp_path / "x.onnx" / "model"}'
  assert 'x.onnx' in _fails([source, file, *FLAGS], capsys)
  assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize(
  'flags', [[], ['--output=o', '--groups=0'], ['--output=o', '--preset=8_64']]
)
def test_bad_flags_are_refused(flags, capsys):
  with pytest.raises(SystemExit) as error:
    convert.main(['x.pth', *flags])
  assert error.value.code == 2 and 'error: ' in capsys.readouterr().err


def test_the_help_names_everything(capsys):
  with pytest.raises(SystemExit):
    convert.main(['--help'])
  text = capsys.readouterr().out
  for word in (*RELEASED, '--groups', '--num_heads', "'sr3_jax[convert]'"):
    assert word in text
  actions = {action.dest: action for action in convert.make_parser()._actions}
  assert tuple(actions['dtype'].choices) == tuple(model_writer.DTYPES)
  assert RELEASED.keys() == torch_to_flax.NETWORKS.keys()


def test_help_needs_no_jax():
  """Neither the help nor a mistake in a flag waits for anything heavy."""
  for argument, code in (('--help', 0), ('--nonsense', 2)):
    stopped, heavy = programs.run_main('sr3_jax.weights.convert', argument)
    assert stopped == code and not heavy & {'jax', 'numpy', 'orbax', 'flax'}


def test_half_precision_is_read(tmp_path):
  state = _full_state()
  for dtype in (np.float16, jnp.bfloat16):
    half = {name: tensor.astype(dtype) for name, tensor in state.items()}
    safetensors.numpy.save_file(half, tmp_path / 'half.safetensors')
    found = torch_files.read(tmp_path / 'half.safetensors')
    name = 'mid.0.attn.out.weight'
    assert found[name].dtype == np.float32
    np.testing.assert_array_equal(found[name], half[f'denoise_fn.{name}'].astype('f4'))


# ----------------------------------------------------------------------- PyTorch


def test_without_torch_the_extra_is_named(tmp_path, monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, 'torch', None)
  (tmp_path / 'a.pth').write_bytes(b'\x80\x02')
  line = _fails([tmp_path / 'a.pth', f'--output={tmp_path / "out"}'], capsys)
  assert "pip install 'sr3_jax[convert]'" in line


def test_torch_is_never_given_a_program_to_run(tmp_path, monkeypatch, capsys):
  """Whatever the flags: weights_only."""
  asked = []

  def load(path, **options):
    asked.append(options)
    raise EOFError('Ran out of input')

  monkeypatch.setitem(sys.modules, 'torch', types.SimpleNamespace(load=load))
  for suffix in ('pth', 'pt', 'ckpt', 'bin'):
    path = tmp_path / f'a.{suffix}'
    path.write_bytes(b'\x80\x02')
    line = _fails([path, f'--output={tmp_path / "out"}'], capsys)
    assert 'cannot be read as a PyTorch file: Ran out of input' in line
  assert len(asked) == 4 and all(options['weights_only'] is True for options in asked)


@pytest.mark.parametrize('wrap', ['plain', 'module', 'state_dict', 'ema', 'half'])
def test_pytorch_files(wrap, tmp_path):
  torch = pytest.importorskip('torch')
  state = _full_state()
  truth = {name.removeprefix('denoise_fn.'): value for name, value in state.items()}
  stored = {name: torch.from_numpy(value.copy()) for name, value in state.items()}
  if wrap == 'module':
    stored = {f'module.{name}': value for name, value in stored.items()}
  elif wrap == 'state_dict':
    stored = {'state_dict': stored, 'epoch': 3, 'optimizer': {'lr': 1e-4}}
  elif wrap == 'ema':
    raw = {name: value + 1 for name, value in stored.items()}
    stored = {'model': raw, 'ema': stored}
  elif wrap == 'half':
    stored = {name: value.half() for name, value in stored.items()}
    truth = {name: value.astype('f2').astype('f4') for name, value in truth.items()}
  torch.save(stored, tmp_path / 'weights.pth')
  found = torch_files.read(tmp_path / 'weights.pth')
  assert found.keys() == truth.keys()
  for name, value in truth.items():
    assert found[name].dtype == np.float32
    np.testing.assert_array_equal(found[name], value)


def test_pytorch_files_that_are_no_weights(tmp_path, capsys):
  torch = pytest.importorskip('torch')
  trace = tmp_path / 'it_ran'

  class Program:
    def __reduce__(self):
      return os.system, (f'touch {trace}',)

  weight = torch.ones(2)
  for name, stored, words in (
    ('I8_E1_opt', {'optimizer': {}, 'iter': 8}, 'optimizer.*beside it, I8_E1_gen.pth'),
    ('program', {'a': Program()}, r'more than weights \(posix.system\)'),
    ('hidden', {'state_dict': {'a': weight}, 'x': Program()}, 'more than weights'),
    ('array', weight, 'should hold a state dict, holds a Tensor'),
    ('nothing', {}, 'should hold a state dict'),
    ('mixed', {'a': weight, 'epoch': 3}, 'tensors only; these are not: epoch'),
  ):
    path = tmp_path / f'{name}.pth'
    torch.save(stored, path)
    line = _fails([path, f'--output={tmp_path / "out"}'], capsys)
    assert re.search(words, line), line
    if name != 'array':  # an old file is a bare pickle
      torch.save(stored, path, _use_new_zipfile_serialization=False)
      assert re.search(words, _fails([path, f'--output={tmp_path / "out"}'], capsys))
  (tmp_path / 'text.pth').write_text('<html>Sign in to download</html>')
  line = _fails([tmp_path / 'text.pth', f'--output={tmp_path / "out"}'], capsys)
  assert 'weights_only=False' not in line  # PyTorch's own advice
  assert not trace.exists() and not (tmp_path / 'out').exists()
