# shellcheck shell=bash
# shellcheck disable=SC2034  # the scripts that source this read what it sets
# What every launcher shares: options, checks, commands that are shown before they run,
# the plan, and the archive of the source. Sourced by the scripts beside it.
set -euo pipefail

if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 404)); then
  echo "error: bash 4.4 or later is needed, this is $BASH_VERSION" >&2
  exit 1
fi

LAUNCH=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(dirname "$LAUNCH")
SCRIPT=$(basename "$0")
POLL=${SR3_POLL:-30} # seconds between two looks at a machine
QUICK=120            # a job that ends before so many seconds did no work
VERBS='create setup run watch fetch delete all'

# Options and their defaults; 'no' marks a switch. Each script adds its own.
declare -A opt=(
  [name]=sr3 [config]='' [workdir]='' [out]='' [cache]='' [restarts]=10
  [python]=python3 [dry-run]=no [no-plan]=no [with-checkpoints]=no [keep]=no
)
verb=''
extra=() # what follows --: flags of sr3_jax.main
made=''  # what exists, or may exist, and goes on costing money
ANSWER=''

# What a dry run says of a course that it only supposes is a comment.
note() {
  dry && printf '# '
  printf '%s\n' "$*"
}

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

dry() { [[ ${opt[dry-run]} == yes ]]; }

# quote WORD...: the words as a shell reads them.
quote() {
  local word line=''
  for word; do
    [[ $word =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]] || word=${word@Q}
    line+=" $word"
  done
  printf '%s' "${line# }"
}

show() { printf '+ %s\n' "$(quote "$@")"; }

# run COMMAND...: shows it, and runs it unless this is a dry run.
run() {
  show "$@"
  dry && return
  local code=0
  "$@" || code=$?
  ((code == 0)) || die "exit $code of: $(quote "${@:1:6}")$( (($# > 6)) && echo ' ...')"
}

# ask ANSWER COMMAND...: a command that changes nothing; what it prints goes to ANSWER.
# A dry run takes the answer given here ('!' for a failure).
ask() {
  local supposed=$1
  shift
  show "$@"
  if dry; then
    ANSWER=$supposed
    [[ $supposed != '!' ]]
    return
  fi
  ANSWER=$("$@" 2>"$STATE/stderr")
}

# look ANSWER COMMAND...: the same; ANSWER is empty where there is no such thing. Any
# other failure ends the launch: a thing that can't be looked up is not a thing gone.
look() {
  ask "$@" && return
  ANSWER=''
  dry || grep -qiE 'not.?found|\b404\b|matched no objects' "$STATE/stderr" || die "$(complaint)"
}

# The last line that the last question said on stderr.
complaint() {
  local line
  line=$(grep -v '^ *$' "$STATE/stderr" | tail -n 1)
  printf '%s' "${line:-no answer}"
}

usage() { sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p;}' "$0"; }

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

