"""Tests of nets/nets_factory.py: its functions and rows."""

import pytest

from common.errors import InputError
from compat import tf
from nets import nets_factory
from preprocessing import preprocessing_factory

# Pre-trained models in the README of slim whose networks have a row in its
# nets_factory, of 2018 and, from MobileNet V3 on, of 2021.
README_NAMES = [
    'inception_v1', 'inception_v2', 'inception_v3', 'inception_v4',
    'inception_resnet_v2', 'resnet_v1_50', 'resnet_v1_101', 'resnet_v1_152',
    'resnet_v2_50', 'resnet_v2_101', 'resnet_v2_152', 'vgg_16', 'vgg_19',
    'mobilenet_v1_1.0_224', 'mobilenet_v1_0.5_160', 'mobilenet_v1_0.25_128',
    'mobilenet_v2_1.4_224', 'mobilenet_v2_1.0_224', 'nasnet-a_mobile',
    'nasnet-a_large', 'pnasnet-5_large', 'pnasnet-5_mobile',
    'v3-large_224_1.0_float', 'v3-large_224_1.0_uint8',
    'v3-large_224_0.75_float', 'v3-small_224_1.0_float',
    'v3-small_224_1.0_uint8', 'v3-small_224_0.75_float',
    'v3-large-minimalistic_224_1.0_float',
    'v3-large-minimalistic_224_1.0_uint8',
    'v3-small-minimalistic_224_1.0_float', 'mobilenet_edgetpu_224_1.0',
    'mobilenet_edgetpu_224_0.75', 'mobilenet_v1_1.0_224_quant',
    'mobilenet_v1_0.75_192_quant', 'mobilenet_v1_0.5_160_quant',
    'mobilenet_v1_0.25_128_quant', 'quantized_v2_224_140',
    'quantized_v2_224_130', 'quantized_v2_192_100', 'quantized_v2_160_75',
    'quantized_v2_128_50', 'quantized_v2_96_35']


@pytest.mark.parametrize('function', [
    nets_factory.get_network,
    lambda name: nets_factory.get_network_fn(name, 10),
])
def test_get_network_unknown_name_lists_the_known_names(function):
  with pytest.raises(InputError) as error:
    function('inception_v9')
  assert "unknown network 'inception_v9'" in str(error.value)
  assert 'alexnet_v2, cifarnet, inception_resnet_v2, ' in str(error.value)


def test_maps_are_derived_from_the_rows():
  assert set(nets_factory.networks_map) == set(nets_factory.NETWORKS)
  for name, row in nets_factory.NETWORKS.items():
    assert nets_factory.networks_map[name] is row.function
    assert nets_factory.arg_scopes_map[name] is row.arg_scope


def test_rows_name_known_preprocessing_families():
  for name, row in nets_factory.NETWORKS.items():
    assert preprocessing_factory.family_of(name) == row.preprocessing
    assert preprocessing_factory.family_of(row.preprocessing) == (
        row.preprocessing)


def test_network_fn_has_the_default_image_size_and_a_name():
  network_fn = nets_factory.get_network_fn('mobilenet_v1_050', 10)
  assert network_fn.default_image_size == 224
  assert network_fn.__name__ == 'mobilenet_v1'


@pytest.mark.parametrize('num_classes', [0, None])
@pytest.mark.parametrize('name, size, channels, shape', [
    ('cifarnet', 32, 3, [2, 192]),
    ('lenet', 28, 1, [2, 1024]),
    ('mobilenet_v1_025', 64, 3, [2, 1, 1, 256]),
])
def test_network_fn_no_classes_returns_the_features(name, size, channels, shape,
                                                    num_classes):
  with tf.Graph().as_default():
    network_fn = nets_factory.get_network_fn(name, num_classes)
    features, end_points = network_fn(tf.zeros([2, size, size, channels]))
    assert features.shape.as_list() == shape
    row = nets_factory.get_network(name)
    assert features is end_points[row.features]
    assert 'Logits' not in end_points and 'Predictions' not in end_points
    assert not [v for v in tf.global_variables()
                if v.op.name.startswith(row.classifier_scopes)]


def test_network_fn_passes_on_other_arguments():
  with tf.Graph().as_default():
    network_fn = nets_factory.get_network_fn('lenet', 10)
    network_fn(tf.zeros([1, 28, 28, 1]), scope='Digits')
    assert {v.op.name.split('/')[0] for v in tf.global_variables()} == {
        'Digits'}


