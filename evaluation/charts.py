"""Charts as inline SVG.

Every public function returns the text of one <svg> element. Names and titles
are escaped; the colours suit both light and dark pages.
"""

import math
from typing import List, NamedTuple, Optional, Sequence, Tuple
from xml.sax.saxutils import escape, quoteattr

from evaluation import calibration, metrics

COLOURS = ('#3b6fb6', '#c8643c', '#4c9a5f')

_WIDTH, _HEIGHT = 640, 260
_RELIABILITY_SIDE = 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 26, 38
# Width of a curve's name in the legend, in pixels.
_NAME = 125
# Width of a letter of a text, in pixels.
_LETTER = 6.7
# More points than pixels would not be visible.
_MAX_POINTS = 600
_TICKS = 5

# A name, and the points (x, y) of its curve.
Curve = Tuple[str, Sequence[Tuple[float, float]]]


class Point(NamedTuple):
  """A point of a scatter chart."""

  name: str
  # Above 0.
  x: float
  y: float
  # Of y; drawn as a line from y - error to y + error.
  error: float
  # Index of its group.
  group: int


def line_chart(series: Sequence[Curve], title: str, x_name: str,
               y_range: Optional[Tuple[float, float]] = None,
               width: int = _WIDTH,
               mark: Optional[Tuple[float, str]] = None) -> str:
  """Draws curves over one axis.

  Args:
    series: list of (name, list of (x, y)), at most as many as COLOURS; x in
      rising order. Values that are not finite leave a gap.
    title: description for screen readers.
    x_name: name of the horizontal axis.
    y_range: (low, high) of the vertical axis; None: the range of the values.
    width: of the chart, in pixels.
    mark: (x, text) of a vertical line, None for none.

  Raises:
    ValueError: there is no finite point, or too many curves.
  """
  if len(series) > len(COLOURS):
    raise ValueError('%d curves, at most %d are possible' %
                     (len(series), len(COLOURS)))
  points = [point for _, row in series for point in row if _is_finite(point)]
  if not points:
    raise ValueError('no point to draw in %r' % title)
  x_scale = _Scale(*_spread([x for x, _ in points]), _LEFT, width - _RIGHT)
  y_scale = _Scale(*(y_range or _spread([y for _, y in points])),
                   _HEIGHT - _BOTTOM, _TOP)
  parts = [_axes(x_scale, y_scale, x_name)]
  for (_, row), colour in zip(series, COLOURS):
    for piece in _pieces(_thin(row)):
      if len(piece) == 1:
        parts.append('<circle cx="%.1f" cy="%.1f" r="2.5" fill="%s"/>' %
                     (x_scale(piece[0][0]), y_scale(piece[0][1]), colour))
      parts.append(
          '<polyline points="%s" fill="none" stroke="%s" stroke-width="1.8"/>' %
          (' '.join('%.1f,%.1f' % (x_scale(x), y_scale(y))
                    for x, y in piece), colour))
  parts.append(_legend([name for name, _ in series]))
  if mark:
    parts.append(_marked(x_scale, y_scale, *mark))
  return _svg(width, _HEIGHT, title, parts)


def scatter_chart(points: Sequence[Point], groups: Sequence[str], title: str,
                  x_name: str, y_name: str) -> str:
  """Draws named points over a logarithmic axis.

  The points of the first group are connected.

  Args:
    points: at least one.
    groups: names of the groups, at most as many as COLOURS.
    title: description of the chart.
    x_name, y_name: names of the axes.
  """
  x_scale = _LogScale(min(point.x for point in points) / 1.5,
                      max(point.x for point in points) * 1.5,
                      _LEFT, _WIDTH - _RIGHT)
  low, high = _spread([point.y + sign * point.error for point in points
                       for sign in (-1, 1)])
  margin = (high - low) / 12
  y_scale = _Scale(low - margin, high + margin, _HEIGHT - _BOTTOM, _TOP)
  places = [(x_scale(point.x), y_scale(point.y)) for point in points]
  line = sorted(place for place, point in zip(places, points)
                if point.group == 0)
  parts = [_axes(x_scale, y_scale, x_name), _legend(groups),
           _text(_WIDTH - _RIGHT, 14, 'vertical: ' + y_name, 'end'),
           '<polyline points="%s" fill="none" stroke="%s" '
           'stroke-dasharray="4 4"/>' %
           (' '.join('%.1f,%.1f' % place for place in line), COLOURS[0])]
  for (x, y), point in zip(places, points):
    parts.append(
        '<g fill="%s" stroke="%s"><line x1="%.1f" x2="%.1f" y1="%.1f" '
        'y2="%.1f"/><circle cx="%.1f" cy="%.1f" r="4"><title>%s</title>'
        '</circle></g>' %
        (*[COLOURS[point.group]] * 2, x, x, y_scale(point.y - point.error),
         y_scale(point.y + point.error), x, y,
         escape('%s: %.4g, %.4g' % (point.name, point.x, point.y))))
  return _svg(_WIDTH, _HEIGHT, title,
              parts + _names_beside(places, [point.name for point in points]))


