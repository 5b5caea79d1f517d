"""Test of the programs: LeNet on real digits in MNIST's files.

scikit-learn ships 1,797 written digits of 8 x 8 pixels (UCI, Alpaydin and
Kaynak 1998). Written as MNIST's four files, they are converted, trained on and
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

# So many steps of a batch of 64 take a minute on two cores.
STEPS = 400


def digits_as_mnist(folder):
  """Writes the digits as MNIST's files; each fifth is for testing."""
  from sklearn.datasets import load_digits  # Takes a second to import.
  data = load_digits()
  large = np.stack([
      np.asarray(Image.fromarray((image * 15.9).astype(np.uint8)).resize(
          (28, 28), Image.BICUBIC)) for image in data.images])
  labels = data.target.astype(np.uint8)
  test = np.arange(len(labels)) % 5 == 4
  for split, chosen in (('train', ~test), ('test', test)):
    for (file, *_), array in zip(convert_mnist.FILES[split],
                                (large[chosen], labels[chosen])):
      (folder / file).write_bytes(download_kit.idx_gz(array))
  return int(test.sum())


@pytest.mark.slow
@pytest.mark.engine('tf1')
def test_lenet_learns_real_digits_to_98_percent(tmp_path):
  data_dir = tmp_path / 'data'
  data_dir.mkdir()
  num_test = digits_as_mnist(data_dir)
  shared = ['--dataset_name=mnist', '--dataset_dir=%s' % data_dir]
  converted = run_program('download_and_convert_data.py', *shared)
  assert converted.returncode == 0, converted.stderr
  written = manifest.load(str(data_dir), 'mnist')
  assert written.splits['test']['size'] == num_test == 359

  shared.append('--model_name=lenet')
  trained = run_program(
      'train_image_classifier.py', *shared, '--train_dir=%s' % (tmp_path / 't'),
      '--batch_size=64', '--optimizer=adam', '--learning_rate=0.001',
      '--learning_rate_decay_type=polynomial', '--end_learning_rate=0',
      '--learning_rate_decay_steps=%d' % STEPS,
      '--max_number_of_steps=%d' % STEPS)
  assert trained.returncode == 0, trained.stderr
  evaluated = run_program(
      'eval_image_classifier.py', *shared, '--dataset_split_name=test',
      '--checkpoint_path=%s' % (tmp_path / 't'),
      '--eval_dir=%s' % (tmp_path / 'e'))
  assert evaluated.returncode == 0, evaluated.stderr
  print(evaluated.stdout)
  with open(str(tmp_path / 'e' / 'metrics.jsonl')) as stream:
    result = json.loads(stream.read().splitlines()[-1])
  assert result['accuracy'] >= 0.98, evaluated.stdout
