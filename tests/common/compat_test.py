"""Tests of common/compat.py: what TensorFlow prints to the console."""

import os
import signal
import subprocess
import sys

from kits.helpers import ROOT

LOGGING_PROGRAM = '''
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


def test_console_shows_each_line_once_without_internal_warnings():
  done = subprocess.run(
      [sys.executable, '-c', LOGGING_PROGRAM], cwd=ROOT, check=True,
      stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
  assert done.stdout.decode().splitlines() == ['INFO:tensorflow:once']


def test_import_without_stderr_works():
  done = subprocess.run(
      ['bash', '-c', '"$0" -c "import compat; print(1)" 2>&-', sys.executable],
      cwd=ROOT, check=True, stdout=subprocess.PIPE)
  assert done.stdout == b'1\n'


def test_import_native_crash_prints_a_traceback(tmp_path):
  (tmp_path / 'tensorflow').mkdir()
  (tmp_path / 'tensorflow' / '__init__.py').write_text(
      'import os\nos.abort()\n')
  done = subprocess.run(
      [sys.executable, '-c', 'import compat'], cwd=ROOT,
      env=dict(os.environ, PYTHONPATH=str(tmp_path)),
      capture_output=True)
  assert done.returncode == -signal.SIGABRT
  assert b'Fatal Python error: Aborted' in done.stderr
  assert b'tensorflow/__init__.py' in done.stderr


def test_import_with_tf2_behavior_set_disables_eager_execution():
  done = subprocess.run(
      [sys.executable, '-c',
       'from compat import tf; print(tf.executing_eagerly())'],
      cwd=ROOT, env=dict(os.environ, TF2_BEHAVIOR='1'), check=True,
      stdout=subprocess.PIPE)
  assert done.stdout == b'False\n'
