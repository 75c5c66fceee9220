#!/usr/bin/env bash
# Trains on a Cloud TPU slice of one or many hosts, requested as a queued resource.
#
#   launch/tpu_slice.sh VERB --project=P --zone=Z --type=v5litepod-16 \
#     --config=configs/imagenet_64_256.py --workdir=gs://BUCKET/RUN [OPTION...] [-- FLAG...]
#
# The verbs are create, setup, run, watch, fetch and delete; all does them in this
# order. You can repeat each of them safely. create waits in Google's queue until the
# slice is there. When spot capacity is taken away, watch requests another slice, and
# the run continues from its newest checkpoint. delete needs only --project, --zone and
# --name.
#
#   --name=sr3           name of the request, of the slice, and of the folder on it
#   --type=TYPE          v5litepod-N and v6e-N (N chips), v4-N and v5p-N (N / 2 chips)
#   --runtime=VERSION    software version of the machines; default the one for the type
#   --spot               cheaper; may be taken away at any time
#   --restarts=10        how often watch restarts a run that failed
#   --cache=FOLDER       folder of compiled programs; default WORKDIR/xla-cache
#   --out=FOLDER         where fetch copies results to; default runs/NAME
#   --with-checkpoints   lets fetch copy checkpoints, too
#   --python=python3     Python of this machine that makes the plan
#   --no-plan            skips the plan
#   --no-quota           skips the check of the quota
#   --keep               lets all keep the slice
#   --dry-run            prints all commands and runs none
#
# The flags after -- go to sr3_jax.main (sr3-train), for the plan and for the run.
# shellcheck source=tpu.sh
. "$(dirname "${BASH_SOURCE[0]}")/tpu.sh"

KIND='queued resource'
UP=ACTIVE

# Asks for the state of the request: ACTIVE from the moment when it is granted until the
# slice is taken away.
find_machine() {
  look_up "$1" gcloud compute tpus queued-resources describe "${opt[name]}" "${LOCATION[@]}" \
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

set_leftover() {
  leftover="queued resource ${opt[name]} (${opt[type]}) in ${opt[zone]}: paid by the second \
once it is active"
}

make_machine() {
  local spot=()
  [[ ${opt[spot]} == no ]] || spot=(--spot)
  set_leftover
  run gcloud compute tpus queued-resources create "${opt[name]}" "${LOCATION[@]}" \
    "--node-id=${opt[name]}" "--accelerator-type=${opt[type]}" \
    "--runtime-version=$RUNTIME" --labels=made-by=sr3-jax --scopes=cloud-platform \
    "${spot[@]}"
  await_grant
}

# Waits until Google grants the request.
await_grant() {
  local last=''
  while true; do
    machine_state
    [[ $STATE_NAME == "$last" ]] || note "${opt[name]}: $STATE_NAME"
    last=$STATE_NAME
    case $ANSWER in
      ready) return ;;
      waiting) pause ;;
      *) die "the request ended as $STATE_NAME before it was granted: \
gcloud compute tpus queued-resources describe ${opt[name]} $(quote "${LOCATION[@]}")" ;;
    esac
  done
}

remove_machine() {
  run gcloud compute tpus queued-resources delete "${opt[name]}" "${LOCATION[@]}" \
    --force --quiet
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
    FAILED | SUSPENDING | SUSPENDED | DELETING)
      note "${opt[name]} is $ANSWER: requesting another"
      replace_machine
      ;;
    *)
      set_leftover
      note "${opt[name]} exists already: $ANSWER"
      await_grant
      ;;
  esac
}

parse "$@"
check_tpu
main
