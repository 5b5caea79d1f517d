"""Measured speeds of networks on a machine, in a JSON file.

benchmarks/runtimes writes it, tools.list_models reads it.
"""

import json
import os
import platform
import re
from typing import Iterable, List, NamedTuple, Optional

from common import files
from common.errors import InputError


class Rate(NamedTuple):
  """The forward pass of one network by one runtime, with one precision."""

  network: str
  # Name and version.
  runtime: str
  # float32, bfloat16 or float16.
  precision: str
  # Photos per batch.
  batch_size: int
  photos_per_second: float
  # By which the runtime raised the peak memory of its process, in units of 10^6
  # bytes; None: not measured.
  memory_mb: Optional[float] = None

  def describe(self) -> str:
    """Returns for example 'OpenVINO 2023.1.0, float32'."""
    return '%s, %s' % (self.runtime, self.precision)


class Rates(NamedTuple):
  """The content of a file."""

  # Name of the machine's processor.
  processor: str
  rates: List[Rate]


def processor() -> str:
  """Returns the name of this machine's processor."""
  text = (files.read_if_exists('/proc/cpuinfo') or b'').decode(
      'utf-8', 'replace')
  found = re.search(r'^model name\s*: (.+)$', text, re.MULTILINE)
  return found.group(1) if found else platform.machine()


def load(path: str) -> Rates:
  """Reads a file.

  Raises:
    InputError: it is missing, or not such a file.
  """
  data = files.read(path, 'file of benchmarks/runtimes')
  try:
    content = json.loads(data.decode('utf-8'))
    return Rates(content['processor'], [
        Rate(**dict(rate, photos_per_second=float(rate['photos_per_second'])))
        for rate in content['rates']])
  except (ValueError, TypeError, KeyError):
    raise InputError('%s is not a file of benchmarks/runtimes' % path)


def add(path: str, rates: Iterable[Rate]) -> None:
  """Adds rates of this machine to a file; they replace those of the same kind.

  Args:
    path: file, which need not exist.
    rates: Rates.

  Raises:
    InputError: the file has rates of another processor, is not such a file, or
      cannot be written.
  """
  this = processor()
  former = load(path) if os.path.exists(path) else Rates(this, [])
  if former.processor != this:
    raise InputError('%s has speeds of another processor (%s): give another '
                     'file' % (path, former.processor))
  by_kind = {rate[:3]: rate for rate in [*former.rates, *rates]}
  files.write_output(path, json.dumps({
      'processor': this,
      'rates': [rate._asdict() for _, rate in sorted(by_kind.items())],
  }, indent=1).encode('utf-8') + b'\n')
