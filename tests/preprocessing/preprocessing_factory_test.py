"""Tests of preprocessing_factory.py: slim's evaluation, and output shapes."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from common.errors import InputError
from compat import tf
from kits.helpers import ROOT
from preprocessing import preprocessing_factory
from serving.exports import tflite
from serving.model import inference_graph

DATA = os.path.join(ROOT, 'tests', 'data', 'preprocessing')
FAMILIES = sorted(preprocessing_factory.FAMILIES)
# Results of slim's own preprocessing.
with open(os.path.join(DATA, 'eval.json')) as stream:
  SLIMS = json.load(stream)


def _photo(channels):
  photo = np.array(Image.open(os.path.join(DATA, 'input.png')))
  return photo[..., :channels]


def _facts(family):
  return SLIMS.get(family, {'size': 32, 'channels': 3})


def _preprocess(family, is_training, in_pipeline, count=1, **kwargs):
  """Preprocesses the photo `count` times, alone or inside a pipeline."""
  facts = _facts(family)
  size, channels = facts['size'], facts['channels']
  with tf.Graph().as_default(), tf.Session() as session:
    if in_pipeline:
      fn = preprocessing_factory.get_preprocessing(family, is_training, size,
                                                   size)
      images = tf.data.Dataset.from_tensors(_photo(channels)).repeat()
      images = images.map(lambda image: fn(image, **kwargs),
                          num_parallel_calls=2)
      image = tf.data.make_one_shot_iterator(images).get_next()
    else:
      photo = tf.placeholder_with_default(_photo(channels),
                                          [None, None, channels])
      fn = preprocessing_factory.get_preprocessing(family, is_training)
      image = fn(photo, size, size, **kwargs)
    assert image.dtype == tf.float32
    assert image.shape.as_list() == [size, size, channels]
    return [session.run(image) for _ in range(count)]


@pytest.mark.parametrize('in_pipeline', [False, True])
@pytest.mark.parametrize('family', sorted(SLIMS))
def test_evaluation_equals_slims(family, in_pipeline):
  facts = _facts(family)
  first, second = _preprocess(family, False, in_pipeline, count=2)
  np.testing.assert_array_equal(first, second)
  for point in facts['points']:
    np.testing.assert_allclose(first[point[0], point[1]], point[2:], rtol=1e-5,
                               atol=1e-5)
  for name in ('min', 'max', 'mean'):
    np.testing.assert_allclose(getattr(first, name)(), facts[name], rtol=1e-5,
                               atol=1e-5)


@pytest.mark.parametrize('in_pipeline', [False, True])
@pytest.mark.parametrize('family, options', [
    ('cifarnet', {}), ('inception', {}), ('inception', {'fast_mode': False}),
    ('vgg', {})])
def test_training_images_differ_each_time(family, options, in_pipeline):
  images = _preprocess(family, True, in_pipeline, count=3, **options)
  assert not (images[0] == images[1]).all()
  assert not (images[1] == images[2]).all()


@pytest.mark.parametrize('family', FAMILIES)
def test_training_images_depend_only_on_the_seed(family):
  first, again, other = (
      _preprocess(family, True, False,
                  seed=np.array(seed, 'int64'))[0]
      for seed in ([1, 2], [1, 2], [1, 3]))
  np.testing.assert_array_equal(first, again)
  if family in SLIMS:
    assert (first == other).all() == (family == 'lenet')


def test_fast_mode_changes_only_inception():
  for family in SLIMS:
    results = [_preprocess_seeded(family, fast_mode)
               for fast_mode in (None, True, False)]
    np.testing.assert_array_equal(results[0], results[1])
    assert (results[1] == results[2]).all() == (family != 'inception')


def _preprocess_seeded(family, fast_mode):
  """Returns the photo preprocessed for training with a fixed seed."""
  facts = _facts(family)
  fn = preprocessing_factory.get_preprocessing(
      family, True, facts['size'], facts['size'], fast_mode=fast_mode)
  with tf.Graph().as_default(), tf.Session() as session:
    return session.run(fn(tf.constant(_photo(facts['channels'])),
                          seed=tf.constant([1, 2], tf.int64)))


def test_min_crop_area_bounds_the_window_that_is_cropped():
  shape, seeds = np.array([40, 60]), [[1, number] for number in range(60)]
  areas = {}
  for min_area in (None, 0.05, 0.7):
    fn = preprocessing_factory.get_preprocessing('inception', True, 8, 8,
                                                 min_crop_area=min_area)
    with tf.Graph().as_default(), tf.Session() as session:
      seed = tf.placeholder(tf.int64, [2])
      image = tf.placeholder(tf.uint8, [40, 60, 3])
      window = fn.random_window(tf.constant(shape), seed)
      whole, part = (fn(photo, seed=seed, crop_image=crop) for photo, crop in (
          (image, True), (tf.slice(image, tf.concat([window[:2], [0]], 0),
                                   tf.concat([window[2:], [3]], 0)), False)))
      photo = np.random.RandomState(0).randint(0, 256, [40, 60, 3])
      draws = [session.run((window, whole, part), {seed: value, image: photo})
               for value in seeds]
    areas[min_area] = [height * width / 2400 for (_, _, height, width), _, _ in
                       draws]
    for _, from_whole, from_part in draws:
      np.testing.assert_array_equal(from_whole, from_part)
  assert areas[None] == areas[0.05]
  assert min(areas[0.7]) >= 0.7 > min(areas[0.05])
  assert len(set(areas[0.7])) > 5


def test_random_window_exists_only_for_training_with_inception():
  for family in SLIMS:
    for is_training in (False, True):
      fn = preprocessing_factory.get_preprocessing(family, is_training)
      assert (fn.random_window is not None) == (
          family == 'inception' and is_training)


@pytest.mark.parametrize('in_pipeline', [False, True])
def test_training_of_lenet_equals_evaluation(in_pipeline):
  training, = _preprocess('lenet', True, in_pipeline)
  evaluation, = _preprocess('lenet', False, in_pipeline)
  np.testing.assert_array_equal(training, evaluation)


@pytest.mark.parametrize('fast_mode', [True, False])
@pytest.mark.parametrize('is_training', [True, False])
@pytest.mark.parametrize('family', FAMILIES)
def test_use_grayscale_gives_the_grey_of_a_colour_photo_first(
    family, is_training, fast_mode):
  grey = np.rint(_photo(3).dot([0.2989, 0.587, 0.114])).astype(np.uint8)
  with tf.Graph().as_default(), tf.Session() as session:
    fn = preprocessing_factory.get_preprocessing(
        family, is_training, 24, 24, fast_mode, use_grayscale=True)
    arguments = {'seed': tf.constant([1, 2], tf.int64)} if is_training else {}
    results = [fn(tf.constant(image), **arguments)
               for image in (_photo(3), grey[..., np.newaxis])]
    assert [result.shape.as_list() for result in results] == [[24, 24, 1]] * 2
    first, second = session.run(results)
  # A rounding of the weighted sum may differ.
  np.testing.assert_allclose(first, second, atol=1 if family == 'vgg' else 0.02)


@pytest.mark.parametrize('family, means, deviation', [
    ('inception', 127.5, 127.5), ('vgg', [123.68, 116.78, 103.94], 1)])
def test_use_grayscale_in_evaluation_is_the_grey_of_slims_result(
    family, means, deviation):
  weights = [0.2989, 0.587, 0.114]
  results = []
  with tf.Graph().as_default(), tf.Session() as session:
    for use_grayscale in (False, True):
      results.append(session.run(preprocessing_factory.get_preprocessing(
          family, use_grayscale=use_grayscale)(tf.constant(_photo(3)), 32, 32)))
  colour, grey = results
  expected = (colour * deviation + means).dot(weights)
  mean = 127.5 if family == 'inception' else np.dot(means, weights)
  np.testing.assert_allclose(grey[..., 0] * deviation + mean, expected,
                             atol=0.51)


def test_get_preprocessing_unknown_name_lists_the_known_names():
  with pytest.raises(InputError) as error:
    preprocessing_factory.get_preprocessing('inception_v9', False)
  assert "unknown preprocessing 'inception_v9'; known: alexnet_v2" in str(
      error.value)


@pytest.mark.parametrize('height, width', [(None, None), (8, None), (None, 8)])
def test_preprocessing_fn_without_a_size_is_refused(height, width):
  with tf.Graph().as_default():
    fn = preprocessing_factory.get_preprocessing('lenet', False, height, width)
    with pytest.raises(InputError, match="'lenet' needs a height and a width"):
      fn(tf.zeros([4, 4, 1], tf.uint8))


def test_preprocessing_fn_size_of_the_call_takes_precedence():
  with tf.Graph().as_default():
    fn = preprocessing_factory.get_preprocessing('lenet', False, 28, 20)
    image = tf.zeros([40, 40, 1], tf.uint8)
    assert fn(image).shape.as_list() == [28, 20, 1]
    assert fn(image, 10, 12).shape.as_list() == [10, 12, 1]
    assert fn(image, output_width=12).shape.as_list() == [28, 12, 1]


@pytest.mark.parametrize('name, family', [
    ('inception_v4', 'inception'), ('mobilenet_v1_025', 'inception'),
    ('mobilenet_v3_small', 'inception'), ('mobilenet_edgetpu', 'inception'),
    ('nasnet_large', 'inception'), ('resnet_v2_50', 'inception'),
    ('resnet_v1_50', 'vgg'), ('vgg_16', 'vgg'), ('vgg', 'vgg'),
    ('cifarnet', 'cifarnet'), ('lenet', 'lenet')])
def test_network_name_selects_its_family(name, family):
  assert preprocessing_factory.family_of(name) == family
  channels = _facts(family)['channels']
  results = []
  for preprocessing in (name, family):
    with tf.Graph().as_default(), tf.Session() as session:
      fn = preprocessing_factory.get_preprocessing(preprocessing, False, 24, 24)
      results.append(session.run(fn(tf.constant(_photo(channels)))))
  np.testing.assert_array_equal(*results)


def test_all_networks_of_slim_have_a_family():
  # Listed in issue 5, in addition to the networks of the registry.
  names = ('alexnet_v2 overfeat vgg_a vgg_16 vgg_19 inception_v1 inception_v2 '
           'inception_v3 inception_v4 inception_resnet_v2 resnet_v1_50 '
           'resnet_v1_101 resnet_v1_152 resnet_v1_200 resnet_v2_50 '
           'resnet_v2_101 resnet_v2_152 resnet_v2_200 mobilenet_v1 '
           'mobilenet_v2 mobilenet_v2_140 nasnet_cifar nasnet_mobile '
           'nasnet_large pnasnet_large pnasnet_mobile').split()
  assert set(map(preprocessing_factory.family_of, names + ['lenet'])) == set(
      SLIMS)


def test_new_family_needs_only_its_row(monkeypatch):
  received = {}

  def preprocess_image(image, height, width, is_training, fast_mode=False,
                       seed=None):
    received.update(is_training=is_training, fast_mode=fast_mode, seed=seed)
    return tf.zeros([height, width, 3])

  def random_window(shape, seed):
    return tf.stack([seed, 0, shape[0], shape[1]])

  monkeypatch.setitem(
      preprocessing_factory.FAMILIES, 'new', preprocessing_factory.Family(
          preprocess_image,
          preprocessing_factory.Scaling('the top, %(side)d pixels', (8.0,) * 3,
                                        2.0, least_side=40),
          options=('fast_mode',), random_window=random_window))
  fn = preprocessing_factory.get_preprocessing(
      'new', True, 30, 30, fast_mode=True, min_crop_area=0.5)
  with tf.Graph().as_default(), tf.Session() as session:
    assert fn(tf.zeros([50, 60, 3], tf.uint8), seed=7).shape[0] == 30
    assert session.run(fn.random_window([50, 60, 3], 7)).tolist() == [
        7, 0, 50, 60]
    info = inference_graph.build('cifarnet', ['a', 'b'], 30, 'new')
  assert received == {'is_training': True, 'fast_mode': True, 'seed': 7}
  assert tflite.describe_input(info) == (
      'of the upright photo the top, 40 pixels; (value - 8) / 2')


@pytest.mark.parametrize('family', ['inception', 'vgg', 'lenet'])
@pytest.mark.parametrize('height, width', [(120, 80), (75, 201), (96, 96)])
def test_seen_window_is_the_part_that_evaluation_uses(family, height, width):
  size = 48
  # Each pixel has its row, and then its column, as its value.
  rows, columns = np.indices((height, width)).astype(np.uint8)
  channels = 1 if family == 'lenet' else 3
  scaling = preprocessing_factory.FAMILIES[family].scaling
  window = preprocessing_factory.seen_window(family, height, width, size)
  for values, start, length in zip((rows, columns), window[:2], window[2:]):
    with tf.Graph().as_default(), tf.Session() as session:
      image = np.repeat(values[..., np.newaxis], channels, axis=2)
      result = session.run(preprocessing_factory.get_preprocessing(
          family, is_training=False)(tf.constant(image), size, size))
    found = result[..., 0] * scaling.deviation + scaling.mean[0]
    line = found[size // 2] if values is columns else found[:, size // 2]
    expected = start + (np.arange(size) + 0.5) / size * length - 0.5
    # TensorFlow aligns the corners of pixels, not their middles.
    np.testing.assert_allclose(line, expected, atol=0.5 * length / size + 0.6)


def test_seen_window_of_a_small_photo_may_exceed_it():
  assert preprocessing_factory.seen_window('lenet', 20, 28, 28) == (
      -4, 0, 28, 28)
