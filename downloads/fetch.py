"""Downloads files, resuming after cut connections, and checks them.

  fetch(['https://example.org/photos.tgz'], 'data/photos.tgz',
        check=archives.check_tar)

The received bytes are in photos.tgz.part, and the version and length that the
server gave in photos.tgz.part.json; the next try, at any address, requests only
the rest of that version. The part is discarded only when the beginning of
another version arrives: a full disk, a cut connection or a failing address
leave it. Proxies are read from the environment (http_proxy, https_proxy,
no_proxy), as usual.
"""

import contextlib
import http.client
import json
import os
import re
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from typing import Any, Callable, Iterable, Optional

from common import files, locks
from common.errors import InputError
from common.progress import Progress
from downloads import marks
from downloads.archives import DamagedArchive, UnsafeArchive, write_all

# Seconds between tries that received no further byte. A try that did starts
# again from the first.
WAITS = (1, 2, 4, 8, 16)

_TIMEOUT = 30        # Seconds without a byte after which a connection is cut.
_CHUNK = 64 * 1024   # Bytes.
_LONGEST_WAIT = 120  # Seconds that a server may ask for with Retry-After.

# Without compression: the rest of a compressed response cannot be requested.
_HEADERS = {'User-Agent': 'image-classification-scripts',
            'Accept-Encoding': 'identity'}

# Statuses besides 5xx after which a later try may succeed.
_TRY_LATER = (408, 425, 429)


class _Cut(Exception):
  """A try ended early; another one may continue."""

  def __init__(self, reason, wait=0):
    super().__init__(reason)
    self.wait = wait  # Least seconds to wait.


class _Refused(Exception):
  """Another try at this address would fail too."""


def fetch(urls: Iterable[str], path: str, size: Optional[int] = None,
          check: Optional[Callable[[str], Any]] = None,
          sha256: Optional[str] = None) -> bool:
  """Downloads a file unless it exists.

  Args:
    urls: addresses of the same file, tried in turn.
    path: path of the file; its folder is created if missing.
    size: known size of the file in bytes; None: as the server says.
    check: function of a path that raises archives.DamagedArchive for a wrong
      file; None: only the size is checked. An existing file is checked too, but
      may have another size and SHA-256.
    sha256: known SHA-256 of the file, 64 hexadecimal digits; None: that of its
      first download, which is recorded next to it (downloads/marks.py).

  Returns:
    Whether it was downloaded. Later, marks.is_downloaded returns the same, and
    marks.remove_downloaded removes the file.

  Raises:
    InputError: no address gave it (the message says where to put it by hand);
      or the existing file is damaged; or it cannot be written.
  """
  if os.path.lexists(path):
    _check_given(path, check)
    return False
  part = path + '.part'
  with _open_part(part) as target:
    if os.path.exists(path):  # Another process has just finished it.
      _remove(part)
      return False
    expected = sha256 or marks.recorded_sha256(path)

    def check_part(part):
      if expected:
        _check_sha256(path, part, expected, is_recorded=not sha256)
      if check:
        check(part)

    refusals = []
    for url in urls:
      try:
        _download(url, target, size, check_part)
        break
      except _Refused as error:
        refusals.append('%s: %s' % (url, error))
    else:
      _forget_if_empty(target)
      raise InputError(
          'cannot download %s (%s); get it another way, put it at %s, and run '
          'this again' % (os.path.basename(path), '; '.join(refusals),
                          os.path.abspath(path)))
    if not expected:
      marks.record_sha256(path, files.sha256_of(part))
    marks.mark(path, part)
    os.replace(part, path)
    _remove(_facts_path(target))
  return True


def _check_given(path, check):
  """Checks a file that a user has put there."""
  if not os.path.isfile(path):
    raise InputError('%s is in the way: it is not a file' % path)
  try:
    if check:
      check(path)
  except DamagedArchive as error:
    raise InputError('%s; remove the file to have it downloaded' % error)


