"""Draws heat maps over photos."""

import io
from typing import Sequence

import numpy as np
from PIL import Image

from preprocessing import preprocessing_factory
from serving.model.graph_info import GraphInfo
from serving.model.predictions import HeatMap

# Colours from 0 to 1: dark blue, grey, yellow. Lightness rises evenly, and blue
# and yellow differ for all kinds of colour blindness.
_COLORS = np.array([(15, 35, 110), (70, 85, 120), (125, 125, 120),
                    (195, 175, 85), (255, 228, 50)], np.float32)

# Share of the colour; the rest is the photo in grey, so that its own colours
# are not mistaken for those of the map.
_COLOR_SHARE = 0.55

# Brightness of the parts of the photo that the network does not see.
_UNSEEN = 0.35

_QUALITY = 85


def place(info: GraphInfo, label: str, values: np.ndarray, height: int,
          width: int) -> HeatMap:
  """Returns the HeatMap of a photo, given its upright size in pixels.

  Args:
    info: GraphInfo of the graph.
    label: name of the class.
    values: as HeatMaps.compute returned them.
    height: of the photo.
    width: of the photo.
  """
  top, left, rows, columns = preprocessing_factory.seen_window(
      info.preprocessing_name, height, width, info.image_size)
  return HeatMap(label, values, (top / height, left / width, rows / height,
                                 columns / width))


def draw(encoded: bytes, heat_map: HeatMap, side: int) -> bytes:
  """Draws a heat map over its photo.

  Args:
    encoded: upright photo, bytes of a JPEG or PNG file; it may be reduced.
    heat_map: HeatMap.
    side: longer side of the result in pixels, if the photo is larger.

  Returns:
    Bytes of a JPEG: the photo in grey under the colours of the map; what the
    network does not see is darker and has no colour.
  """
  image: Image.Image = Image.open(io.BytesIO(encoded))
  image.draft('RGB', (side, side))
  image = image.convert('L')
  image.thumbnail((side, side))
  grey = np.asarray(image, np.float32)[..., np.newaxis]
  top, left, height, width = heat_map.window
  rows, seen_rows = _interpolation(len(grey), top, height,
                                   heat_map.values.shape[0])
  columns, seen_columns = _interpolation(grey.shape[1], left, width,
                                         heat_map.values.shape[1])
  heat = rows @ heat_map.values @ columns.T
  steps = np.linspace(0, 1, len(_COLORS))
  color = np.stack([np.interp(heat, steps, channel)
                    for channel in _COLORS.T], axis=2)
  seen = (seen_rows[:, np.newaxis] & seen_columns)[..., np.newaxis]
  pixels = np.where(seen, _COLOR_SHARE * color + (1 - _COLOR_SHARE) * grey,
                    _UNSEEN * grey)
  stream = io.BytesIO()
  Image.fromarray(pixels.astype(np.uint8)).save(stream, 'JPEG',
                                                quality=_QUALITY)
  return stream.getvalue()


def _interpolation(pixels: int, start: float, length: float,
                   places: int) -> Sequence[np.ndarray]:
  """Returns the weights that enlarge one side of a map linearly.

  Args:
    pixels: number of pixels of this side of the photo.
    start: where the map begins, as a fraction of the photo.
    length: of the map, as a fraction of the photo.
    places: number of values of this side of the map.

  Returns:
    `[pixels, places]` floats, and `[pixels]` bools: which ones the map covers.
  """
  position = ((np.arange(pixels) + 0.5) / pixels - start) / length
  exact = np.clip(position * places - 0.5, 0, places - 1)
  distances = np.abs(exact[:, np.newaxis] - np.arange(places))
  return np.maximum(0, 1 - distances), (position >= 0) & (position <= 1)
