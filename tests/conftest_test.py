"""Tests of conftest.py: the fixture for SHARED_DIR."""

import os

import pytest

import conftest


def test_shared_folder_without_the_variable_skips(monkeypatch):
  monkeypatch.delenv('SHARED_DIR', raising=False)
  # Even where a folder of that name is beside the checkout.
  monkeypatch.setattr(os.path, 'isdir', lambda path: True)
  with pytest.raises(pytest.skip.Exception, match='SHARED_DIR is not set'):
    conftest.shared_folder()


def test_shared_folder_is_what_the_variable_names(monkeypatch, tmp_path):
  monkeypatch.setenv('SHARED_DIR', str(tmp_path))
  assert conftest.shared_folder() == str(tmp_path)
