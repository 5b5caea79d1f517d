"""Computes the requirements of training on several cards and hosts.

Counted from the graphs: parameters and multiply-adds of each network, and how
evenly its variables are spread over the parameter servers, assigned by
model_deploy as in training. Measured here: photos per second that one core
preprocesses. Taken from the flags: the speed of a card, and its batch size.

A training step is assumed to cost three times the operations of the forward
pass: the gradients with respect to activations and to weights cost about as
much each.
"""

import glob
import os
import tempfile
from typing import List, NamedTuple

from absl import flags
from PIL import Image

from benchmarks import graph_costs, input_speed
from common import flags as common_flags
from common.errors import InputError, unknown_name
from compat import slim, tf
from datasets import dataset_factory
from datasets.conversion import convert_photos, draw_flowers
from deployment import model_deploy
from nets import nets_factory

FLAGS = flags.FLAGS

# Training photos of ILSVRC 2012: their number, and the mean bytes of a record
# (138 GB of JPEG files).
IMAGENET_PHOTOS = 1281167
IMAGENET_RECORD_BYTES = 110000

# Their usual size, also used for the photos that are drawn for the measurement.
_PHOTO_SIZE = (500, 375)

_CLASSES = 1001


class Costs(NamedTuple):
  """What training a network moves and computes."""

  # Number of trained values.
  parameters: int
  # Those and the moving statistics.
  variable_bytes: int
  # Of one photo, forward.
  multiply_adds: int
  # variable_bytes on each parameter server.
  ps_bytes: List[int]


class Needs(NamedTuple):
  """What a training rate needs."""

  # Per second, of all workers.
  photos: float
  # Seconds per step.
  step_seconds: float
  # Cores that preprocess photos.
  cores: float
  # MB per second read from disk.
  disk: float
  # MB per second over a host's bus.
  bus: float
  # MB per second, each way, over a worker's network.
  worker: float
  # MB per second, each way, over the network of the busiest parameter server.
  server: float
  # MB per second, each way, over a worker's network with --all_reduce.
  all_reduce: float
  # Hours per epoch.
  epoch_hours: float


def define_flags():
  """Defines the flags that describe the machines."""
  flags.DEFINE_list(
      'networks', ['mobilenet_v1', 'inception_v3', 'inception_v4',
                   'resnet_v1_50', 'vgg_16', 'nasnet_large'],
      'Networks, with commas between.')
  flags.DEFINE_integer('workers', 1, 'Hosts with cards.', lower_bound=1)
  flags.DEFINE_integer('cards', 8, 'Cards of each: --num_clones.',
                       lower_bound=1)
  flags.DEFINE_integer('servers', 0, 'Parameter servers; 0 with one host.',
                       lower_bound=0)
  flags.DEFINE_bool('balance_ps', True, 'Deal variables out by their bytes; '
                    'else in turn, as slim.')
  flags.DEFINE_float(
      'card_tflops', 6.0, 'Float32 operations per second that a card does in '
      'such networks, in units of 10^12: some 40 % of what its maker says.',
      lower_bound=0.001)
  flags.DEFINE_integer('batch_size', 32, 'Photos per step and card.',
                       lower_bound=1)
  flags.DEFINE_float(
      'core_photos', None, 'Photos a second that a core prepares. None: '
      'measured here.', lower_bound=0.1)
  flags.DEFINE_string('dataset_dir', None, 'Records for this measurement. '
                      'None: photos of %d x %d pixels are drawn.' % _PHOTO_SIZE)
  flags.DEFINE_string('dataset_name', None, 'Name of that data set.')


def costs_of(name, servers):
  """Counts the costs of a network.

  Args:
    name: key of nets_factory.
    servers: number of parameter servers, 0 for none.

  Returns:
    Costs.
  """
  row = nets_factory.get_network(name)
  config = model_deploy.DeploymentConfig(num_ps_tasks=servers,
                                         balance_ps=FLAGS.balance_ps)
  with tf.Graph().as_default():
    images = tf.placeholder(
        tf.float32, [1, row.image_size, row.image_size, row.channels])
    with slim.arg_scope([slim.model_variable, slim.variable],
                        device=config.variables_device()):
      logits, _ = nets_factory.get_network_fn(
          name, num_classes=_CLASSES, is_training=False)(images)
    _, multiply_adds = graph_costs.count(logits)
    loads = [0] * max(1, servers)
    for variable in tf.global_variables():
      task = tf.DeviceSpec.from_string(variable.device).task or 0
      loads[task] += _bytes(variable)
    trained = sum(v.shape.num_elements() for v in tf.trainable_variables())
  return Costs(trained, sum(loads), multiply_adds, loads)


def _bytes(variable):
  return variable.shape.num_elements() * variable.dtype.base_dtype.size


