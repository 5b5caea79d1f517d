"""Tests of convert_photos.py: splits, order, output bytes and wrong input."""

import contextlib
import os
import pathlib
import shutil
import tempfile

import pytest

from common.errors import InputError
from compat import tf
from datasets import dataset_factory, split_files
from datasets.conversion import convert_photos, converted_files
from datasets.photo_files import photo_folder
from kits import dataset_kit


def make(tmp_path, counts=None, name='pets'):
  dataset_kit.make_folder(tmp_path / name, counts or {'cat': 10, 'dog': 20})
  return tmp_path / name


def read_records(path):
  return [tf.train.Example.FromString(record).features.feature
          for record in tf.python_io.tf_record_iterator(str(path))]


def test_convert_writes_records_labels_and_manifest(tmp_path):
  folder = make(tmp_path)
  manifest = convert_photos.convert(str(tmp_path), 'pets')
  assert sorted(os.listdir(str(tmp_path))) == [
      'labels.txt', 'pets', 'pets.json', 'pets_skipped.csv',
      'pets_train-00000-of-00001.tfrecord',
      'pets_validation-00000-of-00001.tfrecord']
  assert (tmp_path / 'labels.txt').read_text() == '0:cat\n1:dog\n'
  assert manifest.splits['train'] == {
      'size': 27, 'shards': ['pets_train-00000-of-00001.tfrecord'],
      'class_counts': {'cat': 9, 'dog': 18}}
  assert manifest.splits['validation']['class_counts'] == {'cat': 1, 'dog': 2}
  assert manifest.skipped == []

  records = read_records(tmp_path / 'pets_train-00000-of-00001.tfrecord')
  assert len(records) == 27
  for record in records:
    file = record['image/filename'].bytes_list.value[0].decode('utf-8')
    assert manifest.files[file] == 'train'
    assert record['image/encoded'].bytes_list.value == [
        (folder / file).read_bytes()]
    assert record['image/format'].bytes_list.value == [b'jpg']
    assert record['image/class/label'].int64_list.value == [
        ['cat', 'dog'].index(file.split('/')[0])]
    assert record['image/height'].int64_list.value == [10]
    assert record['image/width'].int64_list.value == [12]
  labels = [record['image/class/label'].int64_list.value[0]
            for record in records]
  assert labels != sorted(labels)  # The classes are mixed.


def test_convert_again_gives_the_same_bytes(tmp_path):
  make(tmp_path)
  convert_photos.convert(str(tmp_path), 'pets')
  first = dataset_kit.file_contents(tmp_path)
  convert_photos.convert(str(tmp_path), 'pets')
  assert dataset_kit.file_contents(tmp_path) == first


def test_convert_reversed_listing_gives_the_same_bytes(tmp_path, monkeypatch):
  make(tmp_path)
  convert_photos.convert(str(tmp_path), 'pets')
  first = dataset_kit.file_contents(tmp_path)
  (tmp_path / 'pets.json').unlink()  # Nothing of the former run is reused.
  listdir = os.listdir
  monkeypatch.setattr(os, 'listdir',
                      lambda folder: sorted(listdir(folder), reverse=True))
  convert_photos.convert(str(tmp_path), 'pets')
  assert dataset_kit.file_contents(tmp_path) == first


def test_convert_split_depends_on_the_content_not_the_name(tmp_path):
  folder = make(tmp_path)
  before = convert_photos.convert(str(tmp_path), 'pets').files
  (tmp_path / 'pets.json').unlink()
  for path in list((folder / 'dog').iterdir()):
    path.rename(path.with_name('z' + path.name[::-1]))
  after = convert_photos.convert(str(tmp_path), 'pets').files
  for file, split in before.items():
    class_name, name = file.split('/')
    if class_name == 'dog':
      file = 'dog/z' + name[::-1]
    assert after[file] == split


def test_convert_with_another_seed_gives_another_split(tmp_path):
  make(tmp_path, {'cat': 30, 'dog': 30})
  first = convert_photos.convert(str(tmp_path), 'pets', seed=1)
  second = convert_photos.convert(str(tmp_path), 'pets', seed=2)
  assert first.files != second.files
  assert first.splits['train']['size'] == second.splits['train']['size'] == 54


@pytest.mark.parametrize('percent, sizes', [
    (0, {'train': 60}), (1, {'train': 58, 'validation': 2}),
    (20, {'train': 48, 'validation': 12}),
    (99, {'train': 2, 'validation': 58})])
