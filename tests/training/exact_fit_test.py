"""Tests of training/exact_fit.py: the head over layers, fitted to features."""

import numpy as np
import pytest
from sklearn import linear_model

from compat import slim, tf
from nets import layers_head
from training import exact_fit

CLASSES = 3


def make_photos(num_photos, size, seed=0):
  """Returns non-negative features that depend on the class, and labels."""
  rng = np.random.RandomState(seed)
  labels = np.arange(num_photos) % CLASSES
  centers = rng.uniform(0, 1, [CLASSES, size])
  features = np.abs(centers[labels] + rng.normal(0, 0.7, [num_photos, size]))
  return features.astype(np.float32), labels


def table_of(num_photos=60, size=8, **arguments):
  return make_table(*make_photos(num_photos, size), **arguments)


def make_table(features, labels, **arguments):
  """Returns the Table of photos whose last layer is the second half."""
  return exact_fit.make_table(features, features.shape[1] // 2, labels, CLASSES,
                              **arguments)


def reference(table, l2, sample_weight=None):
  """Returns scikit-learn's weights and biases: [n, classes], [classes]."""
  model = linear_model.LogisticRegression(
      C=1 / (l2 * len(table.labels)), tol=1e-8, max_iter=10000)
  model.fit(table.features.astype(np.float64), table.labels, sample_weight)
  return model.coef_.T, model.intercept_ - model.intercept_.mean()


def assert_equal_fit(linear, expected):
  weights, biases = expected
  np.testing.assert_allclose(linear.weights, weights, atol=2e-3)
  np.testing.assert_allclose(linear.biases - linear.biases.mean(), biases,
                             atol=2e-3)


@pytest.mark.parametrize('size', [8, 100])
@pytest.mark.parametrize('l2', [0.3, 0.01])
def test_fit_linear_equals_scikit_learn(size, l2):
  table = table_of(size=size)
  # With fewer photos than features another basis is used.
  assert (table.basis is None) == (size == 8)
  assert_equal_fit(exact_fit.fit_linear(table, l2), reference(table, l2))


def test_fit_linear_from_another_fit_ends_at_the_same_weights():
  table = table_of(size=100)
  first = exact_fit.fit_linear(table, 1.0)
  linear = exact_fit.fit_linear(table, 0.01, first)
  assert_equal_fit(linear, reference(table, 0.01))


def test_class_weights_equal_weights_of_scikit_learn():
  weights = np.array([1.0, 2.0, 5.0])
  table = table_of(class_weights=weights)
  relative = weights[table.labels] / weights[table.labels].mean()
  assert_equal_fit(exact_fit.fit_linear(table, 0.1),
                   reference(table, 0.1, relative))


def test_label_smoothing_lowers_the_confidence():
  logits = []
  for smoothing in (0.0, 0.2):
    table = table_of(label_smoothing=smoothing)
    np.testing.assert_allclose(table.targets.sum(axis=1), 1, atol=1e-6)
    linear = exact_fit.fit_linear(table, 0.001)
    logits.append(table.features @ linear.weights + linear.biases)
  assert np.ptp(logits[1], axis=1).mean() < 0.7 * np.ptp(logits[0],
                                                         axis=1).mean()


def test_make_table_standardizes_and_keeps_views_of_a_photo_in_one_fold():
  features, labels = make_photos(30, 8)
  features[:, 3] = 0.5  # Never varies.
  table = make_table(np.concatenate([features, features + 1]), labels)
  np.testing.assert_allclose(table.features.mean(axis=0), 0, atol=1e-5)
  deviations = table.features.std(axis=0)
  np.testing.assert_allclose(np.delete(deviations, 3), 1, atol=1e-3)
  assert np.isfinite(table.features).all()
  np.testing.assert_array_equal(table.labels, np.tile(labels, 2))
  np.testing.assert_array_equal(table.folds[:30], table.folds[30:])
  for label in range(CLASSES):
    assert (np.bincount(table.folds[:30][labels == label]) == 2).all()


