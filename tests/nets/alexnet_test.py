"""Tests of nets/alexnet.py: forward pass and initial values."""

import numpy as np
import pytest

from compat import slim, tf
from kits import nets_kit
from nets import alexnet


@pytest.fixture
def narrow(monkeypatch):
  """Makes the wide layers narrow, so that they are fast to initialize."""
  monkeypatch.setattr(alexnet, 'FC6', alexnet.FC6._replace(width=8))
  monkeypatch.setattr(alexnet, 'FC7', alexnet.FC7._replace(width=9))


def test_forward_logits_are_finite_and_depend_on_the_photo(narrow):
  with tf.Graph().as_default(), tf.Session() as session:
    images = tf.placeholder(tf.float32, [None, 224, 224, 3])
    with slim.arg_scope(alexnet.alexnet_v2_arg_scope()):
      logits, _ = alexnet.alexnet_v2(images, 10, is_training=False)
    nets_kit.load_seeded_weights(session, tf.global_variables())
    photo = nets_kit.seeded_image(224, 3)
    output = session.run(logits, {images: np.concatenate([photo, -photo])})
  assert output.shape == (2, 10)
  assert np.isfinite(output).all()
  assert abs(output[0] - output[1]).max() > 0.1


def test_initial_values_are_those_of_slim(narrow):
  with tf.Graph().as_default(), tf.Session() as session:
    with slim.arg_scope(alexnet.alexnet_v2_arg_scope()):
      alexnet.alexnet_v2(tf.zeros([1, 224, 224, 3]), 10)
    session.run(tf.global_variables_initializer())
    values = {v.op.name.replace('alexnet_v2/', ''): session.run(v)
              for v in tf.global_variables()}
  assert values['conv1/biases'] == pytest.approx(0.1)
  assert values['fc6/biases'] == pytest.approx(0.1)
  assert values['fc8/biases'] == pytest.approx(0)
  assert values['fc6/weights'].std() == pytest.approx(0.0044, rel=0.05)
  # slim's default, Xavier: sqrt(2 / (fan in + fan out)).
  assert values['conv2/weights'].std() == pytest.approx(
      (2 / (25 * (64 + 192))) ** 0.5, rel=0.05)


def test_trunc_normal_has_the_given_standard_deviation():
  with tf.Graph().as_default(), tf.Session() as session:
    values = session.run(alexnet.trunc_normal(0.5)([1000]))
  assert 0.38 < values.std() < 0.5
  assert abs(values.mean()) < 0.1
