"""The server's log and its access log.

Their formats, the request id in each line, limits on repeated lines, lines of
native code, and escaping of text from clients, which must not look like
separate log lines.
"""

import contextlib
import contextvars
import datetime
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.parse
from typing import Any, Callable, Iterator, Mapping, Optional, TextIO

from compat import tf

# Id of the request that the current thread handles.
_request_id: contextvars.ContextVar = contextvars.ContextVar(
    'request_id', default=None)

_ID = re.compile(r'[\w.:/+=@~-]{1,100}', re.ASCII)

# https://www.w3.org/TR/trace-context/#traceparent-header; all zeros is invalid.
_TRACE = re.compile(
    '(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?')

# How sed writes lines of native code. For JSON, removes characters that would
# need escapes.
_NATIVE = {
    'text': 's/^/native code: /',
    'json': r's/["\\[:cntrl:]]/ /g; s/[^ -~]/?/g; '
            's/.*/{"level": "INFO", "logger": "native code", "message": "&"}/'}


def begin_request(get_header: Callable[[str], Optional[str]]) -> str:
  """Gives an id to the request that the current thread handles.

  Args:
    get_header: function of a header's name; returns its value or None.

  Returns:
    The value of X-Request-Id, or the trace id of traceparent, if they are well
    formed; otherwise a new one.
  """
  given = get_header('X-Request-Id') or ''
  trace = _TRACE.fullmatch(get_header('traceparent') or '')
  if not _ID.fullmatch(given):
    given = trace.group(1) if trace else os.urandom(16).hex()
  _request_id.set(given)
  return given


def end_request() -> None:
  """Removes the request id from further lines of the current thread."""
  _request_id.set(None)


