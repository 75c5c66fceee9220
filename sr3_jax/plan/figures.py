"""Defines what plan.json holds.

Bytes, FLOPs and seconds are those of one step on one chip, unless a comment says
otherwise.
"""

from typing import Any, NotRequired, TypedDict


class Memory(TypedDict):
  """Bytes on one chip; None where they are not known."""

  arguments: int
  temporaries: int | None
  outputs: int  # without those that take the place of arguments
  code: int
  total: int  # without temporaries where these are not known
  available: int | None
  headroom: int | None


class Place(TypedDict):
  """A place in the program, with all operations that come from it."""

  source: str
  seconds: float
  flops: float
  bytes: float
  sent: float
  share: float  # of the seconds of all places
  bound: str  # 'arithmetic', 'memory' or 'network': what takes most of the time


class SliceScaling(TypedDict):
  """The step on another number of chips, each with as many images."""

  topology: str
  chips: int
  seconds: float
  efficiency: float  # images/s and chip, over those of the first slice


class TrainingPlan(TypedDict):
  """The training on one machine with one strategy.

  What follows from the time of a step is missing where a program does not fit.
  """

  topology: str
  chips: int
  strategy: str
  batch_size: int  # over all chips
  compiled: bool
  measured: bool  # whether a few steps were run; then the next two times are measured
  compile_seconds: float
  fits: bool | None  # None: not known
  memory: Memory
  model_flops: float  # over all chips, without what is computed twice
  hardware_flops: NotRequired[float]
  bytes: NotRequired[float]
  sent: NotRequired[float]
  time: NotRequired[dict[str, Any]]  # a `roofline.Time`
  step_seconds: NotRequired[float]
  mfu: NotRequired[float]  # model_flops over what the chips' peaks allow
  mfu_serial: NotRequired[float]
  images_per_second: NotRequired[float]
  hours: NotRequired[float]
  chip_hours: NotRequired[float]
  money: NotRequired[float]
  heaviest: NotRequired[list[Place]]
  weak_scaling: NotRequired[list[SliceScaling]]
  largest_batch_per_chip: NotRequired[int]
  share_of_ceiling: NotRequired[float]  # see `Plan.ceiling_flops`


class SamplerPlan(TypedDict):
  """The configured sampler on one machine; times are missing as in `TrainingPlan`."""

  topology: str
  images: int  # over all chips
  steps: int
  fits: bool | None
  memory: int
  measured: bool
  compile_seconds: float
  hardware_flops: NotRequired[float]
  seconds_per_step: NotRequired[float]
  images_per_second: NotRequired[float]
  share_of_ceiling: NotRequired[float]


class Cheapest(TypedDict):
  """The plan with the fewest chip-hours of those that fit."""

  topology: str
  strategy: str
  chip_hours: float
  money: float


class Plan(TypedDict):
  """All of plan.json."""

  batch_size: int
  num_steps: int
  parameters: int
  flops_per_image: float  # of the loss and its gradient, nothing computed twice
  price: float  # of a chip for an hour
  effort: float
  plans: list[TrainingPlan]
  samplers: list[SamplerPlan]
  cheapest: Cheapest | None
  ceiling_flops: float | None  # FLOP/s of a matrix product, if steps were run here
  machines: dict[str, dict[str, Any]]  # the `machines.Chip` of each kind
  versions: dict[str, str | None]
  config: dict[str, Any]