def test_convert_percent_validation_holds_for_each_class(
    tmp_path, percent, sizes):
  make(tmp_path, {'cat': 30, 'dog': 30})
  manifest = convert_photos.convert(str(tmp_path), 'pets',
                                    percent_validation=percent)
  assert {split: entry['size']
          for split, entry in manifest.splits.items()} == sizes
  for entry in manifest.splits.values():
    assert entry['class_counts']['cat'] == entry['class_counts']['dog']


def test_convert_num_shards_distributes_the_records_evenly(tmp_path):
  make(tmp_path)
  manifest = convert_photos.convert(str(tmp_path), 'pets', num_shards=5)
  shards = manifest.splits['train']['shards']
  assert shards == ['pets_train-%05d-of-00005.tfrecord' % index
                    for index in range(5)]
  sizes = [len(read_records(tmp_path / shard)) for shard in shards]
  assert sum(sizes) == 27 and max(sizes) - min(sizes) <= 1
  # No shard is empty.
  assert len(manifest.splits['validation']['shards']) == 3


def test_convert_without_num_shards_limits_the_size_of_each_shard(
    tmp_path, monkeypatch):
  make(tmp_path)
  monkeypatch.setattr(convert_photos, 'SHARD_BYTES', 4000)
  manifest = convert_photos.convert(str(tmp_path), 'pets')
  shards = manifest.splits['train']['shards']
  assert len(shards) > 2
  for shard in shards:
    assert 2000 < (tmp_path / shard).stat().st_size < 8000


def test_convert_removes_only_its_own_former_files(tmp_path):
  make(tmp_path)
  convert_photos.convert(str(tmp_path), 'pets', num_shards=3)
  others = ['pets_big_train-00000-of-00001.tfrecord',
            'my_pets_train-00000-of-00003.tfrecord',
            'pets_train_00000-of-00005.tfrecord', 'pets_train-notes.txt']
  for other in others:
    (tmp_path / other).write_bytes(b'mine')
  manifest = convert_photos.convert(str(tmp_path), 'pets', num_shards=2)
  names = [name for name in sorted(os.listdir(str(tmp_path)))
           if name not in ('pets', 'pets.json', 'pets_skipped.csv',
                           'labels.txt')]
  assert names == sorted(others + manifest.splits['train']['shards'] +
                         manifest.splits['validation']['shards'])
  for other in others:
    assert (tmp_path / other).read_bytes() == b'mine'


class Killed(BaseException):
  """Simulates kill -9: nothing in the project may catch it."""


@pytest.mark.parametrize('calls', range(5, 12))
def test_convert_killed_at_any_move_ends_with_the_same_bytes(
    tmp_path, monkeypatch, calls):
  make(tmp_path, {'cat': 4, 'dog': 4})
  convert_photos.convert(str(tmp_path), 'pets', num_shards=2)
  wanted = dataset_kit.file_contents(tmp_path)
  convert_photos.convert(str(tmp_path), 'pets', num_shards=1, seed=5)
  replace, targets = os.replace, []

  def replace_or_die(source, target):
    targets.append(target)
    if len(targets) == calls:
      raise Killed()
    replace(source, target)

  # The list of skipped files, labels.txt, the manifest and the former one are
  # written to the work folder, then 4 record files and the first three of these
  # are moved to their places.
  monkeypatch.setattr(os, 'replace', replace_or_die)
  with pytest.raises(Killed):
    convert_photos.convert(str(tmp_path), 'pets', num_shards=2, seed=0)
  with pytest.raises(InputError, match='not converted'):
    dataset_factory.get_dataset('pets', 'train', str(tmp_path))
  monkeypatch.setattr(os, 'replace', replace)
  convert_photos.convert(str(tmp_path), 'pets', num_shards=2, seed=0)
  assert dataset_kit.file_contents(tmp_path) == wanted
  assert not os.path.exists(dataset_factory.work_dir(str(tmp_path), 'pets'))


def test_convert_killed_while_writing_keeps_the_former_data(
    tmp_path, monkeypatch):
  make(tmp_path)
  convert_photos.convert(str(tmp_path), 'pets')
  before = dataset_kit.file_contents(tmp_path)

  def die(*_):
    raise Killed()

  monkeypatch.setattr(photo_folder, 'read_again', die)
  with pytest.raises(Killed):
    convert_photos.convert(str(tmp_path), 'pets', seed=9)
  assert dataset_kit.file_contents(tmp_path) == before
  dataset = dataset_factory.get_dataset('pets', 'train', str(tmp_path))
  assert dataset.num_samples == 27


