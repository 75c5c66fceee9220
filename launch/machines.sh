# shellcheck shell=bash
# shellcheck disable=SC2034,SC2153,SC2154  # shared with the scripts that source this
# Set up, run and watch on machines that are reached by a shell. A script says how:
#   workers_command TEXT  COMMAND = what runs TEXT on every worker, in the home folder
#   to_workers FILE NAME  copies a file to the home folder of every worker
#   machine_state         ANSWER = ready, waiting, gone (taken away), none (deleted)
#   remake                deletes what is left of a machine that is gone, makes another
#   HOSTS, EXTRA, MULTIHOST

remote() { printf 'sr3_jax/%s' "${opt[name]}"; }
worker() { printf 'bash %s/src/launch/worker.sh %s' "$(remote)" "$(quote "$@")"; }

# ask_workers ANSWER TEXT: what every worker answers; ANSWER is of one, for a dry run.
ask_workers() {
  local supposed=$1 command=$2 line='' i
  for ((i = 0; i < HOSTS; i++)); do
    [[ ! $supposed ]] || line+=${line:+$'\n'}"worker host$i $supposed"
  done
  workers_command "$command"
  ask "$line" "${COMMAND[@]}"
}

on_workers() {
  workers_command "$1"
  run "${COMMAND[@]}"
}

do_setup() {
  describe_left
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
  describe_left
  main_flags "${MULTIHOST[@]}"
  on_workers "$(worker start "${SETTINGS[@]}" -- "${FLAGS[@]}")"
  started=$SECONDS
}

# Until the run has ended well on every worker. What ends badly is started again, on new
# machines where the old ones are gone, at most --restarts times.
do_watch() {
  describe_left
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
      none) die "there is no ${opt[name]} any more; launch/$SCRIPT all goes on where it was" ;;
      *)
        restart "the machine is $STATE_NAME" again_on_new
        last=''
        continue
        ;;
    esac
    if ! ask_workers 'done 0' "$(worker status)"; then
      silent=$((silent + 1))
      ((silent < 5)) || restart "no answer five times: $(complaint)" again_on_new
      ((silent < 5)) || silent=0
      pause
      continue
    fi
    silent=0
    if ! grep -q '^worker ' <<<"$ANSWER"; then
      die "nothing runs on ${opt[name]}: $(again run)"
    fi
    [[ $ANSWER == "$last" ]] || note "$ANSWER"
    last=$ANSWER
    bad=$(grep -E '^worker .* (done [1-9][0-9]*|lost)$' <<<"$ANSWER" | head -n 1 || true)
    if [[ $bad ]]; then
      if ((SECONDS - started < QUICK)); then quick=$((quick + 1)); else quick=0; fi
      on_workers "$(worker tail 20)"
      ((quick < 2)) ||
        die "$bad: twice within $QUICK s of its start, so it is not started again"
      restart "$bad" again_here
    elif ! grep -q '^worker .* running$' <<<"$ANSWER"; then
      grep -q '^worker .* done 0$' <<<"$ANSWER" ||
        die "nothing runs on ${opt[name]}: $(again run)"
      note 'the run is finished'
      return
    else
      pause
    fi
  done
}

restart() {
  restarts=$((restarts + 1))
  ((restarts <= opt[restarts])) ||
    die "$1, and it was started again ${opt[restarts]} times already (--restarts)"
  note "$1: starting again ($restarts of ${opt[restarts]}), from the newest checkpoint"
  "$2"
}

again_here() {
  on_workers "$(worker stop)"
  do_run
}

again_on_new() {
  remake
  do_setup
  do_run
}

pause() { dry || sleep "$POLL"; }
