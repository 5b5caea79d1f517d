"""Photos with large shapes, unlike noise, and near duplicates of them."""

import io

import numpy as np
from PIL import Image


def scene(seed, size=(120, 90)):
  """Returns a Pillow image of coloured shapes; each seed has its own."""
  tiles = np.random.RandomState(seed).randint(0, 256, (7, 9, 3))
  return Image.fromarray(tiles.astype(np.uint8)).resize(size, Image.BICUBIC)


def encode(image, quality=90):
  buffer = io.BytesIO()
  image.save(buffer, 'JPEG', quality=quality)
  return buffer.getvalue()


def resized(image):
  return encode(image.resize((image.width * 2 // 3, image.height * 2 // 3)))


def mirrored(image):
  return encode(image.transpose(Image.FLIP_LEFT_RIGHT))


def compressed(image):
  return encode(image, 60)


def cropped(image):
  """Returns the photo without a tenth of its width and height."""
  width, height = image.size
  return encode(image.crop((width // 20, height // 15, width * 19 // 20,
                            height * 29 // 30)))
