# shellcheck shell=bash
# shellcheck disable=SC2034  # the scripts that source this read what it sets
# This file holds what all launchers share: options, checks, commands that are printed
# before they run, the plan, and the archive of the source. The scripts beside it source
# it.
set -euo pipefail

if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 404)); then
  echo "error: bash 4.4 or later is needed, this is $BASH_VERSION" >&2
  exit 1
fi

LAUNCH=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(dirname "$LAUNCH")
SCRIPT=$(basename "$0")
POLL=${SR3_POLL:-30} # seconds between two questions about the state of a machine
QUICK=120            # a run that fails within so many seconds has not trained yet
VERBS='create setup run watch fetch delete all'

# Options and their defaults. A default of 'no' marks a switch, which takes no value.
# Each script adds options of its own.
declare -A opt=(
  [name]=sr3 [config]='' [workdir]='' [out]='' [cache]='' [restarts]=10
  [python]=python3 [dry-run]=no [no-plan]=no [with-checkpoints]=no [keep]=no
)
verb=''
extra=()    # the flags after --, for sr3_jax.main
leftover='' # what may exist and cost money after the script ends, in words
ANSWER=''   # what the last question was answered with

# note WORD...: prints a line. A dry run prints it as a comment, as it only assumes how
# the commands would go.
note() {
  dry && printf '# '
  printf '%s\n' "$*"
}

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

dry() { [[ ${opt[dry-run]} == yes ]]; }

# quote WORD...: prints the words with the quotes that a shell needs to read them.
quote() {
  local word line=''
  for word; do
    [[ $word =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]] || word=${word@Q}
    line+=" $word"
  done
  printf '%s' "${line# }"
}

show() { printf '+ %s\n' "$(quote "$@")"; }

# run COMMAND...: prints a command, and runs it unless this is a dry run. A failure ends
# the launch.
run() {
  show "$@"
  dry && return
  local code=0
  "$@" || code=$?
  ((code == 0)) || die "exit $code of: $(quote "${@:1:6}")$( (($# > 6)) && echo ' ...')"
}

# ask ASSUMED COMMAND...: runs a command that changes nothing, and puts what it prints
# into ANSWER. A dry run doesn't run it and takes the assumed answer ('!' is a failure).
ask() {
  local assumed=$1
  shift
  show "$@"
  if dry; then
    ANSWER=$assumed
    [[ $assumed != '!' ]]
    return
  fi
  ANSWER=$("$@" 2>"$STATE/stderr")
}

# look_up ASSUMED COMMAND...: asks about one thing; ANSWER is empty if it doesn't exist.
# Any other failure ends the launch, as the thing may exist all the same.
look_up() {
  ask "$@" && return
  ANSWER=''
  dry || grep -qiE 'not.?found|\b404\b|matched no objects' "$STATE/stderr" || die "$(complaint)"
}

# Prints the last line that the last question wrote to stderr.
complaint() {
  local line
  line=$(grep -v '^ *$' "$STATE/stderr" | tail -n 1)
  printf '%s' "${line:-no answer}"
}

# Prints the comment at the top of the script.
usage() { sed -n '2,/^# shellcheck/{/^# shellcheck/d;s/^# \{0,1\}//p;}' "$0"; }

