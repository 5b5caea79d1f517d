"""Files and evaluations of training runs, and runs of a tiny network."""

import contextlib
import csv
import json
import os
import re

import numpy as np
import pytest

import eval_image_classifier
from kits import network_kit
from kits.helpers import parsed_flags
from nets import nets_factory

# Flag for the tiny network: all other layers are its frozen backbone.
TINY_HEAD = '--trainable_scopes=Head/logits'


@contextlib.contextmanager
def tiny_networks():
  """Replaces the network of --model_name=cifarnet by that of network_kit.py.

  That has batch norm and an auxiliary head, and runs in half the time.
  """
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(nets_factory, 'get_network_fn', network_kit.network_fn)
    yield


def evaluations(folder):
  """Returns the lines of validation.jsonl in a train directory."""
  with open(os.path.join(str(folder), 'validation.jsonl')) as file:
    return [json.loads(line) for line in file]


def listed_paths(folder):
  """Returns the paths in TensorFlow's list of checkpoints, oldest first."""
  with open(os.path.join(str(folder), 'checkpoint'), encoding='utf-8') as file:
    newest, *paths = re.findall(': "(.*)"', file.read())
  assert newest == paths[-1]
  return paths


def evaluate(checkpoint, eval_dir, *flags):
  """Evaluates the validation photos with eval_image_classifier.py.

  Args:
    checkpoint: path of a checkpoint, or of its folder.
    eval_dir: output folder.
    *flags: further flags.

  Returns:
    Number of photos, accuracy and mean cross entropy.
  """
  with parsed_flags(eval_image_classifier.define_flags,
                    '--checkpoint_path=%s' % checkpoint,
                    '--eval_dir=%s' % eval_dir,
                    '--dataset_split_name=validation', *flags):
    eval_image_classifier.main([])
  with open(os.path.join(str(eval_dir), 'metrics.jsonl')) as file:
    metrics = json.loads(file.readlines()[-1])
  with open(os.path.join(str(eval_dir), 'predictions-validation-%d.csv' %
                         metrics['global_step'])) as file:
    probabilities = [float(row['label_probability'])
                     for row in csv.DictReader(file)]
  assert len(probabilities) == metrics['photos']
  return (metrics['photos'], metrics['accuracy'],
          -np.mean(np.log(probabilities)))
