"""Tests of benchmarks/network_accuracy.py, with small networks."""

import glob
import os
import shutil
import xml.dom.minidom

import numpy as np
import pytest

from benchmarks import network_accuracy as program
from benchmarks import network_features
from common.errors import InputError
from kits import serving_kit
from kits.trained_kit import NAME, make_dataset, train

ROWS = {'slow_best': (0.90, 80), 'fast_close': (0.89, 8), 'fast_bad': (0.6, 8),
        'fastest': (0.5, 2), 'slow_bad': (0.7, 90)}


def make_row(name, accuracy, milliseconds, noise=(-.02, .01, 0, .01, 0)):
  return program.Row(name + '.ckpt', name, [accuracy + n for n in noise],
                     milliseconds, 1, 1, {'runtime': 'r'})


@pytest.fixture
def rows():
  noises = {'fast_close': (.02, -.01, .02, -.02, -.01)}
  rows = [make_row(name, *values, noises.get(name, (-.02, .01, 0, .01, 0)))
          for name, values in ROWS.items()]
  return sorted(rows, key=lambda row: -row.accuracy)


def save_network(folder, name, size):
  """Writes <folder>/<name>.ckpt.* of random weights, with a stranger's head."""
  prefix = serving_kit.save_checkpoint(
      folder / ('made_' + name), name, labels=list('abcdefg'), size=size,
      with_run=False)
  for path in glob.glob(prefix + '.*'):
    shutil.copy(path, str(folder / (name + '.ckpt' + path[len(prefix):])))


@pytest.fixture(scope='module')
def checkpoints_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('checkpoints')
  save_network(folder, 'cifarnet', 32)
  save_network(folder, 'lenet', 28)
  for path in glob.glob(str(folder / 'lenet.ckpt.*')):
    os.symlink(path, path.replace('lenet', 'link'))
  (folder / 'junk.ckpt').write_bytes(b'no checkpoint' * 9)
  (folder / 'half.ckpt.data-00000-of-00001').write_bytes(b'without an index')
  data = (folder / 'cifarnet.ckpt.data-00000-of-00001').read_bytes()
  (folder / 'flipped.ckpt.data-00000-of-00001').write_bytes(
      bytes(byte ^ 255 for byte in data))
  shutil.copy(str(folder / 'cifarnet.ckpt.index'),
              str(folder / 'flipped.ckpt.index'))
  return folder


@pytest.fixture(scope='module')
def usable(checkpoints_dir, tmp_path_factory):
  """A folder with the checkpoints that can be used."""
  folder = tmp_path_factory.mktemp('usable')
  for name in ('cifarnet', 'lenet'):
    for path in checkpoints_dir.glob(name + '.ckpt.*'):
      shutil.copy(str(path), str(folder / path.name))
  return folder


@pytest.fixture
def arguments(checkpoints_dir, tmp_path):
  return ['--dataset_name=' + NAME, '--dataset_dir=' + make_dataset(tmp_path),
          '--checkpoints_dir=%s' % checkpoints_dir, '--seconds=0',
          '--batch_size=2']


def test_find_checkpoints_leaves_out_links_and_other_files(checkpoints_dir):
  assert [os.path.basename(prefix) for prefix in
          program.find_checkpoints(str(checkpoints_dir))] == [
              name + '.ckpt' for name in ('cifarnet', 'flipped', 'half',
                                          'junk', 'lenet')]


def test_find_checkpoints_link_to_another_folder_is_kept(
    checkpoints_dir, tmp_path):
  for path in glob.glob(str(checkpoints_dir / 'lenet.ckpt.*')):
    (tmp_path / os.path.basename(path)).symlink_to(path)
  assert program.find_checkpoints(str(tmp_path)) == [
      str(tmp_path / 'lenet.ckpt')]


@pytest.mark.parametrize('folder, message', [
    ('', 'there is no checkpoint in'), ('none', 'there is no folder')])
def test_find_checkpoints_without_any_is_an_input_error(tmp_path, folder,
                                                        message):
  with pytest.raises(InputError, match=message):
    program.find_checkpoints(str(tmp_path / folder))


def test_efficient_rows_are_those_on_the_frontier(rows):
  assert {row.network for row in program.efficient(rows)} == {
      'slow_best', 'fast_close', 'fastest'}


