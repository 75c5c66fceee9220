"""Lists every option of a configuration: its default, what it may be, its meaning.

This is the one place that says so. Defaults are SR3's 64 -> 256 natural-image recipe
(arXiv:2104.07636, section 4 and Table A.1). `config` makes configurations of the list
and checks them; `core.relations` says how options go together; docs/options.md is made
from the list.
"""

from sr3_jax.runtime.values import (
  Choice,
  Ends,
  Flag,
  Name,
  Number,
  Option,
  Several,
  Text,
  Whole,
)

Section = dict[str, Option]

# Names that `core`, `data` and others have functions for; tests compare the two.
TASKS = (
  *('super_resolution', 'photo_super_resolution', 'blind_super_resolution', 'cascade'),
  *('generation', 'inpainting', 'uncropping', 'colorization', 'jpeg', 'deblurring'),
  *('denoising', 'pairs'),
)
SAMPLERS = ('ddpm', 'ddpm_posterior', 'ddim', 'dpmpp_2m', 'ddpm_learned')
SCORES = (
  *('psnr', 'ssim', 'psnr_y', 'ssim_y'),
  *('consistency', 'spectrum_db', 'colour_drift'),
)

_STEP, _STEPS = Whole(1, 10**9), Whole(0, 10**9)
_COUNT, _BATCH = Whole(1, 10**9), Whole(1, 2**20)
_SHARE, _BLUR = Number(0, 1), Number(0, 2)
_GUIDANCE = Number(0, 100)
_TEMPERATURE = Number(0, 1, above=True)
_STORED = Several(Number(-1e30, 1e30), 0, 1024)  # a value for each channel
_NETWORKS = ('inception', 'lpips_alex', 'lpips_vgg', 'dists')  # of evaluation
_SIDE = 8192  # the largest side of an image in training, pixels

TASK: Section = {  # Each option after the name is read by the tasks it belongs to.
  'name': Option(
    'super_resolution',
    Choice((*TASKS, 'mixture')),
    'what is done to a clean image, and the model has to undo (docs/tasks.md)',
  ),
  'scale': Option(4, Whole(1, 64), 'output side over input side'),
  'through': Option(
    0, Whole(0, _SIDE), 'downsample inputs to this side first, then upsample; 0: not'
  ),
  'augment_blur': Option(
    (0.4, 0.6), Ends(_BLUR), 'cascade: sigma in input pixels, half of the images'
  ),
  'augment_noise': Option(
    (0.0, 0.5), Ends(_SHARE), "cascade: share of noise in the input's amplitude"
  ),
  'masks': Option(
    'mix', Choice(('mix', 'free_form', 'rectangles')), "inpainting: 'mix' is Palette's"
  ),
  'sides': Option(
    'mix', Choice(('mix', 'one', 'all')), 'uncropping: sides that are hidden'
  ),
  'quality': Option((5, 30), Ends(Whole(1, 100)), 'JPEG: from the lowest quality'),
  'blur': Option((0.5, 3.0), Ends(Number(0, 50)), 'deblurring: sigma in pixels'),
  'motion': Option(
    (3.0, 12.0), Ends(Number(0, 200)), 'deblurring: path in pixels, half of the images'
  ),
  'noise': Option(
    (0.02, 0.3), Ends(Number(0, 10)), 'denoising: deviation, images being -1 to 1'
  ),
  'pair_scale': Option(1.0, Number(1 / 64, 64), 'pairs: target side over input side'),
  'mixture': Option(
    (), Several(Choice(TASKS)), "'mixture': tasks, equally often; repeat one for more"
  ),
}