def test_convert_skips_and_lists_files_that_are_not_photos(tmp_path):
  folder = make(tmp_path)
  good = dataset_kit.photo_bytes(99, size=(40, 40))
  (folder / 'cat' / 'png_in_truth.jpg').write_bytes(
      dataset_kit.photo_bytes(77, 'PNG'))
  (folder / 'cat' / 'empty.jpg').write_bytes(b'')
  (folder / 'cat' / 'cut.jpg').write_bytes(
      dataset_kit.photo_bytes(98)[:-9])
  (folder / 'cat' / 'large.jpg').write_bytes(good)
  (folder / 'dog' / 'notes.txt').write_text('no photo')
  (folder / 'dog' / 'more').mkdir()
  (folder / 'dog' / 'gone.jpg').symlink_to(tmp_path / 'nowhere')
  (folder / 'LICENSE').write_text('loose')
  for hidden in ('.DS_Store', 'Thumbs.db', '._000.jpg'):
    (folder / 'dog' / hidden).write_bytes(b'hidden')
  (folder / '.hidden').mkdir()
  manifest = convert_photos.convert(str(tmp_path), 'pets', max_pixels=1599,
                                    max_bad_fraction=0.2)
  reasons = {entry['file']: entry['reason'] for entry in manifest.skipped}
  assert list(reasons) == [
      'LICENSE', 'cat/cut.jpg', 'cat/empty.jpg', 'cat/large.jpg',
      'dog/gone.jpg', 'dog/more', 'dog/notes.txt']
  assert 'truncated' in reasons['cat/cut.jpg']
  assert 'empty' in reasons['cat/empty.jpg']
  assert '40 x 40' in reasons['cat/large.jpg']
  assert 'accepted: JPEG' in reasons['dog/notes.txt']
  assert len(manifest.files) == 31
  assert 'cat/png_in_truth.jpg' in manifest.files


def test_convert_class_names_in_any_script_are_kept(tmp_path):
  folder = make(tmp_path, {'中文 名': 3, 'été': 3, '3:odd name ': 3})
  (folder / 'été' / 'ñ\n"x".jpg').write_bytes(dataset_kit.photo_bytes(50))
  manifest = convert_photos.convert(str(tmp_path), 'pets')
  labels = sorted(['中文 名', 'été', '3:odd name'])
  assert manifest.labels == labels
  assert dataset_factory.get_labels('pets', str(tmp_path)) == labels
  assert 'été/ñ\n"x".jpg' in manifest.files
  (tmp_path / 'pets.json').unlink()  # labels.txt has the same names.
  assert dataset_factory.get_labels('pets', str(tmp_path)) == labels


def test_convert_classes_that_differ_in_case_are_reported(tmp_path, log):
  make(tmp_path, {'Rose': 3, 'rose': 3, 'tulip': 3})
  manifest = convert_photos.convert(str(tmp_path), 'pets')
  assert manifest.labels == ['Rose', 'rose', 'tulip']
  assert "class folders 'Rose' and 'rose' differ only in upper" in log.text


def test_convert_file_name_that_is_not_utf8_is_skipped(tmp_path):
  folder = make(tmp_path)
  with open(os.path.join(os.fsencode(str(folder)), b'cat', b'\xff.jpg'),
            'wb') as target:
    target.write(dataset_kit.photo_bytes(1))
  manifest = convert_photos.convert(str(tmp_path), 'pets')
  assert manifest.skipped == [{'file': 'cat/\\xff.jpg',
                               'reason': 'the file name is not UTF-8'}]


@pytest.mark.parametrize('folder, name, message', [
    (b'd3\xff', 'pets', r'dataset_dir is .*/d3\\xff, expected a name in UTF-8'),
    (b'd3', 'p\udcff', r'dataset_name is p\\xff, expected a name in UTF-8')],
    ids=['dataset_dir', 'dataset_name'])
def test_convert_data_set_name_that_is_not_utf8_is_refused(
    tmp_path, folder, name, message):
  dataset_dir = os.path.join(str(tmp_path), os.fsdecode(folder))
  shutil.copytree(str(make(tmp_path)), os.path.join(dataset_dir, name))
  with pytest.raises(InputError, match=message):
    convert_photos.convert(dataset_dir, name)
  assert os.listdir(dataset_dir) == [name]


