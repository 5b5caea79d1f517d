"""The server's log: how often it repeats itself, lines of native code, and what
visitors send, which must not look like lines of their own."""

import contextlib
import logging
import os
import shutil
import subprocess
import sys
import threading
import time

from compat import tf


class Warner:
  """Logs warnings of one kind, at most one a minute; safe in threads."""

  def __init__(self, seconds=60):
    self._seconds = seconds
    self._lock = threading.Lock()
    self._last, self._omitted = None, 0

  def warn(self, text, *values):
    """Logs a warning, unless one was logged within the last minute.

    Args:
      text: format of the line.
      *values: what it names.
    """
    now = time.monotonic()
    with self._lock:
      if self._last is not None and now < self._last + self._seconds:
        self._omitted += 1
        return
      omitted, self._last, self._omitted = self._omitted, now, 0
    if omitted:
      text, values = text + ' (%d more times before)', (*values, omitted)
    tf.logging.warning(text, *values)


@contextlib.contextmanager
def native_lines_marked():
  """Has what native code writes to stderr begin with `native code: `.

  libjpeg in TensorFlow writes a line there for many a damaged photo. Another
  process marks the lines, so that the last ones before a crash are not lost.
  """
  python_stderr = sys.stderr
  # It may have been closed before the start.
  if python_stderr is None or not shutil.which('sed'):
    yield
    return
  python_stderr.flush()
  stderr = os.dup(2)
  marker = subprocess.Popen(['sed', '-u', 's/^/native code: /'],
                            stdin=subprocess.PIPE, stdout=stderr,
                            start_new_session=True)  # Ctrl-C is not for it.
  with marker, open(stderr, 'w', buffering=1, encoding=python_stderr.encoding,
                    errors='backslashreplace') as direct:
    os.dup2(marker.stdin.fileno(), 2)
    marker.stdin.close()
    _redirect(python_stderr, direct)
    try:
      yield
    finally:
      _redirect(direct, python_stderr)
      os.dup2(stderr, 2)  # The last writer to the marker: it ends.


@contextlib.contextmanager
def one_line_each():
  """Has the loggers of our code (TensorFlow's) and of waitress make_safe."""
  loggers = [logging.getLogger(name) for name in ('tensorflow', 'waitress')]
  for logger in loggers:
    logger.addFilter(make_safe)
  try:
    yield
  finally:
    for logger in loggers:
      logger.removeFilter(make_safe)


def make_safe(record):
  """Has a logging.LogRecord take one line; for the filters of a logger.

  Line breaks and all else that cannot be printed, as what moves a terminal's
  cursor, is written as in a string of Python. The lines of a traceback, whose
  last one may name what a visitor sent, are indented.

  Returns:
    True: it is to be logged.
  """
  record.msg, record.args = _printable(record.getMessage()), None
  if record.exc_info and not record.exc_text:
    lines = logging.Formatter().formatException(record.exc_info).splitlines()
    record.exc_text = '\n'.join('  ' + _printable(line) for line in lines)
  return True


def _printable(text):
  return ''.join(letter if letter.isprintable() else
                 letter.encode('unicode_escape').decode('ascii')
                 for letter in text)


def _redirect(old, new):
  """Has Python write to another stream in place of stderr."""
  sys.stderr = new
  for logger in logging.getLogger(), logging.getLogger('tensorflow'):
    for handler in logger.handlers:
      handler = getattr(handler, 'python_handler', handler)  # Of absl.
      if getattr(handler, 'stream', None) is old:
        handler.stream = new
