#!/usr/bin/env bash
# This script stands in for gcloud, kubectl, ssh, sbatch, nvidia-smi, python3 and others.
# Links with their names lie in a folder of the PATH. The folder $FAKE holds its state:
#   calls.jsonl     all calls of the launcher, as {"tool": ..., "args": [...]}
#   workers.jsonl   all calls on workers
#   state/KEY       state of a thing that exists; a describe prints it
#   next/KEY        the next answers, one in each line; !WORDS is a failure
#   fail_at         the number of the call that fails
#   interrupt_at    the number of the call in which the launcher gets a signal
#   interrupt_with  the name of that signal
#   endless         exists if runs are not waited for
# Workers are the folders $FAKE/w0, w1, ...; commands for a worker run in its folder.
set -u
tool=${0##*/}
[[ -d $FAKE/state ]] || mkdir -p "$FAKE/state" "$FAKE/next"

record() {
  local word line=''
  for word; do
    word=${word//\\/\\\\}
    word=${word//\"/\\\"}
    line+=", \"${word//$'\n'/\\n}\""
  done
  local file=calls.jsonl
  [[ -z ${WORKER:-} ]] || file=workers.jsonl
  printf '{"tool": "%s", "args": [%s]}\n' "$tool" "${line#, }" >>"$FAKE/$file"
}

fail() {
  echo "ERROR: ($tool) $*" >&2
  exit 1
}

# answer KEY DEFAULT: prints the next answer of next/KEY, or the default.
answer() {
  local line=$2 file=$FAKE/next/$1
  if [[ -s $file ]]; then
    line=$(head -n 1 "$file")
    sed -i 1d "$file"
  fi
  [[ $line != '!'* ]] || fail "${line#!}"
  printf '%s\n' "$line"
}

# describe KEY: prints the state of a thing.
describe() {
  local state='!NOT_FOUND: it was not found'
  [[ ! -e $FAKE/state/$1 ]] || state=$(<"$FAKE/state/$1")
  answer "$1" "$state"
}

make() {
  [[ ! -e $FAKE/state/$1 ]] || fail "ALREADY_EXISTS: $1"
  echo "$2" >"$FAKE/state/$1"
}

remove() {
  [[ -e $FAKE/state/$1 ]] || fail "NOT_FOUND: $1"
  rm "$FAKE/state/$1"
}

# on_worker NUMBER COMMAND: runs a command, and waits for the end of a run that it starts,
# unless runs are endless.
on_worker() {
  local home=$FAKE/w$1
  mkdir -p "$home"
  (cd "$home" && HOME=$home WORKER=$1 bash -c "$2") || exit 1
  if [[ $2 == *'worker.sh start'* && ! -e $FAKE/endless ]]; then
    local tries=0
    until compgen -G "$home/sr3_jax/*/run.code" >/dev/null || ((tries++ > 500)); do
      sleep 0.02
    done
  fi
}

python_does() {
  case "$*" in
    *--mode=plan*)
      [[ -n ${WORKER:-} ]] || answer plan 'the plan: it fits'
      ;;
    '-m venv '*)
      mkdir -p "$3/bin"
      ln -sf "$0" "$3/bin/python"
      ;;
    *'-m sr3_jax.main'*)
      local code
      echo "step 1"
      code=$(answer "exit$WORKER" 0)
      if [[ $code == endless ]]; then
        trap 'echo saved; exit 143' TERM
        while true; do sleep 0.05; done
      fi
      echo "the end: $code"
      exit "$code"
      ;;
  esac
}

option() { # option NAME ARGUMENTS...: prints the value of --NAME=
  local name=$1 word
  shift
  for word; do [[ $word != "--$name="* ]] || printf '%s' "${word#--"$name"=}"; done
}

workers() { # workers ARGUMENTS...: prints the numbers that --worker= names
  local which
  which=$(option worker "$@")
  if [[ $which == all ]]; then seq 0 $((${WORKERS:-1} - 1)); else echo "${which:-0}"; fi
}

