#!/usr/bin/env bash
# A run on a Cloud TPU slice of one or many hosts, asked for as a queued resource.
#
#   launch/tpu_slice.sh VERB --project=P --zone=Z --type=v5litepod-16 \
#     --config=configs/imagenet_64_256.py --workdir=gs://BUCKET/RUN [OPTION...] [-- FLAG...]
#
# Verbs: create, setup, run, watch, fetch, delete; all does them in this order.
# Each is safe to repeat. create waits in Google's queue until the slice is there. When
# spot capacity is taken away, watch asks for another slice and the run goes on from its
# newest checkpoint. delete wants --project, --zone and --name only.
#
#   --name=sr3           name of the request, of the slice and of the folder on it
#   --type=TYPE          v5litepod-N and v6e-N (N chips), v4-N and v5p-N (N / 2 chips)
#   --runtime=VERSION    software of the machines; the one for the type
#   --spot               cheaper; may be taken away at any time
#   --restarts=10        how often watch starts again what ended badly
#   --cache=FOLDER       compiled programs; WORKDIR/xla-cache
#   --out=FOLDER         where fetch copies results to; runs/NAME
#   --with-checkpoints   fetch copies checkpoints too
#   --python=python3     the Python here that makes the plan
#   --no-plan            goes without the plan
#   --no-quota           does not ask for the quota
#   --keep               all leaves the slice
#   --dry-run            prints every command and runs none
#
# Flags after -- go to sr3_jax.main, for the plan and for the run.
# shellcheck source=tpu.sh
. "$(dirname "${BASH_SOURCE[0]}")/tpu.sh"

KIND='queued resource'
UP=ACTIVE

# The request's own state: what was granted is ACTIVE until it is taken away.
find_machine() {
  look "$1" gcloud compute tpus queued-resources describe "${opt[name]}" "${THERE[@]}" \
    '--format=value(state.state)'
  STATE_NAME=${ANSWER:-gone}
}

machine_state() {
  find_machine ACTIVE
  case $ANSWER in
    '' | DELETING) ANSWER=none ;;
    ACTIVE) ANSWER=ready ;;
    CREATING | ACCEPTED | WAITING_FOR_RESOURCES | PROVISIONING) ANSWER=waiting ;;
    *) ANSWER=gone ;;
  esac
}

describe_left() {
  made="queued resource ${opt[name]} (${opt[type]}) in ${opt[zone]}: paid by the second \
once it is active"
}

make_machine() {
  local spot=()
  [[ ${opt[spot]} == no ]] || spot=(--spot)
  describe_left
  run gcloud compute tpus queued-resources create "${opt[name]}" "${THERE[@]}" \
    "--node-id=${opt[name]}" "--accelerator-type=${opt[type]}" \
    "--runtime-version=$RUNTIME" --labels=made-by=sr3-jax --scopes=cloud-platform \
    "${spot[@]}"
  await
}

# Until Google grants the request.
await() {
  local last=''
  while true; do
    machine_state
    [[ $STATE_NAME == "$last" ]] || note "${opt[name]}: $STATE_NAME"
    last=$STATE_NAME
    case $ANSWER in
      ready) return ;;
      waiting) pause ;;
      *) die "the request ended as $STATE_NAME before it was granted: \
gcloud compute tpus queued-resources describe ${opt[name]} $(quote "${THERE[@]}")" ;;
    esac
  done
}

remove_machine() {
  run gcloud compute tpus queued-resources delete "${opt[name]}" "${THERE[@]}" \
    --force --quiet
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
    FAILED | SUSPENDING | SUSPENDED | DELETING)
      note "${opt[name]} is $ANSWER: asking anew"
      remake
      ;;
    *)
      describe_left
      note "${opt[name]} exists already: $ANSWER"
      await
      ;;
  esac
}

parse "$@"
check_tpu
main