def test_network_fn_training_applies_dropout():
  with tf.Graph().as_default(), tf.Session() as session:
    network_fn = nets_factory.get_network_fn('lenet', 10, is_training=True)
    _, end_points = network_fn(tf.ones([1, 28, 28, 1]))
    session.run(tf.global_variables_initializer())
    before, after = session.run([end_points['fc3'], end_points['dropout3']])
  dropped = ((before > 0) & (after == 0)).sum() / (before > 0).sum()
  assert 0.3 < dropped < 0.7


def test_network_fn_evaluation_applies_no_dropout():
  with tf.Graph().as_default(), tf.Session() as session:
    network_fn = nets_factory.get_network_fn('lenet', 10)
    _, end_points = network_fn(tf.ones([1, 28, 28, 1]))
    session.run(tf.global_variables_initializer())
    before, after = session.run([end_points['fc3'], end_points['dropout3']])
  assert (before == after).all() and (before > 0).any()


@pytest.mark.parametrize('key', ['Predictions', 'predictions'])
def test_get_predictions_returns_the_end_point(key):
  with tf.Graph().as_default():
    logits = tf.zeros([2, 3])
    predictions = tf.nn.softmax(logits)
    end_points = {'Logits': logits, key: predictions}
    assert nets_factory.get_predictions(logits, end_points) is predictions


def test_get_predictions_without_end_point_adds_a_softmax():
  with tf.Graph().as_default(), tf.Session() as session:
    logits = tf.constant([[0.0, 0.0], [100.0, 0.0]])
    predictions = nets_factory.get_predictions(logits, {'vgg_16/fc8': logits})
    assert predictions.op.name == 'Predictions'
    assert session.run(predictions).tolist() == [[0.5, 0.5], [1.0, 0.0]]


@pytest.mark.parametrize('name, takes', [
    ('inception_v4', True), ('mobilenet_v1_025', True), ('vgg_16', True),
    ('lenet', True), ('resnet_v1_50', False), ('mobilenet_v2', False),
    ('nasnet_mobile', False)])
def test_takes_dropout_depends_on_the_networks_arguments(name, takes):
  assert nets_factory.takes_dropout(name) is takes


@pytest.mark.parametrize('name, channels, shape', [
    ('mobilenet_v1_025', 3, [None, 256]), ('cifarnet', 3, [None, 192])])
def test_get_features_has_one_row_per_photo(name, channels, shape):
  with tf.Graph().as_default():
    images = tf.zeros([2, 64, 64, channels])
    _, end_points = nets_factory.get_network_fn(name, 5)(images)
    features = nets_factory.get_features(name, end_points)
    assert features.shape.as_list()[1:] == shape[1:]


def test_get_features_of_a_larger_image_averages_the_positions():
  with tf.Graph().as_default(), tf.Session() as session:
    spatial = tf.reshape(tf.range(24.0), [2, 2, 3, 2])
    features = nets_factory.get_features(
        'mobilenet_v1', {'AvgPool_1a': spatial})
    assert session.run(features).tolist() == [[5.0, 6.0], [17.0, 18.0]]


def test_rows_have_every_checkpoint_of_slims_readme():
  assert set(README_NAMES) <= set(nets_factory.checkpoint_names())


def test_mobilenets_have_a_checkpoint_of_each_width_and_image_size():
  v1 = ['mobilenet_v1_%s_%d%s' % (width, size, end)
        for width in ('1.0', '0.75', '0.5', '0.25')
        for size in (224, 192, 160, 128) for end in ('', '_quant')]
  v2 = [name % values for width in (140, 130, 100, 75, 50, 35)
        for size in (224, 192, 160, 128, 96) if width <= 100 or size == 224
        for name, values in (
            ('mobilenet_v2_%s_%d', (width / 100, size)),
            ('quantized_v2_%d_%d', (size, width)))]
  found = [row.name for row in published()
           if row.name.startswith(('mobilenet_v', 'quantized'))]
  assert sorted(found) == sorted(v1 + v2)


def published():
  """Returns all published checkpoints."""
  return [c for checkpoints in (
      *(row.checkpoints for row in nets_factory.NETWORKS.values()),
      *nets_factory.OTHER_CHECKPOINTS.values()) for c in checkpoints]