DATA: Section = {
  'source': Option(
    'folder',
    Choice(('photos', 'folder', 'classes', 'pairs', 'arrays', 'tfds', 'hf')),
    "'photos': scikit-image's; 'classes': a folder of one folder a class; 'pairs': a "
    "folder of targets and one of inputs; 'arrays': an .npz file; 'tfds' and 'hf': "
    'datasets of TensorFlow and of Hugging Face (sr3_jax[tfds], sr3_jax[hf])',
  ),
  'path': Option(
    '',
    Text(),
    "folder (of pairs: the targets), file, or TFDS dataset; of 'hf' a saved dataset, "
    'Parquet files, or a name of the hub (owner/name)',
  ),
  'input_path': Option('', Text(), "'pairs': the folder of the inputs"),
  'split': Option('train', Text(), "of 'photos', 'arrays', 'tfds' and 'hf'"),
  'eval_path': Option('', Text(), "the path for evaluation; '': data.path"),
  'eval_input_path': Option('', Text(), "'pairs': the inputs of data.eval_path"),
  'eval_split': Option('validation', Text(), 'the split for evaluation'),
  'data_dir': Option(
    '', Text(), "where TFDS or 'hf' keeps its datasets; '': its own default"
  ),
  'subset': Option('', Text(), "'hf': a configuration of a hub dataset; '': its own"),
  'revision': Option('', Text(), "'hf': branch, tag or commit of a hub dataset"),
  'image_column': Option(
    '', Text(), "'tfds', 'hf': of images; '': 'image' or the only"
  ),
  'input_column': Option(
    '', Text(), "'tfds', 'hf': of the inputs of pairs, for task.name='pairs'"
  ),
  'label_column': Option(
    '', Text(), "'tfds', 'hf': of classes; '': 'label', or the only one of 'hf'"
  ),
  'image_size': Option(256, Whole(1, _SIDE), 'side of the clean crops, pixels'),
  'channels': Option(
    3, Whole(1, 1024), 'numbers other than 3 are read from TIFF and .npy'
  ),
  'low': Option(
    (), _STORED, "stored values that mean black, by channel; (): their type's lower end"
  ),
  'high': Option((), _STORED, 'the same for white, and the upper end'),
  'input_channels': Option(0, Whole(0, 1024), "'pairs': of inputs; 0: as channels"),
  'input_low': Option((), _STORED, "'pairs': as data.low, of the inputs"),
  'input_high': Option((), _STORED, "'pairs': as data.high, of the inputs"),
  'crop': Option(
    'center',
    Choice(('random', 'center', 'none')),
    "'center': the largest square, area-downsampled; 'none': images are square",
  ),
  'area': Option(
    'shares',
    Choice(('shares', 'pixels')),
    "pixels on the edge of an area: 'shares' of them count, as with OpenCV, or whole "
    "'pixels' by their centres, as in runs that have no such key",
  ),
  'reduce': Option(
    (1,),
    Several(Whole(1, 64), 1),
    'area-downsample by one of these before random crops',
  ),
  'flip': Option(True, Flag(), 'random left-right flips in training'),
  'rotate': Option(
    False, Flag(), 'random quarter turns too (textures, satellite images)'
  ),
  'reduced_decoding': Option(
    False, Flag(), 'faster large JPEGs in training; not quite area means'
  ),
  'workers': Option(0, Whole(0, 256), 'processes that decode; 0 uses threads'),
}

MODEL: Section = {
  'network': Option(
    'sr3',
    Choice(('sr3', 'refine', 'janspiry', 'guided')),
    "'refine': predicts once, then refines, on the grid of the downsampled image; the "
    "last two are for other projects' weights (sr3-convert)",
  ),
  'channels': Option(128, Whole(2, 8192), 'at full resolution'),
  'multipliers': Option(
    (1, 2, 4, 4, 8, 8),
    Several(Whole(1, 64), 1, 10),
    'of the channels, one for each resolution',
  ),
  'num_blocks': Option(3, Whole(1, 32), 'residual blocks at each resolution'),
  'attention_resolutions': Option(
    (16,), Several(Whole(1, _SIDE)), 'sides at which attention follows each block'
  ),
  'middle_attention': Option(
    True, Flag(), 'attention between the two halves of the network'
  ),
  'dropout': Option(0.0, Number(0, 1, below=True), 'rate'),
  'num_classes': Option(0, Whole(0, 10**6), '0: no class labels'),
  'label_dropout': Option(
    0.0, Number(0, 1, below=True), 'share of examples without label, for guidance'
  ),
  'patch': Option(
    1, Whole(1, 64), 'fold p x p pixels into channels: fast, for small machines'
  ),
  'fold': Option(
    1,
    Whole(1, 512),
    'on TPUs, pixels of a row that are folded into channels at full resolution, half '
    'as many at each lower one: a power of 2; the same model, faster with few channels',
  ),
  'predict_blocks': Option(
    8, Whole(1, 64), "residual blocks of 'refine' before its num_blocks for the noise"
  ),
  'remat': Option(
    False, Flag(), 'recompute activations: less memory, about a third slower'
  ),
  'keep': Option(
    'inputs',
    Choice(('inputs', 'convolutions')),
    "what 'remat' keeps of a block: its input, or also the result of its first "
    'convolution, so that no convolution runs again',
  ),
  'groups': Option(32, Whole(1, 1024), "in the group normalisation of 'janspiry'"),
  'affine': Option(False, Flag(), "noise level as scale and shift in 'janspiry'"),
  'num_heads': Option(4, Whole(1, 1024), "in the attention of 'guided'"),
  'upsampling': Option(
    'bicubic',
    Choice(('bicubic', 'bilinear', 'lanczos')),
    'kernel that makes x of the condition',
  ),
  'smooth_holes': Option(
    False, Flag(), 'x has a smooth filling where pixels are missing, instead of grey'
  ),
  'dtype': Option(
    'bfloat16', Choice(('float32', 'bfloat16')), 'of computation, not of parameters'
  ),
}

