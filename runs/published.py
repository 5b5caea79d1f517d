"""The checkpoints that TF-Slim published, and getting one of them.

All were trained on ImageNet (ILSVRC 2012). Names, addresses and files are those
of the table "Pre-trained Models" in slim's README and of the tables of its
MobileNet pages, of 2018.
"""

import os
import re
from collections import namedtuple

from downloads import archives, locks, marks
from downloads.fetch import fetch
from errors import InputError, unknown_name
from runs import checkpoints

_STORAGE = 'https://storage.googleapis.com/'
# The files of http://download.tensorflow.org, which are the same.
_MODELS = _STORAGE + 'download.tensorflow.org/models/'

Published = namedtuple('Published', 'network url checkpoint')
Published.__doc__ = """A published checkpoint.

network: name of its network, as slim's and our nets_factory have it.
url: address of the archive.
checkpoint: name of the checkpoint in the archive. It is a single file of that
  name (TensorFlow's V1 format) in the archives of 2016 and of resnet_v2, and
  <name>.index and <name>.data-... (V2) in the others; what the archive holds
  decides.
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


# (depth multiplier in the file name, suffix of the network), input sizes.
_V1_MULTIPLIERS = (('1.0', ''), ('0.75', '_075'), ('0.5', '_050'),
                   ('0.25', '_025'))
_V1_SIZES = (224, 192, 160, 128)
_V2_MULTIPLIERS = (('1.0', ''), ('0.75', '_075'), ('0.5', '_050'),
                   ('0.35', '_035'))
_V2_SIZES = (224, 192, 160, 128, 96)

# The first row of a network is the one that its own name means.
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

# {network: name of the checkpoint that it means, its first one}
OF_NETWORK = {row.network: name
              for name, row in reversed(list(PUBLISHED.items()))}

# Files of a V2 checkpoint; a graph (.meta) is not needed to read it.
_V2_FILE = re.compile(r'(.+)(\.index|\.data-\d{5}-of-\d{5})')


def known_names():
  """Returns every accepted name: of the checkpoints and of their networks."""
  return sorted(set(PUBLISHED) | set(OF_NETWORK))


def find(name):
  """Returns (name of the checkpoint, its row) of what a user asks for.

  Args:
    name: of a checkpoint, or of a network.

  Raises:
    InputError: there is none of that name.
  """
  name = OF_NETWORK.get(name, name)
  if name not in PUBLISHED:
    raise unknown_name('published checkpoint', name, known_names())
  return name, PUBLISHED[name]


def download(name, folder):
  """Puts a published checkpoint into a folder, unless it is there complete.

  The files are called `<folder>/<name>.ckpt` (V1), or that with .index and
  .data-... (V2), whatever they are called in the archive. Where the network has
  another name, links make it `<folder>/<network>.ckpt` too: the last one that
  was asked for.

  Nobody publishes checksums of the archives: that of the first download stays
  as `<archive>.sha256`, and later ones must have it.

  Args:
    name: of a checkpoint, or of a network.
    folder: where it goes; made where missing. An archive that a user has put
      there is used, and kept.

  Returns:
    Path of the checkpoint, as `<folder>/<network>.ckpt`; where that is a file
    of the user's own, as `<folder>/<name>.ckpt`.

  Raises:
    InputError: no such checkpoint; TensorFlow reads the path as a pattern;
      another process is getting it; it cannot be downloaded, or the archive is
      damaged or holds none; the files cannot be written.
  """
  name, row = find(name)
  prefix = os.path.join(folder, name + '.ckpt')
  checkpoints.check_path(prefix)
  archive = os.path.join(folder, row.url.rpartition('/')[2])
  if not checkpoints.is_complete(prefix):
    with locks.hold(_lock_path(prefix),
                    'another process is getting the checkpoint %s: wait until '
                    'it has ended' % prefix):
      if not checkpoints.is_complete(prefix):  # It has not just ended.
        fetch([row.url], archive, check=archives.check_tar)
        _unpack(archive, row.checkpoint, prefix)
  marks.remove_downloaded(archive)
  return _link(prefix, os.path.join(folder, row.network + '.ckpt'))


def _lock_path(prefix):
  folder, name = os.path.split(prefix)
  return os.path.join(folder, '.%s.lock' % name)


def _unpack(archive, wanted, prefix):
  """Moves the checkpoint of an archive to its place, when it is complete."""
  inside = _choose(archive, wanted)
  folder, name = os.path.split(prefix)

  def place(member):
    match = _V2_FILE.fullmatch(member)
    base, suffix = match.groups() if match else (member, '')
    return name + suffix if base == inside else None

  with archives.unpacking_folder(
      os.path.join(folder, '.%s.unpacking' % name)) as aside:
    files = archives.unpack(archive, aside, place)
    if not checkpoints.is_complete(os.path.join(aside, name)):
      raise InputError('the checkpoint %s in %s lacks files or is damaged' %
                       (inside, archive))
    try:
      _publish(files, aside, prefix)
    except OSError as error:
      raise InputError('cannot write %s: %s' % (prefix, error.strerror))


def _publish(files, aside, prefix):
  """Moves a checkpoint's files to where an incomplete one may lie.

  That one goes first, and its index before its data: at no moment an index has
  the data of another.

  Args:
    files: their names.
    aside: folder that they are in.
    prefix: path of the incomplete checkpoint.
  """
  for path in sorted(_files_of(prefix), key=_is_index, reverse=True):
    os.remove(path)
  for file in sorted(files, key=_is_index):
    os.replace(os.path.join(aside, file),
               os.path.join(os.path.dirname(prefix), file))


def _is_index(path):
  return path.endswith('.index')


def _choose(archive, wanted):
  """Returns the name of the checkpoint in an archive, without .index.

  Raises:
    InputError: it holds none, or several of other names.
  """
  names = archives.check_tar(archive)
  found = {match.group(1) for match in map(_V2_FILE.fullmatch, names) if match}
  found |= {name for name in names if name.endswith('.ckpt')}
  called_so = [name for name in found if os.path.basename(name) == wanted]
  if len(called_so or found) != 1:
    raise InputError('%s holds no checkpoint %s; it holds %s' %
                     (archive, wanted, checkpoints.name_some(sorted(names)) or
                      'nothing'))
  return (called_so or list(found))[0]


def _files_of(prefix):
  """Returns the paths of a checkpoint's files that exist, links included."""
  folder, name = os.path.split(prefix)
  return [os.path.join(folder, file) for file in sorted(os.listdir(folder))
          if file == name or (_V2_FILE.fullmatch(file) and
                              _V2_FILE.fullmatch(file).group(1) == name)]


def _link(prefix, network_prefix):
  """Gives a checkpoint its network's name too; returns the prefix to use."""
  if prefix == network_prefix:
    return prefix
  links = {network_prefix + path[len(prefix):]: os.path.basename(path)
           for path in _files_of(prefix)}
  # Two checkpoints of one network may come at once.
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
