"""Downloads a published checkpoint.

  python -m tools.download_checkpoint inception_v4

saves it where env_set.sh looks for the checkpoint of that network:
checkpoints/inception_v4.ckpt.
"""

import os

from absl import flags

from common import flags as common_flags
from common.errors import InputError
from nets import nets_factory
from runs import published

FLAGS = flags.FLAGS


def define_flags():
  """Defines the flags of this program."""
  flags.DEFINE_string(
      'checkpoint_dir', os.path.join(os.path.dirname(os.path.dirname(
          os.path.abspath(__file__))), 'checkpoints'),
      'Destination folder. If the archive is already there, it is used. '
      'Known checkpoints, and networks, for their first checkpoint: %s.' %
      ', '.join(published.known_names()))
  flags.DEFINE_string(
      'model_name', None,
      'Name to use if the arguments have none.')


def main(argv):
  """Downloads the named checkpoint and prints its path."""
  names = argv[1:]
  if not names and FLAGS.model_name:
    names = [FLAGS.model_name]
  if len(names) != 1:
    raise InputError('got %d names, one is needed: a network or a published '
                     'checkpoint; known: %s' %
                     (len(names), ', '.join(published.known_names())))
  name, row = published.find(names[0])
  prefix = published.download(name, os.path.expanduser(FLAGS.checkpoint_dir))
  print('%s from %s' % (prefix, row.url))
  if row.network in nets_factory.NETWORKS:
    print('train from it:  MODEL_NAME=%s CHECKPOINT_PATH=%s ./run_train.sh' %
          (row.network, prefix))
    print('inspect it:     python -m tools.inspect_checkpoint --model_name=%s '
          '--checkpoint_path=%s' % (row.network, prefix))
  else:
    print('its network, %s, is not in nets/nets_factory.py' %
          row.network)


if __name__ == '__main__':
  define_flags()
  common_flags.run(main, positional=True)
