"""Counters and measurements of the server, in the text format of Prometheus.

  metrics = Metrics()
  metrics.observe('classifier_batch_size', 8)
  text = metrics.render(service.counts(), service.model_info())

Names and units follow https://prometheus.io/docs/practices/naming/; the metrics
of the process have the names that Prometheus' own libraries use.
"""

import bisect
import os
import resource
import threading
import time
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

from serving.web.refusals import Refused

CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

# Upper bounds of histograms. Seconds: the defaults of Prometheus' libraries,
# extended upwards, since a full queue takes several seconds.
_SECONDS = (.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60)
_PHOTOS = (1, 2, 4, 8, 16, 32, 64, 128)
_PIXELS = (1e4, 1e5, 3e5, 1e6, 3e6, 1e7, 2e7, 5e7, 1e8)

# Methods with a label of their own; a client may send any other word.
_METHODS = ('GET', 'HEAD', 'OPTIONS', 'POST')


class _Metric(NamedTuple):
  """One row of _METRICS."""

  # 'counter', 'gauge' or 'histogram'.
  kind: str
  # Its description.
  text: str
  # Names of its labels.
  labels: Tuple[str, ...] = ()
  # Upper bounds of a histogram, without infinity.
  bounds: Tuple[float, ...] = ()


# By name. Values of AppState.counts() are listed here as
# classifier_<name>, counters as classifier_<name>_total.
_METRICS = {
    'http_request_duration_seconds': _Metric(
        'histogram', 'From a request to its response.',
        ('method', 'route', 'status'), _SECONDS),
    'classifier_http_requests_total': _Metric(
        'counter', 'Requests by path and status.', ('path', 'status')),
    'classifier_refusals_total': _Metric(
        'counter', 'Refused requests, and refused single photos of requests.',
        ('reason', 'status')),
    'classifier_queue_duration_seconds': _Metric(
        'histogram', 'From the decoding of a photo to the start of its batch.',
        (), _SECONDS),
    'classifier_batch_size': _Metric(
        'histogram', 'Number of photos in a batch.', (), _PHOTOS),
    'classifier_decode_duration_seconds': _Metric(
        'histogram', 'Decoding one photo.', (), _SECONDS),
    'classifier_forward_duration_seconds': _Metric(
        'histogram', 'Running the network on one batch.', (), _SECONDS),
    'classifier_photo_pixels': _Metric(
        'histogram', 'Width times height of a decoded photo.', (), _PIXELS),
    'classifier_queue_length': _Metric(
        'gauge', 'Photos that are accepted but not answered.'),
    'classifier_queue_limit': _Metric(
        'gauge', 'Maximum of classifier_queue_length.'),
    'classifier_batches_total': _Metric(
        'counter', 'Batches that were classified.'),
    'classifier_photos_total': _Metric(
        'counter', 'Photos that were classified.'),
    'classifier_refused_total': _Metric(
        'counter', 'Photos refused because the queue was full.'),
    'classifier_timed_out_total': _Metric(
        'counter', 'Requests that were not answered within --request_timeout.'),
    'classifier_left_total': _Metric(
        'counter', 'Requests whose clients disconnected before the response.'),
    'classifier_swaps_total': _Metric(
        'counter', 'Times that the server switched to a new graph.'),
    'classifier_failed_swaps_total': _Metric(
        'counter', 'Times that a new graph was rejected.'),
    'classifier_unkept_total': _Metric(
        'counter', 'Photos that could not be kept.'),
    'classifier_model_info': _Metric(
        'gauge', 'The current graph.', ('sha256', 'checkpoint', 'name')),
    'process_cpu_seconds_total': _Metric(
        'counter', 'Total user and system CPU time.'),
    'process_start_time_seconds': _Metric(
        'gauge', 'Start time of the process, in seconds since 1970.'),
    'process_resident_memory_bytes': _Metric('gauge', 'Resident memory.'),
    'process_open_fds': _Metric('gauge', 'Open file descriptors.'),
    'process_max_fds': _Metric(
        'gauge', 'Maximum number of open file descriptors.'),
}


