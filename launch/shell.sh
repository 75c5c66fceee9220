# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154  # shared with the scripts that source this
# This file holds what gpu.sh and slurm.sh share: a machine that ssh reaches, or this
# one. A script that sources it has a function stop_command, which prints a command that
# stops the run.

opt+=([host]='')

check_shell() {
  [[ ! ${opt[host]} || ${opt[host]} =~ ^([A-Za-z0-9._-]+@)?[A-Za-z0-9][A-Za-z0-9._-]*$ ]] ||
    die "--host=${opt[host]}: USER@MACHINE as ssh takes it"
  PLACE=${opt[host]:-this machine}
  [[ ! ${opt[host]} ]] || require_program ssh
  [[ $verb != delete ]] || return 0
  if [[ ${opt[workdir]} == gs://* ]]; then
    check_bucket
  else
    require workdir '^/[A-Za-z0-9_./-]+$' 'an absolute folder, or gs://BUCKET/RUN'
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

# Makes the plan if --topology says what machines these are.
plan_named() {
  if [[ ${opt[topology]} ]]; then
    plan "${opt[topology]}"
  else
    note 'plan: skipped, because no --topology is given'
  fi
}

do_fetch() {
  set_leftover
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

# Stops the run and removes its folder.
do_delete() {
  set_leftover
  local folder
  folder=$(remote)
  on_workers "if [ -d $folder ]; then $(stop_command); rm -rf $folder \
sr3_jax-${opt[name]}.*; else echo gone already; fi"
  leftover=''
  note "removed $folder from the home of $PLACE; ${opt[workdir]:-the workdir} stays"
}

delete_command() { command_for delete host name; }
