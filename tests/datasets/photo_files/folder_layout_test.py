"""Tests of folder_layout.py: folders that are splits, and similar names."""

import shutil

import pytest

import download_and_convert_data
from common.errors import InputError
from datasets import dataset_factory
from datasets import manifest as manifests
from datasets.conversion import convert_photos
from datasets.photo_files import folder_layout
from kits import dataset_kit
from kits.helpers import parsed_flags

CLASSES = ['cat', 'dog']


def make(tmp_path, folders=('train', 'valid', 'test'), count=10):
  """Makes ready-made splits, `count` photos per class in each."""
  for index, name in enumerate(folders):
    for number, class_name in enumerate(CLASSES):
      folder = tmp_path / 'pets' / name / class_name
      folder.mkdir(parents=True)
      for photo in range(count):
        (folder / ('%d.jpg' % photo)).write_bytes(dataset_kit.photo_bytes(
            1000 * index + 100 * number + photo))
  return tmp_path / 'pets'


def add_flat(folder, name, count=3):
  (folder / name).mkdir(parents=True)
  for photo in range(count):
    (folder / name / ('%d.jpg' % photo)).write_bytes(
        dataset_kit.photo_bytes(5000 + photo + 10 * sum(map(ord, name))))


def convert(tmp_path, **options):
  return convert_photos.convert(str(tmp_path), 'pets', **options)


def sizes(manifest):
  return {split: entry['size'] for split, entry in manifest.splits.items()}


@pytest.mark.parametrize('train, validation, test', [
    ('train', 'val', 'test'), ('Train', 'Validation', 'Test'),
    ('Training', 'valid', 'Testing')])
def test_convert_ready_made_splits_are_kept(tmp_path, train, validation, test):
  make(tmp_path, (train, validation, test))
  manifest = convert(tmp_path)
  assert manifest.labels == CLASSES
  assert sizes(manifest) == {'train': 20, 'validation': 20, 'test': 20}
  assert manifest.ready_made == {
      'train': train, 'validation': validation, 'test': test}
  assert (manifest.percent_validation, manifest.percent_test) == (0, 0)
  split_of = {folder: split for split, folder in manifest.ready_made.items()}
  for file, split in manifest.files.items():
    assert split_of[file.split('/')[0]] == split
  assert manifests.load(str(tmp_path), 'pets') == manifest
  dataset = dataset_factory.get_dataset('pets', 'test', str(tmp_path))
  assert (dataset.num_samples, dataset.labels_to_names) == (
      20, {0: 'cat', 1: 'dog'})


@pytest.mark.parametrize('folders, options, wanted', [
    (('train', 'test'), {}, {'train': 18, 'validation': 2, 'test': 20}),
    (('train', 'test'), {'percent_validation': 0}, {'train': 20, 'test': 20}),
    (('train', 'val'), {}, {'train': 20, 'validation': 20}),
    (('train', 'val'), {'percent_test': 20},
     {'train': 16, 'validation': 20, 'test': 4}),
    (('train',), {}, {'train': 18, 'validation': 2})], ids=str)
def test_convert_split_without_a_folder_is_drawn_from_train(
    tmp_path, folders, options, wanted):
  make(tmp_path, folders)
  manifest = convert(tmp_path, **options)
  assert sizes(manifest) == wanted
  assert all(file.startswith('train/') or folders[1] in file.split('/')[0]
             for file in manifest.files)


@pytest.mark.parametrize('option, folder', [
    ('percent_validation', 'valid'), ('percent_test', 'test')])
@pytest.mark.parametrize('percent', [0, 20])
def test_convert_percentage_of_a_ready_made_split_is_refused(
    tmp_path, option, folder, percent):
  make(tmp_path)
  with pytest.raises(InputError, match=r'^%s is %d, but the folder %s/ is the '
                     '.* split already: omit' % (option, percent, folder)):
    convert(tmp_path, **{option: percent})


