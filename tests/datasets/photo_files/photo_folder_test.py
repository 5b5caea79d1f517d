"""Tests of photo_folder.py: a thousand hostile files are all reported."""

import csv
import io
import os
import random
import socket
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from compat import tf
from datasets import manifest as manifests
from datasets.photo_files import photo_folder
from kits.helpers import run_program

CLASSES = ['cat', 'dog', '中文 名']
MAX_PIXELS = 100 * 1000
NUM_FILES = 1000

NAMES = ['new\nline.jpg', 'tab\t.png', 'return\r.jpg', '"quoted",comma.jpg',
         ' leading and trailing ', '-rf', '--help', '%s%d.jpg', 'back\\slash',
         '\u202egnp.gpj', '😀.jpg', 'e\u0301.jpg', '\u00e9.jpg', '\x1b[31m.jpg',
         '=1+1.csv', 'n' * 250 + '.jpg', 'no ending', 'UPPER.JPG', '\u2028.jpg',
         'x.jpg.json', 'labels.txt', '\x7f', "it's", '$(touch x).jpg', '#', ';']
ENDINGS = ['.jpg', '.png', '.gif', '.txt', '.JPEG', '', '.exe', '.tfrecord']


def encode(image, kind, **kwargs):
  buffer = io.BytesIO()
  image.save(buffer, kind, **kwargs)
  return buffer.getvalue()


def exif(orientation):
  block = Image.Exif()
  block[0x0112] = orientation
  return block


def photo_kinds(rng):
  """Returns one photo of each accepted kind, as bytes, with random content."""
  size = rng.randint(1, 60), rng.randint(1, 60)
  pixels = np.random.RandomState(rng.randrange(2 ** 32)).randint(
      0, 256, (size[1], size[0], 4)).astype(np.uint8)
  alpha = Image.fromarray(pixels)
  image = alpha.convert('RGB')
  deep = pixels[..., 0].astype(np.uint16) * 257
  return [
      encode(image, 'JPEG'), encode(image, 'JPEG', progressive=True),
      encode(image, 'JPEG', subsampling=0, quality=rng.randint(1, 100)),
      encode(image.convert('L'), 'JPEG'), encode(image.convert('CMYK'), 'JPEG'),
      encode(image, 'JPEG', exif=exif(rng.randint(1, 8))),
      encode(image, 'PNG'), encode(alpha, 'PNG'),
      encode(alpha.convert('LA'), 'PNG'), encode(image.convert('1'), 'PNG'),
      encode(Image.fromarray(deep), 'PNG'),
      encode(image.convert('P'), 'PNG', transparency=0),
      encode(image.convert('P'), 'GIF', save_all=True,
             append_images=[image.convert('P').rotate(180)]),
      encode(image, 'BMP'), encode(image.convert('1'), 'BMP'),
      encode(image, 'TIFF'), encode(image, 'TIFF', compression='tiff_lzw'),
      encode(image.convert('CMYK'), 'TIFF'), encode(alpha, 'TIFF'),
      encode(Image.fromarray(deep), 'TIFF', compression='tiff_adobe_deflate'),
      encode(image, 'TIFF', compression='jpeg'),
      encode(Image.fromarray(pixels[..., 0].astype(np.float32)), 'TIFF'),
      encode(alpha, 'WEBP'), encode(image, 'WEBP', lossless=True),
  ]


def png_chunk(kind, data):
  return (struct.pack('>I', len(data)) + kind + data +
          struct.pack('>I', zlib.crc32(kind + data)))


def png(width, height, *chunks):
  header = struct.pack('>IIBBBBB', width, height, 1, 0, 0, 0, 0)
  return (b'\x89PNG\r\n\x1a\n' + png_chunk(b'IHDR', header) +
          b''.join(chunks) + png_chunk(b'IEND', b''))


