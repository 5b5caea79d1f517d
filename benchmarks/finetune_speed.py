"""Measures fine-tuning of a classifier, from records to the best checkpoint.

Several ways are measured in turn on the same records: the head over several
layers, on cached features; as before there was another runtime (the network's
own classifier on cached features, TensorFlow, float32, with the auxiliary
classifier); the same on the photos; and with the settings of 2017 (batch norm
of frozen layers in training mode, epsilon 1). The first two are trained to
their end; of the others some steps are measured. The unit of comparison is one
evaluation pass over all photos.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

from absl import flags

from benchmarks import OLD_RUNTIME
from common import flags as common_flags
from common.errors import InputError

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# The first steps of a run build the graph and warm up.
WARM_UP_STEPS = 3
OLD_STEPS = 600  # Of the recipe that ../shared/reference/BASELINE.md measured.
OLD_SETTINGS = ['--train_frozen_batch_norm', '--opt_epsilon=1.0',
                '--learning_rate=0.001']


def define_flags():
  """Defines the flags of this program."""
  flags.DEFINE_string('dataset_dir', None, 'Folder of the TFRecord files.')
  flags.DEFINE_string('dataset_name', None, 'Name of the converted data set.')
  flags.DEFINE_string('model_name', 'mobilenet_v1',
                      'Name of the network, a key of nets_factory.')
  flags.DEFINE_string('checkpoint_path', None, 'Published checkpoint.')
  flags.DEFINE_integer('batch_size', 32, 'Photos per step.', lower_bound=1)
  flags.DEFINE_integer('steps', 10, 'Steps on the photos that are measured.',
                       lower_bound=1)
  flags.DEFINE_bool(
      'old', True, 'Also measure TensorFlow with float32, steps on the photos, '
      'and the settings of 2017.')
  flags.DEFINE_float(
      'passes', 1.5, 'The cached way may take this many evaluation passes …',
      lower_bound=0.0)
  flags.DEFINE_float(
      'more_secs', 30.0, '… and this many seconds more.', lower_bound=0.0)


def run(program, *arguments):
  """Runs a program; returns its output and its duration in seconds.

  Raises:
    InputError: the program failed; contains the last line that it wrote.
  """
  start = time.time()
  done = subprocess.run(
      [sys.executable, os.path.join(ROOT, program), *arguments],
      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
  if done.returncode:
    raise InputError('%s: %s' % (program, done.stdout.strip().split('\n')[-1]))
  return done.stdout, time.time() - start


def train(values, folder, *more):
  """Trains the classifier into a folder; returns the same as `run`."""
  return run('train_image_classifier.py',
             '--dataset_dir=' + values.dataset_dir,
             '--dataset_name=' + values.dataset_name,
             '--model_name=' + values.model_name,
             '--checkpoint_path=' + values.checkpoint_path,
             '--train_dir=' + folder, '--train_classifier_only',
             '--batch_size=%d' % values.batch_size, '--optimizer=adam',
             '--learning_rate=0.003', '--learning_rate_decay_type=fixed',
             '--save_interval_secs=60', *more)


def seconds_a_step(values, folder, *more):
  """Returns the median seconds per step on the photos."""
  log, _ = train(values, folder, '--nocache_features',
                 '--max_number_of_steps=%d' % (WARM_UP_STEPS + values.steps),
                 '--log_every_n_steps=1', *more)
  seconds = re.findall(r'\(([\d.]+) sec/step', log)
  return statistics.median(map(float, seconds[WARM_UP_STEPS:]))


def train_cached(values, train_dir, folder, *more):
  """Trains on cached features to the end; returns seconds and best.json.

  Args:
    values: the parsed flags.
    train_dir: folder to train into.
    folder: of the feature caches.
    *more: further flags.
  """
  _, seconds = train(values, train_dir, '--cache_features',
                     '--dropout_keep_prob=0.5', '--feature_cache_dir=' + folder,
                     *more)
  with open(os.path.join(train_dir, 'best', 'best.json')) as file:
    return seconds, json.load(file)


def evaluation_secs(values, train_dir, folder, *more):
  """Returns the seconds of one pass over both splits, without the start."""
  total = 0.0
  for split in ('train', 'validation'):
    log, _ = run('eval_image_classifier.py',
                     '--checkpoint_path=' + train_dir,
                     '--eval_dir=' + os.path.join(folder, split),
                     '--dataset_split_name=' + split,
                     '--batch_size=%d' % values.batch_size, *more)
    begin, end = (
        time.mktime(time.strptime(found, '%Y-%m-%d-%H:%M:%S'))
        for found in re.findall(r'(?:Starting|Finished) evaluation at (\S+)',
                                log))
    total += end - begin
  return total


def print_old_ways(values, folder, cached_secs, pass_secs):
  """Measures what the ways of before take, and prints the ratios.

  Args:
    values: the parsed flags.
    folder: for train directories.
    cached_secs: seconds of training on cached features.
    pass_secs: seconds of one evaluation pass.
  """
  former = os.path.join(folder, 'former')
  former_secs, best = train_cached(
      values, former, folder, '--head=logits', '--train_aux_classifier',
      *OLD_RUNTIME)
  former_pass_secs = evaluation_secs(
      values, former, os.path.join(folder, 'former_eval'), *OLD_RUNTIME)
  print('as before (TensorFlow, float32, logits): one pass %.1f s, %.1f times '
        'as long; records to the end %.1f s, %.1f times as long: validation '
        'accuracy %.4f at step %d' % (
            former_pass_secs, former_pass_secs / max(pass_secs, 1), former_secs,
            former_secs / cached_secs, best['accuracy'], best['step']))
  for name, steps, more in (('on the photos', best['step'], ()),
                            ('settings of 2017', OLD_STEPS, OLD_SETTINGS)):
    seconds = seconds_a_step(
        values, os.path.join(folder, name.replace(' ', '_')), *more)
    print('%-18s %6.3f s per step, %5d steps %7.1f s: %.1f times as long' % (
        name, seconds, steps, seconds * steps, seconds * steps / cached_secs))


def main(_):
  """Measures the ways and prints their ratios."""
  values = flags.FLAGS
  common_flags.require(values, 'dataset_dir', 'dataset_name', 'checkpoint_path')
  with tempfile.TemporaryDirectory() as folder:
    cached = os.path.join(folder, 'cached')
    cached_secs, best = train_cached(values, cached, folder, '--head=layers')
    pass_secs = evaluation_secs(values, cached, folder)
    print('%s on %s, %d photos per step' % (
        values.model_name, values.dataset_name, values.batch_size))
    print('one evaluation pass over all photos       %7.1f s' % pass_secs)
    print('on cached features, records to the end    %7.1f s: validation '
          'accuracy %.4f at step %d' %
          (cached_secs, best['accuracy'], best['step']))
    if values.old:
      print_old_ways(values, folder, cached_secs, pass_secs)
  limit = values.passes * pass_secs + values.more_secs
  print('cached: %.2f of what is allowed, %.1f passes and %.0f s' % (
      cached_secs / limit, values.passes, values.more_secs))
  return 0 if cached_secs <= limit else 1


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
