"""TensorBoard, started by run_tensorboard.sh and read through its HTTP API."""

import contextlib
import json
import os
import re
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

from kits.helpers import ROOT

# Long enough for a machine with other load.
TIMEOUT_SECS = 300


class Board:
  """Process of run_tensorboard.sh on a free port; a context manager.

  Args:
    output_dir: OUTPUT_DIR, whose train/ and eval/ are shown.
    *flags: flags of TensorBoard.
    **variables: further environment variables of the script.

  Attributes:
    output_dir: as given.
  """

  def __init__(self, output_dir, *flags, **variables):
    self.output_dir = output_dir
    self._lines = []
    self._process = subprocess.Popen(
        [os.path.join(ROOT, 'run_tensorboard.sh'), *flags],
        env=dict(os.environ, OUTPUT_DIR=str(output_dir), TENSORBOARD_PORT='0',
                 **variables), stderr=subprocess.PIPE, text=True)
    self._reader = threading.Thread(target=self._read, daemon=True)
    self._reader.start()

  def _read(self):
    for line in self._process.stderr:
      self._lines.append(line)

  def __enter__(self):
    try:
      wait_for(lambda: self._port or self._process.poll() is not None)
      assert self._port, self._lines
    except AssertionError:
      self.__exit__()
      raise
    return self

  def __exit__(self, *unused):
    self._process.terminate()
    self._process.wait()
    self._reader.join()
    self._process.stderr.close()

  @property
  def _port(self):
    match = re.search(r'TensorBoard \S+ at http://[^/]*:(\d+)',
                      ''.join(self._lines))
    return match and match.group(1)

  def get(self, path, host='127.0.0.1', **query):
    """Returns the body of the response to a request."""
    address = 'http://%s:%s/data/%s?%s' % (host, self._port, path,
                                           urllib.parse.urlencode(query))
    with urllib.request.urlopen(address, timeout=TIMEOUT_SECS) as response:
      return response.read()

  def answers_at(self, host):
    """Returns whether it listens on an address."""
    with contextlib.suppress(urllib.error.URLError):
      return bool(self.get('logdir', host))
    return False

  def runs(self):
    """Returns the names of the runs, sorted."""
    return sorted(json.loads(self.get('runs').decode()))

  def curve(self, run, tag):
    """Returns {step: value} of a scalar; {} if it is not loaded."""
    with contextlib.suppress(urllib.error.HTTPError):
      return {step: value for _, step, value in json.loads(self.get(
          'plugin/scalars/scalars', run=run, tag=tag).decode())}
    return {}

  def wait_for_curve(self, run, tag, steps):
    """Waits until a curve has exactly these steps; returns the curve."""
    with contextlib.suppress(AssertionError):
      wait_for(lambda: list(self.curve(run, tag)) == steps)
    curve = self.curve(run, tag)
    assert list(curve) == steps, (run, tag)
    return curve

  def wait_for_picture(self, run, name):
    """Returns the step of the first picture of a summary, and its PNG."""
    # The tag of the first picture is <name>/0 in TensorBoard 1.15, <name> in 2.
    def tags():
      loaded = json.loads(self.get('plugin/images/tags').decode()).get(run, {})
      return [tag for tag in (name, name + '/0') if tag in loaded]

    tag, = wait_for(tags)
    first = json.loads(self.get('plugin/images/images', run=run, tag=tag,
                                sample=0).decode())[0]
    query = dict(urllib.parse.parse_qsl(first['query']))
    return first['step'], self.get('plugin/images/individualImage', **query)


def wait_for(condition):
  """Waits until a condition holds; returns its value."""
  end = time.monotonic() + TIMEOUT_SECS
  while True:
    value = condition()
    if value:
      return value
    assert time.monotonic() < end, 'timed out'
    time.sleep(0.1)
