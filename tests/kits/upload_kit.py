"""Invalid and hostile uploads, drawn at random.

Each kind is a function of (draw, photos), as for `draw_upload`, that returns an
Upload.
"""

import collections
import struct
import zlib

from kits import service_kit as kit

# Request without its first line: headers (list of bytes) and body. statuses:
# accepted statuses of the response; None: no response. Empty: the client
# disconnects before the response.
Upload = collections.namedtuple('Upload', 'headers body statuses')

# With some flipped bits, the photo can still be read.
_FLIPPED = (200, 400, 413, 415, 422)

_FOREIGN = (
    b'GIF89a\x01\0\x01\0', b'BM' + b'\0' * 52, b'II*\0', b'MM\0*',
    b'RIFF\0\0\0\0WEBPVP8 ', b'\0\0\0\x18ftypheic', b'<svg onload="x()"/>',
    b'<html><script>alert(1)</script>', b'%PDF-1.4\n', b'PK\x03\x04',
    b'\x7fELF', b'MZ', b'#!/bin/sh\nrm -rf /', b'\x89PNG\n\x1a\n', b'\xff\xd8',
    b'{"file": "x"}', b'\0', b' ', b'id3', b'-----BEGIN')

_NAMES = (b'../../../../etc/passwd', b'/dev/null', b'C:\\CON', b'a' * 4000,
          b'\0.jpg', b'%00%2e%2e%2f', b"'; DROP TABLE photos; --", b'${HOME}',
          b'{{7*7}}', b'\xff\xfe\xfd', b'\xe2\x80\xaegpj.exe', b'.', b'..',
          b'a.jpg\r\nX-Evil: 1', b'"', b'=?utf-8?q?x?=')

_BOUNDARIES = (b'', b'""', b'"', b' ', b'x' * 71, b'x' * 9000, b'\xe4', b'a b ',
               b'\0', b'[(*', b'other', b'-' * 70, b'a;b', b'.*',
               b"x; boundary*=utf-8''%ff", b"x; boundary*=foo''%ff")


def form(body, boundary=kit.BOUNDARY, statuses=(400, 413)):
  """Returns the Upload of a form's bytes."""
  return Upload([b'Content-Type: multipart/form-data; boundary=' + boundary],
                body, frozenset(statuses))


def photo(draw, data, statuses=(400, 413, 415, 422)):
  """Returns the Upload of one file, in a form or as the bare body."""
  if draw.random() < .5:
    name = draw.choice(_NAMES).replace(b'"', b'%22').replace(b'\r\n', b' ')
    return form(kit.part(data, filename=name) + b'--%s--\r\n' % kit.BOUNDARY,
                statuses=statuses)
  kind = draw.choice((b'image/jpeg', b'image/png', b'text/html', b'*'))
  return Upload([b'Content-Type: ' + kind], data, frozenset(statuses))


def _noise(draw, limit):
  """Returns less than `limit` random bytes."""
  return bytes(draw.getrandbits(8) for _ in range(draw.randrange(limit)))


