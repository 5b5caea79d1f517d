"""Counts of requests, in the text format that Prometheus reads.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import bisect
import collections
import threading

CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

# Upper bounds of the histogram, in seconds: InceptionV4 needs 0.15 on two
# cores, a full queue some seconds.
BUCKETS = (.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30)

# What service.counts() and app.kept_counts() tell: name, kind, what it is.
_COUNTS = (
    ('queue_length', 'gauge', 'Photos that wait.'),
    ('queue_limit', 'gauge', 'Photos that may wait.'),
    ('batches', 'counter', 'Runs of the network.'),
    ('photos', 'counter', 'Photos that were classified.'),
    ('refused', 'counter', 'Photos refused because the queue was full.'),
    ('swaps', 'counter', 'Times that a new graph was taken.'),
    ('failed_swaps', 'counter', 'Times that a new graph was not taken.'),
    ('unkept', 'counter', 'Photos that were to be kept and could not be.'),
)


class Requests:
  """Counts requests by path and status; safe to use from several threads."""

  def __init__(self):
    self._lock = threading.Lock()
    self._requests = collections.Counter()
    self._seconds = collections.Counter()
    self._buckets = {}

  def add(self, path, status, seconds):
    """Counts one request.

    Args:
      path: one of a bounded number of names, never what a visitor typed.
      status: HTTP status.
      seconds: how long it took.
    """
    with self._lock:
      self._requests[path, status] += 1
      self._seconds[path] += seconds
      buckets = self._buckets.setdefault(path, [0] * (len(BUCKETS) + 1))
      buckets[bisect.bisect_left(BUCKETS, seconds)] += 1

  def render(self, counts):
    """Returns the page of all counts.

    Args:
      counts: dict by names of _COUNTS; what is missing is not on the page.
    """
    lines = []
    for name, kind, text in _COUNTS:
      if name in counts:
        full = 'classifier_' + name + ('_total' if kind == 'counter' else '')
        lines += _head(full, kind, text)
        lines.append('%s %d' % (full, counts[name]))
    with self._lock:
      lines += self._request_lines()
    return '\n'.join(lines) + '\n'

  def _request_lines(self):
    name = 'classifier_http_requests_total'
    lines = _head(name, 'counter', 'Requests by path and status.')
    for (path, status), count in sorted(self._requests.items()):
      lines.append('%s{path="%s",status="%d"} %d' % (name, path, status, count))
    name = 'classifier_http_request_seconds'
    lines += _head(name, 'histogram', 'Seconds from request to answer.')
    for path, buckets in sorted(self._buckets.items()):
      below = 0
      for bound, count in zip(BUCKETS + (float('inf'),), buckets):
        below += count
        limit = '+Inf' if bound == float('inf') else '%g' % bound
        lines.append('%s_bucket{path="%s",le="%s"} %d' %
                     (name, path, limit, below))
      lines.append('%s_sum{path="%s"} %.6f' % (name, path, self._seconds[path]))
      lines.append('%s_count{path="%s"} %d' % (name, path, below))
    return lines


def _head(name, kind, text):
  return ['# HELP %s %s' % (name, text), '# TYPE %s %s' % (name, kind)]
