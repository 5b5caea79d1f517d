"""Reads TFRecord files as bytes: records, their lengths and their checksums.

A file is a sequence of records, each: length (8 bytes, little-endian), the
checksum of these 8 bytes (4), the data, the checksum of the data (4). Checksums
are CRC-32C (Castagnoli, RFC 3720), rotated and shifted by a constant, as
TensorFlow masks them (core/lib/hash/crc32c.h).
"""

import collections
import functools
import os
import struct

import numpy as np

from compat import tf
from errors import InputError

_LENGTH_BYTES, HEADER_BYTES, _CHECKSUM_BYTES = 8, 12, 4

# Bytes of a record in addition to its data.
OVERHEAD_BYTES = HEADER_BYTES + _CHECKSUM_BYTES

_POLYNOMIAL = 0x82F63B78  # CRC-32C, lowest bit first.

# Four bytes that change the checksum from 0 to its start value 0xFFFFFFFF.
_START = np.array([0x54, 0x64, 0x1F, 0x64], np.uint8)

_COMPRESSED = {b'\x1f\x8b': 'gzip', b'PK': 'zip', b'BZ': 'bzip2',
               b'\x78\x9c': 'zlib'}

Record = collections.namedtuple('Record', 'index offset data problem')
Record.__doc__ = """One record, or its problem.

index: its number in the file, from 0.
offset: the byte of the file at which it starts.
data: bytes; None if they are damaged.
problem: text; None if there is none.
"""


def read(path):
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


def read_on(path, index, offset):
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


def record_offsets(path):
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
  whole = [header for header in headers if len(header) == HEADER_BYTES]
  bad = np.flatnonzero(~_are_headers(whole))
  if len(bad):
    about_start = _about_start(headers[bad[0]], bad[0])
    raise InputError('%s is damaged: %s' % (path, about_start or (
        'the length of record %d (byte %d) is wrong' %
        (bad[0], offsets[bad[0]]))))
  if offsets and offsets[-1] != size:
    raise InputError(
        '%s is damaged: it ends inside record %d (byte %d), like an incomplete '
        'copy' % (path, len(offsets) - 2, offsets[-2]))
  return offsets[:-1]


def check_start(path):
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


def masked_crc32c(data):
  """Returns the checksum of bytes as stored in a TFRecord."""
  return int(_mask(crc32c(np.frombuffer(data, np.uint8)[np.newaxis]))[0])


def crc32c(rows):
  """Returns the CRC-32C of each row.

  CRCs are linear: the CRC of two adjacent parts is that of the left part,
  shifted over as many zero bytes as the right part is long, xor that of the
  right part. So it starts with the CRC of each byte, and adjacent parts are
  joined until one is left.

  Args:
    rows: [n, length] uint8.

  Returns:
    [n] uint32.
  """
  start = np.broadcast_to(_START, (len(rows), len(_START)))
  sums = _operator(0)[0][np.concatenate([start, rows], axis=1)]
  level = 0
  while sums.shape[1] > 1:
    if sums.shape[1] % 2:  # Zeros in front change nothing.
      sums = np.pad(sums, ((0, 0), (1, 0)), 'constant')
    sums = _shift(_operator(level), sums[:, 0::2]) ^ sums[:, 1::2]
    level += 1
  return sums[:, 0] ^ np.uint32(0xFFFFFFFF)


@functools.lru_cache(maxsize=None)
def _operator(level):
  """Returns tables that shift a CRC over 2 ** level zero bytes.

  They are [2, 65536] uint32: for the lower and the upper half of the CRC.
  """
  if level:
    half = _operator(level - 1)
    return _shift(half, half)
  table = np.arange(256, dtype=np.uint32)
  for _ in range(8):
    table = (table >> 1) ^ np.where(table & 1, _POLYNOMIAL, 0).astype(np.uint32)
  half = np.arange(65536, dtype=np.uint32)
  return np.stack([table[half & 255] ^ (half >> 8), half << 8])


def _shift(operator, sums):
  return operator[0].take(sums & 0xFFFF) ^ operator[1].take(sums >> 16)


def _mask(sums):
  sums = sums.astype(np.uint64)
  rotated = (sums >> np.uint64(15)) | (sums << np.uint64(17))
  return ((rotated + np.uint64(0xA282EAD8)) &
          np.uint64(0xFFFFFFFF)).astype(np.uint32)


def _are_headers(headers):
  """Returns a boolean for each 12 bytes: are they a length and its checksum?"""
  rows = np.frombuffer(b''.join(headers), np.uint8).reshape(-1, HEADER_BYTES)
  wanted = np.ascontiguousarray(rows[:, _LENGTH_BYTES:]).view('<u4')[:, 0]
  return _mask(crc32c(rows[:, :_LENGTH_BYTES])) == wanted


def _is_header(header):
  return len(header) == HEADER_BYTES and bool(_are_headers([header])[0])


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
