"""Downloads the archive of a published checkpoint and unpacks it."""

import os
import re
from typing import Optional

from common import checkpoint_files, locks
from common.errors import InputError, name_some
from downloads import archives, marks
from downloads.fetch import fetch

# Files of a V2 checkpoint; a graph (.meta) is not needed to read it.
_V2_FILE = re.compile(r'(.+)(\.index|\.data-\d{5}-of-\d{5})')


def download(url: str, file: Optional[str], folder: str, name: str,
             network: str) -> str:
  """Downloads a published checkpoint to a folder, unless it is complete there.

  The files are named `<folder>/<name>.ckpt` (V1), or that with .index and
  .data-... (V2), whatever their names in the archive. If the network has
  another name, `<folder>/<network>.ckpt` links to the checkpoint of it that was
  requested last.

  No checksums of the archives are published: the checksum of the first download
  is kept as `<archive>.sha256`, and later downloads must match it.

  Args:
    url: address of the archive.
    file: name of the checkpoint in it; as url and name, of the network's row.
      None: it has only one.
    folder: destination; created if missing. If the archive is already there,
      put by the user, it is used and kept.
    name: of the checkpoint.
    network: name of its network.

  Returns:
    Path of the checkpoint: `<folder>/<network>.ckpt`, or `<folder>/<name>.ckpt`
    if the former is the user's own file.

  Raises:
    InputError: TensorFlow reads the path as a pattern; another process is
      downloading it; the download fails; the archive is damaged or has no
      checkpoint; the files cannot be written.
  """
  prefix = os.path.join(folder, name + '.ckpt')
  checkpoint_files.check_path(prefix)
  archive = os.path.join(folder, url.rpartition('/')[2])
  if not checkpoint_files.is_complete(prefix):
    with locks.hold(_lock_path(prefix),
                    'another process is downloading the checkpoint %s: wait '
                    'until it has ended' % prefix):
      # Another process may just have completed it.
      if not checkpoint_files.is_complete(prefix):
        fetch([url], archive, check=archives.check_tar)
        _unpack(archive, file, prefix)
  marks.remove_downloaded(archive)
  return _link(prefix, os.path.join(folder, network + '.ckpt'))


def _lock_path(prefix):
  folder, name = os.path.split(prefix)
  return os.path.join(folder, '.%s.lock' % name)


def _unpack(archive, wanted, prefix):
  """Unpacks the checkpoint of an archive, if it is complete."""
  inside = _choose(archive, wanted)
  folder, name = os.path.split(prefix)

  def place(member: str) -> Optional[str]:
    match = _V2_FILE.fullmatch(member)
    base, suffix = match.groups() if match else (member, '')
    return name + suffix if base == inside else None

  with archives.unpacking_folder(
      os.path.join(folder, '.%s.unpacking' % name)) as unpacked_dir:
    files = archives.unpack(archive, unpacked_dir, place)
    if not checkpoint_files.is_complete(os.path.join(unpacked_dir, name)):
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
    raise InputError('%s has no checkpoint %s; it has %s' % (
        archive, wanted or 'or several', name_some(sorted(names)) or 'nothing'))
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
