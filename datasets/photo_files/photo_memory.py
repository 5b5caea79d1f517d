"""Estimates the memory that a photo takes, from the header of its file.

It is the peak above the idle memory of the server, from the upload to the
decoded photo in the graph, for the worst pixels (noise).
tests/serving/web/server_fuzz_test.py compares the estimates with measurements.
"""

from typing import Tuple

# Bytes that a photo may take. The converter, classify.sh and the server use the
# same JPEG of a photo, so no flag changes the limit by which its scale is
# chosen.
MAX_BYTES = 250 * 10 ** 6

# By which libjpeg divides width and height while it decodes.
_SCALES = (1, 2, 4)

# Bytes per pixel. A photo that is encoded again is in memory twice while Pillow
# converts or turns it, at 4 each; the JPEG of noise takes 7. libwebp has two
# copies more. The graph then needs the JPEG and 3.
_ENCODED_AGAIN = {'JPEG': 8, 'PNG': 8, 'WebP': 16, 'HEIC': 8}
_DECODED, _IN_GRAPH = 4, 3

# Copies of the file, in the server's buffers and for the decoders.
_COPIES = 4
# Bands of rows, and memory that the C library keeps; up to 34 MB were measured.
_OTHER_BYTES = 40 * 10 ** 6
_PLAIN_OTHER_BYTES = 10 * 10 ** 6


def of_jpeg(pixels: int, coefficients: int, num_bytes: int, is_plain: bool
            ) -> Tuple[int, int]:
  """Returns the scale at which a JPEG is decoded, and the bytes it takes.

  A plain JPEG without coefficients in memory keeps its scale. For others it is
  the first of 1, 2 and 4 at which the photo takes no more than MAX_BYTES; 4 if
  it always takes more, as some progressive JPEGs do.

  Args:
    pixels: width times height.
    coefficients: from jpeg_markers.coefficient_bytes.
    num_bytes: size of the file.
    is_plain: whether the file itself can be used at scale 1. At another scale
      it is encoded again.
  """
  if is_plain and not coefficients:
    return 1, _IN_GRAPH * pixels + _COPIES * num_bytes + _PLAIN_OTHER_BYTES
  for scale in _SCALES:
    at_scale = pixels // scale ** 2
    peak = max(coefficients + _DECODED * at_scale,
               _ENCODED_AGAIN['JPEG'] * at_scale)
    if is_plain and scale == 1:
      peak = coefficients + _IN_GRAPH * pixels
    need = _total(peak, num_bytes)
    if need <= MAX_BYTES:
      break
  return scale, need


def of_other(name: str, pixels: int, num_bytes: int) -> int:
  """Returns the bytes that a photo of another format takes.

  Args:
    name: of the format in datasets.photo_files.formats.
    pixels, num_bytes: as for `of_jpeg`.
  """
  return _total(_ENCODED_AGAIN[name] * pixels, num_bytes)


def _total(peak, num_bytes):
  return peak + _COPIES * num_bytes + _OTHER_BYTES
