"""Takes the files out of a form that a browser or curl has sent (RFC 7578).

The whole body is in memory already, so that one pass with `bytes.find` does:
nothing is written to a spool file, and no body, however its lines break or
however many parts it has, takes more time than its length explains (werkzeug's
parser before 2.3.8 searches its buffer again for each chunk: CVE-2023-46136).
"""

import re

from serving.refusals import Refused

# Letters of a boundary. RFC 2046, 5.1.1, allows 70, and not all clients keep to
# that: a few of those that werkzeug draws have 71.
_BOUNDARY = re.compile(
    r"[0-9A-Za-z'()+_,./:=? -]{0,199}[0-9A-Za-z'()+_,./:=?-]")

# Bytes of the headers of one part; browsers send some 200 and the file's name.
_HEADER_BYTES = 8192

# `; name="value"`: in a quoted value curl escapes quotes, browsers nothing, so
# that a backslash may be the last letter of a file's name.
_PARAMETER = re.compile(
    rb';[ \t]*([0-9A-Za-z*_-]{1,40})[ \t]*=[ \t]*'
    rb'(?:"((?:[^"\\]|\\.)*|[^"]*)"(?=[ \t]*(?:;|$))|([^\s";]*))[ \t]*',
    re.DOTALL)


def files(body, boundary, field, max_files, max_parts):
  """Returns the contents of a form's files, in their order.

  Args:
    body: bytes of the request.
    boundary: string, the parameter of its Content-Type.
    field: bytes, name of the field; files of others do not count.
    max_files: most files that are accepted.
    max_parts: most parts of any kind.

  Raises:
    Refused: bad_form, too_many_parts or too_many_photos.
  """
  found = []
  for number, part in enumerate(_parts(body, boundary)):
    if number >= max_parts:
      raise Refused('too_many_parts', most=max_parts)
    start, end = part
    blank = body.find(b'\r\n\r\n', start, min(end, start + _HEADER_BYTES))
    if blank < 0:
      raise Refused('bad_form')
    name, filename = _disposition(body[start:blank])
    # A browser sends the field with an empty name when nothing was chosen.
    if name == field and filename is not None and (filename or blank + 4 < end):
      if len(found) >= max_files:
        raise Refused('too_many_photos', most=max_files)
      found.append(body[blank + 4:end])
  return found


def _parts(body, boundary):
  """Gives start and end of each part: its headers and content.

  Raises:
    Refused: bad_form: no proper boundary, or the form does not end with one.
  """
  if not _BOUNDARY.fullmatch(boundary or ''):
    raise Refused('bad_form')
  mark = b'--' + boundary.encode('ascii')
  # The first one may stand at the very beginning, without a line break.
  at = 0 if body.startswith(mark) else body.find(b'\r\n' + mark)
  if at < 0:
    raise Refused('bad_form')
  start = at + len(mark) + (0 if at == 0 and body.startswith(mark) else 2)
  while not body.startswith(b'--', start):
    line_end = body.find(b'\r\n', start, start + 100)
    if line_end < 0 or body[start:line_end].strip(b' \t'):
      raise Refused('bad_form')
    # From the line's own break on: a part may be empty.
    end = body.find(b'\r\n' + mark, line_end)
    if end < 0:
      raise Refused('bad_form')
    yield line_end + 2, max(end, line_end + 2)
    start = end + 2 + len(mark)


def _disposition(head):
  """Returns name and file name of a part as bytes, None for what is not there.

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
    position, found = len(kind), {}
    while position < len(value):
      match = _PARAMETER.match(value, position)
      if not match:
        raise Refused('bad_form')
      quoted, plain = match.group(2, 3)
      found.setdefault(match.group(1).lower(),
                       plain if quoted is None else quoted)
      position = match.end()
    if b'name' not in found:
      break
    return found[b'name'], found.get(b'filename', found.get(b'filename*'))
  raise Refused('bad_form')