def _check_sha256(path, part, expected, is_recorded):
  """Raises DamagedArchive if a download is not the expected file.

  Args:
    path: later path of the file.
    part: its current path.
    expected: its SHA-256.
    is_recorded: whether that was recorded at an earlier download.
  """
  digest = files.sha256_of(part)
  if digest != expected:
    raise DamagedArchive(
        'the SHA-256 of %s is %s, expected %s%s' %
        (os.path.basename(path), digest, expected,
         ' as at its first download; remove %s to accept another file' %
         marks.record_path(path) if is_recorded else ''))


@contextlib.contextmanager
def _open_part(part):
  """Opens the unfinished file, and keeps other processes away from it."""
  try:
    os.makedirs(os.path.dirname(os.path.abspath(part)), exist_ok=True)
    target = locks.open_locked(part)
  except BlockingIOError:
    raise InputError('another process is downloading to %s' % part)
  except OSError as error:
    raise InputError('cannot write %s: %s' % (part, error.strerror))
  with target:
    yield target


def _download(url, target, size, check):
  """Downloads the rest of `target`, retrying while that may help.

  Raises:
    _Refused: it did not succeed.
  """
  farthest, failures, damaged, restarted = _have(target), 0, False, False
  while True:
    try:
      _transfer(url, target, size)
      check(target.name)
      return
    except _Cut as error:
      reason, wait = str(error), error.wait
    except DamagedArchive as error:
      _restart(target)
      if damaged:
        raise _Refused(error)
      reason, wait, damaged = str(error), 0, True
    except UnsafeArchive:  # Complete, and not to be used.
      _restart(target)
      _forget_if_empty(target)
      raise
    have = _have(target)
    # One restart from the beginning is not a failure if this address continues.
    if have > farthest or have < farthest and not restarted:
      restarted = have < farthest
      farthest, failures = have, 0
    if failures == len(WAITS):
      raise _Refused(reason)
    wait = max(wait, WAITS[failures])
    failures += 1
    _say('%s: %s; trying again in %g s' % (url, reason, wait))
    time.sleep(wait)


def _transfer(url, target, size):
  """Makes one try to download the rest of the file.

  Raises:
    _Cut: it ended early.
    _Refused: the server refuses it.
  """
  facts = _facts(target)
  if _have(target) and _have(target) == facts.get('total'):
    return
  with _request(url, target, facts) as response:
    is_resumed = response.status == 206
    total = (_check_partial(response, target, facts) if is_resumed else
             _length(response))
    if size and total not in (None, size):
      raise _Refused('it offers %d bytes, but %d are expected' % (total, size))
    first = b'' if is_resumed else _begin(response, target, total)
    _save_facts(target, response, total)
    _copy(response, target, total, first)
  have = _have(target)
  if have < (total or size or 0):
    raise _Cut('connection cut after %d of %d bytes' % (have, total or size))
  if have > (total or size or have):
    _restart(target)
    raise _Cut('it sent more than the %d bytes it announced' % (total or size))


def _begin(response, target, total):
  """Reads the file's first bytes, then empties the part; returns the bytes."""
  first = _read(response, 0)
  if not first and total != 0:
    raise _Cut('connection cut after 0 bytes')
  _restart(target)
  return first


def _request(url, target, facts):
  """Requests the file, or the rest of it; returns the response."""
  # Without these facts, a rest of another version would not be noticed.
  have = _have(target) if _validator(facts) or facts.get('total') else 0
  headers = dict(_HEADERS)
  if have:
    headers['Range'] = 'bytes=%d-' % have
    if _validator(facts):
      headers['If-Range'] = _validator(facts)
  _say('%s %s' % ('Resuming' if have else 'Downloading', url))
  try:
    request = urllib.request.Request(url, headers=headers)
    # A new opener reads the current proxy settings.
    return urllib.request.build_opener().open(request, timeout=_TIMEOUT)
  except urllib.error.HTTPError as error:
    with error:
      raise _of_status(error, target)
  except (OSError, http.client.HTTPException) as error:
    raise _of_connection(error, started=have > 0)
  except ValueError as error:  # Not a valid address.
    raise _Refused(error)


