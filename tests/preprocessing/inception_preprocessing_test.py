"""Tests of inception_preprocessing.py: distortions are those of slim."""

import numpy as np
import pytest

from compat import tf
from preprocessing import inception_preprocessing as preprocessing


def _draw(build, count):
  """Returns `count` values of the tensor that `build` makes, with a seed."""
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(5)
    output = build()
    return [session.run(output) for _ in range(count)]


def _positions(height, width):
  """Returns a photo whose channels are the row, the column and 0."""
  rows, columns = np.mgrid[0:height, 0:width]
  return np.stack([rows / height, columns / width, 0 * rows],
                  -1).astype('float32')


def test_crop_boxes_are_inside_the_photo_and_have_slims_ranges():
  height, width = 240, 320
  photo = _positions(height, width)
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(5)
    whole = tf.constant([0.0, 0.0, 1.0, 1.0], shape=[1, 1, 4])
    outputs = preprocessing.distorted_bounding_box_crop(
        tf.constant(photo), whole)
    assert outputs[0].shape.as_list() == [None, None, 3]
    draws = [session.run(outputs) for _ in range(300)]
  areas, aspects = [], []
  for cropped, box in draws:
    (top, left, bottom, right), = box[0].tolist()
    assert 0 <= top < bottom <= 1 and 0 <= left < right <= 1
    rows, columns = cropped.shape[:2]
    # The crop is the region of the box.
    np.testing.assert_array_equal(
        cropped, photo[round(top * height):round(bottom * height),
                       round(left * width):round(right * width)])
    areas.append(rows * columns / (height * width))
    aspects.append(columns / rows)
  # Crops are rounded to pixels; the whole photo has 4/3, just above 1.33.
  assert 0.72 < min(aspects) < 0.8 and 1.25 < max(aspects) < 1.38
  # min_object_covered 0.1 is a stricter bound than the least area, 0.05.
  assert 0.098 < min(areas) < 0.2 and 0.7 < max(areas) <= 1.0
  assert 0.35 < np.mean(areas) < 0.65


def test_crop_ranges_of_the_caller_are_used():
  with tf.Graph().as_default(), tf.Session() as session:
    box = tf.constant([0.0, 0.0, 1.0, 1.0], shape=[1, 1, 4])
    cropped, _ = preprocessing.distorted_bounding_box_crop(
        tf.zeros([100, 100, 3]), box, min_object_covered=0.0,
        aspect_ratio_range=(1.9, 2.1), area_range=(0.1, 0.2))
    shapes = [session.run(cropped).shape for _ in range(20)]
  for rows, columns, _ in shapes:
    assert 1.75 < columns / rows < 2.25
    assert 0.09 < rows * columns / 1e4 < 0.21


def test_crop_covers_min_object_covered_of_the_object():
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(5)
    target = tf.constant([0.0, 0.0, 0.2, 0.2], shape=[1, 1, 4])
    _, box = preprocessing.distorted_bounding_box_crop(
        tf.zeros([100, 100, 3]), target, min_object_covered=0.9)
    boxes = [session.run(box)[0, 0] for _ in range(30)]
  for top, left, bottom, right in boxes:
    covered = max(0, min(bottom, 0.2) - top) * max(0, min(right, 0.2) - left)
    assert covered > 0.88 * 0.04


def test_selector_selects_each_case_equally_often():
  draws = _draw(lambda: preprocessing.apply_with_random_selector(
      tf.constant(10), lambda x, case: x + case, 4), 400)
  counts = np.bincount(draws)[10:]
  assert len(counts) == 4 and counts.min() > 70 and counts.max() < 130


def test_selector_one_case_draws_nothing():
  with tf.Graph().as_default() as graph:
    output = preprocessing.apply_with_random_selector(
        tf.constant(10), lambda x, case: x + case, 1)
    assert not [op for op in graph.get_operations() if 'Random' in op.type]
    with tf.Session() as session:
      assert session.run(output) == 10


