"""Tests of deployment/: training by processes that are started one by one."""

import glob
import os
import re

import pytest

from datasets.conversion import convert_photos, draw_flowers
from evaluation import curves
from kits import cluster_kit, run_kit
from kits.trained_kit import make_dataset, read_variables
from runs import checkpoints

# A network that learns the sample's flowers in 50 steps.
FLOWERS = ['--dataset_name=flowers', '--model_name=lenet']


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return make_dataset(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module')
def flowers(tmp_path_factory):
  folder = tmp_path_factory.mktemp('sample')
  draw_flowers.draw_all(str(folder / 'flowers'), per_class=100)
  convert_photos.convert(str(folder), 'flowers', percent_validation=40)
  return str(folder)


def has_trained(log):
  return len(cluster_kit.steps_and_losses(log)) > 1


@pytest.mark.slow
@pytest.mark.parametrize('flags', [[], ['--sync_replicas']],
                         ids=['asynchronous', 'synchronous'])
def test_workers_learn_the_sample_and_the_checkpoint_is_accurate(
    flowers, tmp_path, flags):
  with cluster_kit.Tasks(
      flowers, tmp_path, '--max_number_of_steps=50', '--batch_size=128',
      '--optimizer=adam', '--learning_rate=0.001', *FLOWERS, *flags) as tasks:
    server, chief, other = tasks.start_all()
    assert [task.wait() for task in (chief, other, server)] == [0, 0, 0], (
        chief.log)
    assert cluster_kit.loss_fell(chief.log, other.log)
    assert has_trained(chief.log) and has_trained(other.log)
    for task in (server, chief, other):
      assert 'Traceback' not in task.log and 'ERROR' not in task.log
  # Only the chief writes summaries.
  assert len(glob.glob(str(tasks.train_dir / 'events.*'))) == 1
  assert len(curves.read(str(tasks.train_dir)).training_loss) > 1
  newest = checkpoints.newest(str(tasks.train_dir))
  assert checkpoints.read_global_step(newest) >= 50
  assert os.path.basename(newest) == run_kit.listed_paths(tasks.train_dir)[-1]
  # The variables by which the tasks communicate are not in checkpoints.
  assert not [name for name in read_variables(newest) if 'board' in name]
  photos, accuracy, _ = run_kit.evaluate(
      newest, tmp_path / 'eval', '--dataset_dir=' + flowers, *FLOWERS)
  # 0.63 to 0.72 in 16 runs; by chance 0.2.
  assert photos == 200 and accuracy > 0.5


@pytest.mark.slow
def test_killed_tasks_rejoin_and_all_end_with_the_chief(data, tmp_path):
  with cluster_kit.Tasks(data, tmp_path, '--save_interval_secs=1') as tasks:
    server, chief, other = tasks.start_all()
    other.wait_for(lambda: has_trained(chief.log) and has_trained(other.log))
    other.kill()
    # The chief does not wait for the killed worker.
    step = chief.steps[-1]
    chief.wait_for(lambda: chief.steps[-1] > step + 20)
    other = tasks.start('worker', 1)
    other.wait_for(lambda: has_trained(other.log))
    assert other.steps[0] > step

    chief.wait_for(lambda: checkpoints.newest(str(tasks.train_dir)) and
                   checkpoints.read_global_step(
                       checkpoints.newest(str(tasks.train_dir))) > 0)
    chief.kill()
    saved = checkpoints.newest(str(tasks.train_dir))
    step = other.steps[-1]
    other.wait_for(lambda: other.steps[-1] > step)
    chief = tasks.start('worker', 0)
    chief.wait_for(lambda: has_trained(chief.log))
    assert 'Resuming from ' + saved in chief.log
    assert chief.steps[0] >= checkpoints.read_global_step(saved)

    chief.terminate()
    assert [task.wait() for task in (chief, other, server)] == [0, 0, 0]
    assert 'SIGTERM: stopping after this step' in chief.log
    assert 'Training has ended: stopping' in other.log
    assert checkpoints.read_global_step(checkpoints.newest(
        str(tasks.train_dir))) >= chief.steps[-1]


@pytest.mark.slow
def test_synchronous_worker_killed_ends_all_tasks_with_a_last_checkpoint(
    data, tmp_path):
  with cluster_kit.Tasks(data, tmp_path, '--sync_replicas') as tasks:
    server, chief, other = tasks.start_all()
    chief.wait_for(lambda: has_trained(chief.log) and has_trained(other.log))
    other.kill()
    assert [task.wait() for task in (chief, server)] == [1, 1]
    assert chief.log.splitlines()[-1] == (
        'train_image_classifier.py: error: %s no longer answers, and '
        '--sync_replicas needs at least 2 workers: training has ended' % (
            tasks.cluster.workers[1],))
    assert 'Traceback' not in chief.log
    # Tokens that are left may let the chief take one more step, which it logs
    # though its gradients were not applied.
    assert checkpoints.read_global_step(checkpoints.newest(
        str(tasks.train_dir))) >= chief.steps[-1] - 1 > 0


@pytest.mark.slow
@pytest.mark.parametrize('flags', [[], ['--sync_replicas']],
                         ids=['asynchronous', 'synchronous'])
def test_server_killed_ends_the_workers_with_one_error_line(data, tmp_path,
                                                            flags):
  with cluster_kit.Tasks(data, tmp_path, *flags) as tasks:
    server, chief, other = tasks.start_all()
    chief.wait_for(lambda: has_trained(chief.log) and has_trained(other.log))
    server.kill()
    for worker in (chief, other):
      assert worker.wait() == 1
      assert re.match(
          r'train_image_classifier.py: error: a parameter server was lost: %s '
          r'\(.+\); start all tasks again' % (tasks.cluster.ps[0],),
          worker.log.splitlines()[-1])


@pytest.mark.slow
def test_server_killed_before_the_first_step_ends_the_workers(data, tmp_path):
  with cluster_kit.Tasks(data, tmp_path, '--sync_replicas') as tasks:
    server, chief, other = tasks.start_all()
    chief.wait_for(lambda: 'Starting Session' in chief.log and
                   'Waiting for the chief to' in other.log)
    server.kill()
    for worker in (chief, other):
      assert worker.wait() == 1
      assert 'Traceback' not in worker.log
      assert 'error: a parameter server was lost: %s (' % (
          tasks.cluster.ps[0],) in worker.log.splitlines()[-1]


@pytest.mark.slow
def test_chief_that_fails_ends_all_tasks_and_is_named_in_their_error(data,
                                                                     tmp_path):
  with cluster_kit.Tasks(data, tmp_path) as tasks:
    server, other = tasks.start('ps', 0), tasks.start('worker', 1)
    chief = tasks.start('worker', 0, '--checkpoint_path=/no/where')
    assert [task.wait() for task in (chief, other, server)] == [1, 1, 1]
    assert 'error: no checkpoint at /no/where' in chief.log
    assert other.log.splitlines()[-1] == (
        'train_image_classifier.py: error: %s, the chief, failed: its log has '
        'the reason' % (tasks.cluster.chief,))


@pytest.mark.slow
def test_missing_worker_is_reported_in_one_line_by_chief_and_server(data,
                                                                    tmp_path):
  with cluster_kit.Tasks(data, tmp_path) as tasks:
    chief = tasks.start('worker', 0, '--startup_timeout=3')
    assert chief.wait() == 1
    assert re.match(
        r'train_image_classifier.py: error: no answer within --startup_timeout='
        r'3 s from ps 0 at \S+ \(Connection refused\), worker 1 at \S+ '
        r'\(Connection refused\)$', chief.log.splitlines()[-1])
    server = tasks.start('ps', 0, '--startup_timeout=3')
    assert server.wait() == 1
    assert 'from worker 0 at' in server.log.splitlines()[-1]
