"""Checkpoints of one variable."""

import os

from compat import tf


def write_checkpoints(folder, steps, version=tf.train.SaverDef.V2):
  """Writes model.ckpt-<step> for each step; returns the prefixes."""
  os.makedirs(str(folder), exist_ok=True)
  with tf.Graph().as_default(), tf.Session() as session:
    weights = tf.get_variable('net/weights', [2, 3])
    step = tf.train.get_or_create_global_step()
    saver = tf.train.Saver(write_version=version, max_to_keep=None)
    prefixes = []
    for number in steps:
      session.run([weights.initializer, tf.assign(step, number)])
      prefixes.append(saver.save(
          session, os.path.join(str(folder), 'model.ckpt'), global_step=number))
  return prefixes