def truncated(draw, photos):
  data = draw.choice(photos)
  # The last tenth of a photo of noise is still coded data.
  return photo(draw, data[:draw.randrange(1, len(data) * 9 // 10)])


def flipped(draw, photos):
  data = bytearray(draw.choice(photos))
  for _ in range(draw.randrange(1, 40)):
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
  return photo(draw, bytes(data), _FLIPPED)


def _chunk(name, data):
  return (struct.pack('>I', len(data)) + name + data +
          struct.pack('>I', zlib.crc32(name + data) & 0xffffffff))


def _png(width, height, *chunks):
  head = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
  return (b'\x89PNG\r\n\x1a\n' + _chunk(b'IHDR', head) + b''.join(chunks) +
          _chunk(b'IEND', b''))


def bomb(draw, photos):
  side = draw.choice((8001, 20000, 65500, 2 ** 31 - 1))
  zeros = zlib.compress(bytes(10 ** 6), 9)
  text = zlib.compress(bytes(70 * 10 ** 6), 1)
  jpeg = bytearray(kit.photo(size=(16, 16)))
  frame = jpeg.index(b'\xff\xc0')  # Start of its header.
  jpeg[frame + 5:frame + 9] = struct.pack('>HH', *[min(side, 65535)] * 2)
  scans = kit.photo(size=(16, 16), progressive=True)[:-2]
  scans += scans[scans.rindex(b'\xff\xda'):] * 10 ** 5
  return photo(draw, draw.choice((
      scans + b'\xff\xd9',
      _png(9, 9, _chunk(b'tEXt', b'a\0b') * 10 ** 5),
      _png(side, side, _chunk(b'IDAT', zeros)),
      _png(4000, 4000, _chunk(b'IDAT', zeros)),
      _png(64, 64, _chunk(b'zTXt', b'a\0\0' + text), _chunk(b'IDAT', b'')),
      _png(1, 2 ** 31 - 1, _chunk(b'IDAT', zeros)),
      _png(0, 9, _chunk(b'IDAT', zeros)),
      bytes(jpeg))))


def polyglot(draw, photos):
  head = draw.choice((b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n'))
  tail = draw.choice(_FOREIGN)
  return photo(draw, draw.choice((
      head + tail + _noise(draw, 200), tail + draw.choice(photos),
      head + b'<?php system($_GET[0]); ?>' + tail,
      head[:2] + b'\xff\xe0\0\x10JFIF' + tail)))


def wrong_type(draw, photos):
  return photo(draw, draw.choice(_FOREIGN) + _noise(draw, 2000))


def empty(draw, photos):
  return draw.choice((
      photo(draw, b''), form(b''), Upload([], b'', frozenset([400])),
      form(b'--%s--\r\n' % kit.BOUNDARY),
      form(kit.part(b'', filename=b'') + b'--%s--' % kit.BOUNDARY),
      form(kit.part(b'text', filename=None) + b'--%s--' % kit.BOUNDARY)))


def many_parts(draw, photos):
  part = kit.part(draw.choice((b'', b'x')), name=draw.choice((b'file', b'a')),
                  filename=draw.choice((b'a.jpg', b'', None)))
  return form(part * 10000 + b'--%s--\r\n' % kit.BOUNDARY)


def bad_boundary(draw, photos):
  return form(kit.form(draw.choice(photos)), draw.choice(_BOUNDARIES))


def broken_form(draw, photos):
  body = bytearray(kit.form(b'word', b'<x>'))
  for _ in range(draw.randrange(1, 8)):
    start = draw.randrange(len(body))
    body[start:start + draw.randrange(4)] = _noise(draw, 4)
  return form(bytes(body[:draw.randrange(len(body))]),
              statuses=(400, 413, 415))


def long_line(draw, photos):
  """Returns a part that is one long line, as in CVE-2023-46136."""
  start = kit.part(b'')[:-2] + draw.choice((b'\r', b'\n', b'\r\n', b''))
  return form(start + draw.choice((b'a', b'\r', b'-')) *
              draw.choice((10 ** 6, 2 ** 23)))


def too_large(draw, photos):
  return photo(draw, draw.choice(photos) +
               bytes(draw.choice((17, 33)) * 2 ** 20), (413,))


def bad_header(draw, photos):
  """Returns a request that the server refuses before the application."""
  header = draw.choice((
      b'Content-Length: -1', b'Content-Length: 1e3', b'Content-Length: +4',
      b'Content-Length: 4\r\nContent-Length: 5', b'no colon', b'a b: c',
      b'X: ' + b'y' * 300000, b'Transfer-Encoding: gzip'))
  return Upload([header], b'data', frozenset([400, 413, 431, None]))


def incomplete(draw, photos):
  """Returns less data than announced, after which the client disconnects."""
  return Upload([b'Content-Length: %d' % draw.choice((99999, 2 ** 24))],
                _noise(draw, 3000), frozenset())


# Kinds and their weights when drawn: those of many megabytes are rare.
KINDS = collections.OrderedDict((
    (truncated, 22), (flipped, 22), (polyglot, 12), (wrong_type, 12),
    (broken_form, 10), (bad_boundary, 6), (empty, 5), (bad_header, 4),
    (incomplete, 3), (bomb, 2), (many_parts, 1), (long_line, 1),
    (too_large, 1)))


def draw_upload(draw, photos):
  """Returns the name of a kind and an Upload of it.

  Args:
    draw: random.Random.
    photos: list of bytes of good photos of noise.
  """
  kind = draw.choices(list(KINDS), list(KINDS.values()))[0]
  return kind.__name__, kind(draw, photos)
