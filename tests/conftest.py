"""Strict switches, eight virtual CPU devices, and what several test modules share.

Must run before JAX starts: pytest imports conftest.py before any test module.
"""

import dataclasses
import importlib.metadata
import os
import pathlib
from typing import Any

# Tests compile much and run little: without LLVM's optimisations a network compiles in
# a third of the time, and by XLA's older emitters in half of that. XLA's own passes,
# which decide what is computed, stay on. A busy machine keeps a virtual device waiting
# for longer than the 40 s of default.
os.environ['XLA_FLAGS'] = (
  os.environ.get('XLA_FLAGS', '')
  + ' --xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0'
  + ' --xla_cpu_parallel_codegen_split_count=1'
  + ' --xla_cpu_collective_call_terminate_timeout_seconds=600'
)
# JAX 0.12, which needs Python 3.12, has no older emitters; an unknown flag ends it.
if importlib.metadata.version('jaxlib').startswith('0.10.'):
  os.environ['XLA_FLAGS'] += ' --xla_cpu_use_fusion_emitters=false'

import jax
import pytest

# Checks in these fail as readably as in test modules.
pytest.register_assert_rewrite('tests.support')

# A silent broadcast between ranks is nearly always a bug.
jax.config.update('jax_numpy_rank_promotion', 'raise')


@pytest.fixture(scope='session')
def compile_cache(tmp_path_factory) -> pathlib.Path:
  """A folder of compiled programs, for this process and those that tests start."""
  folder = tmp_path_factory.getbasetemp()
  if os.environ.get('PYTEST_XDIST_WORKER'):
    folder = folder.parent  # the workers share it
  folder = folder / 'xla'
  jax.config.update('jax_compilation_cache_dir', str(folder))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  # JAX looks at these settings once, and tests before may have compiled something.
  jax.experimental.compilation_cache.compilation_cache.reset_cache()
  return folder


@dataclasses.dataclass(frozen=True)
class Run:
  """A finished training run.

  Attributes:
    config: of the run.
    workdir: of the run.
    state: as `train` returned it.
    compiled: name of every program compiled -> the steps done at that moment.
  """

  config: Any
  workdir: pathlib.Path
  state: Any
  compiled: dict[str, list[int]]


@pytest.fixture(scope='session')
def trained(compile_cache, tmp_path_factory) -> Run:
  """An undisturbed run of tests/support/runs.py on eight devices. Read only."""
  from sr3_jax.runtime import progress
  from sr3_jax.training import train
  from tests.support import runs

  steps = [0]
  compiled: dict[str, list[int]] = {}

  def note(before: int, names: list[str]) -> None:
    for name in names:
      compiled.setdefault(name, []).append(before)
    names.clear()

  update = progress.Progress.update

  def noting(self, step, **values):
    note(steps[0], names)
    steps[0] = step
    update(self, step, **values)

  config, workdir = runs.get_config(), tmp_path_factory.mktemp('trained')
  with pytest.MonkeyPatch.context() as patch, runs.compilations() as names:
    patch.setattr(progress.Progress, 'update', noting)
    state = train.train(config, workdir)
    note(steps[0], names)
  return Run(config, workdir, state, compiled)


@pytest.fixture(scope='session')
def hub_models(tmp_path_factory):
  """The run and the folder of support/model_folders.py, made once. Read only."""
  from tests.support import model_folders

  make = tmp_path_factory.mktemp
  return model_folders.make(make('runs') / 'run', make('models') / 'photos4x')
