# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154  # shared with the scripts that source this
# This file knows Cloud TPU slices: their names, the arrangement of their chips, and the
# number of their virtual machines.

# Pairs of a number of chips and their topology, from Google's pages of v4, v5e, v5p and
# v6e: flat for v5e and v6e, cubes for v4 and v5p.
FLAT='1 1x1 4 2x2 8 2x4 16 4x4 32 4x8 64 8x8 128 8x16 256 16x16'
CUBES='4 2x2x1 8 2x2x2 16 2x2x4 32 2x4x4 64 4x4x4 128 4x4x8 256 4x8x8 512 8x8x8'

# tpu_facts TYPE: sets GENERATION, CHIPS, TOPOLOGY, HOSTS, RUNTIME, QUOTA and UNITS (how
# much of the quota the slice takes), and for GKE ACCELERATOR, MACHINE and
# CHIPS_PER_HOST.
tpu_facts() {
  local type=$1 size=${1##*-} shapes=$FLAT per_chip=1 spot='' serving=''
  [[ ${opt[spot]} == no ]] || spot=Preemptible
  case $type in
    v4-*)
      GENERATION=v4 per_chip=2 shapes=$CUBES RUNTIME=tpu-ubuntu2204-base
      QUOTA=TPUV4s${spot}Pod ACCELERATOR=tpu-v4-podslice MACHINE=ct4p-hightpu-4t
      ;;
    v5p-*)
      GENERATION=v5p per_chip=2 shapes=$CUBES RUNTIME=v2-alpha-tpuv5
      QUOTA=TPUV5P$spot ACCELERATOR=tpu-v5p-slice MACHINE=ct5p-hightpu-4t
      ;;
    v5litepod-*)
      [[ $size != 1 && $size != 4 && $size != 8 ]] || serving=Serving
      GENERATION=v5e RUNTIME=v2-alpha-tpuv5-lite
      QUOTA=TPUV5s${spot}Litepod$serving ACCELERATOR=tpu-v5-lite-podslice
      MACHINE=ct5lp-hightpu
      ;;
    v6e-*)
      GENERATION=v6e RUNTIME=v2-alpha-tpuv6e
      QUOTA=TPUV6E$spot ACCELERATOR=tpu-v6e-slice MACHINE=ct6e-standard
      ;;
    *) die "--type=$type: known are v4-N, v5litepod-N, v5p-N and v6e-N" ;;
  esac
  QUOTA+=PerProjectPerZoneForTPUAPI
  UNITS=$size
  TOPOLOGY=''
  local chips shape sizes=''
  # shellcheck disable=SC2086  # the variable is split into words on purpose
  set -- $shapes
  while (($#)); do
    chips=$1 shape=$2
    shift 2
    sizes+=" ${type%-*}-$((chips * per_chip))"
    [[ $size != "$((chips * per_chip))" ]] || CHIPS=$chips TOPOLOGY=$shape
  done
  [[ $TOPOLOGY ]] || die "--type=$type: known are$sizes"
  # Flat slices of up to 8 chips are one virtual machine. All other slices have 4 chips
  # for each virtual machine.
  CHIPS_PER_HOST=4
  if [[ $shapes == "$FLAT" ]]; then
    ((CHIPS > 8)) || CHIPS_PER_HOST=$CHIPS
    MACHINE+=-${CHIPS_PER_HOST}t
  fi
  HOSTS=$((CHIPS / CHIPS_PER_HOST))
}

# Takes the runtime version that is given, if it is one of this generation.
check_runtime() {
  local given=${opt[runtime]}
  [[ $given ]] || given=$RUNTIME
  case $given in
    "$RUNTIME" | "$RUNTIME"-*) ;;
    *) die "--runtime=$given does not go with ${opt[type]}: $RUNTIME does" ;;
  esac
  RUNTIME=$given
}