parse() {
  if [[ $# == 0 || $1 == --help || $1 == -h || $1 == help ]]; then
    usage
    exit 0
  fi
  verb=$1
  shift
  [[ " $VERBS " == *" $verb "* ]] || die "$verb: not one of: $VERBS"
  local key
  while (($#)); do
    case $1 in
      --help)
        usage
        exit 0
        ;;
      --)
        shift
        extra=("$@")
        break
        ;;
      --*) ;;
      *) die "$1: options look like --name=value" ;;
    esac
    key=${1%%=*}
    key=${key#--}
    [[ -n ${opt[$key]+known} ]] || die "--$key: no such option; $SCRIPT --help"
    if [[ ${opt[$key]} == no || ${opt[$key]} == yes ]]; then
      [[ $1 != *=* ]] || die "--$key takes no value"
      opt[$key]=yes
    else
      [[ $1 == *=?* ]] || die "--$key needs a value: --$key=..."
      opt[$key]=${1#*=}
    fi
    shift
  done
}

# Checks the options that all scripts have, without the network.
check_common() {
  require name '^[a-z]([-a-z0-9]{0,34}[a-z0-9])?$' \
    'lower-case letters, digits and -, from a letter, at most 36'
  require restarts '^[0-9]+$' 'a number'
  local word
  for word in "${extra[@]}"; do
    [[ $word == --?* ]] || die "$word: after -- come flags such as --config.train.seed=1"
  done
  STATE=${XDG_CACHE_HOME:-$HOME/.cache}/sr3_jax/launch/${SCRIPT%.sh}-${opt[name]}
  local out=${opt[out]:-runs/${opt[name]}}
  [[ $out == /* ]] || out=$PWD/$out
  opt[out]=$out
  dry || mkdir -p "$STATE"
  [[ $verb == delete ]] || check_config
  cd "$ROOT"
}

# require OPTION PATTERN WORDS: ends the launch unless the option is given and matches
# the pattern. The words say what is accepted.
require() {
  [[ -n ${opt[$1]} ]] || die "--$1 is missing: $3"
  [[ ${opt[$1]} =~ $2 ]] || die "--$1=${opt[$1]}: $3"
}

# Finds the configuration, which is given by its path or by its name in configs/. It has
# to be a file of this repository, because the archive of the source carries it.
check_config() {
  local path=${opt[config]}
  [[ $path ]] || die '--config is missing: an experiment such as configs/faces_16_128.py'
  [[ -f $path || ! -f $ROOT/configs/$path.py ]] || path=$ROOT/configs/$path.py
  [[ -f $path || ! -f $ROOT/$path ]] || path=$ROOT/$path
  [[ -f $path ]] || die "--config=$path: no such file"
  path=$(cd "$(dirname "$path")" && pwd)/$(basename "$path")
  [[ $path == "$ROOT"/* ]] || die "--config=$path: put the file into $ROOT/configs"
  opt[config]=${path#"$ROOT"/}
  [[ ${opt[config]} =~ ^[A-Za-z0-9_./-]+$ ]] ||
    die "--config=${opt[config]}: only letters, digits, _ . / and - are possible"
}

check_bucket() {
  require workdir '^gs://[a-z0-9][-a-z0-9._]{1,61}[a-z0-9](/[A-Za-z0-9_.=-]+)+/?$' \
    'a folder in a bucket: gs://BUCKET/FOLDER'
  opt[workdir]=${opt[workdir]%/}
  BUCKET=$(cut -d/ -f1-3 <<<"${opt[workdir]}")
}

check_project() {
  require project '^([a-z0-9.-]+:)?[a-z][-a-z0-9]{4,28}[a-z0-9]$' \
    'the ID of a project (gcloud projects list)'
  require zone '^[a-z]+-[a-z]+[0-9]+-[a-z]$' 'a zone such as us-west4-a'
}

# require_program NAME [ADVICE]: ends the launch if a program is not installed.
require_program() {
  dry || command -v "$1" >/dev/null || die "$1 is not installed${2:+: $2}"
}

# check_google API: asks Google about account, project, interface and bucket.
check_google() {
  local api=$1
  require_program gcloud 'see https://cloud.google.com/sdk/docs/install'
  ask someone gcloud auth list --filter=status:ACTIVE '--format=value(account)' ||
    die "$(complaint)"
  [[ $ANSWER ]] || die 'no account is logged in: gcloud auth login'
  look_up "${opt[project]}" gcloud projects describe "${opt[project]}" \
    '--format=value(projectId)'
  [[ $ANSWER ]] || die "--project=${opt[project]}: no such project"
  ask "$api" gcloud services list --enabled "--project=${opt[project]}" \
    "--filter=config.name=$api" '--format=value(config.name)' || die "$(complaint)"
  [[ $ANSWER ]] || die "turn it on: gcloud services enable $api --project=${opt[project]}"
  look_up somewhere gcloud storage buckets describe "$BUCKET" '--format=value(location)'
  [[ $ANSWER ]] || die "$BUCKET: no such bucket; gcloud storage buckets create $BUCKET \
--project=${opt[project]} --location=${opt[zone]%-*}"
  local place=${ANSWER,,}
  dry || [[ ${opt[zone]} == "$place"* ]] ||
    note "note: $BUCKET is in $place and the machine in ${opt[zone]}: slower, traffic may cost"
}

# plan TOPOLOGY: prints what the run needs on such a machine. If the run doesn't fit,
# the launch ends. The plan doesn't search for the largest batch, because each batch
# that it tries would take minutes to compile.
plan() {
  if [[ ${opt[no-plan]} == yes ]]; then
    note 'plan: skipped'
    return
  fi
  local command=(
    "${opt[python]}" -m sr3_jax.main "--config=${opt[config]}" --mode=plan
    "--config.plan.topology=$1" --config.plan.search_batch=False
    "--workdir=$STATE/plan" "${extra[@]}"
  )
  show "${command[@]}"
  dry && return
  local code=0
  "${command[@]}" || code=$?
  ((code == 0)) ||
    die "the plan ended with exit $code; nothing was created (--no-plan skips the plan)"
}

# main_flags [FLAG...]: puts the flags of the run into FLAGS.
main_flags() {
  FLAGS=("--config=${opt[config]}" "--workdir=${opt[workdir]}")
  [[ ! ${opt[cache]} ]] || FLAGS+=("--cache=${opt[cache]}")
  FLAGS+=("$@" "${extra[@]}")
}

# Packs the files that a run needs into the archive ARCHIVE. SOURCE_ID is a checksum of
# these files.
pack() {
  local ship=(setup.py pyproject.toml README.md LICENSE sr3_jax configs launch)
  [[ ${opt[config]} == configs/* ]] || ship+=("${opt[config]}")
  SOURCE_ID=$(find "${ship[@]}" -type f ! -path '*/__pycache__/*' -print0 |
    LC_ALL=C sort -z | xargs -0 cksum | cksum | cut -d' ' -f1)
  ARCHIVE=$STATE/source.tar.gz
  run tar -czf "$ARCHIVE" --exclude=__pycache__ "${ship[@]}"
}

# Copies the workdir from its bucket to the folder of --out.
fetch_bucket() {
  local exclude=(--exclude='.*checkpoints/.*,xla-cache/.*,source/.*')
  [[ ${opt[with-checkpoints]} == no ]] || exclude=(--exclude='xla-cache/.*,source/.*')
  run mkdir -p "${opt[out]}"
  run gcloud storage rsync "${opt[workdir]}" "${opt[out]}" "${exclude[@]}" --recursive
  note "results: ${opt[out]}"
}

# command_for VERB [OPTION...]: prints the command that does another verb with the
# values that these options have.
command_for() {
  local key line="launch/$SCRIPT $1"
  shift
  for key; do
    [[ -z ${opt[$key]:-} || ${opt[$key]} == no ]] || line+=" $(quote "--$key=${opt[$key]}")"
  done
  printf '%s' "$line"
}

# Runs however the script ends, and says what is left and how to delete it.
report_leftover() {
  local code=$?
  trap - EXIT INT TERM
  if [[ $leftover ]] && ! dry; then
    note "left: $leftover"
    note "delete it: $(delete_command)"
  fi
  exit "$code"
}

# Runs the verb that was asked for: function do_VERB of the script.
main() {
  trap report_leftover EXIT
  trap 'note interrupted; exit 130' INT
  trap 'exit 143' TERM
  note "dry run: no command is run, answers are assumed" | grep '^#' || true
  if [[ $verb != all ]]; then
    "do_$verb"
    return
  fi
  local step
  for step in create setup run watch fetch; do
    "do_$step"
  done
  [[ ${opt[keep]} == yes ]] || do_delete
}
