"""Settings of JAX for all tests, and fixtures that several test modules share.

The tests run on eight virtual CPU devices. These settings must be made before JAX
starts; pytest imports conftest.py before any test module.
"""

import dataclasses
import importlib.metadata
import os
import pathlib
from typing import Any

# Tests spend most of their time on compilation. Without LLVM's optimisations a network
# compiles in a third of the time, and with XLA's older emitters in half of that. XLA's
# own passes, which decide what is computed, stay on. On a busy machine a virtual
# device may wait longer than the default of 40 s.
os.environ['XLA_FLAGS'] = (
  os.environ.get('XLA_FLAGS', '')
  + ' --xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0'
  + ' --xla_cpu_parallel_codegen_split_count=1'
  + ' --xla_cpu_collective_call_terminate_timeout_seconds=600'
)
# JAX 0.12, which needs Python 3.12, has no older emitters, and an unknown flag ends the
# process.
if importlib.metadata.version('jaxlib').startswith('0.10.'):
  os.environ['XLA_FLAGS'] += ' --xla_cpu_use_fusion_emitters=false'

import jax
import pytest

# Failing assertions in these modules are explained as those of test modules are.
pytest.register_assert_rewrite('tests.support')

# Broadcasting between arrays of different ranks is nearly always a bug.
jax.config.update('jax_numpy_rank_promotion', 'raise')


@pytest.fixture(scope='session')
def compile_cache(tmp_path_factory) -> pathlib.Path:
  """Return the folder of compiled programs of this process and of those it starts."""
  folder = tmp_path_factory.getbasetemp()
  if os.environ.get('PYTEST_XDIST_WORKER'):
    folder = folder.parent  # all workers share this one
  folder = folder / 'xla'
  jax.config.update('jax_compilation_cache_dir', str(folder))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  # JAX reads these settings at the first compilation, which may have been earlier.
  jax.experimental.compilation_cache.compilation_cache.reset_cache()
  return folder


@dataclasses.dataclass(frozen=True)
class Run:
  """A finished training run.

  Attributes:
    config: of the run.
    workdir: of the run.
    state: as `train` returned it.
    compiled: for the name of every compiled program, the steps done at that moment.
  """

  config: Any
  workdir: pathlib.Path
  state: Any
  compiled: dict[str, list[int]]


@pytest.fixture(scope='session')
def trained(compile_cache, tmp_path_factory) -> Run:
  """Train tests/support/runs.py on eight devices without interruption. Read only."""
  from sr3_jax.runtime import progress
  from sr3_jax.training import train
  from tests.support import runs

  steps = [0]
  compiled: dict[str, list[int]] = {}

  def record(steps_done: int, names: list[str]) -> None:
    for name in names:
      compiled.setdefault(name, []).append(steps_done)
    names.clear()

  update = progress.Progress.update

  def recording_update(self, step, **values):
    record(steps[0], names)
    steps[0] = step
    update(self, step, **values)

  config, workdir = runs.get_config(), tmp_path_factory.mktemp('trained')
  with pytest.MonkeyPatch.context() as patch, runs.compilations() as names:
    patch.setattr(progress.Progress, 'update', recording_update)
    state = train.train(config, workdir)
    record(steps[0], names)
  return Run(config, workdir, state, compiled)


@pytest.fixture(scope='session')
def hub_models(tmp_path_factory):
  """Make the run and the model folder of support/model_folders.py. Read only."""
  from tests.support import model_folders

  make = tmp_path_factory.mktemp
  return model_folders.make(make('runs') / 'run', make('models') / 'photos4x')
