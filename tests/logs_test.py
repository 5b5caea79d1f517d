"""No visitor writes a line of the log."""

import logging

import pytest
import service_kit as kit

from compat import tf
from serving import logs

FORGED = 'ERROR:tensorflow:all is well'


class Lines(logging.StreamHandler):
  """Keeps the lines that are logged, as they are written."""

  def __init__(self):
    super().__init__()
    self.lines = []

  def emit(self, record):
    self.lines += self.format(record).splitlines()


@pytest.fixture
def lines():
  """The lines of TensorFlow's logger and of the application's."""
  handler = Lines()
  loggers = [logging.getLogger(name) for name in ('tensorflow', 'serving.app')]
  verbosity = tf.logging.get_verbosity()
  tf.logging.set_verbosity('DEBUG')
  for logger in loggers:
    logger.addHandler(handler)
  yield handler.lines
  for logger in loggers:
    logger.removeHandler(handler)
  tf.logging.set_verbosity(verbosity)


@pytest.mark.parametrize('letters', [
    '%0a', '%0d%0a', '%e2%80%a8', '%c2%85', '%1b%5b2K%0b', '%00'])
def test_debug_lines_cannot_be_forged_by_a_path(lines, letters):
  client = kit.make_client(kit.FakeService())
  with logs.one_line_each():
    client.get('/a%s%s' % (letters, FORGED))
  assert len(lines) == 1 and lines[0].endswith(FORGED + ' 404 NOT FOUND')
  assert lines[0].isprintable()


def test_traceback_cannot_be_forged_by_what_a_visitor_sent(lines):
  service = kit.FakeService()
  service.error = RuntimeError('bad: a\n\x1b[2K' + FORGED)
  client = kit.make_client(service)
  assert client.post('/api/classify?a=%0a' + FORGED,
                     data=kit.photo()).status_code == 500
  assert lines.pop() == 'POST /api/classify 500 INTERNAL SERVER ERROR'
  assert lines.pop(0) == 'Exception on /api/classify [POST]'
  assert lines[-1] == '  \\x1b[2K' + FORGED
  assert all(line.startswith('  ') for line in lines)


def test_lines_of_others_keep_what_they_say(lines):
  with logs.one_line_each():
    tf.logging.warning('cannot keep %r: %d %%, %s', 'a b', 5, '花é')
  tf.logging.warning('two\nlines')  # Of training.
  assert lines == ["cannot keep 'a b': 5 %, 花é", 'two', 'lines']