def _names_beside(places, names):
  """Returns names beside their points, where they cover nothing if possible."""
  taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in places]
  parts: List[str] = []
  for (x, y), name in zip(places, names):
    width = _LETTER * len(name)
    boxes = [(left, top, left + width, top + 13)
             for left, top in ((x + 8, y - 7), (x - 8 - width, y - 7),
                               (x + 8, y - 20), (x + 8, y + 6),
                               (x - 8 - width, y - 20), (x - 8 - width, y + 6))
             if left > _LEFT and left + width < _WIDTH]
    free = [box for box in boxes if not any(
        box[0] < other[2] and other[0] < box[2] and
        box[1] < other[3] and other[1] < box[3] for other in taken)]
    box = (free or boxes)[0]
    taken.append(box)
    parts.append(_text(box[0], box[1] + 11, name, 'start'))
  return parts


def standalone(chart: str) -> str:
  """Returns the text of an SVG file with a chart, on white."""
  return chart.replace(
      '<svg ', '<svg xmlns="http://www.w3.org/2000/svg" '
      'style="background:#fff;font-family:sans-serif" ', 1) + '\n'


def reliability_chart(bins: Sequence[calibration.Bin], title: str) -> str:
  """Draws accuracy over score, with the diagonal of perfect calibration.

  Args:
    bins: what calibration.reliability returns; bars of fewer photos are paler.
      Each has its number of photos and the 95 % interval of its accuracy.
    title: description of the chart.
  """
  side = _RELIABILITY_SIDE
  x_scale = _Scale(0, 1, _LEFT, side + _LEFT - _RIGHT - _TOP - _BOTTOM)
  y_scale = _Scale(0, 1, side - _BOTTOM, _TOP)
  parts = [_axes(x_scale, y_scale, 'score')]
  most = max(b.photos for b in bins) or 1
  for b in bins:
    if b.score is not None and b.accuracy is not None:
      parts.append(_reliability_bar(b, x_scale, y_scale, most))
  parts.append(
      '<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="currentColor" '
      'stroke-dasharray="4 4" stroke-opacity="0.6"/>' %
      (x_scale(0), y_scale(0), x_scale(1), y_scale(1)))
  return _svg(int(x_scale(1)) + _RIGHT, side, title, parts)


def _reliability_bar(b, x_scale, y_scale, most):
  """Returns the bar of a bin, its mean score, interval and photos."""
  left, right = x_scale(b.low), x_scale(b.high) - 1
  middle = (left + right) / 2
  low, high = metrics.wilson_interval(round(b.accuracy * b.photos), b.photos)
  return ''.join([
      '<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s" '
      'fill-opacity="%.2f"><title>%s</title></rect>' %
      (left, y_scale(b.accuracy), right - left,
       y_scale(0) - y_scale(b.accuracy), COLOURS[0],
       0.25 + 0.75 * math.sqrt(b.photos / most),
       escape('scores %.2f to %.2f: %d photos, mean score %.3f, right %.3f'
              % (b.low, b.high, b.photos, b.score, b.accuracy))),
      '<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="currentColor" '
      'stroke-opacity="0.5"/>' % (middle, middle, y_scale(low), y_scale(high)),
      '<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="%s" '
      'stroke-width="2.5"/>' % (left, right, y_scale(b.score),
                                y_scale(b.score), COLOURS[1]),
      _text(middle, _TOP - 8, str(b.photos), 'middle')])


def histogram(series: Sequence[Tuple[str, Sequence[float]]], title: str,
              x_name: str, mark: Optional[float] = None,
              num_bins: int = 40, width: int = _WIDTH) -> str:
  """Draws histograms, one step curve for each list of values.

  Args:
    series: list of (name, values), at most as many as COLOURS; heights are
      shares of the values of the same name.
    title: description of the chart.
    x_name: name of the horizontal axis.
    mark: value of that axis to mark with a line, or None.
    num_bins: bins of equal width.
    width: of the chart, in pixels.

  Raises:
    ValueError: there is no finite value, or too many lists.
  """
  finite = [(name, [float(v) for v in values if math.isfinite(v)])
            for name, values in series]
  every = [v for _, values in finite for v in values]
  if not every:
    raise ValueError('no value to draw in %r' % title)
  low, high = _spread(every + ([] if mark is None else [mark]))
  step = (high - low) / num_bins
  curves = []
  for name, values in finite:
    counts = [0] * num_bins
    for value in values:
      counts[min(int((value - low) / step), num_bins - 1)] += 1
    points = [(low, 0.0)]
    for number, count in enumerate(counts):
      share = count / max(len(values), 1)
      points += [(low + number * step, share),
                 (low + (number + 1) * step, share)]
    curves.append((name, points + [(high, 0.0)]))
  if mark is not None:
    top = max(y for _, points in curves for _, y in points)
    curves.append(('threshold', [(mark, 0.0), (mark, top)]))
  return line_chart(curves, title, x_name, width=width)