def test_convert_equal_photos_in_several_splits_stay_in_the_last(tmp_path):
  folder = make(tmp_path)
  # Of a photo in all three splits only the test copy stays, of one in training
  # and validation the validation copy, and within training both.
  for name in ('train', 'valid'):
    shutil.copy(str(folder / 'test/cat/0.jpg'),
                str(folder / name / 'cat' / 'copy.jpg'))
  shutil.copy(str(folder / 'valid/dog/1.jpg'), str(folder / 'train/dog/c.jpg'))
  shutil.copy(str(folder / 'train/dog/2.jpg'), str(folder / 'train/dog/d.jpg'))
  manifest = convert(tmp_path, max_bad_fraction=0)
  reason = 'the same photo is in another split: '
  assert manifest.skipped == [
      {'file': 'train/cat/copy.jpg', 'reason': reason + 'test/cat/0.jpg'},
      {'file': 'train/dog/c.jpg', 'reason': reason + 'valid/dog/1.jpg'},
      {'file': 'valid/cat/copy.jpg', 'reason': reason + 'test/cat/0.jpg'}]
  assert sizes(manifest) == {'train': 21, 'validation': 20, 'test': 20}
  assert manifests.contradictions(manifest) == []
  assert manifests.copies_over_splits(manifest) == [
      ['test/cat/0.jpg', 'train/cat/copy.jpg', 'valid/cat/copy.jpg'],
      ['train/dog/c.jpg', 'valid/dog/1.jpg']]


def test_convert_photo_in_two_classes_of_two_splits_is_excluded(tmp_path):
  folder = make(tmp_path)
  shutil.copy(str(folder / 'test/cat/0.jpg'), str(folder / 'train/dog/x.jpg'))
  manifest = convert(tmp_path)
  assert manifests.contradictions(manifest) == [
      ['test/cat/0.jpg', 'train/dog/x.jpg']]
  assert sizes(manifest) == {'train': 20, 'validation': 20, 'test': 19}


def test_convert_class_missing_in_train_is_an_error(tmp_path):
  folder = make(tmp_path)
  (folder / 'test' / 'cat').rename(folder / 'test' / 'Cat')
  with pytest.raises(InputError, match=r"no training photos of 1 classes: 'Cat"
                     r"'\. Add "
                     'photos to train/'):
    convert(tmp_path)


def test_convert_class_missing_in_validation_is_a_warning(tmp_path, log):
  folder = make(tmp_path)
  shutil.rmtree(str(folder / 'valid' / 'cat'))
  manifest = convert(tmp_path)
  assert "valid/ holds no photo of 1 of the 2 classes: 'cat'" in log.text
  assert manifest.splits['validation']['class_counts'] == {'cat': 0, 'dog': 10}


def test_convert_ready_made_again_keeps_splits_and_drawn_photos(tmp_path):
  folder = make(tmp_path, ('train', 'test'))
  before = convert(tmp_path, percent_validation=30, seed=3)
  drawn = [file for file, split in before.files.items()
           if split == 'validation']
  assert len(drawn) == 6
  for split in ('train', 'test'):
    for number in range(10):
      (folder / split / 'cat' / ('new %d.jpg' % number)).write_bytes(
          dataset_kit.photo_bytes(9000 + len(split) * 100 + number))
  # The split of a moved photo depends on its folder, not on its former split.
  (folder / 'test/dog/0.jpg').rename(folder / 'train/dog/was test.jpg')
  after = convert(tmp_path)
  assert {file: after.files[file] for file in before.files
          if file != 'test/dog/0.jpg'} == {
              file: split for file, split in before.files.items()
              if file != 'test/dog/0.jpg'}
  assert after.files['train/dog/was test.jpg'] != 'test'
  assert sizes(after) == {'train': 22, 'validation': 9, 'test': 29}


def test_convert_after_a_change_of_layout_splits_again(tmp_path, log):
  folder = make(tmp_path)
  convert(tmp_path)
  shutil.rmtree(str(folder / 'valid'))
  manifest = convert(tmp_path)
  assert ('the ready-made splits were train, validation, test and are train, '
          'test') in log.text
  assert sizes(manifest) == {'train': 18, 'validation': 2, 'test': 20}


