# shellcheck shell=bash
# shellcheck disable=SC2034  # the scripts that source this read what it sets
# This file holds what tpu_vm.sh and tpu_slice.sh share: checks, and how commands and
# files get to the workers.
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=topologies.sh
. "$(dirname "${BASH_SOURCE[0]}")/topologies.sh"
# shellcheck source=machines.sh
. "$(dirname "${BASH_SOURCE[0]}")/machines.sh"

opt+=([project]='' [zone]='' [type]='' [runtime]='' [spot]=no [no-quota]=no)
EXTRA=tpu
SETTINGS=()
MULTIHOST=()

check_tpu() {
  check_common
  check_project
  LOCATION=("--project=${opt[project]}" "--zone=${opt[zone]}")
  if [[ $verb == delete ]]; then
    require_program gcloud
    return
  fi
  require type '^[a-z0-9]+-[0-9]+$' 'a type such as v5litepod-8'
  tpu_facts "${opt[type]}"
  check_runtime
  check_bucket
  require_program gcloud 'see https://cloud.google.com/sdk/docs/install'
  [[ ${opt[cache]} ]] || opt[cache]=${opt[workdir]}/xla-cache
  ((HOSTS == 1)) || MULTIHOST=(--multihost)
}

# Asks Google whether the zone has this type, before anything is created.
check_offer() {
  check_google tpu.googleapis.com
  ask "${opt[type]}" gcloud compute tpus accelerator-types list "${LOCATION[@]}" \
    "--filter=type=${opt[type]}" '--format=value(type)' || die "$(complaint)"
  [[ $ANSWER ]] || die "${opt[zone]} has no ${opt[type]}; zones: \
https://cloud.google.com/tpu/docs/regions-zones"
  [[ ${opt[no-quota]} == yes ]] || check_quota
}

# Compares the quota of this type in this zone with its size, if Google tells the quota.
check_quota() {
  if ! ask "${opt[zone]},1000000" gcloud beta quotas info list \
    --service=tpu.googleapis.com "--project=${opt[project]}" \
    "--filter=quotaId=$QUOTA" --flatten=dimensionsInfos \
    '--format=csv[no-heading](dimensionsInfos.dimensions.zone,dimensionsInfos.details.value)'; then
    note "note: the quota is unknown: $(complaint)"
    return
  fi
  local zone limit found=''
  while IFS=, read -r zone limit; do
    [[ ! $limit =~ ^-?[0-9]+$ ]] || [[ $zone && $zone != "${opt[zone]}" ]] ||
      [[ ! $zone && $found ]] || found=$limit
  done <<<"$ANSWER"
  if [[ ! $found ]]; then
    note "note: no quota called $QUOTA is known in ${opt[zone]}"
  elif ((found >= 0 && found < UNITS)); then
    die "quota $QUOTA is $found in ${opt[zone]}, ${opt[type]} needs $UNITS; ask for more: \
https://console.cloud.google.com/iam-admin/quotas?project=${opt[project]}"
  fi
}

workers_command() {
  COMMAND=(gcloud compute tpus tpu-vm ssh "${opt[name]}" --quiet "${LOCATION[@]}"
    --worker=all "--command=$1")
}

to_workers() {
  run gcloud compute tpus tpu-vm scp "$1" "${opt[name]}:$2" "${LOCATION[@]}" --worker=all \
    --quiet
}

do_fetch() {
  set_leftover
  fetch_bucket
}

# A script sets KIND, the name of what it creates, and UP, its state when it works, and
# has find_machine and remove_machine.
do_delete() {
  leftover="$KIND ${opt[name]} in ${opt[zone]}, if it was there: paid by the second"
  find_machine "$UP"
  if [[ $ANSWER ]]; then remove_machine; else note "${opt[name]} is gone already"; fi
  leftover=''
  note "deleted: ${opt[name]}; the bucket keeps the results"
}

delete_command() { command_for delete project zone name; }
