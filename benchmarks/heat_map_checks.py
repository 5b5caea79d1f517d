"""Measures whether heat maps show what they promise, and what they cost.

- inside: the share of scenes with their maximum in the quadrant of the object.
  A scene has four photos, of which one is of the class; or, with --drawn, one
  drawn flower in a quadrant. A maximum in the middle row or column of the map
  is in no quadrant; a random one is inside in 18 % (7 x 7) to 25 %.
- deletion: the mean score of a photo's predicted class while its regions are
  replaced by grey, a tenth at a time, in the order of the map. Lower than in
  random orders: the map knows which regions matter.
"""

import glob
import io
import os
import random
import statistics
import time

import numpy as np
from absl import flags
from PIL import Image

from common import flags as common_flags
from common.errors import InputError
from datasets import imagenet_names
from datasets.conversion import draw_flowers
from evaluation import metrics
from runtime import forward_pass
from serving.model.classifier import Classifier, prepare

FLAGS = flags.FLAGS

# Height and width of one of the four photos of a scene, in pixels.
_CELL = 224

# Steps of a deletion curve, and random orders to compare it with.
_STEPS, _ORDERS = 10, 5


def define_flags():
  """Defines the flags for the classifier and the photos."""
  flags.DEFINE_string('frozen_graph', None, 'Frozen graph.')
  flags.DEFINE_string(
      'checkpoint_path', None,
      'Published checkpoint of --model_name, in place of --frozen_graph.')
  flags.DEFINE_string('model_name', 'mobilenet_v1', 'Name of the network.')
  flags.DEFINE_string(
      'photos', None,
      'Folder with one sub-folder per class; or of photos of ImageNet classes, '
      'named like n01440764_tench.jpg.')
  flags.DEFINE_bool(
      'drawn', False, 'Also draw scenes of the flowers of ./quickstart.sh, for '
      'a graph with these classes.')
  flags.DEFINE_integer('scenes', 300, 'Scenes of each kind.', lower_bound=1)
  flags.DEFINE_integer('deletions', 100, 'Photos whose regions are deleted.',
                       lower_bound=1)
  common_flags.define_runtime_flags(forward_pass.RUNTIMES,
                                    forward_pass.PRECISIONS)


def classifier_from_flags():
  """Returns the Classifier."""
  options = forward_pass.options_from_flags(FLAGS)
  if bool(FLAGS.frozen_graph) == bool(FLAGS.checkpoint_path):
    raise InputError('one of --frozen_graph and --checkpoint_path is needed')
  if FLAGS.frozen_graph:
    return Classifier.from_frozen_graph(FLAGS.frozen_graph, options=options)
  return Classifier.from_checkpoint(FLAGS.checkpoint_path, FLAGS.model_name,
                                    options=options)


def find_photos(folder, labels):
  """Returns (class index, path) of the photos in a folder, in random order."""
  found = [(labels.index(label), path) for label in set(labels)
           for path in glob.glob(os.path.join(folder, label, '*'))]
  of_synset = {synset.wordnet_id: synset.label
               for synset in imagenet_names.synsets()}
  for path in glob.glob(os.path.join(folder, 'n*_*')):
    wordnet_id = os.path.basename(path).split('_')[0]
    if wordnet_id in of_synset:
      found.append((of_synset[wordnet_id] - 1001 + len(labels), path))
  if len({index for index, _ in found}) < 2:
    raise InputError('--photos=%s has no photos of at least two classes of the '
                     'graph' % folder)
  return random.Random(0).sample(sorted(found), len(found))


def compose(photos, number, rng):
  """Returns a scene with one photo of a class among three of others.

  Args:
    photos: list of (class index, path).
    number: of the photo in question.
    rng: random.Random.

  Returns:
    Pillow image, class index, and quadrant (row, column).
  """
  index, path = photos[number]
  quadrant = rng.randrange(2), rng.randrange(2)
  others = [other for label, other in photos if label != index]
  scene = Image.new('RGB', (2 * _CELL, 2 * _CELL))
  for row in range(2):
    for column in range(2):
      with Image.open(path if (row, column) == quadrant else
                      rng.choice(others)) as image:
        image = image.convert('RGB')
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        scene.paste(image.resize((_CELL, _CELL), Image.BILINEAR, (
            left, top, left + side, top + side)),
                    (column * _CELL, row * _CELL))
  return scene, index, quadrant


def draw_scene(labels, number, rng):
  """Returns what `compose` does, of a drawn flower."""
  kind = sorted(draw_flowers.KINDS)[number % len(draw_flowers.KINDS)]
  quadrant = rng.randrange(2), rng.randrange(2)
  image = draw_flowers.draw_flower(
      kind, rng, (0.25 + 0.5 * quadrant[1], 0.25 + 0.5 * quadrant[0]))
  return image, labels.index(kind), quadrant


