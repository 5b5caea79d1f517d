"""Tests of the list of runs."""

import fcntl
import os

import pytest

from common.errors import InputError
from kits.run_folder_kit import add_evaluation, make_run, start
from runs import run_list
from runs.run_list import Result


def names(runs_dir):
  return [run.name for run in run_list.find_all(str(runs_dir))]


def current(runs_dir):
  run = run_list.current(str(runs_dir))
  return run and run.name


@pytest.fixture
def runs_dir(tmp_path):
  """Returns a RUNS_DIR with the runs cats, dogs and one of an old quickstart.

  The current one is dogs.
  """
  folder = tmp_path / 'output'
  for name in ('cats', 'dogs', 'quickstart/pets_lenet_123'):
    make_run(folder, name)
  start(folder, folder / 'cats' / 'train', folder / 'dogs' / 'train')
  return folder


def test_find_all_without_any_run_is_empty(tmp_path):
  assert not run_list.find_all(str(tmp_path / 'nowhere'))
  assert run_list.current(str(tmp_path / 'nowhere')) is None


def test_find_all_names_runs_after_their_folders(runs_dir, tmp_path):
  # The second step of finetune_on_flowers.sh, and folders of the user.
  all_layers = runs_dir / 'cats' / 'train' / 'all'
  all_layers.mkdir()
  (all_layers / 'run.json').write_text('{}')
  start(runs_dir, make_run(tmp_path / 'mine', 'cats'))
  assert names(runs_dir) == ['cats', 'cats-2', 'cats-all', 'dogs',
                             'pets_lenet_123']
  assert current(runs_dir) == 'cats-2'
  run = run_list.find(str(runs_dir), 'cats-all')
  assert run.eval_dir == str(runs_dir / 'cats' / 'eval' / 'all')
  assert run.output_dir == str(runs_dir / 'cats')


def test_find_unknown_name_suggests_a_similar_run(runs_dir):
  with pytest.raises(InputError, match="unknown run 'dog'; known: cats, dogs, "
                     'pets_lenet_123; did you mean dogs'):
    run_list.find(str(runs_dir), 'dog')


def test_current_run_that_was_removed_by_hand_is_the_one_before(runs_dir):
  assert current(runs_dir) == 'dogs'
  (runs_dir / 'dogs').rename(runs_dir / 'wolves')
  assert current(runs_dir) == 'cats'
  assert 'wolves' in names(runs_dir)


def test_history_of_a_copied_folder_means_the_copies(runs_dir, tmp_path):
  top = str(runs_dir)
  run_list.use(top, run_list.find(top, 'cats'))  # Writes relative paths.
  runs_dir.rename(tmp_path / 'copy')
  assert current(tmp_path / 'copy') == 'cats'


def test_history_damaged_lines_are_ignored(runs_dir):
  with (runs_dir / 'runs.tsv').open('ab') as stream:
    stream.write(b'\xff\x00 no run\nhalf a li')
  assert current(runs_dir) == 'dogs'


def test_result_of_the_best_checkpoint_until_it_is_evaluated(runs_dir):
  run = run_list.find(str(runs_dir), 'cats')
  assert run_list.result(run) == Result(40, 0.75, 'validation')
  train = runs_dir / 'cats' / 'train'
  add_evaluation(train, [('a', 'cat', 'dog')] * 4, step=30)
  assert run_list.result(run) == Result(40, 0.75, 'validation')
  add_evaluation(train, [('a', 'cat', 'cat'), ('b', 'cat', 'dog')],
                 split='test')
  assert run_list.result(run) == Result(40, 0.5, 'test', 2)


def test_result_without_a_best_checkpoint_is_of_the_newest(tmp_path):
  train = make_run(tmp_path, 'plain', step=None)
  run, = run_list.find_all(str(tmp_path))
  assert run_list.result(run) == Result()
  for step in (9, 10):
    (train / ('model.ckpt-%d.index' % step)).write_text('')
  assert run_list.result(run) == Result(10)


def test_rename_moves_the_folder_and_keeps_the_current_run(runs_dir):
  top = str(runs_dir)
  run = run_list.rename(top, run_list.find(top, 'dogs'), 'wolves')
  assert run.train_dir == str(runs_dir / 'wolves' / 'train')
  assert names(runs_dir) == ['cats', 'pets_lenet_123', 'wolves']
  assert current(runs_dir) == 'wolves'
  for name in ('cats', '../x', 'a b', '-x', ''):
    with pytest.raises(InputError, match='taken|cannot be named'):
      run_list.rename(top, run, name)


def test_rename_outside_of_the_folder_changes_only_the_name(runs_dir, tmp_path):
  top = str(runs_dir)
  train = make_run(tmp_path / 'mine', 'birds')
  start(runs_dir, train)
  run = run_list.rename(top, run_list.find(top, 'birds'), 'hens')
  assert run.train_dir == str(train) and train.is_dir()
  run_list.use(top, run_list.find(top, 'cats'))
  start(runs_dir, train)  # Training continues.
  assert current(runs_dir) == 'hens'


