"""Tests of compat.py: what reaches the console."""

import subprocess
import sys

from helpers import ROOT

SAY = '''
from compat import setup_logging, slim, tf
setup_logging()
from absl import logging as absl_logging
absl_logging.use_absl_handler()
tf.logging.info('once')
slim.l2_regularizer(0.0)
net = slim.flatten(slim.conv2d(tf.zeros([1, 8, 8, 3]), 2, 3,
                               normalizer_fn=slim.batch_norm))
tf.losses.softmax_cross_entropy([[0., 1.]], slim.fully_connected(net, 2))
with tf.Session() as session:
  session.run(tf.global_variables_initializer())
with tf.train.Coordinator().stop_on_exception():
  raise tf.errors.DataLossError(None, None, 'x')
'''


def test_console_has_each_line_once_and_no_notes_for_tensorflows_developers():
  done = subprocess.run([sys.executable, '-c', SAY], cwd=ROOT, check=True,
                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
  assert done.stdout.decode().splitlines() == ['INFO:tensorflow:once']