def test_convert_flat_test_folder_next_to_classes_is_not_a_class(tmp_path, log):
  folder = tmp_path / 'pets'
  dataset_kit.make_folder(folder, {'cat': 10, 'dog': 10})
  add_flat(folder, 'Test')
  manifest = convert(tmp_path, max_bad_fraction=0)
  assert manifest.labels == CLASSES and len(manifest.files) == 20
  assert manifest.skipped[0]['file'] == 'Test'
  assert 'Test: not a class' in log.text
  assert '--photos_layout=classes' in log.text
  # It is a class on request, and the next conversion remembers that.
  assert convert(tmp_path, photos_layout='classes').labels == [
      'Test', 'cat', 'dog']
  assert convert(tmp_path).labels == ['Test', 'cat', 'dog']


def test_convert_flat_test_folder_next_to_ready_made_splits_is_not_used(
    tmp_path):
  folder = make(tmp_path, ('train',))
  add_flat(folder, 'test')
  manifest = convert(tmp_path)
  assert manifest.ready_made == {'train': 'train'}
  assert manifest.skipped == [
      {'file': 'test', 'reason': 'not used: it holds no class folders'}]


def test_convert_class_named_train_is_a_class(tmp_path):
  for name in ('bus', 'train', 'car'):
    add_flat(tmp_path / 'pets', name)
  assert convert(tmp_path).labels == ['bus', 'car', 'train']


@pytest.mark.parametrize('flat, nested, message', [
    (['train', 'test'], [], 'holds test/ and train/ without class folders'),
    (['invalid', 'valid'], [], 'holds valid/ without class folders'),
    (['bus', 'car'], ['train'], 'holds train/ with folders in them'),
    ([], ['val', 'test'], 'holds test/ and val/ with folders in them')],
                         ids=str)
def test_convert_ambiguous_layout_error_names_the_flag(
    tmp_path, flat, nested, message):
  make(tmp_path, nested)
  for name in flat:
    add_flat(tmp_path / 'pets', name)
  with pytest.raises(InputError, match=message + '.*--photos_layout=classes'):
    convert(tmp_path)
  if flat and not nested:
    assert convert(tmp_path, photos_layout='classes').labels == sorted(flat)


def test_find_splits_next_to_other_folders_lists_the_unused(tmp_path):
  folder = make(tmp_path, ('train', 'val'))
  (folder / 'docs').mkdir()
  (folder / 'train' / 'README').write_text('one file')
  layout = folder_layout.find(str(folder), ['docs', 'train', 'val'])
  assert list(layout.splits) == ['train', 'validation']
  assert layout.unused == {
      'docs': 'not used: it is not one of the ready-made splits'}


def test_find_two_folders_for_one_split_is_an_error(tmp_path):
  folder = make(tmp_path, ('train', 'val', 'valid'))
  with pytest.raises(InputError, match='validation split: val, valid; keep'):
    folder_layout.find(str(folder), ['train', 'val', 'valid'])


def test_find_requested_splits_are_used_among_many_other_files(tmp_path):
  folder = make(tmp_path, ('train', 'test'))
  for number in range(5):
    (folder / 'train' / ('list %d.txt' % number)).write_text('a list')
  names = ['test', 'train']
  with pytest.raises(InputError, match='if train/ and the others are splits, '
                     '--photos_layout=splits'):
    folder_layout.find(str(folder), names)
  assert folder_layout.find(str(folder), names, 'splits').splits == {
      'train': 'train', 'test': 'test'}


def test_find_requested_splits_without_train_is_an_error(tmp_path):
  folder = make(tmp_path, ('val', 'test'))
  with pytest.raises(InputError, match='no train/ with class folders'):
    folder_layout.find(str(folder), ['test', 'val'], 'splits')


def test_program_prints_the_layout_that_it_uses(tmp_path, log, capsys):
  folder = make(tmp_path, ('train', 'test'))
  shutil.copy(str(folder / 'test/cat/0.jpg'), str(folder / 'train/cat/x.jpg'))
  with parsed_flags(download_and_convert_data.define_flags,
                    '--dataset_name=pets', '--dataset_dir=%s' % tmp_path):
    download_and_convert_data.main([])
  line = ('ready-made splits: train/ is train, test/ is test; drawn from '
          'train/: 10 % for validation\n')
  output = capsys.readouterr().out
  assert line in output and '%s: %s' % (folder, line) in log.text
  assert ('same photo in several splits, kept in the last of training, '
          'validation and test: 1\n  test/cat/0.jpg, train/cat/x.jpg\n'
          ) in output
