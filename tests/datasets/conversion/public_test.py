"""Tests of conversion/public.py and of the converters of public data sets.

They download small archives of the published layout from a local server.
"""

import os

import numpy as np
import pytest
from PIL import Image

from common.errors import InputError
from compat import slim, tf
from datasets import dataset_factory, manifest, public_sets
from datasets.conversion import (
  convert_cifar10,
  convert_flowers,
  convert_mnist,
  converted_files,
  labelled_images,
  public,
)
from downloads import fetch
from kits import dataset_kit, download_kit, public_kit
from kits.public_kit import (
  DIGITS,
  cifar_archive,
  cifar_batch,
  cifar_bytes,
  mnist_files,
)

server = public_kit.server  # A fixture that pytest finds by this name.


def read_split(name, split, dataset_dir):
  """Returns {published position: (pixels, label)}, read by slim's provider."""
  dataset = dataset_factory.get_dataset(name, split, dataset_dir)
  examples = {}
  with tf.Graph().as_default():
    provider = slim.dataset_data_provider.DatasetDataProvider(
        dataset, shuffle=False, num_epochs=1)
    items = provider.get(['image', 'label', 'filename'])
    with tf.Session() as session:
      session.run(tf.local_variables_initializer())
      coordinator = tf.train.Coordinator()
      threads = tf.train.start_queue_runners(session, coordinator)
      for _ in range(dataset.num_samples):
        image, label, filename = session.run(items)
        class_name, file = filename.decode('utf-8').split('/')
        assert dataset.labels_to_names[label] == class_name
        assert file.startswith(split + '_')
        examples[int(file.split('_')[1].split('.')[0])] = image, label
      coordinator.request_stop()
      coordinator.join(threads)
  return examples


def assert_same(examples, pixels, labels):
  """Asserts that the examples of `read_split` have these pixels and labels."""
  assert sorted(examples) == list(range(len(labels)))
  for index, (image, label) in examples.items():
    assert label == labels[index]
    assert (image.reshape(pixels[index].shape) == pixels[index]).all()


def test_convert_mnist_downloads_and_keeps_every_pixel(server, tmp_path):
  folder = tmp_path / 'new'
  written = public.convert('mnist', str(folder), num_shards=2)
  assert written == manifest.load(str(folder), 'mnist')
  assert {split: row['size'] for split, row in written.splits.items()} == {
      'train': 23, 'test': 10}
  assert written.splits['train']['class_counts']['two'] == 3
  # The four archives are deleted once the records are written.
  assert set(os.listdir(str(folder))) == {
      'labels.txt', 'mnist.json', 'mnist_skipped.csv'} | {
          'mnist_%s-0000%d-of-00002.tfrecord' % (split, shard)
          for split in ('test', 'train') for shard in (0, 1)}
  assert (folder / 'labels.txt').read_text().startswith('0:zero\n1:one\n')
  for split, arrays in DIGITS.items():
    assert_same(read_split('mnist', split, str(folder)), *arrays)


@pytest.mark.parametrize('name', ['cifar10', 'flowers', 'mnist'])
def test_convert_file_with_another_checksum_is_refused(server, tmp_path, name):
  changed = {'cifar10': convert_cifar10.ARCHIVE,
             'flowers': convert_flowers.ARCHIVE,
             'mnist': convert_mnist.FILES['train'][1][0]}[name]
  # Still a valid archive of this size: gzip stores the time in byte 4.
  data = bytearray(server.files['/' + changed])
  data[4] ^= 1
  server.files['/' + changed] = bytes(data)
  with pytest.raises(InputError, match='the SHA-256 of %s is .*, expected ' %
                     changed):
    public.convert(name, str(tmp_path))
  assert not [file for file in os.listdir(str(tmp_path))
              if file.startswith(changed)]


def test_convert_mnist_again_does_nothing(server, tmp_path):
  first = public.convert('mnist', str(tmp_path))
  before = dataset_kit.file_contents(tmp_path)
  del server.requests[:]
  assert public.convert('mnist', str(tmp_path)) == first
  assert not server.requests
  assert dataset_kit.file_contents(tmp_path) == before