def test_convert_photo_that_changes_during_conversion_is_an_error(
    tmp_path, monkeypatch):
  folder = make(tmp_path)
  check_photos = photo_folder.check_photos

  def check_then_change(*args):
    result = check_photos(*args)
    (folder / 'cat' / '000.jpg').write_bytes(dataset_kit.photo_bytes(1234))
    return result

  monkeypatch.setattr(photo_folder, 'check_photos', check_then_change)
  with pytest.raises(InputError, match=r'cat/000\.jpg changed'):
    convert_photos.convert(str(tmp_path), 'pets')


@pytest.mark.parametrize('counts, message', [
    (None, 'no folder of photos at .*pets'),
    ({}, 'holds 0 class folders'),
    ({'cat': 3}, r'holds 1 class folders \(cat\)'),
    ({'cat': 3, 'dog': 0}, "class 'dog' .* has no usable photo"),
    ({'cat': 3, 'dog': 1}, r"too few photos .*train, validation .*'dog' \(1\)"),
    ({'cat': 0, 'dog': 0}, "class 'cat' .* has no usable photo"),
    ({'cat': 3, 'do\ng': 3}, r"class name 'do\\ng'"),
    ({'cat': 3, '  ': 3}, "class name '  ' .* not only spaces"),
    ({'cat': 3, '\u200b\xa0': 3}, 'not only spaces'),
    ({'cat': 3, 'cat ': 3}, "class folders 'cat' and 'cat ' .* look the same"),
    ({'caf\xe9': 3, 'cafe\u0301': 3},
     r"folders 'cafe\\u0301' and 'caf\\xe9' .* look the same"),
], ids=['missing', 'empty', 'one class', 'empty class', 'one photo',
        'no photos', 'newline', 'spaces', 'invisible', 'space at the end',
        'Unicode form'])
def test_convert_unusable_folder_gives_one_line_error(
    tmp_path, counts, message):
  if counts is not None:
    (tmp_path / 'pets').mkdir()
    dataset_kit.make_folder(tmp_path / 'pets', counts)
  with pytest.raises(InputError, match=message) as caught:
    convert_photos.convert(str(tmp_path), 'pets')
  assert '\n' not in str(caught.value)
  assert [name for name in os.listdir(str(tmp_path)) if name != 'pets'] == []


def test_convert_class_with_only_bad_files_names_the_first(tmp_path):
  folder = make(tmp_path, {'cat': 3, 'dog': 0})
  (folder / 'dog' / 'a.jpg').write_text('text')
  with pytest.raises(InputError, match=r"'dog'.*\(dog/a\.jpg: not a photo"):
    convert_photos.convert(str(tmp_path), 'pets')


@pytest.mark.parametrize('name', ['', '.', '..', '.x', 'a/b', 'a*', 'a\nb'])
def test_convert_name_that_is_not_a_folder_name_is_refused(tmp_path, name):
  with pytest.raises(InputError, match='dataset_name is'):
    convert_photos.convert(str(tmp_path), name)


@pytest.mark.parametrize('kwargs', [
    {'percent_validation': 100}, {'percent_validation': -1}, {'num_shards': -1},
    {'percent_test': 100}, {'percent_validation': 50, 'percent_test': 50},
    {'max_bad_fraction': 1.1}, {'max_bad_fraction': -0.1}],
                         ids=str)
def test_convert_argument_out_of_range_is_refused(tmp_path, kwargs):
  with pytest.raises(InputError, match='expected 0 to|at most 99'):
    convert_photos.convert(str(tmp_path), 'pets', **kwargs)


def test_convert_file_in_place_of_the_work_folder_gives_one_line_error(
    tmp_path):
  make(tmp_path)
  (tmp_path / '.pets.converting').write_text('a file')
  with pytest.raises(InputError, match='cannot write to'):
    convert_photos.convert(str(tmp_path), 'pets')


@pytest.fixture
def public_path():
  """Yields a folder that any user of this machine can write to."""
  with tempfile.TemporaryDirectory() as folder:
    os.chmod(folder, 0o777)
    yield pathlib.Path(folder)


