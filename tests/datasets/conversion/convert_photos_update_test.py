"""Tests of convert_photos.py: photos added, other splits, unusable files."""

import csv
import io
import json
import logging
import shutil

import pytest
from PIL import Image

from common.errors import InputError
from datasets import manifest as manifests
from datasets.conversion import convert_photos, converted_files
from kits import dataset_kit
from kits.conversion_kit import add_photos, convert, make_photos, move_cats
from kits.helpers import run_program


def read_skipped(folder, name='pets'):
  with open(converted_files.skipped_path(str(folder), name), encoding='utf-8',
            newline='') as source:
    return {row['file']: row['reason'] for row in csv.DictReader(source)}


def sizes(manifest):
  return {split: entry['size'] for split, entry in manifest.splits.items()}


def test_convert_with_added_photos_keeps_the_old_in_their_splits(tmp_path):
  folder = make_photos(tmp_path)
  before = convert(tmp_path)
  assert sizes(before) == {'train': 28, 'validation': 8, 'test': 4}
  move_cats(tmp_path, before)
  add_photos(folder, 'cat', range(30))
  after = convert(tmp_path)
  for file, split in before.files.items():
    assert after.files[file] == split
  # Validation has more than its 10 of 50 and test has its 5, so all new photos
  # are for training.
  assert {split: entry['class_counts'] for split, entry in
          after.splits.items()} == {
              'train': {'cat': 31, 'dog': 14},
              'validation': {'cat': 14, 'dog': 4}, 'test': {'cat': 5, 'dog': 2}}


def test_convert_photo_is_recognized_by_content_or_by_name(tmp_path):
  folder = make_photos(tmp_path)
  before = convert(tmp_path).files
  cats = sorted(file for file in before if file.startswith('cat'))
  wanted = {}
  for index, file in enumerate(cats):
    path = folder / file
    new_file = [file, 'cat/renamed %d.jpg' % index, 'dog/moved %d.jpg' % index][
        index % 3]
    if index % 3:
      path.rename(folder / new_file)
    else:  # Other content under the old name.
      path.write_bytes(dataset_kit.photo_bytes(500 + index))
    wanted[new_file] = before[file]
  after = convert(tmp_path).files
  assert {file: after[file] for file in wanted} == wanted
  assert set(wanted.values()) == {'train', 'validation', 'test'}


@pytest.mark.parametrize('change, message', [
    ({'seed': 5}, 'seed was 0 and is 5'),
    ({'percent_validation': 30}, 'percent_validation was 20 and is 30'),
    ({'percent_test': 0}, 'percent_test was 10 and is 0')], ids=str)
def test_convert_with_other_seed_or_percents_splits_again(
    tmp_path, caplog, change, message):
  folder = make_photos(tmp_path)
  add_photos(folder, 'cat', range(5))
  convert(tmp_path, **change)
  wanted = dataset_kit.file_contents(tmp_path)
  for path in list((folder / 'cat').glob('new*')):
    path.unlink()
  convert(tmp_path)
  add_photos(folder, 'cat', range(5))
  logger = logging.getLogger('tensorflow')
  logger.addHandler(caplog.handler)
  convert(tmp_path, **change)
  logger.removeHandler(caplog.handler)
  assert message in caplog.text and 'split again' in caplog.text
  assert dataset_kit.file_contents(tmp_path) == wanted


def test_convert_omitted_options_default_to_the_former_conversion(tmp_path):
  folder = make_photos(tmp_path)
  before = convert(tmp_path, seed=7)
  move_cats(tmp_path, before)
  add_photos(folder, 'dog', range(20))
  after = convert_photos.convert(str(tmp_path), 'pets')
  assert (after.seed, after.percent_validation, after.percent_test) == (
      7, 20, 10)
  assert sum(after.splits['test']['class_counts'].values()) > 4
  for file, split in before.files.items():
    assert after.files[file] == split
  # Only the given option changes.
  changed = convert_photos.convert(str(tmp_path), 'pets', percent_validation=30)
  assert (changed.seed, changed.percent_validation, changed.percent_test) == (
      7, 30, 10)
  assert changed.splits['validation']['class_counts'] == {'cat': 6, 'dog': 12}
  with pytest.raises(InputError, match='percent_validation is 95 and .* is 10'):
    convert_photos.convert(str(tmp_path), 'pets', percent_validation=95)


