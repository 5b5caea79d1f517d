"""Small data sets, and batches of their photos."""

from compat import tf
from datasets import input_pipeline, record_dataset
from kits import dataset_kit


def preprocess(image, height, width):
  """Resizes an image: deterministic, as for evaluation."""
  return tf.image.resize_images(tf.cast(image, tf.float32), [height, width])


def preprocess_randomly(image, height, width):
  """Resizes an image and adds a random number: random, as for training."""
  image = preprocess(image, height, width)
  return image + tf.random_uniform([], maxval=1000)


def make_dataset(folder, sizes, num_classes=2, labels=None):
  """Returns a Dataset of files with the given numbers of records.

  The file name of each photo is its number, from 0.
  """
  paths = dataset_kit.make_shards(folder, 'pets', 'train', sizes, num_classes)
  return record_dataset.make_dataset(
      list(map(str, paths)), sum(sizes),
      labels or ['class %d' % index for index in range(num_classes)])


def run_batches(make_batches, count=None):
  """Returns the first `count` batches, or all: list of dicts of arrays."""
  with tf.Graph().as_default(), tf.Session() as session:
    batches = make_batches()
    element = tf.data.make_one_shot_iterator(batches).get_next()
    results = []
    while count is None or len(results) < count:
      try:
        results.append(session.run(element))
      except tf.errors.OutOfRangeError:
        break
    return results


def train_batches(dataset, count, batch_size=4, preprocessing_fn=preprocess,
                  **kwargs):
  """Returns batches for training, as `run_batches` does."""
  return run_batches(lambda: input_pipeline.training_batches(
      dataset, preprocessing_fn, 8, batch_size, **kwargs), count)


def eval_batches(dataset, batch_size=4, preprocessing_fn=preprocess, **kwargs):
  """Returns all batches for evaluation, as `run_batches` does."""
  return run_batches(lambda: input_pipeline.evaluation_batches(
      dataset, preprocessing_fn, 8, batch_size, **kwargs))


def photo_numbers(batches):
  """Returns the numbers of the photos in batches, in order."""
  return [int(name) for batch in batches for name in batch['filename']]


def decode(encoded, channels=3, size=(10, 12)):
  """Returns the pixels of a photo file, decoded by photo_to_input."""
  with tf.Graph().as_default(), tf.Session() as session:
    image = input_pipeline.photo_to_input(
        tf.constant(encoded), lambda image, *_: tf.cast(image, tf.float32),
        *size, channels=channels)
    assert image.shape.as_list() == [*size, channels]
    return session.run(image)
