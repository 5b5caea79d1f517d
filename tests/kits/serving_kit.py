"""Checkpoints with random weights, photos, and programs run in this process.

For tests of export, classifier and server.
"""

import contextlib
import io
import os

import numpy as np
from absl import flags
from PIL import Image

from compat import tf
from nets import nets_factory
from runs import run_info

LABELS = ['daisy', 'dandelion', 'roses', 'sunflowers', 'tulips']
SIZE = 32


def save_checkpoint(folder, model_name='mobilenet_v1_025', labels=None,
                    size=SIZE, with_run=True, decay=None, step=7):
  """Writes a checkpoint of a network with random weights.

  Args:
    folder: train directory, created if it does not exist.
    model_name: key of nets_factory.
    labels: names by output index; None: LABELS.
    size: height and width of the input in pixels.
    with_run: whether to write a run.json.
    decay: decay of moving averages, which are saved as zeros; None: no
      averages.
    step: global step.

  Returns:
    The checkpoint's prefix.
  """
  labels = labels or LABELS
  row = nets_factory.get_network(model_name)
  with tf.Graph().as_default():
    images = tf.zeros([1, size, size, row.channels])
    nets_factory.get_network_fn(model_name, len(labels))(images)
    tf.train.get_or_create_global_step()
    names = {v.op.name: v for v in tf.global_variables()}
    if decay:
      for variable in tf.model_variables():
        name = variable.op.name + '/ExponentialMovingAverage'
        names[name] = tf.Variable(tf.zeros_like(variable), trainable=False)
    saver = tf.train.Saver(names)
    with tf.Session() as session:
      session.run(tf.global_variables_initializer())
      session.run(tf.train.get_global_step().assign(step))
      _load_weights(session, row)
      os.makedirs(str(folder), exist_ok=True)
      prefix = saver.save(session, os.path.join(str(folder), 'model.ckpt'),
                          global_step=step, write_meta_graph=False)
  if with_run:
    run_info.save(str(folder), run_info.RunInfo(
        model_name, labels, 0, size, row.preprocessing, 'my_flower_5',
        '/nowhere', decay))
  return prefix


def _load_weights(session, row):
  """Loads weights with which the outputs of different photos differ.

  With the networks' own initializers, activations vanish after many layers,
  because batch norm in inference mode does not scale them back.
  """
  for index, variable in enumerate(tf.trainable_variables()):
    shape = variable.shape.as_list()
    name = variable.op.name
    if not name.endswith('weights'):
      continue
    depthwise = name.endswith('depthwise_weights')
    fan_in = np.prod(shape[:2 if depthwise else -1])
    # The last layers of a small image have one pixel: all others that a kernel
    # reads are padding.
    gain = 9 if depthwise or name.startswith(row.classifier_scopes[0]) else 2
    values = np.random.RandomState(index).normal(size=shape)
    session.run(variable.initializer, {
        variable.initializer.inputs[1]: values * np.sqrt(gain / fan_in)})


def make_photo(seed, kind='JPEG', height=40, width=52):
  """Returns the bytes of a photo of coloured noise in large spots."""
  values = np.random.RandomState(seed).randint(0, 256, (5, 6, 3), np.uint8)
  image = Image.fromarray(values).resize((width, height), Image.BILINEAR)
  stream = io.BytesIO()
  image.save(stream, kind)
  return stream.getvalue()


def write_photos(folder, count):
  """Writes `count` photos; returns their paths."""
  paths = []
  for seed in range(count):
    path = folder / ('photo_%d.jpg' % seed)
    path.write_bytes(make_photo(seed))
    paths.append(str(path))
  return paths


@contextlib.contextmanager
def parsed_flags(program, *arguments):
  """Defines and parses a program's flags, and removes them afterwards.

  Args:
    program: module with `define_flags`.
    *arguments: command-line arguments.

  Yields:
    argv for its `main`.
  """
  before = set(flags.FLAGS)
  program.define_flags()
  try:
    yield flags.FLAGS([program.__name__ + '.py'] + list(arguments))
  finally:
    for name in set(flags.FLAGS) - before:
      delattr(flags.FLAGS, name)
    flags.FLAGS.unparse_flags()


def run(program, *arguments):
  """Runs a program's main in this process; returns its exit status."""
  with parsed_flags(program, *arguments) as argv:
    return program.main(argv) or 0
