"""Reads TFRecord files as bytes: records, their lengths and their checksums.

A file is a sequence of records, each: length (8 bytes, little-endian), the
checksum of these 8 bytes (4), the data, the checksum of the data (4). Checksums
are CRC-32C (Castagnoli, RFC 3720), rotated and shifted by a constant, as
TensorFlow masks them (core/lib/hash/crc32c.h).
"""

import os
import struct
from typing import Iterator, List, NamedTuple, Optional

import google_crc32c

from common.errors import InputError
from compat import tf

_LENGTH_BYTES, HEADER_BYTES, _CHECKSUM_BYTES = 8, 12, 4

# Bytes of a record in addition to its data.
OVERHEAD_BYTES = HEADER_BYTES + _CHECKSUM_BYTES

_MASK = 0xA282EAD8

_COMPRESSED = {b'\x1f\x8b': 'gzip', b'PK': 'zip', b'BZ': 'bzip2',
               b'\x78\x9c': 'zlib'}


class Record(NamedTuple):
  """One record, or its problem."""

  # Its number in the file, from 0.
  index: int  # type: ignore[assignment]  # Hides tuple.index.
  # The byte of the file at which it starts.
  offset: int
  # None if they are damaged.
  data: Optional[bytes]
  # Description of the problem; None if there is none.
  problem: Optional[str]


def read(path: str) -> Iterator[Record]:
  """Yields every Record of a file, with both checksums checked.

  TensorFlow's own reader is used first, at the speed of the disk. From the
  first damage on, this module reads the file, which is slower and reports more.
  After a damaged length the rest of the file cannot be read.

  Args:
    path: path of a TFRecord file that is not compressed.

  Raises:
    InputError: if the file cannot be opened or read.
  """
  index, offset = 0, 0
  try:
    for data in tf.python_io.tf_record_iterator(path):
      yield Record(index, offset, data, None)
      index += 1
      offset += len(data) + OVERHEAD_BYTES
  except tf.errors.OpError:
    pass  # read_on finds the same damage, and reports more about it.
  yield from read_on(path, index, offset)


def read_on(path: str, index: int, offset: int) -> Iterator[Record]:
  """Yields every Record from a position on, without TensorFlow.

  Args:
    path: path of a TFRecord file that is not compressed.
    index: number of the record that starts at `offset`.
    offset: byte of the file.

  Raises:
    InputError: if the file cannot be opened or read.
  """
  try:
    with open(path, 'rb') as source:
      size = os.fstat(source.fileno()).st_size
      source.seek(offset)
      while offset < size:
        header = source.read(HEADER_BYTES)
        if not _is_header(header):
          problem = ('its length is damaged: the %d bytes from there on cannot '
                     'be read' % (size - offset))
          if len(header) < HEADER_BYTES:
            problem = 'the file ends inside it'
          yield Record(index, offset, None, _about_start(header, index)
                       or problem)
          return
        length, = struct.unpack_from('<Q', header)
        if offset + OVERHEAD_BYTES + length > size:
          yield Record(index, offset, None, 'the file ends inside it')
          return
        data = source.read(length)
        checksum, = struct.unpack('<I', source.read(_CHECKSUM_BYTES))
        if masked_crc32c(data) == checksum:
          yield Record(index, offset, data, None)
        else:
          yield Record(index, offset, None, 'its data are damaged: the '
                       'checksum is wrong')
        index += 1
        offset += OVERHEAD_BYTES + length
  except (OSError, struct.error) as error:
    raise InputError('cannot read %s: %s' % (path, error))


def record_offsets(path: str) -> List[int]:
  """Finds the records of a file by their lengths, without reading the data.

  Args:
    path: path of a TFRecord file that is not compressed.

  Returns:
    List of the bytes at which the records start.

  Raises:
    InputError: if the file cannot be read, is not a TFRecord file, holds a
      damaged length, or ends inside a record.
  """
  try:
    with open(path, 'rb') as source:
      size = os.fstat(source.fileno()).st_size
      offsets, headers = _walk(source, size)
  except OSError as error:
    raise InputError('cannot read %s: %s' % (path, error.strerror))
  for index, header in enumerate(headers):
    if len(header) == HEADER_BYTES and not _is_header(header):
      raise InputError('%s is damaged: %s' % (
          path, _about_start(header, index) or
          'the length of record %d (byte %d) is wrong' %
          (index, offsets[index])))
  if offsets and offsets[-1] != size:
    raise InputError(
        '%s is damaged: it ends inside record %d (byte %d), like an incomplete '
        'copy' % (path, len(offsets) - 2, offsets[-2]))
  return offsets[:-1]


def check_start(path: str) -> None:
  """Checks the length of the first record: whether this is a TFRecord file.

  Args:
    path: path of a file.

  Raises:
    InputError: if the file cannot be read, is empty, or does not start with a
      record.
  """
  try:
    with open(path, 'rb') as source:
      header = source.read(HEADER_BYTES)
  except OSError as error:
    raise InputError('cannot read %s: %s' % (path, error.strerror))
  if not _is_header(header):
    raise InputError('%s is damaged: %s' % (
        path, _about_start(header, 0) if header else 'it is empty'))


def masked_crc32c(data: bytes) -> int:
  """Returns the checksum of bytes as stored in a TFRecord."""
  value = google_crc32c.value(data)
  return ((value >> 15 | value << 17) + _MASK) & 0xFFFFFFFF


def _is_header(header):
  """Whether 12 bytes are a length and its checksum."""
  return len(header) == HEADER_BYTES and (
      masked_crc32c(header[:_LENGTH_BYTES]) ==
      struct.unpack('<I', header[_LENGTH_BYTES:])[0])


def _about_start(header, index):
  """Returns the problem of a file whose first record is wrong, else None."""
  if index:
    return None
  kind = _COMPRESSED.get(header[:2])
  if kind:
    return 'it is compressed (%s): unpack it' % kind
  return 'it does not start with a record; is it a TFRecord file?'


def _walk(source, size):
  """Reads the header of each record.

  Returns:
    offsets: where each record starts, and finally where the next would; that
      is not `size` if the file ends inside a record.
    headers: the first 12 bytes of each record, fewer at the end of the file.
  """
  offsets, headers, position = [0], [], 0
  while position < size:
    header = source.read(HEADER_BYTES)
    headers.append(header)
    if len(header) < HEADER_BYTES:
      position = size + 1
    else:
      position += OVERHEAD_BYTES + struct.unpack_from('<Q', header)[0]
    offsets.append(position)
    if position < size:
      source.seek(position)
  return offsets, headers
