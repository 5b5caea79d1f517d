"""Tests of convert_visualwakewords.py, with small archives as COCO's."""

import hashlib
import json
import os

import pytest

from common.errors import InputError
from datasets import dataset_factory, manifest, visualwakewords
from datasets.conversion import (
  convert_visualwakewords,
  photo_shards,
  planned_conversion,
  public,
)
from datasets.records import verify
from downloads import archives, zip_archives
from kits import (
  coco_kit,
  dataset_kit,
  download_kit,
  imagenet_kit,
  public_kit,
)

server = public_kit.server  # A fixture that pytest finds by this name.

TRAIN = ['train.record-%05d-of-00002' % index for index in range(2)]
VAL = ['val.record-%05d-of-00003' % index for index in range(3)]


@pytest.fixture(autouse=True)
def two_train_shards(monkeypatch):
  monkeypatch.setattr(convert_visualwakewords, '_SPLITS', {
      'train': ('train2014', 2), 'val': ('val2014', 10)})


def convert(folder, **options):
  return public.convert('visualwakewords', str(folder), **options)


def labels_of(folder):
  """Returns the labels of the training photos, in COCO's order."""
  examples = imagenet_kit.read(folder, *TRAIN)
  return [examples[name]['image/class/label'].int64_list.value[0]
          for name in sorted(examples)]


@pytest.fixture
def folder(tmp_path):
  """Returns dataset_dir with the archives; nothing can be downloaded."""
  coco_kit.put_archives(tmp_path)
  return tmp_path


def test_convert_archives_in_the_folder_gives_slims_files(folder):
  converted = convert(folder)
  assert {path.name for path in folder.iterdir()} == {
      *TRAIN, *VAL, 'coco_dataset', 'labels.txt', 'visualwakewords.json',
      'visualwakewords_skipped.csv'}
  assert (folder / 'labels.txt').read_text() == '0:background\n1:person\n'
  assert converted == manifest.load(str(folder), 'visualwakewords')
  assert {split: (row['size'], row['class_counts'])
          for split, row in converted.splits.items()} == {
              'train': (5, {'background': 3, 'person': 2}),
              'val': (3, {'background': 2, 'person': 1})}
  # The user's archives stay, and are unpacked as slim does.
  names = set(os.listdir(str(folder / 'coco_dataset')))
  assert names == {*coco_kit.archives(), 'train2014', 'val2014', 'annotations'}


def test_convert_record_has_slims_keys_and_values(folder):
  convert(folder)
  # Photo i is in file i modulo their number.
  examples = imagenet_kit.read(folder, TRAIN[1])
  assert list(examples) == [coco_kit.file_name('train', index)
                            for index in (1, 3)]
  encoded = coco_kit.photo('train', 3)
  assert {key: list(getattr(value, value.WhichOneof('kind')).value)
          for key, value in examples[coco_kit.file_name('train', 3)].items()
         } == {
             'image/height': [10], 'image/width': [12],
             'image/filename': [coco_kit.file_name('train', 3).encode()],
             'image/source_id': [b'4'], 'image/format': [b'jpeg'],
             'image/key/sha256': [hashlib.sha256(encoded).hexdigest().encode()],
             'image/encoded': [encoded], 'image/class/label': [1],
             'image/object/bbox/xmin': [0.0, 0.5],
             'image/object/bbox/ymin': [0.0, 0.5],
             'image/object/bbox/xmax': pytest.approx([1 / 12, 1.0]),
             'image/object/bbox/ymax': pytest.approx([0.1, 1.0]),
             'image/object/area': pytest.approx([0.61, 12.0])}


@pytest.mark.parametrize('options, expected', [
    ({}, [1, 0, 0, 1, 0]),  # An object of exactly the threshold is too small.
    ({'small_object_area_threshold': 0.1}, [1, 0, 0, 0, 0]),
    ({'small_object_area_threshold': 0}, [1, 0, 1, 1, 0]),
    ({'foreground_class_of_interest': 'dog'}, [0, 0, 1, 0, 1])], ids=str)
