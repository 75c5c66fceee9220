"""Tests of watch (preemption, failing workers, restarts) and of the files of jobs."""

import os
import subprocess
import time

import pytest
import yaml

from tests.support.launchers import LAUNCH, OPTIONS, Stage


@pytest.fixture
def stage(tmp_path):
  stage = Stage(tmp_path, workers=2)
  (stage.fake / 'state').mkdir()
  return stage


def started_runs(stage):
  """Return the calls of sr3_jax.main on all workers."""
  return stage.on_workers('sr3_jax.main')


def test_a_preempted_slice_is_requested_again_and_the_run_continues(stage):
  stage.answers('request', '!NOT_FOUND: not found', 'WAITING_FOR_RESOURCES', 'ACTIVE')
  assert stage.run('tpu_slice', 'create').code == 0
  stage.run('tpu_slice', 'setup')
  stage.run('tpu_slice', 'run')
  stage.answers('request', 'SUSPENDED', 'PROVISIONING', 'ACTIVE')
  run = stage.run('tpu_slice', 'watch')
  assert run.code == 0, run.error
  assert 'the machine is SUSPENDED: starting again (1 of 10)' in run.out
  kinds = [next((w for w in RESTART if w in ' '.join(x)), None) for x in run.calls]
  assert [x for x in kinds if x] == list(RESTART)
  assert run.made('queued-resources create')[0].count('--spot') == 1
  # All commands are equal, so the run finds its checkpoints in the bucket.
  assert len(started_runs(stage)) == 4 and len(set(started_runs(stage))) == 1
  assert (
    '--multihost' in started_runs(stage)[0]
    and 'gs://bucket/run' in started_runs(stage)[0]
  )


@pytest.mark.parametrize('state', ['FAILED', 'SUSPENDED'])
def test_a_failed_request_is_replaced_by_another(stage, state):
  (stage.fake / 'state' / 'request').write_text(state)
  run = stage.run('tpu_slice', 'create')
  assert run.code == 0 and stage.state('request') == 'ACTIVE', run.error
  assert f'sr3 is {state}: requesting another' in run.out


# The calls that replace a slice and restart the run, in this order.
RESTART = (
  'queued-resources delete',
  'queued-resources create',
  'scp',
  'worker.sh setup',
  'worker.sh start',
  'worker.sh status',
)


def start_run(stage, script='tpu_slice'):
  for verb in ('create', 'setup', 'run'):
    run = stage.run(script, verb)
    assert run.code == 0, run.error


def test_a_failing_worker_restarts_the_run_on_all_workers(stage):
  stage.answers('exit1', '17')  # the first run of the second worker
  start_run(stage)
  run = stage.run('tpu_slice', 'watch')
  assert run.code == 0, run.error
  assert 'worker w1 done 17: starting again (1 of 10)' in run.out
  assert 'the end: 17' in run.out  # the last line of its log
  assert run.made('worker.sh stop') and not run.made('queued-resources create')
  assert len(started_runs(stage)) == 4
  logs = sorted(x.name for x in stage.fake.glob('w*/sr3_jax/sr3/logs/*'))
  assert logs == ['w0-0001.log', 'w0-0002.log', 'w1-0001.log', 'w1-0002.log']


def test_logs_are_copied_to_a_workdir_on_a_disk(stage, tmp_path):
  workdir = tmp_path / 'data'
  workdir.mkdir()
  options = ['--host=me@box', f'--workdir={workdir}']
  for verb in ('create', 'setup', 'run'):
    assert stage.run('gpu', verb, options=options).code == 0
  copy = workdir / 'logs' / 'launch' / 'w0-0001.log'
  deadline = time.monotonic() + 20
  while not copy.exists() or 'the end: 0' not in copy.read_text():
    assert time.monotonic() < deadline
    time.sleep(0.05)


def test_a_run_that_fails_at_once_twice_is_not_restarted(stage):
  stage.answers('exit0', '1', '1', '1')
  start_run(stage)
  run = stage.run('tpu_slice', 'watch')
  assert run.code == 1 and 'twice within 120 s of its start' in run.errors[0]
  assert len(started_runs(stage)) == 4
  assert 'delete it: launch/tpu_slice.sh delete' in run.out


def test_there_are_at_most_as_many_restarts_as_the_option_says(stage):
  start_run(stage)
  stage.answers('request', 'SUSPENDED', 'ACTIVE', 'SUSPENDED')
  run = stage.run('tpu_slice', 'watch', '--restarts=1')
  assert run.code == 1 and '(--restarts)' in run.errors[0]
  assert len(run.made('queued-resources create')) == 1
  assert 'delete it' in run.out


