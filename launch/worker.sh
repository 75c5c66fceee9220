#!/usr/bin/env bash
# The launchers call this script on the machines that train.
#
#   worker.sh setup ID EXTRA      installs the package with its extra (tpu or cuda)
#   worker.sh start NAME=VALUE... -- FLAGS...   starts the run, unless it is running
#   worker.sh status              prints: worker HOST running|done CODE|lost|idle
#   worker.sh tail LINES          prints the last lines of the newest log
#   worker.sh stop                stops the run by SIGTERM, a minute later by SIGKILL
#
# This script is src/launch/worker.sh in the folder of the run, and works in that
# folder.
set -euo pipefail

SCRIPT=$(realpath "${BASH_SOURCE[0]}")
cd "$(dirname "$SCRIPT")/../.."
HOST=$(hostname -s 2>/dev/null || hostname)

# Makes venv/ with Python 3.11 or later. Cloud TPU images come with 3.10, so uv
# downloads a newer one.
make_environment() {
  [[ -x venv/bin/python ]] && return
  rm -rf venv
  local python
  for python in python3.13 python3.12 python3.11 python3; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      "$python" -m venv venv >/dev/null 2>&1 && return
      rm -rf venv
    fi
  done
  PATH=$HOME/.local/bin:$PATH
  command -v uv >/dev/null ||
    python3 -m pip install --quiet --user uv 2>/dev/null ||
    curl -LsSf https://astral.sh/uv/install.sh | sh >/dev/null 2>&1
  uv venv --quiet --seed --python 3.12 venv
}

setup() {
  local id=$1 extra=$2
  if [[ $(cat installed 2>/dev/null) != "$id" ]]; then
    make_environment
    venv/bin/python -m pip install --quiet --disable-pip-version-check "./src[$extra,tfds]"
    echo "$id" >installed.new
    mv installed.new installed
  fi
  echo "worker $HOST installed $id"
}

running() {
  local pid
  pid=$(cat run.pid 2>/dev/null) && kill -0 "$pid" 2>/dev/null &&
    grep -qs worker.sh "/proc/$pid/cmdline"
}

newest_log() {
  # shellcheck disable=SC2012  # the names of logs have no special characters
  ls logs 2>/dev/null | tail -n 1
}

start() {
  if running; then
    echo "worker $HOST running already"
    return
  fi
  mkdir -p logs
  local number log
  number=$(find logs -name '*.log' | wc -l)
  log=logs/$HOST-$(printf '%04d' $((number + 1))).log
  rm -f run.code
  setsid nohup bash src/launch/worker.sh supervise "$log" "$@" \
    >/dev/null 2>&1 </dev/null &
  echo $! >run.pid
  echo "worker $HOST started $log"
}

# copy_logs WORKDIR: copies the logs to the workdir. The disk of a machine is lost when
# the machine is taken away.
copy_logs() {
  if [[ $1 == gs://* ]]; then
    ! command -v gcloud >/dev/null ||
      gcloud storage rsync --recursive logs "$1/logs/launch" >/dev/null 2>&1 || true
  elif [[ -d $1 ]]; then
    (mkdir -p "$1/logs/launch" && cp logs/*.log "$1/logs/launch/") 2>/dev/null || true
  fi
}

# supervise LOG NAME=VALUE... -- FLAGS...: runs the program, copies its logs every five
# minutes, and writes its exit code to run.code.
supervise() {
  local log=$1 workdir='' code=0 child copier word
  shift
  while [[ $1 != -- ]]; do
    export "${1?}"
    shift
  done
  shift
  for word; do
    [[ $word != --workdir=* ]] || workdir=${word#--workdir=}
  done
  (cd src && exec ../venv/bin/python -u -m sr3_jax.main "$@") >>"$log" 2>&1 &
  child=$!
  trap 'kill -TERM $child 2>/dev/null' TERM
  (
    trap 'kill $nap; exit' TERM
    while true; do
      sleep 300 &
      nap=$!
      wait $nap
      copy_logs "$workdir"
    done
  ) &
  copier=$!
  while true; do # a signal ends wait, too, while the child is still running
    code=0
    wait $child || code=$?
    kill -0 $child 2>/dev/null || break
  done
  echo "$code" >run.code.new
  mv run.code.new run.code
  kill $copier 2>/dev/null
  copy_logs "$workdir"
}

status() {
  if running && [[ ! -e run.code ]]; then
    echo "worker $HOST running"
  elif [[ -e run.code ]]; then
    echo "worker $HOST done $(cat run.code)"
  elif [[ -e run.pid ]]; then
    echo "worker $HOST lost"
  else
    echo "worker $HOST idle"
  fi
  local log
  log=$(newest_log)
  [[ ! $log ]] || echo "$HOST: $(tail -n 1 "logs/$log" | cut -c1-200)"
}

stop() {
  if running; then
    local pid waited=0
    pid=$(cat run.pid)
    kill -TERM "$pid" 2>/dev/null || true
    while running && ((waited < 600)); do
      sleep 0.1
      waited=$((waited + 1))
    done
    ! running || kill -KILL -- "-$pid" 2>/dev/null || true
  fi
  echo "worker $HOST stopped"
}

case ${1:-} in
  setup | start | status | stop | supervise) "$@" ;;
  tail)
    log=$(newest_log)
    [[ ! $log ]] || tail -n "$2" "logs/$log"
    ;;
  *) sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p;}' "$SCRIPT" ;;
esac