def needs_of(costs, workers, cards, batch_size, card_tflops, core_photos):
  """Computes the requirements of training a network.

  Each worker reads all variables once per step, and sends a gradient for each.
  Within a host, each card does. With --all_reduce each of n workers divides its
  gradients into n parts and sends n - 1 of them around a ring to be summed, and
  then n - 1 sums.

  Args:
    costs: Costs.
    workers, cards, batch_size, card_tflops, core_photos: as the flags.

  Returns:
    Needs.
  """
  card_photos = card_tflops * 1e12 / (3 * 2 * costs.multiply_adds)
  photos = workers * cards * card_photos
  steps = card_photos / batch_size
  both_ways = 2 * costs.variable_bytes * steps / 1e6
  return Needs(
      photos=photos, step_seconds=1 / steps,
      cores=photos / workers / core_photos,
      disk=photos / workers * IMAGENET_RECORD_BYTES / 1e6,
      bus=cards * both_ways,
      worker=costs.variable_bytes * steps / 1e6,
      server=workers * max(costs.ps_bytes) * steps / 1e6,
      all_reduce=2 * (workers - 1) / workers * 4 * costs.parameters * steps /
      1e6,
      epoch_hours=IMAGENET_PHOTOS / photos / 3600)


def measure_core(dataset_dir, dataset_name):
  """Returns how many photos per second one core reads, decodes and distorts."""
  with tempfile.TemporaryDirectory() as made:
    folder, name = dataset_dir, dataset_name
    if not folder:
      folder, name = made, input_speed.NAME
      _draw_photos(os.path.join(made, name))
      convert_photos.convert(folder, name, num_shards=input_speed.NUM_SHARDS)
    settings = input_speed.Settings(
        image_size=299, batch_size=32, num_batches=40, num_readers=4,
        num_threads=os.cpu_count() or 1)
    turn = input_speed.measure(
        input_speed.batches_now,
        dataset_factory.get_dataset(name, 'train', folder), settings)
  return 1000 / turn.milliseconds


def _draw_photos(folder):
  """Draws photos of the usual size."""
  draw_flowers.draw_all(folder, per_class=40)
  for path in glob.glob(os.path.join(folder, '*', '*.jpg')):
    with Image.open(path) as photo:
      larger = photo.resize(_PHOTO_SIZE, Image.BICUBIC)
    larger.save(path, quality=90)


def main(_):
  """Prints one row per network."""
  for name in FLAGS.networks:
    if name not in nets_factory.NETWORKS:
      raise unknown_name('network', name, nets_factory.NETWORKS)
  if bool(FLAGS.dataset_dir) != bool(FLAGS.dataset_name):
    raise InputError('--dataset_dir and --dataset_name belong together, got %r '
                     'and %r' % (FLAGS.dataset_dir, FLAGS.dataset_name))
  if FLAGS.workers > 1 and not FLAGS.servers:
    raise InputError('--workers=%d need parameter servers: --servers=%d is a '
                     'start' % (FLAGS.workers, FLAGS.workers))
  core_photos = FLAGS.core_photos or measure_core(FLAGS.dataset_dir,
                                                  FLAGS.dataset_name)
  print('%d x %d cards of %g TFLOPS, %d photos per step and card, %d parameter '
        'servers; a core prepares %.0f photos per second\n' %
        (FLAGS.workers, FLAGS.cards, FLAGS.card_tflops, FLAGS.batch_size,
         FLAGS.servers, core_photos))
  print_table(core_photos)


def print_table(core_photos):
  """Prints the table for the flags, in Markdown."""
  last = (['network of a worker, MB/s each way',
           'of the busiest server, MB/s each way',
           'of a worker with --all_reduce, MB/s each way'] if FLAGS.servers
          else ["the host's bus, MB/s"])
  heads = ['network', 'parameters', 'photos/s', 's per step', 'cores per host',
           'read per host, MB/s'] + last + ['h per epoch']
  print('| %s |\n%s|' % (' | '.join(heads), '|---' * len(heads)))
  for name in FLAGS.networks:
    costs = costs_of(name, FLAGS.servers)
    needs = needs_of(costs, FLAGS.workers, FLAGS.cards, FLAGS.batch_size,
                     FLAGS.card_tflops, core_photos)
    network = ['%.0f' % rate for rate in (needs.worker, needs.server,
                                          needs.all_reduce)]
    cells = [name, '%.1f M' % (costs.parameters / 1e6),
             '%.0f' % needs.photos, '%.2f' % needs.step_seconds,
             '%.0f' % -(-needs.cores // 1), '%.0f' % needs.disk]
    cells += network if FLAGS.servers else ['%.0f' % needs.bus]
    cells.append('%.2f' % needs.epoch_hours)
    print('| %s |' % ' | '.join(cells), flush=True)


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