def test_remove_deletes_the_folders_of_one_run(runs_dir, tmp_path):
  top = str(runs_dir)
  train = make_run(tmp_path / 'mine', 'birds')
  add_evaluation(train, [('a', 'cat', 'cat')])
  start(runs_dir, train)
  (train.parent / 'notes').write_text('')
  for name in ('birds', 'cats'):
    run_list.remove(top, run_list.find(top, name))
  assert names(runs_dir) == ['dogs', 'pets_lenet_123']
  assert not (runs_dir / 'cats').exists()
  assert os.listdir(str(train.parent)) == ['notes']
  assert 'birds' not in (runs_dir / 'runs.tsv').read_text()


def test_remove_what_is_in_use_or_holds_something_else_is_refused(runs_dir):
  top = str(runs_dir)
  cats, dogs = (run_list.find(top, name) for name in ('cats', 'dogs'))
  with open(os.path.join(cats.train_dir, 'train.pid'), 'w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert run_list.is_training(cats.train_dir)
    for action in (lambda: run_list.remove(top, cats),
                   lambda: run_list.rename(top, cats, 'x')):
      with pytest.raises(InputError, match='a process trains in'):
        action()
  assert not run_list.is_training(cats.train_dir)
  make_run(runs_dir / 'dogs' / 'train', 'more', dataset_dir='/')
  start(runs_dir, runs_dir / 'dogs' / 'train' / 'more' / 'train')
  with pytest.raises(InputError, match='contains the run dogs-more'):
    run_list.remove(top, dogs)
  make_run(runs_dir, 'whole', dataset_dir=str(runs_dir / 'whole' / 'train'))
  with pytest.raises(InputError, match='contains the data set'):
    run_list.remove(top, run_list.find(top, 'whole'))
  assert names(runs_dir) == ['cats', 'dogs', 'dogs-more', 'pets_lenet_123',
                             'whole']
  shared = runs_dir / 'cats' / 'export' / 'of_dogs'
  shared.mkdir(parents=True)
  run_list.use(top, dogs._replace(export_dir=str(shared)))
  with pytest.raises(InputError, match='contains the run dogs'):
    run_list.remove(top, cats)


def test_remove_keeps_what_else_is_beside_or_elsewhere(runs_dir, tmp_path):
  top = str(runs_dir)
  make_run(tmp_path, runs_dir.name)  # Its folder is RUNS_DIR itself.
  beside = make_run(runs_dir, 'beside').parent / 'data'
  beside.mkdir()
  models = tmp_path / 'models'
  models.mkdir()
  with (runs_dir / 'runs.tsv').open('a') as stream:
    stream.write('\ttrain\teval\t%s\tlog\n' % models)
  (runs_dir / 'dogs' / 'origin').write_text('')
  run = run_list.current(top)
  assert run.output_dir == top
  for name in (run.name, 'beside', 'dogs'):
    run_list.remove(top, run_list.find(top, name))
  assert names(runs_dir) == ['cats', 'pets_lenet_123']
  assert models.is_dir() and beside.is_dir()
  assert sorted(os.listdir(top)) == ['beside', 'cats', 'quickstart', 'runs.tsv']
  assert run_list.folders(run) == [str(models)]


def test_remove_train_directory_that_is_a_link(runs_dir, tmp_path):
  train = runs_dir / 'cats' / 'train'
  train.rename(tmp_path / 'disk')
  train.symlink_to(tmp_path / 'disk')
  run_list.remove(str(runs_dir), run_list.find(str(runs_dir), 'cats'))
  assert not (tmp_path / 'disk').exists()
  assert not (runs_dir / 'cats').exists()


def test_rename_keeps_the_folder_of_a_data_set_or_of_all_runs(runs_dir):
  top = str(runs_dir)
  make_run(runs_dir, 'whole', dataset_dir=str(runs_dir / 'whole' / 'data'))
  make_run(runs_dir.parent, runs_dir.name)
  start(runs_dir, runs_dir / 'train')
  for name, new in ((current(runs_dir), 'all'), ('whole', 'part')):
    run = run_list.find(top, name)
    assert run_list.rename(top, run, new) == run._replace(name=new)


def test_rename_is_refused_while_a_run_in_the_folder_trains(runs_dir):
  inner = runs_dir / 'cats' / 'train' / 'all'
  inner.mkdir()
  (inner / 'run.json').write_text('{}')
  with (inner / 'train.pid').open('w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(InputError, match='RUN=cats-all ./stop_train.sh'):
      run_list.rename(str(runs_dir), run_list.find(str(runs_dir), 'cats'), 'x')


def test_output_dir_is_that_of_training_if_the_export_is_elsewhere(runs_dir):
  run = run_list.find(str(runs_dir), 'cats')._replace(export_dir='/srv/models')
  assert run.output_dir == str(runs_dir / 'cats')
