#!/usr/bin/env bash
# A run on one Cloud TPU virtual machine (one host, up to 8 chips).
#
#   launch/tpu_vm.sh VERB --project=P --zone=Z --type=v5litepod-8 \
#     --config=configs/faces_16_128.py --workdir=gs://BUCKET/RUN [OPTION...] [-- FLAG...]
#
# Verbs: create, setup, run, watch, fetch, delete; all does them in this order.
# Each is safe to repeat. Spot machines are tpu_slice.sh's, which waits in the queue for
# them, also for those of one host. delete wants --project, --zone and --name only.
#
#   --name=sr3           name of the machine and of the folder on it
#   --type=TYPE          v5litepod-1, -4, -8; v6e-1, -4, -8; v4-8; v5p-8
#   --runtime=VERSION    software of the machine; the one for the type
#   --restarts=10        how often watch starts again what ended badly
#   --cache=FOLDER       compiled programs; WORKDIR/xla-cache
#   --out=FOLDER         where fetch copies results to; runs/NAME
#   --with-checkpoints   fetch copies checkpoints too
#   --python=python3     the Python here that makes the plan
#   --no-plan            goes without the plan
#   --no-quota           does not ask for the quota
#   --keep               all leaves the machine
#   --dry-run            prints every command and runs none
#
# Flags after -- go to sr3_jax.main, for the plan and for the run.
# shellcheck source=tpu.sh
. "$(dirname "${BASH_SOURCE[0]}")/tpu.sh"

KIND='TPU VM'
UP=READY

find_machine() {
  look "$1" gcloud compute tpus tpu-vm describe "${opt[name]}" "${THERE[@]}" \
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

describe_left() { made="TPU VM ${opt[name]} (${opt[type]}) in ${opt[zone]}: paid by the second"; }

make_machine() {
  describe_left
  run gcloud compute tpus tpu-vm create "${opt[name]}" "${THERE[@]}" \
    "--accelerator-type=${opt[type]}" "--version=$RUNTIME" --labels=made-by=sr3-jax \
    --scopes=cloud-platform
}

remove_machine() {
  run gcloud compute tpus tpu-vm delete "${opt[name]}" "${THERE[@]}" --quiet
}

remake() {
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
      describe_left
      note "${opt[name]} exists already: $ANSWER"
      ;;
    *)
      note "${opt[name]} is $ANSWER: making it anew"
      remake
      ;;
  esac
}

parse "$@"
[[ ${opt[spot]} == no ]] || die '--spot: launch/tpu_slice.sh asks for spot machines'
check_tpu
[[ $verb == delete || $HOSTS == 1 ]] ||
  die "--type=${opt[type]} has $HOSTS hosts: launch/tpu_slice.sh"
main
