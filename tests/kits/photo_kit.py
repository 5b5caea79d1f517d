"""Photo files of rare formats, built from bytes."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

XMP = (b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description '
       b'tiff:Orientation="6"/></x:xmpmeta>')

# TIFF's type of a value (TIFF 6.0, section 2).
_BYTE, _SHORT, _LONG = 1, 3, 4


def encode(image, kind, **options):
  stream = io.BytesIO()
  image.save(stream, kind, **options)
  return stream.getvalue()


def smooth_image(width=80, height=60):
  """Returns an RGB image without sharp edges, so that JPEG changes little."""
  pixels = np.random.RandomState(3).randint(0, 256, (4, 5, 3)).astype(np.uint8)
  return Image.fromarray(pixels).resize((width, height), Image.BICUBIC)


def exif(orientation):
  block = Image.Exif()
  block[0x0112] = orientation
  return block.tobytes()


def chunk(kind, data):
  """Returns a PNG chunk."""
  return (struct.pack('>I', len(data)) + kind + data +
          struct.pack('>I', zlib.crc32(kind + data)))


def png(width, height, bits, color_type, pixels, before=b'', after=b''):
  """Returns a PNG file.

  Args:
    width, height: in pixels.
    bits: bits per channel.
    color_type: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA.
    pixels: bytes of all rows.
    before, after: chunks before and after the pixels.
  """
  size = len(pixels) // height
  rows = b''.join(b'\0' + pixels[start:start + size]
                  for start in range(0, len(pixels), size))
  header = struct.pack('>IIBBBBB', width, height, bits, color_type, 0, 0, 0)
  return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + before +
          chunk(b'IDAT', zlib.compress(rows)) + after + chunk(b'IEND', b''))


def png_xmp_chunk(xmp=XMP):
  return chunk(b'iTXt', b'XML:com.adobe.xmp\0\0\0\0\0' + xmp)


def jpeg_xmp_segment(xmp=XMP):
  """Returns the segment that holds an XMP packet."""
  content = b'http://ns.adobe.com/xap/1.0/\0' + xmp
  return b'\xff\xe1' + struct.pack('>H', len(content) + 2) + content


def tiff(pixels, bits=16, photometric=1, xmp=None):
  """Returns an uncompressed TIFF file.

  Args:
    pixels: `[height, width]`, `[height, width, 3]` or, with alpha, `[height,
      width, 4]` array; if bits is 12, of an even width without channels.
    bits: bits per channel, 12 or 16; 12 are packed.
    photometric: 0: grey, 0 is white; 1: grey, 0 is black; 2: RGB.
    xmp: bytes, or None.
  """
  height, width = pixels.shape[:2]
  channels = 1 if pixels.ndim == 2 else pixels.shape[2]
  content = (_pack_12_bits(pixels) if bits == 12 else
             pixels.astype('<u2').tobytes())
  fields = [(256, _LONG, [width]), (257, _LONG, [height]),
            (258, _SHORT, [bits] * channels), (259, _SHORT, [1]),
            (262, _SHORT, [photometric]), (273, _LONG, [8]),
            (277, _SHORT, [channels]), (278, _LONG, [height]),
            (279, _LONG, [len(content)])]
  if channels == 4:
    fields.append((338, _SHORT, [2]))
  if xmp:
    fields.append((700, _BYTE, list(xmp)))
  start = 8 + len(content)
  # Values of more than 4 bytes are stored after the directory.
  directory, long_values = struct.pack('<H', len(fields)), b''
  end = start + 2 + 12 * len(fields) + 4
  for tag, kind, values in fields:
    data = struct.pack('<%d%s' % (len(values), {1: 'B', 3: 'H', 4: 'I'}[kind]),
                       *values)
    if len(data) > 4:
      data, long_values = (struct.pack('<I', end + len(long_values)),
                           long_values + data)
    directory += struct.pack('<HHI', tag, kind, len(values)) + data.ljust(
        4, b'\0')
  return (b'II*\0' + struct.pack('<I', start) + content + directory +
          b'\0' * 4 + long_values)


def _pack_12_bits(pixels):
  """Returns the bytes of rows of even length: three bytes per two values."""
  first, second = pixels[:, ::2].astype(int), pixels[:, 1::2].astype(int)
  packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8,
                     second & 255], -1)
  return packed.astype(np.uint8).tobytes()


def bmp32(pixels):
  """Returns a BMP with a V5 header and an alpha mask.

  Args:
    pixels: `[height, width, 4]` uint8, RGBA.
  """
  height, width = pixels.shape[:2]
  content = pixels[::-1, :, [2, 1, 0, 3]].tobytes()
  header = struct.pack('<IiiHHIIiiII4I', 124, width, height, 1, 32, 3,
                       len(content), 2835, 2835, 0, 0, 0xff0000, 0xff00, 0xff,
                       0xff000000).ljust(124, b'\0')
  return (b'BM' + struct.pack('<IHHI', 138 + len(content), 0, 0, 138) + header +
          content)


def small_frame_gif(canvas, left, top, frame):
  """Returns a GIF whose only frame covers a part of its canvas.

  Args:
    canvas: (width, height).
    left, top: position of the frame.
    frame: image of mode P.
  """
  data = encode(frame, 'GIF')
  size = struct.pack('<HH', *frame.size)
  start = data.index(b',\0\0\0\0' + size)  # Of the image descriptor.
  return (data[:6] + struct.pack('<HH', *canvas) + data[10:start + 1] +
          struct.pack('<HH', left, top) + data[start + 5:])


def cmyk_jpegs():
  """Returns JPEGs with four channels: {name: bytes}."""
  cmyk = encode(smooth_image().convert('CMYK'), 'JPEG', subsampling=0,
                quality=95)
  start = cmyk.index(b'\xff\xee\x00\x0eAdobe')  # Of the marker.
  return {
      'cmyk': cmyk,
      'cmyk without a marker': cmyk[:start] + cmyk[start + 16:],
      'ycck': cmyk[:start + 15] + b'\x02' + cmyk[start + 16:],
  }


def transparent_pngs():
  """Returns PNGs with each kind of transparency: {name: bytes}.

  The rows have 48 pixels, of which the first 16 are transparent.
  """
  def rows(bits, *colors):
    values = np.repeat(np.array(colors), 16, 0)
    return values.astype('>u2' if bits == 16 else 'u1').tobytes() * 8

  black, grey, blue = (0, 0, 0), (99, 99, 99), (20, 40, 200)
  return {
      'rgba': png(48, 8, 8, 6, rows(
          8, black + (0,), grey + (128,), blue + (255,))),
      'rgba, 16 bits': png(48, 8, 16, 6, rows(
          16, black + (0,), (25443,) * 3 + (32896,), blue + (65535,))),
      'grey and alpha': png(48, 8, 8, 4, rows(8, (0, 0), (99, 128),
                                              (200, 255))),
      'grey and alpha, 16 bits': png(48, 8, 16, 4, rows(
          16, (0, 0), (25443, 32896), (51400, 65535))),
      'palette': png(48, 8, 8, 3, rows(8, (0,), (1,), (2,)),
                     chunk(b'PLTE', bytes(black + grey + blue)) +
                     chunk(b'tRNS', bytes([0, 128]))),
      'one grey': png(48, 8, 8, 0, rows(8, (0,), (99,), (200,)),
                      chunk(b'tRNS', struct.pack('>H', 0))),
      'one grey of 2 bits': png(48, 8, 2, 0, (
          bytes([0x55] * 4 + [0xaa] * 4 + [0] * 4) * 8),
          chunk(b'tRNS', struct.pack('>H', 1))),
      'one grey, 16 bits': png(48, 8, 16, 0, rows(
          16, (7000,), (25443,), (51400,)),
          chunk(b'tRNS', struct.pack('>H', 7000))),
      'one colour': png(48, 8, 8, 2, rows(8, (1, 2, 3), grey, blue),
                        chunk(b'tRNS', struct.pack('>3H', 1, 2, 3))),
      'one colour, 16 bits': png(48, 8, 16, 2, rows(
          16, (300, 1000, 65000), (25443,) * 3, (5000, 10000, 51400)),
          chunk(b'tRNS', struct.pack('>3H', 300, 1000, 65000))),
  }