def test_convert_mnist_interrupted_ends_with_the_same_bytes(server, tmp_path,
                                                            monkeypatch):
  for name, data in mnist_files().items():
    (tmp_path / name).write_bytes(data)
  public.convert('mnist', str(tmp_path))
  before = dataset_kit.file_contents(tmp_path)

  def interrupt(*_):
    raise KeyboardInterrupt

  def interrupt_at_manifest(source, target, replace=os.replace):
    return (interrupt if target.endswith('mnist.json') else replace)(source,
                                                                     target)

  for module, step, stop in (
      (labelled_images, '_png', interrupt),
      (converted_files.os, 'replace', interrupt_at_manifest)):
    with monkeypatch.context() as patch:
      patch.setattr(module, step, stop)
      with pytest.raises(KeyboardInterrupt):
        public.convert('mnist', str(tmp_path))
    public.convert('mnist', str(tmp_path))
    assert dataset_kit.file_contents(tmp_path) == before
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_convert_mnist_with_other_num_shards_writes_them(server, tmp_path):
  public.convert('mnist', str(tmp_path))
  assert len(public.convert('mnist', str(tmp_path), num_shards=3)
             .splits['train']['shards']) == 3
  # Also if a file has to be written again.
  (tmp_path / 'mnist_train-00001-of-00003.tfrecord').unlink()
  assert len(public.convert('mnist', str(tmp_path))
             .splits['train']['shards']) == 3
  # 0 chooses the number by size, as the help of the flag says.
  for _ in range(2):
    assert len(public.convert('mnist', str(tmp_path), num_shards=0)
               .splits['train']['shards']) == 1
  with pytest.raises(InputError, match='num_shards is -1, expected 0 to'):
    labelled_images.convert(str(tmp_path), 'x', ['a'], {}, num_shards=-1)


def test_convert_two_public_sets_in_one_folder_keep_their_labels(server,
                                                                 tmp_path):
  for name in ('mnist', 'cifar10'):
    public.convert(name, str(tmp_path))
  for name, labels in (('mnist', public_sets.MNIST_LABELS),
                       ('cifar10', public_sets.CIFAR10_LABELS)):
    assert dataset_factory.get_labels(name, str(tmp_path)) == list(labels)
    dataset = dataset_factory.get_dataset(name, 'test', str(tmp_path))
    assert dataset.labels_to_names == dict(enumerate(labels))


def test_convert_mnist_missing_record_file_is_written_again(server, tmp_path):
  public.convert('mnist', str(tmp_path))
  before = dataset_kit.file_contents(tmp_path)
  (tmp_path / 'mnist_test-00000-of-00001.tfrecord').unlink()
  public.convert('mnist', str(tmp_path))
  assert dataset_kit.file_contents(tmp_path) == before


def test_convert_mnist_files_of_the_user_are_used_and_kept(tmp_path,
                                                           monkeypatch):
  monkeypatch.setattr(convert_mnist, 'ADDRESSES', ('http://127.0.0.1:1/',))
  for name, data in mnist_files().items():
    (tmp_path / name).write_bytes(data)
  public.convert('mnist', str(tmp_path))
  for name, data in mnist_files().items():
    assert (tmp_path / name).read_bytes() == data
  assert_same(read_split('mnist', 'test', str(tmp_path)), *DIGITS['test'])


def test_convert_mnist_without_network_names_addresses_and_path(
    tmp_path, monkeypatch):
  def fail_lookup(*_, **__):
    raise fetch.socket.gaierror(-2, 'Name or service not known')

  monkeypatch.setattr(fetch.socket, 'getaddrinfo', fail_lookup)
  monkeypatch.setenv('no_proxy', '*')
  with pytest.raises(InputError) as caught:
    public.convert('mnist', str(tmp_path))
  message = str(caught.value)
  for part in ('https://storage.googleapis.com/cvdf-datasets/mnist/train-images',
               'https://ossci-datasets.s3.amazonaws.com/mnist/train-images-idx',
               'put it at %s' % (tmp_path / 'train-images-idx3-ubyte.gz')):
    assert part in message
  assert '\n' not in message


@pytest.mark.parametrize('digits,message', [
    ({'train': (DIGITS['train'][0], DIGITS['train'][1][:-1])},
     '23 images and .* 22 labels'),
    ({'train': (DIGITS['train'][0], DIGITS['train'][1] + 1)},
     "image 9 of split 'train' has label 10, expected 0 to 9"),
    ({'train': (DIGITS['train'][1], DIGITS['train'][1])},
     'not an IDX file of bytes in 3 dimensions'),
    ({'train': (DIGITS['train'][0][:0], DIGITS['train'][1][:0])},
     'holds no image')], ids=['count', 'label', 'dimensions', 'empty'])
