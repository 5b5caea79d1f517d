"""Tests of conversion/public.py: which downloaded archives are deleted."""

import os

import pytest

from datasets.conversion import (
  convert_cifar10,
  convert_flowers,
  convert_mnist,
  convert_photos,
  labelled_images,
  public,
)
from downloads import marks
from kits import public_kit

server = public_kit.server  # A fixture that pytest finds by this name.

# {data set: (module of its last step, its archives)}
SETS = {
    'cifar10': (labelled_images, [convert_cifar10.ARCHIVE]),
    'flowers': (convert_photos, [convert_flowers.ARCHIVE]),
    'mnist': (labelled_images, sorted(
        name for pair in convert_mnist.FILES.values() for name, *_ in pair)),
}


def interrupt(*_, **__):
  raise KeyboardInterrupt


def archives_in(folder, name):
  """Returns the names of the archives in `folder` and of their marks."""
  return sorted(file for file in os.listdir(str(folder))
                if file.startswith(tuple(SETS[name][1])))


@pytest.mark.parametrize('name', sorted(SETS))
def test_convert_after_a_kill_removes_the_downloaded_archives(
    server, tmp_path, monkeypatch, name):
  module, archives = SETS[name]
  with monkeypatch.context() as patch:
    patch.setattr(module, 'convert', interrupt)
    with pytest.raises(KeyboardInterrupt):
      public.convert(name, str(tmp_path))
  assert archives_in(tmp_path, name) == sorted(
      archives + [archive + '.downloaded' for archive in archives])
  del server.requests[:]
  public.convert(name, str(tmp_path))
  assert (tmp_path / (name + '.json')).exists() and not server.requests
  assert archives_in(tmp_path, name) == []


@pytest.mark.parametrize('name', sorted(SETS))
def test_convert_killed_while_removing_archives_continues(
    server, tmp_path, monkeypatch, name):
  with monkeypatch.context() as patch:
    patch.setattr(marks, 'remove_downloaded', interrupt)
    with pytest.raises(KeyboardInterrupt):
      public.convert(name, str(tmp_path))
  marks.remove_downloaded(str(tmp_path / SETS[name][1][0]))
  del server.requests[:]
  public.convert(name, str(tmp_path))
  assert not server.requests
  assert archives_in(tmp_path, name) == []


@pytest.mark.parametrize('name', sorted(SETS))
def test_convert_archives_of_the_user_are_kept(server, tmp_path, name):
  for archive in SETS[name][1]:
    path = tmp_path / archive
    path.write_bytes(server.files['/' + archive])
    # The mark of an earlier download, which the user has replaced.
    marks.mark(str(path), str(path))
    os.utime(str(path), ns=(1, 1))
  public.convert(name, str(tmp_path))
  assert archives_in(tmp_path, name) == SETS[name][1]
  assert not server.requests