def test_selector_computes_the_selected_case_only():
  called = []

  def func(x, case):
    return tf.py_func(lambda: called.append(case) or np.int32(case), [],
                      tf.int32) + x

  draws = _draw(lambda: preprocessing.apply_with_random_selector(
      tf.constant(0), func, 3), 20)
  assert called == draws and len(set(draws)) == 3


@pytest.mark.parametrize('fast_mode', [True, False])
def test_distort_color_clips_to_0_and_1(fast_mode):
  extremes = np.random.RandomState(0).randint(0, 2, (8, 8, 3)).astype('f')
  draws = np.array(_draw(lambda: preprocessing.distort_color(
      tf.constant(extremes), 0, fast_mode), 20))
  assert draws.min() == 0.0 and draws.max() == 1.0


@pytest.mark.parametrize('ordering', [-1, 4, None])
def test_distort_color_unknown_order_is_refused(ordering):
  with tf.Graph().as_default():
    with pytest.raises(ValueError, match=r'color_ordering must be in \[0, 3\]'):
      preprocessing.distort_color(tf.zeros([4, 4, 3]), ordering)


@pytest.mark.parametrize('fast_mode', [True, False])
def test_preprocess_for_train_has_shape_and_range(fast_mode):
  photo = np.random.RandomState(0).randint(0, 256, (40, 60, 3)).astype('uint8')
  draws = np.array(_draw(lambda: preprocessing.preprocess_for_train(
      tf.constant(photo), 24, 32, fast_mode=fast_mode), 20))
  assert draws.shape == (20, 24, 32, 3)
  assert -1 <= draws.min() < -0.8 and 0.8 < draws.max() <= 1


def test_preprocess_for_train_flips_half_of_the_photos():
  ramp = np.tile(np.linspace(50, 200, 64).astype('uint8')[None, :, None],
                 (32, 1, 3))
  draws = _draw(lambda: preprocessing.preprocess_for_train(
      tf.constant(ramp), 16, 16), 200)
  flipped = sum(image[8, 0, 0] > image[8, -1, 0] for image in draws)
  assert 70 < flipped < 130


def test_preprocess_for_train_does_not_flip_upside_down():
  ramp = np.tile(np.linspace(50, 200, 64).astype('uint8')[:, None, None],
                 (1, 32, 3))
  for image in _draw(lambda: preprocessing.preprocess_for_train(
      tf.constant(ramp), 16, 16), 30):
    assert image[0, 8, 0] < image[-1, 8, 0]


def test_preprocess_for_train_without_crop_keeps_the_corners():
  photo = np.zeros((32, 32, 3), 'uint8')
  photo[:8, :8] = photo[:8, -8:] = 255
  for image in _draw(lambda: preprocessing.preprocess_for_train(
      tf.constant(photo), 32, 32, random_crop=False), 20):
    bright = image.mean(-1) > 0
    assert bright[:8, :8].all() and bright[:8, -8:].all()
    assert not bright[8:].any() and not bright[:, 8:-8].any()


def test_preprocess_for_train_uses_boxes_of_the_caller():
  photo = np.zeros((100, 100, 3), 'uint8')
  photo[:20, :20] = 255
  draws = _draw(lambda: preprocessing.preprocess_for_train(
      tf.constant(photo), 16, 16,
      bbox=tf.constant([[[0.0, 0.0, 0.2, 0.2]]])), 40)
  assert all((image > 0).any() for image in draws)


def test_preprocess_for_train_fast_mode_resizes_only_bilinearly():
  for fast_mode, count in ((True, 1), (False, 4)):
    with tf.Graph().as_default() as graph:
      preprocessing.preprocess_for_train(tf.zeros([40, 40, 3], tf.uint8), 16,
                                         16, fast_mode=fast_mode)
      types = {op.type for op in graph.get_operations()}
    assert 'ResizeBilinear' in types
    assert len([name for name in types if name.startswith('Resize')]) == count


def test_preprocess_for_train_summaries_are_optional():
  for enabled, count in ((False, 0), (True, 3)):
    with tf.Graph().as_default(), tf.Session() as session:
      preprocessing.preprocess_for_train(
          tf.zeros([40, 40, 3], tf.uint8), 16, 16, add_image_summaries=enabled)
      summaries = tf.get_collection(tf.GraphKeys.SUMMARIES)
      assert len(summaries) == count
      assert all(session.run(summaries)) or not enabled


