#!/usr/bin/env bash
# Trains on a TPU slice of Google Kubernetes Engine, as an indexed job of a JobSet.
#
#   launch/gke.sh VERB --project=P --zone=Z --type=v5litepod-16 \
#     --config=configs/imagenet_64_256.py --workdir=gs://BUCKET/RUN [OPTION...] [-- FLAG...]
#
# The verbs are create, setup, run, watch, fetch and delete; all does them in this
# order. create makes a cluster (unless there is one of that name) and a pool of TPU
# nodes in it, and installs JobSet. setup copies the source into the bucket, from where
# each pod installs it. When a pod fails or a spot node is taken away, the cluster
# restarts the job by itself. delete removes the job and the pool, and the cluster if
# create made it.
#
#   --name=sr3           name of the job; the pool is called NAME-tpu
#   --cluster=NAME       a cluster of this zone; default the name of the job
#   --type=TYPE          v5litepod-N and v6e-N (N chips), v4-N and v5p-N (N / 2 chips)
#   --spot               cheaper; may be taken away at any time
#   --image=python:3.12  image of the pods; needs Python 3.11 or later, bash and pip
#   --jobset=v0.8.1      the release of JobSet that create installs
#   --restarts=10        how often the cluster restarts the job
#   --cache=FOLDER       folder of compiled programs; default WORKDIR/xla-cache
#   --out=FOLDER         where fetch copies results and logs to; default runs/NAME
#   --with-checkpoints   lets fetch copy checkpoints, too
#   --python=python3     Python of this machine that makes the plan
#   --no-plan            skips the plan
#   --keep               lets all keep the job, the pool and the cluster
#   --dry-run            prints all commands and runs none
#
# The flags after -- go to sr3_jax.main (sr3-train), for the plan and for the run.
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=topologies.sh
. "$(dirname "${BASH_SOURCE[0]}")/topologies.sh"

opt+=([project]='' [zone]='' [type]='' [cluster]='' [spot]=no [image]=python:3.12
  [jobset]=v0.8.1)

check_gke() {
  check_common
  check_project
  LOCATION=("--project=${opt[project]}" "--zone=${opt[zone]}")
  [[ ${opt[cluster]} ]] || opt[cluster]=${opt[name]}
  require cluster '^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$' 'lower-case letters, digits and -'
  POOL=${opt[name]}-tpu
  require_program gcloud 'see https://cloud.google.com/sdk/docs/install'
  require_program kubectl 'gcloud components install kubectl gke-gcloud-auth-plugin'
  # A file of its own leaves the cluster that your kubectl talks to as it is.
  export KUBECONFIG=$STATE/kubeconfig
  [[ $verb != delete ]] || return 0
  require type '^[a-z0-9]+-[0-9]+$' 'a type such as v5litepod-16'
  tpu_facts "${opt[type]}"
  check_bucket
  require image '^[A-Za-z0-9._:/@-]+$' 'the name of an image'
  require jobset '^v[0-9]+\.[0-9]+\.[0-9]+$' 'a release such as v0.8.1'
  [[ ${opt[cache]} ]] || opt[cache]=${opt[workdir]}/xla-cache
  SOURCE=${opt[workdir]}/source/source.tar.gz
}

set_leftover() {
  leftover="pool $POOL (${opt[type]}) of cluster ${opt[cluster]} in ${opt[zone]}, and the \
cluster: paid by the second"
}

# cluster_state ASSUMED: sets ANSWER to ours if create made the cluster, to theirs if
# somebody else did, and to nothing if there is none.
cluster_state() {
  look_up "$1" gcloud container clusters describe "${opt[cluster]}" "${LOCATION[@]}" \
    '--format=value(status,resourceLabels.made-by)'
  case $ANSWER in
    '') ;;
    *sr3-jax*) ANSWER=ours ;;
    *) ANSWER=theirs ;;
  esac
}

pool_state() {
  look_up "$1" gcloud container node-pools describe "$POOL" "--cluster=${opt[cluster]}" \
    "${LOCATION[@]}" '--format=value(status)'
}

credentials() {
  run gcloud container clusters get-credentials "${opt[cluster]}" "${LOCATION[@]}"
}

do_create() {
  check_google container.googleapis.com
  plan "$GENERATION:$TOPOLOGY"
  cluster_state ''
  set_leftover
  if [[ $ANSWER ]]; then
    note "cluster ${opt[cluster]} exists already"
  else
    run gcloud container clusters create "${opt[cluster]}" "${LOCATION[@]}" --num-nodes=1 \
      --machine-type=e2-standard-4 --labels=made-by=sr3-jax
  fi
  pool_state ''
  if [[ $ANSWER ]]; then
    note "pool $POOL exists already: $ANSWER"
  else
    local more=()
    ((HOSTS == 1)) || more+=("--tpu-topology=$TOPOLOGY")
    [[ ${opt[spot]} == no ]] || more+=(--spot)
    run gcloud container node-pools create "$POOL" "--cluster=${opt[cluster]}" \
      "${LOCATION[@]}" "--machine-type=$MACHINE" "--num-nodes=$HOSTS" \
      --scopes=cloud-platform "${more[@]}"
  fi
  credentials
  run kubectl apply --server-side -f \
    "https://github.com/kubernetes-sigs/jobset/releases/download/${opt[jobset]}/manifests.yaml"
}

do_setup() {
  set_leftover
  pack
  look_up none gcloud storage cat "${SOURCE%.tar.gz}.id"
  if [[ $ANSWER == "$SOURCE_ID" ]]; then
    note "set up already, with source $SOURCE_ID"
    return
  fi
  dry || echo "$SOURCE_ID" >"$STATE/source.id"
  run gcloud storage cp "$ARCHIVE" "$SOURCE"
  run gcloud storage cp "$STATE/source.id" "${SOURCE%.tar.gz}.id"
}