@contextlib.contextmanager
def as_nobody():
  """Runs the body as user nobody if the tests run as root."""
  if os.getuid():
    yield
    return
  os.setresuid(65534, 65534, 0)
  try:
    yield
  finally:
    os.setresuid(0, 0, 0)


def test_convert_read_only_photos_with_records_elsewhere_succeeds(public_path):
  source = make(public_path, name='input')
  records = public_path / 'records'
  for folder in (source, source / 'cat', source / 'dog'):
    folder.chmod(0o555)
  with as_nobody():
    with pytest.raises(InputError, match='^cannot write to the folder '
                       '%s: .*--dataset_dir .*--photos_dir' % source):
      convert_photos.convert(str(source), 'pets', photos_dir=str(source))
    before = convert_photos.convert(str(records), 'pets',
                                    photos_dir=str(source))
    # The folder of photos is remembered, as other settings are.
    again = convert_photos.convert(str(records), 'pets')
  assert again == before and before.photos_dir == str(source)
  assert before.splits['train']['size'] == 27
  assert sorted(os.listdir(str(records))) == [
      'labels.txt', 'pets.json', 'pets_skipped.csv',
      'pets_train-00000-of-00001.tfrecord',
      'pets_validation-00000-of-00001.tfrecord']
  assert sorted(os.listdir(str(source))) == ['cat', 'dog']


@pytest.mark.parametrize('is_link', [False, True])
def test_convert_records_inside_the_folder_of_photos_are_refused(tmp_path,
                                                                 is_link):
  source = make(tmp_path, name='input')
  records = source / 'records'
  options = {'photos_dir': str(source)}
  if is_link:
    records.mkdir()
    (records / 'pets').symlink_to(source)
    options = {}
  with pytest.raises(InputError, match='records, .* is inside the folder of '
                     'photos, .*would be taken for a class'):
    convert_photos.convert(str(records), 'pets', **options)
  assert records.exists() == is_link
  if not is_link:  # Records next to the class folders are accepted.
    assert convert_photos.convert(
        str(source), 'pets', photos_dir=str(source)).labels == ['cat', 'dog']


def test_convert_linked_folder_of_photos_may_be_read_only(public_path):
  """quickstart.sh makes such a link from --photos."""
  source = make(public_path, name='input')
  (public_path / 'data').mkdir(mode=0o777)
  (public_path / 'data').chmod(0o777)
  (public_path / 'data' / 'pets').symlink_to(source)
  source.chmod(0o555)
  with as_nobody():
    assert len(convert_photos.convert(str(public_path / 'data'), 'pets').files
               ) == 30


def test_convert_photos_dir_while_another_process_converts_is_refused(tmp_path):
  source = make(tmp_path, name='input')
  with converted_files.hold_data_set(str(tmp_path), 'pets'):
    with pytest.raises(InputError, match='another process is converting'):
      convert_photos.convert(str(tmp_path), 'pets', photos_dir=str(source))


def test_convert_missing_photos_dir_is_named_in_the_error(tmp_path):
  source = make(tmp_path, name='input')
  records = tmp_path / 'records'
  before = convert_photos.convert(str(records), 'pets', photos_dir=str(source))
  source.rename(tmp_path / 'moved')
  with pytest.raises(InputError, match='no folder of photos at %s' % source):
    convert_photos.convert(str(records), 'pets')
  assert split_files.command('pets', str(records)).endswith(
      ' on the photos in %s/<class>/' % source)
  # Photos next to the records are used instead.
  (tmp_path / 'moved').rename(records / 'pets')
  assert convert_photos.convert(str(records), 'pets') == before._replace(
      photos_dir='')


def test_convert_real_photos_keeps_their_bytes(tmp_path, shared):
  source = os.path.join(shared, 'real', 'clothing_10')
  for class_name in ('hat', 'skirt'):
    target = tmp_path / 'clothing' / class_name
    target.mkdir(parents=True)
    for name in sorted(os.listdir(os.path.join(source, class_name)))[:20]:
      shutil.copy(os.path.join(source, class_name, name), str(target / name))
  manifest = convert_photos.convert(str(tmp_path), 'clothing')
  assert len(manifest.files) == 40 and not manifest.skipped
  for record in read_records(tmp_path / manifest.splits['train']['shards'][0]):
    file = record['image/filename'].bytes_list.value[0].decode('utf-8')
    assert record['image/encoded'].bytes_list.value[0] == (
        tmp_path / 'clothing' / file).read_bytes()
