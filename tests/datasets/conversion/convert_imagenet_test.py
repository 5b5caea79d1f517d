"""Tests of convert_imagenet.py: a small ImageNet folder to slim's records."""

import csv
import io
import json
import os

import pytest
from PIL import Image

from common.errors import InputError
from datasets import dataset_factory, imagenet_names, public_sets
from datasets.conversion import imagenet_source
from datasets.records import verify
from kits import dataset_kit, imagenet_kit
from kits.imagenet_kit import (
  IDS,
  LABELS,
  TRAIN,
  VALIDATION,
  convert,
  make_tree,
  read,
)

# Fixtures that pytest finds by these names.
tree, converted = imagenet_kit.tree, imagenet_kit.converted


def test_convert_writes_slims_file_names(converted):
  assert sorted(path.name for path in converted.iterdir()) == sorted(
      TRAIN + VALIDATION + ['imagenet.json', 'imagenet_skipped.csv',
                            'labels.txt'])


def test_convert_record_has_slims_keys_and_values(converted):
  feature = read(converted, *TRAIN)['n02012849_3.JPEG']
  assert {key: list(getattr(value, value.WhichOneof('kind')).value)
          for key, value in feature.items()} == {
              'image/height': [10], 'image/width': [12],
              'image/colorspace': [b'RGB'], 'image/channels': [3],
              'image/class/label': [135],
              'image/class/synset': [b'n02012849'],
              'image/class/text': [b'crane'],
              'image/object/bbox/xmin': [], 'image/object/bbox/xmax': [],
              'image/object/bbox/ymin': [], 'image/object/bbox/ymax': [],
              'image/object/bbox/label': [],
              'image/format': [b'JPEG'],
              'image/filename': [b'n02012849_3.JPEG'],
              'image/encoded': [dataset_kit.photo_bytes(103)]}
  assert feature['image/object/bbox/label'].WhichOneof('kind') == 'int64_list'
  assert feature['image/object/bbox/xmin'].WhichOneof('kind') == 'float_list'


def test_convert_boxes_are_stored_with_their_photo(converted):
  feature = read(converted, *TRAIN)['n01440764_0.JPEG']
  assert list(feature['image/object/bbox/label'].int64_list.value) == [1, 1]
  boxes = {side: list(feature['image/object/bbox/' + side].float_list.value)
           for side in ('xmin', 'ymin', 'xmax', 'ymax')}
  assert boxes == {'xmin': [0.25, 0.0], 'ymin': [0.5, 0.125],
                   'xmax': [0.75, 0.5], 'ymax': [1.0, 0.625]}


def test_convert_photos_are_shuffled_evenly_over_the_shards(converted):
  sizes = [len(read(converted, name)) for name in TRAIN + VALIDATION]
  assert sizes == [4, 5, 4, 5, 2, 3]
  examples = read(converted, *TRAIN)
  assert len(examples) == 18
  first_shard_ids = {name.split('_')[0] for name in read(converted, TRAIN[0])}
  assert len(first_shard_ids) > 1
  for name, feature in examples.items():
    label = feature['image/class/label'].int64_list.value[0]
    assert label == LABELS[IDS.index(name.split('_')[0])]


def test_convert_validation_labels_follow_the_lines_of_the_file(converted):
  labels = {name: feature['image/class/label'].int64_list.value[0]
            for name, feature in read(converted, *VALIDATION).items()}
  assert labels == {'ILSVRC2012_val_%08d.JPEG' % (line + 1): LABELS[line % 3]
                    for line in range(5)}


def test_convert_result_is_a_data_set_of_1001_classes(converted):
  train = dataset_factory.get_dataset('imagenet', 'train', str(converted))
  assert train.num_samples == 18 and train.num_classes == 1001
  assert train.labels_to_names[135] == 'crane'
  assert train.data_sources == [str(converted / name) for name in TRAIN]
  validation = dataset_factory.get_dataset('imagenet', 'validation',
                                           str(converted))
  assert validation.num_samples == 5
  with open(str(converted / 'imagenet.json')) as source:
    counts = json.load(source)['splits']['train']['class_counts']
  assert counts['crane'] == 12 and counts['tench'] == 6
  assert len(counts) == len(set(imagenet_names.labels()))