# yaml WORD: prints a word as a string of YAML.
yaml() {
  local word=${1//\\/\\\\}
  printf '"%s"' "${word//\"/\\\"}"
}

# Prints the JobSet. Its pods are numbered (Indexed). GKE tells each pod its number and
# the names of all pods, which jax.distributed.initialize() reads.
manifest() {
  local multihost=() flag spot=''
  ((HOSTS == 1)) || multihost=(--multihost)
  main_flags "${multihost[@]}"
  [[ ${opt[spot]} == no ]] || spot='cloud.google.com/gke-spot: "true"'
  cat <<END
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: ${opt[name]}
  labels: {made-by: sr3-jax}
  annotations:
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
spec:
  failurePolicy: {maxRestarts: ${opt[restarts]}}
  replicatedJobs:
  - name: workers
    replicas: 1
    template:
      spec:
        completionMode: Indexed
        parallelism: $HOSTS
        completions: $HOSTS
        backoffLimit: 0
        template:
          spec:
            restartPolicy: Never
            terminationGracePeriodSeconds: 60
            nodeSelector:
              cloud.google.com/gke-nodepool: $POOL
              cloud.google.com/gke-tpu-accelerator: $ACCELERATOR
              cloud.google.com/gke-tpu-topology: $TOPOLOGY
${spot:+              $spot
}            containers:
            - name: main
              image: ${opt[image]}
              ports: [{containerPort: 8471}, {containerPort: 8482}]
              resources:
                requests: {google.com/tpu: $CHIPS_PER_HOST}
                limits: {google.com/tpu: $CHIPS_PER_HOST}
              command:
              - bash
              - -c
              - |
                set -euo pipefail
                mkdir -p ~/sr3_jax/src
                cd ~/sr3_jax/src
                pip install --quiet gcsfs
                python -c 'import fsspec, sys; fsspec.filesystem("gs").get(*sys.argv[1:])' \\
                  $SOURCE source.tar.gz
                tar -xzf source.tar.gz
                pip install --quiet '.[tpu,tfds]'
                exec python -u -m sr3_jax.main "\$@"
              - main
END
  for flag in "${FLAGS[@]}"; do printf '              - %s\n' "$(yaml "$flag")"; done
}

# job_state ASSUMED: sets ANSWER to Completed, Failed, running, or nothing if there is
# no job, and RESTARTED to the number of restarts.
job_state() {
  look_up "$1" kubectl get jobset "${opt[name]}" -o \
    'jsonpath=job {.status.restarts}{range .status.conditions[?(@.status=="True")]} {.type}{end}'
  local restarts
  restarts=$(cut -d' ' -f2 <<<"$ANSWER")
  RESTARTED=${restarts:-0}
  case " $ANSWER " in
    '  ') ;;
    *' Completed '*) ANSWER=Completed ;;
    *' Failed '*) ANSWER=Failed ;;
    *) ANSWER=running ;;
  esac
}

do_run() {
  set_leftover
  job_state ''
  case $ANSWER in
    running)
      note "the job ${opt[name]} is running already"
      return
      ;;
    Completed | Failed) run kubectl delete jobset "${opt[name]}" ;;
  esac
  if dry; then manifest | sed 's/^/# jobset.yaml: /'; else manifest >"$STATE/jobset.yaml"; fi
  run kubectl apply -f "$STATE/jobset.yaml"
}

do_watch() {
  set_leftover
  local last=''
  while true; do
    job_state 'job 0 Completed'
    case $ANSWER in
      '') die "there is no job ${opt[name]}: launch/$SCRIPT run" ;;
      Completed) break ;;
      Failed) die "the job failed, after $RESTARTED restarts: kubectl logs, or fetch" ;;
    esac
    if ask '' kubectl logs "--selector=jobset.sigs.k8s.io/jobset-name=${opt[name]}" \
      --prefix --tail=1 --max-log-requests=500; then
      [[ $ANSWER == "$last" ]] || note "$ANSWER"
      last=$ANSWER
    fi
    pause
  done
  note "the run is finished, after $RESTARTED restarts"
}

do_fetch() {
  set_leftover
  fetch_bucket
  run mkdir -p "${opt[out]}/logs/launch"
  ask '' kubectl get pods "--selector=jobset.sigs.k8s.io/jobset-name=${opt[name]}" \
    -o name || die "$(complaint)"
  local pod
  for pod in $ANSWER; do
    show kubectl logs "$pod"
    kubectl logs "$pod" >"${opt[out]}/logs/launch/${pod#pod/}.log" 2>"$STATE/stderr" ||
      note "note: no log of $pod: $(complaint)"
  done
}

do_delete() {
  leftover="pool $POOL and cluster ${opt[cluster]} in ${opt[zone]}, if they were there"
  cluster_state 'RUNNING sr3-jax'
  case $ANSWER in
    '') note "cluster ${opt[cluster]} is gone already" ;;
    ours) run gcloud container clusters delete "${opt[cluster]}" "${LOCATION[@]}" --quiet ;;
    theirs)
      credentials
      run kubectl delete jobset "${opt[name]}" --ignore-not-found
      pool_state RUNNING
      if [[ $ANSWER ]]; then
        run gcloud container node-pools delete "$POOL" "--cluster=${opt[cluster]}" \
          "${LOCATION[@]}" --quiet
      else
        note "pool $POOL is gone already"
      fi
      ;;
  esac
  leftover=''
  note "deleted: ${opt[name]}; the bucket keeps the results"
}

delete_command() { command_for delete project zone name cluster; }

pause() { dry || sleep "$POLL"; }

parse "$@"
check_gke
main