def test_a_machine_that_someone_deleted_is_not_replaced(stage):
  start_run(stage)
  stage.run('tpu_slice', 'delete', options=OPTIONS['tpu_slice'][:2])
  run = stage.run('tpu_slice', 'watch')
  assert run.code == 1 and 'there is no sr3 any more' in run.errors[0]
  assert not run.made(' create ')


def test_a_machine_that_does_not_answer_is_replaced(stage):
  start_run(stage)
  stage.answers('ssh', *['!connection refused'] * 5)
  run = stage.run('tpu_slice', 'watch')
  assert run.code == 0, run.error
  assert 'no answer five times: ERROR: (gcloud) connection refused' in run.out
  assert len(run.made('queued-resources create')) == 1


def test_create_ends_when_the_request_is_refused(stage):
  stage.answers('request', '!NOT_FOUND: not found', 'CREATING', 'FAILED')
  run = stage.run('tpu_slice', 'create')
  assert run.code == 1 and 'ended as FAILED' in run.errors[0]
  assert 'delete it' in run.out
  (stage.fake / 'state' / 'request').write_text('FAILED')
  stage.answers('request', 'FAILED')
  again = stage.run('tpu_slice', 'create')
  assert again.code == 1 or again.made('queued-resources delete')


def test_stop_sends_sigterm_so_that_the_run_saves(stage, tmp_path):
  stage.make_endless()
  start_run(stage, 'gpu')
  worker = [stage.fake / 'w0' / 'sr3_jax' / 'sr3' / 'src' / 'launch' / 'worker.sh']
  environment = {**stage.environment, 'WORKER': '0', 'HOME': str(stage.fake / 'w0')}
  log = stage.fake / 'w0' / 'sr3_jax' / 'sr3' / 'logs' / 'w0-0001.log'

  def call_worker(verb):
    done = subprocess.run(
      ['bash', *worker, verb],
      env=environment,
      capture_output=True,
      text=True,
      check=True,
    )
    return done.stdout.splitlines()

  until = time.monotonic() + 30
  while not (log.exists() and 'step 1' in log.read_text()) and time.monotonic() < until:
    time.sleep(0.02)
  assert call_worker('status')[0] == 'worker w0 running'
  assert call_worker('stop') == ['worker w0 stopped']
  assert 'saved' in log.read_text()
  assert call_worker('status')[0] == 'worker w0 done 143'


def test_the_gpus_option_chooses_the_visible_gpus(stage):
  run = stage.run('gpu', 'run', '--gpus=0,2', '--dry-run')
  assert 'worker.sh start CUDA_VISIBLE_DEVICES=0,2 -- --config=' in run.out


def jobset(stage, *more):
  run = stage.run('gke', 'run', *more)
  assert run.code == 0, run.error
  text = next(stage.fake.parent.glob('.cache/**/jobset.yaml')).read_text()
  return yaml.safe_load(text)


def test_the_jobset_is_an_indexed_job_over_the_slice(stage):
  flag = r'--config.data.path=gs://b/a "b" \c: d'
  made = jobset(stage, '--', flag)
  assert made['kind'] == 'JobSet' and made['metadata']['name'] == 'sr3'
  assert made['spec']['failurePolicy'] == {'maxRestarts': 10}
  job = made['spec']['replicatedJobs'][0]['template']['spec']
  assert (job['parallelism'], job['completions'], job['backoffLimit']) == (4, 4, 0)
  assert job['completionMode'] == 'Indexed'
  pod = job['template']['spec']
  assert pod['nodeSelector'] == {
    'cloud.google.com/gke-nodepool': 'sr3-tpu',
    'cloud.google.com/gke-tpu-accelerator': 'tpu-v5-lite-podslice',
    'cloud.google.com/gke-tpu-topology': '4x4',
    'cloud.google.com/gke-spot': 'true',
  }
  container = pod['containers'][0]
  assert container['resources']['limits'] == {'google.com/tpu': 4}
  assert container['command'][-1] == flag and '--multihost' in container['command']
  script = container['command'][2]
  assert subprocess.run(['bash', '-n', '-c', script], check=False).returncode == 0
  assert 'gs://bucket/run/source/source.tar.gz' in script


def test_a_slice_of_one_host_has_no_topology_flag_and_one_process(stage):
  options = [*OPTIONS['gke'][:3], '--type=v6e-8']
  run = stage.run('gke', 'all', '--dry-run', options=options)
  text = run.out
  assert '--machine-type=ct6e-standard-8t --num-nodes=1' in text
  assert '--tpu-topology' not in text and '--multihost' not in text
  assert 'parallelism: 1' in text and 'google.com/tpu: 8' in text


