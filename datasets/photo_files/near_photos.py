"""Finds near duplicates: resized, mirrored and cropped photos, bursts.

A perceptual hash (dHash: the signs of the differences between neighbouring
pixels of a tiny picture) and, if known, the features of a network propose
pairs; the correlation of the brightness gradients of both pictures decides.
Photos of two things on the same background may have similar hashes.
"""

import io
from typing import Dict, Iterable, List, NamedTuple, Optional, Tuple

import numpy as np
from PIL import Image

# Side in pixels of the grey pictures that are compared.
SIDE = 64

# Of the hash, and of the pictures whose gradients decide on whole pictures.
_HASH_SIDE, _SMALL_SIDE = 8, 32

# Bits, of 64, in which the hashes of a proposed pair may differ, and the least
# correlation of the gradients. Of 1,435 photos of clothes, copies have 0.99 and
# other pairs up to 0.78.
_MOST_BITS, LEAST_WHOLE = 10, 0.9

# Crops: one picture in these sizes is searched in the other one of the first
# size; the edges of the best place are then moved by these steps, of SIDE.
# Crops have 0.95 and more, other pairs up to 0.92.
_COARSE_SIDE = 24
_SIZES = (24, 22, 20, 18, 16)
_STEPS = (2.0, 1.0, 1.0, 0.5, 0.5, 0.25)
LEAST_CROP = 0.94
_LEAST_CROPS = 100  # Pairs that are searched if there are few photos.

# Two photos of one scene need not overlap exactly if their features are nearly
# equal as well.
_BURST_COSINE, _LEAST_BURST = 0.93, 0.7

# Hashes that are compared with all others at once.
_ROWS = 2048


class Pair(NamedTuple):
  """Two photos of the same scene."""

  # Their numbers, the smaller one first.
  first: int
  second: int
  # 'copy', 'mirrored', 'crop' or 'burst'.
  kind: str
  # Correlation of the gradients, up to 1.
  similarity: float


def sketch(data: bytes) -> Optional[np.ndarray]:
  """Returns a photo as a small grey picture: [SIDE, SIDE] uint8.

  Args:
    data: an upright JPEG or PNG file.

  Returns:
    None if it cannot be decoded.
  """
  try:
    image: Image.Image = Image.open(io.BytesIO(data))
    image.draft('RGB', (2 * SIDE, 2 * SIDE))  # Decodes a JPEG smaller.
    return _resize(image.convert('L'), SIDE)
  except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
    return None