class WarningLimiter:
  """Logs warnings of one kind, at most one per minute; safe in threads."""

  def __init__(self, seconds: float = 60):
    self._seconds = seconds
    self._lock = threading.Lock()
    self._last: Optional[float] = None
    self._omitted = 0

  def warn(self, text: str, *values: Any) -> None:
    """Logs a warning, unless one was logged within the last minute.

    Args:
      text: format of the line.
      *values: values for the format.
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


class AccessLog:
  """Writes a line for each request; safe to use from several threads."""

  def __init__(self, kind: str, stream: Optional[TextIO] = None):
    """Stores the format and the stream.

    Args:
      kind: 'common' for the common log format of NCSA httpd, 'json' for a JSON
        object.
      stream: text file; None: stdout.
    """
    self._format = {'common': _common_line, 'json': _json_line}[kind]
    self._stream = stream or sys.stdout
    self._lock = threading.Lock()
    self._warner = WarningLimiter()

  def write(self, address: str, environ: Mapping[str, Any], status: int,
            size: int, seconds: float) -> None:
    """Writes the line of one request, with the path but without the query.

    Args:
      address: of the client.
      environ: WSGI environment, or the known part of it.
      status: HTTP status of the response.
      size: bytes of the response body.
      seconds: duration of the request.
    """
    path = environ.get('SCRIPT_NAME', '') + environ.get('PATH_INFO', '')
    line = self._format(dict(
        remote_addr=address, method=_quoted(environ.get('REQUEST_METHOD', '')),
        path=_quoted(path), protocol=environ.get('SERVER_PROTOCOL', ''),
        status=status, bytes=size, duration_seconds=round(seconds, 6),
        request_id=_request_id.get()))
    try:
      with self._lock:
        self._stream.write(line + '\n')
        self._stream.flush()
    except (OSError, ValueError) as error:  # Full disk, broken pipe, closed.
      self._warner.warn('cannot write the access log: %s', error)


def _quoted(text):
  """Returns text of a request, escaped as in a URL, in ASCII."""
  return urllib.parse.quote(text, "/!$&'()*+,;=:@~", 'latin-1', 'replace')


def _common_line(fields):
  request = '%(method)s %(path)s %(protocol)s' % fields
  return '%s - - [%s] "%s" %d %s' % (
      fields['remote_addr'] or '-',
      time.strftime('%d/%b/%Y:%H:%M:%S +0000', time.gmtime()),
      request.strip() or '-', fields['status'], fields['bytes'] or '-')


def _json_line(fields):
  return json.dumps(dict(time=_iso_time(time.time()), **fields))


def _iso_time(seconds):
  moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
  return moment.strftime('%Y-%m-%dT%H:%M:%S.%fZ')


class _JSONFormatter(logging.Formatter):
  """One JSON object per line."""

  def format(self, record: logging.LogRecord) -> str:
    fields = dict(time=_iso_time(record.created), level=record.levelname,
                  logger=record.name, message=record.getMessage())
    if _request_id.get():
      fields['request_id'] = _request_id.get()
    if record.exc_info:
      fields['exception'] = record.exc_text or self.formatException(
          record.exc_info)
    return json.dumps(fields)


class _TextFormatter(logging.Formatter):
  """The output of another formatter, with the request id after the message."""

  def __init__(self, formatter: logging.Formatter):
    super().__init__()
    self._formatter = formatter

  def format(self, record: logging.LogRecord) -> str:
    text = self._formatter.format(record)
    if not _request_id.get():
      return text
    message, line_break, traceback = text.partition('\n')
    return '%s request_id=%s%s%s' % (message, _request_id.get(), line_break,
                                     traceback)


@contextlib.contextmanager
def native_lines_marked(log_format: str = 'text') -> Iterator[None]:
  """Marks the lines that native code writes to stderr.

  libjpeg in TensorFlow writes a line for many damaged photos. Another process
  marks the lines, so that the last ones before a crash are not lost.

  Args:
    log_format: 'text': they begin with `native code: `; 'json': they become
      objects.
  """
  python_stderr = sys.stderr
  # stderr may have been closed before the start.
  if python_stderr is None or not shutil.which('sed'):
    yield
    return
  python_stderr.flush()
  stderr = os.dup(2)
  marker = subprocess.Popen(['sed', '-u', _NATIVE[log_format]],
                            stdin=subprocess.PIPE, stdout=stderr,
                            env=dict(os.environ, LC_ALL='C'),
                            start_new_session=True)  # Ignores Ctrl-C.
  with marker, open(stderr, 'w', buffering=1, encoding=python_stderr.encoding,
                    errors='backslashreplace') as direct:
    assert marker.stdin is not None  # It is a pipe.
    os.dup2(marker.stdin.fileno(), 2)
    marker.stdin.close()
    _redirect(python_stderr, direct)
    try:
      yield
    finally:
      _redirect(direct, python_stderr)
      os.dup2(stderr, 2)  # Closes the last pipe to the marker, which ends it.


@contextlib.contextmanager
def one_line_each(log_format: str = 'text') -> Iterator[None]:
  """Writes each record of the log as one line, with the id of its request.

  Adds escape_record to the loggers of our code (TensorFlow's) and of waitress.

  Args:
    log_format: 'text' for plain lines, 'json' for JSON objects.
  """
  loggers = [logging.getLogger(name) for name in ('tensorflow', 'waitress')]
  handlers = _handlers()
  formatters = [handler.formatter for handler in handlers]
  for logger in loggers:
    logger.addFilter(escape_record)
  for handler, formatter in zip(handlers, formatters):
    handler.setFormatter(
        _JSONFormatter() if log_format == 'json' else
        _TextFormatter(formatter or logging.Formatter()))
  try:
    yield
  finally:
    for logger in loggers:
      logger.removeFilter(escape_record)
    for handler, formatter in zip(handlers, formatters):
      handler.setFormatter(formatter)


def escape_record(record: logging.LogRecord) -> bool:
  """Reduces a logging.LogRecord to one line; a filter for loggers.

  Line breaks and other unprintable characters, such as those that move a
  terminal's cursor, are escaped as in a Python string. The lines of a
  traceback, whose last one may contain text from a client, are indented.

  Returns:
    True: the record is to be logged.
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
  """Makes Python write to another stream instead of stderr."""
  sys.stderr = new
  for handler in _handlers():
    if getattr(handler, 'stream', None) is old:
      handler.stream = new


def _handlers():
  """Returns the handlers of the root logger and of TensorFlow's."""
  return [getattr(handler, 'python_handler', handler)  # Of absl.
          for name in (None, 'tensorflow')
          for handler in logging.getLogger(name).handlers]