DIFFUSION: Section = {
  'schedule': Option('linear', Choice(('linear', 'cosine')), 'in training'),
  'num_levels': Option(2000, Whole(1, 10**6), 'T, the number of noise levels'),
  'start': Option(1e-6, Number(0, 1, above=True), 'beta_1 of the linear schedule'),
  'end': Option(1e-2, Number(0, 1, above=True), 'beta_T of the linear schedule'),
  'prediction': Option(
    'eps', Choice(('eps', 'v', 'y0')), "of the network; 'eps' is the paper's"
  ),
  'residual': Option(False, Flag(), 'model the difference to the upsampled input'),
  'y0_scale': Option(
    1.0, Number(1e-6, 1e6), 'factor on y0, to bring its spread near 1'
  ),
  'learned_variance': Option(
    False, Flag(), "of 'guided'; needs the sampler 'ddpm_learned'"
  ),
  'loss': Option('l1', Choice(('l1', 'l2')), 'absolute or squared errors'),
  'start_share': Option(
    0.0,
    Number(0, 1),
    'share of examples at level T, where sampling starts: for models of few steps',
  ),
  'perceptual': Option(
    0.0,
    Number(0, 1e6),
    'weight in the loss of LPIPS (AlexNet) between predicted and true images; its '
    'weights must be in eval.weights',
  ),
  'noise_weight': Option(
    0.0, Number(0, 100), "errors are weighted by (1 - gamma)^this; for 'y0'"
  ),
  'hole_loss': Option(True, Flag(), 'on missing pixels only, where the task has some'),
}

SAMPLER: Section = {  # All of it may be changed after training.
  'name': Option('ddpm', Choice(SAMPLERS), 'the sampler'),
  'num_steps': Option(100, Whole(1, 10**6), 'sampling steps'),
  'spacing': Option(
    'log_snr',
    Choice(('time', 'log_snr', 'cosine', 'trained')),
    'over the trained levels',
  ),
  'eta': Option(0.0, Number(0, 1), "'ddim': 0 is deterministic, 1 is 'ddpm_posterior'"),
  'temperature': Option(
    1.0, _TEMPERATURE, 'factor on the noise: less gives less detail and grain'
  ),
  'clip': Option(True, Flag(), 'clip the prediction of y0 to the image range'),
  'consistency': Option(
    False, Flag(), 'make every prediction of y0 downsample to the input'
  ),
  'guidance': Option(
    1.0, _GUIDANCE, 'how much the class counts; needs model.label_dropout'
  ),
}