def find_pairs(sketches: np.ndarray,
               near: Optional[Dict[Tuple[int, int], float]] = None
               ) -> List[Pair]:
  """Returns the pairs of near duplicates.

  Args:
    sketches: [photos, SIDE, SIDE] uint8.
    near: {pair: cosine} of photos with similar features; None: not known.
      Crops and bursts are only found among these, in the most similar ones that
      are in no common group yet: a fifth as many as there are photos.
  """
  cosines = {_ordered(pair): cosine for pair, cosine in (near or {}).items()}
  small = [_resize(Image.fromarray(picture), _SMALL_SIDE)
           for picture in sketches]
  found: Dict[Tuple[int, int], Pair] = {}
  for first, second in _alike(sketches) | set(cosines):
    similarity, kind = max(
        (_whole(small[first], small[second]), 'copy'),
        (_whole(small[first], small[second][:, ::-1]), 'mirrored'))
    if similarity >= LEAST_WHOLE:
      found[first, second] = Pair(first, second, kind, similarity)
  group_of: Dict[int, List[int]] = {}
  for first, second in found:
    _join(group_of, first, second)
  left = max(_LEAST_CROPS, len(sketches) // 5)
  for first, second in sorted(set(cosines) - set(found),
                              key=lambda pair: -cosines[pair]):
    if not left:
      break
    if first in group_of and group_of[first] is group_of.get(second):
      continue
    left -= 1
    similarity = max(_crop(sketches[first], sketches[second]),
                     _crop(sketches[second], sketches[first]))
    if similarity >= LEAST_CROP:
      found[first, second] = Pair(first, second, 'crop', similarity)
    elif (similarity >= _LEAST_BURST and
          cosines[first, second] >= _BURST_COSINE):
      found[first, second] = Pair(first, second, 'burst', similarity)
    if (first, second) in found:
      _join(group_of, first, second)
  return [found[key] for key in sorted(found)]


def group(pairs: Iterable[Pair]) -> List[List[int]]:
  """Returns the sets of photos that pairs connect, each sorted."""
  group_of: Dict[int, List[int]] = {}
  for pair in pairs:
    _join(group_of, pair.first, pair.second)
  groups = {id(members): members for members in group_of.values()}
  return sorted(sorted(members) for members in groups.values())


def _join(group_of, first, second):
  """Merges the groups of two photos in {number: its group}."""
  one, other = (group_of.setdefault(number, [number])
                for number in (first, second))
  if one is not other:
    one.extend(other)
    group_of.update((number, one) for number in other)


def _ordered(pair):
  return min(pair), max(pair)


def _resize(image, width, height=None):
  """Returns a grey Pillow image as [height, width] uint8."""
  size = width, height or width
  enlarged = image.width < size[0] or image.height < size[1]
  return np.asarray(image.resize(
      size, Image.BILINEAR if enlarged else Image.BOX))


def _alike(sketches):
  """Returns the set of pairs whose hashes are similar, also if mirrored."""
  hashes, mirrored = (np.array(
      [_hash(picture[:, ::step]) for picture in sketches], np.float32).reshape(
          len(sketches), -1) for step in (1, -1))
  least = hashes.shape[1] - 2 * _MOST_BITS
  pairs = set()
  for start in range(0, len(hashes), _ROWS):
    for others in (hashes, mirrored):
      rows, columns = np.nonzero(
          hashes[start:start + _ROWS] @ others[start:].T >= least)
      pairs.update(map(_ordered, zip((rows + start).tolist(),
                                     (columns + start).tolist())))
  return {pair for pair in pairs if pair[0] != pair[1]}


def _hash(picture):
  """Returns the dHash of a picture as 64 numbers, 1 or -1."""
  tiny = _resize(Image.fromarray(np.ascontiguousarray(picture)),
                 _HASH_SIDE + 1, _HASH_SIDE).astype(np.int16)
  return np.where(tiny[:, 1:] > tiny[:, :-1], 1, -1).ravel()


def _gradients(picture):
  """Returns the horizontal and vertical gradient: [2, h - 1, w - 1]."""
  picture = np.asarray(picture, np.float32)
  corner = picture[:-1, :-1]
  return np.stack([picture[:-1, 1:] - corner, picture[1:, :-1] - corner])


def _whole(one, other):
  """Returns the correlation of the gradients of two pictures of one size."""
  return _correlation(_gradients(one), _gradients(other))


def _correlation(one, other):
  return float(np.sum(one * other) / max(
      np.sqrt(np.sum(one ** 2) * np.sum(other ** 2)), 1.0))


def _crop(picture, part):
  """Returns how well `part` matches the part of `picture` that fits best."""
  image = Image.fromarray(picture)
  gradients = _gradients(_resize(image, _COARSE_SIDE))

  def similarity(box):
    return _correlation(target, _part(image, box))

  target = _part(Image.fromarray(part), (0, 0, SIDE, SIDE))

  box = max(_places(gradients, Image.fromarray(part)))[1]
  best = similarity(box)
  for step in _STEPS:
    for edge in range(4):
      for change in (-step, step):
        moved = np.array(box)
        moved[edge] = np.clip(moved[edge] + change, 0, SIDE)
        value = similarity(moved)
        if value > best:
          best, box = value, moved
  return best


def _part(image, box):
  """Returns the gradients of the part of an image in a box."""
  return _gradients(image.resize((_SMALL_SIDE, _SMALL_SIDE), Image.BILINEAR,
                                 box=tuple(box)))


def _places(gradients, part):
  """Yields (correlation, box) of the best place of each size of a part.

  Args:
    gradients: of the picture, with _COARSE_SIDE.
    part: Pillow image.
  """
  scale = SIDE / _COARSE_SIDE
  for height in _SIZES:
    for width in _SIZES:
      if abs(height - width) > 2:
        continue
      template = _gradients(_resize(part, width, height))
      windows = _windows(gradients, template.shape)
      products = np.tensordot(windows, template, 3)
      squares = np.einsum('yxchw,yxchw->yx', windows, windows)
      values = products / np.sqrt(np.maximum(
          squares * np.sum(template ** 2), 1.0))
      top, left = np.unravel_index(values.argmax(), values.shape)
      yield float(values.max()), [edge * scale for edge in (
          left, top, left + width, top + height)]


def _windows(gradients, shape):
  """Returns all parts of a shape: [rows, columns, *shape], not a copy."""
  counts = [big - small + 1 for big, small in zip(gradients.shape, shape)][1:]
  return np.lib.stride_tricks.as_strided(
      gradients, (*counts, *shape), (*gradients.strides[1:],
                                     *gradients.strides))
