"""Tests of runs/checkpoints.py."""

import os
import re
import shutil
import threading
import time

import numpy as np
import pytest

from common import checkpoint_files
from common.errors import InputError
from compat import slim, tf
from kits.checkpoint_kit import write_checkpoints
from runs import checkpoints


def test_newest_follows_tensorflows_list_instead_of_names(tmp_path):
  prefixes = write_checkpoints(tmp_path, [900, 1000, 20])
  assert checkpoints.newest(str(tmp_path)) == prefixes[-1]


def test_newest_skips_checkpoint_without_index(tmp_path):
  prefixes = write_checkpoints(tmp_path, [1, 2])
  os.remove(prefixes[1] + '.index')
  assert checkpoints.newest(str(tmp_path)) == prefixes[0]


def test_newest_skips_checkpoint_without_data(tmp_path):
  prefixes = write_checkpoints(tmp_path, [1, 2])
  os.remove(prefixes[1] + '.data-00000-of-00001')
  assert checkpoints.newest(str(tmp_path)) == prefixes[0]


def test_newest_skips_checkpoint_with_truncated_data(tmp_path):
  prefixes = write_checkpoints(tmp_path, [1, 2])
  data = prefixes[1] + '.data-00000-of-00001'
  os.truncate(data, os.path.getsize(data) - 1)
  assert checkpoints.newest(str(tmp_path)) == prefixes[0]
  with pytest.raises(checkpoint_files.UnreadableCheckpoint,
                     match='ckpt-2 cannot be read: its data has 31 bytes, its '
                     'index says 32$'):
    checkpoint_files.open_reader(prefixes[1])


def test_newest_without_list_takes_highest_step(tmp_path):
  prefixes = write_checkpoints(tmp_path, [1000, 900])
  os.remove(str(tmp_path / 'checkpoint'))
  assert checkpoints.newest(str(tmp_path)) == prefixes[0]


def test_newest_in_moved_folder_finds_moved_files(tmp_path):
  write_checkpoints(tmp_path / 'old', [7])
  shutil.move(str(tmp_path / 'old'), str(tmp_path / 'new'))
  assert checkpoints.newest(str(tmp_path / 'new')) == str(
      tmp_path / 'new' / 'model.ckpt-7')


def test_newest_in_copied_folder_finds_copied_files(tmp_path):
  write_checkpoints(tmp_path / 'old', [7])
  shutil.copytree(str(tmp_path / 'old'), str(tmp_path / 'new'))
  assert checkpoints.newest(str(tmp_path / 'new')) == str(
      tmp_path / 'new' / 'model.ckpt-7')


def test_newest_and_resolve_ignore_the_folder_that_the_list_names(
    tmp_path, monkeypatch):
  monkeypatch.setattr(checkpoints, 'COPY_PATIENCE_SECS', 0.1)
  write_checkpoints(tmp_path / 'old', [7, 8])
  (tmp_path / 'new').mkdir()
  shutil.copy(str(tmp_path / 'old' / 'checkpoint'), str(tmp_path / 'new'))
  assert checkpoints.newest(str(tmp_path / 'new')) is None
  with pytest.raises(InputError, match='no checkpoint in the folder .*/new$'):
    checkpoints.resolve(str(tmp_path / 'new'))


@pytest.mark.parametrize('path, end', [
    ('checkpoints/inception_v4.ckpt',
     '; scripts/download_checkpoint.sh inception_v4 downloads it'),
    ('mine/mobilenet_v1_1.0_192.ckpt', '; scripts/download_checkpoint.sh '
     'mobilenet_v1_1.0_192 downloads it to checkpoints/'),
    ('checkpoints/mine.ckpt', 'nor a file of that name exists')])
def test_resolve_missing_published_checkpoint_names_its_download(
    tmp_path, path, end):
  with pytest.raises(InputError, match='no checkpoint at ') as caught:
    checkpoints.resolve(str(tmp_path / path))
  assert str(caught.value).endswith(end)


