"""Tests of training/losses.py: class weights, label smoothing and mixup."""

import numpy as np
import pytest

from common.errors import InputError
from compat import tf
from datasets import manifest
from kits import network_kit
from kits.network_kit import BATCH, LABELS
from kits.trained_kit import make_dataset, read_variables, train
from nets import frozen_backbone
from training import losses


def cross_entropy(logits, targets):
  """Returns the loss of each row, as float64."""
  logits = logits.astype(np.float64)
  top = logits.max(1, keepdims=True)
  log_sum = top + np.log(np.exp(logits - top).sum(1, keepdims=True))
  return (targets * (log_sum - logits)).sum(1)


def smoothed(targets, share):
  return targets * (1 - share) + share / targets.shape[1]


def save_manifest(folder, counts, labels=None):
  """Writes a manifest of a training split with these numbers of photos."""
  entry = {'size': sum(counts.values()), 'shards': ['a'],
           'class_counts': counts}
  manifest.save(str(folder), manifest.Manifest(
      'colours', labels or list(counts), {'train': entry}, 0, 10, {}, []))


def weights_of(monkeypatch, text, folder='/nowhere'):
  """Returns the class weights that a training graph is built with."""
  class_weights = []
  original = losses.make_class_weights

  def spy(*arguments):
    class_weights.append(original(*arguments))
    return class_weights[-1]

  monkeypatch.setattr(losses, 'make_class_weights', spy)
  with network_kit.training(monkeypatch, '--class_weights=' + text,
                             dataset_dir=folder):
    return class_weights[0]


def test_class_weights_as_numbers_are_in_label_order(monkeypatch):
  assert weights_of(monkeypatch, '0.5,1,2').tolist() == [0.5, 1, 2]
  assert weights_of(monkeypatch, '') is None


@pytest.mark.parametrize('text', [
    '1,2', '1,2,3,4', 'a,b,c', '1,2,', '-1,1,1', '0,0,0', 'nan,1,1', 'inf,1,1',
    'Balanced'])
def test_class_weights_invalid_names_what_is_accepted(monkeypatch, text):
  with pytest.raises(InputError) as caught:
    weights_of(monkeypatch, text)
  assert str(caught.value) == (
      "--class_weights=%s: must be 'balanced' or 3 comma-separated numbers, "
      'none negative and not all 0: one each for blue, green, red' % text)


@pytest.mark.parametrize('counts,expected', [
    ((10, 20, 30), (2, 1, 2 / 3)),
    # An empty class is not counted: the mean over the photos stays 1.
    ((10, 0, 30), (2, 0, 2 / 3)),
    ((5, 5, 5), (1, 1, 1)),
])
def test_class_weights_balanced_give_each_class_equal_total(
    monkeypatch, tmp_path, counts, expected):
  save_manifest(tmp_path, dict(zip(LABELS, counts)))
  weights = weights_of(monkeypatch, 'balanced', tmp_path)
  assert weights == pytest.approx(expected, rel=1e-6)
  assert np.average(weights, weights=counts) == pytest.approx(1)


def test_class_weights_balanced_match_manifest_by_class_name(
    monkeypatch, tmp_path):
  save_manifest(tmp_path, {'background': 7, 'red': 30, 'blue': 10, 'green': 20})
  weights = weights_of(monkeypatch, 'balanced', tmp_path)
  assert weights == pytest.approx((2, 1, 2 / 3), rel=1e-6)


def test_class_weights_balanced_without_manifest_raises_with_advice(
    monkeypatch, tmp_path):
  with pytest.raises(InputError, match='is in .*/colours.json, which is '
                     'missing; convert the photos with ./convert_tfrecord.sh, '
                     'or give the weights themselves') as caught:
    weights_of(monkeypatch, 'balanced', tmp_path)
  assert '\n' not in str(caught.value)


def test_class_weights_balanced_without_photos_raises_input_error(
    monkeypatch, tmp_path):
  save_manifest(tmp_path, {'background': 7, 'blue': 0, 'green': 0, 'red': 0})
  with pytest.raises(InputError, match='has no train photos of blue, green'):
    weights_of(monkeypatch, 'balanced', tmp_path)


def test_class_weights_balanced_with_duplicate_class_raises_input_error(
    monkeypatch, tmp_path):
  monkeypatch.setattr(network_kit, 'LABELS', ['crane', 'owl', 'crane'])
  save_manifest(tmp_path, {'crane': 4, 'owl': 2})
  with pytest.raises(InputError, match='several classes are called crane;'):
    weights_of(monkeypatch, 'balanced', tmp_path)


