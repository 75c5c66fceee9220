#!/usr/bin/env bash
# A run on a machine with NVIDIA GPUs; one process drives all of them.
#
#   launch/gpu.sh VERB [--host=USER@MACHINE] --config=configs/faces_16_128.py \
#     --workdir=/data/RUN [OPTION...] [-- FLAG...]
#
# Verbs: create, setup, run, watch, fetch, delete; all does them in this order.
# create rents nothing: it looks at the machine, which is yours. Without --host it is
# this one. delete ends the run and removes its source, environment and logs from the
# home folder of the machine; the workdir stays.
#
#   --name=sr3           name of the folder ~/sr3_jax/NAME on the machine
#   --host=USER@MACHINE  reached by ssh, without a password
#   --workdir=FOLDER     absolute, on the machine; or gs://BUCKET/RUN
#   --gpus=0,1           these only; all
#   --topology=NAME      makes the plan for such a machine, for example h100:8
#   --restarts=10        how often watch starts again what ended badly
#   --cache=FOLDER       compiled programs; ~/.cache/sr3_jax/xla of the machine
#   --out=FOLDER         where fetch copies results to; runs/NAME
#   --with-checkpoints   fetch copies checkpoints too
#   --python=python3     the Python here that makes the plan
#   --keep               all leaves the folder on the machine
#   --dry-run            prints every command and runs none
#
# Flags after -- go to sr3_jax.main, for the plan and for the run.
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=machines.sh
. "$(dirname "${BASH_SOURCE[0]}")/machines.sh"
# shellcheck source=shell.sh
. "$(dirname "${BASH_SOURCE[0]}")/shell.sh"

opt+=([gpus]='' [topology]='')
HOSTS=1
EXTRA=cuda
SETTINGS=()
MULTIHOST=()

machine_state() {
  ANSWER=ready
  STATE_NAME=ready
}

remake() { die "$PLACE does not answer: $(complaint)"; }

describe_left() {
  made="folder $(remote) in the home of $PLACE, and the run if it is going; a rented \
machine goes on costing"
}

do_create() {
  ask_workers '' 'nvidia-smi --query-gpu=index,name,memory.total --format=csv,noheader' ||
    die "$PLACE: $(complaint)"
  note "GPUs of $PLACE:"$'\n'"$ANSWER"
  plan_named
}

stop_text() { worker stop; }

parse "$@"
check_common
check_shell
[[ ! ${opt[gpus]} || ${opt[gpus]} =~ ^[0-9]+(,[0-9]+)*$ ]] ||
  die "--gpus=${opt[gpus]}: numbers such as 0,1"
[[ ! ${opt[gpus]} ]] || SETTINGS=("CUDA_VISIBLE_DEVICES=${opt[gpus]}")
main
