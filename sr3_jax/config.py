"""Define every option of the program, and find the files that set them.

An option has its default and its meaning here and nowhere else. The defaults are SR3's
64 -> 256 natural-image recipe (arXiv:2104.07636, section 4 and Table A.1). A file in
configs/ starts from them and sets what its experiment needs.
"""

import json
import pathlib
import runpy
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import ml_collections

ConfigDict = ml_collections.ConfigDict
T = TypeVar('T')


def get_config() -> ConfigDict:
  """Return the default configuration, every key with its type."""
  c = ConfigDict()
  c.seed = 0  # of initialisation, noise, data order and sampling
  c.method = 'sr3'  # or 'regression': the same network as a one-step predictor
  c.regression_steps = 0  # first train this baseline too, to WORKDIR/regression
  c.task = _task()
  c.data = _data()
  c.model = _model()
  c.diffusion = _diffusion()
  c.sampler = _sampler()
  c.train = _train()
  c.parallel = _parallel()
  c.plan = _plan()
  c.checkpoint = _checkpoint()
  c.eval = _eval()
  c.sweep = _sweep()
  c.cascade = _cascade()
  c.sample = _sample()
  return c


def _task() -> ConfigDict:
  """Return what is done to a clean image, and what the model has to undo."""
  task = ConfigDict()
  task.name = 'super_resolution'  # a key of sr3_jax.core.degradations.TASKS
  # Each option below is read by the tasks that have an option of its name.
  task.scale = 4  # output side over input side
  task.through = 0  # inputs are first downsampled to this side, then upsampled; 0: not
  task.augment_blur = (0.4, 0.6)  # cascade: sigma in input pixels, half of the images
  task.augment_noise = (0.0, 0.5)  # cascade: share of noise in the input's amplitude
  task.masks = 'mix'  # inpainting: Palette's; or 'free_form' or 'rectangles'
  task.sides = 'mix'  # uncropping: or 'one' or 'all'
  task.quality = (5, 30)  # JPEG: the lowest and the highest, 1 to 100
  task.blur = (0.5, 3.0)  # deblurring: sigma in pixels
  task.motion = (3.0, 12.0)  # deblurring: length in pixels, half of the images
  task.noise = (0.02, 0.3)  # denoising: standard deviation, images being -1 to 1
  task.mixture = ()  # 'mixture': names of tasks, equally often; repeat one for more
  return task


def _data() -> ConfigDict:
  """Return where images come from, and how crops are made of them."""
  data = ConfigDict()
  # 'photos' (scikit-image's), 'folder', 'classes' (a folder of one folder a class),
  # 'arrays' (an .npz file) or 'tfds'
  data.source = 'folder'
  data.path = ''  # the folder or file, or the name of the TFDS dataset
  data.split = 'train'  # for 'photos', 'arrays' and 'tfds'
  data.eval_path = ''  # the path for evaluation; '' is data.path
  data.eval_split = 'validation'
  data.data_dir = ''  # where TFDS keeps its datasets; '' is its own default
  data.image_size = 256  # side of the clean crops, pixels
  data.channels = 3  # numbers other than 3 are read from TIFF and .npy
  data.low = ()  # stored values that mean black and white, one for each channel;
  data.high = ()  # (): the ends of the files' integer type
  data.crop = 'center'  # 'random'; 'center': largest square, area-resized; 'none'
  # Pixels on the edge of an area: 'shares' of them count, as with OpenCV, or whole
  # 'pixels' by their centres, as in runs that have no such key.
  data.area = 'shares'
  data.reduce = (1,)  # before random crops, area-downsample by one of these factors
  data.flip = True  # random left-right flips in training
  data.rotate = False  # random quarter turns too (textures, satellite images)
  data.reduced_decoding = False  # faster large JPEGs in training; not quite area means
  data.workers = 0  # processes that decode; 0 uses threads
  return data


def _model() -> ConfigDict:
  """Return the network."""
  model = ConfigDict()
  # 'sr3'; 'janspiry' or 'guided': networks of other projects' weights (sr3-convert).
  model.network = 'sr3'
  model.channels = 128  # at full resolution
  model.multipliers = (1, 2, 4, 4, 8, 8)  # of the channels, one for each resolution
  model.num_blocks = 3  # residual blocks at each resolution
  model.attention_resolutions = (16,)  # sides at which attention follows each block
  model.middle_attention = True  # between the two halves of the network
  model.dropout = 0.0  # rate, 0 to 1
  model.num_classes = 0  # 0: no class labels
  model.label_dropout = 0.0  # share of training examples without label, for guidance
  model.patch = 1  # fold p x p pixels into channels: fast, for small machines
  model.remat = False  # recompute activations: less memory, about a third slower
  model.groups = 32  # in the group normalisation of 'janspiry'
  model.affine = False  # noise level as scale and shift in 'janspiry'
  model.num_heads = 4  # in the attention of 'guided'
  model.upsampling = 'bicubic'  # of the condition to the output's size; or 'bilinear'
  model.dtype = 'bfloat16'  # of the computation; parameters are float32
  return model


