"""Tests of kits/helpers.py: the folder that SHARED_DIR names."""

import os

import pytest

from kits import helpers


def test_shared_folder_without_the_variable_skips(monkeypatch):
  monkeypatch.delenv('SHARED_DIR', raising=False)
  # Even if a folder named shared exists.
  monkeypatch.setattr(os.path, 'isdir', lambda path: True)
  with pytest.raises(pytest.skip.Exception, match='SHARED_DIR is not set'):
    helpers.shared_folder()


def test_shared_folder_with_the_variable_is_its_value(monkeypatch, tmp_path):
  monkeypatch.setenv('SHARED_DIR', str(tmp_path))
  assert helpers.shared_folder() == str(tmp_path)
