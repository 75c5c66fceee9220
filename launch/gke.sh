#!/usr/bin/env bash
# A run on a TPU slice of Google Kubernetes Engine, as an indexed job of a JobSet.
#
#   launch/gke.sh VERB --project=P --zone=Z --type=v5litepod-16 \
#     --config=configs/imagenet_64_256.py --workdir=gs://BUCKET/RUN [OPTION...] [-- FLAG...]
#
# Verbs: create, setup, run, watch, fetch, delete; all does them in this order.
# create makes a cluster (unless there is one of that name), a pool of TPU nodes in it,
# and installs JobSet. setup puts the source into the bucket; each pod installs it. The
# cluster starts a job again by itself when a pod fails or a spot node is taken away.
# delete removes the job and the pool, and the cluster if create made it.
#
#   --name=sr3           name of the job; NAME-tpu is the pool
#   --cluster=NAME       an existing cluster of this zone; or one called like --name
#   --type=TYPE          v5litepod-N and v6e-N (N chips), v4-N and v5p-N (N / 2 chips)
#   --spot               cheaper; may be taken away at any time
#   --image=python:3.12  what pods start from: Python 3.11 or later, bash and pip
#   --jobset=v0.8.1      release of JobSet that create installs
#   --restarts=10        how often the job is started again
#   --cache=FOLDER       compiled programs; WORKDIR/xla-cache
#   --out=FOLDER         where fetch copies results and logs to; runs/NAME
#   --with-checkpoints   fetch copies checkpoints too
#   --python=python3     the Python here that makes the plan
#   --no-plan            goes without the plan
#   --keep               all leaves the job, the pool and the cluster
#   --dry-run            prints every command and runs none
#
# Flags after -- go to sr3_jax.main, for the plan and for the run.
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=topologies.sh
. "$(dirname "${BASH_SOURCE[0]}")/topologies.sh"

opt+=([project]='' [zone]='' [type]='' [cluster]='' [spot]=no [image]=python:3.12
  [jobset]=v0.8.1)

check_gke() {
  check_common
  check_project
  THERE=("--project=${opt[project]}" "--zone=${opt[zone]}")
  [[ ${opt[cluster]} ]] || opt[cluster]=${opt[name]}
  need cluster '^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$' 'lower-case letters, digits and -'
  POOL=${opt[name]}-tpu
  program gcloud 'see https://cloud.google.com/sdk/docs/install'
  program kubectl 'gcloud components install kubectl gke-gcloud-auth-plugin'
  # A file of its own: the reader's kubectl goes on talking to whom it talked before.
  export KUBECONFIG=$STATE/kubeconfig
  [[ $verb != delete ]] || return 0
  need type '^[a-z0-9]+-[0-9]+$' 'a type such as v5litepod-16'
  tpu_facts "${opt[type]}"
  check_bucket
  need image '^[A-Za-z0-9._:/@-]+$' 'the name of an image'
  need jobset '^v[0-9]+\.[0-9]+\.[0-9]+$' 'a release such as v0.8.1'
  [[ ${opt[cache]} ]] || opt[cache]=${opt[workdir]}/xla-cache
  SOURCE=${opt[workdir]}/source/source.tar.gz
}

describe_left() {
  made="pool $POOL (${opt[type]}) of cluster ${opt[cluster]} in ${opt[zone]}, and the \
cluster: paid by the second"
}

# cluster_state ANSWER: whose it is, in ANSWER: ours, theirs, or nothing.
cluster_state() {
  look "$1" gcloud container clusters describe "${opt[cluster]}" "${THERE[@]}" \
    '--format=value(status,resourceLabels.made-by)'
  case $ANSWER in
    '') ;;
    *sr3-jax*) ANSWER=ours ;;
    *) ANSWER=theirs ;;
  esac
}

pool_state() {
  look "$1" gcloud container node-pools describe "$POOL" "--cluster=${opt[cluster]}" \
    "${THERE[@]}" '--format=value(status)'
}

credentials() {
  run gcloud container clusters get-credentials "${opt[cluster]}" "${THERE[@]}"
}

do_create() {
  check_google container.googleapis.com
  plan "$GENERATION:$TOPOLOGY"
  cluster_state ''
  describe_left
  if [[ $ANSWER ]]; then
    note "cluster ${opt[cluster]} exists already"
  else
    run gcloud container clusters create "${opt[cluster]}" "${THERE[@]}" --num-nodes=1 \
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
      "${THERE[@]}" "--machine-type=$MACHINE" "--num-nodes=$HOSTS" \
      --scopes=cloud-platform "${more[@]}"
  fi
  credentials
  run kubectl apply --server-side -f \
    "https://github.com/kubernetes-sigs/jobset/releases/download/${opt[jobset]}/manifests.yaml"
}

do_setup() {
  describe_left
  pack
  look none gcloud storage cat "${SOURCE%.tar.gz}.id"
  if [[ $ANSWER == "$SOURCE_ID" ]]; then
    note "set up already, with source $SOURCE_ID"
    return
  fi
  dry || echo "$SOURCE_ID" >"$STATE/source.id"
  run gcloud storage cp "$ARCHIVE" "$SOURCE"
  run gcloud storage cp "$STATE/source.id" "${SOURCE%.tar.gz}.id"
}

# A word as a string of YAML.
yaml() {
  local word=${1//\\/\\\\}
  printf '"%s"' "${word//\"/\\\"}"
}

# Pods are numbered (Indexed); GKE tells each its number and the names of all, which is
# what jax.distributed.initialize() reads.
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
                pip install --quiet '.[tpu]'
                exec python -u -m sr3_jax.main "\$@"
              - main
END
  for flag in "${FLAGS[@]}"; do printf '              - %s\n' "$(yaml "$flag")"; done
}

# job_state ANSWER: "" where there is no job, else Completed, Failed or running.
job_state() {
  look "$1" kubectl get jobset "${opt[name]}" -o \
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
  describe_left
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
  describe_left
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
  describe_left
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
  made="pool $POOL and cluster ${opt[cluster]} in ${opt[zone]}, if they were there"
  cluster_state 'RUNNING sr3-jax'
  case $ANSWER in
    '') note "cluster ${opt[cluster]} is gone already" ;;
    ours) run gcloud container clusters delete "${opt[cluster]}" "${THERE[@]}" --quiet ;;
    theirs)
      credentials
      run kubectl delete jobset "${opt[name]}" --ignore-not-found
      pool_state RUNNING
      if [[ $ANSWER ]]; then
        run gcloud container node-pools delete "$POOL" "--cluster=${opt[cluster]}" \
          "${THERE[@]}" --quiet
      else
        note "pool $POOL is gone already"
      fi
      ;;
  esac
  made=''
  note "deleted: ${opt[name]}; the bucket keeps the results"
}

delete_command() { again delete project zone name cluster; }

pause() { dry || sleep "$POLL"; }

parse "$@"
check_gke
main