def test_a_failed_job_of_gke_can_be_run_again(stage):
  """Kubernetes keeps a failed job and ignores an equal one, so run deletes it first."""
  start_run(stage, 'gke')
  (stage.fake / 'state' / 'job').write_text('job 3 Failed')
  run = stage.run('gke', 'run')
  assert run.code == 0 and stage.state('job') == 'job 0 Completed'


def test_watch_reports_a_failed_gke_job_and_delete_leaves_the_cluster_of_others(stage):
  (stage.fake / 'state' / 'cluster').write_text('RUNNING')
  assert stage.run('gke', 'create').code == 0
  stage.answers('job', 'job 0', 'job 3 Failed')
  run = stage.run('gke', 'watch')
  assert run.code == 1 and 'after 3 restarts' in run.errors[0]
  assert '[pod/sr3-workers-0-0-abcde/main] step 7' in run.out
  deleted = stage.run('gke', 'delete', options=OPTIONS['gke'][:2])
  assert deleted.code == 0 and stage.state('cluster') == 'RUNNING'
  assert stage.state('pool') is None and deleted.made('kubectl delete jobset')


def test_watch_reports_a_failed_slurm_job(stage):
  start_run(stage, 'slurm')
  stage.answers('queue', '4711 PENDING Priority', '4711 RUNNING None')
  stage.answers('accounts', 'TIMEOUT|0:0')
  run = stage.run('slurm', 'watch')
  assert run.code == 1 and 'ended as TIMEOUT' in run.errors[0]
  assert 'job 4711 PENDING Priority' in run.out
  assert stage.on_workers('sacct', '--jobs=4711')


@pytest.mark.parametrize(
  ('code', 'count', 'seconds', 'requeued'),
  [
    *((0, 0, 0, False), (1, 0, 0, True), (1, 2, 0, False)),
    *((0, 0, 500, False), (1, 9, 500, True), (1, 10, 500, False)),
  ],
)
def test_a_failed_slurm_job_is_requeued(stage, code, count, seconds, requeued):
  """At most ten times, and at most twice if it fails within two minutes."""
  start_run(stage, 'slurm')
  home = stage.fake / 'w0'
  text = (home / 'sr3_jax-sr3.sbatch').read_text()
  for line in ('--ntasks-per-node=8', '--gpus-per-node=8', '--requeue', '--nodes=1'):
    assert f'#SBATCH {line}\n' in text
  stage.answers('srun', str(code))
  environment = {
    **stage.environment,
    'HOME': str(home),
    'WORKER': '0',
    'SLURM_JOB_ID': '4711',
    'SLURM_RESTART_COUNT': str(count),
  }
  text = f'SECONDS={seconds}\n{text}'
  done = subprocess.run(['bash', '-c', text], env=environment, cwd=home, check=False)
  assert done.returncode == code
  assert bool(stage.on_workers('scontrol', '"requeue", "4711"')) == requeued
  assert stage.on_workers('srun', '--kill-on-bad-exit=1', '--gpu-bind=none')


def test_a_slurm_job_with_one_gpu_has_one_process(stage):
  several = stage.run('slurm', 'run', '--dry-run')
  one = stage.run('slurm', 'run', '--dry-run', '--gpus=1')
  assert '--multihost' in several.out
  assert '--multihost' not in one.out and '--gpus-per-node=1' in one.out


TOPOLOGIES = [  # from Google's pages of v4, v5e, v5p and v6e, November 2026
  ('v4-8', 'v4:2x2x1', 1),
  ('v4-32', 'v4:2x2x4', 4),
  ('v4-128', 'v4:4x4x4', 16),
  ('v5litepod-1', 'v5e:1x1', 1),
  ('v5litepod-8', 'v5e:2x4', 1),
  ('v5litepod-16', 'v5e:4x4', 4),
  ('v5litepod-256', 'v5e:16x16', 64),
  ('v5p-64', 'v5p:2x4x4', 8),
  ('v5p-1024', 'v5p:8x8x8', 128),
  ('v6e-8', 'v6e:2x4', 1),
  ('v6e-128', 'v6e:8x16', 32),
]


@pytest.mark.parametrize(('slice_type', 'topology', 'hosts'), TOPOLOGIES)
def test_topologies_are_those_of_google(slice_type, topology, hosts):
  text = (
    f'. {LAUNCH}/common.sh; . {LAUNCH}/topologies.sh; opt[spot]=no;'
    f' tpu_facts {slice_type}; echo $GENERATION:$TOPOLOGY $HOSTS'
  )
  done = subprocess.run(
    ['bash', '-c', text], capture_output=True, text=True, check=True, env=os.environ
  )
  assert done.stdout.split() == [topology, str(hosts)]
