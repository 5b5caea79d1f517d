"""A tiny run with a feature cache, for tests of OOD detection."""

import io
import shutil

import numpy as np
from PIL import Image

from datasets.conversion import convert_photos
from kits import serving_kit as kit
from kits.trained_kit import CLASSES, MODEL, NAME, make_photos, train


def make_data(folder):
  """Makes 60 coloured photos: 30 train, 21 validation, 9 test."""
  make_photos(folder / NAME, 20)
  convert_photos.convert(str(folder), NAME, percent_validation=35,
                         percent_test=15)
  return str(folder)


def make_run(data, folder, *flags):
  """Trains a head on cached features; returns the newest checkpoint."""
  start = kit.save_checkpoint(folder / 'start', MODEL, CLASSES, with_run=False)
  return train(data, folder / 'run', '--cache_features',
               '--train_classifier_only', '--optimizer=adam',
               '--learning_rate=0.003', '--max_number_of_steps=40',
               '--evaluate_every_n_steps=20', '--log_every_n_steps=20',
               '--seed=1', '--checkpoint_path=' + start, *flags)


def copy_run(train_dir, target):
  """Copies a train directory to `target`; returns its path."""
  return shutil.copytree(train_dir, str(target))


def far_photos():
  """Returns photos that resemble no class: list of bytes."""
  photos = []
  for seed in range(3):
    pixels = np.random.RandomState(seed).randint(0, 2, (6, 5, 3)) * 255
    stream = io.BytesIO()
    Image.fromarray(np.kron(pixels, np.ones((6, 8, 1))).astype(np.uint8)).save(
        stream, 'JPEG')
    photos.append(stream.getvalue())
  return photos
