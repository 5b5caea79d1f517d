"""Tests of data_picture.py: the picture of a data set's photos."""

import io

import numpy as np
import pytest
from PIL import Image

import download_and_convert_data as program
from common.errors import InputError
from datasets import manifest
from datasets.conversion import convert_photos
from evaluation import data_picture
from kits import serving_kit as kit

COLOURS = {'blue': (20, 40, 200), 'red': (200, 30, 20)}


def write_photos(folder, count, size):
  """Writes `count` photos of each colour, each with another shade."""
  for label, colour in COLOURS.items():
    (folder / label).mkdir(parents=True)
    for number in range(count):
      Image.new('RGB', size, tuple(c + number for c in colour)).save(
          str(folder / label / ('%02d.png' % number)))


def read(path):
  return np.asarray(Image.open(str(path)), int)


@pytest.mark.parametrize('size,rows', [((96, 80), 3), ((40, 40), 2)])
def test_picture_has_a_row_per_class_and_one_of_distortions(
    tmp_path, size, rows):
  write_photos(tmp_path / 'set', 12, size)
  converted = convert_photos.convert(str(tmp_path), 'set')
  picture = np.asarray(Image.open(io.BytesIO(
      data_picture.draw(str(tmp_path), converted))), int)
  step = picture.shape[0] // rows
  assert picture.shape[0] - rows * step < 20 and step > 90
  width = (picture.shape[1] - 150) / data_picture.PER_CLASS
  for row, colour in enumerate(COLOURS.values()):
    for column in range(data_picture.PER_CLASS):
      pixel = picture[int((row + 0.5) * step),
                      150 + int((column + 0.5) * width)]
      assert abs(pixel - colour).max() < 25
  if rows == 3:  # Of the first class, in other colours.
    tiles = [picture[int(2.5 * step), 150 + int((column + 0.5) * width)]
             for column in range(data_picture.NUM_DISTORTED)]
    assert all(tile[2] > tile[0] + 50 for tile in tiles)
    assert len({tuple(tile) for tile in tiles}) > 1


def test_picture_reads_few_records_and_few_classes(tmp_path, monkeypatch):
  write_photos(tmp_path / 'set', 12, (32, 32))
  converted = convert_photos.convert(str(tmp_path), 'set')
  monkeypatch.setattr(data_picture, 'MAX_CLASSES', 1)
  one = data_picture.draw(str(tmp_path), converted)
  assert Image.open(io.BytesIO(one)).height < 130
  monkeypatch.setattr(data_picture, 'MAX_RECORDS', 1)
  photos = data_picture._collect(str(tmp_path), converted)
  assert sum(map(len, photos.values())) <= 1


def test_program_writes_picture_unless_told_not_to(tmp_path, capsys, caplog,
                                                   monkeypatch):
  write_photos(tmp_path / 'my set', 3, (32, 32))
  arguments = ('--dataset_name=my set', '--dataset_dir=%s' % tmp_path)
  path = tmp_path / 'my set_photos.jpg'
  assert data_picture.address(str(tmp_path / 'a' / 'r.html'), str(tmp_path),
                              'my set') is None
  kit.run(program, *arguments, '--nopicture')
  assert not path.exists()
  kit.run(program, *arguments)
  assert 'my set_photos.jpg: a picture of the photos' in capsys.readouterr().out
  assert read(path).shape[2] == 3
  assert data_picture.address(str(tmp_path / 'a' / 'r.html'), str(tmp_path),
                              'my set') == '../my%20set_photos.jpg'
  folder = tmp_path / '\udcff'  # A byte that is no UTF-8.
  folder.mkdir()
  path.rename(folder / path.name)
  assert data_picture.address(str(tmp_path / 'r.html'), str(folder),
                              'my set') == '%FF/my%20set_photos.jpg'
  (folder / path.name).rename(path)
  # Without it the conversion is complete all the same.

  def fail(*_):
    raise InputError('no disk')

  monkeypatch.setattr(data_picture, 'draw', fail)
  assert kit.run(program, *arguments) == 0
  assert 'No picture of the photos: no disk' in caplog.text
  assert manifest.load(str(tmp_path), 'my set') is not None
