"""Parses HTTP requests as waitress does, with limits that waitress lacks.

It refuses requests whose end two servers may see in different places (RFC 9112,
sections 3.2 and 6), and chunked bodies that consist mostly of chunk headers,
extensions and trailers: waitress accepts these in any length and joins them
again with every packet. A body that would be refused anyway is not received:
the application answers the request without it.
"""

import collections
from typing import Any, Callable, Dict, List

from waitress.parser import HTTPRequestParser, ParsingError, get_header_lines
from waitress.utilities import BadRequest, RequestEntityTooLarge

# Maximum bytes of one chunk extension or of all trailers. The framing of a body
# may have as many bytes as its content, and this many more.
_FRAMING_BYTES = 8192

# Maximum number of decimal digits of a Content-Length. int() of Python 3.11 and
# later fails beyond 4,300 digits.
_LENGTH_DIGITS = 18


class Request(HTTPRequestParser):
  """A request that is being received."""

  body_rcv: Any = None
  _is_too_long = False  # By its Content-Length.
  _is_checked = False  # Whether the application has checked the headers.
  _is_cut_off = False

  def __init__(self, adj: Any, max_bytes: int,
               is_refused: Callable[['Request'], bool],
               on_refused: Callable[[], None]):
    """Starts with no data received.

    Args:
      adj: Adjustments of waitress.
      max_bytes: maximum size of a body.
      is_refused: function of this request, called after its headers and before
        its body: whether the application refuses it by its headers.
      on_refused: function called when the rest of the connection must not be
        parsed, because the request is refused before its end.
    """
    super().__init__(adj)
    self._max_bytes = max_bytes
    self._is_refused = is_refused
    self._on_refused = on_refused

  def received(self, data: bytes) -> int:
    """Parses the next bytes of the connection; returns how many it consumed."""
    consumed = super().received(data)
    if self._is_too_long:
      self.error = RequestEntityTooLarge('')
    if self.chunked and not self.error:
      self._check_framing()
    if self.body_rcv is not None and not self.completed:
      self._check_body()
    if not self.error and not self._is_cut_off:
      return consumed
    self._on_refused()
    return len(data)

  def refuse(self, error: Any) -> None:
    """Ends the request here and frees its body.

    Args:
      error: waitress.utilities.Error; None: the application answers it.
    """
    self.error = error
    self.completed = self._is_cut_off = True
    self.expect_continue = False
    self.headers['CONNECTION'] = 'close'
    if self.body_rcv is not None:
      self.body_rcv.buf.close()
      self.body_rcv = None

  def parse_header(self, header_plus: bytes) -> None:
    """Parses the request line and the headers.

    Raises:
      ParsingError: they are malformed or ambiguous.
    """
    fields: Dict[bytes, List[bytes]] = collections.defaultdict(list)
    for line in get_header_lines(header_plus.partition(b'\r\n')[2]):
      name, _, value = line.partition(b':')
      fields[name.lower()].append(value.strip(b' \t'))
    for length in fields[b'content-length']:
      if length.isdigit() and len(length.lstrip(b'0')) > _LENGTH_DIGITS:
        self._is_too_long = True
        raise ParsingError('Content-Length is too large')
    try:
      super().parse_header(header_plus)
    except ValueError as error:  # A URL that urllib cannot split.
      raise ParsingError(str(error))
    hosts, codings = fields[b'host'], fields[b'transfer-encoding']
    if len(hosts) > 1 or (self.version == '1.1' and not hosts):
      raise ParsingError('There must be one Host header')
    if codings and (self.version != '1.1' or
                    [coding.lower() for coding in codings] != [b'chunked']):
      raise ParsingError('Transfer-Encoding must be chunked, once')
    if codings and fields[b'content-length']:
      # The sender may have meant the other one of the two.
      self.headers['CONNECTION'] = 'close'

  def _check_framing(self):
    """Refuses a chunked body with too many framing bytes."""
    receiver = self.body_rcv
    content = len(receiver)
    framing = self.body_bytes_received - content
    if (framing > _FRAMING_BYTES + content or
        max(len(receiver.control_line), len(receiver.trailer)) >
        _FRAMING_BYTES):
      self.refuse(BadRequest('The body has too many bytes besides its content'))

  def _check_body(self):
    """Lets the application refuse a body that is too large or not needed."""
    size = max(self.content_length, len(self.body_rcv))
    is_refused = size > self._max_bytes
    if is_refused:
      self.headers['CONTENT_LENGTH'] = str(size)  # A chunked body has none yet.
    elif not self._is_checked:
      self._is_checked = True
      is_refused = self._is_refused(self)
    if is_refused:
      self.refuse(None)