def test_choose_tries_scales_and_factors_until_the_loss_rises():
  lines = []
  table = table_of(num_photos=90, size=40)
  choice = exact_fit.choose(table, lambda *line: lines.append(line))
  assert choice.loss == min(line[4] for line in lines)
  assert choice.loss == pytest.approx(
      exact_fit.log_loss(choice.logits, table.labels))
  losses = [min(line[4] for line in lines if line[1] == scale)
            for scale in exact_fit.LOWER_SCALES[:2]]
  assert losses[0] < losses[1] and choice.lower_scale == 1
  assert {line[1] for line in lines} == set(exact_fit.LOWER_SCALES[:2])
  for scale in exact_fit.LOWER_SCALES[:2]:
    tried = {exact_fit.L2_FACTORS.index(line[2]): line[4]
             for line in lines if line[1] == scale}
    assert sorted(tried) == list(range(min(tried), max(tried) + 1))
    best = min(tried, key=tried.get)
    assert {best - 1, best + 1} & set(
        range(len(exact_fit.L2_FACTORS))) <= set(tried)
    if scale == choice.lower_scale:
      assert choice.l2 == exact_fit.L2_FACTORS[best]
      assert choice.path == list(exact_fit.L2_FACTORS[:best + 1])
      assert [line[1] for line in choice.tried] == [
          tried[index] for index in sorted(tried)]


@pytest.mark.parametrize('size', [60, 120])
def test_choose_with_fewer_components_finds_nearly_the_same_loss(
    monkeypatch, size):
  table = table_of(num_photos=90, size=size)
  exact = exact_fit.choose(table)
  monkeypatch.setattr(exact_fit, 'MAX_FOLD_COMPONENTS', 30)
  reduced = exact_fit.choose(table_of(num_photos=90, size=size))
  assert reduced.loss != exact.loss
  assert reduced.loss == pytest.approx(exact.loss, abs=0.1)
  table = reduced.table
  assert table.reduced.shape == (90, 30)
  rough = exact_fit.fit_linear(table, reduced.l2, is_rough=True)
  linear = exact_fit.fit_linear(table, reduced.l2, rough)
  assert linear.loss < rough.loss
  assert_equal_fit(linear, reference(table, reduced.l2))


def test_choose_uses_no_photo_for_its_own_logits():
  features, labels = make_photos(60, 100)
  labels = np.random.RandomState(1).permutation(labels)  # Nothing to learn.
  choice = exact_fit.choose(make_table(features, labels))
  assert min(accuracy for _, _, accuracy in choice.tried) < 0.55
  assert choice.loss > 0.9 * np.log(CLASSES)


@pytest.mark.parametrize('is_lower_noise', [False, True])
def test_choose_scales_lower_layers_down_if_they_are_noise(is_lower_noise):
  features, labels = make_photos(60, 200)
  noise = np.abs(np.random.RandomState(2).normal(size=[60, 100]))
  part = slice(0, 100) if is_lower_noise else slice(100, 200)
  features[:, part] = noise
  choice = exact_fit.choose(make_table(features, labels))
  assert (choice.lower_scale < 1) == is_lower_noise
  deviations = choice.table.features.std(axis=0)
  np.testing.assert_allclose(deviations[:100], choice.lower_scale, rtol=1e-3)
  np.testing.assert_allclose(deviations[100:], 1, rtol=1e-3)


def test_choose_after_stop_request_returns_none():
  assert exact_fit.choose(table_of(), stop_requested=lambda: True) is None


def test_ridge_residuals_equal_those_of_fits_without_the_photo():
  rng = np.random.RandomState(0)
  points = rng.normal(size=[12, 3])
  kernel = np.exp(-exact_fit._distances(points, points))
  targets = rng.normal(size=[12, 2])
  _, residuals = exact_fit._ridge(kernel, kernel.T @ kernel, kernel, targets,
                                  0.3)
  for photo in range(12):
    others = np.arange(12) != photo
    some = kernel[others]
    coefficients, _ = exact_fit._ridge(some, some.T @ some, kernel,
                                       targets[others], 0.3)
    np.testing.assert_allclose(targets[photo] - kernel[photo] @ coefficients,
                               residuals[photo], atol=1e-5)


