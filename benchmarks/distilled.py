r"""Measures a student of N steps beside its teacher in 2 N and in N steps.

  python benchmarks/distilled.py --student=runs/quickstart_8 --num_images=64
  python benchmarks/distilled.py --student=runs/face_2 --data=HELD_OUT

The student is a run or model with `train.distill_from`, which names the teacher
(--teacher, if it lies elsewhere). All three restore the same held-out images of the
student's configuration from the same noise, so that their outputs can be compared: the
last column is the PSNR of an output to the teacher's in 2 N steps.
"""

import functools

import jax
import numpy as np
from absl import app, flags

from sr3_jax.core import samplers
from sr3_jax.data import input_pipeline
from sr3_jax.metrics import feature_nets, image_metrics
from sr3_jax.runtime import text
from sr3_jax.weights import hub

FLAGS = flags.FLAGS
flags.DEFINE_string('student', None, 'Run or model folder.', required=True)
flags.DEFINE_string('teacher', '', 'Its teacher; default: as its configuration says.')
flags.DEFINE_string('data', '', 'Folder of held-out images, if not the configured one.')
flags.DEFINE_string('weights', '', 'Folder of the weights of LPIPS.')
flags.DEFINE_integer('num_images', 61, 'Held-out images.')


def outputs(
  loaded: hub.Loaded, steps: int, images: np.ndarray, options: dict
) -> np.ndarray:
  """Restore the inputs of uint8 images [B, S, S, 3] in steps of DDIM: [B, S, S, 3]."""
  model, key = loaded.model, jax.random.key(0)
  keys = samplers.example_keys(key, len(images))
  options = options | {'num_steps': steps}
  gammas, table = samplers.make_trajectory(model.gammas, **options)
  restore = jax.jit(functools.partial(model.restore, coefficients=table, gammas=gammas))
  condition = jax.jit(lambda hr: model.degrade(keys, model.to_float(hr)))(images)
  return np.asarray(restore(loaded.params, keys, condition))


def main(argv: list[str]) -> None:
  """Print the table."""
  del argv
  student = hub.load(FLAGS.student)
  config = student.config
  teacher = hub.load(FLAGS.teacher or config.train.distill_from)
  if FLAGS.data:
    config.data.eval_path = FLAGS.data
  held = input_pipeline.evaluation_data(config, FLAGS.num_images)
  images = np.concatenate([batch['image'][batch['mask'] > 0] for batch in held])
  nets, _ = feature_nets.load_nets(
    ['lpips_alex', 'lpips_vgg'], FLAGS.weights, images.shape[1]
  )
  options = samplers.trajectory_options(config.sampler)
  count = config.sampler.num_steps
  rows = {
    f'teacher, {2 * count} steps': outputs(teacher, 2 * count, images, options),
    f'teacher, {count} steps': outputs(teacher, count, images, options),
    f'student, {count} steps': outputs(student, count, images, options),
  }
  truth = np.asarray(student.model.to_float(images))
  first, *_ = rows.values()
  table = [['', 'PSNR dB', *nets, 'PSNR to the first']]
  for name, image in rows.items():
    found = [image_metrics.psnr(image, truth)]
    found += [net.apply(net.params, image, truth) for net in nets.values()]
    found += [image_metrics.psnr(image, first)]
    table.append([name, *(f'{np.mean(np.asarray(column)):.3f}' for column in found)])
  print(f'{len(images)} images')
  print('\n'.join(text.align(table)))


if __name__ == '__main__':
  app.run(main)
