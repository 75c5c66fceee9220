"""Every option of the program, its default and its meaning. Nothing else has defaults.

The defaults are SR3's 64 -> 256 natural-image recipe (arXiv:2104.07636, section 4 and
Table A.1). The files in configs/ take them and write only what differs.
"""

import json
from typing import Any

import ml_collections

ConfigDict = ml_collections.ConfigDict


def get_config() -> ConfigDict:
  """The default configuration, every key with its type."""
  c = ConfigDict()
  c.seed = 0  # of initialisation, noise, data order and sampling
  c.method = 'sr3'  # or 'regression': the same network as a one-step predictor
  c.regression_steps = 0  # first train this baseline too, to WORKDIR/regression

  c.task = ConfigDict()
  c.task.name = 'super_resolution'  # a key of sr3_jax.core.degradations.TASKS
  # Each of the others matters to the tasks that take an option of its name.
  c.task.scale = 4  # output side over input side
  c.task.through = 0  # side of a still smaller image that inputs are enlarged from
  c.task.augment_blur = (0.4, 0.6)  # sigma, input pixels, for half of the images
  c.task.augment_noise = (0.0, 0.5)  # share of noise in the input's amplitude
  c.task.masks = 'mix'  # of inpainting: Palette's; or 'free_form' or 'rectangles'
  c.task.sides = 'mix'  # of uncropping; or 'one' or 'all'
  c.task.quality = (5, 30)  # of JPEG: the lowest and the highest
  c.task.blur = (0.5, 3.0)  # of deblurring: sigma, pixels
  c.task.motion = (3.0, 12.0)  # of deblurring: length, pixels, for half of the images
  c.task.noise = (0.02, 0.3)  # of denoising: standard deviation, images being -1 to 1
  c.task.mixture = ()  # of 'mixture': names of tasks, equally often; repeat for more

  c.data = ConfigDict()
  # 'photos' (scikit-image's), 'folder', 'classes' (a folder of one folder a class),
  # 'arrays' (an .npz file) or 'tfds'
  c.data.source = 'folder'
  c.data.path = ''  # the folder, or the name of the TFDS dataset
  c.data.split = 'train'  # of 'photos' and 'tfds'
  c.data.eval_path = ''  # the same for evaluation; '' is data.path
  c.data.eval_split = 'validation'
  c.data.data_dir = ''  # where TFDS keeps its datasets; '' is its own default
  c.data.image_size = 256  # side of the clean crops, pixels
  c.data.channels = 3  # of images; others than 3 are read from TIFF and .npy
  c.data.low = ()  # stored values that mean black and white, one for each channel;
  c.data.high = ()  # none: the ends of the files' type of integer
  c.data.crop = 'center'  # 'random'; 'center': largest square, area-resized; 'none'
  c.data.reduce = (1,)  # before random crops, area-reduce by one of these factors
  c.data.flip = True  # random left-right flips in training
  c.data.rotate = False  # random quarter turns too (textures, satellite images)
  c.data.reduced_decoding = False  # of large JPEGs for training; not quite area means
  c.data.workers = 0  # processes that decode; 0 uses threads

  c.model = ConfigDict()
  # 'sr3'; 'janspiry' or 'guided': networks of other people's weights (sr3-convert).
  c.model.network = 'sr3'
  c.model.channels = 128
  c.model.multipliers = (1, 2, 4, 4, 8, 8)
  c.model.num_blocks = 3
  c.model.attention_resolutions = (16,)  # sides at which attention follows each block
  c.model.middle_attention = True
  c.model.dropout = 0.0
  c.model.num_classes = 0  # 0: no class labels
  c.model.label_dropout = 0.0  # share of training examples without, for guidance
  c.model.patch = 1  # fold p x p pixels into channels: fast, for small machines
  c.model.remat = False  # recompute activations: less memory, about a third slower
  c.model.groups = 32  # of the group normalisation of 'janspiry'
  c.model.affine = False  # noise level as scale and shift in 'janspiry'
  c.model.num_heads = 4  # of the attention of 'guided'
  c.model.upsampling = 'bicubic'  # of the condition to the output's size; 'bilinear'
  c.model.dtype = 'bfloat16'  # of the computation; parameters are float32

  c.diffusion = ConfigDict()
  c.diffusion.schedule = 'linear'  # of training; or 'cosine'
  c.diffusion.num_levels = 2000  # T
  c.diffusion.start = 1e-6  # beta_1 and beta_T of the linear schedule
  c.diffusion.end = 1e-2
  c.diffusion.prediction = 'eps'  # 'eps' (paper), 'v' or 'y0'
  c.diffusion.residual = False  # model the difference to the upsampled input
  c.diffusion.y0_scale = 1.0  # factor on what is modelled, to bring its spread near 0.5
  c.diffusion.learned_variance = False  # of 'guided'; needs the sampler 'ddpm_learned'
  c.diffusion.loss = 'l1'  # or 'l2'
  c.diffusion.noise_weight = 0.0  # errors count (1 - gamma)^this; for 'y0'
  c.diffusion.hole_loss = True  # on missing pixels only, where the task has some

  c.sampler = ConfigDict()
  c.sampler.name = 'ddpm'  # a key of sr3_jax.core.samplers.SAMPLERS
  c.sampler.num_steps = 100
  c.sampler.spacing = (
    'log_snr'  # over the trained levels; or another of diffusion.SPACINGS
  )
  c.sampler.eta = 0.0  # of 'ddim'
  c.sampler.temperature = 1.0  # of the noise: less gives less detail and less grain
  c.sampler.clip = True  # clip the estimate of the clean image to the image range
  c.sampler.consistency = False  # make every estimate reduce to the condition
  c.sampler.guidance = 1.0  # how much the class counts; needs model.label_dropout

  c.train = ConfigDict()
  c.train.num_steps = 1_000_000
  c.train.batch_size = 256  # over all devices
  c.train.accumulate = 1  # split a batch into this many parts, to save memory
  c.train.learning_rate = 1e-4
  c.train.warmup_steps = 10_000
  c.train.decay_steps = 0  # last steps with a cosine decay to zero; 0 is the paper's
  c.train.clip_norm = 1.0  # global gradient norm; 0 is off
  c.train.ema_decay = 0.9999  # less in the first tenth: 1 / (9 + steps done) is new
  c.train.log_every = 100  # steps
  c.train.init_from = ''  # a model folder or run whose weights a new run starts from
  c.train.profile = ()  # first and last step of a trace in WORKDIR/profile; (): none
  c.train.tensorboard = False  # write events too; needs sr3_jax[tensorboard]

  c.parallel = ConfigDict()
  # 'pmap': every device has the whole state; 'fsdp': a part of it, for large networks.
  c.parallel.strategy = 'pmap'

  c.plan = ConfigDict()  # of --mode=plan
  c.plan.topology = 'v5e:2x4'  # or several, 'v5e:4x4,h100:8'
  c.plan.strategies = ('pmap', 'fsdp')
  c.plan.price = 0.0  # of a chip for an hour
  c.plan.compile = True  # False: count the lowered program in a minute; run nothing
  c.plan.effort = 0.0  # of the compiler; -1: four times as fast, and time too long
  c.plan.search_batch = True  # the largest batch that fits; compiles several times

  c.checkpoint = ConfigDict()
  c.checkpoint.every_steps = 5_000
  c.checkpoint.keep = 3  # the newest
  c.checkpoint.keep_every = 0  # and those at multiples of so many steps; 0: none
  c.checkpoint.keep_best = ''  # and the best by a metric of eval.every_steps; '': none

  c.eval = ConfigDict()
  c.eval.every_steps = 50_000  # 0: only at the end
  c.eval.image_size = 0  # side of the held-out crops; 0: as in training
  c.eval.num_images = 64  # of the fixed set used during training
  c.eval.final_images = 1_000  # at the end and by --mode=eval
  c.eval.batch_size = 64  # over all devices
  c.eval.max_seconds = 300.0  # time budget of one evaluation during training
  # The rest is of the final evaluation and of --mode=eval.
  c.eval.num_seeds = 1  # samples of every image; more show the spread over seeds
  c.eval.border = 0  # pixels that PSNR and SSIM leave out at every side
  # For FID, KID and IS; for LPIPS. Without weights they are left out.
  c.eval.networks = ('inception', 'lpips_alex', 'lpips_vgg')
  c.eval.weights = ''  # folder of their weights; '' is ~/.cache/sr3_jax/weights
  c.eval.reference = ''  # statistics for FID and KID (.npz); '': the true images
  c.eval.reference_images = 0  # of --mode=reference; 0: all of the training set
  c.eval.classifier = ''  # ONNX file, for error rates of labelled images
  c.eval.regression = ''  # run or model of a baseline; '': WORKDIR/regression
  c.eval.save_images = False  # write every output to WORKDIR/report/images

  c.sweep = ConfigDict()
  c.sweep.num_steps = (4, 8, 12, 16, 20, 50, 100, 1000)  # the last is the yardstick's
  c.sweep.num_images = 64
  c.sweep.search_steps = 20  # up to this many, ranges of betas are searched too
  c.sweep.temperatures = (1.0,)
  c.sweep.judge = 'spectrum_db'  # what decides beside PSNR; or lpips_alex, lpips_vgg

  c.cascade = ConfigDict()
  # Models, runs or hf://: the first draws images, the others enlarge them. Relative
  # paths stand beside the workdir. One value for each stage follows, or none at all.
  c.cascade.stages = ()
  c.cascade.blur = ()  # of what a stage is given, in sigma of its pixels; 0: none
  c.cascade.noise = ()  # the same, share of noise in the amplitude
  c.cascade.guidance = ()  # none: as the models' own configurations say
  c.cascade.num_steps = ()  # the same
  c.cascade.images_per_class = 8  # or in all, of models without classes
  c.cascade.classes = ()  # numbers of classes; none: all
  c.cascade.batch_size = 64  # over all devices
  c.cascade.search_blur = (0.0, 0.3, 0.6)  # of --mode=sweep
  c.cascade.search_noise = (0.0, 0.1, 0.2, 0.4)

  c.sample = ConfigDict()
  c.sample.num_images = 8
  c.sample.num_samples = 3  # of each image
  return c


def as_json(config: ConfigDict) -> dict[str, Any]:
  """The configuration as it reads back from a JSON file."""
  return json.loads(config.to_json_best_effort())


def pick(what: str, known: dict[str, Any], name: str) -> Any:
  """known[name], or a ValueError that lists the known names."""
  if name not in known:
    raise ValueError(f'unknown {what} {name!r}; known: {", ".join(known)}')
  return known[name]