def test_efficient_of_equal_rows_is_all():
  rows = [make_row('a', 0.5, 1), make_row('b', 0.5, 1)]
  assert program.efficient(rows) == rows


def test_recommendation_names_the_fastest_within_noise(rows):
  text = program.recommendation(rows)
  assert text == (
      'Most accurate: slow_best.ckpt (0.9000). Faster, and as accurate within '
      'the noise of 5 splits: fast_close.ckpt (0.8900, 8.0 ms in place of '
      '80.0 ms).')


def test_recommendation_small_constant_difference_is_not_noise():
  rows = [make_row('best', 0.90, 80), make_row('other', 0.89, 8)]
  assert 'No faster network is as accurate' in program.recommendation(rows)


def test_recommendation_of_one_row_says_how_to_get_others(rows):
  assert 'scripts/download_checkpoint.sh' in program.recommendation(rows[:1])


def test_accuracies_of_separable_features_are_1():
  labels = np.arange(60) % 3
  found = program.accuracies_of(np.eye(3, dtype=np.float32)[labels], labels)
  assert found == [1.0] * 5


def test_accuracies_of_too_few_photos_is_an_input_error():
  with pytest.raises(InputError, match='4 photos are too few'):
    program.accuracies_of(np.zeros([4, 2], np.float32), np.array([0, 0, 1, 1]))


@pytest.mark.slow
def test_main_compares_checkpoints_and_keeps_the_results(
    arguments, usable, capsys, monkeypatch, tmp_path):
  serving_kit.run(program, *arguments)
  out, err = capsys.readouterr()
  lines = out.splitlines()
  assert lines[0].startswith('30 photos of colours; ')
  names = [line[1:].split()[:2] for line in lines[2:4]]
  assert sorted(names) == [['cifarnet.ckpt', 'cifarnet'],
                           ['lenet.ckpt', 'lenet']]
  assert '*' in [line[0] for line in lines[2:4]]
  assert lines[4].startswith('Most accurate: ') and len(lines) == 6
  skipped = [line for line in err.splitlines() if line.startswith('Skipped: ')]
  assert [os.path.basename(line.split()[1]).split(':')[0]
          for line in skipped] == ['flipped.ckpt', 'half.ckpt', 'junk.ckpt']
  xml.dom.minidom.parse(str(tmp_path / (NAME + '_networks.svg')))

  monkeypatch.delattr(network_features, 'compute')
  serving_kit.run(program, *arguments, '--checkpoints_dir=%s' % usable)
  assert capsys.readouterr().out.splitlines()[:5] == lines[:5]


def test_main_after_an_interruption_computes_only_the_rest(
    arguments, usable, monkeypatch):
  computed, compute = [], network_features.compute

  def interrupted(prefix, network, *others):
    computed.append(network)
    if computed == ['cifarnet', 'lenet']:
      raise KeyboardInterrupt
    return compute(prefix, network, *others)

  monkeypatch.setattr(network_features, 'compute', interrupted)
  arguments += ['--checkpoints_dir=%s' % usable]
  with pytest.raises(KeyboardInterrupt):
    serving_kit.run(program, *arguments)
  serving_kit.run(program, *arguments)
  assert computed == ['cifarnet', 'lenet', 'lenet']


@pytest.mark.parametrize('changed, message', [
    ('--dataset_name=colour', 'colour'),
    ('--output_dir=/dev/null/x', '--output_dir=/dev/null/x'),
    ('--feature_cache_dir=/dev/null', '/dev/null')])
def test_main_wrong_flag_is_an_input_error(arguments, changed, message):
  with pytest.raises(InputError, match=message):
    serving_kit.run(program, *arguments, changed)


@pytest.mark.slow
def test_training_uses_the_same_features(arguments, tmp_path, log):
  folder = tmp_path / 'checkpoints'
  folder.mkdir()
  save_network(folder, 'mobilenet_v1_025', 224)
  serving_kit.run(program, *arguments, '--checkpoints_dir=%s' % folder)
  log.clear()
  train(str(tmp_path), tmp_path / 'train', '--cache_features',
        '--train_classifier_only', '--model_name=mobilenet_v1_025',
        '--checkpoint_path=%s' % (folder / 'mobilenet_v1_025.ckpt'),
        '--max_number_of_steps=1')
  assert 'Features of 21 train photos' in log.text
  assert 'Computing the features' not in log.text
