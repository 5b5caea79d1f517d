"""Shares of the work on many photos, so that several machines do it.

Which share a photo is in depends on its content only: on each machine it is in
the same one, and a renamed or added photo moves no other.
"""

import hashlib
import os
import re
from typing import Iterable, List, NamedTuple, Sequence

from common import threads
from common.errors import InputError

# Bytes at the start of a file that, with its size, choose its share.
_HEAD_BYTES = 4096


class Share(NamedTuple):
  """One of several shares, as in --shard_of=2/4."""

  # From 1 to `total`.
  number: int
  total: int

  def __str__(self) -> str:
    return '%d/%d' % self

  def holds(self, path: str) -> bool:
    """Returns whether a file is in this share.

    Files that cannot be read are in one share as well, which reports them.
    """
    try:
      with open(path, 'rb') as file:
        content = b'%d ' % os.fstat(file.fileno()).st_size
        content += file.read(_HEAD_BYTES)
    except OSError:
      content = b''
    digest = hashlib.sha256(content).digest()
    return int.from_bytes(digest, 'big') % self.total == self.number - 1

  def select(self, paths: Sequence[str]) -> List[str]:
    """Returns the files that are in this share, with progress on stderr."""
    return [path for path, is_held in zip(paths, threads.map_in_threads(
        self.holds, paths, 'assigned to shares')) if is_held]


def parse(text: str) -> Share:
  """Returns the Share that --shard_of=K/N names, or raises InputError."""
  match = re.fullmatch('([0-9]{1,5})/([0-9]{1,5})', text)
  if match:
    share = Share(*map(int, match.groups()))
    if 1 <= share.number <= share.total:
      return share
  raise InputError(
      '--shard_of=%s: expected K/N, share K of N with K from 1 to N, such as '
      '2/4; to an index that starts at 0 add 1' % text)


def all_of(total: int) -> Iterable[Share]:
  """Returns all shares of a number of shares."""
  return (Share(number, total) for number in range(1, total + 1))
