"""Progress on stderr: a bar on a terminal, else a line every ten seconds."""

import sys
import time
from typing import Any, Optional

import tqdm

# Seconds between lines of progress if stderr is not a terminal.
_LINE_SECONDS = 10


class Progress:
  """Shows how many photos or bytes are done, and the speed; for a `with`.

  `add` may be called from several threads.
  """

  def __init__(self, title: str, total: Optional[int], in_bytes: bool = False,
               done: int = 0) -> None:
    """Starts the progress display.

    Args:
      title: what is done to the photos, such as 'checked'; or the name of the
        file that is downloaded.
      total: number of photos or bytes; None if the number of bytes is unknown.
      in_bytes: whether bytes are counted, not photos. Without a bar, a last
        line shows them at the end.
      done: how many were done before. The speed does not include them.
    """
    self._title, self._total, self._in_bytes = title, total, in_bytes
    self._done = self._done_before = done
    self._start = self._last = time.time()
    self._bar = None
    if sys.stderr.isatty():
      unit = ({'unit': 'B', 'unit_scale': True} if in_bytes else
              {'unit': ' photos'})
      self._bar = tqdm.tqdm(desc=title, initial=done, total=total,
                            file=sys.stderr, **unit)

  def __enter__(self) -> 'Progress':
    return self

  def __exit__(self, *_: Any) -> None:
    if self._bar is not None:
      self._bar.close()
    elif self._in_bytes:
      self._print_line()

  def add(self, count: int = 1) -> None:
    """Counts further photos or bytes."""
    if self._bar is not None:
      self._bar.update(count)
      return
    self._done += count
    if time.time() - self._last >= _LINE_SECONDS:
      self._last = time.time()
      self._print_line()

  def _print_line(self):
    speed = (self._done - self._done_before) / max(time.time() - self._start,
                                                   1e-3)
    if not self._in_bytes:
      line = '%s %d of %d photos, %.1f photos/s' % (
          self._title, self._done, self._total, speed)
    elif not self._total:
      line = '%s: %.1f MB, %.1f MB/s' % (self._title, self._done / 1e6,
                                         speed / 1e6)
    else:
      line = '%s: %d %% of %.1f MB, %.1f MB/s' % (
          self._title, 100 * self._done // self._total, self._total / 1e6,
          speed / 1e6)
    print(line, file=sys.stderr, flush=True)
