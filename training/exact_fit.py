"""Exact fit of a head over layers: regression with L2 regularization.

  table = exact_fit.make_table(features, last_size, labels, num_classes)
  choice = exact_fit.choose(table)
  linear = exact_fit.fit_linear(choice.table, choice.l2)

The linear layer is multinomial logistic regression, fitted by L-BFGS until it
converges. How much it is regularized is chosen by cross-validation on the
training photos, and so is the scale of the layers below the last one: with few
photos of a class the last one is worth more. The kernel is ridge regression
with Gaussian functions of some training photos; its regularization is chosen by
leave-one-out residuals, which have a closed form (C. Rasmussen and C. Williams:
Gaussian Processes for Machine Learning, 2006, section 5.4.2).
"""

import concurrent.futures
import os
from typing import (
  Any,
  Callable,
  Dict,
  List,
  NamedTuple,
  Optional,
  Sequence,
  Tuple,
)

import numpy as np
import threadpoolctl
from scipy import linalg, optimize, special

from nets import layers_head

# Factors of half the squared length of the weights, relative to the mean loss
# of a photo; from strong to weak.
L2_FACTORS = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)

# Standard deviations of the features of the layers below the last one, relative
# to those of the last one.
LOWER_SCALES = (1.0, 0.3, 0.1)

NUM_FOLDS = 5

# In cross-validation and in rough fits the features are projected onto about
# this many principal components if that makes them fewer by a third or more.
MAX_FOLD_COMPONENTS = 1024

# Largest gradient component at which a fit ends: on the way to the end, which
# includes cross-validation, and at the end; most iterations.
_ROUGH_TOLERANCE, _TOLERANCE = 3e-4, 1e-5
_MAX_ITERATIONS = 1000

# Least standard deviation of a feature relative to the largest: one that hardly
# varies is not scaled up.
_LEAST_DEVIATION = 1e-3

# Kernel: factors of ridge regression, and gamma times the median squared
# distance of two photos.
_RIDGES = (1.0, 0.3, 0.1, 0.03)
_GAMMAS = (0.5, 1.0)
# Photos whose distances have that median.
_MEDIAN_PHOTOS = 1000
# Range of the factor that turns the kernel's regression into logits.
_SHARPNESS = (0.5, 100.0)
# The mean with the linear layer is left only for a loss that is lower by this
# share: residuals of single photos are a little lower than those of folds.
_LEAST_GAIN = 0.05
# Added to the diagonal relative to its mean, for Cholesky's decomposition.
_JITTER = 1e-8


class Table(NamedTuple):
  """Standardized features of the training photos."""

  # [rows, n] float32.
  features: np.ndarray
  # [rows, classes] float32, each row sums to 1.
  targets: np.ndarray
  # [rows] integers, of the photos.
  labels: np.ndarray
  # [rows] float32, weights of the photos in the loss; their mean is 1.
  weights: np.ndarray
  # [rows] integers below NUM_FOLDS.
  folds: np.ndarray
  # [n] float32 each; features = (square roots - center) * scale.
  center: np.ndarray
  scale: np.ndarray
  # The last columns, which are of the last layer.
  last_size: int
  # [rows, m] float32, the features in an orthonormal basis of fewer columns; of
  # many rows and features only about the principal components.
  reduced: np.ndarray
  # [n, m] float32, that basis; None: `reduced` are the features themselves.
  basis: Optional[np.ndarray]


class Choice(NamedTuple):
  """Result of the cross-validation."""

  # With the scale of the lower layers that has the lowest loss.
  table: Table
  # That scale, and the factor of regularization.
  lower_scale: float
  l2: float
  # (factor, mean log loss, accuracy) of the factors that were tried with that
  # scale, from strong regularization to weak.
  tried: List[Tuple[float, float, float]]
  # [rows, classes] float32 logits of each photo from the other folds.
  logits: np.ndarray
  # {factor that was tried: weights and biases to start the fit from}, the means
  # of the folds.
  starts: Dict[float, Tuple[np.ndarray, np.ndarray]]

  @property
  def loss(self) -> float:
    """Mean log loss with that scale and factor."""
    return min(loss for _, loss, _ in self.tried)

  @property
  def path(self) -> List[float]:
    """The factors from the strongest regularization to the chosen one."""
    return [factor for factor in L2_FACTORS if factor >= self.l2]


