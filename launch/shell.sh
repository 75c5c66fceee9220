# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154  # shared with the scripts that source this
# A machine that is reached by ssh, or this one: what gpu.sh and slurm.sh share. A script
# says with stop_text what ends its run.

opt+=([host]='')

check_shell() {
  [[ ! ${opt[host]} || ${opt[host]} =~ ^([A-Za-z0-9._-]+@)?[A-Za-z0-9][A-Za-z0-9._-]*$ ]] ||
    die "--host=${opt[host]}: USER@MACHINE as ssh takes it"
  PLACE=${opt[host]:-this machine}
  [[ ! ${opt[host]} ]] || program ssh
  [[ $verb != delete ]] || return 0
  if [[ ${opt[workdir]} == gs://* ]]; then
    check_bucket
  else
    need workdir '^/[A-Za-z0-9_./-]+$' 'an absolute folder, or gs://BUCKET/RUN'
  fi
}

workers_command() {
  if [[ ${opt[host]} ]]; then
    COMMAND=(ssh -o BatchMode=yes "${opt[host]}" "$1")
  else
    COMMAND=(bash -c "cd; $1")
  fi
}

to_workers() {
  if [[ ${opt[host]} ]]; then
    run scp -q -o BatchMode=yes "$1" "${opt[host]}:$2"
  else
    run cp "$1" "$HOME/$2"
  fi
}

# The plan, where it is said what machines these are.
plan_named() {
  if [[ ${opt[topology]} ]]; then
    plan "${opt[topology]}"
  else
    note 'plan: skipped, as no --topology is given'
  fi
}

do_fetch() {
  describe_left
  if [[ ${opt[workdir]} == gs://* ]]; then
    fetch_bucket
  elif [[ ! ${opt[host]} ]]; then
    note "results: ${opt[workdir]}"
  else
    local exclude=(--exclude=checkpoints/)
    [[ ${opt[with-checkpoints]} == no ]] || exclude=()
    run mkdir -p "${opt[out]}"
    run rsync -a "${exclude[@]}" "${opt[host]}:${opt[workdir]}/" "${opt[out]}/"
    run rsync -a "${opt[host]}:$(remote)/logs" "${opt[out]}/"
    note "results: ${opt[out]}"
  fi
}

# Ends the run and removes the launch's folder.
do_delete() {
  describe_left
  local folder
  folder=$(remote)
  on_workers "if [ -d $folder ]; then $(stop_text); rm -rf $folder \
sr3_jax-${opt[name]}.*; else echo gone already; fi"
  made=''
  note "removed $folder from the home of $PLACE; ${opt[workdir]:-the workdir} stays"
}

delete_command() { again delete host name; }
