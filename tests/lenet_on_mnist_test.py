"""End-to-end test of the programs: LeNet on real digits in MNIST's format.

scikit-learn ships 1,797 handwritten digits of 8 x 8 pixels (UCI, Alpaydin and
Kaynak 1998). They are written as MNIST's four files, converted, trained on and
evaluated.
"""

import json

import numpy as np
import pytest
from PIL import Image

from datasets import manifest
from datasets.conversion import convert_mnist
from kits import download_kit
from kits.helpers import run_program

# With a batch size of 64, they take a minute on two cores.
STEPS = 400


def write_mnist_files(folder):
  """Writes the digits as MNIST's files; returns the number of test digits."""
  from sklearn.datasets import load_digits  # Takes a second to import.
  data = load_digits()
  images = np.stack([
      np.asarray(Image.fromarray((image * 15.9).astype(np.uint8)).resize(
          (28, 28), Image.BICUBIC)) for image in data.images])
  labels = data.target.astype(np.uint8)
  is_test = np.arange(len(labels)) % 5 == 4
  for split, mask in (('train', ~is_test), ('test', is_test)):
    for (file, *_), array in zip(convert_mnist.FILES[split],
                                (images[mask], labels[mask])):
      (folder / file).write_bytes(download_kit.idx_gz(array))
  return int(is_test.sum())


@pytest.mark.slow
@pytest.mark.engine('tf1')
def test_lenet_on_real_digits_reaches_98_percent_accuracy(tmp_path):
  data_dir = tmp_path / 'data'
  data_dir.mkdir()
  num_test = write_mnist_files(data_dir)
  flags = ['--dataset_name=mnist', '--dataset_dir=%s' % data_dir]
  converted = run_program('download_and_convert_data.py', *flags)
  assert converted.returncode == 0, converted.stderr
  saved = manifest.load(str(data_dir), 'mnist')
  assert saved.splits['test']['size'] == num_test == 359

  flags.append('--model_name=lenet')
  trained = run_program(
      'train_image_classifier.py', *flags, '--train_dir=%s' % (tmp_path / 't'),
      '--batch_size=64', '--optimizer=adam', '--learning_rate=0.001',
      '--learning_rate_decay_type=polynomial', '--end_learning_rate=0',
      '--learning_rate_decay_steps=%d' % STEPS,
      '--max_number_of_steps=%d' % STEPS)
  assert trained.returncode == 0, trained.stderr
  evaluated = run_program(
      'eval_image_classifier.py', *flags, '--dataset_split_name=test',
      '--checkpoint_path=%s' % (tmp_path / 't'),
      '--eval_dir=%s' % (tmp_path / 'e'))
  assert evaluated.returncode == 0, evaluated.stderr
  print(evaluated.stdout)
  with open(str(tmp_path / 'e' / 'metrics.jsonl')) as stream:
    result = json.loads(stream.read().splitlines()[-1])
  assert result['accuracy'] >= 0.98, evaluated.stdout
