"""Progress of a download: a bar on a terminal, else a line every 10 seconds."""

import sys
import time

import tqdm

_LINE_SECONDS = 10


class Progress:
  """Counts the bytes of a download and shows them on stderr."""

  def __init__(self, name, done, total):
    """Starts the progress display.

    Args:
      name: file name to show.
      done: bytes received by an earlier try.
      total: bytes of the whole file; None if the server does not say.
    """
    self._name, self._done, self._total = name, done, total
    self._begin, self._start = done, time.time()
    self._last_line = self._start
    self._bar = None
    if sys.stderr.isatty():
      self._bar = tqdm.tqdm(desc=name, initial=done, total=total, unit='B',
                            unit_scale=True, file=sys.stderr)

  def add(self, count):
    """Counts further bytes."""
    self._done += count
    if self._bar is not None:
      self._bar.update(count)
    elif time.time() - self._last_line >= _LINE_SECONDS:
      self._last_line = time.time()
      print(self.line(), file=sys.stderr, flush=True)

  def line(self):
    """Returns the state as text: 'x.tgz: 12 % of 228.8 MB, 3.1 MB/s'."""
    seconds = max(time.time() - self._start, 1e-3)
    speed = (self._done - self._begin) / seconds / 1e6
    if not self._total:
      return '%s: %.1f MB, %.1f MB/s' % (self._name, self._done / 1e6, speed)
    return '%s: %d %% of %.1f MB, %.1f MB/s' % (
        self._name, 100 * self._done // self._total, self._total / 1e6, speed)

  def close(self):
    """Closes the bar, or prints a last line if there is none."""
    if self._bar is not None:
      self._bar.close()
    else:
      print(self.line(), file=sys.stderr, flush=True)