@pytest.mark.parametrize('support_points', [60, 20])
def test_graph_computes_the_fitted_head(support_points):
  features, labels = make_photos(60, 100)
  table = make_table(features, labels)
  choice = exact_fit.choose(table)
  table = choice.table
  linear = exact_fit.fit_linear(table, choice.l2)
  kernel = exact_fit.fit_kernel(table, choice.logits, support_points)
  assert kernel.support.shape == (support_points, 100)
  values = dict(center=table.center, scale=table.scale, weights=linear.weights,
                biases=linear.biases)
  values.update({'Kernel/' + name: value
                 for name, value in kernel._asdict().items()}, **{
                     'Kernel/share': 0.5})
  with tf.Graph().as_default(), tf.Session() as session:
    photos = tf.placeholder(tf.float32, [None, 100])
    logits = layers_head.classify(photos, CLASSES, layers_head.Head(
        layers_head.KERNEL, support_points=support_points))
    variables = {v.op.name: v for v in slim.get_model_variables()}
    assert set(variables) == {'LayersHead/' + name for name in values}
    for name, value in values.items():
      variables['LayersHead/' + name].load(value, session)
    actual = session.run(tf.nn.softmax(logits), {photos: features})
    largest = session.run(tf.reduce_logsumexp(logits, 1), {photos: features})
  first = softmax(table.features @ linear.weights + linear.biases)
  distances = exact_fit._distances(table.features @ kernel.components,
                                   kernel.support)
  second = softmax(np.exp(-kernel.gamma * distances) @ kernel.coefficients +
                   kernel.offset)
  np.testing.assert_allclose(actual, (first + second) / 2, atol=1e-4)
  assert np.mean(second.argmax(axis=1) == labels) > 0.9
  np.testing.assert_allclose(largest, np.log(np.exp(
      table.features @ linear.weights + linear.biases).sum(axis=1)), rtol=1e-3)


def softmax(logits):
  values = np.exp(logits - logits.max(axis=1, keepdims=True))
  return values / values.sum(axis=1, keepdims=True)


def test_kernel_of_fewer_photos_than_support_points_is_padded():
  table = table_of(num_photos=30, size=40)
  logits = np.zeros([30, CLASSES], np.float32)
  all_rows, padded = (exact_fit.fit_kernel(table, logits, support_points)
                      for support_points in (30, 35))
  assert padded.support.shape == (35, 40)
  np.testing.assert_allclose(padded.coefficients[:30], all_rows.coefficients,
                             atol=1e-4)
  assert not padded.coefficients[30:].any()


def test_kernel_with_a_class_of_weight_0_is_finite():
  table = table_of(class_weights=np.array([0.0, 1.0, 1.0]))
  kernel = exact_fit.fit_kernel(table, np.zeros([60, CLASSES], 'f'), 60)
  assert np.isfinite(kernel.coefficients).all() and np.isfinite(kernel.offset
                                                                ).all()


@pytest.mark.parametrize('losses,share', [
    ([0.5, 0.4, 0.41], 0.5), ([0.3, 0.4, 0.6], 0.0), ([0.6, 0.4, 0.3], 1.0),
    ([0.6, 0.4, 0.39], 0.5)], ids=str)
def test_share_of_the_kernel_is_half_unless_one_alone_is_clearly_better(
    monkeypatch, losses, share):
  remaining = list(losses)
  monkeypatch.setattr(exact_fit, 'log_loss', lambda *_: remaining.pop(0))
  logits = np.zeros([4, CLASSES], np.float32)
  assert exact_fit._choose_share(logits, logits, table_of())[0] == share
