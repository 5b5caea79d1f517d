"""Draws the built-in sample: five kinds of flowers that differ in shape.

  python -m datasets.conversion.draw_flowers --output_dir=DIR

writes DIR/daisy/*.jpg and so on, to be converted and trained on without any
download. Colours of petals, heart, stem and background come from the same
distributions for every kind; place, size, rotation, slant, light, blur and
noise vary. So colour hardly depends on the kind, and a network must learn the
shape:

  daisy       thin petals with gaps around a small heart
  dandelion   a ball of fine rays, each with a tuft
  roses       round petals that overlap in rings, a spiral in the middle
  sunflowers  a large disc of seeds with pointed petals
  tulips      a cup seen from the side, with three points, on a stem
"""

import colorsys
import math
import os
import random
import sys
from typing import Iterable, List, Optional, Tuple

import numpy as np
from absl import app, flags
from PIL import Image, ImageDraw, ImageFilter

from common.errors import InputError
from common.paths import relative
from common.progress import Progress

FLAGS = flags.FLAGS

WIDTH, HEIGHT = 208, 176  # Pixels of a photo.
_SCALE = 2  # Drawn larger by this factor, for smooth edges.
_GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))  # Between two seeds of a head.

# (x, y) or (radius, angle).
_Point = Tuple[float, float]


class Pose:
  """Position of a flower's head; maps coordinates in the head to pixels.

  In the head's own coordinates its middle is (0, 0) and its rim has radius 1;
  before the rotation x points right and y down.
  """

  def __init__(self, x: float, y: float, radius: float, angle: float,
               slant: float = 1.0) -> None:
    """Sets the position.

    Args:
      x, y, radius: in pixels.
      angle: in radians.
      slant: height / width of the head.
    """
    self.x, self.y, self.radius = x, y, radius
    self._sin, self._cos, self._slant = math.sin(angle), math.cos(angle), slant

  def at(self, points: Iterable[_Point]) -> List[_Point]:
    """Returns the pixels of a list of (x, y)."""
    placed = []
    for x, y in points:
      y *= self._slant
      placed.append((self.x + self.radius * (x * self._cos - y * self._sin),
                     self.y + self.radius * (x * self._sin + y * self._cos)))
    return placed

  def polar(self, points: Iterable[_Point]) -> List[_Point]:
    """Returns the pixels of a list of (radius, angle)."""
    return self.at([(r * math.cos(a), r * math.sin(a)) for r, a in points])


def draw_flower(kind: str, rng: random.Random,
                middle: Optional[_Point] = None) -> Image.Image:
  """Draws one photo.

  Args:
    kind: a name in KINDS.
    rng: source of all random values.
    middle: draws the head at half its size here, as fractions of the width and
      the height, without a stem; None: anywhere near the middle.

  Returns:
    Pillow image of WIDTH x HEIGHT pixels, mode RGB.
  """
  image = _background(rng)
  draw = ImageDraw.Draw(image)
  short = min(image.size)
  radius = short * rng.uniform(0.32, 0.44)
  x = image.width / 2 + rng.uniform(-0.2, 0.2) * image.width
  y = image.height / 2 + rng.uniform(-0.14, 0.14) * image.height
  if middle:
    x, y, radius = middle[0] * image.width, middle[1] * image.height, radius / 2
  head, upright = KINDS[kind]
  tilt = rng.uniform(-0.5, 0.5)
  if upright:
    pose = Pose(x, y, radius, tilt)
  else:
    pose = Pose(x, y, radius, rng.uniform(0, 2 * math.pi),
                rng.uniform(0.75, 1))
  if not middle:
    _stem(draw, rng, x, y, radius, tilt)
  head(draw, rng, pose, _color(rng, _PETAL), _color(rng, _HEART))
  return _photograph(image, rng)


def draw_all(output_dir: str, per_class: int = 100, seed: int = 0) -> None:
  """Writes `<output_dir>/<kind>/<kind>_<number>.jpg`, the same for each seed.

  Args:
    output_dir: folder, created if missing; files of the same name are replaced.
    per_class: photos per kind.
    seed: decides how the flowers look.

  Raises:
    InputError: if the files cannot be written.
  """
  try:
    with Progress('drawn', len(KINDS) * per_class) as progress:
      for kind in KINDS:
        folder = os.path.join(output_dir, kind)
        os.makedirs(folder, exist_ok=True)
        for number in range(per_class):
          rng = random.Random('%d %s %d' % (seed, kind, number))
          draw_flower(kind, rng).save(
              os.path.join(folder, '%s_%04d.jpg' % (kind, number)), quality=90)
          progress.add()
  except OSError as error:
    raise InputError('cannot write to %s: %s' % (output_dir, error))


# (low, high) of saturation and of value, the same for every kind. Petals are
# brighter than the background, hearts and stems darker than petals, as in most
# photos of flowers; any of them may have any hue.
_PETAL = ((0.1, 0.6), (0.7, 1.0))
_HEART = ((0.2, 0.9), (0.25, 0.6))
_STEM = ((0.2, 0.9), (0.2, 0.55))
_BACKGROUND = ((0.1, 0.8), (0.1, 0.5))