def test_convert_result_verifies(converted):
  reports = list(verify.verify(str(converted), 'imagenet', num_decoded=0))
  assert [(report.num_records, report.problems) for report in reports] == [
      (18, []), (5, [])]


def test_get_dataset_reads_slims_files_without_manifest(converted, tmp_path):
  for name in TRAIN + VALIDATION:
    (tmp_path / name).write_bytes((converted / name).read_bytes())
  dataset = dataset_factory.get_dataset('imagenet', 'train', str(tmp_path))
  assert dataset.num_samples == 18 and dataset.num_classes == 1001
  reports = list(verify.verify(str(tmp_path), 'imagenet'))
  assert [report.num_records for report in reports] == [18, 5]
  (tmp_path / TRAIN[0]).unlink()  # The records of the other files are counted.
  dataset = dataset_factory.get_dataset('imagenet', 'train', str(tmp_path))
  assert dataset.num_samples == 14


def test_convert_reversed_listing_gives_the_same_bytes(
    tree, converted, tmp_path, monkeypatch):
  scandir = os.scandir

  class ReversedListing:
    def __init__(self, folder):
      self.entries = reversed(sorted(scandir(folder), key=lambda e: e.name))

    def __enter__(self):
      return self.entries

    def __exit__(self, *_):
      pass

  monkeypatch.setattr(imagenet_source.os, 'scandir', ReversedListing)
  convert(tree, tmp_path)
  monkeypatch.undo()
  assert dataset_kit.file_contents(tmp_path) == (
      dataset_kit.file_contents(converted))


def test_convert_validation_in_class_folders(tree, tmp_path):
  manifest = convert(tree, tmp_path, validation_dir=str(tree / 'train'),
                     validation_labels=None, train_dir=None)
  assert manifest.splits['validation']['size'] == 18
  assert list(manifest.splits) == ['validation']


def test_convert_bad_photos_are_repaired_or_listed(tmp_path):
  make_tree(tmp_path)
  folder = tmp_path / 'train' / IDS[0]
  (folder / 'n01440764_0.JPEG').write_bytes(dataset_kit.photo_bytes(1, 'PNG'))
  buffer = io.BytesIO()
  Image.new('CMYK', (7, 5), (10, 20, 30, 40)).save(buffer, 'JPEG')
  (folder / 'n01440764_1.JPEG').write_bytes(buffer.getvalue())
  (folder / 'n01440764_2.JPEG').write_bytes(b'no photo')
  manifest = convert(tmp_path, tmp_path / 'out', max_bad_fraction=0.1)
  examples = read(tmp_path / 'out', *TRAIN)
  assert len(examples) == 17 and 'n01440764_2.JPEG' not in examples
  for name, size in (('n01440764_0.JPEG', (12, 10)),
                     ('n01440764_1.JPEG', (7, 5))):
    encoded = examples[name]['image/encoded'].bytes_list.value[0]
    image = Image.open(io.BytesIO(encoded))
    assert (image.format, image.mode, image.size) == ('JPEG', 'RGB', size)
    assert size == (examples[name]['image/width'].int64_list.value[0],
                    examples[name]['image/height'].int64_list.value[0])
  assert [entry['file'] for entry in manifest.skipped] == [
      'n01440764/n01440764_2.JPEG']
  with open(str(tmp_path / 'out' / 'imagenet_skipped.csv')) as source:
    header, row = csv.reader(source)
  assert header == ['file', 'reason'] and row[0] == 'n01440764/n01440764_2.JPEG'
  assert row[1].startswith('not a photo')
  assert not list(verify.verify(str(tmp_path / 'out'), 'imagenet',
                                num_decoded=0))[0].problems


def test_convert_too_many_bad_photos_fails_and_changes_nothing(tmp_path):
  make_tree(tmp_path)
  out = tmp_path / 'out'
  convert(tmp_path, out)
  before = dataset_kit.file_contents(out)
  for path in (tmp_path / 'train' / IDS[0]).iterdir():
    path.write_bytes(b'no photo')
  with pytest.raises(InputError, match=(
      r'6 of 23 photos cannot be used, more than the 5 % allowed by '
      r'--max_bad_fraction; .*/out/imagenet_skipped.csv lists them, the first '
      'is n01440764/n0144')):
    convert(tmp_path, out, seed=1)
  after = dataset_kit.file_contents(out)
  listed = after['imagenet_skipped.csv'].decode().splitlines()
  assert len(listed) == 7 and listed[1].startswith('"n01440764/n01440764_0.JP')
  before['imagenet_skipped.csv'] = after['imagenet_skipped.csv']
  assert after == before


