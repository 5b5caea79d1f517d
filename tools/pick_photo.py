"""Prints the path of one photo that the server's page accepts.

  python -m tools.pick_photo --manifest=data/my_flower_5.json

It is a validation photo. If none is accepted it is a test photo, else a
training photo, and a line on stderr names the split.
"""

import os
import sys
from typing import List, Tuple

from absl import flags

from common import flags as common_flags
from common.errors import InputError
from datasets import manifest as manifests
from serving.web import uploads


def define_flags() -> None:
  """Defines the flags of this program."""
  flags.DEFINE_string(
      'manifest', None, 'Path of the manifest of a converted data set.')


def pick(manifest_path: str) -> Tuple[str, str]:
  """Returns the split and the path of the first photo that the page accepts.

  Args:
    manifest_path: path of the manifest.

  Raises:
    InputError: there is no manifest, or no such photo.
  """
  manifest = manifests.load_file(manifest_path)
  if manifest is None:
    raise InputError('--manifest=%s: no such file; ./convert_tfrecord.sh '
                     'writes it' % manifest_path)
  folder = manifests.photos_folder(os.path.dirname(manifest_path),
                                   manifest.name, manifest)
  files = manifest.files
  for split in ('validation', 'test', 'train'):
    for file_name in sorted(files):
      path = os.path.join(folder, file_name)
      if files[file_name] == split and os.path.isfile(path):
        with open(path, 'rb') as stream:
          if uploads.extension_of(stream.read()) is not None:
            return split, path
  raise InputError('the page accepts no photo in %s' % folder)


def main(_: List[str]) -> None:
  """Prints the path."""
  values = flags.FLAGS
  common_flags.require(values, 'manifest')
  split, path = pick(values.manifest)
  if split != 'validation':
    print('The page accepts no validation photo: this one is of the split %s' %
          split, file=sys.stderr)
  print(path)


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
