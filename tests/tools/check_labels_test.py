"""Tests of check_labels.py and check_labels.sh: from a run to moved photos."""

import csv
import os

import pytest

from common.errors import InputError
from datasets import manifest as manifests
from datasets.conversion import convert_photos
from kits import ood_kit
from kits import serving_kit as kit
from kits.script_kit import run_script
from kits.trained_kit import CLASSES, NAME, colour_photo, make_photos
from tools import check_labels as program

# {photo under a wrong label: its class}.
WRONG = {'red/90.jpg': 'blue', 'green/91.jpg': 'red', 'blue/92.jpg': 'green'}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """20 photos per class, and three under a wrong label."""
  folder = tmp_path_factory.mktemp('data')
  make_photos(folder / NAME, 20)
  for file, label in WRONG.items():
    (folder / NAME / file).write_bytes(colour_photo(CLASSES.index(label), 99))
  convert_photos.convert(str(folder), NAME, percent_validation=35,
                         percent_test=15)
  return folder


@pytest.fixture(scope='module')
def train_dir(data, tmp_path_factory):
  return os.path.dirname(ood_kit.make_run(str(data),
                                          tmp_path_factory.mktemp('run')))


def read_csv(path):
  with open(path, encoding='utf-8', newline='') as stream:
    return list(csv.DictReader(stream))


@pytest.mark.slow
def test_check_labels_from_cached_features_to_moved_photos(
    data, train_dir, tmp_path, capsys, log):
  kit.run(program, '--train_dir=' + train_dir)
  output = capsys.readouterr().out
  # The cache has no test photos.
  assert ' test photos: they are not cached' in log.text
  assert ' train photos: they are not cached' not in log.text
  assert output.startswith('63 photos: about ')
  rows = read_csv(os.path.join(train_dir, 'labels.csv'))
  assert {row['file']: row['new_label'] for row in rows[:3]} == WRONG
  with open(os.path.join(train_dir, 'labels.html'), encoding='utf-8') as stream:
    page = stream.read()
  assert page.index('red/90.jpg') and page.count('src="data:image/jpeg') >= 3
  before = manifests.load(str(data), NAME)

  choices = tmp_path / 'choices.csv'
  choices.write_text('file,label,action,new_label\n' + ''.join(
      '%s,,move,%s\n' % item for item in sorted(WRONG.items())))
  # The script finds the folder of photos as it finds the run.
  done = run_script('check_labels.sh', '--apply=%s' % choices, env=dict(
      os.environ, TRAIN_DIR=train_dir, DATASET_DIR=str(data),
      DATASET_NAME=NAME))
  assert 'Moved 3 photos to another class, dropped 0, kept 0\n' in done.stdout
  convert_photos.convert(str(data), NAME)
  after = manifests.load(str(data), NAME)
  for file, label in WRONG.items():
    moved = '%s/%s' % (label, os.path.basename(file))
    assert after.files[moved] == before.files[file]
  kit.run(program, '--train_dir=' + train_dir, '--output_file=%s' %
          (tmp_path / 'again.html'))
  again = read_csv(str(tmp_path / 'again.csv'))
  assert not {row['file'] for row in again[:3]} & {
      '%s/%s' % (label, os.path.basename(file))
      for file, label in WRONG.items()}


def test_check_labels_wrong_input_is_an_input_error(data, tmp_path):
  for flags, message in (
      (['--train_dir=%s' % (tmp_path / 'none')], 'is not a folder'),
      ([], '--train_dir is needed'),
      (['--apply=none.csv', '--dataset_name=' + NAME,
        '--dataset_dir=%s' % data], 'cannot read the file of choices')):
    with pytest.raises(InputError, match=message):
      kit.run(program, *flags)