class Linear(NamedTuple):
  """A fitted linear layer."""

  # [n, classes] float32.
  weights: np.ndarray
  # [classes] float32.
  biases: np.ndarray
  # Mean loss with regularization, and accuracy, on the training photos.
  loss: float
  accuracy: float


def make_table(features: np.ndarray, last_size: int, labels: np.ndarray,
               num_classes: int, label_smoothing: float = 0.0,
               class_weights: Optional[np.ndarray] = None) -> Table:
  """Returns the Table of the training photos.

  Args:
    features: [rows, n] float32, pooled layers; several rows may belong to the
      same photo: row r is of photo r modulo the number of photos.
    last_size: columns of the last layer.
    labels: [photos] integers.
    num_classes: number of classes.
    label_smoothing: share of each label that is spread over all classes.
    class_weights: [classes] weights in the loss; None: all 1.
  """
  roots = layers_head.square_roots(np.asarray(features, np.float32))
  center = roots.mean(axis=0, dtype=np.float64).astype(np.float32)
  roots -= center
  deviation = np.sqrt(np.mean(np.square(roots), axis=0, dtype=np.float64))
  scale = (1 / np.maximum(deviation, _LEAST_DEVIATION * max(
      deviation.max(initial=0), 1e-12))).astype(np.float32)
  roots *= scale
  views = len(roots) // max(len(labels), 1)
  rows = np.tile(np.asarray(labels, np.int64), views)
  targets = np.eye(num_classes, dtype=np.float32)[rows]
  targets = targets * (1 - label_smoothing) + label_smoothing / num_classes
  weights = (np.ones(num_classes) if class_weights is None
             else np.asarray(class_weights))[rows]
  return Table(roots, targets.astype(np.float32), rows,
               (weights / weights.mean()).astype(np.float32),
               np.tile(_assign_folds(labels), views), center, scale,
               last_size, *_reduce(roots))


def _scale_lower(table, factor):
  """Returns the Table with the lower layers scaled by a factor."""
  factors = np.ones_like(table.scale)
  factors[:-table.last_size] = factor
  features = table.features * factors
  reduced, basis = _reduce(features)
  return table._replace(features=features, scale=table.scale * factors,
                        reduced=reduced, basis=basis)


def _assign_folds(labels):
  """Returns the fold of each photo; each class is spread over all folds."""
  order = np.random.RandomState(0).permutation(len(labels))
  order = order[np.argsort(np.asarray(labels)[order], kind='stable')]
  folds = np.empty(len(labels), np.int64)
  folds[order] = np.arange(len(labels)) % NUM_FOLDS
  return folds


def choose(table: Table, log: Callable[..., None] = lambda *_: None,
           stop_requested: Callable[[], bool] = lambda: False
           ) -> Optional[Choice]:
  """Chooses scale and regularization of the linear layer by cross-validation.

  With the first scale of the lower layers, the factors of regularization are
  tried from strong to weak, until the loss rises; with each further one from
  the best factor of the scale before, in both directions, until a scale has a
  higher loss than the one before.

  Args:
    table: Table.
    log: logs a format and its arguments.
    stop_requested: function that returns whether to stop.

  Returns:
    A Choice; None after a stop request.
  """
  best, index = None, 0
  for scale in LOWER_SCALES:
    scaled = table if scale == 1 else _scale_lower(table, scale)
    choice = _choose_l2(scaled, scale, index, log, stop_requested)
    if choice is None:
      return None
    if best is not None and choice.loss >= best.loss:
      break
    best, index = choice, L2_FACTORS.index(choice.l2)
  return best


