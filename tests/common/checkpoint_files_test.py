"""Tests of common/checkpoint_files.py."""

import os

import pytest

from common import checkpoint_files
from common.errors import InputError
from compat import tf
from kits.checkpoint_kit import write_checkpoints


def test_is_complete_knows_the_length_of_every_type(tmp_path):
  prefix = str(tmp_path / 'x.ckpt')
  with tf.Graph().as_default(), tf.Session() as session:
    kinds = [tf.Variable(tf.cast([[1, 0, 1]], kind), name=kind) for kind in
             ('float16', 'bfloat16', 'int64', 'bool', 'complex64')]
    text = tf.Variable([b'', b'text' * 100], name='text')
    session.run([variable.initializer for variable in kinds + [text]])
    for variables in kinds, kinds + [text], [text]:
      tf.train.Saver(variables).save(session, prefix)
      assert checkpoint_files.is_complete(prefix)
      data = prefix + '.data-00000-of-00001'
      os.truncate(data, os.path.getsize(data) - 1)
      assert not checkpoint_files.is_complete(prefix)


def test_is_complete_with_a_file_that_a_killed_writer_left(tmp_path):
  prefix, = write_checkpoints(tmp_path, [1])
  with open(prefix + '.data-00000-of-00001.tempstate123', 'wb'):
    pass
  assert checkpoint_files.is_complete(prefix)


def test_open_reader_damaged_file_is_one_line(tmp_path):
  path = tmp_path / 'model.ckpt'
  path.write_bytes(b'no checkpoint at all')
  with pytest.raises(InputError, match='cannot be read') as caught:
    checkpoint_files.open_reader(str(path))
  assert '\n' not in str(caught.value)