def test_checkpoints_have_distinct_names_and_full_urls():
  rows = published()
  assert len({row.name for row in rows}) == len({row.url for row in rows}) == (
      len(rows))
  for row in rows:
    file = row.url.rpartition('/')[2]
    assert row.url.startswith(('https://storage.googleapis.com/',
                               'https://storage.cloud.google.com/'))
    assert file.startswith(row.name) and file.endswith(('.tar.gz', '.tgz'))
    # There is none of MobileNet V2 with 8 bits, and top 1 only from V3 on.
    accuracies = [value for value in row[3:5] if value is not None]
    assert sorted(set(accuracies)) == accuracies, row.name
    assert all(39 < value < 97 for value in accuracies)
    assert len(accuracies) == (0 if row.name.startswith('quantized_v2') else
                               1 if row.name.startswith(('v3', 'mobilenet_edge')
                                                        ) else 2), row.name
    assert row.is_quantized == any(
        word in row.name for word in ('quant', 'uint8', 'edgetpu'))


def test_checkpoints_with_other_names_in_their_archives_have_slims():
  files = {row.name: row.file for row in published()
           if row.file is None or not row.file.endswith('.ckpt')}
  # The moving averages, not the files 'pristine/model.ckpt-<step>'.
  assert {name: file for name, file in files.items() if file} == {
      'v3-large_224_1.0_float': 'model-540000',
      'v3-large_224_0.75_float': 'model-220000',
      'v3-large-minimalistic_224_1.0_float': 'model-342500',
      'v3-small_224_1.0_float': 'model-388500',
      'v3-small_224_0.75_float': 'model-497500',
      'v3-small-minimalistic_224_1.0_float': 'model-498000'}
  assert all(name.startswith('quantized_v2') or
             name.endswith('uint8') or 'edgetpu' in name
             for name, file in files.items() if not file)


def test_other_checkpoints_are_of_networks_without_a_row():
  assert not set(nets_factory.OTHER_CHECKPOINTS) & set(nets_factory.NETWORKS)
  assert set(nets_factory.OTHER_CHECKPOINTS) == {
      'mobilenet_v3_large_075', 'mobilenet_v3_small_075'}
  network, row = nets_factory.find_checkpoint('mobilenet_v3_large_075')
  assert (network, row.name) == ('mobilenet_v3_large_075',
                                 'v3-large_224_0.75_float')


@pytest.mark.parametrize('name, network, checkpoint, archive', [
    ('mobilenet_v1', 'mobilenet_v1', 'mobilenet_v1_1.0_224',
     'mobilenet_v1_2018_02_22/mobilenet_v1_1.0_224.tgz'),
    ('mobilenet_v1_0.25_128', 'mobilenet_v1_025', 'mobilenet_v1_0.25_128',
     'mobilenet_v1_2018_02_22/mobilenet_v1_0.25_128.tgz'),
    ('nasnet_mobile', 'nasnet_mobile', 'nasnet-a_mobile',
     'nasnet-a_mobile_04_10_2017.tar.gz'),
    ('mobilenet_v1_0.25_128_quant', 'mobilenet_v1_025',
     'mobilenet_v1_0.25_128_quant',
     'mobilenet_v1_2018_08_02/mobilenet_v1_0.25_128_quant.tgz'),
    ('inception_v4', 'inception_v4', 'inception_v4',
     'inception_v4_2016_09_09.tar.gz')])
def test_find_checkpoint_accepts_names_of_checkpoints_and_networks(
    name, network, checkpoint, archive):
  found_network, row = nets_factory.find_checkpoint(name)
  assert (found_network, row.name) == (network, checkpoint)
  assert row.url == (
      'https://storage.googleapis.com/download.tensorflow.org/models/' +
      archive)


@pytest.mark.parametrize('name, address', [
    ('mobilenet_v3_small',
     '.googleapis.com/mobilenet_v3/checkpoints/v3-small_224_1.0_float.tgz'),
    ('quantized_v2_96_35',
     '.googleapis.com/mobilenet_v2/checkpoints/quantized_v2_96_35.tgz'),
    ('mobilenet_edgetpu_075', '.cloud.google.com/mobilenet_edgetpu/checkpoints/'
     'mobilenet_edgetpu_224_0.75.tgz')])
def test_find_checkpoint_of_2021_has_the_address_of_slims_page(name, address):
  assert nets_factory.find_checkpoint(name)[1].url == (
      'https://storage' + address)


def test_find_checkpoint_unknown_name_lists_the_known_names():
  with pytest.raises(InputError) as error:
    nets_factory.find_checkpoint('nope')
  assert "unknown published checkpoint 'nope'; known: " in str(error.value)
  assert 'mobilenet_v2_130, ' in str(error.value)
