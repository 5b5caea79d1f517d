"""Errors of requests: a code, its HTTP status and its message.

Programs read the codes; the messages, in the visitor's language, are in
serving.web.texts under the same names.
"""

import http
import re
from typing import Any, Dict, Optional

from werkzeug.exceptions import HTTPException, MethodNotAllowed

# HTTP status by code. Every code has a message in each language.
STATUS = {
    'bad_class': 400,
    'bad_encoding': 415,
    'bad_form': 400,
    'bad_parameter': 400,
    'bad_request': 400,
    'busy': 503,
    'client_left': 499,  # As nginx logs it; there is no official status.
    'closing': 503,
    'cross_site': 403,
    'empty_file': 400,
    'inbox_full': 507,
    'no_boundary': 400,
    'no_photo': 400,
    'not_a_file': 400,
    'not_a_photo': 415,
    'not_allowed': 405,
    'not_available': 400,
    'not_found': 404,
    'our_mistake': 500,
    'request_too_large': 413,
    'timed_out': 503,  # Clients obey Retry-After with 503, few with 504.
    'too_costly': 422,
    'too_large': 413,
    'too_many_parts': 413,
    'too_many_photos': 413,
    'too_many_pixels': 422,
    'too_many_pixels_a_side': 422,
    'too_many_requests': 429,
    'too_much_memory': 422,
    'unauthorized': 401,
    'unreadable_photo': 422,
    'wrong_field': 400,
    'wrong_host': 421,
}

# Maximum length of a name from a client that is repeated in an error.
_NAME_LETTERS = 80

_OF_STATUS = {404: 'not_found', 405: 'not_allowed', 413: 'request_too_large'}

# Headers of every response. blob: and data: are the previews of photos that the
# visitor has chosen.
HEADERS = {
    'Content-Security-Policy':
        "default-src 'self'; img-src 'self' data: blob:; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'; object-src 'none'",
    'Cross-Origin-Resource-Policy': 'same-origin',
    # With no-referrer browsers send `Origin: null` with the page's own form.
    'Referrer-Policy': 'same-origin',
    'X-Content-Type-Options': 'nosniff',
    'X-Frame-Options': 'DENY',
}


class Refused(Exception):
  """A request, or one photo of it, that is not classified, and the reason.

  Attributes:
    code: key of STATUS.
    status: its HTTP status.
    values: values for the message.
    headers: dict of headers of the response.
    file: name of the photo's file, None if it is unknown or irrelevant.
  """

  def __init__(self, code: str, headers: Optional[Dict[str, str]] = None,
               **values: Any):
    super().__init__(code)
    self.code = code
    self.status = STATUS[code]
    self.values = values
    self.headers = headers or {}
    self.file: Optional[str] = None

  def copy(self) -> 'Refused':
    """Returns a copy that has not been raised."""
    refused = Refused(self.code, self.headers, **self.values)
    return refused.with_file_name(self.file)

  def with_file_name(self, name: Optional[str]) -> 'Refused':
    """Makes the message begin with a file's name; returns itself.

    Args:
      name: as the client sent it, or None; folders are omitted.
    """
    self.file = printable(re.split(r'[/\\]', name)[-1]) if name else None
    return self


def printable(name: str) -> str:
  """Returns a name from a client in a form that fits on one short line.

  All kinds of spaces become plain ones: macOS puts a narrow one into the names
  of screenshots.
  """
  name = ''.join(letter if letter.isprintable() else
                 ' ' if letter.isspace() else '\ufffd'
                 for letter in name[:_NAME_LETTERS + 1])
  return name if len(name) <= _NAME_LETTERS else name[:_NAME_LETTERS] + '…'


def retry_later(seconds: int, code: str = 'busy') -> Refused:
  """Returns a Refused with a Retry-After, in whole seconds."""
  return Refused(code, {'Retry-After': str(seconds)}, seconds=seconds)


def from_status(status: int, max_mb: int) -> Refused:
  """Returns the Refused for an HTTP status.

  Args:
    status: 400 or more.
    max_mb: maximum size of a request, for the message about a larger one.
  """
  code = _OF_STATUS.get(status)
  if code is None:
    code = 'our_mistake' if status >= 500 else 'bad_request'
  refused = Refused(code, max_mb=max_mb)
  # A rarer status is kept: 414 says more than 400.
  if code == 'bad_request' and status in http.HTTPStatus._value2member_map_:
    refused.status = status
  return refused


def from_http_error(error: HTTPException, max_mb: int) -> Refused:
  """Returns the Refused for a werkzeug HTTPException.

  Args:
    error: HTTPException of status 400 or more.
    max_mb: as for from_status.
  """
  refused = from_status(error.code or 500, max_mb)
  if isinstance(error, MethodNotAllowed) and error.valid_methods:
    refused.headers['Allow'] = ', '.join(sorted(error.valid_methods))
  return refused