def bombs(rng):
  """Returns small files that declare or unpack to very many pixels or bytes."""
  jpeg = bytearray(encode(Image.new('RGB', (9, 9)), 'JPEG'))
  start_of_frame = jpeg.index(b'\xff\xc0')
  jpeg[start_of_frame + 5:start_of_frame + 9] = b'\xff' * 4
  gif = bytearray(encode(Image.new('P', (9, 9)), 'GIF'))
  gif[6:10] = b'\xff' * 4
  bmp = bytearray(encode(Image.new('RGB', (9, 9)), 'BMP'))
  bmp[18:26] = struct.pack('<ii', 2 ** 31 - 1, rng.choice([1, -1]) * 2 ** 30)
  text = zlib.compress(b'x' * 10 ** 7)
  return [
      encode(Image.new('1', (5000, 5000)), 'PNG'),
      encode(Image.new('1', (5000, 5000)), 'TIFF', compression='group4'),
      png(60000, 60000), png(2 ** 31 - 1, 2 ** 31 - 1), png(0, 0),
      png(100000, 1, png_chunk(b'IDAT', zlib.compress(b'\0' * 12501))),
      png(8, 8, png_chunk(b'zTXt', b'k\0\0' + text)),
      png(8, 8, png_chunk(b'iCCP', b'k\0\0' + text)),
      png(8, 8, png_chunk(b'IDAT', text)),
      bytes(jpeg), bytes(gif), bytes(bmp),
  ]