class _Scale:
  """Maps values to pixels.

  Args:
    low, high: values at the two ends.
    start, end: their pixels.
  """

  def __init__(self, low, high, start, end):
    self.low, self.high = low, high
    self._start, self._end = start, end

  def __call__(self, value):
    share = (value - self.low) / (self.high - self.low)
    # Values outside a given range are drawn at its edge.
    return self._start + min(1.0, max(0.0, share)) * (self._end - self._start)

  def ticks(self):
    """Returns about _TICKS round values within the range."""
    step = _round_step((self.high - self.low) / _TICKS)
    first = math.ceil(self.low / step - 1e-9)
    last = math.floor(self.high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


class _LogScale(_Scale):
  """Maps values above 0 to pixels by their logarithms."""

  def __call__(self, value):
    share = math.log(value / self.low) / math.log(self.high / self.low)
    return self._start + share * (self._end - self._start)

  def ticks(self):
    """Returns the values 1, 2, 5, 10, 20, … within the range."""
    powers = range(math.floor(math.log10(self.low)),
                   math.ceil(math.log10(self.high)))
    return [factor * 10.0 ** power for power in powers for factor in (1, 2, 5)
            if self.low <= factor * 10.0 ** power <= self.high]


def _round_step(least):
  """Returns the least of 1, 2, 5, 10, 20, ... that is not below `least`."""
  power = 10.0 ** math.floor(math.log10(least))
  for factor in (1, 2, 5):
    if factor * power >= least * (1 - 1e-9):
      return factor * power
  return 10 * power


def _spread(values: Sequence[float]) -> Tuple[float, float]:
  """Returns the lowest and highest value, moved apart if they are equal."""
  low, high = min(values), max(values)
  if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):
    margin = max(abs(low) * 0.5, 0.5)
    return low - margin, high + margin
  return low, high


def _is_finite(point):
  return math.isfinite(point[0]) and math.isfinite(point[1])


def _thin(row):
  """Returns at most about _MAX_POINTS points of a curve, with the last one."""
  stride = -(-len(row) // _MAX_POINTS)
  kept = row[::stride] if stride > 1 else list(row)
  return kept if not row or kept[-1] == row[-1] else kept + [row[-1]]


def _pieces(row):
  """Yields the parts of a curve that have no gaps."""
  piece = []
  for point in row:
    if _is_finite(point):
      piece.append(point)
    elif piece:
      yield piece
      piece = []
  if piece:
    yield piece


def _axes(x_scale, y_scale, x_name):
  """Returns grid lines, numbers and the name of the horizontal axis."""
  left, right = x_scale(x_scale.low), x_scale(x_scale.high)
  bottom, top = y_scale(y_scale.low), y_scale(y_scale.high)
  parts = []
  for value in y_scale.ticks():
    parts.append('<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke='
                 '"currentColor" stroke-opacity="0.15"/>' %
                 (left, right, y_scale(value), y_scale(value)))
    parts.append(_text(left - 6, y_scale(value) + 4, '%.4g' % value, 'end'))
  for value in x_scale.ticks():
    parts.append('<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke='
                 '"currentColor" stroke-opacity="0.5"/>' %
                 (x_scale(value), x_scale(value), bottom, bottom + 4))
    parts.append(_text(x_scale(value), bottom + 17, '%.6g' % value, 'middle'))
  parts.append('<polyline points="%.1f,%.1f %.1f,%.1f %.1f,%.1f" fill="none" '
               'stroke="currentColor" stroke-opacity="0.5"/>' %
               (left, top, left, bottom, right, bottom))
  parts.append(_text((left + right) / 2, bottom + 33, x_name, 'middle'))
  return ''.join(parts)


def _marked(x_scale, y_scale, value, text):
  """Returns a dashed vertical line with a text on its emptier side."""
  x = x_scale(value)
  top, bottom = y_scale(y_scale.high), y_scale(y_scale.low)
  on_left = x - x_scale(x_scale.low) > x_scale(x_scale.high) - x
  return ('<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="currentColor" '
          'stroke-dasharray="5 4" stroke-opacity="0.7"/>' %
          (x, x, top, bottom) +
          _text(x - 6 if on_left else x + 6, (top + bottom) / 2, text,
                'end' if on_left else 'start'))


def _legend(names):
  """Returns the names of the curves, each in its colour."""
  return ''.join(
      '<text x="%d" y="14" font-size="12" font-weight="600" fill="%s">%s'
      '</text>' % (_LEFT + _NAME * index, colour, escape(name))
      for index, (name, colour) in enumerate(zip(names, COLOURS)))


def _text(x, y, text, anchor):
  return ('<text x="%.1f" y="%.1f" font-size="12" text-anchor="%s" '
          'fill="currentColor">%s</text>' % (x, y, anchor, escape(text)))


def _svg(width, height, title, parts):
  return ('<svg viewBox="0 0 %d %d" width="%d" height="%d" role="img" '
          'aria-label=%s>%s</svg>' %
          (width, height, width, height, quoteattr(title), ''.join(parts)))