@pytest.fixture
def heads():
  """Logits of two heads, and targets whose first three rows are mixed."""
  random = np.random.RandomState(5)
  logits, aux = 3 * random.randn(2, 6, 3).astype(np.float32)
  targets = np.eye(3, dtype=np.float32)[[0, 1, 2, 2, 2, 1]]
  targets[:3] = 0.25 * targets[:3] + 0.75 * targets[[1, 2, 0]]
  return logits, aux, targets


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
@pytest.mark.parametrize('weights', [None, (2, 1, 0.5), (1, 1, 0)])
@pytest.mark.parametrize('with_aux', [False, True])
def test_losses_are_mean_of_weight_times_cross_entropy(
    heads, smoothing, weights, with_aux):
  logits, aux, targets = heads
  with tf.Graph().as_default(), tf.Session() as session:
    losses.add_losses(tf.constant(logits),
                      tf.constant(aux) if with_aux else None,
                      tf.constant(targets), weights, smoothing)
    actual = session.run(tf.losses.get_losses())
  row_weights = 1 if weights is None else targets.dot(weights)
  smoothed_targets = smoothed(targets, smoothing)
  expected = [np.mean(row_weights * cross_entropy(logits, smoothed_targets))]
  if with_aux:
    expected.insert(0, 0.4 * np.mean(
        row_weights * cross_entropy(aux, smoothed_targets)))
  np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_losses_with_weights_of_1_equal_unweighted(heads):
  logits, aux, targets = map(np.array, heads)
  with tf.Graph().as_default(), tf.Session() as session:
    for weights in None, (1, 1, 1):
      losses.add_losses(tf.constant(logits), tf.constant(aux),
                        tf.constant(targets), weights)
    plain_aux, plain, weighted_aux, weighted = session.run(
        tf.losses.get_losses())
  assert (weighted_aux, weighted) == pytest.approx((plain_aux, plain), rel=1e-6)


def mixed_identity(alpha, size=256, seed=3):
  """Mixes photos that equal their one-hot labels; returns own shares."""
  identity = np.eye(size, dtype=np.float32)
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(seed)
    images, targets = session.run(losses.mix_photos(
        tf.constant(identity.reshape(size, 1, size, 1)), tf.constant(identity),
        alpha))
  assert images.shape == (size, 1, size, 1)
  np.testing.assert_array_equal(images.reshape(size, size), targets)
  return check_mixed(targets)


def check_mixed(targets):
  """Asserts that rows are mixed in pairs; returns each row's own share."""
  np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-6)
  assert targets.min() >= 0
  assert ((targets > 0).sum(1) <= 2).all()
  own_shares = np.diag(targets).copy()
  others = targets - np.diag(own_shares)
  # A permutation: no row is mixed into two others.
  assert ((others > 0).sum(0) <= 1).all()
  assert (others.max(1) > 0).mean() > 0.5
  return own_shares


@pytest.mark.parametrize('alpha', [0.2, 1.0, 8.0])
def test_mix_photos_shares_are_beta_distributed(alpha):
  own_shares = mixed_identity(alpha, 2048)
  own_shares = own_shares[own_shares < 1]  # A photo may be mixed with itself.
  assert np.mean(own_shares) == pytest.approx(0.5, abs=0.04)
  assert np.var(own_shares) == pytest.approx(1 / (4 * (2 * alpha + 1)),
                                             rel=0.15)


def test_mix_photos_tiny_alpha_leaves_mostly_one_photo():
  own_shares = mixed_identity(0.02)
  larger = np.maximum(own_shares, 1 - own_shares)
  assert np.mean(larger > 0.99) > 0.8
  assert 0.3 < np.mean(own_shares < 0.5) < 0.7


def test_mix_features_uses_one_share_for_all_features_of_a_photo():
  identity = np.eye(64, dtype=np.float32)
  low = np.stack([identity, 2 * identity], 2)
  (high, mixed_low), targets = losses.mix_features(
      [identity, low], identity, 0.4, np.random.RandomState(1))
  np.testing.assert_array_equal(high, targets)
  np.testing.assert_array_equal(mixed_low[:, :, 1], 2 * targets)
  assert {high.dtype, mixed_low.dtype, targets.dtype} == {np.dtype('float32')}
  own_shares = check_mixed(targets)
  assert np.var(own_shares) == pytest.approx(1 / (4 * 1.8), rel=0.3)
  again = losses.mix_features([identity, low], identity, 0.4,
                              np.random.RandomState(1))[1]
  np.testing.assert_array_equal(again, targets)


def test_graph_losses_apply_to_both_heads(monkeypatch):
  with network_kit.training(
      monkeypatch, '--label_smoothing=0.2', '--class_weights=3,1,0.5'):
    graph = tf.get_default_graph()
    with network_kit.session() as session:
      aux, logits, (aux_loss, loss) = session.run([
          graph.get_tensor_by_name('Aux/logits/BiasAdd:0'),
          graph.get_tensor_by_name('Head/logits/BiasAdd:0'),
          tf.losses.get_losses()])
  one_hot = np.eye(3)[network_kit.photos()['label']]
  row_weights, targets = one_hot.dot([3, 1, 0.5]), smoothed(one_hot, 0.2)
  assert loss == pytest.approx(
      np.mean(row_weights * cross_entropy(logits, targets)), rel=1e-5)
  assert aux_loss == pytest.approx(
      0.4 * np.mean(row_weights * cross_entropy(aux, targets)), rel=1e-5)