def _color(rng, ranges):
  """Returns a random RGB color of one of the ranges above."""
  saturation, value = (rng.uniform(*limits) for limits in ranges)
  return tuple(round(255 * part) for part in
               colorsys.hsv_to_rgb(rng.random(), saturation, value))


def _shade(color, factor):
  """Returns the color made darker (below 1) or lighter."""
  return tuple(min(255, round(part * factor)) for part in color)


def _petal(angle, inner, outer, width, pointed=False, steps=7):
  """Returns the (radius, angle) outline of one petal.

  Args:
    angle: its direction, in radians.
    inner, outer: radii of its foot and its tip.
    width: half of its width, as a length.
    pointed: whether the tip is a point; otherwise it is round.
    steps: points per side.
  """
  side = []
  for step in range(steps + 1):
    along = step / steps
    if pointed:
      half = width * (1 - along) * (1 + 1.6 * along)
    else:
      half = width * math.sin(math.pi * (0.12 + 0.88 * along)) ** 0.5
    radius = inner + (outer - inner) * along
    side.append((math.hypot(radius, half), math.atan2(half, radius)))
  return ([(r, angle + a) for r, a in side] +
          [(r, angle - a) for r, a in reversed(side)])


def _disc(draw, pose, radius, color, **kwargs):
  rim = [(radius, 2 * math.pi * step / 40) for step in range(40)]
  draw.polygon(pose.polar(rim), fill=color, **kwargs)


def _daisy(draw, rng, pose, color, heart):
  count = rng.randint(11, 17)
  for index in range(count):
    angle = 2 * math.pi * (index + rng.uniform(-0.12, 0.12)) / count
    outline = _petal(angle, 0.15, rng.uniform(0.9, 1.02), 1.15 / count)
    draw.polygon(pose.polar(outline), fill=_shade(color, rng.uniform(.88, 1.1)))
  _disc(draw, pose, rng.uniform(0.2, 0.26), heart)


def _dandelion(draw, rng, pose, color, heart):
  width = max(1, round(pose.radius / 40))
  for _ in range(rng.randint(70, 100)):
    angle = rng.uniform(0, 2 * math.pi)
    length = rng.choice((1.0, 1.0, 0.8, 0.6)) * rng.uniform(0.92, 1.05)
    shade = _shade(color, rng.uniform(0.8, 1.2))
    draw.line(pose.polar([(0.1, angle), (length * 0.86, angle)]), fill=shade,
              width=width)
    for spread in (-0.11, -0.04, 0.04, 0.11):
      draw.line(pose.polar([(length * 0.86, angle), (length, angle + spread)]),
                fill=shade, width=width)
  _disc(draw, pose, rng.uniform(0.1, 0.15), heart)


def _rose(draw, rng, pose, color, heart):
  del heart  # A rose hides it.
  turn = rng.uniform(0, 2 * math.pi)
  for ring, (middle, size, count) in enumerate(
      ((0.62, 0.42, 7), (0.46, 0.36, 6), (0.3, 0.3, 5), (0.14, 0.24, 4))):
    for index in range(count):
      angle = turn + ring * 0.5 + 2 * math.pi * index / count
      x, y = middle * math.cos(angle), middle * math.sin(angle)
      rim = [(x + size * math.cos(a), y + size * math.sin(a))
             for a in (2 * math.pi * step / 24 for step in range(24))]
      draw.polygon(pose.at(rim), fill=_shade(color, rng.uniform(0.8, 1.1)))
      draw.line(pose.at(rim + rim[:1]), fill=_shade(color, 0.5),
                width=max(2, round(pose.radius / 28)))
  spiral = [(0.02 + 0.022 * step, turn + 0.55 * step) for step in range(16)]
  draw.line(pose.polar(spiral), fill=_shade(color, 0.4),
            width=max(2, round(pose.radius / 20)))


def _sunflower(draw, rng, pose, color, heart):
  count = rng.randint(18, 26)
  for layer, factor in ((0, 0.8), (1, 1.0)):
    for index in range(count):
      angle = 2 * math.pi * (index + layer / 2) / count
      outline = _petal(angle, 0.55, rng.uniform(0.95, 1.05), 2.0 / count,
                       pointed=True)
      draw.polygon(pose.polar(outline),
                   fill=_shade(color, factor * rng.uniform(0.9, 1.1)))
  _disc(draw, pose, 0.64, heart)
  for seed in range(1, 110):
    (x, y), = pose.polar([(0.061 * math.sqrt(seed), _GOLDEN_ANGLE * seed)])
    size = pose.radius * 0.024
    draw.ellipse((x - size, y - size, x + size, y + size),
                 fill=_shade(heart, 0.45))


