"""Table and download of the checkpoints that TF-Slim published.

All were trained on ImageNet (ILSVRC 2012). Names, addresses and files are from
the table "Pre-trained Models" in slim's README and the tables of its MobileNet
pages, as of 2018.
"""

import os
import re
from collections import namedtuple

from downloads import archives, locks, marks
from downloads.fetch import fetch
from errors import InputError, unknown_name
from runs import checkpoints

_STORAGE = 'https://storage.googleapis.com/'
# The same files as on http://download.tensorflow.org.
_MODELS = _STORAGE + 'download.tensorflow.org/models/'

Published = namedtuple('Published', 'network url checkpoint')
Published.__doc__ = """A published checkpoint.

network: name of its network in slim's and our nets_factory.
url: address of the archive.
checkpoint: name of the checkpoint in the archive. It is a single file of that
  name (TensorFlow's V1 format) in the archives of 2016 and of resnet_v2, and
  <name>.index and <name>.data-... (V2) in the others; the format is detected.
"""


def _dated(name, date, network=None, checkpoint=None):
  """Returns the row of `<name>_<date>.tar.gz`."""
  return Published(network or name, '%s%s_%s.tar.gz' % (_MODELS, name, date),
                   checkpoint or name + '.ckpt')


def _mobilenet_v1(multiplier, suffix, size):
  name = 'mobilenet_v1_%s_%d' % (multiplier, size)
  return Published('mobilenet_v1' + suffix,
                   '%smobilenet_v1_2018_02_22/%s.tgz' % (_MODELS, name),
                   name + '.ckpt')


def _mobilenet_v2(multiplier, suffix, size):
  name = 'mobilenet_v2_%s_%d' % (multiplier, size)
  return Published('mobilenet_v2' + suffix,
                   '%smobilenet_v2/checkpoints/%s.tgz' % (_STORAGE, name),
                   name + '.ckpt')


# (depth multiplier in the file name, suffix of the network name), input sizes.
_V1_MULTIPLIERS = (('1.0', ''), ('0.75', '_075'), ('0.5', '_050'),
                   ('0.25', '_025'))
_V1_SIZES = (224, 192, 160, 128)
_V2_MULTIPLIERS = (('1.0', ''), ('0.75', '_075'), ('0.5', '_050'),
                   ('0.35', '_035'))
_V2_SIZES = (224, 192, 160, 128, 96)

# The first row of a network is the one that the network's name stands for.
PUBLISHED = {
    'inception_v1': _dated('inception_v1', '2016_08_28'),
    'inception_v2': _dated('inception_v2', '2016_08_28'),
    'inception_v3': _dated('inception_v3', '2016_08_28'),
    'inception_v4': _dated('inception_v4', '2016_09_09'),
    'inception_resnet_v2': _dated(
        'inception_resnet_v2', '2016_08_30',
        checkpoint='inception_resnet_v2_2016_08_30.ckpt'),
    'resnet_v1_50': _dated('resnet_v1_50', '2016_08_28'),
    'resnet_v1_101': _dated('resnet_v1_101', '2016_08_28'),
    'resnet_v1_152': _dated('resnet_v1_152', '2016_08_28'),
    'resnet_v2_50': _dated('resnet_v2_50', '2017_04_14'),
    'resnet_v2_101': _dated('resnet_v2_101', '2017_04_14'),
    'resnet_v2_152': _dated('resnet_v2_152', '2017_04_14'),
    'vgg_16': _dated('vgg_16', '2016_08_28'),
    'vgg_19': _dated('vgg_19', '2016_08_28'),
    **{'mobilenet_v1_%s_%d' % (multiplier, size):
       _mobilenet_v1(multiplier, suffix, size)
       for multiplier, suffix in _V1_MULTIPLIERS for size in _V1_SIZES},
    **{'mobilenet_v2_%s_%d' % (multiplier, size):
       _mobilenet_v2(multiplier, suffix, size)
       for multiplier, suffix in _V2_MULTIPLIERS for size in _V2_SIZES},
    'mobilenet_v2_1.4_224': _mobilenet_v2('1.4', '_140', 224),
    'mobilenet_v2_1.3_224': _mobilenet_v2('1.3', '_130', 224),
    'nasnet-a_mobile': _dated('nasnet-a_mobile', '04_10_2017',
                              'nasnet_mobile', 'model.ckpt'),
    'nasnet-a_large': _dated('nasnet-a_large', '04_10_2017',
                             'nasnet_large', 'model.ckpt'),
    'pnasnet-5_large': _dated('pnasnet-5_large', '2017_12_13',
                              'pnasnet_large', 'model.ckpt'),
    'pnasnet-5_mobile': _dated('pnasnet-5_mobile', '2017_12_13',
                               'pnasnet_mobile', 'model.ckpt'),
}

# {network: name of its first checkpoint, for which its name stands}
OF_NETWORK = {row.network: name
              for name, row in reversed(list(PUBLISHED.items()))}

# Files of a V2 checkpoint; a graph (.meta) is not needed to read it.
_V2_FILE = re.compile(r'(.+)(\.index|\.data-\d{5}-of-\d{5})')


def known_names():
  """Returns all accepted names, of checkpoints and of their networks."""
  return sorted(set(PUBLISHED) | set(OF_NETWORK))


