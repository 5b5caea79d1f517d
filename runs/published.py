"""Table and download of the checkpoints that TF-Slim published.

All were trained on ImageNet (ILSVRC 2012). Names, addresses, files and
accuracies are from the table "Pre-trained Models" in slim's README and the
tables of its MobileNet pages, as of 2018.
"""

import functools
import os
import re
from typing import NamedTuple

from common import locks
from common.errors import InputError, unknown_name
from downloads import archives, marks
from downloads.fetch import fetch
from nets import nets_factory
from runs import checkpoints

_STORAGE = 'https://storage.googleapis.com/'
# The same files as on http://download.tensorflow.org.
_MODELS = _STORAGE + 'download.tensorflow.org/models/'


class Published(NamedTuple):
  """A published checkpoint."""

  # Name of its network in slim's and our nets_factory.
  network: str
  # Address of the archive.
  url: str
  # Name of the checkpoint in the archive. It is a single file of that name
  # (TensorFlow's V1 format) in the archives of 2016 and of resnet_v2, and
  # <name>.index and <name>.data-... (V2) in the others; the format is detected.
  checkpoint: str
  # Accuracies on ImageNet's validation photos, in percent, of a single central
  # crop. ResNet V2 was measured at 299 x 299, the others at the image size of
  # their name or network.
  top_1: float
  top_5: float


def _dated(name, date, top_1, top_5, network=None, checkpoint=None):
  """Returns the row of `<name>_<date>.tar.gz`."""
  return Published(network or name, '%s%s_%s.tar.gz' % (_MODELS, name, date),
                   checkpoint or name + '.ckpt', top_1, top_5)


def _mobilenets(version, address, suffix, multiplier, accuracies):
  """Returns the rows of one width of a MobileNet, by name.

  Args:
    version: 'v1' or 'v2'.
    address: of the folder of the archives.
    suffix: of the name of the network.
    multiplier: the width, as in the names of the archives.
    accuracies: {image size: (top 1, top 5)}.
  """
  rows = {}
  for size, (top_1, top_5) in accuracies.items():
    name = 'mobilenet_%s_%s_%d' % (version, multiplier, size)
    rows[name] = Published('mobilenet_%s%s' % (version, suffix),
                           '%s/%s.tgz' % (address, name), name + '.ckpt', top_1,
                           top_5)
  return rows


_mobilenet_v1 = functools.partial(_mobilenets, 'v1',
                                  _MODELS + 'mobilenet_v1_2018_02_22')
_mobilenet_v2 = functools.partial(_mobilenets, 'v2',
                                  _STORAGE + 'mobilenet_v2/checkpoints')

# The first row of a network is the one that the network's name stands for.
PUBLISHED = {
    'inception_v1': _dated('inception_v1', '2016_08_28', 69.8, 89.6),
    'inception_v2': _dated('inception_v2', '2016_08_28', 73.9, 91.8),
    'inception_v3': _dated('inception_v3', '2016_08_28', 78.0, 93.9),
    'inception_v4': _dated('inception_v4', '2016_09_09', 80.2, 95.2),
    'inception_resnet_v2': _dated(
        'inception_resnet_v2', '2016_08_30', 80.4, 95.3,
        checkpoint='inception_resnet_v2_2016_08_30.ckpt'),
    'resnet_v1_50': _dated('resnet_v1_50', '2016_08_28', 75.2, 92.2),
    'resnet_v1_101': _dated('resnet_v1_101', '2016_08_28', 76.4, 92.9),
    'resnet_v1_152': _dated('resnet_v1_152', '2016_08_28', 76.8, 93.2),
    'resnet_v2_50': _dated('resnet_v2_50', '2017_04_14', 75.6, 92.8),
    'resnet_v2_101': _dated('resnet_v2_101', '2017_04_14', 77.0, 93.7),
    'resnet_v2_152': _dated('resnet_v2_152', '2017_04_14', 77.8, 94.1),
    'vgg_16': _dated('vgg_16', '2016_08_28', 71.5, 89.8),
    'vgg_19': _dated('vgg_19', '2016_08_28', 71.1, 89.8),
    **_mobilenet_v1('', '1.0', {
        224: (70.9, 89.9), 192: (70.0, 89.2), 160: (68.0, 87.7),
        128: (65.2, 85.8)}),
    **_mobilenet_v1('_075', '0.75', {
        224: (68.4, 88.2), 192: (67.2, 87.3), 160: (65.3, 86.0),
        128: (62.1, 83.9)}),
    **_mobilenet_v1('_050', '0.5', {
        224: (63.3, 84.9), 192: (61.7, 83.6), 160: (59.1, 81.9),
        128: (56.3, 79.4)}),
    **_mobilenet_v1('_025', '0.25', {
        224: (49.8, 74.2), 192: (47.7, 72.3), 160: (45.5, 70.3),
        128: (41.5, 66.3)}),
    **_mobilenet_v2('', '1.0', {
        224: (71.9, 91.0), 192: (70.7, 90.1), 160: (68.8, 89.0),
        128: (65.3, 86.9), 96: (60.3, 83.2)}),
    **_mobilenet_v2('_075', '0.75', {
        224: (69.8, 89.6), 192: (68.7, 88.9), 160: (66.4, 87.3),
        128: (63.2, 85.3), 96: (58.8, 81.6)}),
    **_mobilenet_v2('_050', '0.5', {
        224: (65.4, 86.4), 192: (63.9, 85.4), 160: (61.0, 83.2),
        128: (57.7, 80.8), 96: (51.2, 75.8)}),
    **_mobilenet_v2('_035', '0.35', {
        224: (60.3, 82.9), 192: (58.2, 81.2), 160: (55.7, 79.1),
        128: (50.8, 75.0), 96: (45.5, 70.4)}),
    **_mobilenet_v2('_140', '1.4', {224: (74.9, 92.5)}),
    **_mobilenet_v2('_130', '1.3', {224: (74.4, 92.1)}),
    'nasnet-a_mobile': _dated(
        'nasnet-a_mobile', '04_10_2017', 74.0, 91.6,
        'nasnet_mobile', 'model.ckpt'),
    'nasnet-a_large': _dated(
        'nasnet-a_large', '04_10_2017', 82.7, 96.2,
        'nasnet_large', 'model.ckpt'),
    'pnasnet-5_large': _dated(
        'pnasnet-5_large', '2017_12_13', 82.9, 96.2,
        'pnasnet_large', 'model.ckpt'),
    'pnasnet-5_mobile': _dated(
        'pnasnet-5_mobile', '2017_12_13', 74.2, 91.9,
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


def describe(name):
  """Returns the facts about a network, ready for JSON.

  Args:
    name: of the network.

  Returns:
    A dict: the name; the network's row without its functions; the fields of
    its Cost, each None if it is not counted; `checkpoints`, a list of dicts of
    name, file, url, top_1 and top_5, starting with the one that the network's
    name stands for.

  Raises:
    InputError: no network has this name.
  """
  row = nets_factory.get_network(name)
  facts = {'name': name, 'image_size': row.image_size,
           'channels': row.channels, 'preprocessing': row.preprocessing,
           'classifier_scopes': list(row.classifier_scopes),
           'features': row.features}
  facts.update((row.cost or nets_factory.Cost(None, None, None))._asdict())
  facts['checkpoints'] = [
      {'name': checkpoint, 'file': published.url.rpartition('/')[2],
       'url': published.url, 'top_1': published.top_1,
       'top_5': published.top_5}
      for checkpoint, published in PUBLISHED.items()
      if published.network == name]
  return facts