# A tulip's petals from back to front, as the control points of two Bezier
# curves, from the foot of the cup to the tip and back, and their brightness.
_TULIP = (
    (((0, 0.9), (-0.6, 0.3), (-0.4, -0.6), (0, -0.98)),
     ((0, -0.98), (0.4, -0.6), (0.6, 0.3), (0, 0.9)), 0.7),
    (((0, 0.95), (-0.75, 0.95), (-0.85, 0.1), (-0.68, -0.95)),
     ((-0.68, -0.95), (-0.3, -0.6), (0.0, 0.1), (0, 0.95)), 0.9),
    (((0, 0.95), (0.75, 0.95), (0.85, 0.1), (0.68, -0.95)),
     ((0.68, -0.95), (0.3, -0.6), (0.0, 0.1), (0, 0.95)), 0.9),
    (((0, 0.95), (-0.62, 0.7), (-0.5, -0.1), (0, -0.6)),
     ((0, -0.6), (0.5, -0.1), (0.62, 0.7), (0, 0.95)), 1.1),
)


def _tulip(draw, rng, pose, color, heart):
  del heart  # Not seen from the side.
  wide = rng.uniform(0.85, 1.1)
  for up, down, factor in _TULIP:
    petal = pose.at([(wide * x, y) for x, y in _curve(up) + _curve(down)])
    draw.polygon(petal, fill=_shade(color, factor * rng.uniform(0.95, 1.05)))
    draw.line(petal, fill=_shade(color, 0.5),
              width=max(2, round(pose.radius / 28)))


# {kind: (function that draws its head, whether it is seen from the side)}.
KINDS = {
    'daisy': (_daisy, False),
    'dandelion': (_dandelion, False),
    'roses': (_rose, False),
    'sunflowers': (_sunflower, False),
    'tulips': (_tulip, True),
}


def _curve(control, steps=12):
  """Returns points on the cubic Bezier curve of four control points."""
  points = []
  for step in range(steps + 1):
    t = step / steps
    weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t ** 3)
    points.append(tuple(sum(weight * point[axis] for weight, point
                            in zip(weights, control)) for axis in (0, 1)))
  return points


def _stem(draw, rng, x, y, radius, tilt):
  """Draws a stem from the head down, with up to two leaves."""
  color = _color(rng, _STEM)
  length = radius * rng.uniform(2.5, 3.5)
  foot = (x - length * math.sin(tilt), y + length * math.cos(tilt))
  middle = (x + rng.uniform(-0.3, 0.3) * radius, y + length / 2)
  line = _curve(((x, y), middle, middle, foot))
  draw.line(line, fill=color, width=max(2, round(radius * 0.1)))
  for _ in range(rng.randint(0, 2)):
    start = rng.choice(line[5:10])
    leaf = Pose(start[0], start[1], radius * rng.uniform(0.7, 1.2), 0)
    angle = rng.uniform(-math.pi, 0)
    draw.polygon(leaf.polar(_petal(angle, 0, 1, 0.14)),
                 fill=_shade(color, rng.uniform(0.8, 1.2)))


def _background(rng):
  """Returns a blurred background in any color, at drawing size."""
  size = (WIDTH * _SCALE, HEIGHT * _SCALE)
  small = Image.new('RGB', (WIDTH // 4, HEIGHT // 4), _color(rng, _BACKGROUND))
  draw = ImageDraw.Draw(small)
  for _ in range(rng.randint(3, 14)):
    x, y = rng.uniform(0, small.width), rng.uniform(0, small.height)
    half = rng.uniform(2, 14)
    draw.ellipse((x - half, y - half, x + half, y + half),
                 fill=_color(rng, _BACKGROUND))
  small = small.filter(ImageFilter.GaussianBlur(rng.uniform(2, 5)))
  return small.resize(size, Image.Resampling.BILINEAR)


def _photograph(image, rng):
  """Returns the drawing with the light, blur and noise of a camera."""
  image = image.resize((WIDTH, HEIGHT), Image.Resampling.BOX)
  if rng.random() < 0.3:
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.8)))
  noise = np.random.RandomState(rng.randrange(2 ** 31))
  pixels = np.asarray(image, np.float32) * rng.uniform(0.7, 1.2)
  pixels += noise.normal(0, rng.uniform(1, 8), pixels.shape)
  return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def define_flags() -> None:
  flags.DEFINE_string('output_dir', None,
                      'Folder that gets one folder per kind; made if missing.')
  flags.DEFINE_integer('per_class', 100, 'Photos per kind of flower.',
                       lower_bound=1)
  flags.DEFINE_integer('seed', 0, 'Decides the drawings; the same seed gives '
                       'the same photos.')


def main(argv: List[str]) -> None:
  try:
    if len(argv) > 1:
      raise InputError('unexpected argument %r: flags are given as '
                       '--name=value' % argv[1])
    if not FLAGS.output_dir:
      raise InputError('--output_dir is needed: the folder for the photos')
    draw_all(FLAGS.output_dir, FLAGS.per_class, FLAGS.seed)
  except InputError as error:
    sys.exit('draw_flowers: error: %s' % relative(str(error)))
  print('drew %d photos of each of %s in %s' %
        (FLAGS.per_class, ', '.join(KINDS), relative(FLAGS.output_dir)))


# Not common_flags.run, which belongs to the scripts and loads TensorFlow.
if __name__ == '__main__':
  define_flags()
  app.run(main)
