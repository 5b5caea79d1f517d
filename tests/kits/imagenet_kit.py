"""Small tree of ImageNet photos and lists, and its conversion."""

import pytest

from compat import tf
from datasets.conversion import convert_imagenet
from kits import dataset_kit

IDS = ['n01440764', 'n02012849', 'n03126707']  # tench, crane, crane
LABELS = [1, 135, 518]
TRAIN = ['train-%05d-of-00004' % index for index in range(4)]
VALIDATION = ['validation-%05d-of-00002' % index for index in range(2)]


def make_tree(folder, photos=6):
  """Makes train/<id>/, a flat validation/, classes.txt of it, and boxes.csv."""
  for index, wordnet_id in enumerate(IDS):
    (folder / 'train' / wordnet_id).mkdir(parents=True)
    for number in range(photos):
      name = '%s_%d.JPEG' % (wordnet_id, number)
      (folder / 'train' / wordnet_id / name).write_bytes(
          dataset_kit.photo_bytes(100 * index + number))
  (folder / 'validation').mkdir()
  for number in range(1, 6):
    (folder / 'validation' / ('ILSVRC2012_val_%08d.JPEG' % number)).write_bytes(
        dataset_kit.photo_bytes(1000 + number))
  (folder / 'classes.txt').write_text(
      ''.join('%s\n' % IDS[number % 3] for number in range(5)))
  (folder / 'boxes.csv').write_text(
      'n01440764_0.JPEG,0.25,0.5,0.75,1.0\n'
      'n00007846_1.JPEG,0,0,1,1\n'
      'n01440764_0.JPEG,0.0,0.125,0.5,0.625\n')


def convert(tree, to, **kwargs):
  """Converts the tree into the folder `to`; kwargs replace the arguments."""
  arguments = dict(
      train_dir=str(tree / 'train'), validation_dir=str(tree / 'validation'),
      validation_labels=str(tree / 'classes.txt'),
      bounding_box_csv=str(tree / 'boxes.csv'), num_train_shards=4,
      num_validation_shards=2)
  arguments.update(kwargs)
  return convert_imagenet.convert(str(to), **arguments)


def read(folder, *names):
  """Returns {file name of the photo: its features}."""
  examples = {}
  for name in names:
    for data in tf.python_io.tf_record_iterator(str(folder / name)):
      feature = tf.train.Example.FromString(data).features.feature
      file_name = feature['image/filename'].bytes_list.value[0].decode()
      assert file_name not in examples
      examples[file_name] = feature
  return examples


def convert_split(tree, to, split, **kwargs):
  """Converts one split, with no further arguments than kwargs."""
  return convert_imagenet.convert(
      str(to), **{split + '_dir': str(tree / split)}, **kwargs)


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
  folder = tmp_path_factory.mktemp('ilsvrc')
  make_tree(folder)
  return folder


@pytest.fixture(scope='module')
def converted(tree, tmp_path_factory):
  folder = tmp_path_factory.mktemp('records') / 'new'
  convert(tree, folder)
  return folder
