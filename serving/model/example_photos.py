"""Small training photos, in a file beside the frozen graph.

The export writes them (serving/exports/class_examples.py), the page and the API
show them: my_x_freeze.examples is a JSON object with the checkpoint of the
graph, one example photo of each class, and the photos of the reference bank, to
show those that are nearest to a photo; all of them JPEGs in base64.
"""

import base64
import hashlib
import json
import os
from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence

from common import files
from common.errors import InputError
from compat import tf

# Format version, stored in each file.
_FORMAT = 1

# Largest file that is read; the export writes at most 200 photos of classes and
# 5,000 smaller ones of the bank.
_MAX_BYTES = 32 * 2 ** 20


class Example(NamedTuple):
  """The photo of one class."""

  # Digest of the photo, for its URL.
  name: str
  # Bytes of a JPEG.
  data: bytes


class Photos(NamedTuple):
  """The photos in one file."""

  # {class: its Example}, perhaps not of all classes.
  classes: Dict[str, Example]
  # Bytes of a JPEG by row of the reference bank, b'' if it cannot be shown;
  # empty if there are none.
  bank: List[bytes]


def path_of(graph_file: str) -> str:
  """Returns the path of the example photos of a frozen graph."""
  return os.path.splitext(graph_file)[0] + '.examples'


def to_bytes(checkpoint: Optional[str], photos: Mapping[str, bytes],
             bank: Sequence[bytes] = ()) -> bytes:
  """Returns the content of a file of example photos.

  Args:
    checkpoint: of the graph; only its file name is stored.
    photos: {class: bytes of a JPEG}.
    bank: photos of the reference bank, as in Photos.
  """
  return json.dumps({
      'format': _FORMAT, 'checkpoint': os.path.basename(checkpoint or ''),
      'photos': {label: base64.b64encode(data).decode('ascii')
                 for label, data in photos.items()},
      'bank': [base64.b64encode(data).decode('ascii') for data in bank]},
                    ensure_ascii=False, indent=1).encode('utf-8')


def read(graph_file: str, checkpoint: Optional[str],
         labels: Sequence[str]) -> Photos:
  """Reads the training photos beside a frozen graph.

  Args:
    graph_file: path of the graph.
    checkpoint: file name of its checkpoint.
    labels: names of its classes.

  Returns:
    Photos; without any if there is no file of this checkpoint, or if it cannot
    be used, which is logged.
  """
  path = path_of(graph_file)
  try:
    if not os.path.exists(path):
      return Photos({}, [])
    if os.path.getsize(path) > _MAX_BYTES:
      raise ValueError('it has more than %d bytes' % _MAX_BYTES)
    with open(path, 'rb') as file:
      values = json.loads(file.read().decode('utf-8'))
    if values['format'] != _FORMAT or values['checkpoint'] != checkpoint:
      raise ValueError('it belongs to another graph')
    photos = {label: base64.b64decode(values['photos'][label], validate=True)
              for label in labels if label in values['photos']}
    # Files of older versions have no bank.
    bank = [base64.b64decode(data, validate=True)
            for data in values.get('bank', [])]
  except (OSError, ValueError, TypeError, KeyError, AttributeError,
          RecursionError) as error:
    tf.logging.warning('no example photos from %s: %s', path, error)
    return Photos({}, [])
  return Photos(
      {label: Example(hashlib.sha256(data).hexdigest()[:16], data)
       for label, data in photos.items() if _is_jpeg(data)},
      [data if _is_jpeg(data) else b'' for data in bank])


def _is_jpeg(data):
  return data.startswith(b'\xff\xd8')


def replace(graph_file: str, content: Optional[bytes]) -> None:
  """Writes the example photos of a frozen graph, or removes former ones.

  Args:
    graph_file: path of the graph.
    content: as `to_bytes` returns it; None: there are none.

  Raises:
    InputError: the file cannot be written or removed.
  """
  path = path_of(graph_file)
  if content is not None:
    files.write_output(path, content)
    return
  try:
    os.remove(path)
  except FileNotFoundError:
    pass
  except OSError as error:
    raise InputError('cannot remove %s: %s' % (path, error.strerror))
