"""Compares training, evaluation and classification speed of both engines.

The photos are the drawn flowers of quickstart.sh. The engines alternate, and a
figure is the best of the rounds: other load on the machine can only slow it.
"""

import json
import os
import re
import statistics
import subprocess
import tempfile

from absl import flags

from common import flags as common_flags
from common.errors import InputError

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PYTHONS = {'tf1': os.path.join(ROOT, '.venv', 'bin', 'python'),
           'tf2': os.path.join(ROOT, '.venv-tf2', 'bin', 'python')}
DATASET = 'drawn_flowers'
# The first steps of a run build the graph and warm up.
WARM_UP_STEPS = 4
# Name, unit, whether more is better.
FIGURES = [('training, all layers', 'photos/s', True),
           ('training, classifier only', 'photos/s', True),
           ('evaluation, TensorFlow', 'photos/s', True),
           ('classification, TensorFlow', 'ms', False),
           ('evaluation, auto', 'photos/s', True),
           ('classification, auto', 'ms', False)]


def define_flags():
  """Defines the flags of this program."""
  flags.DEFINE_string('model_name', 'mobilenet_v1',
                      'Name of the network, a key of nets_factory.')
  flags.DEFINE_integer('train_image_size', None, 'Height and width of the '
                       "input in pixels. None: the network's own.")
  flags.DEFINE_integer('batch_size', 32, 'Photos a batch.', lower_bound=1)
  flags.DEFINE_integer('steps', 12, 'Training steps that are measured in each '
                       'round.', lower_bound=1)
  flags.DEFINE_integer('rounds', 3, 'How often each engine has its turn.',
                       lower_bound=1)
  flags.DEFINE_integer('per_class', 60, 'Photos per class, of five.',
                       lower_bound=20)


def run(engine, *arguments):
  """Runs a module or a program with an engine; returns stdout and stderr.

  Raises:
    InputError: the program failed; contains the last line that it wrote.
  """
  done = subprocess.run([PYTHONS[engine], *map(str, arguments)], cwd=ROOT,
                        capture_output=True, text=True)
  if done.returncode:
    lines = (done.stdout + done.stderr).strip().split('\n')
    raise InputError('%s on %s: %s' % (arguments[0], engine, lines[-1]))
  return done.stdout, done.stderr


def train(engine, values, folder, train_dir, *more):
  """Trains for WARM_UP_STEPS and `steps`; returns photos per second."""
  flags_given = [
      '--dataset_dir=' + folder, '--dataset_name=' + DATASET,
      '--train_dir=' + train_dir, '--model_name=' + values.model_name,
      '--batch_size=%d' % values.batch_size, '--log_every_n_steps=1',
      '--optimizer=adam', '--learning_rate=0.001',
      '--max_number_of_steps=%d' % (WARM_UP_STEPS + values.steps), *more]
  if values.train_image_size:
    flags_given.append('--train_image_size=%d' % values.train_image_size)
  _, log = run(engine, 'train_image_classifier.py', *flags_given)
  seconds = [float(found) for found in re.findall(r'\(([\d.]+) sec/step', log)]
  return values.batch_size / statistics.median(seconds[WARM_UP_STEPS:])


def measure(engine, values, folder, train_dir):
  """Measures one round of an engine.

  Args:
    engine: 'tf1' or 'tf2'.
    values: the parsed flags.
    folder: dataset_dir.
    train_dir: created by the first round; later rounds start from it.

  Returns:
    A list in the order of FIGURES, and the runtime and precision of `auto`.
  """
  with tempfile.TemporaryDirectory(dir=folder) as scratch:
    all_layers = train(engine, values, folder, os.path.join(scratch, 'all'))
    head = train(engine, values, folder, os.path.join(scratch, 'head'),
                 '--checkpoint_path=' + train_dir, '--train_classifier_only')
  printed, _ = run(engine, '-m', 'benchmarks.engine_speed',
                   '--train_dir=' + train_dir,
                   '--batch_size=%d' % values.batch_size)
  speed = json.loads(printed)
  return [all_layers, head, *(speed[name] for name in (
      'evaluation', 'classification', 'auto_evaluation', 'auto_classification'
  ))], speed['auto']


def print_table(rounds):
  """Prints the best of {engine: [one list like FIGURES per round]}."""
  print('%-36s %8s %8s %8s' % ('', 'tf1', 'tf2', 'tf2 is'))
  for index, (name, unit, more_is_better) in enumerate(FIGURES):
    best = max if more_is_better else min
    one, two = (best(figures[index] for figures in rounds[engine])
                for engine in ('tf1', 'tf2'))
    ratio = two / one if more_is_better else one / two
    print('%-36s %8.1f %8.1f %6.2f times as fast' %
          ('%s, %s' % (name, unit), one, two, ratio))


def main(_):
  """Alternates the engines and prints the results."""
  values = flags.FLAGS
  rounds, auto = {engine: [] for engine in PYTHONS}, {}
  with tempfile.TemporaryDirectory() as folder:
    run('tf1', '-m', 'datasets.conversion.draw_flowers',
        '--per_class=%d' % values.per_class,
        '--output_dir=' + os.path.join(folder, DATASET))
    run('tf1', 'download_and_convert_data.py', '--dataset_dir=' + folder,
        '--dataset_name=' + DATASET)
    train_dir = os.path.join(folder, 'train')
    train('tf1', values, folder, train_dir)
    for number in range(values.rounds):
      for engine in PYTHONS:
        figures, auto[engine] = measure(engine, values, folder, train_dir)
        rounds[engine].append(figures)
        print('round %d, %s: %s' % (number + 1, engine, ', '.join(
            '%s %.1f %s' % (name, figure, unit)
            for (name, unit, _), figure in zip(FIGURES, figures))), flush=True)
  print('\n%s, %d photos a batch, best of %d rounds' %
        (values.model_name, values.batch_size, values.rounds))
  print_table(rounds)
  for engine, description in auto.items():
    print('auto of %s: %s' % (engine, description))


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