[[ $tool == hostname ]] && { echo "w${WORKER:-none}"; exit; }
record "$@"
if [[ -z ${WORKER:-} && $tool != python ]]; then
  mapfile -t calls <"$FAKE/calls.jsonl"
  [[ ! -e $FAKE/fail_at || $(<"$FAKE/fail_at") != "${#calls[@]}" ]] || fail 'made to fail'
  if [[ -e $FAKE/interrupt_at && $(<"$FAKE/interrupt_at") == "${#calls[@]}" ]]; then
    kill "-$(<"$FAKE/interrupt_with")" $PPID
    exit 130
  fi
fi

case "$tool $*" in
  python*) python_does "$@" ;;
  'gcloud auth list'*) answer account me@example.com ;;
  'gcloud projects describe'*) answer project "$3" ;;
  'gcloud services list'*) answer api on ;;
  'gcloud storage buckets'*) answer bucket US-WEST4 ;;
  'gcloud storage cat'*) describe source ;;
  'gcloud storage cp'*.id\ *) cp "$3" "$FAKE/state/source" ;;
  'gcloud storage'*) ;;
  'gcloud compute tpus accelerator-types list'*) answer types v5litepod ;;
  'gcloud beta quotas'*) answer quota us-west4-a,64 ;;
  'gcloud compute tpus tpu-vm describe'*) describe vm ;;
  'gcloud compute tpus tpu-vm create'*) make vm READY ;;
  'gcloud compute tpus tpu-vm delete'*) remove vm ;;
  'gcloud compute tpus queued-resources describe'*) describe request ;;
  'gcloud compute tpus queued-resources create'*)
    make request ACTIVE
    rm -rf "$FAKE"/w*/ # the new machines are empty
    ;;
  'gcloud compute tpus queued-resources delete'*)
    [[ ! -e $FAKE/state/request || " $* " == *' --force '* ]] ||
      fail 'FAILED_PRECONDITION: it holds a node'
    remove request
    ;;
  'gcloud compute tpus tpu-vm scp'*)
    answer scp '' >/dev/null
    for i in $(workers "$@"); do
      mkdir -p "$FAKE/w$i"
      cp "$5" "$FAKE/w$i/${6#*:}"
    done
    ;;
  'gcloud compute tpus tpu-vm ssh'*)
    answer ssh '' >/dev/null || exit 1
    for i in $(workers "$@"); do
      on_worker "$i" "$(option command "$@")"
    done
    ;;
  'gcloud container clusters describe'*) describe cluster ;;
  'gcloud container clusters create'*) make cluster "RUNNING sr3-jax" ;;
  'gcloud container clusters delete'*)
    remove cluster
    rm -f "$FAKE/state/pool" "$FAKE/state/job"
    ;;
  'gcloud container node-pools describe'*) describe pool ;;
  'gcloud container node-pools create'*) make pool RUNNING ;;
  'gcloud container node-pools delete'*) remove pool ;;
  'gcloud container clusters get-credentials'*) echo for-us >"$KUBECONFIG" ;;
  'kubectl apply -f'*) [[ -e $FAKE/state/job ]] || echo 'job 0 Completed' >"$FAKE/state/job" ;;
  'kubectl get jobset'*) describe job ;;
  'kubectl delete jobset'*) rm -f "$FAKE/state/job" ;;
  'kubectl get pods'*) answer pods 'pod/sr3-workers-0-0-abcde' ;;
  'kubectl logs'*) answer logs '[pod/sr3-workers-0-0-abcde/main] step 7' ;;
  'kubectl apply'*) ;;
  'ssh '*)
    answer ssh '' >/dev/null || exit 1
    on_worker 0 "${!#}"
    ;;
  'scp '*)
    mkdir -p "$FAKE/w0"
    last=${!#}
    cp "${*: -2:1}" "$FAKE/w0/${last#*:}"
    ;;
  'rsync '*) ;;
  'nvidia-smi '*) answer gpus '0, NVIDIA H100 80GB HBM3, 81559 MiB' ;;
  'sinfo '*) answer partitions 'gpu* 4 gpu:8 1-00:00:00' ;;
  'squeue '*) [[ ! -s $FAKE/next/queue ]] || answer queue '' ;;
  'sacct '*) answer accounts 'COMPLETED|0:0' ;;
  'sbatch '*) answer job 4711 ;;
  'srun '*) exit "$(answer srun 0)" ;;
  'scancel '* | 'scontrol '*) ;;
  *) fail "the stand-in does not know: $*" ;;
esac
