"""Example photos of the classes, in a file beside the frozen graph.

The export writes them (serving/exports/class_examples.py), the page shows them:
my_x_freeze.examples is a JSON object with the checkpoint of the graph and, by
class, one small JPEG in base64.
"""

import base64
import hashlib
import json
import os
from typing import Dict, Mapping, NamedTuple, Optional, Sequence

from common import files
from common.errors import InputError
from compat import tf

# Format version, stored in each file.
_FORMAT = 1

# Largest file that is read; the export writes at most 200 small photos.
_MAX_BYTES = 8 * 2 ** 20


class Example(NamedTuple):
  """The photo of one class."""

  # Digest of the photo, for its URL.
  name: str
  # Bytes of a JPEG.
  data: bytes


def path_of(graph_file: str) -> str:
  """Returns the path of the example photos of a frozen graph."""
  return os.path.splitext(graph_file)[0] + '.examples'


def to_bytes(checkpoint: Optional[str], photos: Mapping[str, bytes]) -> bytes:
  """Returns the content of a file of example photos.

  Args:
    checkpoint: of the graph; only its file name is stored.
    photos: {class: bytes of a JPEG}.
  """
  return json.dumps({
      'format': _FORMAT, 'checkpoint': os.path.basename(checkpoint or ''),
      'photos': {label: base64.b64encode(data).decode('ascii')
                 for label, data in photos.items()}},
                    ensure_ascii=False, indent=1).encode('utf-8')


def read(graph_file: str, checkpoint: Optional[str],
         labels: Sequence[str]) -> Dict[str, Example]:
  """Reads the example photos of a frozen graph.

  Args:
    graph_file: path of the graph.
    checkpoint: file name of its checkpoint.
    labels: names of its classes.

  Returns:
    {class: Example}; empty if there is no file of this checkpoint, or if it
    cannot be used, which is logged.
  """
  path = path_of(graph_file)
  try:
    if not os.path.exists(path):
      return {}
    if os.path.getsize(path) > _MAX_BYTES:
      raise ValueError('it has more than %d bytes' % _MAX_BYTES)
    with open(path, 'rb') as file:
      values = json.loads(file.read().decode('utf-8'))
    if values['format'] != _FORMAT or values['checkpoint'] != checkpoint:
      raise ValueError('it belongs to another graph')
    photos = {label: base64.b64decode(values['photos'][label], validate=True)
              for label in labels if label in values['photos']}
  except (OSError, ValueError, TypeError, KeyError, AttributeError,
          RecursionError) as error:
    tf.logging.warning('no example photos from %s: %s', path, error)
    return {}
  return {label: Example(hashlib.sha256(data).hexdigest()[:16], data)
          for label, data in photos.items() if data.startswith(b'\xff\xd8')}


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
