"""Reads and writes label files, of data sets and of exported graphs.

Two forms are read: `index:name` lines in any order (which the converter and the
export write, as in slim's labels.txt), and plain names, one per line. A byte
order mark, the line ends of any system, empty lines, and spaces around a name
are ignored. A name may occur twice: ImageNet has two classes called crane.
"""

import re
from typing import List, Optional, Sequence

from common import files
from common.errors import InputError

_INDEXED = re.compile(r'^\s*(\d+):(.*)$')


def read(path: str, num_classes: Optional[int] = None) -> List[str]:
  """Reads a label file.

  Args:
    path: UTF-8 file of `0:daisy` or plain lines; empty lines do not count.
    num_classes: how many outputs the network has; None accepts any number.

  Returns:
    List of names by output index.

  Raises:
    InputError: the file is missing, not UTF-8 or empty, mixes both forms,
      repeats or omits an index, or has another number of classes.
  """
  data = files.read(path, 'label file')
  try:
    text = data.decode('utf-8-sig')
  except UnicodeDecodeError as error:
    raise InputError('label file %r is not UTF-8 at byte %d' %
                     (path, error.start))
  labels = _parse(text, path)
  if num_classes is not None:
    check_count(labels, num_classes, 'label file %r' % path)
  return labels


def _parse(text, path):
  """Returns the names in `text` by output index; see `read`."""
  lines = [(number, line.strip())
           for number, line in enumerate(re.split('\r\n|\r|\n', text), start=1)
           if line.strip()]
  if not lines:
    raise InputError('label file %r is empty' % path)
  indexed = [_INDEXED.match(line) for _, line in lines]
  if not any(indexed):
    return [line for _, line in lines]
  labels = {}
  for (number, line), match in zip(lines, indexed):
    if not match:
      raise InputError('label file %r, line %d: %r has no index, but other '
                       'lines have the form 0:daisy' % (path, number, line))
    index, name = int(match.group(1)), match.group(2).strip()
    if not name:
      raise InputError('label file %r, line %d: index %d has no name' %
                       (path, number, index))
    if index in labels:
      raise InputError('label file %r, line %d: index %d occurs twice (%r, %r)'
                       % (path, number, index, labels[index], name))
    labels[index] = name
  missing = sorted(set(range(len(labels))) - set(labels))
  if missing:
    raise InputError('label file %r: index %d is missing; %d lines must have '
                     'the indices 0 to %d' %
                     (path, missing[0], len(labels), len(labels) - 1))
  return [labels[index] for index in range(len(labels))]


def content(labels: Sequence[str], indexed: bool = True) -> bytes:
  """Returns the bytes of the label file that `write` writes."""
  lines = (['%d:%s\n' % row for row in enumerate(labels)] if indexed else
           [name + '\n' for name in labels])
  return ''.join(lines).encode('utf-8')


def write(path: str, labels: Sequence[str], indexed: bool = True) -> None:
  """Writes a label file; creates its folder if missing.

  Args:
    path: file to write.
    labels: names by output index.
    indexed: whether to write `0:daisy` lines; False: plain names.

  Raises:
    InputError: a name holds a line break, or the file cannot be written.
  """
  for index, name in enumerate(labels):
    if '\n' in name or '\r' in name:
      raise InputError('label %d, %r, holds a line break' % (index, name))
  files.write_output(path, content(labels, indexed))


def check_count(labels: Sequence[str], num_classes: int, source: str) -> None:
  """Raises InputError unless `labels` has one name for each output.

  Args:
    labels: names by output index.
    num_classes: number of outputs of the network.
    source: where the labels come from, such as "label file 'a.label'".
  """
  if len(labels) != num_classes:
    raise InputError('%s has %d classes, the network has %d outputs' %
                     (source, len(labels), num_classes))
