"""Tests of tools/label_next.py: a frozen graph of colours, and a folder."""

import csv
import io
import os

import numpy as np
import pytest
from PIL import Image

from common.errors import InputError
from datasets.conversion import convert_photos
from kits import graph_kit, scene_kit
from kits import serving_kit as kit
from tools import label_next as program

# {file: colour}: uncertain, in the data set, certain, and of no class.
PHOTOS = {'b/red_green.jpg': (150, 145, 40), 'a/green_blue.jpg': (40, 145, 150),
          'labelled.jpg': (150, 40, 149), 'red.jpg': (220, 30, 30),
          'green.jpg': (40, 210, 30), 'grey.jpg': (120, 120, 120)}
NAMES = sorted(PHOTOS)
HEADER = ['file', 'label', 'score', 'reason']


def scene_of(name):
  """Returns a Pillow image in the colour of a photo, unlike the others."""
  shapes = np.asarray(scene_kit.scene(NAMES.index(name)), float)
  shapes = shapes.mean(axis=2, keepdims=True) / 6
  pixels = PHOTOS[name] + shapes - shapes.mean()
  return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


@pytest.fixture(scope='module')
def frozen(tmp_path_factory):
  return str(graph_kit.write(tmp_path_factory.mktemp('graph')))


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """Flags of a data set with one of the photos, in another size."""
  folder = tmp_path_factory.mktemp('data')
  for seed in range(20, 26):
    path = folder / 'set' / ('even', 'odd')[seed % 2] / ('%d.jpg' % seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(scene_kit.encode(scene_kit.scene(seed)))
  (folder / 'set' / 'odd' / '9.jpg').write_bytes(
      scene_kit.resized(scene_of('labelled.jpg')))
  convert_photos.convert(str(folder), 'set', percent_validation=30)
  return ['--dataset_name=set', '--dataset_dir=%s' % folder]


@pytest.fixture
def album(tmp_path):
  """The photos, and a small copy of an uncertain one."""
  for name in NAMES:
    path = tmp_path / 'album' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(scene_kit.encode(scene_of(name)))
  (tmp_path / 'album' / 'z.jpg').write_bytes(
      scene_kit.mirrored(scene_of('b/red_green.jpg')))
  return tmp_path / 'album'


def rows_of(text):
  rows = list(csv.reader(io.StringIO(text)))
  assert rows[0] == HEADER
  return rows[1:]


def run(frozen, album, *flags):
  """Runs the program; returns its exit status."""
  return kit.run(program, '--frozen_graph=' + frozen, str(album), *flags)


def names_of(rows, album):
  return [os.path.relpath(row[0], str(album)) for row in rows]


def test_main_chooses_uncertain_photos_without_copies_and_unknown_ones(
    frozen, album, data, tmp_path, capsys):
  capsys.readouterr()
  assert run(frozen, album, '--count=2', *data,
             '--unknown_file=%s' % (tmp_path / 'new' / 'unknown.csv')) == 0
  out, err = capsys.readouterr()
  rows = rows_of(out)
  names = names_of(rows, album)
  assert len(names) == 2 and 'a/green_blue.jpg' in names
  assert {'b/red_green.jpg', 'z.jpg'} & set(names)
  row = rows[names.index('a/green_blue.jpg')]
  assert row[1] == 'rose' and 0.4 < float(row[2]) < 0.5
  assert row[3] == 'rose %.1f %% or tulip %s' % (
      100 * float(row[2]), row[3].split(' or tulip ')[1])
  assert ('2 of 7 photos chosen; 2 are copies of others or of labelled photos; '
          '1 are none of the classes (%s), which --with_unknown' % (
              album / 'grey.jpg')) in err
  unknown, = rows_of((tmp_path / 'new' / 'unknown.csv').read_text())
  assert unknown[0] == str(album / 'grey.jpg')
  assert '; none of the classes, similarity 0.0' in unknown[3]


def test_main_with_unknown_and_without_a_data_set_chooses_among_all(
    frozen, album, capsys, log):
  run(frozen, album, '--with_unknown')
  assert len(names_of(rows_of(capsys.readouterr().out), album)) == 6
  assert 'photos that are labelled may be chosen' in log.text


def test_main_sort_into_places_photos_once(frozen, album, data, capsys):
  target = album.parent / 'next'
  flags = ['--sort_into=%s' % target, *data]
  run(frozen, album, '--count=2', *flags)
  placed = sorted(str(path.relative_to(target)) for path in target.glob('*/*'))
  first = names_of(rows_of(capsys.readouterr().out), album)
  assert sorted(map(os.path.basename, placed)) == sorted(
      map(os.path.basename, first))
  assert {os.path.dirname(path) for path in placed} <= set(graph_kit.LABELS)
  run(frozen, album, '--count=9', *flags)
  second = names_of(rows_of(capsys.readouterr().out), album)
  # No copy of what was chosen before.
  assert set(second) == {'red.jpg', 'green.jpg'}
  for path in target.glob('*/*'):
    path.unlink()
  assert run(frozen, album, *flags) == 0


def test_main_sort_into_link_out_of_the_folder_is_named(frozen, album, capsys):
  (album / 'link.jpg').symlink_to(kit.write_photos(album.parent, 1)[0])
  assert run(frozen, album, '--sort_into=%s' % (album.parent / 'next')) == 1
  out, err = capsys.readouterr()
  assert 'link.jpg' not in names_of(rows_of(out), album)
  assert 'link.jpg: a symbolic link that leads out of the folder' in err
  assert err.rstrip().endswith('; 1 cannot be used')


def test_main_photo_that_cannot_be_read_is_named(frozen, album, capsys):
  (album / 'broken.jpg').write_bytes(b'broken')
  assert run(frozen, album) == 1
  out, err = capsys.readouterr()
  assert len(rows_of(out)) == 5
  assert '%s: ' % (album / 'broken.jpg') in err
  assert err.rstrip().endswith('; 1 cannot be used')


def test_main_folder_without_a_usable_photo_prints_the_header(frozen, tmp_path,
                                                              capsys):
  (tmp_path / 'grey.jpg').write_bytes(scene_kit.encode(scene_of('grey.jpg')))
  assert run(frozen, tmp_path) == 0
  assert rows_of(capsys.readouterr().out) == []


@pytest.mark.parametrize('flags, message', [
    (['--sort_by=link'], '--sort_by works with --sort_into only'),
    (['--sort_into=ALBUM/next'], 'none inside the other'),
    (['--frozen_graph=/nowhere.pb'], "frozen graph '/nowhere.pb'"),
    (['--frozen_graph='], '--frozen_graph is needed')])
def test_main_wrong_input_is_an_input_error(frozen, album, flags, message):
  with pytest.raises(InputError, match=message):
    run(frozen, album, *[flag.replace('ALBUM', str(album)) for flag in flags])
  with pytest.raises(InputError, match='give files or folders, got none'):
    kit.run(program, '--frozen_graph=' + frozen)
