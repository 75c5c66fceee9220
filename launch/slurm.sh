#!/usr/bin/env bash
# Trains on GPU nodes of a SLURM cluster, with one process for each GPU, as JAX does
# there.
#
#   launch/slurm.sh VERB [--host=USER@LOGIN] --nodes=2 --gpus=8 --time=24:00:00 \
#     --config=configs/imagenet_64_256.py --workdir=/shared/RUN [OPTION...] [-- FLAG...]
#
# The verbs are create, setup, run, watch, fetch and delete; all does them in this
# order. create lists the partitions, and run submits a job. A job that fails, is
# preempted or reaches its time limit goes back into the queue by itself, at most
# --restarts times, and continues from its newest checkpoint. delete cancels the job and
# removes its source, environment and logs; the workdir stays. All nodes have to share
# the home folder.
#
#   --name=sr3           name of the job; its folder is ~/sr3_jax/NAME
#   --host=USER@LOGIN    login node, which ssh has to reach without a password; default
#                        this machine
#   --workdir=FOLDER     absolute path of a folder that all nodes share, or
#                        gs://BUCKET/RUN
#   --nodes=1 --gpus=8   number of nodes, and of GPUs in each
#   --time=24:00:00      time limit of one job
#   --partition=NAME     option of sbatch
#   --account=NAME       option of sbatch
#   --modules=A,B        modules that the job loads by module load
#   --topology=NAME      makes a plan for such machines, for example h100:16
#   --restarts=10        how often the job goes back into the queue
#   --cache=FOLDER       folder of compiled programs; default ~/.cache/sr3_jax/xla
#   --out=FOLDER         where fetch copies results to; default runs/NAME
#   --with-checkpoints   lets fetch copy checkpoints, too
#   --python=python3     Python of this machine that makes the plan
#   --keep               lets all keep the folder
#   --dry-run            prints all commands and runs none
#
# The flags after -- go to sr3_jax.main (sr3-train), for the plan and for the run.
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=machines.sh
. "$(dirname "${BASH_SOURCE[0]}")/machines.sh"
# shellcheck source=shell.sh
. "$(dirname "${BASH_SOURCE[0]}")/shell.sh"

opt+=([nodes]=1 [gpus]=8 [time]=24:00:00 [partition]='' [account]='' [modules]=''
  [topology]='')
HOSTS=1
EXTRA=cuda

check_slurm() {
  require nodes '^[1-9][0-9]*$' 'a number'
  require gpus '^[1-9][0-9]?$' 'the GPUs of one node'
  require time '^([0-9]+-)?[0-9]{1,2}(:[0-9]{2}){1,2}$' 'hours:minutes:seconds'
  [[ ! ${opt[partition]} ]] || require partition '^[A-Za-z0-9_.,-]+$' 'a name'
  [[ ! ${opt[account]} ]] || require account '^[A-Za-z0-9_.-]+$' 'a name'
  [[ ! ${opt[modules]} ]] || require modules '^[A-Za-z0-9_./,+-]+$' 'names, with commas'
}

set_leftover() {
  leftover="folder $(remote) in the home of $PLACE, and the job ${opt[name]} if it is queued \
or running"
}

do_create() {
  local partition=()
  [[ ! ${opt[partition]} ]] || partition=("--partition=${opt[partition]}")
  ask_workers '' "sinfo --noheader $(quote "${partition[@]}" '--format=%P %D %G %l')" ||
    die "$PLACE: $(complaint)"
  dry || [[ $ANSWER ]] || die "--partition=${opt[partition]}: no such partition"
  note "partitions (name, nodes, GPUs, limit):"$'\n'"$ANSWER"
  plan_named
}

# Prints the job. JAX gives GPU i of a node to its process i, so each process has to see
# all GPUs (--gpu-bind=none). A process that dies ends the others (--kill-on-bad-exit).
job_text() {
  local multihost=()
  ((opt[nodes] * opt[gpus] == 1)) || multihost=(--multihost)
  main_flags "${multihost[@]}"
  cat <<END
#!/bin/bash
#SBATCH --job-name=${opt[name]}
#SBATCH --nodes=${opt[nodes]}
#SBATCH --ntasks-per-node=${opt[gpus]}
#SBATCH --gpus-per-node=${opt[gpus]}
#SBATCH --time=${opt[time]}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
#SBATCH --output=$(remote)/logs/job-%j.log
${opt[partition]:+#SBATCH --partition=${opt[partition]}
}${opt[account]:+#SBATCH --account=${opt[account]}
}cd ~/$(remote) || exit 1
${opt[modules]:+module load ${opt[modules]//,/ }
}code=0
srun --kill-on-bad-exit=1 --gpu-bind=none --open-mode=append \\
  --output=logs/job-%j-process-%t.log --chdir="\$PWD/src" \\
  ../venv/bin/python -u -m sr3_jax.main $(quote "${FLAGS[@]}") || code=\$?
again=\${SLURM_RESTART_COUNT:-0}
if ((code != 0 && again < ${opt[restarts]} && (SECONDS >= $QUICK || again < 2))); then
  echo "exit \$code: the job goes back into the queue"
  scontrol requeue "\$SLURM_JOB_ID"
fi
exit "\$code"
END
}

# Sets QUEUED to number and state of the job, or to nothing if it is not in the queue.
find_job() {
  ask_workers '' "squeue --me --noheader $(quote "--name=${opt[name]}" '--format=%i %T %r')" ||
    die "$PLACE: $(complaint)"
  QUEUED=$ANSWER
}

do_run() {
  set_leftover
  find_job
  if [[ $QUEUED ]]; then
    note "the job is there already: $QUEUED"
    return
  fi
  if dry; then job_text | sed 's/^/# job.sbatch: /'; else job_text >"$STATE/job.sbatch"; fi
  to_workers "$STATE/job.sbatch" "sr3_jax-${opt[name]}.sbatch"
  on_workers "cd && mkdir -p $(remote)/logs && \
sbatch --parsable sr3_jax-${opt[name]}.sbatch >$(remote)/job && cat $(remote)/job"
}

do_watch() {
  set_leftover
  local last=''
  while true; do
    find_job
    [[ $QUEUED ]] || break
    [[ $QUEUED == "$last" ]] || note "job $QUEUED"
    last=$QUEUED
    pause
  done
  ask_workers 'COMPLETED' "sacct --noheader --allocations --parsable2 --format=State,ExitCode \
--jobs=\"\$(cut -d';' -f1 $(remote)/job)\" | tail -n 1" || die "$PLACE: $(complaint)"
  [[ $ANSWER == COMPLETED* ]] || dry ||
    die "the job ended as ${ANSWER:-unknown}: see $(remote)/logs in the home of $PLACE"
  note 'the run is finished'
}

stop_command() { printf 'scancel --me --name=%s' "${opt[name]}"; }

parse "$@"
check_common
check_shell
check_slurm
main
