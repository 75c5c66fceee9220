#!/usr/bin/env bash
# Trains on one Cloud TPU virtual machine (one host with up to 8 chips).
#
#   launch/tpu_vm.sh VERB --project=P --zone=Z --type=v5litepod-8 \
#     --config=configs/faces_16_128.py --workdir=gs://BUCKET/RUN [OPTION...] [-- FLAG...]
#
# The verbs are create, setup, run, watch, fetch and delete; all does them in this
# order. You can repeat each of them safely. For spot machines use tpu_slice.sh, which
# waits in the queue for them, also for those of one host. delete needs only --project,
# --zone and --name.
#
#   --name=sr3           name of the machine, and of the folder on it
#   --type=TYPE          v5litepod-1, -4, -8; v6e-1, -4, -8; v4-8; v5p-8
#   --runtime=VERSION    software version of the machine; default the one for its type
#   --restarts=10        how often watch restarts a run that failed
#   --cache=FOLDER       folder of compiled programs; default WORKDIR/xla-cache
#   --out=FOLDER         where fetch copies results to; default runs/NAME
#   --with-checkpoints   lets fetch copy checkpoints, too
#   --python=python3     Python of this machine that makes the plan
#   --no-plan            skips the plan
#   --no-quota           skips the check of the quota
#   --keep               lets all keep the machine
#   --dry-run            prints all commands and runs none
#
# The flags after -- go to sr3_jax.main (sr3-train), for the plan and for the run.
# shellcheck source=tpu.sh
. "$(dirname "${BASH_SOURCE[0]}")/tpu.sh"

KIND='TPU VM'
UP=READY

find_machine() {
  look_up "$1" gcloud compute tpus tpu-vm describe "${opt[name]}" "${LOCATION[@]}" \
    '--format=value(state)'
  STATE_NAME=${ANSWER:-gone}
}

machine_state() {
  find_machine READY
  case $ANSWER in
    '' | DELETING) ANSWER=none ;;
    READY) ANSWER=ready ;;
    CREATING | STARTING | RESTARTING | REPAIRING) ANSWER=waiting ;;
    *) ANSWER=gone ;;
  esac
}

set_leftover() {
  leftover="TPU VM ${opt[name]} (${opt[type]}) in ${opt[zone]}: paid by the second"
}

make_machine() {
  set_leftover
  run gcloud compute tpus tpu-vm create "${opt[name]}" "${LOCATION[@]}" \
    "--accelerator-type=${opt[type]}" "--version=$RUNTIME" --labels=made-by=sr3-jax \
    --scopes=cloud-platform
}

remove_machine() {
  run gcloud compute tpus tpu-vm delete "${opt[name]}" "${LOCATION[@]}" --quiet
}

replace_machine() {
  [[ $STATE_NAME == gone ]] || remove_machine
  make_machine
}

do_create() {
  check_offer
  plan "$GENERATION:$TOPOLOGY"
  find_machine ''
  case $ANSWER in
    '') make_machine ;;
    READY | CREATING | STARTING | RESTARTING | REPAIRING)
      set_leftover
      note "${opt[name]} exists already: $ANSWER"
      ;;
    *)
      note "${opt[name]} is $ANSWER: making another"
      replace_machine
      ;;
  esac
}

parse "$@"
[[ ${opt[spot]} == no ]] || die '--spot: launch/tpu_slice.sh asks for spot machines'
check_tpu
[[ $verb == delete || $HOSTS == 1 ]] ||
  die "--type=${opt[type]} has $HOSTS hosts: launch/tpu_slice.sh"
main
