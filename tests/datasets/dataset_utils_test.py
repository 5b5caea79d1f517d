"""Tests of dataset_utils.py: slim's helpers under slim's names."""

import contextlib
import os

import pytest

from common.errors import InputError
from compat import tf
from datasets import dataset_utils
from kits import download_kit


@pytest.fixture
def server(monkeypatch):
  monkeypatch.setenv('no_proxy', '*')
  with download_kit.running() as file_server:
    yield file_server


@pytest.mark.parametrize('function, value, kind, expected', [
    ('int64_feature', 3, 'int64_list', [3]),
    ('int64_feature', (3, 4), 'int64_list', [3, 4]),
    ('float_feature', 0.5, 'float_list', [0.5]),
    ('float_feature', [0.5, 2], 'float_list', [0.5, 2.0]),
    ('float_list_feature', [], 'float_list', []),
    ('bytes_feature', b'ab', 'bytes_list', [b'ab']),
    ('bytes_list_feature', [b'a', b'b'], 'bytes_list', [b'a', b'b'])])
def test_feature_functions_return_the_values(function, value, kind, expected):
  feature = getattr(dataset_utils, function)(value)
  assert feature.WhichOneof('kind') == kind
  assert list(getattr(feature, kind).value) == expected


def test_image_to_tfexample_has_slims_keys():
  feature = dataset_utils.image_to_tfexample(
      b'photo', b'png', 3, 4, 7).features.feature
  assert {key: list(getattr(value, value.WhichOneof('kind')).value)
          for key, value in feature.items()} == {
              'image/encoded': [b'photo'], 'image/format': [b'png'],
              'image/class/label': [7], 'image/height': [3],
              'image/width': [4]}


@pytest.mark.parametrize('function, name, data', [
    ('download_and_uncompress_tarball', 'x.tar.gz',
     download_kit.tar_gz({'in/a': b'1'})),
    ('download_and_uncompress_zipfile', 'x.zip',
     download_kit.zip_bytes({'in/a': b'1'}))],
    ids=['tarball', 'zipfile'])
def test_download_and_uncompress_puts_archive_and_files_into_the_folder(
    server, tmp_path, function, name, data):
  server.files['/some/' + name] = data
  folder = tmp_path / 'new'
  for _ in range(2):  # The archive is downloaded once.
    getattr(dataset_utils, function)(server.url + '/some/' + name, str(folder))
    assert (folder / 'in' / 'a').read_bytes() == b'1'
    assert (folder / name).read_bytes() == data
  assert len(server.requests) == 1
  (folder / name).write_bytes(data[:-9])
  with pytest.raises(InputError, match='is damaged, .*; remove the file to'):
    getattr(dataset_utils, function)(server.url + '/some/' + name, str(folder))


def test_download_url_returns_the_path(server, tmp_path):
  server.files['/some/file.bin'] = b'data'
  path = dataset_utils.download_url(server.url + '/some/file.bin',
                                    str(tmp_path))
  assert path == str(tmp_path / 'file.bin')
  with open(path, 'rb') as stream:
    assert stream.read() == b'data'


def test_label_file_is_read_as_it_was_written(tmp_path):
  folder = str(tmp_path)
  assert not dataset_utils.has_labels(folder)
  dataset_utils.write_label_file({1: 'roses', 0: 'daisy'}, folder)
  assert (tmp_path / 'labels.txt').read_text() == '0:daisy\n1:roses\n'
  assert dataset_utils.has_labels(folder)
  assert dataset_utils.read_label_file(folder) == {0: 'daisy', 1: 'roses'}
  assert not dataset_utils.has_labels(folder, 'other.txt')


def test_write_label_file_without_a_label_is_refused(tmp_path):
  with pytest.raises(InputError, match='labels are 0, 2, expected 0 to 1'):
    dataset_utils.write_label_file({0: 'a', 2: 'b'}, str(tmp_path))
  assert not os.listdir(str(tmp_path))


def test_open_sharded_output_tfrecords_writes_one_file_per_shard(tmp_path):
  with contextlib.ExitStack() as stack:
    writers = dataset_utils.open_sharded_output_tfrecords(
        stack, str(tmp_path / 'val.record'), 2)
    for index, writer in enumerate(writers):
      writer.write(b'%d' % index)
  assert [list(tf.python_io.tf_record_iterator(
      str(tmp_path / ('val.record-%05d-of-00002' % index))))
          for index in range(2)] == [[b'0'], [b'1']]