def test_convert_omitted_num_shards_defaults_to_the_former_conversion(tmp_path):
  make_photos(tmp_path)
  assert len(convert(tmp_path, num_shards=3).splits['train']['shards']) == 3
  again = convert_photos.convert(str(tmp_path), 'pets')
  assert again.num_shards == len(again.splits['train']['shards']) == 3
  by_size = convert_photos.convert(str(tmp_path), 'pets', num_shards=0)
  assert len(by_size.splits['train']['shards']) == 1
  assert again.files == by_size.files


def test_convert_first_time_uses_the_default_percentages(tmp_path):
  make_photos(tmp_path)
  first = convert_photos.convert(str(tmp_path), 'pets')
  assert (first.seed, first.percent_validation, first.percent_test) == (
      0, 10, 0)
  assert sizes(first) == {'train': 36, 'validation': 4}


def test_convert_former_records_without_photo_files_are_ignored(
    tmp_path, caplog):
  """For example MNIST was downloaded, then a photo folder got its name."""
  make_photos(tmp_path)
  manifests.save(str(tmp_path), manifests.Manifest(
      'pets', ['zero', 'one'], {}, 5, 0, {}, []))
  logger = logging.getLogger('tensorflow')
  logger.addHandler(caplog.handler)
  assert sizes(convert_photos.convert(str(tmp_path), 'pets', seed=3)) == {
      'train': 36, 'validation': 4}
  logger.removeHandler(caplog.handler)
  assert 'split again' not in caplog.text


def test_convert_manifest_of_an_earlier_version_keeps_the_splits(tmp_path):
  folder = make_photos(tmp_path)
  before = convert(tmp_path, percent_test=0)
  path = tmp_path / 'pets.json'
  fields = json.loads(path.read_text('utf-8'))
  for field in ('percent_test', 'digests', 'duplicates', 'pixels',
                'num_shards', 'photos_dir', 'photos_layout', 'ready_made'):
    del fields[field]
  path.write_text(json.dumps(fields), 'utf-8')
  add_photos(folder, 'dog', range(30))
  after = convert(tmp_path, percent_test=0)
  for file, split in before.files.items():
    assert after.files[file] == split
  assert len(after.digests) == len(after.files) == 70


def test_convert_unreadable_former_manifest_is_an_error(tmp_path):
  make_photos(tmp_path)
  (tmp_path / 'pets.json').write_text('{"name"')
  with pytest.raises(InputError, match=r'cannot read the manifest .*pets\.js'):
    convert(tmp_path)


def test_convert_without_a_photo_for_a_split_names_the_manifest(tmp_path):
  folder = make_photos(tmp_path, {'cat': 3, 'dog': 30})
  before = convert(tmp_path, percent_test=0)
  contents = dataset_kit.file_contents(tmp_path)
  for file, split in before.files.items():
    if file.startswith('cat') and split == 'validation':
      (folder / file).unlink()
  with pytest.raises(InputError, match=r"'cat' \(2\); .*delete .*pets\.json"):
    convert(tmp_path, percent_test=0)
  assert dataset_kit.file_contents(tmp_path) == contents
  (tmp_path / 'pets.json').unlink()
  assert convert(tmp_path, percent_test=0).splits['validation'][
      'class_counts']['cat'] == 1


def test_convert_equal_pixels_share_a_split_and_are_listed(tmp_path):
  folder = make_photos(tmp_path)
  for index in range(20):
    data = (folder / 'cat' / ('%03d.jpg' % index)).read_bytes()
    (folder / 'cat' / ('film %d.jpg' % index)).write_bytes(data + b'film')
    Image.open(io.BytesIO(data)).save(str(folder / 'cat' / ('%d.png' % index)))
  manifest = convert(tmp_path)
  assert len(manifest.files) == 80 and len(manifest.duplicates) == 20
  for index in range(20):
    same = sorted(['cat/%03d.jpg' % index, 'cat/%d.png' % index,
                   'cat/film %d.jpg' % index])
    assert same in manifest.duplicates
    assert len({manifest.files[file] for file in same}) == 1
  assert manifests.contradictions(manifest) == []


def test_convert_added_copy_joins_the_split_of_the_old_photo(tmp_path):
  folder = make_photos(tmp_path)
  before = convert(tmp_path).files
  for file in before:
    if file.startswith('cat'):
      (folder / ('%s copy' % file)).write_bytes(
          (folder / file).read_bytes() + b'film')
  after = convert(tmp_path).files
  for file, split in before.items():
    assert after[file] == split
    if file.startswith('cat'):
      assert after[file + ' copy'] == split