def test_convert_label_is_1_with_a_large_object_of_the_class(
    folder, options, expected):
  convert(folder, **options)
  assert labels_of(folder) == expected


def test_convert_another_class_replaces_labels_and_records(folder):
  convert(folder)
  assert convert(folder, foreground_class_of_interest='dog').labels == [
      'background', 'dog']
  assert (folder / 'labels.txt').read_text() == '0:background\n1:dog\n'
  dataset = visualwakewords.get_split('val', str(folder))
  assert dataset.labels_to_names == {0: 'background', 1: 'dog'}
  assert 'object/bbox' in dataset.decoder.list_items()


def test_convert_again_keeps_class_and_threshold(folder):
  first = convert(folder, foreground_class_of_interest='dog',
                  small_object_area_threshold=0.2)
  records = {path.name: path.read_bytes() for path in folder.glob('*.record*')}
  assert records and convert(folder) == first
  assert records == {path.name: path.read_bytes()
                     for path in folder.glob('*.record*')}
  assert convert(folder, foreground_class_of_interest='person') != first


def test_convert_result_verifies(folder):
  convert(folder)
  reports = list(verify.verify(str(folder), 'visualwakewords', num_decoded=0))
  assert [(report.split, report.num_records, report.problems)
          for report in reports] == [('train', 5, []), ('val', 3, [])]


def test_get_dataset_reads_slims_files_without_manifest(folder):
  convert(folder)
  (folder / 'visualwakewords.json').unlink()
  dataset = dataset_factory.get_dataset('visualwakewords', 'train', str(folder))
  assert dataset.num_samples == 5
  assert dataset.labels_to_names == {0: 'background', 1: 'person'}
  with pytest.raises(InputError, match='5 record files of unknown origin'):
    convert(folder)


def test_convert_downloads_unpacks_and_removes_the_archives(server, tmp_path):
  first = convert(tmp_path)
  assert [path for path, _ in server.requests] == [
      '/annotations_trainval2014.zip', '/train2014.zip', '/val2014.zip']
  assert sorted(os.listdir(str(tmp_path / 'coco_dataset'))) == sorted(
      ['annotations', 'train2014', 'val2014'] +
      [name + '.sha256' for name in coco_kit.archives()])
  before = dataset_kit.file_contents(tmp_path)
  del server.requests[:]
  assert convert(tmp_path) == first and not server.requests
  assert dataset_kit.file_contents(tmp_path) == before


def test_convert_unknown_class_is_refused_before_photos_are_downloaded(
    server, tmp_path):
  with pytest.raises(InputError, match="class of COCO 'dgo'; known: dog, perso"
                     'n; did you mean dog'):
    convert(tmp_path, foreground_class_of_interest='dgo')
  assert [path for path, _ in server.requests] == [
      '/annotations_trainval2014.zip']


def test_convert_unpacked_folder_elsewhere_is_only_read(tmp_path, folder):
  convert(folder)
  coco = folder / 'coco_dataset'
  for name in coco_kit.archives():
    (coco / name).unlink()
  before = sorted(coco.rglob('*'))
  other = tmp_path / 'records'
  convert(other, coco_dirname=str(coco))
  assert sorted(coco.rglob('*')) == before
  assert (other / TRAIN[0]).read_bytes() == (folder / TRAIN[0]).read_bytes()


