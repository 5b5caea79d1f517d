r"""Writes tests/data/nets/<name>.json from a checkout of slim.

  git clone https://github.com/tensorflow/models ../models
  PYTHONPATH=tests .venv/bin/python -m kits.make_nets_facts \
      --slim_dir=../models/research/slim --networks=lenet,cifarnet

It runs slim's own networks, on TensorFlow 1.15: slim of 2018 needs tf.contrib.
A file has the variables, end points, output nodes and, with seeded weights, the
logits of an evaluation network for 11 classes and a batch of 1.
"""

import importlib
import json
import os
import sys

from absl import flags

from common import flags as common_flags
from common.errors import InputError, unknown_name
from compat import tf
from kits import nets_kit

FLAGS = flags.FLAGS


def define_flags():
  """Defines the flags of this program."""
  flags.DEFINE_string(
      'slim_dir', None,
      'The folder research/slim of a checkout of tensorflow/models. Required.')
  flags.DEFINE_list(
      'networks', None,
      'The networks to compute, by slim\'s names. None: those that have a file '
      'in the output folder.')
  flags.DEFINE_string(
      'output_dir', 'tests/data/nets', 'The folder of the JSON files.')


def load_slim(folder):
  """Imports nets/nets_factory.py of a checkout, with slim's `nets` package.

  Args:
    folder: research/slim of the checkout.

  Returns:
    The module.

  Raises:
    InputError: the folder has no nets/nets_factory.py.
  """
  if not os.path.isfile(os.path.join(folder, 'nets', 'nets_factory.py')):
    raise InputError('--slim_dir: %r has no nets/nets_factory.py' % folder)
  # First, so that `nets` is slim's package and not the project's.
  sys.path.insert(0, os.path.abspath(folder))
  return importlib.import_module('nets.nets_factory')


def network_facts(nets_factory, name):
  """Builds and runs a network with seeded weights.

  Args:
    nets_factory: slim's module, or one with its networks_map and
      get_network_fn.
    name: name of the network.

  Returns:
    The contents of its JSON file, a dict.

  Raises:
    InputError: no network has this name.
  """
  if name not in nets_factory.networks_map:
    raise unknown_name('network', name, nets_factory.networks_map)
  size = nets_factory.networks_map[name].default_image_size
  image = nets_kit.seeded_image(size, _channels(nets_factory, name))
  with tf.Graph().as_default(), tf.Session() as session:
    images = tf.placeholder(tf.float32, image.shape)
    logits, end_points = nets_factory.get_network_fn(
        name, nets_kit.NUM_CLASSES)(images)
    variables = nets_kit.variable_shapes()
    count = sum(v.shape.num_elements() for v in tf.global_variables())
    nets_kit.load_seeded_weights(session, tf.global_variables())
    values = session.run(logits, {images: image})
  predictions = end_points.get('Predictions', end_points.get('predictions'))
  return {
      'name': name,
      'image_size': size,
      'num_classes': nets_kit.NUM_CLASSES,
      'variables': variables,
      'n_params': count,
      'end_points': nets_kit.shapes(end_points),
      'output_nodes': {
          'logits': logits.op.name,
          'predictions': None if predictions is None else predictions.op.name},
      'logits': [[float('%.6g' % value) for value in row] for row in values],
  }


def _channels(nets_factory, name):
  """Returns the channels of a network's image; slim has no table of them."""
  rows = getattr(nets_factory, 'NETWORKS', None)
  return rows[name].channels if rows else 1 if name == 'lenet' else 3


def main(_):
  """Writes the file of each network.

  Raises:
    InputError: the checkout or a network does not exist.
  """
  if not FLAGS.slim_dir:
    raise InputError('--slim_dir is required: research/slim of a checkout of '
                     'https://github.com/tensorflow/models')
  if not os.path.isdir(FLAGS.output_dir):
    raise InputError('--output_dir: %r is not a folder' % FLAGS.output_dir)
  nets_factory = load_slim(FLAGS.slim_dir)
  names = FLAGS.networks or sorted(
      os.path.splitext(file)[0] for file in os.listdir(FLAGS.output_dir)
      if file.endswith('.json'))
  for name in names:
    facts = network_facts(nets_factory, name)
    path = os.path.join(FLAGS.output_dir, name + '.json')
    with open(path, 'w', encoding='utf-8') as file:
      json.dump(facts, file, sort_keys=True, separators=(',', ':'))
      file.write('\n')
    print('%s: %d variables, %d parameters' % (path, len(facts['variables']),
                                               facts['n_params']), flush=True)


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
