"""Downloads a published checkpoint.

  python -m tools.download_checkpoint inception_v4

saves it where env_set.sh looks for the checkpoint of that network:
checkpoints/inception_v4.ckpt.
"""

import os
from typing import List

from absl import flags

from common import flags as common_flags
from common.errors import InputError
from common.paths import relative
from downloads import checkpoint_archive
from nets import nets_factory

FLAGS = flags.FLAGS


def define_flags() -> None:
  """Defines the flags of this program."""
  flags.DEFINE_string(
      'checkpoint_dir', os.path.join(os.path.dirname(os.path.dirname(
          os.path.abspath(__file__))), 'checkpoints'),
      'Destination folder. If the archive is already there, it is used. '
      'python -m tools.list_models --model_name=NETWORK lists the checkpoints '
      "of a network; the network's name stands for the first one. "
      'mobilenet_v3_large_075 and mobilenet_v3_small_075 are checkpoints of '
      'networks without a row.')
  flags.DEFINE_string(
      'model_name', None,
      'Name to use if the arguments have none.')


def main(argv: List[str]) -> None:
  """Downloads the named checkpoint and prints its path."""
  names = argv[1:]
  if not names and FLAGS.model_name:
    names = [FLAGS.model_name]
  if len(names) != 1:
    raise InputError('got %d names, one is needed: a network or a published '
                     'checkpoint; known: %s' %
                     (len(names), ', '.join(nets_factory.checkpoint_names())))
  network, row = nets_factory.find_checkpoint(names[0])
  prefix = checkpoint_archive.download(
      row.url, row.file, os.path.expanduser(FLAGS.checkpoint_dir), row.name,
      network)
  prefix = relative(prefix)
  print('%s from %s' % (prefix, row.url))
  if network in nets_factory.NETWORKS:
    print('train from it:  MODEL_NAME=%s CHECKPOINT_PATH=%s ./run_train.sh' %
          (network, prefix))
    print('inspect it:     python -m tools.inspect_checkpoint --model_name=%s '
          '--checkpoint_path=%s' % (network, prefix))
  else:
    print('its network, %s, is not in nets/networks.py' % network)


if __name__ == '__main__':
  define_flags()
  common_flags.run(main, positional=True)