def _choose_l2(table, scale, first, log, stop_requested):
  """Returns the Choice among those of one scale.

  Args:
    table: Table with the lower layers scaled.
    scale: that scale.
    first: index of the factor that is tried first.
    log, stop_requested: as in `choose`.
  """
  features = table.reduced
  folds = [table.folds != fold for fold in range(NUM_FOLDS)]
  folds = [rows for rows in folds if 0 < rows.sum() < len(rows)]
  # {index of a factor: (factor, loss, accuracy)}, logits, weights of each fold.
  tried: Dict[int, Tuple[float, float, float]] = {}
  logits: Dict[int, np.ndarray] = {}
  weights: Dict[int, List[Optional[np.ndarray]]] = {}

  def evaluate(index, start):
    found = weights[index] = list(weights.get(start, [None] * len(folds)))
    values = logits[index] = np.zeros_like(table.targets)

    def fit(fold):
      rows = folds[fold]
      found[fold] = _minimize(
          [(features[rows], table.targets[rows], table.weights[rows])],
          L2_FACTORS[index], _ROUGH_TOLERANCE, found[fold])
      values[~rows] = _logits(features[~rows], *_split(found[fold], values))

    with _one_blas_thread(), concurrent.futures.ThreadPoolExecutor(
        _cores()) as executor:
      list(executor.map(fit, range(len(folds))))
    tried[index] = (L2_FACTORS[index], *_measure(values, table))
    log('Lower layers times %g, L2 regularization %g: %d folds, loss %.4f, '
        'accuracy %.4f', scale, L2_FACTORS[index], len(folds),
        *tried[index][1:])

  def lower_loss(index):
    return tried[index][1]

  for step in (1, -1):  # To weaker regularization, then to stronger.
    index = first
    while 0 <= index < len(L2_FACTORS):
      if stop_requested():
        return None
      if index not in tried:
        evaluate(index, index - step)
      if index != first and tried[index][1] >= tried[index - step][1]:
        break
      index += step
    if min(tried, key=lower_loss) != first:
      break
  best = min(tried, key=lower_loss)
  starts = {} if not folds else {
      L2_FACTORS[index]: _from_basis(table.basis, *_split(
          np.mean(weights[index], axis=0), table.targets)) for index in tried}
  return Choice(table, scale, L2_FACTORS[best],
                [tried[index] for index in sorted(tried)], logits[best], starts)


def _is_large(features):
  """Returns whether MAX_FOLD_COMPONENTS are far fewer than rows and columns."""
  return min(features.shape) >= 1.5 * MAX_FOLD_COMPONENTS


def _reduce(features):
  """Returns features of fewer columns, and their basis, as in a Table.

  The principal components are approximate: N. Halko, P. Martinsson and
  J. Tropp: Finding structure with randomness, 2011, arXiv 0909.4061, algorithm
  4.3 with one power iteration.
  """
  if not _is_large(features):
    return _rotate(features)
  random = np.random.RandomState(0).normal(
      size=[MAX_FOLD_COMPONENTS, len(features)]).astype(np.float32)
  with _one_blas_thread(), concurrent.futures.ThreadPoolExecutor() as executor:
    sums = executor.map(lambda rows: rows @ features @ features.T @ features,
                        np.array_split(random, _cores()))
    basis, _ = linalg.qr(np.concatenate(list(sums)).T, mode='economic')
    reduced = executor.map(lambda rows: rows @ basis,
                           np.array_split(features, _cores()))
    return np.concatenate(list(reduced)), basis


def _rotate(features):
  """Returns features of fewer columns with equal inner products, and a basis.

  With fewer photos than features, weights that minimize the loss are
  combinations of the photos. In an orthonormal basis of those, the loss and the
  length of the weights are the same. The coordinates are the rows of Cholesky's
  factor of the photos' inner products.

  Returns:
    [rows, m] float32, and [n, m] float32, or None if the features stay as they
    are.
  """
  if features.shape[0] >= features.shape[1]:
    return features, None
  with _one_blas_thread():
    exact = features.astype(np.float64)  # float32 is too coarse for _JITTER.
    rotated = _cholesky(exact @ exact.T).astype(np.float32)
    return rotated, linalg.solve_triangular(rotated, features, lower=True).T