def test_convert_mnist_inconsistent_files_give_one_line_error(
    tmp_path, digits, message):
  for name, data in mnist_files(dict(DIGITS, **digits)).items():
    (tmp_path / name).write_bytes(data)
  with pytest.raises(InputError, match=message):
    public.convert('mnist', str(tmp_path))
  assert sorted(os.listdir(str(tmp_path))) == sorted(mnist_files())


def test_read_idx_shorter_than_its_header_says_is_refused(tmp_path):
  array = DIGITS['test'][1]
  path = tmp_path / 'x.gz'
  good = download_kit.gzip.decompress(download_kit.idx_gz(array))
  path.write_bytes(download_kit.gzip.compress(good[:-1]))
  with pytest.raises(InputError, match='holds 9 bytes .*10. says 10'):
    convert_mnist.read_idx(str(path), 1)


def test_convert_cifar10_downloads_and_keeps_every_pixel(server, tmp_path):
  server.behaviours[:] = [{'cut': 30000}]
  written = public.convert('cifar10', str(tmp_path))
  assert {split: row['size'] for split, row in written.splits.items()} == {
      'train': 20, 'test': 4}
  assert written.labels == list(public_sets.CIFAR10_LABELS)
  assert sorted(os.listdir(str(tmp_path))) == [
      'cifar10.json', 'cifar10_skipped.csv',
      'cifar10_test-00000-of-00001.tfrecord',
      'cifar10_train-00000-of-00001.tfrecord', 'labels.txt']
  batches = [cifar_batch(number) for number in range(1, 6)]
  assert_same(read_split('cifar10', 'train', str(tmp_path)),
              np.concatenate([pixels for pixels, _ in batches]),
              np.concatenate([labels for _, labels in batches]))
  assert_same(read_split('cifar10', 'test', str(tmp_path)), *cifar_batch(6))


def test_convert_cifar10_red_is_the_first_plane(tmp_path):
  photo = np.zeros((1, 32, 32, 3), np.uint8)
  photo[0, 3, 5] = 200, 100, 50  # Row 3, column 5: an orange dot.
  (tmp_path / convert_cifar10.ARCHIVE).write_bytes(
      cifar_archive(**{'test_batch.bin': cifar_bytes(photo, [7])}))
  images = convert_cifar10.read_archive(str(tmp_path / convert_cifar10.ARCHIVE))
  pixels, labels = images['test']
  assert labels.tolist() == [7]
  assert pixels[0, 3, 5].tolist() == [200, 100, 50]
  assert (pixels != 0).sum() == 3


@pytest.mark.parametrize('changes,message', [
    ({'data_batch_3.bin': None}, 'lacks cifar-10-batches-bin/data_batch_3.bin'),
    ({'data_batch_3.bin': b'x' * 3074}, 'data_batch_3.bin has 3074 bytes'),
    ({'test_batch.bin': b'\n' + b'x' * 3072}, 'label 10, expected 0 to 9'),
])
def test_convert_cifar10_invalid_archive_gives_one_line_error(
    tmp_path, changes, message):
  (tmp_path / convert_cifar10.ARCHIVE).write_bytes(cifar_archive(**changes))
  with pytest.raises(InputError, match=message):
    public.convert('cifar10', str(tmp_path))
  assert os.listdir(str(tmp_path)) == [convert_cifar10.ARCHIVE]


def test_convert_flowers_downloads_unpacks_and_converts(server, tmp_path):
  written = public.convert('flowers', str(tmp_path), percent_validation=25)
  assert {split: row['size'] for split, row in written.splits.items()} == {
      'train': 15, 'validation': 5}
  assert written.labels == list(public_sets.FLOWERS_LABELS)
  assert sorted(os.listdir(str(tmp_path / 'flowers'))) == written.labels
  assert not (tmp_path / convert_flowers.ARCHIVE).exists()
  dataset = dataset_factory.get_dataset('flowers', 'validation', str(tmp_path))
  assert (dataset.num_samples, dataset.num_classes) == (5, 5)
  # The second conversion uses the unpacked photos and gives the same.
  del server.requests[:]
  assert public.convert('flowers', str(tmp_path),
                        percent_validation=25) == written
  assert not server.requests


