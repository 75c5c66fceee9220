"""Restores pictures: `sr3-upscale INPUT... --output=DIR`.

The command only: upscale_options.py says what it takes, folders.py finds files, jobs.py
what is to be done with them, batch.py does it, pipeline.py restores. Nothing heavy is
imported before the options are read.
"""

import argparse
import pathlib
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from sr3_jax.runtime.cli import Parser
from sr3_jax.upscale.options import check, make_parser


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code.

  Args:
    argv: arguments, without the name of the program; None takes the process's.

  Raises:
    SystemExit: --help or a mistake, with the code.
  """
  parser = make_parser()
  # Options may stand between inputs, as in other commands.
  args = parser.parse_intermixed_args(argv)
  inputs = args.inputs + args.input
  check(parser, args, inputs)
  try:
    return _run(parser, args, inputs)
  except KeyboardInterrupt:
    line = 'interrupted; the same command goes on with what is left'
    # In a terminal the progress line stands here.
    print('\n' * sys.stderr.isatty() + line, file=sys.stderr)
    return 130


def load(args: argparse.Namespace) -> Any:
  """The `pipeline.Upscaler` that the options describe."""
  from absl import logging

  from sr3_jax.restoration import upscaler as restoration_upscaler
  from sr3_jax.weights import hub

  return restoration_upscaler.Upscaler(
    hub.load(args.model),
    steps=args.steps,
    sampler=args.sampler,
    temperature=args.temperature,
    tile=args.tile,
    tile_pad=args.tile_pad,
    seed=args.seed,
    consistency=args.consistency,
    expand=args.expand,
    blur=args.blur,
    noise=args.noise,
    guidance=args.guidance,
    on_note=logging.info,
  )


def _run(parser: Parser, args: argparse.Namespace, inputs: Sequence[str]) -> int:
  from sr3_jax.images import raster_codec
  from sr3_jax.upscale import files as upscale_files
  from sr3_jax.upscale import jobs
  from sr3_jax.upscale import masks as upscale_masks
  from sr3_jax.upscale import run as upscale_run

  output = None if args.output == '-' else pathlib.Path(args.output)
  mask = args.mask
  if mask not in (None, upscale_masks.ALPHA):
    mask = pathlib.Path(mask)
    if not mask.exists():
      parser.error(f'--mask={mask}: no such file or folder')

  def is_ours(file: pathlib.Path, root: pathlib.Path) -> bool:
    if upscale_masks.is_mask(file, root, mask):
      return True
    # In a folder inside of the input's all is; elsewhere what carries our settings.
    if output is None or not file.resolve().is_relative_to(output.resolve()):
      return False
    inside = output.resolve() != root.resolve()
    inside &= output.resolve().is_relative_to(root.resolve())
    return inside or raster_codec.metadata(file) is not None

  sources, missing = upscale_files.find(inputs, is_ours)
  if not sources:
    parser.error('; '.join(f'{name}: {reason}' for name, reason in missing.items()))
  if output is None and len(sources) > 1:
    parser.error(f'--output=- takes one picture, not {len(sources)}')
  stdin = sys.stdin.buffer.read() if upscale_files.STDIN in inputs else None
  if output is not None:
    _check_folder(parser, output)

  from absl import flags, logging

  from sr3_jax.runtime import devices as runtime_devices
  from sr3_jax.runtime import process_log

  flags.FLAGS.mark_as_parsed()  # else absl warns that it doesn't know its own
  process_log.setup()
  runtime_devices.cache_programs(args.cache)
  options = jobs.Options(
    output=output,
    suffix=args.suffix,
    ext=args.ext,
    outscale=args.outscale,
    num_samples=args.num_samples,
    spread=args.spread,
    compare=args.compare,
    label=args.label,
    mask=mask,
    overwrite=args.overwrite,
  )
  try:
    upscaler = load(args)
    upscaler.check(args.outscale, args.label, mask is not None)
  except (ValueError, OSError) as error:  # of hub, checkpoint and pipeline
    parser.error(str(error))
  if not raster_codec.needs_rasters(upscaler.channels, upscaler.value_range):
    # Arrays among pictures are something else; one that is named is meant.
    named = lambda source: source.path is None or source.name in inputs
    plain = [s for s in sources if named(s) or s.place.suffix.lower() != '.npy']
    sources = plain or sources
  todo, skipped, failed = jobs.plan(upscaler, options, sources, stdin)
  failed.update(missing)
  if todo:
    upscaler.reserve([job.size for job in todo], args.outscale)
    logging.info(_announcement(upscaler, args, todo))
    logging.info(_memory(upscaler, args, todo[0].size))
    failed.update(upscale_run.run(upscaler, options, todo))
  for name, reason in failed.items():
    print(f'failed: {name}: {reason}', file=sys.stderr)
  done = len(sources) + len(missing) - skipped - len(failed)
  line = f'{done} done, {skipped} skipped, {len(failed)} failed'
  print(line, file=sys.stderr if output is None else sys.stdout)
  return 1 if failed else 0


def _announcement(upscaler: Any, args: argparse.Namespace, todo: Sequence[Any]) -> str:
  """What is going to be done, with what."""
  import jax

  settings, devices = upscaler.settings(args.outscale), jax.local_devices()
  height, width = todo[0].size
  scale = settings['outscale']
  what = settings['task'] if scale == 1 else f'{scale:g} times larger'
  return (
    f'{len(todo)} picture{"s" * (len(todo) > 1)}, up to {width} x {height} pixels, '
    f'{what}; {settings["model"]} '
    f'({settings["weights"]}), {settings["sampler"]}, {upscaler.num_steps} steps; '
    f'{len(devices)} x {devices[0].device_kind}'
  )


def _memory(upscaler: Any, args: argparse.Namespace, size: tuple[int, int]) -> str:
  """What the largest picture needs."""
  needed, free = upscaler.memory(*size, args.outscale, args.label)
  line = f'memory: {needed / 1e9:.2f} GB for the largest'
  if free is None:
    return line
  line += f', {free / 1e9:.2f} GB free'
  return line if needed <= free else f'{line}: smaller tiles (--tile) need less'


def _check_folder(parser: Parser, folder: pathlib.Path) -> None:
  """Makes a folder and writes into it, so that hours of work have a place."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    parser.error(f'--output={folder}: {error.strerror or error}')


if __name__ == '__main__':
  sys.exit(main())