def _cholesky(matrix):
  """Returns the lower triangle of a matrix; changes its diagonal slightly."""
  mean = max(np.trace(matrix) / len(matrix), 1e-12)
  matrix[np.diag_indices_from(matrix)] += _JITTER * mean
  return linalg.cholesky(matrix, lower=True, overwrite_a=True)


def fit_linear(table: Table, l2: float,
               start: Optional[Sequence[Any]] = None,
               is_rough: bool = False) -> Linear:
  """Fits the linear layer to all training photos.

  Args:
    table: Table.
    l2: regularization factor.
    start: weights and biases to start from, as a Linear begins with.
    is_rough: whether the fit ends as early as in cross-validation.
  """
  tolerance = _ROUGH_TOLERANCE if is_rough else _TOLERANCE
  linear = _fit(table, l2, tolerance, start, table.reduced, table.basis)
  if is_rough or not _is_large(table.features):
    return linear
  return _fit(table, l2, tolerance, linear, *_rotate(table.features))


def _fit(table, l2, tolerance, start, features, basis):
  """Returns the Linear of a Table, fitted to these features in a basis."""
  first = None
  if start is not None:
    weights = start[0] if basis is None else basis.T @ start[0]
    first = np.concatenate([weights.ravel(), start[1]])
  with _one_blas_thread():
    found = _minimize(
        list(zip(*(np.array_split(rows, _cores()) for rows in (
            features, table.targets, table.weights)))), l2, tolerance, first)
  weights, biases = _split(found, table.targets)
  logits = _logits(features, weights, biases)
  loss, _ = _loss(logits, table.targets, table.weights / len(table.weights))
  loss += l2 / 2 * float(np.square(weights, dtype=np.float64).sum())
  return Linear(*_from_basis(basis, weights, biases), loss,
                _measure(logits, table)[1])


def _from_basis(basis, weights, biases):
  """Returns weights of the features from those in a basis, and the biases."""
  return weights if basis is None else basis @ weights, biases


def _minimize(parts, l2, tolerance, start):
  """Returns the weights and biases of least loss: flat, float64.

  Args:
    parts: features, targets and weights of some rows, and those of others, each
      computed in a thread of its own.
    l2, tolerance: factor of regularization, largest gradient component at the
      end.
    start: as the result; None: zeros.
  """
  features, targets, _ = parts[0]
  size = features.shape[1] * targets.shape[1]
  rows = sum(len(weights) for _, _, weights in parts)

  def loss_and_gradient(flat):
    parameters = _split(flat, targets)

    def compute(part):
      features, targets, weights = part
      loss, errors = _loss(_logits(features, *parameters), targets,
                           weights / rows)
      return loss, (features.T @ errors).ravel(), errors.sum(
          axis=0, dtype=np.float64)

    losses, products, sums = zip(*run(compute, parts))
    matrix = flat[:size]
    gradient = np.empty_like(flat)
    gradient[:size] = sum(products)
    gradient[:size] += l2 * matrix
    gradient[size:] = sum(sums)
    return sum(losses) + l2 / 2 * (matrix @ matrix), gradient

  if start is None:
    start = np.zeros(size + targets.shape[1])
  with concurrent.futures.ThreadPoolExecutor(len(parts)) as executor:
    run = executor.map if len(parts) > 1 else map
    result = optimize.minimize(
        loss_and_gradient, start, jac=True, method='L-BFGS-B',
        options=dict(maxiter=_MAX_ITERATIONS, gtol=tolerance, ftol=1e-9))
  return result.x


def _split(flat, targets):
  """Returns the weights and biases in a flat array, as float32."""
  num_classes = targets.shape[1]
  flat = flat.astype(np.float32)
  return (flat[:-num_classes].reshape(-1, num_classes), flat[-num_classes:])


def _logits(features, weights, biases):
  return features @ weights + biases