@pytest.mark.parametrize('name', ['a[b]', 'a[', 'a\\b', 'a*', 'a?', 'a[b]/c'])
def test_newest_and_resolve_path_with_pattern_characters_raise_input_error(
    tmp_path, name):
  folder = tmp_path / name
  folder.mkdir(parents=True)
  message = re.escape(
      '%s: a path to checkpoints must not contain any of * ? [ \\, because '
      'TensorFlow reads them as a pattern of file names; rename the folder or '
      'give another one' % folder)
  for read in checkpoints.newest, checkpoints.resolve:
    with pytest.raises(InputError, match=message):
      read(str(folder))
  with pytest.raises(InputError, match='must not contain any of'):
    checkpoints.resolve(str(folder / 'model.ckpt-1'))


def test_checkpoints_in_folder_with_unusual_name_are_found(tmp_path):
  folder = tmp_path / 'a]b, {c}!@%d #\'"$;&()'
  prefixes = write_checkpoints(folder, [1, 2])
  assert checkpoints.newest(str(folder)) == prefixes[1]
  assert checkpoints.resolve(prefixes[0]) == prefixes[0]
  with tf.Graph().as_default(), tf.Session() as session:
    saver = tf.train.Saver({'net/weights': tf.Variable(np.zeros([2, 3], 'f'))})
    checkpoints.restore(saver, session, prefixes[0])


@pytest.mark.parametrize('content', [None, '', 'model_checkpoint_path: "mo'])
def test_newest_in_folder_without_checkpoints_returns_none(
    tmp_path, content):
  if content is not None:
    (tmp_path / 'checkpoint').write_text(content)
  assert checkpoints.newest(str(tmp_path)) is None
  assert checkpoints.newest(str(tmp_path / 'missing')) is None


def test_resolve_takes_folder_prefix_and_file(tmp_path):
  prefix, = write_checkpoints(tmp_path, [5])
  for path in (str(tmp_path), prefix, prefix + '.index', prefix + '.meta',
               prefix + '.data-00000-of-00001'):
    assert checkpoints.resolve(path) == prefix


def copy_slowly(source, target, pause):
  """Copies a file piece by piece, as over a slow network."""
  with open(source, 'rb') as reader, open(target, 'wb') as writer:
    for piece in iter(lambda: reader.read(20), b''):
      writer.write(piece)
      writer.flush()
      time.sleep(pause)


@pytest.mark.parametrize('order', [
    ('checkpoint', '.data-00000-of-00001', '.index'),
    ('checkpoint', '.index', '.data-00000-of-00001'),
    ('.index', 'checkpoint', '.data-00000-of-00001')])
def test_resolve_waits_for_checkpoint_that_is_being_copied(
    tmp_path, monkeypatch, order):
  monkeypatch.setattr(checkpoints, 'COPY_PATIENCE_SECS', 3.0)
  monkeypatch.setattr(checkpoints, '_LOOK_SECS', 0.01)
  write_checkpoints(tmp_path / 'original', [1, 2])
  # As on another machine, where the paths in the list do not exist.
  source, target = tmp_path / 'source', tmp_path / 'target'
  (tmp_path / 'original').rename(source)
  target.mkdir()
  for name in os.listdir(str(source)):
    if 'ckpt-1' in name:
      shutil.copy(str(source / name), str(target / name))
  list_copied = threading.Event()

  def copy():
    for name in order:
      name = name if name == 'checkpoint' else 'model.ckpt-2' + name
      copy_slowly(str(source / name), str(target / name), 0.05)
      if name == 'checkpoint':
        list_copied.set()

  copy_thread = threading.Thread(target=copy)
  copy_thread.start()
  list_copied.wait(20)
  assert checkpoints.newest(str(target)) == str(target / 'model.ckpt-1')
  assert checkpoints.resolve(str(target)) == str(target / 'model.ckpt-2')
  assert checkpoint_files.is_complete(str(target / 'model.ckpt-2'))
  copy_thread.join()


def test_resolve_falls_back_when_newest_stays_incomplete(
    tmp_path, monkeypatch):
  monkeypatch.setattr(checkpoints, 'COPY_PATIENCE_SECS', 0.1)
  first, second = write_checkpoints(tmp_path, [1, 2])
  os.truncate(second + '.data-00000-of-00001', 5)
  assert checkpoints.resolve(str(tmp_path)) == first
  assert checkpoints.resolve(second) == second  # Requested by name.


