"""Metadata of a TensorFlow Lite model: its labels, and how to scale a photo.

  content = tflite_metadata.attach(content, info, description, scaling)

Apps with TensorFlow Lite's Task library read it. Its format is
metadata_schema.fbs of tflite-support 0.4.4: a FlatBuffer `M001`, which is a
buffer of the model. The label file is in a ZIP archive at the end of the model.

Offsets of a FlatBuffer point forward. So the model stays as it is, behind a new
root table that refers to its parts. TensorFlow 1.15 comes without the package
`flatbuffers`, which also has no function for this.
"""

import io
import struct
import zipfile
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from common import label_files
from serving.model import graph_info

LABELS = 'labels.txt'

# Numbers of fields of the table Model, in TensorFlow's schema.fbs.
_VERSION, _BUFFERS, _METADATA = 0, 4, 6

# ContentProperties, ColorSpaceType, ProcessUnitOptions and AssociatedFileType.
_FEATURES, _IMAGE = np.uint8(1), np.uint8(2)
_COLOR_SPACES = {3: np.int8(1), 1: np.int8(2)}
_NORMALIZATION = np.uint8(1)
_AXIS_LABELS = np.int8(2)

# Of a vector of bytes.
_ALIGNMENT = 16


class _Old(NamedTuple):
  """A table or vector of the model."""

  # Its first byte in the model.
  position: int


def attach(content: bytes, info: graph_info.GraphInfo, description: str,
           scaling: Optional[Tuple[Any, Any]]) -> bytes:
  """Returns a model with metadata.

  Args:
    content: bytes of a model without labels.
    info: GraphInfo of the graph that was converted.
    description: of its input.
    scaling: mean and deviation of its input, one value each per channel; None:
      those of the photo, for which the format has no field.
  """
  root, = struct.unpack_from('<I', content, 0)
  fields: Dict[int, Any] = {}
  for number, place in _fields(content, root):
    fields[number] = (
        np.uint32(struct.unpack_from('<I', content, place)[0])
        if number == _VERSION else _target(content, place))
  buffers = _elements(content, fields[_BUFFERS].position)
  entries = (_elements(content, fields[_METADATA].position)
             if _METADATA in fields else [])
  metadata = _Writer(b'M001').finish(_model_metadata(
      info, description, scaling))
  fields[_BUFFERS] = [*buffers, {0: metadata}]
  fields[_METADATA] = [*entries, {0: 'TFLITE_METADATA',
                                  1: np.uint32(len(buffers))}]
  stream = io.BytesIO(_Writer(content[4:8]).finish(fields, content))
  with zipfile.ZipFile(stream, 'a') as archive:
    # The date of a ZipInfo is constant, so that equal models have equal bytes.
    archive.writestr(zipfile.ZipInfo(LABELS),
                     label_files.content(info.labels, indexed=False))
  return stream.getvalue()