def _loss(logits, targets, weights):
  """Returns the loss and its gradient by the logits, [rows, classes].

  The weights of all rows sum to 1.
  """
  logs = logits - logits.max(axis=1, keepdims=True)
  probabilities = np.exp(logs)
  sums = probabilities.sum(axis=1, keepdims=True)
  logs -= np.log(sums)
  probabilities /= sums
  scaled = weights[:, np.newaxis]
  loss = -float(np.sum(scaled * targets * logs, dtype=np.float64))
  return loss, scaled * (probabilities - targets)


def _measure(logits, table):
  """Returns the mean log loss of the labels, and the accuracy."""
  return (log_loss(logits, table.labels, table.weights),
          float(np.mean(logits.argmax(axis=1) == table.labels)))


def log_loss(logits: np.ndarray, labels: np.ndarray,
             weights: Optional[np.ndarray] = None) -> float:
  """Returns the mean cross entropy of some labels, weighted or not."""
  logs = logits - special.logsumexp(logits, axis=1, keepdims=True)
  return -float(np.average(
      logs[np.arange(len(labels)), labels].astype(np.float64),
      weights=weights))


def _cores():
  return os.cpu_count() or 1


def _one_blas_thread():
  """Returns a context in which each call of BLAS uses one thread.

  Several wait actively for each other: beside other work everything here then
  takes ten times as long.
  """
  return threadpoolctl.threadpool_limits(1, 'blas')


class Kernel(NamedTuple):
  """A fitted kernel, with the names of its variables."""

  # [n, components] float32.
  components: np.ndarray
  # [support points, components] float32.
  support: np.ndarray
  # [support points, classes] float32.
  coefficients: np.ndarray
  # [classes] float32.
  offset: np.ndarray
  gamma: float
  # Share of the kernel's probabilities in the mean with those of the linear
  # layer: 0, 0.5 or 1.
  share: float


def head_values(table: Table, linear: Linear,
                kernel: Optional[Kernel] = None) -> Dict[str, np.ndarray]:
  """Returns {name in the scope: value} of the variables of a head.

  Args:
    table: Table that the head was fitted to.
    linear: its Linear.
    kernel: its Kernel, if it is fitted.
  """
  values: Dict[str, np.ndarray] = dict(
      center=table.center, scale=table.scale, weights=linear.weights,
      biases=linear.biases)
  if kernel is not None:
    values.update({'Kernel/' + name: np.asarray(value)
                   for name, value in kernel._asdict().items()})
  return values


def fit_kernel(table: Table, linear_logits: np.ndarray, support_points: int,
               log: Callable[..., None] = lambda *_: None) -> Kernel:
  """Fits the kernel, and chooses its share.

  Args:
    table: Table with one row per photo.
    linear_logits: [rows, classes], of each photo, from a linear layer that was
      fitted without it.
    support_points: number of support points.
    log: logs a format and its arguments.
  """
  with _one_blas_thread():
    return _fit_kernel(table, linear_logits, support_points, log)


def _fit_kernel(table, linear_logits, support_points, log):
  components = _principal_components(table)
  points = (table.features @ components).astype(np.float64)
  chosen = _choose_support(table.labels, support_points)
  support = points[chosen]
  offset = np.average(table.targets, axis=0, weights=table.weights)
  # Photos of weight 0 are left out by a weight that can be divided by.
  root = np.sqrt(np.maximum(table.weights, 1e-6).astype(
      np.float64))[:, np.newaxis]
  best: Optional[Dict] = None
  distances = _distances(points, support)
  median = _median_distance(points)
  for gamma in (factor / median for factor in _GAMMAS):
    kernel = np.exp(-gamma * distances)
    support_kernel, kernel = kernel[chosen], root * kernel
    gram = kernel.T @ kernel
    for ridge in _RIDGES:
      coefficients, left_out = _ridge(
          kernel, gram, support_kernel, root * (table.targets - offset), ridge)
      scores = table.targets - left_out / root
      sharpness = _sharpness(scores, table)
      loss = log_loss(sharpness * scores, table.labels, table.weights)
      if best is None or loss < best['loss']:
        best = dict(loss=loss, gamma=gamma, ridge=ridge, scores=scores,
                    sharpness=sharpness, coefficients=coefficients)
  assert best is not None
  share, losses = _choose_share(linear_logits,
                                best['sharpness'] * best['scores'], table)
  log('Kernel: %d support points, ridge %g; loss of the linear layer %.4f, of '
      'both %.4f, of the kernel %.4f: the share of the kernel is %g',
      len(support), best['ridge'], *losses, share)
  scaled = best['sharpness']
  # There may be fewer photos than when the variables were created.
  padding = [(0, support_points - len(support)), (0, 0)]
  return Kernel(components.astype(np.float32),
                np.pad(support, padding, 'constant').astype(np.float32),
                np.pad(scaled * best['coefficients'], padding,
                       'constant').astype(np.float32),
                (scaled * offset).astype(np.float32), best['gamma'], share)