def find(name):
  """Returns (name of the checkpoint, its row) for a name.

  Args:
    name: of a checkpoint, or of a network.

  Raises:
    InputError: there is no such checkpoint.
  """
  name = OF_NETWORK.get(name, name)
  if name not in PUBLISHED:
    raise unknown_name('published checkpoint', name, known_names())
  return name, PUBLISHED[name]


def download(name, folder):
  """Downloads a published checkpoint to a folder, unless it is complete there.

  The files are named `<folder>/<name>.ckpt` (V1), or that with .index and
  .data-... (V2), whatever their names in the archive. If the network has
  another name, `<folder>/<network>.ckpt` links to the checkpoint of it that was
  requested last.

  No checksums of the archives are published: the checksum of the first download
  is kept as `<archive>.sha256`, and later downloads must match it.

  Args:
    name: of a checkpoint, or of a network.
    folder: destination; created if missing. If the archive is already there,
      put by the user, it is used and kept.

  Returns:
    Path of the checkpoint: `<folder>/<network>.ckpt`, or `<folder>/<name>.ckpt`
    if the former is the user's own file.

  Raises:
    InputError: no such checkpoint; TensorFlow reads the path as a pattern;
      another process is downloading it; the download fails; the archive is
      damaged or has no checkpoint; the files cannot be written.
  """
  name, row = find(name)
  prefix = os.path.join(folder, name + '.ckpt')
  checkpoints.check_path(prefix)
  archive = os.path.join(folder, row.url.rpartition('/')[2])
  if not checkpoints.is_complete(prefix):
    with locks.hold(_lock_path(prefix),
                    'another process is downloading the checkpoint %s: wait '
                    'until it has ended' % prefix):
      # Another process may just have completed it.
      if not checkpoints.is_complete(prefix):
        fetch([row.url], archive, check=archives.check_tar)
        _unpack(archive, row.checkpoint, prefix)
  marks.remove_downloaded(archive)
  return _link(prefix, os.path.join(folder, row.network + '.ckpt'))


def _lock_path(prefix):
  folder, name = os.path.split(prefix)
  return os.path.join(folder, '.%s.lock' % name)


def _unpack(archive, wanted, prefix):
  """Unpacks the checkpoint of an archive, if it is complete."""
  inside = _choose(archive, wanted)
  folder, name = os.path.split(prefix)

  def place(member):
    match = _V2_FILE.fullmatch(member)
    base, suffix = match.groups() if match else (member, '')
    return name + suffix if base == inside else None

  with archives.unpacking_folder(
      os.path.join(folder, '.%s.unpacking' % name)) as unpacked_dir:
    files = archives.unpack(archive, unpacked_dir, place)
    if not checkpoints.is_complete(os.path.join(unpacked_dir, name)):
      raise InputError('the checkpoint %s in %s lacks files or is damaged' %
                       (inside, archive))
    try:
      _publish(files, unpacked_dir, prefix)
    except OSError as error:
      raise InputError('cannot write %s: %s' % (prefix, error.strerror))


def _publish(files, unpacked_dir, prefix):
  """Moves a checkpoint's files to their place, replacing an incomplete one.

  The old files are removed first, the index before the data, so that an index
  never belongs to another checkpoint's data.

  Args:
    files: names of the files.
    unpacked_dir: folder of the files.
    prefix: path of the checkpoint to write.
  """
  for path in sorted(_files_of(prefix), key=_is_index, reverse=True):
    os.remove(path)
  for file in sorted(files, key=_is_index):
    os.replace(os.path.join(unpacked_dir, file),
               os.path.join(os.path.dirname(prefix), file))


def _is_index(path):
  return path.endswith('.index')


def _choose(archive, wanted):
  """Returns the name of the checkpoint in an archive, without .index.

  Raises:
    InputError: it has none, or several and none of the wanted name.
  """
  names = archives.check_tar(archive)
  candidates = {match.group(1) for match in map(_V2_FILE.fullmatch, names)
                if match}
  candidates |= {name for name in names if name.endswith('.ckpt')}
  matching = [name for name in candidates if os.path.basename(name) == wanted]
  if len(matching or candidates) != 1:
    raise InputError('%s has no checkpoint %s; it has %s' %
                     (archive, wanted, checkpoints.name_some(sorted(names)) or
                      'nothing'))
  return (matching or list(candidates))[0]


def _files_of(prefix):
  """Returns the paths of a checkpoint's files that exist, links included."""
  folder, name = os.path.split(prefix)
  return [os.path.join(folder, file) for file in sorted(os.listdir(folder))
          if file == name or (_V2_FILE.fullmatch(file) and
                              _V2_FILE.fullmatch(file).group(1) == name)]


def _link(prefix, network_prefix):
  """Links the network's name to a checkpoint; returns the prefix to use."""
  if prefix == network_prefix:
    return prefix
  links = {network_prefix + path[len(prefix):]: os.path.basename(path)
           for path in _files_of(prefix)}
  # Two checkpoints of one network may be downloaded at once.
  with locks.hold(_lock_path(network_prefix)):
    former = _files_of(network_prefix)
    if not all(map(os.path.islink, former)):
      return prefix
    if {path: os.readlink(path) for path in former} == links:
      return network_prefix
    try:
      for path in former:
        os.remove(path)
      for path, target in links.items():
        os.symlink(target, path)
    except OSError as error:
      raise InputError('cannot write %s: %s' % (network_prefix, error.strerror))
  return network_prefix