def test_resolve_takes_best_checkpoint_unless_newest_is_requested(
    tmp_path, log):
  first, last = write_checkpoints(tmp_path, [1, 9])
  best, = write_checkpoints(tmp_path / 'best', [4])
  train_dir = str(tmp_path)
  for which, expected in ((None, best), ('best', best), ('newest', last)):
    log.clear()
    assert checkpoints.resolve(train_dir, which) == expected
    assert checkpoints.find(train_dir, which) == expected
    assert ('Using the best checkpoint, %s;' % best in log.text) == (
        expected == best)
    # A path of a checkpoint, or of the folder best/, leaves no choice.
    assert checkpoints.resolve(first, which) == first
  assert checkpoints.resolve(str(tmp_path / 'best')) == best


def test_check_exists_or_comes_wants_the_chosen_kind(tmp_path):
  write_checkpoints(tmp_path, [1])
  checkpoints.check_exists_or_comes(str(tmp_path))
  with pytest.raises(InputError, match='no checkpoint in %s/best' % tmp_path):
    checkpoints.check_exists_or_comes(str(tmp_path), 'best')


def test_resolve_without_best_checkpoint_takes_newest(tmp_path):
  _, last = write_checkpoints(tmp_path, [1, 9])
  for _ in range(2):
    assert checkpoints.resolve(str(tmp_path)) == last
    assert checkpoints.find(str(tmp_path)) == last
    assert checkpoints.find(str(tmp_path), 'best') is None
    (tmp_path / 'best').mkdir(exist_ok=True)  # Training is about to save one.
  with pytest.raises(InputError, match='no best checkpoint in %s: training' %
                     (tmp_path / 'best')):
    checkpoints.resolve(str(tmp_path), 'best')


@pytest.mark.parametrize('missing', ['.index', '.data-00000-of-00001'])
def test_resolve_incomplete_best_checkpoint_does_not_fall_back_to_newest(
    tmp_path, monkeypatch, missing):
  monkeypatch.setattr(checkpoints, 'COPY_PATIENCE_SECS', 0.1)
  write_checkpoints(tmp_path, [9])
  best, = write_checkpoints(tmp_path / 'best', [4])
  os.remove(best + missing)
  assert checkpoints.find(str(tmp_path)) is None
  with pytest.raises(InputError, match='no checkpoint in the folder .*best$'):
    checkpoints.resolve(str(tmp_path))


def test_resolve_takes_single_file_checkpoint_of_2016(tmp_path):
  prefix, = write_checkpoints(tmp_path, [5], tf.train.SaverDef.V1)
  assert os.path.isfile(prefix)
  assert checkpoints.resolve(prefix) == prefix
  assert checkpoints.read_global_step(prefix) == 5


def test_resolve_without_checkpoint_names_path(tmp_path):
  with pytest.raises(InputError, match='no checkpoint in the folder'):
    checkpoints.resolve(str(tmp_path))
  with pytest.raises(InputError, match='no checkpoint at .*other'):
    checkpoints.resolve(str(tmp_path / 'other'))
  with pytest.raises(InputError, match='--checkpoint_path'):
    checkpoints.resolve('')


def test_read_global_step_without_variable_uses_file_name(tmp_path):
  with tf.Graph().as_default(), tf.Session() as session:
    weights = tf.get_variable('weights', [1])
    session.run(weights.initializer)
    prefix = tf.train.Saver().save(session, str(tmp_path / 'net.ckpt'),
                                   global_step=42)
  assert checkpoints.read_global_step(prefix) == 42


def test_variables_to_restore_maps_averages_of_model_variables_only():
  with tf.Graph().as_default():
    weights = slim.model_variable('net/weights', shape=[2])
    assert checkpoints.variables_to_restore() == {'net/weights': weights}
    assert checkpoints.variables_to_restore(0.9) == {
        'net/weights/ExponentialMovingAverage': weights}


def test_check_fits_names_missing_variables_and_different_shapes(tmp_path):
  prefix, = write_checkpoints(tmp_path, [1])
  with tf.Graph().as_default():
    same = tf.get_variable('net/weights', [2, 3])
    wide = tf.get_variable('wide', [2, 4])
    checkpoints.check_fits(prefix, {'net/weights': same}, 'do this')
    with pytest.raises(InputError, match=r'lacks net/biases; do this'):
      checkpoints.check_fits(prefix, {'net/biases': same}, 'do this')
    with pytest.raises(InputError,
                       match=r'checkpoint \[2, 3\], network \[2, 4\]\); do'):
      checkpoints.check_fits(prefix, {'net/weights': wide}, 'do this')
