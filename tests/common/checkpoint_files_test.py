"""Tests of common/checkpoint_files.py."""

import os

import pytest

from common import checkpoint_files
from common.errors import InputError
from compat import tf
from kits.checkpoint_kit import write_checkpoints


def test_is_complete_truncated_data_of_any_dtype_is_false(tmp_path):
  prefix = str(tmp_path / 'x.ckpt')
  with tf.Graph().as_default(), tf.Session() as session:
    numbers = [tf.Variable(tf.cast([[1, 0, 1]], dtype), name=dtype) for dtype in
               ('float16', 'bfloat16', 'int64', 'bool', 'complex64')]
    text = tf.Variable([b'', b'text' * 100], name='text')
    session.run([variable.initializer for variable in numbers + [text]])
    for variables in numbers, numbers + [text], [text]:
      tf.train.Saver(variables).save(session, prefix)
      assert checkpoint_files.is_complete(prefix)
      data_path = prefix + '.data-00000-of-00001'
      os.truncate(data_path, os.path.getsize(data_path) - 1)
      assert not checkpoint_files.is_complete(prefix)


def test_is_complete_with_leftover_of_killed_writer_is_true(tmp_path):
  prefix, = write_checkpoints(tmp_path, [1])
  with open(prefix + '.data-00000-of-00001.tempstate123', 'wb'):
    pass
  assert checkpoint_files.is_complete(prefix)


def test_open_reader_damaged_file_gives_one_line_error(tmp_path):
  path = tmp_path / 'model.ckpt'
  path.write_bytes(b'no checkpoint at all')
  with pytest.raises(InputError, match='cannot be read') as caught:
    checkpoint_files.open_reader(str(path))
  assert '\n' not in str(caught.value)