def _diffusion() -> ConfigDict:
  """Return the noise schedule, what the network predicts, and the loss."""
  diffusion = ConfigDict()
  diffusion.schedule = 'linear'  # in training; or 'cosine'
  diffusion.num_levels = 2000  # T
  diffusion.start = 1e-6  # beta_1 and beta_T of the linear schedule
  diffusion.end = 1e-2
  diffusion.prediction = 'eps'  # 'eps' (paper), 'v' or 'y0'
  diffusion.residual = False  # model the difference to the upsampled input
  diffusion.y0_scale = 1.0  # factor on what is modelled, to bring its spread near 1
  diffusion.learned_variance = False  # of 'guided'; needs the sampler 'ddpm_learned'
  diffusion.loss = 'l1'  # or 'l2'
  diffusion.noise_weight = 0.0  # errors are weighted by (1 - gamma)^this; for 'y0'
  diffusion.hole_loss = True  # on missing pixels only, where the task has some
  return diffusion


def _sampler() -> ConfigDict:
  """Return how a trained model samples; all of it may be changed after training."""
  sampler = ConfigDict()
  sampler.name = 'ddpm'  # a key of sr3_jax.core.samplers.SAMPLERS
  sampler.num_steps = 100
  # Over the trained levels; a key of sr3_jax.core.diffusion.SPACINGS.
  sampler.spacing = 'log_snr'
  sampler.eta = 0.0  # 'ddim': 0 is deterministic, 1 is 'ddpm_posterior'
  sampler.temperature = 1.0  # factor on the noise: less gives less detail and grain
  sampler.clip = True  # clip the prediction of y0 to the image range
  sampler.consistency = False  # make every prediction of y0 downsample to the input
  sampler.guidance = 1.0  # how much the class counts; needs model.label_dropout
  return sampler


def _train() -> ConfigDict:
  """Return length, batch and optimiser of the training."""
  train = ConfigDict()
  train.num_steps = 1_000_000
  train.batch_size = 256  # over all devices
  train.accumulate = 1  # split a batch into this many parts, to save memory
  train.learning_rate = 1e-4
  train.warmup_steps = 10_000
  train.decay_steps = 0  # last steps with a cosine decay to zero; 0 is the paper's
  train.clip_norm = 1.0  # global gradient norm; 0 is off
  # Weight of the past in the average of the weights. In the first tenth of the training
  # it is smaller: there the new weights count 1 / (9 + steps done).
  train.ema_decay = 0.9999
  train.log_every = 100  # steps
  train.init_from = ''  # a model folder or run whose weights a new run starts from
  train.profile = ()  # first and last step of a trace in WORKDIR/profile; (): none
  train.tensorboard = False  # write events too; needs sr3_jax[tensorboard]
  return train


def _parallel() -> ConfigDict:
  """Return how the state is spread over devices."""
  parallel = ConfigDict()
  # 'pmap': every device has the whole state; 'fsdp': a part of it, for large networks.
  parallel.strategy = 'pmap'
  return parallel


def _plan() -> ConfigDict:
  """Return what --mode=plan plans for."""
  plan = ConfigDict()
  plan.topology = 'v5e:2x4'  # or several, 'v5e:4x4,h100:8'
  plan.strategies = ('pmap', 'fsdp')
  plan.price = 0.0  # of a chip for an hour
  plan.compile = True  # False: count the lowered program in a minute; run nothing
  plan.effort = 0.0  # of the compiler; -1: four times as fast, and time too long
  plan.search_batch = True  # the largest batch that fits; compiles several times
  return plan


def _checkpoint() -> ConfigDict:
  """Return when checkpoints are written, and which are kept."""
  checkpoint = ConfigDict()
  checkpoint.every_steps = 5_000
  checkpoint.keep = 3  # the newest
  checkpoint.keep_every = 0  # and those at multiples of so many steps; 0: none
  checkpoint.keep_best = ''  # and the best by a metric of eval.every_steps; '': none
  return checkpoint


def _eval() -> ConfigDict:
  """Return what is measured, on how many images, with which networks."""
  evaluation = ConfigDict()
  evaluation.every_steps = 50_000  # 0: only at the end
  evaluation.image_size = 0  # side of the held-out crops; 0: as in training
  evaluation.num_images = 64  # in the fixed set used during training
  evaluation.final_images = 1_000  # at the end and by --mode=eval
  evaluation.order = 'spread'  # fewer images than there are: over all; or the 'first'
  evaluation.order = 'spread'  # fewer images than there are: over all; or the 'first'
  evaluation.batch_size = 64  # over all devices
  evaluation.max_seconds = 300.0  # time budget of one evaluation during training
  # The options below are for the final evaluation and for --mode=eval.
  evaluation.num_seeds = 1  # samples of every image; more show the spread over seeds
  evaluation.border = 0  # pixels that PSNR and SSIM leave out at every side
  # For FID, KID and IS; for LPIPS. Without weights they are left out.
  evaluation.networks = ('inception', 'lpips_alex', 'lpips_vgg')
  evaluation.weights = ''  # folder of their weights; '' is ~/.cache/sr3_jax/weights
  evaluation.reference = ''  # statistics for FID and KID (.npz); '': the true images
  evaluation.reference_images = 0  # --mode=reference; 0: all of the training set
  evaluation.classifier = ''  # ONNX file, for error rates of labelled images
  evaluation.regression = ''  # run or model of a baseline; '': WORKDIR/regression
  evaluation.save_images = False  # write every output to WORKDIR/report/images
  return evaluation


