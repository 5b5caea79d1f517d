"""Tests of datasets/photo_files/class_names.py."""

import pytest

from common.errors import InputError
from datasets.photo_files import class_names


@pytest.mark.parametrize('name, expected', [
    ('rose', 'rose'), ('a/b', 'a/b'), (' ROSE', 'Rose'), ('new one', 'new one'),
    ('e\u0301lan', '\u00e9lan'), ('\u82b1', '\u82b1')])
def test_check_returns_an_existing_class_or_the_folder_name(name, expected):
  assert class_names.check(name, ['rose' if name == 'rose' else 'Rose',
                                  'a/b']) == expected


@pytest.mark.parametrize('name', ['', ' ', 'a/b', '..', '.a', 'test', '\ud800',
                                  'a\u200bb', '-', 'CON:', 'x' * 61])
def test_check_with_a_name_that_is_not_a_folder_name_is_an_error(name):
  with pytest.raises(InputError, match='cannot be the name of a class'):
    class_names.check(name)
