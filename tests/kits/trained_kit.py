"""A tiny converted data set, and short training runs on it."""

import io

import numpy as np
from PIL import Image

import train_image_classifier
from common import checkpoint_files
from datasets.conversion import convert_photos
from kits.helpers import parsed_flags
from runs import checkpoints

CLASSES = ['blue', 'green', 'red']
NAME = 'colours'
# Small networks: a run takes a second or two. MOBILENET has batch norm.
MODEL = 'cifarnet'
MOBILENET = ['--model_name=mobilenet_v1_025', '--train_image_size=32']


def colour_photo(label, number):
  """Returns a JPEG of 40 x 36 pixels, mostly of the colour of its class."""
  rng = np.random.RandomState(1000 * label + number)
  pixels = rng.randint(0, 120, (36, 40, 3))
  pixels[:, :, 2 - label] += rng.randint(90, 130)
  buffer = io.BytesIO()
  Image.fromarray(pixels.astype(np.uint8)).save(buffer, 'JPEG')
  return buffer.getvalue()


def make_photos(folder, per_class=10):
  """Writes `<folder>/<class>/<number>.jpg`, `per_class` photos per class."""
  for label, name in enumerate(CLASSES):
    (folder / name).mkdir(parents=True)
    for number in range(per_class):
      (folder / name / ('%02d.jpg' % number)).write_bytes(
          colour_photo(label, number))


def make_dataset(folder, percent_validation=30):
  """Makes photos and converts them; returns the dataset_dir."""
  make_photos(folder / NAME)
  convert_photos.convert(str(folder), NAME,
                         percent_validation=percent_validation)
  return str(folder)


def train_arguments(dataset_dir, train_dir, *more):
  """Returns the command line of a short run on the tiny data set."""
  return ['--dataset_dir=' + dataset_dir, '--dataset_name=' + NAME,
          '--train_dir=%s' % train_dir, '--model_name=' + MODEL,
          '--batch_size=4', '--log_every_n_steps=1', *more]


def train_config(*arguments):
  """Returns the TrainConfig of a command line of train_image_classifier.py."""
  with parsed_flags(train_image_classifier.define_flags, *arguments):
    return train_image_classifier.config_from_flags()


def train(dataset_dir, train_dir, *more):
  """Trains in this process; returns the newest checkpoint."""
  with parsed_flags(train_image_classifier.define_flags,
                    *train_arguments(dataset_dir, train_dir, *more)):
    train_image_classifier.main([])
  return checkpoints.newest(str(train_dir))


def train_published(dataset_dir, train_dir):
  """Trains all of MOBILENET until its features tell the classes apart."""
  return train(dataset_dir, train_dir, *MOBILENET, '--optimizer=adam',
               '--learning_rate=0.01', '--batch_norm_decay=0.9',
               '--max_number_of_steps=60', '--log_every_n_steps=20')


def read_variables(checkpoint):
  """Returns {name: array} of a checkpoint."""
  reader = checkpoint_files.open_reader(checkpoint)
  return {name: reader.get_tensor(name)
          for name in reader.get_variable_to_shape_map()}