TRAIN: Section = {
  'num_steps': Option(1_000_000, _STEP, 'steps of the whole training'),
  'batch_size': Option(256, _BATCH, 'over all devices'),
  'accumulate': Option(
    1, Whole(1, 2**16), 'split a batch into this many parts, to save memory'
  ),
  'optimizer': Option(
    'adam',
    Choice(('adam', 'muon')),
    "'muon': for kernels and matrices, Adam for the rest",
  ),
  'learning_rate': Option(1e-4, Number(0, 1000, above=True), 'of the optimizer'),
  'warmup_steps': Option(10_000, _STEPS, 'first steps, with a rising learning rate'),
  'decay_steps': Option(
    0, _STEPS, "last steps, with a cosine decay to zero; 0 is the paper's"
  ),
  'clip_norm': Option(1.0, Number(0, 1e9), 'global gradient norm; 0 is off'),
  'ema_decay': Option(
    0.9999,
    Number(0, 1, below=True),
    'weight of the past in the average of the weights. In the first tenth of the '
    'training it is smaller: there the new weights count 1 / (9 + steps done)',
  ),
  'log_every': Option(100, _STEP, 'steps'),
  'init_from': Option(
    '', Text(), 'a model folder or run whose weights a new run starts from'
  ),
  'distill_from': Option(
    '',
    Text(),
    'a model or run, the teacher: a new run starts from its weights and learns to take '
    "the sampler.num_steps of sampler.name='ddim' that are two of the teacher's each",
  ),
  'profile': Option(
    (),
    Ends(_STEP, optional=True),
    'first and last step of a trace in WORKDIR/profile; (): none',
  ),
  'tensorboard': Option(False, Flag(), "the same as 'tensorboard' in log.writers"),
}

LOG: Section = {
  'writers': Option(
    (),
    Several(Choice(('tensorboard', 'wandb')), 0, 2, distinct=True),
    'that get metrics and samples beside metrics.jsonl: TensorBoard, Weights & Biases '
    '(sr3_jax[tensorboard], sr3_jax[wandb])',
  ),
  'project': Option('sr3_jax', Name(), "of 'wandb'"),
  'entity': Option('', Text(), "user or team of 'wandb'; '': your default"),
  'name': Option('', Text(), "of the run in 'wandb'; '': the end of the workdir"),
}

PARALLEL: Section = {
  'strategy': Option(
    'pmap',
    Choice(('pmap', 'fsdp')),
    "'pmap': each device has the whole state; 'fsdp': a part of it",
  ),
}

PLAN: Section = {
  'topology': Option('v5e:2x4', Name(), "or several, 'v5e:4x4,h100:8'"),
  'strategies': Option(
    ('pmap', 'fsdp'),
    Several(Choice(('pmap', 'fsdp')), 1, 2, distinct=True),
    'as of parallel.strategy',
  ),
  'price': Option(0.0, Number(0, 1e9), 'of a chip for an hour'),
  'compile': Option(
    True, Flag(), 'False: count the lowered program in a minute; run nothing'
  ),
  'effort': Option(
    0.0, Number(-1, 0), 'of the compiler; -1: four times as fast, and time too long'
  ),
  'search_batch': Option(
    True, Flag(), 'the largest batch that fits; compiles several times'
  ),
}

CHECKPOINT: Section = {
  'every_steps': Option(5_000, _STEP, 'steps between two checkpoints'),
  'keep': Option(3, Whole(1, 10**6), 'the newest'),
  'keep_every': Option(0, _STEPS, 'and those at multiples of so many steps; 0: none'),
  'keep_best': Option(
    '', Choice(('', *SCORES)), "and the best by a metric of eval.every_steps; '': none"
  ),
}

