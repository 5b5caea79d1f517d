"""Reads the files of a training run, for the tests of the kinds of runs."""

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

# Of the tiny network; all else is its backbone.
TINY_HEAD = '--trainable_scopes=Head/logits'


@contextlib.contextmanager
def tiny_networks():
  """Has --model_name=cifarnet stand for the network of network_kit.py.

  It has batch norm and an auxiliary head, and runs in half the time.
  """
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(nets_factory, 'get_network_fn', network_kit.network_fn)
    yield


def evaluations(folder):
  """Returns the lines of validation.jsonl in a train directory."""
  with open(os.path.join(str(folder), 'validation.jsonl')) as file:
    return [json.loads(line) for line in file]


def listed_paths(folder):
  """Returns the paths in TensorFlow's list as they are, oldest first."""
  with open(os.path.join(str(folder), 'checkpoint'), encoding='utf-8') as file:
    newest, *paths = re.findall(': "(.*)"', file.read())
  assert newest == paths[-1]
  return paths


def evaluate(checkpoint, eval_dir, *flags):
  """Has eval_image_classifier.py count the validation photos.

  Args:
    checkpoint: path of a checkpoint, or folder of one.
    eval_dir: folder for what it writes.
    *flags: more of its flags.

  Returns:
    Photos, accuracy and mean cross entropy.
  """
  with parsed_flags(eval_image_classifier.define_flags,
                    '--checkpoint_path=%s' % checkpoint,
                    '--eval_dir=%s' % eval_dir,
                    '--dataset_split_name=validation', *flags):
    eval_image_classifier.main([])
  with open(os.path.join(str(eval_dir), 'metrics.jsonl')) as file:
    found = json.loads(file.readlines()[-1])
  with open(os.path.join(str(eval_dir), 'predictions-validation-%d.csv' %
                         found['global_step'])) as file:
    shares = [float(row['label_probability']) for row in csv.DictReader(file)]
  assert len(shares) == found['photos']
  return found['photos'], found['accuracy'], -np.mean(np.log(shares))
