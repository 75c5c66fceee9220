"""Measures how well a classifier reads 4x outputs: the paper's Table 3.

The first 1,000 validation images are downsampled to a width of 56 pixels, upsampled to
64 (bicubic), taken to 256 by the model of imagenet_64_256.py, downsampled to 224 and
given to a ResNet-50. The report has top-1 and top-5 error rates of every method, those
of the true images (row 'truth') and the paper's: 0.252 / 0.080 for the originals,
0.383 / 0.173 for regression, 0.317 / 0.120 for SR3. The paper does not say how its
56-pixel crops are cut; here they are the largest central square. Any ONNX classifier of
ImageNet's 1,000 classes will do.

  sr3-train --config=imagenet_56_224 --mode=eval \
    --workdir=runs/imagenet_64_256 --config.eval.classifier=resnet50.onnx
"""

from sr3_jax.config import ConfigDict, load_config


def get_config() -> ConfigDict:
  """Return the recipe of the trained model, with other inputs."""
  c = load_config('imagenet_64_256')
  c.task.through = 56
  c.data.workers = 0  # a thousand images need no processes of their own
  c.eval.final_images = 1_000
  c.eval.order = 'first'
  c.eval.networks = ()
  return c