EVAL: Section = {
  'every_steps': Option(50_000, _STEPS, '0: only at the end'),
  'image_size': Option(
    0, Whole(0, _SIDE), 'side of the held-out crops; 0: as in training'
  ),
  'num_images': Option(64, _COUNT, 'in the fixed set used during training'),
  'final_images': Option(1_000, _COUNT, 'at the end and by --mode=eval'),
  'order': Option(
    'spread', Choice(('spread', 'first')), 'of fewer images than there are: over all'
  ),
  'batch_size': Option(64, _BATCH, 'over all devices'),
  'max_seconds': Option(
    300.0, Number(0, 1e9), 'time budget of one evaluation during training'
  ),
  # The options below are for the final evaluation and for --mode=eval.
  'num_seeds': Option(
    1, Whole(1, 1000), 'samples of every image; more show the spread over seeds'
  ),
  'border': Option(
    0, Whole(0, _SIDE), 'pixels that PSNR and SSIM leave out at every side'
  ),
  'networks': Option(
    ('inception', 'lpips_alex', 'lpips_vgg'),
    Several(Choice(_NETWORKS), 0, len(_NETWORKS), distinct=True),
    'for FID, KID and IS; for LPIPS; for DISTS. Without weights they are left out',
  ),
  'weights': Option(
    '', Text(), "folder of their weights; '': ~/.cache/sr3_jax/weights"
  ),
  'reference': Option(
    '', Text(), "statistics for FID and KID (.npz); '': the true images"
  ),
  'reference_images': Option(
    0, Whole(0, 10**9), '--mode=reference; 0: all of the training set'
  ),
  'classifier': Option('', Text(), 'ONNX file, for error rates of labelled images'),
  'regression': Option(
    '', Text(), "run or model of a baseline; '': WORKDIR/regression"
  ),
  'save_images': Option(False, Flag(), 'write every output to WORKDIR/report/images'),
}

SWEEP: Section = {
  'num_steps': Option(
    (4, 8, 12, 16, 20, 50, 100, 1000),
    Several(Whole(1, 10**6), 1),
    'that are tried; the sampler with the last is what the others are compared with',
  ),
  'num_images': Option(64, _COUNT, 'held-out images'),
  'search_steps': Option(
    20, Whole(0, 10**6), 'up to this many steps, ranges of betas are searched too'
  ),
  'temperatures': Option((1.0,), Several(_TEMPERATURE, 1), 'that are tried'),
  'judge': Option(
    'spectrum_db',
    Choice(('spectrum_db', *_NETWORKS[1:])),
    'decides, with PSNR',
  ),
}

CASCADE: Section = {  # blur, noise, guidance, num_steps: a value for each stage, or ().
  'stages': Option(
    (),
    Several(Name(), 0, 16),
    'models, runs or hf:// addresses: the first samples images, the others upsample '
    'them. A relative path is looked up beside the workdir',
  ),
  'blur': Option(
    (), Several(_BLUR, 0, 16), "of a stage's input, sigma in its pixels; 0: none"
  ),
  'noise': Option(
    (), Several(_SHARE, 0, 16), "share of noise in the amplitude of a stage's input"
  ),
  'guidance': Option(
    (), Several(_GUIDANCE, 0, 16), "(): as the models' own configurations say"
  ),
  'num_steps': Option(
    (), Several(Whole(1, 10**6), 0, 16), "(): as the models' own configurations say"
  ),
  'images_per_class': Option(
    8, Whole(1, 2**20), 'or in all, for models without classes'
  ),
  'classes': Option(
    (), Several(Whole(0, 2046), 0, 2047, distinct=True), 'numbers of classes; (): all'
  ),
  'batch_size': Option(64, _BATCH, 'over all devices'),
  'search_blur': Option((0.0, 0.3, 0.6), Several(_BLUR, 1), '--mode=sweep tries these'),
  'search_noise': Option(
    (0.0, 0.1, 0.2, 0.4), Several(_SHARE, 1), '--mode=sweep tries these'
  ),
}

SAMPLE: Section = {
  'num_images': Option(8, Whole(1, 10**6), 'pictures of --mode=sample'),
  'num_samples': Option(3, Whole(1, 1000), 'of each image'),
}

OPTIONS: dict[str, Option | Section] = {
  'seed': Option(0, Whole(), 'of initialisation, noise, data order and sampling'),
  'method': Option(
    'sr3', Choice(('sr3', 'regression')), "'regression': a one-step predictor"
  ),
  'regression_steps': Option(
    0, _STEPS, 'first train this baseline too, to WORKDIR/regression'
  ),
  'task': TASK,
  'data': DATA,
  'model': MODEL,
  'diffusion': DIFFUSION,
  'sampler': SAMPLER,
  'train': TRAIN,
  'log': LOG,
  'parallel': PARALLEL,
  'plan': PLAN,
  'checkpoint': CHECKPOINT,
  'eval': EVAL,
  'sweep': SWEEP,
  'cascade': CASCADE,
  'sample': SAMPLE,
}
