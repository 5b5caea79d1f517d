"""Tests of conversion/public.py: MNIST and CIFAR-10 converted a second time."""

import shutil

import pytest

from common.errors import InputError
from datasets import dataset_factory, manifest, split_files
from datasets.conversion import convert_cifar10, convert_photos, public
from datasets.records import shard_check
from kits import dataset_kit
from kits.damage_kit import flip_bit, keep_first_record, overwrite, truncate
from kits.public_kit import cifar_archive, mnist_files, server

file_server = server  # A fixture that pytest finds by this name.
NAMES = ['cifar10', 'mnist']


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('damage', [truncate, keep_first_record, flip_bit,
                                    overwrite])
def test_convert_damaged_record_file_is_written_again(
    file_server, tmp_path, name, damage):
  public.convert(name, str(tmp_path))
  before = dataset_kit.file_contents(tmp_path)
  shard = '%s_test-00000-of-00001.tfrecord' % name
  damage(tmp_path / shard)
  assert (tmp_path / shard).read_bytes() != before[shard]
  public.convert(name, str(tmp_path))
  assert dataset_kit.file_contents(tmp_path) == before


@pytest.mark.parametrize('name', NAMES)
def test_convert_manifest_has_size_and_record_count_of_each_file(
    file_server, tmp_path, name):
  public.convert(name, str(tmp_path), num_shards=3)
  for split in manifest.load(str(tmp_path), name).splits.values():
    paths = [tmp_path / shard for shard in split['shards']]
    assert split['shard_bytes'] == [path.stat().st_size for path in paths]
    assert split['shard_sizes'] == split_files.count_records(map(str, paths))
  longer_shard = tmp_path / split['shards'][1]
  longer_shard.write_bytes(longer_shard.read_bytes() + b'x')
  with pytest.raises(InputError, match='is damaged: it has .* bytes') as caught:
    dataset_factory.get_dataset(name, 'test', str(tmp_path))
  # The data set is downloaded: there is no folder of photos to mention.
  assert str(caught.value).endswith(
      'run download_and_convert_data.py --dataset_name=%s --dataset_dir=%s' %
      (name, tmp_path))


@pytest.mark.parametrize('name, suffix', [
    ('flowers', ''), ('mnist', ''),
    ('imagenet', ' with --imagenet_train_dir, --imagenet_validation_dir or '
     'both'), ('pets', ' on the photos in %s/pets/<class>/')])
def test_command_mentions_the_folder_of_photos_if_it_exists(
    tmp_path, name, suffix):
  start = ('download_and_convert_data.py --dataset_name=%s --dataset_dir=%s' %
           (name, tmp_path))
  if '%' in suffix:
    suffix %= tmp_path
  assert split_files.command(name, str(tmp_path)) == start + suffix
  (tmp_path / name).mkdir()
  assert split_files.command(name, str(tmp_path)) == (
      '%s on the photos in %s/<class>/' % (start, tmp_path / name))


@pytest.mark.parametrize('name', NAMES)
def test_convert_leftover_of_a_killed_run_is_removed(
    file_server, tmp_path, name):
  public.convert(name, str(tmp_path))
  before = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
  work_dir = tmp_path / ('.%s.converting' % name)
  work_dir.mkdir()
  (work_dir / 'former.json').write_text('{}')
  public.convert(name, str(tmp_path))
  assert before == {path.name: path.stat().st_ino
                    for path in tmp_path.iterdir()}


@pytest.mark.parametrize('has_archive', [False, True])
@pytest.mark.parametrize('name', NAMES)
def test_convert_other_data_of_that_name_are_refused_and_kept(
    file_server, tmp_path, name, has_archive):
  dataset_kit.make_folder(tmp_path / name, {'cat': 6, 'dog': 6})
  convert_photos.convert(str(tmp_path), name)
  shutil.rmtree(str(tmp_path / name))
  if has_archive:
    files = (mnist_files() if name == 'mnist' else
             {convert_cifar10.ARCHIVE: cifar_archive()})
    for file, data in files.items():
      (tmp_path / file).write_bytes(data)
  before = dataset_kit.file_contents(tmp_path)
  with pytest.raises(InputError, match=(
      r"%s/%s.json describes other data than the public data set %s, 12 photos "
      r"of \['cat', 'dog'\]: move it" % (tmp_path, name, name))):
    public.convert(name, str(tmp_path))
  assert dataset_kit.file_contents(tmp_path) == before
  assert not file_server.requests


def test_convert_photos_in_folders_named_like_the_digits_are_not_mnist(
    file_server, tmp_path):
  """The labels and their order are equal, but the source is not."""
  public.convert('mnist', str(tmp_path))
  written = manifest.load(str(tmp_path), 'mnist')
  manifest.save(str(tmp_path), written._replace(files={'zero/1.png': 'train'}))
  with pytest.raises(InputError, match='describes other data'):
    public.convert('mnist', str(tmp_path))


def test_find_damaged_returns_the_paths_of_damaged_shards(tmp_path):
  paths = dataset_kit.make_shards(tmp_path, 'pets', 'train', [3, 4, 5, 6])
  shards = [shard_check.KnownShard(str(path), records, path.stat().st_size)
            for path, records in zip(paths, (3, 4, 5, 7))]
  shards.append(shard_check.KnownShard(str(tmp_path / 'none'), 1, None))
  flip_bit(paths[1])
  shards[2] = shards[2]._replace(bytes=None)
  assert shard_check.find_damaged(shards) == sorted(
      map(str, (paths[1], paths[3], tmp_path / 'none')))
  assert shard_check.find_damaged(shards[:1]) == []
