"""Tests of nets/overfeat.py: forward pass and initial values."""

import numpy as np
import pytest

from compat import slim, tf
from kits import nets_kit
from nets import overfeat


@pytest.fixture
def narrow(monkeypatch):
  """Makes all layers narrow, so that they are fast to initialize."""
  monkeypatch.setattr(overfeat, 'LAYERS', tuple(
      row._replace(width=16) if 'conv' in row.scope else row
      for row in overfeat.LAYERS))
  monkeypatch.setattr(overfeat, 'FC6', overfeat.FC6._replace(width=8))
  monkeypatch.setattr(overfeat, 'FC7', overfeat.FC7._replace(width=9))


def test_forward_logits_are_finite_and_depend_on_the_photo(narrow):
  with tf.Graph().as_default(), tf.Session() as session:
    images = tf.placeholder(tf.float32, [None, None, None, 3])
    with slim.arg_scope(overfeat.overfeat_arg_scope()):
      logits, _ = overfeat.overfeat(images, 10, is_training=False)
    nets_kit.load_seeded_weights(session, tf.global_variables())
    photo = nets_kit.seeded_image(231, 3)
    output = session.run(logits, {images: np.concatenate([photo, -photo])})
  assert output.shape == (2, 10)
  assert np.isfinite(output).all()
  assert abs(output[0] - output[1]).max() > 0.1


def test_training_and_evaluation_share_variables_at_two_sizes(narrow):
  with tf.Graph().as_default(), tf.Session() as session:
    with slim.arg_scope(overfeat.overfeat_arg_scope()):
      train_logits, _ = overfeat.overfeat(tf.ones([2, 231, 231, 3]), 10)
      before = tf.global_variables()
      tf.get_variable_scope().reuse_variables()
      logits, _ = overfeat.overfeat(tf.ones([1, 281, 281, 3]), 10,
                                    is_training=False, spatial_squeeze=False)
      assert tf.global_variables() == before
    logits = tf.reduce_mean(logits, [1, 2])
    session.run(tf.global_variables_initializer())
    assert session.run(train_logits).shape == (2, 10)
    assert session.run(logits).shape == (1, 10)


def test_initial_values_are_those_of_slim(narrow):
  with tf.Graph().as_default(), tf.Session() as session:
    with slim.arg_scope(overfeat.overfeat_arg_scope()):
      overfeat.overfeat(tf.zeros([1, 231, 231, 3]), 10)
    session.run(tf.global_variables_initializer())
    values = {v.op.name.replace('overfeat/', ''): session.run(v)
              for v in tf.global_variables()}
  assert values['conv1/biases'] == pytest.approx(0)
  assert values['fc7/biases'] == pytest.approx(0.1)
  assert values['fc8/biases'] == pytest.approx(0)
  assert values['fc6/weights'].std() == pytest.approx(0.0044, rel=0.1)
