"""Tests of checkpoint_list.py: train directories copied, renamed or moved."""

import os
import shutil

import numpy as np
import pytest

from common.errors import InputError
from compat import tf
from kits.checkpoint_kit import write_checkpoints
from kits.run_kit import listed_paths, tiny_networks
from kits.trained_kit import make_dataset, read_variables, train
from training import checkpoint_list

# Training does not change the weights, so they identify the run.
FLAGS = ['--learning_rate=0', '--optimizer=sgd']
WEIGHTS = 'Head/logits/weights'

# Names of the checkpoints of the run `template`, oldest first. A saver keeps 5.
OLDEST = 'old.ckpt-1'
NAMES = [OLDEST, 'old.ckpt-2', 'old.ckpt-3', 'model.ckpt-0', 'model.ckpt-1']


def write_list(folder, names, place):
  """Writes a folder's list of checkpoints, as if the folder were at `place`.

  Args:
    folder: folder that the list is written to.
    names: names of checkpoints, oldest first.
    place: folder of the absolute paths in the list.
  """
  paths = [os.path.join(str(place), name) for name in names]
  tf.train.update_checkpoint_state(str(folder), paths[-1], paths)
  assert listed_paths(folder) == paths


def copy_run(template, target, place):
  """Copies a run and writes its lists with absolute paths under `place`."""
  shutil.copytree(str(template), str(target))
  write_list(target, NAMES, place)
  write_list(target / 'best', ['model.ckpt-1'], place / 'best')


