"""Prints the path of one validation photo that the page accepts.

  python -m tools.pick_photo --manifest=data/my_flower_5.json
"""

import os

from absl import flags

import common_flags
from datasets import manifest as manifests
from errors import InputError
from serving import uploads


def define_flags():
  """Defines the flags of this program."""
  flags.DEFINE_string(
      'manifest', None, 'Path of the manifest of a converted data set.')


def pick(dataset_dir, name):
  """Returns the path of the first validation photo that is JPEG or PNG.

  Args:
    dataset_dir: folder of the manifest.
    name: name of the data set.

  Raises:
    InputError: there is no such photo.
  """
  manifest = manifests.load(dataset_dir, name)
  folder, files = (manifests.photos_folder(dataset_dir, name, manifest),
                   manifest.files)
  for split in ('validation', 'train'):
    for file_name in sorted(files):
      path = os.path.join(folder, file_name)
      if files[file_name] == split and os.path.isfile(path):
        with open(path, 'rb') as stream:
          if uploads.extension_of(stream.read()) is not None:
            return path
  raise InputError('no photo of %s is a JPEG or PNG' % name)


def main(_):
  values = flags.FLAGS
  common_flags.require(values, 'manifest')
  folder, name = os.path.split(values.manifest)
  print(pick(folder, os.path.splitext(name)[0]))


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