@pytest.mark.parametrize('step', ['unpack', 'write'])
def test_convert_after_a_kill_continues_to_the_same_bytes(
    folder, monkeypatch, step):
  coco_kit.put_archives(folder / 'once')
  convert(folder / 'once')
  module, name = {'unpack': (archives, 'write_file'),
                  'write': (photo_shards, 'write')}[step]
  function, paths = getattr(module, name), []
  index_of_path = {'unpack': 1, 'write': 0}[step]

  def stop_at_fourth(*args):
    paths.append(args[index_of_path])
    if len(paths) == 4:
      raise KeyboardInterrupt
    return function(*args)

  monkeypatch.setattr(planned_conversion.threads, 'run_in_threads',
                      lambda function, items: list(map(function, items)))
  monkeypatch.setattr(module, name, stop_at_fourth)
  with pytest.raises(KeyboardInterrupt):
    convert(folder)
  with pytest.raises(InputError, match='not converted'):
    visualwakewords.get_split('train', str(folder))
  convert(folder)
  assert len(paths) == len(set(paths)) + 1 and paths[3] == paths[4]
  assert dataset_kit.file_contents(folder) == (
      dataset_kit.file_contents(folder / 'once'))


def test_convert_unusable_photos_are_listed_up_to_a_limit(folder):
  convert(folder)
  coco = folder / 'coco_dataset'
  for name in coco_kit.archives():
    (coco / name).unlink()
  (coco / 'val2014' / coco_kit.file_name('val', 0)).unlink()
  (folder / VAL[0]).unlink()
  with pytest.raises(InputError, match='1 of 8 photos cannot be used, more '
                     'than the 5 % allowed by --max_bad_fraction'):
    convert(folder)
  assert convert(folder, max_bad_fraction=0.2).skipped == [{
      'file': 'val2014/' + coco_kit.file_name('val', 0),
      'reason': 'cannot be read: No such file or directory'}]


def changed(**fields):
  """Returns annotations whose first photo has other fields."""
  content = coco_kit.annotations('train')
  content['images'][0].update(fields)
  return content


@pytest.mark.parametrize('content', [
    b'', b'[]', b'\xff', b'[' * 100000, {'images': []}, changed(width=0),
    dict(coco_kit.annotations('train'), images=[]),
    dict(coco_kit.annotations('train'), annotations=[{'category_id': 1}]),
    changed(file_name='../' + coco_kit.file_name('train', 0)),
    changed(file_name='a\0'), changed(file_name='\udc80'), changed(width='x'),
], ids=lambda content: str(content)[:30])
def test_convert_other_annotations_give_one_line_error(tmp_path, content):
  coco_kit.put_archives(tmp_path, train=content)
  with pytest.raises(InputError, match='instances_train2014.json is not a file '
                     'of annotations as of COCO') as caught:
    convert(tmp_path)
  assert '\n' not in str(caught.value)
  assert os.listdir(str(tmp_path)) == ['coco_dataset']


def test_convert_hostile_archive_leaves_nothing(folder):
  path = folder / 'coco_dataset' / 'val2014.zip'
  path.write_bytes(download_kit.zip_bytes(
      {'val2014/a.jpg': b'', '../../x': b''}))
  with pytest.raises(InputError, match="'../../x' leaves the folder"):
    convert(folder)
  assert not (folder / 'coco_dataset' / 'val2014').exists()
  assert os.listdir(str(folder)) == ['coco_dataset']


def test_convert_unrelated_archive_gives_one_line_error(folder):
  path = folder / 'coco_dataset' / 'annotations_trainval2014.zip'
  path.write_bytes(download_kit.zip_bytes({'x': b''}))
  assert zip_archives.check(str(path)) == ['x']
  with pytest.raises(InputError, match='trainval2014.zip does not give .*annota'
                     'tions/instances_train2014.json'):
    convert(folder)


@pytest.mark.parametrize('change', [
    {'files': {'cat/1.jpg': 'train'}},
    {'splits': {'test': {'size': 1, 'shards': ['x'], 'class_counts': {
        'background': 1, 'person': 0}}}}], ids=str)
def test_convert_manifest_of_other_photos_is_not_replaced(folder, change):
  convert(folder)
  path = folder / 'visualwakewords.json'
  fields = dict(json.loads(path.read_text()), **change)
  path.write_text(json.dumps(fields))
  with pytest.raises(InputError, match='does not describe visualwakewords'):
    convert(folder)
  assert json.loads(path.read_text()) == fields
