"""Tests of common/paths.py: paths in messages."""

import os

import pytest

from common import paths


@pytest.mark.parametrize('text, expected', [
    ('{}/out/x.pb', 'out/x.pb'),
    ("no file '{}/a b', nor {}/c; in={}/d", "no file 'a b', nor c; in=d"),
    ('{}', '{}'), ('{}/', '{}/'), ('{}x/y', '{}x/y'),
    ('/other{}/x', '/other{}/x'), ('file://{}/x', 'file://{}/x'),
    ('x/{}', 'x/{}'), ('/no/where', '/no/where')])
def test_relative_removes_the_current_folder_only_at_the_start_of_a_path(
    tmp_path, monkeypatch, text, expected):
  monkeypatch.chdir(str(tmp_path))
  here = os.getcwd()
  assert paths.relative(text.replace('{}', here)) == (
      expected.replace('{}', here))


def test_relative_knows_the_name_of_a_folder_with_a_link(
    tmp_path, monkeypatch):
  (tmp_path / 'real').mkdir()
  (tmp_path / 'link').symlink_to('real')
  monkeypatch.chdir(str(tmp_path / 'link'))
  monkeypatch.setenv('PWD', str(tmp_path / 'link'))
  assert paths.relative('%s/x %s/y' % (tmp_path / 'link',
                                       tmp_path / 'real')) == 'x y'
  monkeypatch.setenv('PWD', str(tmp_path))  # Not the current folder.
  assert paths.relative('%s/x' % tmp_path) == '%s/x' % tmp_path


def test_relative_in_the_root_folder_changes_nothing(monkeypatch):
  monkeypatch.chdir('/')
  assert paths.relative('/etc/x') == '/etc/x'