@pytest.mark.slow
@pytest.mark.engine('tf1')
def test_convert_flowers_complete_set_is_split_as_in_slim(server, tmp_path):
  # As many photos per class as in the real set, but small ones.
  counts = dict(zip(public_sets.FLOWERS_LABELS, (633, 898, 641, 699, 799)))
  dataset_kit.make_folder(tmp_path / 'flowers', counts)
  written = public.convert('flowers', str(tmp_path))
  assert {split: (row['size'], len(row['shards']))
          for split, row in written.splits.items()} == {
              'train': (3320, 5), 'validation': (350, 5)}
  assert manifest.load(str(tmp_path), 'flowers') == written
  assert not server.requests


def test_convert_flowers_killed_while_unpacking_starts_again(server, tmp_path):
  unpacking_dir = tmp_path / '.flowers.unpacking'
  (unpacking_dir / 'daisy').mkdir(parents=True)
  (unpacking_dir / 'daisy' / 'half.jpg').write_bytes(b'')
  (tmp_path / 'flowers').mkdir()
  public.convert('flowers', str(tmp_path), percent_validation=25)
  assert not unpacking_dir.exists()
  assert len(os.listdir(str(tmp_path / 'flowers' / 'daisy'))) == 4


def test_convert_flowers_hostile_archive_leaves_nothing(server, tmp_path,
                                                        monkeypatch):
  hostile = download_kit.tar_gz({'flower_photos/daisy/1.jpg': b'x',
                                '../escaped.jpg': b'x'})
  server.files['/' + convert_flowers.ARCHIVE] = hostile
  monkeypatch.setattr(convert_flowers, 'SIZE', len(hostile))
  monkeypatch.setattr(convert_flowers, 'SHA256', download_kit.sha256(hostile))
  folder = tmp_path / 'data'
  with pytest.raises(InputError, match="'../escaped.jpg' leaves the folder"):
    public.convert('flowers', str(folder))
  assert os.listdir(str(tmp_path)) == ['data']
  assert os.listdir(str(folder)) == []


def test_convert_flowers_unrelated_archive_gives_one_line_error(tmp_path):
  (tmp_path / convert_flowers.ARCHIVE).write_bytes(
      download_kit.tar_gz({'x/1.jpg': b''}))
  with pytest.raises(InputError, match='holds no flower_photos/'):
    public.convert('flowers', str(tmp_path))


@pytest.mark.parametrize('name', sorted(public.CONVERTERS))
def test_convert_folder_of_photos_with_a_public_name_is_converted(server, name,
                                                                  tmp_path):
  dataset_kit.make_folder(tmp_path / name, {'cat': 6, 'dog': 6})
  written = public.convert(name, str(tmp_path), num_shards=1)
  assert written.labels == ['cat', 'dog']
  assert sum(row['size'] for row in written.splits.values()) == 12
  assert not server.requests


@pytest.mark.parametrize('name', sorted(public.CONVERTERS))
def test_convert_while_another_process_converts_gives_one_line_error(
    server, name, tmp_path):
  with converted_files.hold(str(tmp_path)):
    with pytest.raises(InputError, match='another process is converting'):
      public.convert(name, str(tmp_path))
  assert not server.requests and not list(tmp_path.iterdir())
  # The lock is released afterwards, also after an error.
  (tmp_path / name).write_text('in the way')
  if name == 'flowers':
    with pytest.raises(InputError, match='a file instead of a folder'):
      public.convert(name, str(tmp_path))
  else:
    public.convert(name, str(tmp_path))
  with converted_files.hold(str(tmp_path)):
    pass


def test_convert_folder_that_cannot_be_made_gives_one_line_error(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(InputError, match='cannot make the folder .*/file/data: '):
    public.convert('mnist', str(tmp_path / 'file' / 'data'))


def test_convert_unknown_name_lists_the_known_names():
  with pytest.raises(InputError, match="'cats'; known: cifar10, flowers, mn"):
    public.convert('cats', '/no/where')


def test_convert_cifar10_stores_png_photos(server, tmp_path):
  public.convert('cifar10', str(tmp_path))
  path = str(tmp_path / 'cifar10_test-00000-of-00001.tfrecord')
  record = next(tf.python_io.tf_record_iterator(path))
  features = tf.train.Example.FromString(record).features.feature
  assert features['image/format'].bytes_list.value[0] == b'png'
  encoded = features['image/encoded'].bytes_list.value[0]
  image = Image.open(download_kit.io.BytesIO(encoded))
  assert (image.format, image.size, image.mode) == ('PNG', (32, 32), 'RGB')
  assert features['image/height'].int64_list.value[0] == 32