def _of_status(error, target):
  """Returns the exception to raise for an HTTP status."""
  reason = 'HTTP %d %s' % (error.code, error.reason)
  if error.code == 416:  # The part is not a beginning of the server's file.
    _remove(_facts_path(target))  # So the next try requests all of it.
    return _Cut(reason)
  if error.code >= 500 or error.code in _TRY_LATER:
    after = error.headers.get('Retry-After', '')
    wait = min(int(after), _LONGEST_WAIT) if after.isdigit() else 0
    return _Cut(reason, wait)
  return _Refused(reason)


def _of_connection(error, started):
  """Returns the exception to raise for a failed connection.

  Args:
    error: exception of urllib.
    started: whether some of the file was received before.
  """
  cause = getattr(error, 'reason', error)
  reason = (getattr(cause, 'strerror', None) or str(cause) or
            type(cause).__name__)
  # Without a network the name cannot be resolved; waiting would not help.
  offline = isinstance(cause, socket.gaierror) and not started
  refused = (isinstance(cause, ssl.SSLCertVerificationError) or
             reason.startswith('Tunnel connection failed: 4') or  # By a proxy.
             isinstance(cause, str))  # A scheme that urllib does not know.
  return _Refused(reason) if offline or refused else _Cut(reason)


def _check_partial(response, target, facts):
  """Checks that a 206 continues the part; returns the total length."""
  match = re.match(r'bytes (\d+)-\d+/(\d+|\*)$',
                   response.headers.get('Content-Range', ''))
  total = None
  if match and match.group(2) != '*':
    total = int(match.group(2))
  same = (match and int(match.group(1)) == _have(target) and
          facts.get('total') in (None, total) and
          _validator(_facts_of(response, total)) == _validator(facts))
  if not same:
    _remove(_facts_path(target))  # So the next try requests all of it.
    raise _Cut('the file on the server has changed: starting again')
  return total


def _copy(response, target, total, first):
  """Appends `first` and the received bytes, until the end or a cut."""
  name = os.path.basename(target.name)[:-len('.part')]
  with Progress(name, total, in_bytes=True, done=_have(target)) as progress:
    chunk = first or _read(response, _have(target))
    while chunk:
      try:
        write_all(target, chunk)
      except InputError as error:
        raise InputError('%s; the received part is kept, run this again to '
                         'continue' % error)
      progress.add(len(chunk))
      chunk = _read(response, _have(target))


def _read(response, have):
  """Returns the next bytes, b'' at the end; raises _Cut if none arrive."""
  try:
    return response.read(_CHUNK)
  except (OSError, http.client.HTTPException) as error:
    raise _Cut('connection cut after %d bytes (%s)' %
               (have, str(error) or type(error).__name__))


def _length(response):
  length = response.headers.get('Content-Length', '')
  return int(length) if length.isdigit() else None


def _validator(facts):
  """Returns the identifier of a file's version: a strong ETag, or its date."""
  etag = facts.get('etag') or ''
  return etag if etag.startswith('"') else facts.get('modified')


def _facts_of(response, total):
  return {'etag': response.headers.get('ETag'), 'total': total,
          'modified': response.headers.get('Last-Modified')}


def _facts_path(target):
  return target.name + '.json'


def _save_facts(target, response, total):
  """Writes version and length; if the disk is full, the former facts stay."""
  files.write_output(_facts_path(target),
                     json.dumps(_facts_of(response, total)).encode('ascii'))


def _facts(target):
  """Returns the saved facts about the unfinished file, {} if there are none."""
  try:
    with open(_facts_path(target), encoding='utf-8') as stream:
      facts = json.load(stream)
  except (OSError, ValueError):
    facts = None
  return facts if isinstance(facts, dict) else {}


def _have(target):
  return os.fstat(target.fileno()).st_size


def _restart(target):
  target.truncate(0)
  _remove(_facts_path(target))


def _forget_if_empty(target):
  if not _have(target):
    _remove(target.name)
    _remove(_facts_path(target))


def _remove(path):
  if os.path.exists(path):
    os.remove(path)


def _say(text):
  print(text, file=sys.stderr, flush=True)
