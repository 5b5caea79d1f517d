"""Tests of serving/exports/class_examples.py, and of the export with it."""

import io
import os

import numpy as np
import pytest
from PIL import Image

import export_inference_graph
from datasets.photo_files import photos
from kits import ood_kit
from kits import serving_kit as kit
from kits.trained_kit import CLASSES
from ood import detector
from runs import run_info
from serving.exports import class_examples
from serving.model import example_photos

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return ood_kit.make_data(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module')
def checkpoint(data, tmp_path_factory):
  return ood_kit.make_run(data, tmp_path_factory.mktemp('run'))


@pytest.fixture(scope='module')
def run(checkpoint):
  return run_info.load(os.path.dirname(checkpoint))


@pytest.fixture(scope='module')
def bank(run, checkpoint):
  return detector.find_or_build_bank(run, checkpoint)[0]


def mean_color(data):
  image = Image.open(io.BytesIO(data))
  assert image.format == 'JPEG' and not image.getexif()
  assert 'comment' not in image.info
  return np.asarray(image).mean((0, 1))


def test_collect_returns_a_photo_of_each_class(run, bank):
  examples, _ = class_examples.collect(run, CLASSES, bank)
  assert CLASSES == ['blue', 'green', 'red'] == list(examples)
  assert [mean_color(examples[name]).argmax() for name in CLASSES] == [2, 1, 0]


def test_collect_photo_is_the_one_nearest_to_the_mean(run, bank):
  rows = np.flatnonzero(bank.labels == 1)
  mean = bank.features[rows].mean(axis=0)
  best = rows[np.argmax(bank.features[rows] @ mean)]
  # Without that photo, another one is chosen.
  others = np.arange(len(bank.labels)) != best
  smaller = bank._replace(**{name: getattr(bank, name)[others]
                             for name in ('features', 'labels', 'positions')})
  all_of_them, _ = class_examples.collect(run, CLASSES, bank)
  without, _ = class_examples.collect(run, CLASSES, smaller)
  assert all_of_them['green'] != without['green']
  assert all_of_them['red'] == without['red']


def test_collect_undecodable_photo_is_skipped(run, bank, monkeypatch):
  expected, _ = class_examples.collect(run, CLASSES, bank)
  preview, calls = class_examples.uploads.preview, []

  def fail_once(data, max_pixels, side):
    calls.append(data)
    if len(calls) == 1:
      raise photos.PhotoError('damaged')
    return preview(data, max_pixels, side)

  monkeypatch.setattr(class_examples.uploads, 'preview', fail_once)
  examples, _ = class_examples.collect(run, CLASSES, bank)
  assert sorted(examples) == CLASSES and len(calls) == 4
  assert examples['blue'] != expected['blue']


def test_collect_without_photos_returns_the_reason(run, bank, tmp_path):
  assert 'reference bank' in class_examples.collect(run, CLASSES, None)[1]
  assert 'reference bank' in class_examples.collect(None, CLASSES, bank)[1]
  examples, reason = class_examples.collect(run, CLASSES, bank,
                                            dataset_dir=str(tmp_path))
  assert examples == {} and str(tmp_path) in reason
  names = ['c%d' % number for number in range(201)]
  assert class_examples.collect(run, names, bank) == (
      {}, '201 classes are more than 200')


def test_collect_bank_returns_its_photos_by_row(run, bank, tmp_path):
  pictures = class_examples.collect_bank(run, bank)
  assert [mean_color(data).argmax() for data in pictures] == [
      2 - label for label in bank.labels]
  assert class_examples.collect_bank(run, None) == []
  assert class_examples.collect_bank(run, bank,
                                     dataset_dir=str(tmp_path)) == []


def test_export_writes_examples_and_noexamples_removes_them(
    checkpoint, tmp_path, capsys):
  frozen = str(tmp_path / 'a.pb')
  arguments = ['--checkpoint_path=' + checkpoint, '--frozen_file=' + frozen]
  assert kit.run(export_inference_graph, *arguments) == 0
  examples = example_photos.read(frozen, os.path.basename(checkpoint), CLASSES)
  assert sorted(examples.classes) == CLASSES
  assert len(examples.bank) == 30
  assert ('Wrote %s: 3 training photos as examples for the page, and 30' %
          example_photos.path_of(frozen)) in capsys.readouterr().out
  assert kit.run(export_inference_graph, '--noexamples', *arguments) == 0
  assert not os.path.exists(example_photos.path_of(frozen))
  assert 'as examples' not in capsys.readouterr().out
