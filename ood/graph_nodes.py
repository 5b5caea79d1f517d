"""The out-of-distribution (OOD) detection nodes of an inference graph.

They compare the features before the classifier with a reference bank of
training photos, with the same results as ood.reference_bank.
"""

from typing import Any, Dict

import numpy as np

from compat import tf
from ood import reference_bank

# Nodes: [batch] float32 similarity of the photo to the training photos; [batch]
# float32 OOD score (higher: more similar to the classes), and [batch] bool
# whether it reaches the threshold; [batch, n] float32 cosines to the photos of
# the bank, whose names and labels are constants.
SIMILARITY = 'Similarity'
SCORE = 'KnownScore'
KNOWN = 'Known'
COSINES = 'bank/Cosines'
FILENAMES = 'bank/filenames'
LABELS = 'bank/labels'


def add_nodes(features: tf.Tensor, logits: tf.Tensor,
              bank: reference_bank.Bank) -> Dict[str, Any]:
  """Adds the nodes above to the default graph.

  Args:
    features: [batch, d] float32 tensor.
    logits: [batch, classes] float32 tensor.
    bank: reference_bank.Bank with a threshold.

  Returns:
    A dict of the fields of GraphInfo that refer to them.
  """
  assert bank.threshold is not None
  with tf.name_scope('bank'):
    # Stored as columns, so that the product needs no transpose at run time.
    columns = tf.constant(bank.features.T, name='features')
    tf.constant([name.encode('utf-8', 'surrogateescape')
                 for name in bank.filenames], name='filenames')
    tf.constant(bank.labels, tf.int64, name='labels')
    unit = tf.nn.l2_normalize(features, axis=1)
    cosines = tf.matmul(unit, columns, name='Cosines')
    nearest, places = tf.nn.top_k(cosines, bank.num_neighbours, sorted=False)
    density = tf.gather(tf.constant(bank.local_density, name='usual'), places)
    less = tf.constant(reference_bank.LOCAL_SHARE, tf.float32) * density
  similarity = tf.reduce_mean(nearest - less, axis=1, name=SIMILARITY)
  with tf.name_scope('bank'):
    both = tf.stack([similarity, tf.reduce_max(logits, axis=1)], axis=1)
    standard = (both - tf.constant(bank.center)) / tf.constant(bank.spread)
  sharpness = tf.constant(reference_bank.SHARPNESS, tf.float32)
  score = tf.negative(tf.reduce_logsumexp(-sharpness * standard, axis=1) /
                      sharpness, name=SCORE)
  known = tf.greater_equal(score, np.float32(bank.threshold), name=KNOWN)
  return dict(similarity=similarity.name, known_score=score.name,
              known=known.name, cosines=cosines.name,
              bank_filenames=FILENAMES + ':0', bank_labels=LABELS + ':0',
              threshold=float(bank.threshold), threshold_photos=bank.photos)
