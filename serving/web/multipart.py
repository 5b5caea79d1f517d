"""Extracts the files from a form sent by a browser or curl (RFC 7578).

The whole body is already in memory, so one pass with `bytes.find` is enough: no
temporary file is written, and the time is linear in the length of the body,
however its lines break and however many parts it has (werkzeug's parser before
2.3.8 searches its buffer again for each chunk: CVE-2023-46136).
"""

import re
import urllib.parse
from typing import Iterator, NamedTuple, Optional

from serving.web.refusals import Refused

# Characters of a boundary. RFC 2046, 5.1.1, allows 70, but not all clients obey
# that: some of werkzeug's random boundaries have 71.
_BOUNDARY = re.compile(
    r"[0-9A-Za-z'()+_,./:=? -]{0,199}[0-9A-Za-z'()+_,./:=?-]")

# Bytes of the headers of one part; browsers send about 200 and the file's name.
_HEADER_BYTES = 8192

# `; name="value"`: in a quoted value curl escapes quotes, browsers escape
# nothing, so that a backslash may be the last character of a file's name.
_PARAMETER = re.compile(
    rb';[ \t]*([0-9A-Za-z*_-]{1,40})[ \t]*=[ \t]*'
    rb'(?:"((?:[^"\\]|\\.)*|[^"]*)"(?=[ \t]*(?:;|$))|([^\s";]*))[ \t]*',
    re.DOTALL)


class Part(NamedTuple):
  """One field of a form."""

  # Of the field.
  name: str
  # None: the field is not a file.
  filename: Optional[str]
  # Of the file, or the value of the field.
  content: bytes


def parts(body: bytes, boundary: Optional[str], max_parts: int
          ) -> Iterator[Part]:
  """Yields the Parts of a form, in their order.

  Omits a file field in which the browser's user has chosen no file.

  Args:
    body: bytes of the request.
    boundary: the parameter of its Content-Type; None: missing.
    max_parts: maximum number of parts.

  Raises:
    Refused: no_boundary, bad_form or too_many_parts.
  """
  for number, (start, end) in enumerate(_spans(body, boundary)):
    if number >= max_parts:
      raise Refused('too_many_parts', most=max_parts)
    blank = body.find(b'\r\n\r\n', start, min(end, start + _HEADER_BYTES))
    if blank < 0:
      raise Refused('bad_form')
    name, filename = _disposition(body[start:blank])
    # A browser sends the field with an empty name if no file was chosen.
    if filename != '' or blank + 4 < end:
      yield Part(name, filename, body[blank + 4:end])


def _spans(body, boundary):
  """Yields start and end of each part: its headers and content.

  Raises:
    Refused: no_boundary; or bad_form: the boundary is not valid, or the form
      does not end with one.
  """
  if not boundary:
    raise Refused('no_boundary')
  if not _BOUNDARY.fullmatch(boundary):
    raise Refused('bad_form')
  mark = b'--' + boundary.encode('ascii')
  # The first boundary may be at the very beginning, without a line break.
  at = 0 if body.startswith(mark) else body.find(b'\r\n' + mark)
  if at < 0:
    raise Refused('bad_form')
  start = at + len(mark) + (0 if at == 0 and body.startswith(mark) else 2)
  while not body.startswith(b'--', start):
    line_end = body.find(b'\r\n', start, start + 100)
    if line_end < 0 or body[start:line_end].strip(b' \t'):
      raise Refused('bad_form')
    # Search from the boundary's own line break: a part may be empty.
    end = body.find(b'\r\n' + mark, line_end)
    if end < 0:
      raise Refused('bad_form')
    yield line_end + 2, max(end, line_end + 2)
    start = end + 2 + len(mark)


def _disposition(head):
  """Returns name and file name of a part; None for a missing one.

  Args:
    head: bytes of the part's headers.

  Raises:
    Refused: bad_form.
  """
  for line in head.split(b'\r\n'):
    header, _, value = line.partition(b':')
    if header.strip().lower() != b'content-disposition':
      continue
    kind, _, _ = value.partition(b';')
    if kind.strip().lower() != b'form-data':
      break
    value = value.rstrip(b'; \t')
    position, parameters = len(kind), {}
    while position < len(value):
      match = _PARAMETER.match(value, position)
      if not match:
        raise Refused('bad_form')
      quoted, plain = match.group(2, 3)
      parameters.setdefault(match.group(1).lower(),
                            plain if quoted is None else quoted)
      position = match.end()
    if b'name' not in parameters:
      break
    return _text(parameters[b'name']), _filename(parameters)
  raise Refused('bad_form')


def _filename(parameters):
  """Returns the file name in a Content-Disposition, or None."""
  if b'filename' in parameters:
    # Some clients escape quotes; in Windows paths a backslash is not an escape.
    return _text(parameters[b'filename']).replace('\\"', '"')
  if b'filename*' in parameters:  # RFC 8187: utf-8'en'a%20b.jpg
    return urllib.parse.unquote(
        _text(parameters[b'filename*']).split("'", 2)[-1])
  return None


def _text(value):
  return value.decode('utf-8', 'replace')