def _sharpness(scores, table):
  """Returns the factor that turns scores into logits of the least loss."""
  return optimize.minimize_scalar(
      lambda factor: log_loss(factor * scores, table.labels, table.weights),
      bounds=_SHARPNESS, method='bounded').x


def _principal_components(table):
  """Returns [n, components] float32, padded with zeros if there are fewer."""
  size = table.features.shape[1]
  wanted = min(size, layers_head.MAX_COMPONENTS)
  products = table.reduced.T @ table.reduced
  last = len(products) - 1
  number = min(wanted, len(products))
  _, vectors = linalg.eigh(products, subset_by_index=[last - number + 1, last])
  if table.basis is not None:
    vectors = table.basis @ vectors
  result = np.zeros([size, wanted], np.float32)
  result[:, :number] = vectors[:, ::-1]
  return result


def _choose_support(labels, support_points):
  """Returns the rows of the support points, the classes in turn."""
  order = np.random.RandomState(0).permutation(len(labels))
  sorted_rows = order[np.argsort(labels[order], kind='stable')]
  counts = np.bincount(labels)
  rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
  chosen = sorted_rows[np.argsort(rank, kind='stable')][:support_points]
  return np.sort(chosen)


def _distances(points, support):
  """Returns squared distances: [points, support]."""
  return np.maximum(
      np.square(points).sum(axis=1)[:, np.newaxis] +
      np.square(support).sum(axis=1) - 2 * points @ support.T, 0)


def _median_distance(points):
  some = points[np.random.RandomState(0).permutation(len(points))
                [:_MEDIAN_PHOTOS]]
  pairs = _distances(some, some)[np.triu_indices(len(some), 1)]
  return max(float(np.median(pairs)) if len(pairs) else 1.0, 1e-12)


def _ridge(kernel, gram, support_kernel, targets, ridge):
  """Returns coefficients, and the residuals that leave each photo out.

  Args:
    kernel: [rows, support points].
    gram: [support points, support points], kernel.T @ kernel.
    support_kernel: [support points, support points].
    targets: [rows, classes].
    ridge: factor.
  """
  factor = _cholesky(gram + ridge * support_kernel)
  solved = linalg.solve_triangular(factor, kernel.T, lower=True)
  leverage = np.minimum(np.square(solved).sum(axis=0), 1 - 1e-6)
  half = solved @ targets
  coefficients = linalg.solve_triangular(factor, half, lower=True, trans='T')
  residuals = targets - solved.T @ half
  return coefficients, residuals / (1 - leverage)[:, np.newaxis]


def _choose_share(linear_logits, kernel_logits, table):
  """Returns the share of least loss, and the losses of 0, 0.5 and 1."""
  first, second = (special.softmax(logits.astype(np.float64), axis=1)
                   for logits in (linear_logits, kernel_logits))
  shares = (0.0, 0.5, 1.0)
  losses = [log_loss(np.log(np.maximum(
      (1 - share) * first + share * second, 1e-12)), table.labels,
                       table.weights)
            for share in shares]
  best = int(np.argmin(losses))
  share = shares[best] if losses[best] < losses[1] * (1 - _LEAST_GAIN) else 0.5
  return share, losses