def _sweep() -> ConfigDict:
  """Return which samplers --mode=sweep tries, and what decides between them."""
  sweep = ConfigDict()
  # The sampler with the last number of steps is what the others are compared with.
  sweep.num_steps = (4, 8, 12, 16, 20, 50, 100, 1000)
  sweep.num_images = 64
  sweep.search_steps = 20  # up to this many steps, ranges of betas are searched too
  sweep.temperatures = (1.0,)
  sweep.judge = 'spectrum_db'  # decides beside PSNR; or 'lpips_alex', 'lpips_vgg'
  return sweep


def _cascade() -> ConfigDict:
  """Return the stages of a cascade, and how each samples."""
  cascade = ConfigDict()
  # Models, runs or hf:// addresses: the first samples images, the others upsample them.
  # A relative path is looked up beside the workdir.
  cascade.stages = ()
  # One value for each stage, or () for none at all.
  cascade.blur = ()  # of a stage's input, sigma in its pixels; 0: none
  cascade.noise = ()  # share of noise in the amplitude of a stage's input
  cascade.guidance = ()  # (): as the models' own configurations say
  cascade.num_steps = ()  # (): as the models' own configurations say
  cascade.images_per_class = 8  # or in all, for models without classes
  cascade.classes = ()  # numbers of classes; (): all
  cascade.batch_size = 64  # over all devices
  cascade.search_blur = (0.0, 0.3, 0.6)  # --mode=sweep tries these
  cascade.search_noise = (0.0, 0.1, 0.2, 0.4)
  return cascade


def _sample() -> ConfigDict:
  """Return how many pictures --mode=sample writes."""
  sample = ConfigDict()
  sample.num_images = 8
  sample.num_samples = 3  # of each image
  return sample


def as_json(config: ConfigDict) -> dict[str, Any]:
  """Return the configuration as it reads back from a JSON file."""
  return json.loads(config.to_json_best_effort())


def check_name(what: str, known: Iterable[str], name: str) -> str:
  """Return a name that the option `what` can have.

  Raises:
    ValueError: an unknown name; the message lists the known ones.
  """
  if name not in known:
    raise ValueError(f'unknown {what} {name!r}; known: {", ".join(known)}')
  return name


def pick(what: str, known: Mapping[str, T], name: str) -> T:
  """Return known[name]; arguments and errors are those of `check_name`."""
  return known[check_name(what, known, name)]


def config_names() -> list[str]:
  """Return the names of the configurations that come with the program, sorted.

  A name is a path in configs/ without its ending: 'quickstart', 'small/photo_x4'.
  """
  folder = _configs()
  paths = folder.rglob('[!_]*.py')
  return sorted(path.relative_to(folder).with_suffix('').as_posix() for path in paths)


def find_config(name: str) -> str:
  """Return the path of a configuration file that is given by path or by name.

  A name is one of `config_names` (also written as its path in the source tree,
  configs/NAME.py, from any folder). An argument for the file may follow after a colon,
  as in 'palette_256:inpainting'; it is returned with the path.

  Raises:
    ValueError: there is neither such a file nor such a name.
  """
  path, colon, argument = name.partition(':')
  if not pathlib.Path(path).is_file():
    key = path.removeprefix('configs/').removesuffix('.py')
    if key not in config_names():
      raise ValueError(f'no file and no configuration {path!r}; known: {_listing()}')
    path = _configs() / f'{key}.py'
  return f'{path}{colon}{argument}'


def _listing() -> str:
  """Return the known names in a line, those of a folder together."""
  folders: dict[str, list[str]] = {}
  for name in config_names():
    folder, _, last = name.rpartition('/')
    folders.setdefault(folder, []).append(last)
  top = ', '.join(folders.pop('', ()))
  rest = (f'in {folder}/: {", ".join(names)}' for folder, names in folders.items())
  return '; '.join([top, *rest])


def load_config(name: str) -> ConfigDict:
  """Return the configuration that a path or a name stands for, as in `find_config`.

  Raises:
    ValueError: there is no such configuration, or it refuses its argument.
  """
  path, colon, argument = find_config(name).partition(':')
  make = runpy.run_path(path)['get_config']
  return make(argument) if colon else make()


def _configs() -> pathlib.Path:
  """Return the folder of the configurations: in a wheel's package, or beside it."""
  package = pathlib.Path(__file__).resolve().parent
  inside = package / 'configs'
  return inside if inside.is_dir() else package.parent / 'configs'