def snapshot(folder):
  """Returns {path of each file: (size in bytes, modification time in ns)}."""
  return {path: (path.stat().st_size, path.stat().st_mtime_ns)
          for path in folder.rglob('*') if path.is_file()}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return make_dataset(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module')
def template(data, tmp_path_factory):
  """A train directory with 5 checkpoints and a best one."""
  folder = tmp_path_factory.mktemp('template') / 'run'
  with tiny_networks():
    train(data, folder, *FLAGS, '--max_number_of_steps=1',
          '--evaluate_every_n_steps=1')
  for name in NAMES[:3]:
    for path in list(folder.glob('model.ckpt-0.*')):
      shutil.copy(str(path), str(folder / (name + path.suffix)))
  return folder


def train_one_step_more(data, folder):
  """Trains to step 2; returns the new checkpoint."""
  with tiny_networks():
    return train(data, folder, *FLAGS, '--max_number_of_steps=2')


def test_training_in_copied_folder_leaves_original_unchanged(
    data, template, tmp_path):
  original, copy = tmp_path / 'c1', tmp_path / 'c2'
  copy_run(template, original, original)
  shutil.copytree(str(original), str(copy))
  before = snapshot(original)
  assert train_one_step_more(data, copy) == str(copy / 'model.ckpt-2')
  assert snapshot(original) == before
  # It is the sixth checkpoint, so the oldest one in the copy is deleted.
  assert not (copy / (OLDEST + '.index')).exists()
  assert listed_paths(copy) == NAMES[1:] + ['model.ckpt-2']
  assert listed_paths(copy / 'best') == ['model.ckpt-1']


@pytest.mark.parametrize('old_place', ['nothing', 'another run', 'a link'])
def test_training_in_renamed_folder_continues_from_its_own_weights(
    data, template, tmp_path, old_place):
  old, folder = tmp_path / 'old', tmp_path / 'new'
  copy_run(template, folder, old)
  expected = read_variables(str(folder / 'model.ckpt-1'))[WEIGHTS]
  if old_place == 'a link':
    old.symlink_to(folder)
  elif old_place == 'another run':
    copy_run(template, old, old)
    write_other_weights(str(old / 'model.ckpt-1'))
  newest = train_one_step_more(data, folder)
  assert newest == str(folder / 'model.ckpt-2')
  np.testing.assert_array_equal(read_variables(newest)[WEIGHTS], expected)
  assert listed_paths(folder) == NAMES[1:] + ['model.ckpt-2']
  assert listed_paths(folder / 'best') == ['model.ckpt-1']


def write_other_weights(prefix):
  """Adds 1 to each variable of a checkpoint except the step."""
  values = read_variables(prefix)
  with tf.Graph().as_default(), tf.Session() as session:
    variables = [tf.Variable(value + (name != 'global_step'), name=name)
                 for name, value in values.items()]
    session.run([variable.initializer for variable in variables])
    tf.train.Saver().save(session, prefix, write_state=False)


def test_training_without_list_continues_from_newest_checkpoint(
    data, template, tmp_path):
  folder = shutil.copytree(str(template), str(tmp_path / 'run'))
  os.remove(os.path.join(folder, 'checkpoint'))
  expected = read_variables(os.path.join(folder, 'model.ckpt-1'))[WEIGHTS]
  newest = train_one_step_more(data, folder)
  np.testing.assert_array_equal(read_variables(newest)[WEIGHTS], expected)


# Repairs of the list, without training.


def test_repair_already_repaired_list_is_not_rewritten(tmp_path, log):
  write_checkpoints(tmp_path, [1, 2])
  write_list(tmp_path, ['model.ckpt-1', 'model.ckpt-2'], tmp_path)
  checkpoint_list.repair(str(tmp_path))
  assert listed_paths(tmp_path) == ['model.ckpt-1', 'model.ckpt-2']
  assert 'checkpoint: model.ckpt-1, model.ckpt-2' in log.text
  before = os.stat(str(tmp_path / 'checkpoint'))
  checkpoint_list.repair(str(tmp_path))
  after = os.stat(str(tmp_path / 'checkpoint'))
  assert (after.st_ino, after.st_mtime_ns) == (before.st_ino,
                                               before.st_mtime_ns)


def test_repair_relative_train_dir_gives_the_same_list(tmp_path, monkeypatch):
  write_checkpoints(tmp_path / 'a' / 'run', [1, 2])
  monkeypatch.chdir(str(tmp_path))
  write_list('a/run', ['model.ckpt-1', 'model.ckpt-2'], tmp_path / 'elsewhere')
  checkpoint_list.repair('a/run')
  assert listed_paths('a/run') == ['model.ckpt-1', 'model.ckpt-2']


def test_repair_incomplete_newest_checkpoint_falls_back_to_previous(
    tmp_path, log):
  first, second = write_checkpoints(tmp_path, [1, 2])
  os.remove(second + '.index')
  checkpoint_list.repair(str(tmp_path))
  assert listed_paths(tmp_path) == ['model.ckpt-1']
  assert '%s is missing or not complete; resuming from %s' % (
      second, first) in log.text


def test_repair_list_without_checkpoint_files_raises_and_keeps_list(tmp_path):
  write_checkpoints(tmp_path / 'old', [1, 2])
  (tmp_path / 'new').mkdir()
  write_list(tmp_path / 'new', ['model.ckpt-1', 'model.ckpt-2'],
             tmp_path / 'old')
  with pytest.raises(InputError, match='new/checkpoint names model.ckpt-2, '
                     'model.ckpt-1, but no complete checkpoint is in the '
                     'folder; copy their files there, or remove the list'):
    checkpoint_list.repair(str(tmp_path / 'new'))
  assert (tmp_path / 'new' / 'checkpoint').exists()


@pytest.mark.parametrize('content', ['', 'model_checkpoint_path: "mo'])
def test_repair_damaged_list_is_rebuilt_or_removed(tmp_path, content):
  path = tmp_path / 'checkpoint'
  path.write_text(content)
  checkpoint_list.repair(str(tmp_path))
  assert not path.exists()
  write_checkpoints(tmp_path, [1, 2])
  path.write_text(content)
  checkpoint_list.repair(str(tmp_path))
  assert listed_paths(tmp_path) == ['model.ckpt-2']


@pytest.mark.parametrize('kind', ['file', 'link to nowhere', 'read-only'])
def test_repair_unwritable_best_folder_raises_input_error(
    tmp_path, monkeypatch, kind):
  write_checkpoints(tmp_path, [1])
  if kind == 'file':
    (tmp_path / 'best').write_text('')
  elif kind == 'link to nowhere':
    (tmp_path / 'best').symlink_to('nowhere')
  else:  # Not by chmod: the tests may run as root, which ignores modes.
    (tmp_path / 'best').mkdir()
    monkeypatch.setattr(os, 'access', lambda *_: False)
  with pytest.raises(InputError, match='cannot keep the best checkpoint: %s: ' %
                     (tmp_path / 'best')):
    checkpoint_list.repair(str(tmp_path))


def test_repair_failing_leaves_list_unchanged(tmp_path, monkeypatch):
  write_checkpoints(tmp_path, [1])
  write_list(tmp_path, ['model.ckpt-1'], tmp_path / 'old')
  before = (tmp_path / 'checkpoint').read_bytes()
  monkeypatch.setattr(os, 'replace', lambda *_: 1 // 0)
  with pytest.raises(ZeroDivisionError):
    checkpoint_list.repair(str(tmp_path))
  assert (tmp_path / 'checkpoint').read_bytes() == before
