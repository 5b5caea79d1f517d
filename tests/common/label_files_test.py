"""Tests of common/label_files.py: both formats, and invalid files."""

import pytest

from common import label_files
from common.errors import InputError


def _write(tmp_path, text):
  path = tmp_path / 'a.label'
  path.write_bytes(text if isinstance(text, bytes) else text.encode('utf-8'))
  return str(path)


@pytest.mark.parametrize('text', [
    '0:daisy\n1:tulip\n',
    '1:tulip\r\n\r\n0: daisy\r\n',
    'daisy\ntulip',
    '\ufeffdaisy\n tulip \n\n',
    '\ufeff0:daisy\r\n1:tulip\r\n',
    '0:daisy\r1:\u3000tulip \r',
])
def test_read_either_format_gives_names_by_index(tmp_path, text):
  assert label_files.read(_write(tmp_path, text), 2) == ['daisy', 'tulip']


def test_read_colons_and_chinese_in_names_are_kept(tmp_path):
  path = _write(tmp_path, '0:a:b\n1:蒲公英\n')
  assert label_files.read(path) == ['a:b', '蒲公英']


def test_read_same_name_twice_is_accepted(tmp_path):
  path = _write(tmp_path, '0:crane\n1:crane\n')
  assert label_files.read(path) == ['crane', 'crane']


@pytest.mark.parametrize('text, message', [
    ('', 'is empty'),
    ('\n \n', 'is empty'),
    ('0:daisy\ntulip\n', 'line 2.*no index'),
    ('0:daisy\n0:tulip\n', "line 2: index 0 occurs twice .'daisy', 'tulip'"),
    ('0:daisy\n2:tulip\n', 'index 1 is missing'),
    ('1:daisy\n2:tulip\n', 'index 0 is missing'),
    ('0:daisy\n1:\n', 'line 2: index 1 has no name'),
    ('0:daisy\n1:tulip\n2:rose\n', 'has 3 classes, the network has 2 outputs'),
    ('daisy\n', 'has 1 classes, the network has 2 outputs'),
    (b'0:daisy\n1:\xff\n', 'is not UTF-8 at byte 10'),
])
def test_read_invalid_file_error_names_the_problem(tmp_path, text, message):
  with pytest.raises(InputError, match=message):
    label_files.read(_write(tmp_path, text), 2)


def test_read_missing_file_is_named_in_the_error(tmp_path):
  with pytest.raises(InputError, match='nowhere.label.*No such file'):
    label_files.read(str(tmp_path / 'nowhere.label'))


def test_write_then_read_gives_the_same_names(tmp_path):
  path = str(tmp_path / 'new' / 'a.label')
  label_files.write(path, ['daisy', '蒲公英'])
  with open(path, encoding='utf-8') as file:
    assert file.read() == '0:daisy\n1:蒲公英\n'
  assert label_files.read(path, 2) == ['daisy', '蒲公英']
  assert [p.name for p in (tmp_path / 'new').iterdir()] == ['a.label']


def test_write_without_indices_then_read_gives_the_same_names(tmp_path):
  path = str(tmp_path / 'a.label')
  label_files.write(path, ['daisy', 'tulip'], indexed=False)
  with open(path, encoding='utf-8') as file:
    assert file.read() == 'daisy\ntulip\n'
  assert label_files.read(path) == ['daisy', 'tulip']


def test_write_line_break_in_name_is_refused(tmp_path):
  with pytest.raises(InputError, match='label 1.*line break'):
    label_files.write(str(tmp_path / 'a.label'), ['daisy', 'tu\nlip'])
  assert not list(tmp_path.iterdir())


def test_write_unwritable_path_is_named_in_the_error(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(InputError, match='cannot write .*a.label'):
    label_files.write(str(tmp_path / 'file' / 'a.label'), ['daisy'])
