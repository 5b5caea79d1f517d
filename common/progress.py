"""Progress on stderr: a bar on a terminal, else a line now and then."""

import contextlib
import logging
import os
import sys
import time
from typing import Any, Optional, TextIO

import tqdm

# Seconds between lines of progress if there is no terminal; in long work, a
# tenth of the time that it has taken.
_LINE_SECONDS = 10

# Environment variable: number of a file descriptor that shows progress in place
# of stderr. ./quickstart.sh sets it, because its stderr is a log file.
_DESCRIPTOR = 'PROGRESS_FD'

_BAR = ('{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}, '
        '{rate_noinv_fmt}, {remaining} left')


class Progress:
  """Shows how many photos or bytes are done, and the speed; for a `with`.

  `add` may be called from several threads.
  """

  def __init__(self, title: str, total: Optional[int], in_bytes: bool = False,
               done: int = 0, last_line: bool = False,
               is_logged: bool = False) -> None:
    """Starts the progress display.

    Args:
      title: what is done to the photos, such as 'checked'; or the name of the
        file that is downloaded.
      total: number of photos or bytes; None if it is unknown.
      in_bytes: whether bytes are counted, not photos.
      done: how many were done before. The speed does not include them.
      last_line: whether a line is printed at the end too, if there is no bar.
        For bytes it always is.
      is_logged: whether the caller logs its progress to stderr, which then gets
        no other lines.
    """
    self._title, self._total, self._in_bytes = title, total, in_bytes
    self._last_line = last_line or in_bytes
    self._done = self._done_before = done
    self._start = self._last = time.time()
    self._bar: Optional[tqdm.tqdm] = None
    self._stack = contextlib.ExitStack()
    screen = _screen()
    self._stream: Optional[TextIO] = screen or sys.stderr
    if self._stream.isatty():
      if screen is None:  # Log lines are written above the bar.
        # Imported here because it warns in notebooks, which have no terminal.
        from tqdm.contrib.logging import logging_redirect_tqdm
        self._stack.enter_context(logging_redirect_tqdm(
            [logging.getLogger('tensorflow')]))
      unit = ({'unit': 'B', 'unit_scale': True} if in_bytes else
              {'unit': ' photos'})
      self._bar = tqdm.tqdm(desc=title, initial=done, total=total,
                            file=self._stream, leave=screen is None,
                            dynamic_ncols=True,
                            bar_format=_BAR if total else None, **unit)
    elif is_logged and screen is None:
      self._stream = None

  def __enter__(self) -> 'Progress':
    return self

  def __exit__(self, *_: Any) -> None:
    self.close()

  def close(self) -> None:
    """Ends the display."""
    if self._bar is not None:
      self._bar.close()
    elif self._last_line:
      self._print_line()
    self._stack.close()

  def add(self, count: int = 1, total: Optional[int] = None) -> None:
    """Counts further photos or bytes.

    Args:
      count: how many.
      total: the total number if it has changed.
    """
    self._total = total or self._total
    if self._bar is not None:
      self._bar.total = self._total
      self._bar.update(count)
      return
    self._done += count
    now = time.time()
    if self._stream and (
        now - self._last >= max(_LINE_SECONDS, (now - self._start) / 10)):
      self._last = now
      self._print_line()

  def _print_line(self):
    done, total = self._done, self._total
    speed = (done - self._done_before) / max(time.time() - self._start, 1e-3)
    if not self._in_bytes:
      line = '%s: %d%s photos, %.1f photos/s' % (
          self._title, done, ' of %d' % total if total else '', speed)
    elif not total:
      line = '%s: %.1f MB, %.1f MB/s' % (self._title, done / 1e6, speed / 1e6)
    else:
      line = '%s: %d %% of %.1f MB, %.1f MB/s' % (
          self._title, 100 * done // total, total / 1e6, speed / 1e6)
    if total and done < total and speed:
      line += ', %s left' % tqdm.tqdm.format_interval((total - done) / speed)
    # The reader of what ./quickstart.sh printed may have ended.
    with contextlib.suppress(OSError):
      print(line, file=self._stream, flush=True)


def _screen() -> Optional[TextIO]:
  """Returns the stream of _DESCRIPTOR; None: there is none."""
  try:
    return open(int(os.environ[_DESCRIPTOR]), 'w', closefd=False)
  except (KeyError, ValueError, OSError):
    return None
