"""Tests of draw_flowers.py: reproducible, and not separable by colour alone."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn import linear_model, model_selection, pipeline, preprocessing

from common.errors import InputError
from datasets.conversion import draw_flowers
from kits import dataset_kit
from kits.helpers import ROOT


@pytest.fixture(scope='module')
def sample(tmp_path_factory):
  """Returns 40 photos per kind: {kind: list of [height, width, 3] arrays}."""
  folder = tmp_path_factory.mktemp('flowers')
  draw_flowers.draw_all(str(folder), per_class=40)
  return {kind: [np.asarray(Image.open(str(path)))
                 for path in sorted((folder / kind).iterdir())]
          for kind in sorted(os.listdir(str(folder)))}


def accuracy(sample, features):
  """Returns the cross-validated accuracy of a logistic regression."""
  rows = [features(photo) for photos in sample.values() for photo in photos]
  kinds = [kind for kind, photos in sample.items() for _ in photos]
  model = pipeline.make_pipeline(
      preprocessing.StandardScaler(),
      linear_model.LogisticRegression(C=10, max_iter=2000))
  return model_selection.cross_val_score(model, rows, kinds, cv=5).mean()


def edge_features(photo):
  """Returns the mean and spread of edges at several widths, without colour."""
  grey = photo.astype(float).mean(-1)
  rows = []
  for step in (1, 2, 4, 8, 16):
    edges = np.abs(grey[step:] - grey[:-step]) / (grey.std() + 1)
    rows += [edges.mean(), edges.std()]
  return rows


def test_draw_all_draws_five_kinds_of_flowers(sample):
  assert list(sample) == ['daisy', 'dandelion', 'roses', 'sunflowers', 'tulips']
  shape = (draw_flowers.HEIGHT, draw_flowers.WIDTH, 3)
  for photos in sample.values():
    assert len(photos) == 40
    assert {photo.shape for photo in photos} == {shape}


def test_draw_all_mean_color_does_not_separate_the_kinds(sample):
  assert accuracy(sample, lambda photo: photo.mean((0, 1))) < 0.6


def test_draw_all_edges_separate_the_kinds(sample):
  assert accuracy(sample, edge_features) > 0.75


def test_draw_all_photos_of_a_kind_differ(sample):
  for photos in sample.values():
    means = np.array([photo.mean((0, 1)) for photo in photos])
    assert means.std(0).min() > 10
    assert len({photo.tobytes() for photo in photos}) == len(photos)


def test_draw_all_same_seed_gives_the_same_bytes(tmp_path):
  contents = []
  for folder, seed in (('a', 3), ('b', 3), ('c', 4)):
    draw_flowers.draw_all(str(tmp_path / folder), per_class=2, seed=seed)
    contents.append([dataset_kit.file_contents(tmp_path / folder / kind)
                     for kind in sorted(draw_flowers.KINDS)])
  assert contents[0] == contents[1]
  assert contents[0] != contents[2]


def test_draw_all_more_photos_keep_the_first_ones(tmp_path):
  draw_flowers.draw_all(str(tmp_path / 'a'), per_class=1)
  draw_flowers.draw_all(str(tmp_path / 'b'), per_class=2)
  few, more = (dataset_kit.file_contents(tmp_path / folder / 'tulips')
               for folder in 'ab')
  assert set(few.items()) < set(more.items())


def test_draw_all_into_a_file_gives_one_line_error(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(InputError, match='cannot write to .*file'):
    draw_flowers.draw_all(str(tmp_path / 'file'), per_class=1)


def run_program(*arguments):
  return subprocess.run(
      [sys.executable, '-m', 'datasets.conversion.draw_flowers', *arguments],
      cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_program_draws_and_prints_the_folder(tmp_path):
  result = run_program('--output_dir=%s' % tmp_path, '--per_class=1')
  assert (result.returncode, result.stderr) == (0, '')
  assert str(tmp_path) in result.stdout
  data = (tmp_path / 'roses' / 'roses_0000.jpg').read_bytes()
  assert Image.open(io.BytesIO(data)).format == 'JPEG'


def test_program_without_folder_names_the_flag():
  result = run_program()
  assert result.returncode == 1
  assert result.stderr.count('\n') == 1 and '--output_dir' in result.stderr
