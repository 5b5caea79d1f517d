"""A training graph of a tiny network with two heads, without any files."""

import contextlib

import numpy as np

from compat import slim, tf
from kits.trained_kit import train_config
from nets import nets_factory
from nets.batch_norm import batch_norm
from runs import run_info
from training import graph as training_graph

LABELS = ['blue', 'green', 'red']
BATCH = 8


def network_fn(model_name, num_classes, weight_decay=0.0, is_training=False,
               head=None, quantize=False):
  """Replaces nets_factory.get_network_fn. Scopes: Backbone, Aux and Head."""
  del model_name, head, quantize

  def build(images):
    decay = slim.l2_regularizer(weight_decay) if weight_decay else None
    norm = dict(normalizer_fn=batch_norm,
                normalizer_params={'is_training': is_training})
    with slim.arg_scope([slim.conv2d, slim.fully_connected],
                        weights_regularizer=decay):
      backbone = slim.flatten(
          slim.conv2d(images, 4, 3, scope='Backbone/conv', **norm))
      aux = slim.fully_connected(backbone, num_classes, activation_fn=None,
                                 scope='Aux/logits')
      net = slim.fully_connected(backbone, 6, scope='Head/fc', **norm)
      logits = slim.fully_connected(net, num_classes, activation_fn=None,
                                    scope='Head/logits')
    # fc4 is the end point of cifarnet's features: some tests use its name.
    return logits, {'AuxLogits': aux, 'Logits': logits, 'fc4': net}

  return build


def photos(seed=0):
  """Returns a batch of images and labels, as arrays."""
  random = np.random.RandomState(seed)
  return {'image': random.randn(BATCH, 4, 4, 3).astype(np.float32),
          'label': random.randint(0, len(LABELS), BATCH).astype(np.int64)}


class _Photos:
  """Replaces the iterator over augmented photos."""

  @staticmethod
  def get_next():
    return {key: tf.constant(value) for key, value in photos().items()}


@contextlib.contextmanager
def training(monkeypatch, *arguments, scopes=(), next_batch=None,
             dataset_dir='/nowhere'):
  """Builds the training graph of a command line, as the default graph.

  Args:
    monkeypatch: pytest's fixture.
    *arguments: flags of train_image_classifier.py.
    scopes: trainable scopes.
    next_batch: as for training.graph.build; None: the photos of `photos`.
    dataset_dir: folder that may have a manifest.

  Yields:
    The TrainingGraph.
  """
  monkeypatch.setattr(nets_factory, 'get_network_fn', network_fn)
  monkeypatch.setattr(training_graph, '_photos', lambda *unused: _Photos)
  info = run_info.RunInfo('tiny', LABELS, 0, 4, 'inception', 'colours',
                          str(dataset_dir), None)
  dataset = slim.dataset.Dataset([], None, None, num_samples=80,
                                 items_to_descriptions={})
  with tf.Graph().as_default():
    tf.set_random_seed(1)
    yield training_graph.build(train_config(*arguments), dataset, info, None,
                               list(scopes), next_batch)


@contextlib.contextmanager
def session():
  """Yields a session with initial values, like that of slim.learning.train."""
  config = tf.ConfigProto(allow_soft_placement=True)
  with tf.Session(config=config) as new_session:
    new_session.run([tf.global_variables_initializer(),
                     tf.local_variables_initializer()])
    new_session.run(tf.tables_initializer())
    yield new_session