def test_preprocess_for_eval_crops_the_middle():
  photo = np.zeros((80, 80, 3), 'float32')
  photo[5:75, 5:75] = 1.0  # 0.875 of 80 is 70.
  image, = _draw(lambda: preprocessing.preprocess_for_eval(
      tf.constant(photo), 70, 70), 1)
  assert (image == 1.0).all()


def _preprocess_like_slim(image, height, width):
  """Returns a photo preprocessed like slim, converted as a whole to float32."""
  image = tf.image.central_crop(image, 0.875)
  image = tf.image.convert_image_dtype(image, tf.float32)
  return (tf.image.resize_images(image, [height, width]) - 0.5) * 2.0


# Integers are scaled after the resizing, which rounds differently.
@pytest.mark.parametrize('dtype, difference', [('uint8', 1e-6),
                                               ('float32', 0)])
def test_preprocess_for_eval_photo_of_any_size_equals_slims(dtype, difference):
  random = np.random.RandomState(4)
  with tf.Graph().as_default(), tf.Session() as session:
    image = tf.placeholder(dtype, [None, None, 3])
    outputs = [preprocess(image, 48, 40) for preprocess in (
        preprocessing.preprocess_for_eval, _preprocess_like_slim)]
    # Few pixels, then many, both portrait and landscape, then thin photos.
    for shape in [(48, 40), (130, 130), (147, 149), (700, 501), (403, 1999),
                  (2001, 35), (3, 9000), (1, 20000)]:
      photo = random.randint(0, 256, shape + (3,))
      photo = photo.astype(dtype) / (255 if dtype == 'float32' else 1)
      np.testing.assert_allclose(*session.run(outputs, {image: photo}),
                                 rtol=0, atol=difference, err_msg=str(shape))


@pytest.mark.parametrize('options', [{'central_crop': False},
                                     {'central_fraction': None}])
def test_preprocess_for_eval_without_crop_keeps_the_whole_photo(options):
  photo = np.random.RandomState(0).rand(20, 30, 3).astype('float32')
  image, = _draw(lambda: preprocessing.preprocess_for_eval(
      tf.constant(photo), 20, 30, **options), 1)
  np.testing.assert_allclose(image, photo * 2 - 1, atol=1e-6)


def test_preprocess_for_eval_without_size_does_not_resize():
  image, = _draw(lambda: preprocessing.preprocess_for_eval(
      tf.zeros([80, 160, 3]), None, None), 1)
  assert image.shape == (70, 140, 3)


@pytest.mark.parametrize('is_training', [False, True])
def test_preprocess_image_without_crop_keeps_the_corners_in_both_modes(
    is_training):
  photo = np.zeros((32, 32, 3), 'uint8')
  photo[0, 0] = photo[0, -1] = 255
  image, = _draw(lambda: preprocessing.preprocess_image(
      tf.constant(photo), 32, 32, is_training, crop_image=False), 1)
  assert image[0, 0].mean() > 0 and image[0, -1].mean() > 0


@pytest.mark.parametrize('fast_mode', [True, False])
def test_preprocess_image_runs_in_a_pipeline_of_the_caller(fast_mode):
  photo = np.random.RandomState(0).randint(0, 256, (40, 60, 3)).astype('uint8')
  with tf.Graph().as_default(), tf.Session() as session:
    images = tf.data.Dataset.from_tensors(photo).repeat(12)
    images = images.map(lambda image: preprocessing.preprocess_image(
        image, 24, 32, is_training=True, fast_mode=fast_mode))
    batch = tf.data.make_one_shot_iterator(images.batch(12)).get_next()
    batch = session.run(batch)
  assert batch.shape == (12, 24, 32, 3)
  assert len({image.tobytes() for image in batch}) == 12
  assert -1 <= batch.min() < -0.8 and 0.8 < batch.max() <= 1