def not_photos(rng):
  noise = bytes(rng.getrandbits(8) for _ in range(200))
  return [
      b'', b'\0', b'\n', noise, b'hello', b'\xff\xd8\xff',
      b'\xff\xd8\xff' + noise,
      b'\x89PNG\r\n\x1a\n', b'\x89PNG\r\n\x1a\n' + noise, b'GIF89a', b'BM',
      b'GIF87a' + noise, b'BM' + noise, b'II*\0', b'MM\0*' + noise,
      b'II*\0\x08\0\0\0' + noise, b'II+\0' + noise,
      b'RIFF\x24\0\0\0WEBPVP8 ' + noise, b'\0\0\0\x18ftypheic' + noise,
      b'\0\0\0\x18ftypavif' + noise, b'\0\0\0\x18ftypmp42' + noise,
      b'%PDF-1.4\n', b'PK\x03\x04' + noise, b'8BPS\0\x01' + noise,
      b'<svg xmlns="http://www.w3.org/2000/svg"/>', b'<?php echo 1; ?>',
      b'\0\0\x01\0' + noise, b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9']


def damage(data, rng):
  """Returns a photo that was cut, changed or extended at random."""
  data = bytearray(data)
  kind = rng.randrange(6)
  if kind == 0:
    return bytes(data[:rng.randrange(len(data))])
  if kind == 1:
    return bytes(data[:len(data) - rng.randint(1, 9)])
  if kind == 2:
    return bytes(data) + bytes(rng.getrandbits(8) for _ in range(50))
  if kind == 3:  # In the header, where the sizes are.
    data[rng.randrange(min(len(data), 60))] = rng.randrange(256)
  for _ in range(rng.randint(1, 8)):
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
  return bytes(data)


def contents(rng):
  """Yields NUM_FILES contents, hostile ones and a few good ones."""
  count = 0
  while True:
    photos = photo_kinds(rng)
    for data in (photos[::4] + [damage(data, rng) for data in photos * 2] +
                 bombs(rng) + not_photos(rng)):
      if count == NUM_FILES:
        return
      yield data
      count += 1


def make_files(root, rng):
  """Writes the contents under odd names into class folders."""
  for name in CLASSES:
    os.makedirs(str(root / name))
    for number in range(3):  # Each class has a few usable photos.
      image = Image.new('RGB', (20 + number, 20), (CLASSES.index(name), 0, 0))
      (root / name / ('good %d.jpg' % number)).write_bytes(
          encode(image, 'JPEG'))
  for index, data in enumerate(contents(rng)):
    file_name = NAMES[index // len(CLASSES)] if index < len(CLASSES) * len(
        NAMES) else '%d%s' % (index, rng.choice(ENDINGS))
    (root / CLASSES[index % len(CLASSES)] / file_name).write_bytes(data)


def make_traps(root):
  """Adds entries that are not regular files, and photos in wrong places."""
  cat, photo = root / 'cat', (root / 'dog' / 'good 0.jpg').read_bytes()
  (cat / 'folder.jpg').mkdir()
  (root / 'dog' / 'nested' / 'in').mkdir(parents=True)
  (root / 'dog' / 'nested' / 'in' / 'photo.jpg').write_bytes(photo)
  deep = cat / 'deep'
  for _ in range(600):
    deep = deep / 'd'
  deep.mkdir(parents=True)
  (deep / 'photo.jpg').write_bytes(photo)
  (cat / 'loop').symlink_to(cat)
  (cat / 'to itself.jpg').symlink_to(cat / 'to itself.jpg')
  (cat / 'nowhere.jpg').symlink_to(root / 'nowhere')
  (cat / 'linked.jpg').symlink_to(root / 'cat' / 'good 1.jpg')
  (cat / 'device.jpg').symlink_to('/dev/zero')
  (root / 'up').symlink_to(root)
  (root / 'README').write_text('loose')
  (root / 'loose.jpg').write_bytes(photo)
  os.mkfifo(str(cat / 'pipe.jpg'))
  with socket.socket(socket.AF_UNIX) as listener:
    cwd = os.getcwd()
    os.chdir(str(cat))  # The path of a socket must be short.
    try:
      listener.bind('socket.jpg')
    finally:
      os.chdir(cwd)
  for hidden in ('.hidden.jpg', 'Thumbs.db', '._good 0.jpg'):
    (cat / hidden).write_bytes(photo)
  (root / '.git').mkdir()
  (root / '.git' / 'photo.jpg').write_bytes(photo)
  with open(os.path.join(os.fsencode(str(cat)), b'\xff\xfe.jpg'), 'wb') as file:
    file.write(photo)
  (cat / 'secret.jpg').write_bytes(b'secret' + photo)
  (cat / 'secret.jpg').chmod(0)  # Root can read it nevertheless.
  with open(str(cat / 'huge.jpg'), 'wb') as file:  # Sparse: takes no space.
    file.write(photo)
    file.truncate(2 ** 40)


def all_files(root):
  """Returns the paths that the report must list, in its form."""
  paths = set()
  for folder, folders, files in os.walk(str(root)):
    links = [name for name in folders
             if os.path.islink(os.path.join(folder, name))]
    empty = [] if folders or files else ['']
    for name in files + links + empty:
      path = os.path.relpath(os.path.join(folder, name).rstrip('/'), str(root))
      paths.add(os.fsencode(path).decode('utf-8', 'backslashreplace'))
  return paths


@pytest.fixture(scope='module')
def converted(tmp_path_factory):
  """Converts a hostile folder.

  Returns:
    (dataset_dir, finished process, manifest, rows of the list of skipped files)
  """
  folder = tmp_path_factory.mktemp('hostile')
  make_files(folder / 'odd', random.Random(0))
  make_traps(folder / 'odd')
  done = run_program(
      'download_and_convert_data.py', '--dataset_name=odd',
      '--dataset_dir=%s' % folder, '--max_pixels=%d' % MAX_PIXELS,
      '--max_bad_fraction=1', '--percent_test=10', '--num_shards=3',
      timeout=200)
  assert done.returncode == 0, done.stderr[-2000:]
  with open(str(folder / 'odd_skipped.csv'), encoding='utf-8',
            newline='') as source:
    skipped = list(csv.DictReader(source))
  return folder, done, manifests.load(str(folder), 'odd'), skipped


def test_convert_hostile_files_print_only_the_summary(converted):
  _, done, manifest, _ = converted
  assert done.stderr == ''
  assert done.stdout.splitlines()[0].split() == [
      'photos', 'train', 'validation', 'test']
  assert 'skipped files: %d\n' % len(manifest.skipped) in done.stdout
  assert '\x1b' not in done.stdout and '\r' not in done.stdout


def test_convert_hostile_files_are_all_accounted_for(converted):
  folder, _, manifest, skipped = converted
  listed = [row['file'] for row in skipped]
  assert sorted(listed + list(manifest.files)) == sorted(
      all_files(folder / 'odd'))
  assert len(listed) + len(manifest.files) > NUM_FILES
  assert len(manifest.files) > 200 and len(listed) > 400
  for row in skipped:
    assert row['reason'] and '\n' not in row['reason']


@pytest.mark.parametrize('file, reason', [
    ('cat/folder.jpg', 'an empty folder'), ('cat/loop', 'a link to a folder'),
    ('cat/to itself.jpg', 'a broken link'),
    ('cat/nowhere.jpg', 'a broken link'),
    ('cat/device.jpg', 'not a file'), ('cat/pipe.jpg', 'not a file'),
    ('cat/socket.jpg', 'not a file'), ('cat/.hidden.jpg', 'hidden'),
    ('cat/Thumbs.db', 'hidden'), ('.git/photo.jpg', 'hidden'),
    ('up', 'a link to a parent folder'), ('README', 'not in a class folder'),
    ('dog/nested/in/photo.jpg', 'in a folder inside a class folder'),
    ('cat/deep' + '/d' * 600 + '/photo.jpg',
     'in a folder inside a class folder'),
    ('cat/huge.jpg', '1099511627776 bytes, more than the limit')],
                         ids=lambda value: value[:30])
def test_convert_hostile_file_is_listed_with_its_reason(
    converted, file, reason):
  reasons = {row['file']: row['reason'] for row in converted[3]}
  assert reasons[file].startswith(reason)


def test_convert_hostile_files_accepted_ones_decode_in_tensorflow(converted):
  folder, _, manifest, _ = converted
  files = []
  with tf.Graph().as_default(), tf.Session() as session:
    encoded = tf.placeholder(tf.string)
    decoded = tf.image.decode_jpeg(encoded, channels=3)
    for entry in manifest.splits.values():
      for shard in entry['shards']:
        for record in tf.python_io.tf_record_iterator(str(folder / shard)):
          feature = tf.train.Example.FromString(record).features.feature
          files.append(feature['image/filename'].bytes_list.value[0])
          data = feature['image/encoded'].bytes_list.value[0]
          assert session.run(decoded, {encoded: data}).shape == (
              feature['image/height'].int64_list.value[0],
              feature['image/width'].int64_list.value[0], 3)
  assert sorted(files) == sorted(file.encode('utf-8')
                                 for file in manifest.files)


def test_convert_hostile_files_above_bad_fraction_give_one_line_error(
    converted):
  folder, _, _, _ = converted
  before = (folder / 'odd.json').read_bytes()
  done = run_program(
      'download_and_convert_data.py', '--dataset_name=odd',
      '--dataset_dir=%s' % folder, '--max_pixels=%d' % MAX_PIXELS,
      timeout=200)
  lines = done.stderr.splitlines()
  assert done.returncode == 1 and done.stdout == ''
  assert 'cannot be used' in lines[-1] and 'odd_skipped.csv' in lines[-1]
  assert len(lines) == 1
  assert (folder / 'odd.json').read_bytes() == before


def test_list_photos_of_folders_too_deep_for_a_path_reports_them(tmp_path):
  (tmp_path / 'dog').mkdir()
  (tmp_path / 'cat').mkdir()
  cwd = os.getcwd()
  try:
    os.chdir(str(tmp_path / 'cat'))
    for _ in range(30):
      os.mkdir('d' * 200)
      os.chdir('d' * 200)
  finally:
    os.chdir(cwd)
  listing = photo_folder.list_photos(str(tmp_path))
  assert [entry['reason'] for entry in listing.skipped] == [
      'cannot be listed: File name too long']