def _fields(content: bytes, table: int) -> List[Tuple[int, int]]:
  """Returns number and place of the fields of a table that have a value."""
  vtable = table - struct.unpack_from('<i', content, table)[0]
  size, = struct.unpack_from('<H', content, vtable)
  offsets = struct.unpack_from('<%dH' % (size // 2 - 2), content, vtable + 4)
  return [(number, table + offset) for number, offset in enumerate(offsets)
          if offset]


def _target(content: bytes, place: int) -> _Old:
  """Returns what the offset at a place of a FlatBuffer points to."""
  return _Old(place + struct.unpack_from('<I', content, place)[0])


def _elements(content: bytes, vector: int) -> List[Any]:
  """Returns the tables in a vector."""
  count, = struct.unpack_from('<I', content, vector)
  return [_target(content, vector + 4 * number)
          for number in range(1, count + 1)]


def _model_metadata(info, description, scaling):
  """Returns the table ModelMetadata, for the arguments of `attach`."""
  image = {0: 'image', 1: description,
           3: {0: _IMAGE, 1: {0: _COLOR_SPACES[info.channels]}}}
  if scaling is not None:
    mean, deviation = (_floats(values) for values in scaling)
    image[4] = [{0: _NORMALIZATION, 1: {0: mean, 1: deviation}}]
    image[5] = {0: (255 - mean) / deviation, 1: -mean / deviation}
  scores = {0: 'probability', 1: 'Probability of each class.',
            3: {0: _FEATURES, 1: {}},
            5: {0: _floats([1]), 1: _floats([0])},
            6: [{0: LABELS, 1: 'Names of the classes, one per line.',
                 2: _AXIS_LABELS}]}
  return {0: info.model_name, 1: 'Image classifier, from %s.' % info.checkpoint,
          3: [{2: [image], 3: [scores]}], 7: '1.0.0'}


def _floats(values):
  return np.asarray(values, np.float32)


class _Writer:
  """Writes a FlatBuffer, each table before the objects that it refers to."""

  def __init__(self, identifier: bytes):
    """Begins a FlatBuffer.

    Args:
      identifier: its 4 bytes.
    """
    self._data = bytearray(4) + identifier
    self._old: List[Tuple[int, int]] = []

  def finish(self, root: Dict[int, Any], old: bytes = b'') -> bytes:
    """Returns the FlatBuffer.

    Args:
      root: table, {number of the field: value}. A value is a number of NumPy,
        a str, bytes, a table, a list of these, a vector of floats or an _Old.
      old: FlatBuffer that each _Old is in; it is appended.
    """
    self._refer(0, root)
    self._pad(_ALIGNMENT)
    for place, position in self._old:
      struct.pack_into('<I', self._data, place,
                       len(self._data) + position - place)
    return bytes(self._data) + old

  def _pad(self, alignment: int, ahead: int = 0) -> None:
    """Appends zeros until what begins after `ahead` bytes is aligned."""
    self._data += bytes(-(len(self._data) + ahead) % alignment)

  def _refer(self, place: int, value: Any) -> None:
    """Writes an object, and its offset at a place."""
    if isinstance(value, _Old):
      self._old.append((place, value.position))
      return
    if isinstance(value, dict):
      start = self._table(value)
    else:
      start = (self._list if isinstance(value, list) else self._vector)(value)
    struct.pack_into('<I', self._data, place, start - place)

  def _table(self, fields: Dict[int, Any]) -> int:
    offsets, size = [0] * (max(fields, default=-1) + 1), 4
    sizes = {number: value.itemsize if isinstance(value, np.generic) else 4
             for number, value in fields.items()}
    for number in sorted(fields, key=lambda number: -sizes[number]):
      offsets[number], size = size, size + sizes[number]
    vtable = struct.pack('<%dH' % (len(offsets) + 2), 4 + 2 * len(offsets),
                         size, *offsets)
    self._pad(4, len(vtable))
    self._data += vtable
    start = len(self._data)
    self._data += struct.pack('<i', len(vtable)) + bytes(size - 4)
    for number, value in fields.items():
      place = start + offsets[number]
      if isinstance(value, np.generic):
        self._data[place:place + value.itemsize] = value.tobytes()
      else:
        self._refer(place, value)
    return start

  def _list(self, values: List[Any]) -> int:
    self._pad(4)
    start = len(self._data)
    self._data += struct.pack('<I', len(values)) + bytes(4 * len(values))
    for number, value in enumerate(values, 1):
      self._refer(start + 4 * number, value)
    return start

  def _vector(self, value: Any) -> int:
    """Writes str, bytes or floats, with their number in front."""
    end = b''
    if isinstance(value, str):
      value, end = value.encode('utf-8'), b'\0'
    self._pad(_ALIGNMENT, 4)
    start = len(self._data)
    self._data += struct.pack('<I', len(value)) + bytes(value) + end
    return start