@pytest.mark.parametrize('flags, count', [
    (['--train_classifier_only'], 1),
    (['--train_classifier_only', '--train_aux_classifier'], 2),
    (['--train_classifier_only', '--trainable_scopes=Head,Aux'], 2),
    (['--notrain_aux_classifier'], 1)], ids=str)
def test_graph_has_loss_of_an_auxiliary_head_that_is_trained(
    monkeypatch, flags, count):
  with network_kit.training(monkeypatch, *flags):
    aux = tf.get_default_graph().get_tensor_by_name('Aux/logits/BiasAdd:0')
    uses_aux = [aux.op in frozen_backbone.ancestors([loss])
                for loss in tf.losses.get_losses()]
  assert sorted(uses_aux) == [False, True][:count]


def test_graph_mixup_trains_on_mixed_photos_and_counts_larger_share(
    monkeypatch):
  mixed_tensors = []
  original = losses.mix_photos

  def spy(*arguments):
    mixed_tensors.extend(original(*arguments))
    return mixed_tensors

  monkeypatch.setattr(losses, 'mix_photos', spy)
  with network_kit.training(monkeypatch, '--mixup_alpha=1') as training_graph:
    graph = tf.get_default_graph()
    with network_kit.session() as session:
      images, targets, logits, (_, loss), summaries = session.run([
          mixed_tensors[0], mixed_tensors[1],
          graph.get_tensor_by_name('Head/logits/BiasAdd:0'),
          tf.losses.get_losses(), training_graph.scalar_op])
  assert not np.allclose(images, network_kit.photos()['image'])
  assert loss == pytest.approx(np.mean(cross_entropy(logits, targets)),
                               rel=1e-5)
  assert (targets.max(1) < 1).any()
  values = {value.tag: value.simple_value
            for value in tf.Summary.FromString(summaries).value}
  assert values['batch_accuracy'] == pytest.approx(
      np.mean(logits.argmax(1) == targets.argmax(1)))


def test_graph_mixup_of_given_batches_uses_their_targets(monkeypatch):
  batch = network_kit.photos()
  targets = np.random.RandomState(2).dirichlet([1, 1, 1], BATCH)
  batch['targets'] = targets.astype(np.float32)
  with network_kit.training(
      monkeypatch, '--mixup_alpha=0.2', next_batch=lambda: {
          key: tf.constant(value, name='given_' + key)
          for key, value in batch.items()}):
    graph = tf.get_default_graph()
    conv, = [op for op in graph.get_operations()
             if op.name == 'Backbone/conv/Conv2D']
    # The images are not mixed again: they stand for mixed features.
    assert conv.inputs[0].op.name == 'given_image'
    with network_kit.session() as session:
      logits, (_, loss) = session.run([
          graph.get_tensor_by_name('Head/logits/BiasAdd:0'),
          tf.losses.get_losses()])
  assert loss == pytest.approx(np.mean(cross_entropy(logits, targets)),
                               rel=1e-5)


def test_graph_mixup_of_given_batches_without_targets_raises_input_error(
    monkeypatch):
  with pytest.raises(InputError, match='--mixup_alpha=0.2: the training '
                     'input has no mixed labels; give --mixup_alpha=0,'):
    with network_kit.training(
        monkeypatch, '--mixup_alpha=0.2', next_batch=lambda: {
            key: tf.constant(value)
            for key, value in network_kit.photos().items()}):
      pass


def test_graph_mixup_batch_of_one_raises_input_error(monkeypatch):
  with pytest.raises(InputError, match='--mixup_alpha=0.2 mixes the photos of '
                     'a batch, but --batch_size=1 leaves nothing to mix'):
    with network_kit.training(monkeypatch, '--mixup_alpha=0.2',
                               '--batch_size=1'):
      pass


@pytest.mark.slow
def test_train_with_all_flags_of_losses_finishes(tmp_path):
  data = make_dataset(tmp_path / 'data')
  after = read_variables(train(
      data, tmp_path / 'run', '--max_number_of_steps=3', '--num_clones=2',
      '--clone_on_cpu', '--class_weights=balanced', '--label_smoothing=0.1',
      '--mixup_alpha=0.2', '--warmup_steps=2', '--clip_gradient_norm=1',
      '--learning_rate_decay_type=cosine', '--moving_average_decay=0.9'))
  assert after['global_step'] == 3
  assert np.isfinite(after['CifarNet/logits/weights']).all()
