"""Installation: `pip install -e .` or, with the tests, `pip install -e '.[test]'`."""

import pathlib
import re

import setuptools

HERE = pathlib.Path(__file__).parent
VERSION = re.search(
  r"__version__ = '([^']+)'", (HERE / 'sr3_jax' / '__init__.py').read_text()
).group(1)

setuptools.setup(
  name='sr3_jax',
  version=VERSION,
  description='Diffusion super-resolution (SR3) in JAX and Flax, from laptop to pod',
  long_description=(HERE / 'README.md').read_text(),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  packages=['sr3_jax'],
  python_requires='>=3.11',
  install_requires=[
    'absl-py',
    'clu',
    'etils[epath]',
    'flax',
    'grain',
    'jax',
    'ml-collections',
    'numpy',
    'optax',
    'orbax-checkpoint',
    'pillow',
    'scikit-image',
    'tensorflow-datasets',
    'tqdm',
  ],
  extras_require={
    'cuda': ['jax[cuda13]'],
    'tpu': ['jax[tpu]', 'gcsfs'],
    'tensorboard': ['tensorflow-cpu', 'tensorboard'],
    'gcs': ['gcsfs'],
    'test': ['pytest', 'pytest-xdist', 'ruff'],
  },
)
