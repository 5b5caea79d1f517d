"""Uploads a photo to a running server, as the page's form does.

  python -m tools.upload_photo --photo=rose.jpg --url=http://127.0.0.1:5001/

Prints the response status, and the class scores on the page.
"""

import html
import os
import re
import secrets
import sys
import urllib.error
import urllib.request
from typing import List, Tuple

from absl import flags

from common import flags as common_flags
from common.errors import InputError


def define_flags() -> None:
  """Defines the flags of this program."""
  flags.DEFINE_string('photo', None, 'Path of the photo.')
  flags.DEFINE_string('url', 'http://127.0.0.1:5001/', "Address of the page.")
  flags.DEFINE_integer('timeout_secs', 60, 'Seconds to wait for the answer.',
                       lower_bound=1)


def upload(url: str, path: str, timeout_secs: float = 60) -> Tuple[int, str]:
  """Posts a photo in the form field `file`.

  Args:
    url: URL of the page.
    path: path of the photo.
    timeout_secs: seconds to wait for the response.

  Returns:
    Status and text of the response.

  Raises:
    InputError: the photo cannot be read, or no server responds.
  """
  try:
    with open(path, 'rb') as stream:
      photo = stream.read()
  except OSError as error:
    raise InputError('--photo=%s: %s' % (path, error.strerror))
  boundary = secrets.token_hex(16)
  name = os.path.basename(path).replace('"', '%22')
  head = ('--%s\r\nContent-Disposition: form-data; name="file"; filename="%s"'
          '\r\nContent-Type: application/octet-stream\r\n\r\n' %
          (boundary, name))
  body = head.encode('utf-8') + photo + ('\r\n--%s--\r\n' % boundary).encode()
  request = urllib.request.Request(url, body, {
      'Content-Type': 'multipart/form-data; boundary=' + boundary})
  try:
    with urllib.request.urlopen(request, timeout=timeout_secs) as answer:
      return answer.status, answer.read().decode('utf-8')
  except urllib.error.HTTPError as error:
    return error.code, error.read().decode('utf-8', 'replace')
  except OSError as error:
    raise InputError('--url=%s does not respond: %s' % (url, error))


def visible_text(page: str) -> List[str]:
  """Returns the lines of text that a page shows."""
  page = re.sub(r'(?is)<(head|style|script)\b.*?</\1>', ' ', page)
  # What only scripts show.
  page = re.sub(r'(?s)<(\w+)\b[^>]*\shidden>.*?</\1>', ' ', page)
  lines = html.unescape(re.sub(r'<[^>]+>', '\n', page)).split('\n')
  return [line.strip() for line in lines if line.strip()]


def main(_: List[str]) -> int:
  values = flags.FLAGS
  common_flags.require(values, 'photo')
  status, page = upload(values.url, values.photo, values.timeout_secs)
  print('HTTP %d' % status)
  print('\n'.join(visible_text(page)))
  sys.stdout.flush()
  return 0 if status == 200 else 1


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