class Metrics:
  """All metrics of one server; safe to use from several threads."""

  def __init__(self) -> None:
    self._lock = threading.Lock()
    # By name and label values: for a histogram the counts of its buckets and
    # the sum, otherwise one number.
    self._values: Dict[str, Dict[tuple, Any]] = {
        name: {} for name in _METRICS}
    for name, metric in _METRICS.items():
      if metric.kind == 'histogram' and not metric.labels:
        self._values[name][()] = _empty(metric)
    self._started = _start_time()

  def observe(self, name: str, value: float, *labels: Any) -> None:
    """Adds to a counter, or an observation to a histogram.

    Args:
      name: key of _METRICS.
      value: in the metric's unit.
      *labels: values of its labels, from a bounded set, never text that a
        client sent.
    """
    metric = _METRICS[name]
    with self._lock:
      values = self._values[name]
      if metric.kind == 'histogram':
        buckets = values.setdefault(labels, _empty(metric))
        buckets[bisect.bisect_left(metric.bounds, value)] += 1
        buckets[-1] += value
      else:
        values[labels] = values.get(labels, 0) + value

  def observe_request(self, method: Optional[str], route: str, status: int,
                      seconds: float) -> None:
    """Counts a request.

    Args:
      method: as the client sent it.
      route: URL rule of the application, or another name from a bounded set.
      status: HTTP status of the response.
      seconds: duration of the request.
    """
    self.observe('http_request_duration_seconds', seconds,
                 method if method in _METHODS else 'other', route, status)
    self.observe('classifier_http_requests_total', 1, route, status)

  def observe_refusal(self, refused: Refused) -> None:
    """Counts a request, or one photo of it, that was refused."""
    self.observe('classifier_refusals_total', 1, refused.code, refused.status)

  def render(self, counts: Mapping[str, float], model_info: Mapping[str, Any]
             ) -> str:
    """Returns all metrics as text.

    Args:
      counts: dict of the values that are counted elsewhere.
      model_info: description of the current graph, as of Service.model_info.
    """
    current = _process()
    if self._started:
      current['process_start_time_seconds'] = self._started
    for name, value in counts.items():
      current['classifier_' + name] = current[
          'classifier_%s_total' % name] = value
    model = tuple(model_info.get(name) or '' for name in
                  _METRICS['classifier_model_info'].labels)
    lines = []
    with self._lock:
      for name, metric in _METRICS.items():
        values = dict(self._values[name])
        if name in current:
          values[()] = current[name]
        elif name == 'classifier_model_info':
          values[model] = 1
        lines += _lines(name, metric, values)
    return '\n'.join(lines) + '\n'


def _empty(metric):
  return [0] * (len(metric.bounds) + 2)


def _lines(name, metric, values):
  lines = []
  for labels, value in sorted(values.items()):
    pairs = list(zip(metric.labels, labels))
    if metric.kind == 'histogram':
      below = 0
      for bound, count in zip((*metric.bounds, float('inf')), value):
        below += count
        lines.append(_line(name + '_bucket', [*pairs, ('le', _number(bound))],
                           below))
      lines.append(_line(name + '_sum', pairs, value[-1]))
      lines.append(_line(name + '_count', pairs, below))
    else:
      lines.append(_line(name, pairs, value))
  return lines and ['# HELP %s %s' % (name, metric.text),
                    '# TYPE %s %s' % (name, metric.kind), *lines]


def _line(name, pairs, value):
  labels = ','.join('%s="%s"' % (label, _escaped(str(text)))
                    for label, text in pairs)
  return '%s%s %s' % (name, '{%s}' % labels if labels else '', _number(value))


def _escaped(text):
  return text.replace('\\', r'\\').replace('"', r'\"').replace('\n', r'\n')


def _number(value):
  return '+Inf' if value == float('inf') else '%.15g' % value


def _process():
  """Returns the metrics of this process by name; fewer without /proc."""
  limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
  values = {'process_cpu_seconds_total': time.process_time(),
            'process_max_fds':
                float('inf') if limit == resource.RLIM_INFINITY else limit}
  try:
    with open('/proc/self/statm') as file:
      pages = int(file.read().split()[1])
    values['process_resident_memory_bytes'] = pages * resource.getpagesize()
    # The folder is itself open while it is listed.
    values['process_open_fds'] = len(os.listdir('/proc/self/fd')) - 1
  except OSError:
    pass  # Not Linux, or no file descriptor is left for it.
  return values


def _start_time():
  """Returns the start time of the process as a Unix time; None: unknown."""
  try:
    with open('/proc/self/stat') as file:
      # The name before the parenthesis may contain spaces. Field 22 of proc(5).
      ticks = int(file.read().rpartition(')')[2].split()[19])
  except OSError:
    return None
  age = (time.clock_gettime(time.CLOCK_BOOTTIME) -
         ticks / os.sysconf('SC_CLK_TCK'))
  return time.time() - age
