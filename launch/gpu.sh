#!/usr/bin/env bash
# Trains on a machine with NVIDIA GPUs; one process uses all of them.
#
#   launch/gpu.sh VERB [--host=USER@MACHINE] --config=configs/faces_16_128.py \
#     --workdir=/data/RUN [OPTION...] [-- FLAG...]
#
# The verbs are create, setup, run, watch, fetch and delete; all does them in this
# order. The machine is yours: create rents nothing and only lists its GPUs. Without
# --host it is this machine. delete stops the run and removes its source, environment
# and logs from the home folder of the machine; the workdir stays.
#
#   --name=sr3           name of the run; its folder on the machine is ~/sr3_jax/NAME
#   --host=USER@MACHINE  the machine, which ssh has to reach without a password
#   --workdir=FOLDER     absolute path of a folder on the machine, or gs://BUCKET/RUN
#   --gpus=0,1           numbers of the GPUs to use; default all
#   --topology=NAME      makes a plan for such a machine, for example h100:8
#   --restarts=10        how often watch restarts a run that failed
#   --cache=FOLDER       folder of compiled programs; default ~/.cache/sr3_jax/xla
#   --out=FOLDER         where fetch copies results to; default runs/NAME
#   --with-checkpoints   lets fetch copy checkpoints, too
#   --python=python3     Python of this machine that makes the plan
#   --keep               lets all keep the folder on the machine
#   --dry-run            prints all commands and runs none
#
# The flags after -- go to sr3_jax.main (sr3-train), for the plan and for the run.
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

replace_machine() { die "$PLACE does not answer: $(complaint)"; }

set_leftover() {
  leftover="folder $(remote) in the home of $PLACE, and the run if it is going; a rented \
machine goes on costing"
}

do_create() {
  ask_workers '' 'nvidia-smi --query-gpu=index,name,memory.total --format=csv,noheader' ||
    die "$PLACE: $(complaint)"
  note "GPUs of $PLACE:"$'\n'"$ANSWER"
  plan_named
}

stop_command() { worker_script stop; }

parse "$@"
check_common
check_shell
[[ ! ${opt[gpus]} || ${opt[gpus]} =~ ^[0-9]+(,[0-9]+)*$ ]] ||
  die "--gpus=${opt[gpus]}: numbers such as 0,1"
[[ ! ${opt[gpus]} ]] || SETTINGS=("CUDA_VISIBLE_DEVICES=${opt[gpus]}")
main