def is_inside(heat_map, quadrant):
  """Returns whether the maximum of a HeatMap is in a quadrant."""
  if not heat_map.values.any():
    return False
  top, left, height, width = heat_map.window
  place = np.unravel_index(heat_map.values.argmax(), heat_map.values.shape)
  for start, length, position, count, half in zip(
      (top, left), (height, width), place, heat_map.values.shape, quadrant):
    middle = start + length * (position + 0.5) / count
    if abs(middle - 0.5) < 0.25 / count or (middle > 0.5) != bool(half):
      return False
  return True


def prepare_image(image):
  """Returns the photos.Photo of a Pillow image."""
  stream = io.BytesIO()
  image.save(stream, 'JPEG', quality=95)
  return prepare(stream.getvalue())


def count_inside(classifier, scenes):
  """Returns how many maxima are inside, and the number of scenes."""
  inside = total = 0
  for image, index, quadrant in scenes:
    heat_map = classifier.heat_map(prepare_image(image), index)
    inside += is_inside(heat_map, quadrant)
    total += 1
  return inside, total


def deletion_areas(classifier, photo, rng):
  """Returns the areas under the deletion curves of a map and at random."""
  image = classifier.decode(photo)
  index = int(classifier.predict_prepared([image])[0].scores.argmax())
  heat = classifier.heat_map(photo, index, image).values
  orders = [np.argsort(-heat, axis=None, kind='stable')]
  orders += [rng.permutation(heat.size) for _ in range(_ORDERS)]
  areas = [_area(classifier, image, index, order, heat.shape)
           for order in orders]
  return areas[0], statistics.mean(areas[1:])


def _area(classifier, image, index, order, shape):
  """Returns the mean score of a class while an image is deleted in an order."""
  rows, columns = (
      np.minimum(np.arange(side) * count // side, count - 1)
      for side, count in zip(image.shape[:2], shape))
  rank = np.empty(order.size)
  rank[order] = np.arange(order.size)
  ranks = rank.reshape(shape)[np.ix_(rows, columns)]
  images = [np.where((ranks < order.size * step / _STEPS)[..., np.newaxis], 0,
                     image).astype(np.float32) for step in range(_STEPS + 1)]
  return statistics.mean(float(result.scores[index]) for result in
                         classifier.predict_prepared(images))


def print_inside(name, inside, total):
  """Prints a share with its interval."""
  print('%s: maximum inside in %d of %d, %.1f %% (95 %% interval %.1f to %.1f)'
        % (name, inside, total, 100 * inside / total,
           *(100 * side for side in metrics.wilson_interval(inside, total))))


def print_seconds(classifier, photos):
  """Prints how long a classification and a heat map take."""
  start = time.monotonic()
  classifier.heat_maps.load()
  loading = time.monotonic() - start
  seconds = {'classified': [], 'heat map': []}
  for index, path in photos:
    with open(path, 'rb') as file:
      photo = prepare(file.read())
    image = classifier.decode(photo)
    for name, function in (
        ('classified', lambda image=image: classifier.predict_prepared(
            [image])),
        ('heat map', lambda photo=photo, index=index, image=image:
         classifier.heat_map(photo, index, image))):
      start = time.monotonic()
      function()
      seconds[name].append(time.monotonic() - start)
  print('seconds: loading %.2f; per photo, median of %d: %s' % (
      loading, len(photos), ', '.join(
          '%s %.4f' % (name, statistics.median(values))
          for name, values in seconds.items())))


def main(_):
  """Prints the figures."""
  common_flags.require(FLAGS, 'photos')
  classifier = classifier_from_flags()
  photos = find_photos(FLAGS.photos, classifier.labels)
  print('%s, %s, %d photos' % (classifier.info.model_name,
                               classifier.choice.describe(), len(photos)))
  print_seconds(classifier, photos[:30])
  rng = random.Random(1)
  print_inside('four photos', *count_inside(classifier, (
      compose(photos, number % len(photos), rng)
      for number in range(FLAGS.scenes))))
  if FLAGS.drawn:
    print_inside('drawn scenes', *count_inside(classifier, (
        draw_scene(classifier.labels, number, rng)
        for number in range(FLAGS.scenes))))
  areas = []
  for _, path in photos[:FLAGS.deletions]:
    with open(path, 'rb') as file:
      areas.append(deletion_areas(classifier, prepare(file.read()),
                                  np.random.RandomState(len(areas))))
  by_map, at_random = (statistics.mean(column) for column in zip(*areas))
  print('deletion, %d photos: mean score %.3f in the order of the map, %.3f in '
        'random orders; lower with the map for %d photos' % (
            len(areas), by_map, at_random,
            sum(first < second for first, second in areas)))


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
