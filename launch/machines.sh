# shellcheck shell=bash
# shellcheck disable=SC2034,SC2153,SC2154  # shared with the scripts that source this
# This file sets up, runs and watches a run on machines that have a shell. A script that
# sources it has these functions:
#   workers_command TEXT  sets COMMAND: it runs TEXT in the home folder of every worker
#   to_workers FILE NAME  copies a file to the home folder of every worker
#   machine_state         sets ANSWER: ready, waiting, gone (taken away), none (deleted)
#   replace_machine       deletes what is left of a machine that is gone, makes another
# and these variables:
#   HOSTS      number of workers
#   EXTRA      extra of the package that they install: tpu or cuda
#   MULTIHOST  flags for a run of several processes
#   SETTINGS   environment variables of the run, as NAME=VALUE

remote() { printf 'sr3_jax/%s' "${opt[name]}"; }
worker_script() { printf 'bash %s/src/launch/worker.sh %s' "$(remote)" "$(quote "$@")"; }

# ask_workers ASSUMED TEXT: asks every worker. A dry run assumes this answer of each.
ask_workers() {
  local assumed=$1 command=$2 line='' i
  for ((i = 0; i < HOSTS; i++)); do
    [[ ! $assumed ]] || line+=${line:+$'\n'}"worker host$i $assumed"
  done
  workers_command "$command"
  ask "$line" "${COMMAND[@]}"
}

on_workers() {
  workers_command "$1"
  run "${COMMAND[@]}"
}

do_setup() {
  set_leftover
  pack
  # A machine that was made a moment ago may not answer yet.
  local tries=1
  until ask_workers 'installed none' \
    "echo worker any installed \"\$(cat $(remote)/installed 2>/dev/null)\""; do
    ((tries < 5)) || die "${opt[name]} does not answer: $(complaint)"
    tries=$((tries + 1))
    pause
  done
  if [[ $ANSWER ]] && ! grep -qv "installed $SOURCE_ID\$" <<<"$ANSWER"; then
    note "set up already, with source $SOURCE_ID"
    return
  fi
  to_workers "$ARCHIVE" "sr3_jax-${opt[name]}.tar.gz"
  on_workers "set -e; mkdir -p $(remote); cd $(remote); rm -rf src.new; mkdir src.new; \
tar -xzf ~/sr3_jax-${opt[name]}.tar.gz -C src.new; rm -rf src; mv src.new src; \
bash src/launch/worker.sh setup $SOURCE_ID $EXTRA"
}

do_run() {
  set_leftover
  main_flags "${MULTIHOST[@]}"
  on_workers "$(worker_script start "${SETTINGS[@]}" -- "${FLAGS[@]}")"
  started=$SECONDS
}

# Waits until the run has finished on every worker. A run that fails is restarted, on
# new machines if the old ones are gone, at most --restarts times.
do_watch() {
  set_leftover
  local last='' silent=0 quick=0 restarts=0 bad
  started=${started:-$SECONDS}
  while true; do
    machine_state
    case $ANSWER in
      ready) ;;
      waiting)
        pause
        continue
        ;;
      none) die "there is no ${opt[name]} any more; launch/$SCRIPT all continues the run" ;;
      *)
        restart "the machine is $STATE_NAME" restart_on_new_machine
        last=''
        continue
        ;;
    esac
    if ! ask_workers 'done 0' "$(worker_script status)"; then
      silent=$((silent + 1))
      ((silent < 5)) || restart "no answer five times: $(complaint)" restart_on_new_machine
      ((silent < 5)) || silent=0
      pause
      continue
    fi
    silent=0
    if ! grep -q '^worker ' <<<"$ANSWER"; then
      die "nothing runs on ${opt[name]}: $(command_for run)"
    fi
    [[ $ANSWER == "$last" ]] || note "$ANSWER"
    last=$ANSWER
    bad=$(grep -E '^worker .* (done [1-9][0-9]*|lost)$' <<<"$ANSWER" | head -n 1 || true)
    if [[ $bad ]]; then
      if ((SECONDS - started < QUICK)); then quick=$((quick + 1)); else quick=0; fi
      on_workers "$(worker_script tail 20)"
      ((quick < 2)) ||
        die "$bad: twice within $QUICK s of its start, so it is not started again"
      restart "$bad" restart_here
    elif ! grep -q '^worker .* running$' <<<"$ANSWER"; then
      grep -q '^worker .* done 0$' <<<"$ANSWER" ||
        die "nothing runs on ${opt[name]}: $(command_for run)"
      note 'the run is finished'
      return
    else
      pause
    fi
  done
}

# restart REASON FUNCTION: restarts the run by the function, unless it was restarted as
# often as --restarts allows.
restart() {
  restarts=$((restarts + 1))
  ((restarts <= opt[restarts])) ||
    die "$1, and it was started again ${opt[restarts]} times already (--restarts)"
  note "$1: starting again ($restarts of ${opt[restarts]}), from the newest checkpoint"
  "$2"
}

restart_here() {
  on_workers "$(worker_script stop)"
  do_run
}

restart_on_new_machine() {
  replace_machine
  do_setup
  do_run
}

pause() { dry || sleep "$POLL"; }
