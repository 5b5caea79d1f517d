"""Tests of shares.py: which share a file is in."""

import os
import shutil

import pytest

from common import shares
from common.errors import InputError


@pytest.mark.parametrize('text', ['1/1', '1/4', '4/4', '12/345'])
def test_parse_share_is_printed_as_it_was_given(text):
  assert str(shares.parse(text)) == text


@pytest.mark.parametrize('text', ['', '/4', '2', '0/4', '5/4', '1/0', '-1/4',
                                  '1/4/2', '1.5/4', 'a/b', '1/4\n', ' 1/4'])
def test_parse_other_text_is_an_input_error(text):
  with pytest.raises(InputError, match='expected K/N, share K of N'):
    shares.parse(text)


@pytest.mark.parametrize('total', [1, 2, 3, 7])
def test_select_each_file_is_in_exactly_one_share(tmp_path, total):
  paths = [str(tmp_path / str(number)) for number in range(200)]
  for path in paths[:-1]:  # The last one cannot be read.
    with open(path, 'w') as file:
      file.write('content of ' + path)
  selected = [share.select(paths) for share in shares.all_of(total)]
  assert sorted(sum(selected, [])) == sorted(paths)
  assert all(part == [path for path in paths if path in part]
             for part in selected)
  assert min(map(len, selected)) > 200 / total / 2


def test_holds_depends_on_the_content_only(tmp_path):
  share = shares.Share(1, 2)
  held = []
  for number in range(20):
    path = tmp_path / str(number)
    path.write_bytes(os.urandom(5000))
    shutil.copy(str(path), str(tmp_path / 'copy'))
    held.append(share.holds(str(path)))
    assert share.holds(str(tmp_path / 'copy')) == held[-1]
  assert set(held) == {False, True}