def test_convert_photo_in_two_classes_is_excluded_and_listed(tmp_path):
  folder = make_photos(tmp_path)
  shutil.copy(str(folder / 'cat' / '003.jpg'), str(folder / 'dog' / 'x.jpg'))
  shutil.copy(str(folder / 'cat' / '003.jpg'), str(folder / 'cat' / 'y.jpg'))
  # max_bad_fraction counts damaged files only.
  manifest = convert(tmp_path, max_bad_fraction=0)
  same = ['cat/003.jpg', 'cat/y.jpg', 'dog/x.jpg']
  assert manifest.duplicates == [same]
  assert manifests.contradictions(manifest) == [same]
  assert not set(same) & set(manifest.files)
  assert not set(same) & set(manifest.digests)
  reason = 'the same photo is in another class: '
  assert read_skipped(tmp_path) == {
      'cat/003.jpg': reason + 'dog/x.jpg', 'cat/y.jpg': reason + 'dog/x.jpg',
      'dog/x.jpg': reason + 'cat/003.jpg'}
  assert manifest.skipped == [{'file': file, 'reason': text} for file, text in
                              sorted(read_skipped(tmp_path).items())]


def test_convert_class_whose_photos_are_all_in_another_class_is_an_error(
    tmp_path):
  folder = make_photos(tmp_path)
  (folder / 'copies').symlink_to(folder / 'cat')
  with pytest.raises(InputError, match=r"class 'cat' .*no usable photo "
                                       r"\(cat/000\.jpg: the same photo is in"):
    convert(tmp_path)


def test_convert_too_many_bad_files_keeps_the_former_data(tmp_path):
  folder = make_photos(tmp_path)
  convert(tmp_path)
  before = dataset_kit.file_contents(tmp_path)
  for number in range(3):
    (folder / 'dog' / ('bad\n%d.jpg' % number)).write_bytes(b'')
  (folder / 'README').write_text('Not counted.')
  (folder / 'dog' / '.hidden').write_text('Not counted.')
  with pytest.raises(InputError) as caught:
    convert(tmp_path)
  message = str(caught.value)
  assert '\n' not in message
  assert message.startswith('3 of the 43 files in %s cannot be' % folder)
  assert str(tmp_path / 'pets_skipped.csv') in message
  assert 'dog/bad\\n2.jpg: the file is empty' in message
  assert read_skipped(tmp_path) == {
      'README': 'not in a class folder', 'dog/.hidden': 'hidden',
      'dog/bad\n0.jpg': 'the file is empty',
      'dog/bad\n1.jpg': 'the file is empty',
      'dog/bad\n2.jpg': 'the file is empty'}
  after = dataset_kit.file_contents(tmp_path)
  after['pets_skipped.csv'] = before['pets_skipped.csv']
  assert after == before
  # 3 of 43 are 0.0698.
  assert len(convert(tmp_path, max_bad_fraction=0.07).files) == 40


@pytest.mark.parametrize('counts, message', [
    ({'cat': 3, 'dog': 0}, "class 'dog' .* has no usable photo"),
    ({'cat': 20, 'dog': 1}, 'too few photos for the splits')], ids=str)
def test_convert_failure_lists_the_unusable_photos(tmp_path, counts, message):
  folder = make_photos(tmp_path, counts)
  (folder / 'dog' / 'bad.jpg').write_bytes(b'')
  (folder / 'dog' / 'worse.jpg').write_bytes(b'text')
  with pytest.raises(InputError, match=message):
    convert(tmp_path, max_bad_fraction=1)
  assert sorted(read_skipped(tmp_path)) == ['dog/bad.jpg', 'dog/worse.jpg']
  # The list is that of the last attempt, even if it is empty.
  for name in ('bad.jpg', 'worse.jpg'):
    (folder / 'dog' / name).unlink()
  with pytest.raises(InputError, match=message):
    convert(tmp_path)
  assert read_skipped(tmp_path) == {}


def test_program_without_flags_keeps_the_splits_of_the_former_conversion(
    tmp_path):
  make_photos(tmp_path)
  before = convert(tmp_path, seed=3)
  done = run_program('download_and_convert_data.py', '--dataset_name=pets',
                     '--dataset_dir=%s' % tmp_path)
  assert done.returncode == 0, done.stderr
  assert 'split again' not in done.stderr
  assert manifests.load(str(tmp_path), 'pets') == before