# Checks that need no network.
check_common() {
  need name '^[a-z]([-a-z0-9]{0,34}[a-z0-9])?$' \
    'lower-case letters, digits and -, from a letter, at most 36'
  need restarts '^[0-9]+$' 'a number'
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

# need OPTION PATTERN WORDS: the option is given and looks as it has to.
need() {
  [[ -n ${opt[$1]} ]] || die "--$1 is missing: $3"
  [[ ${opt[$1]} =~ $2 ]] || die "--$1=${opt[$1]}: $3"
}

# The configuration is a file of this repository, given by its path or by its name in
# configs/, so that the archive holds it.
check_config() {
  local path=${opt[config]}
  [[ $path ]] || die '--config is missing: an experiment such as configs/faces_16_128.py'
  [[ -f $path || ! -f $ROOT/configs/$path.py ]] || path=$ROOT/configs/$path.py
  [[ -f $path || ! -f $ROOT/$path ]] || path=$ROOT/$path
  [[ -f $path ]] || die "--config=$path: no such file"
  path=$(cd "$(dirname "$path")" && pwd)/$(basename "$path")
  [[ $path == "$ROOT"/* ]] || die "--config=$path: put it below $ROOT/configs"
  opt[config]=${path#"$ROOT"/}
  [[ ${opt[config]} =~ ^[A-Za-z0-9_./-]+$ ]] ||
    die "--config=${opt[config]}: letters, digits, _ . / and - only"
}

check_bucket() {
  need workdir '^gs://[a-z0-9][-a-z0-9._]{1,61}[a-z0-9](/[A-Za-z0-9_.=-]+)+/?$' \
    'a folder in a bucket: gs://BUCKET/FOLDER'
  opt[workdir]=${opt[workdir]%/}
  BUCKET=$(cut -d/ -f1-3 <<<"${opt[workdir]}")
}

check_project() {
  need project '^([a-z0-9.-]+:)?[a-z][-a-z0-9]{4,28}[a-z0-9]$' \
    'the ID of a project (gcloud projects list)'
  need zone '^[a-z]+-[a-z]+[0-9]+-[a-z]$' 'a zone such as us-west4-a'
}

program() {
  dry || command -v "$1" >/dev/null || die "$1 is not installed${2:+: $2}"
}

# Checks that ask Google: account, project, interface and bucket.
check_google() {
  local api=$1
  program gcloud 'see https://cloud.google.com/sdk/docs/install'
  ask someone gcloud auth list --filter=status:ACTIVE '--format=value(account)' ||
    die "$(complaint)"
  [[ $ANSWER ]] || die 'nobody is logged in: gcloud auth login'
  look "${opt[project]}" gcloud projects describe "${opt[project]}" \
    '--format=value(projectId)'
  [[ $ANSWER ]] || die "--project=${opt[project]}: no such project"
  ask "$api" gcloud services list --enabled "--project=${opt[project]}" \
    "--filter=config.name=$api" '--format=value(config.name)' || die "$(complaint)"
  [[ $ANSWER ]] || die "turn it on: gcloud services enable $api --project=${opt[project]}"
  look somewhere gcloud storage buckets describe "$BUCKET" '--format=value(location)'
  [[ $ANSWER ]] || die "$BUCKET: no such bucket; gcloud storage buckets create $BUCKET \
--project=${opt[project]} --location=${opt[zone]%-*}"
  local place=${ANSWER,,}
  dry || [[ ${opt[zone]} == "$place"* ]] ||
    note "note: $BUCKET lies in $place, the machine in ${opt[zone]}: slower, may cost"
}

# plan TOPOLOGY: what the run needs on such a machine; a refusal ends the launch. The
# largest batch isn't searched: that is minutes a compilation.
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
    die "the plan ended with exit $code; nothing was created (--no-plan goes without)"
}

# The flags of the run, in FLAGS.
main_flags() {
  FLAGS=("--config=${opt[config]}" "--workdir=${opt[workdir]}")
  [[ ! ${opt[cache]} ]] || FLAGS+=("--cache=${opt[cache]}")
  FLAGS+=("$@" "${extra[@]}")
}

# Archive of what a run needs, in ARCHIVE; SOURCE_ID changes when any file does.
pack() {
  local ship=(setup.py pyproject.toml README.md LICENSE sr3_jax configs launch)
  [[ ${opt[config]} == configs/* ]] || ship+=("${opt[config]}")
  SOURCE_ID=$(find "${ship[@]}" -type f ! -path '*/__pycache__/*' -print0 |
    LC_ALL=C sort -z | xargs -0 cksum | cksum | cut -d' ' -f1)
  ARCHIVE=$STATE/source.tar.gz
  run tar -czf "$ARCHIVE" --exclude=__pycache__ "${ship[@]}"
}

# Copies a workdir in a bucket to the folder of --out.
fetch_bucket() {
  local exclude=(--exclude='.*checkpoints/.*,xla-cache/.*,source/.*')
  [[ ${opt[with-checkpoints]} == no ]] || exclude=(--exclude='xla-cache/.*,source/.*')
  run mkdir -p "${opt[out]}"
  run gcloud storage rsync "${opt[workdir]}" "${opt[out]}" "${exclude[@]}" --recursive
  note "results: ${opt[out]}"
}

# again VERB [OPTION...]: the command for another verb, with the options that name it.
again() {
  local key line="launch/$SCRIPT $1"
  shift
  for key; do
    [[ -z ${opt[$key]:-} || ${opt[$key]} == no ]] || line+=" $(quote "--$key=${opt[$key]}")"
  done
  printf '%s' "$line"
}

# However the script ends, it says what is left and how to delete it.
farewell() {
  local code=$?
  trap - EXIT INT TERM
  if [[ $made ]] && ! dry; then
    note "left: $made"
    note "delete it: $(delete_command)"
  fi
  exit "$code"
}

# main: calls the functions that a script has for its verbs.
main() {
  trap farewell EXIT
  trap 'note interrupted; exit 130' INT
  trap 'exit 143' TERM
  note "dry run: nothing is run; the answers of questions are supposed" | grep '^#' || true
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
