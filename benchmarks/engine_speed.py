"""Measures evaluation and classification with the engine that runs this.

Prints one line of JSON: `evaluation`, photos per second, and `classification`,
milliseconds per photo, with TensorFlow and float32; `auto_evaluation` and
`auto_classification` with what is used without flags, which `auto` describes.
`benchmarks/engines` calls it for each engine.
"""

import json
import os
import time

import numpy as np
from absl import flags

from common import flags as common_flags
from compat import tf
from datasets import dataset_factory, manifest
from evaluation import loop
from runs import checkpoints, run_info
from runtime import forward_pass
from serving.model.classifier import Classifier

# Number of photos that are classified one by one, after a warm-up.
NUM_CLASSIFIED = 30

# The engines themselves are compared, and then what is used without flags.
_OPTIONS = {
    '': forward_pass.Options(forward_pass.TENSORFLOW, forward_pass.FLOAT32),
    'auto_': forward_pass.DEFAULT}


def define_flags():
  """Defines the flags of this program."""
  flags.DEFINE_string('train_dir', None, 'Train directory of the checkpoint.')
  flags.DEFINE_integer('batch_size', 32, 'Photos a batch of the evaluation.',
                       lower_bound=1)


def measure_evaluation(train_dir, batch_size, options):
  """Returns the photos per second on the train split, the best of three."""
  run = run_info.load(train_dir)
  dataset = dataset_factory.get_dataset(run.dataset_name, 'train',
                                        run.dataset_dir)
  with tf.Graph().as_default():
    graph = loop.build_graph(dataset, run, batch_size)
    seconds = []
    for _ in range(3):
      start = time.perf_counter()
      loop.count(graph, checkpoints.newest(train_dir), options)
      seconds.append(time.perf_counter() - start)
  return graph.num_photos / min(seconds)


def measure_classification(train_dir, options):
  """Returns the milliseconds per photo, the median of several photos."""
  run = run_info.load(train_dir)
  found = manifest.load(run.dataset_dir, run.dataset_name)
  names = sorted(found.files)
  folder = manifest.photos_folder(run.dataset_dir, run.dataset_name, found)
  classifier = Classifier.from_checkpoint(train_dir, options=options)
  classifier.warm_up()
  seconds = []
  for name in names[:NUM_CLASSIFIED]:
    with open(os.path.join(folder, name), 'rb') as stream:
      photo = stream.read()
    start = time.perf_counter()
    classifier.classify([photo])
    seconds.append(time.perf_counter() - start)
  return 1000 * float(np.median(seconds))


def main(_):
  """Prints the results of this engine."""
  values = flags.FLAGS
  common_flags.require(values, 'train_dir')
  run = run_info.load(values.train_dir)
  figures = {'auto': forward_pass.choose(forward_pass.DEFAULT,
                                         run.precision).describe()}
  for prefix, options in _OPTIONS.items():
    figures[prefix + 'evaluation'] = measure_evaluation(
        values.train_dir, values.batch_size, options)
    figures[prefix + 'classification'] = measure_classification(
        values.train_dir, options)
  print(json.dumps(figures))


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