def test_convert_records_of_unknown_origin_are_kept(tree, tmp_path):
  (tmp_path / 'train-00000-of-01024').write_bytes(b'precious')
  with pytest.raises(InputError, match='1 record files of unknown origin'):
    convert(tree, tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == ['train-00000-of-01024']


def test_convert_labels_of_another_data_set_are_kept(tree, tmp_path):
  (tmp_path / 'labels.txt').write_text('0:cat\n1:dog\n')
  convert(tree, tmp_path)
  assert (tmp_path / 'labels.txt').read_text() == '0:cat\n1:dog\n'


@pytest.mark.parametrize('change, message', [
    (lambda tree: (tree / 'train' / 'n00000001').mkdir(),
     'n00000001 is not one of the 1000 classes'),
    (lambda tree: (tree / 'train' / 'n01443537').mkdir(),
     'n01443537 holds no photo'),
    (lambda tree: (tree / 'train').rename(tree / 'other'),
     'cannot list .*train: No such file'),
    (lambda tree: (tree / 'classes.txt').write_text('1\n2\n'),
     "classes.txt, line 1: got '1', .*development kit"),
    (lambda tree: (tree / 'classes.txt').write_text('n01440764\n'),
     'has 1 lines, none for ILSVRC2012_val_00000002'),
    (lambda tree: (tree / 'classes.txt').unlink(),
     'cannot read the classes .*classes.txt'),
    (lambda tree: (tree / 'validation' / 'x.JPEG').write_bytes(b'x'),
     'holds 6 photos, and .*classes.txt has 5 lines'),
    (lambda tree: (tree / 'validation' / IDS[0]).mkdir(),
     'holds both class folders and photos'),
    (lambda tree: (tree / 'boxes.csv').write_text('a.JPEG,0,0,1\n'),
     "boxes.csv, line 1: got 'a.JPEG,0,0,1'"),
    (lambda tree: (tree / 'boxes.csv').write_text('a,0,0,1,1\na,0,0,1,1.5\n'),
     'boxes.csv, line 2'),
    (lambda tree: (tree / 'boxes.csv').write_text('a,0,nan,1,1\n'),
     'boxes.csv, line 1'),
    (lambda tree: (tree / 'boxes.csv').write_bytes(b'\xff'),
     'cannot read the boxes'),
])
def test_convert_invalid_input_gives_one_line_error(tmp_path, change, message):
  make_tree(tmp_path, photos=1)
  change(tmp_path)
  with pytest.raises(InputError, match=message) as caught:
    convert(tmp_path, tmp_path / 'out')
  assert '\n' not in str(caught.value)
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('kwargs, message', [
    (dict(train_dir=None, validation_dir=None), 'give --imagenet_train_dir'),
    (dict(validation_labels=None), 'are not in class folders: a file with'),
    (dict(num_train_shards=0), '0 record files of train'),
])
def test_convert_invalid_arguments_are_refused(tree, tmp_path, kwargs, message):
  with pytest.raises(InputError, match=message):
    convert(tree, tmp_path, **kwargs)


def test_convert_output_path_that_is_a_file_is_named_in_the_error(
    tree, tmp_path):
  (tmp_path / 'out').write_text('')
  with pytest.raises(InputError, match='cannot make the folder .*out'):
    convert(tree, tmp_path / 'out')


def test_list_validation_other_file_names_are_sorted(tmp_path):
  for name in 'cab':
    (tmp_path / (name + '.jpg')).write_bytes(b'x')
  path = tmp_path / '.classes'
  path.write_text('\n'.join(IDS) + '\n')
  entries = imagenet_source.list_validation(str(tmp_path), str(path))
  assert [(os.path.basename(entry.path), entry.label)
          for entry in entries] == list(
              zip(['a.jpg', 'b.jpg', 'c.jpg'], LABELS))


def test_full_set_has_the_sizes_of_slim():
  spec = public_sets.PUBLIC_SETS['imagenet']
  assert spec.split_sizes == {'train': 1281167, 'validation': 50000}
  assert len(spec.labels()) == 1001
