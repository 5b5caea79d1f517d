"""Tests of nets/nasnet/nasnet.py: options.

To be fast to build, cells are TINY where only their order and the heads matter.
registry_test.py builds the whole networks.
"""

import inspect

import numpy as np
import pytest

from compat import slim, tf
from kits import nets_kit
from nets import nets_factory
from nets.batch_norm import batch_norm
from nets.nasnet import hparams, nasnet, nasnet_utils

pytestmark = pytest.mark.slow

TINY = nasnet_utils.Cell(
    (nasnet_utils.Combination('max_pool_3x3', 0, 'none', 1),), output=(2,))

NETWORKS = {
    'cifar': (nasnet.build_nasnet_cifar, nasnet.nasnet_cifar_arg_scope,
              nasnet.cifar_config),
    'mobile': (nasnet.build_nasnet_mobile, nasnet.nasnet_mobile_arg_scope,
               nasnet.mobile_imagenet_config),
    'large': (nasnet.build_nasnet_large, nasnet.nasnet_large_arg_scope,
              nasnet.large_imagenet_config),
}

# End points of a network of three cells.
END_POINTS = ['Stem', 'Cell_0', 'Reduction_Cell_0', 'Cell_1', 'AuxLogits',
              'Reduction_Cell_1', 'Cell_2', 'global_pool', 'Logits',
              'Predictions']

CONFIGS = {
    'cifar': (3.0, 0.6, 18, 32, 1.0, 0, 937500),
    'mobile': (1.0, 1.0, 12, 44, 0.5, 0, 250000),
    'large': (3.0, 0.7, 18, 168, 0.5, 1, 250000),
}


@pytest.fixture(autouse=True)
def tiny_cells(monkeypatch):
  for cell in (nasnet_utils.NasNetANormalCell,
               nasnet_utils.NasNetAReductionCell):
    monkeypatch.setattr(cell, 'cell', TINY)


def _config(name, **values):
  return NETWORKS[name][2]().override_from_dict(
      dict({'num_cells': 3, 'num_conv_filters': 8}, **values))


def _build(name, images, num_classes=7, config=None, **options):
  network, arg_scope, _ = NETWORKS[name]
  with slim.arg_scope(arg_scope()):
    return network(images, num_classes, config=config or _config(name),
                   **options)


def _photos(batch=2, size=96):
  return tf.zeros([batch, size, size, 3])


def _operations(kind):
  return [op.name for op in tf.get_default_graph().get_operations()
          if op.type == kind]


@pytest.mark.parametrize('name', sorted(NETWORKS))
def test_network_training_has_slims_end_points_in_order(name):
  with tf.Graph().as_default():
    logits, end_points = _build(name, _photos())
    assert list(end_points) == END_POINTS
    assert logits is end_points['Logits']
    # 96 pixels, or 47, 24 and 12 in the stem for ImageNet.
    sizes = (96, 48, 24) if name == 'cifar' else (12, 6, 3)
    assert [end_points[key].shape.as_list() for key in (
        'Cell_0', 'Reduction_Cell_0', 'Cell_1', 'Cell_2', 'global_pool',
        'AuxLogits', 'Predictions')] == [
            [2, sizes[0], sizes[0], 8], [2, sizes[1], sizes[1], 16],
            [2, sizes[1], sizes[1], 16], [2, sizes[2], sizes[2], 32], [2, 32],
            [2, 7], [2, 7]]


@pytest.mark.parametrize('name, size', [('cifar', 32), ('mobile', 224),
                                        ('large', 331)])
def test_builder_has_slims_arguments_and_size(name, size):
  network = NETWORKS[name][0]
  assert network.default_image_size == size
  arguments = list(inspect.signature(network).parameters.values())
  names = ['images', 'num_classes', 'is_training', 'config', 'current_step']
  if name == 'cifar':
    names.append('final_endpoint')  # slim has it in the others only.
  else:
    names.insert(3, 'final_endpoint')
  assert [argument.name for argument in arguments] == names
  assert [argument.default for argument in arguments[2:]] == [
      True, None, None, None]


@pytest.mark.parametrize('name', sorted(NETWORKS))
def test_config_has_the_published_values(name):
  names = ('stem_multiplier', 'drop_path_keep_prob', 'num_cells',
           'num_conv_filters', 'dense_dropout_keep_prob',
           'skip_reduction_layer_input', 'total_training_steps')
  assert NETWORKS[name][2]().values() == dict(
      zip(names, CONFIGS[name]), filter_scaling_rate=2.0,
      num_reduction_layers=2, use_aux_head=1, data_format='NHWC',
      use_bounded_activation=False)


@pytest.mark.parametrize('name, weight_decay, decay, epsilon', [
    ('cifar', 5e-4, 0.9, 1e-5), ('mobile', 4e-5, 0.9997, 1e-3),
    ('large', 5e-5, 0.9997, 1e-3)])
def test_arg_scope_has_the_published_values(name, weight_decay, decay, epsilon):
  with tf.Graph().as_default(), tf.Session() as session:
    with slim.arg_scope(NETWORKS[name][1]()) as scope, slim.arg_scope(
        [slim.conv2d], weights_initializer=tf.ones_initializer()):
      net = batch_norm(slim.conv2d(_photos(1, 4), 2, 1))
    assert scope[slim.arg_scope_func_key(slim.batch_norm)] == {
        'decay': decay, 'epsilon': epsilon, 'scale': True, 'fused': True}
    # Neither biases nor an activation.
    assert set(nets_kit.variable_shapes()) == {'Conv/weights'} | {
        'BatchNorm/' + part for part in ('beta', 'gamma', 'moving_mean',
                                         'moving_variance')}
    assert net.op.type.startswith('FusedBatchNorm')
    session.run(tf.global_variables_initializer())
    # The L2 loss of 3 x 2 ones is 3.
    assert session.run(tf.losses.get_regularization_losses()) == pytest.approx(
        [3 * weight_decay])


@pytest.mark.parametrize('num_classes', [0, None])
def test_network_no_classes_returns_the_pooled_features(num_classes):
  with tf.Graph().as_default():
    net, end_points = _build('cifar', _photos(), num_classes)
    assert net.op.name.startswith('final_layer/Mean')
    assert net.shape.as_list() == [2, 32]
    assert list(end_points) == [
        name for name in END_POINTS[:-2] if name != 'AuxLogits']
    assert not [name for name in nets_kit.variable_shapes()
                if name.startswith(('final_layer', 'aux_'))]


@pytest.mark.parametrize('final_endpoint', [
    'Stem', 'Reduction_Cell_0', 'Cell_0', 'global_pool', 'Logits',
    'Predictions'])
def test_network_final_endpoint_builds_nothing_after_it(final_endpoint):
  with tf.Graph().as_default():
    net, end_points = _build('cifar', _photos(),
                             final_endpoint=final_endpoint)
    assert net is end_points[final_endpoint]
    assert list(end_points) == END_POINTS[:END_POINTS.index(final_endpoint) + 1]
    last = tf.get_default_graph().get_operations()[-1]
    assert last.name.split('/')[0] == net.op.name.split('/')[0]


def test_network_stem_convolution_has_valid_padding():
  with tf.Graph().as_default():
    net, _ = _build('mobile', _photos(1, 33), final_endpoint='Stem')
    assert net.shape.as_list() == [1, 4, 4, 4]  # 33, 16, 8, 4.


@pytest.mark.parametrize('final_endpoint, num_classes', [('Cell_3', 7),
                                                         ('Logits', None)])
def test_network_unknown_final_endpoint_is_refused(final_endpoint, num_classes):
  with tf.Graph().as_default():
    with pytest.raises(ValueError, match='%r; known: Cell_0, ' %
                       final_endpoint):
      _build('cifar', _photos(), num_classes, final_endpoint=final_endpoint)
    assert tf.global_variables() == []


@pytest.mark.parametrize('values, is_training, present', [
    ({}, True, True), ({'use_aux_head': 0}, True, False), ({}, False, False),
    ({'num_reduction_layers': 1}, True, False)])
def test_network_aux_head_is_built_in_training_on_request(values, is_training,
                                                          present):
  with tf.Graph().as_default():
    _, end_points = _build('cifar', _photos(), is_training=is_training,
                           config=_config('cifar', **values))
    assert ('AuxLogits' in end_points) == present
    assert bool([name for name in nets_kit.variable_shapes()
                 if name.startswith('aux_1/')]) == present


def test_network_aux_head_has_slims_variables():
  row = nets_factory.get_network('nasnet_mobile')
  with tf.Graph().as_default():
    _build('mobile', _photos(1, 224), config=nasnet.mobile_imagenet_config())
    shapes = nets_kit.variable_shapes()
  scope = row.classifier_scopes[1] + '/'
  aux_shapes = {variable[len(scope):]: shape
                for variable, shape in shapes.items()
                if variable.startswith('aux_')}
  # The tiny cells have 2 * 44 channels there, slim's 6 * 2 * 44.
  expected = {'aux_logits/proj/weights': [1, 1, 88, 128],
              'aux_logits/Conv/weights': [4, 4, 128, 768],
              'aux_logits/FC/weights': [768, 7], 'aux_logits/FC/biases': [7]}
  for norm, width in (('aux_bn0', 128), ('aux_bn1', 768)):
    for part in ('beta', 'gamma', 'moving_mean', 'moving_variance'):
      expected['aux_logits/%s/%s' % (norm, part)] = [width]
  assert aux_shapes == expected


@pytest.mark.parametrize('size', [None, 8])
def test_network_aux_head_at_unsuitable_size_is_refused(size):
  with tf.Graph().as_default():
    images = tf.placeholder(tf.float32, [1, size, size, 3])
    with pytest.raises(ValueError, match='use_aux_head 0 builds'):
      _build('cifar', images)


def test_network_channels_first_has_the_same_variables():
  results = []
  for data_format in ('NHWC', 'NCHW'):
    with tf.Graph().as_default():
      _, end_points = _build('cifar', _photos(), config=_config(
          'cifar', data_format=data_format))
      results.append((nets_kit.variable_shapes(),
                      end_points['AuxLogits'].shape.as_list()))
      shape = end_points['Cell_2'].shape.as_list()
      assert shape.index(32) == {'NHWC': 3, 'NCHW': 1}[data_format]
  assert results[0] == results[1]


def test_network_channels_first_stem_has_slims_shape():
  config = nasnet.cifar_config()
  config.set_hparam('data_format', 'NCHW')
  with tf.Graph().as_default():
    _, end_points = _build('cifar', _photos(5, 32), config=config,
                           final_endpoint='Stem')
    assert end_points['Stem'].shape.as_list() == [5, 96, 32, 32]


def test_network_unknown_data_format_is_refused():
  with tf.Graph().as_default():
    with pytest.raises(ValueError, match="or 'NCHW', got 'NWHC'"):
      _build('cifar', _photos(), config=_config('cifar', data_format='NWHC'))


@pytest.mark.parametrize('name', ['cifar', 'large'])
def test_network_unknown_batch_and_image_size_runs_at_two_sizes(name):
  with tf.Graph().as_default(), tf.Session() as session:
    images = tf.placeholder(tf.float32, [None, None, None, 3])
    logits, _ = _build(name, images, is_training=False)
    assert logits.shape.as_list() == [None, 7]
    unknown = nets_kit.variable_shapes()
    session.run(tf.global_variables_initializer())
    for shape in ((2, 96, 96, 3), (1, 67, 80, 3)):
      assert session.run(logits, {images: np.ones(shape)}).shape == (
          shape[0], 7)
  with tf.Graph().as_default():
    _build(name, _photos(), is_training=False)
    assert nets_kit.variable_shapes() == unknown


def test_network_reuse_shares_the_variables():
  with tf.Graph().as_default():
    _build('mobile', _photos(), is_training=False)
    before = tf.global_variables()
    with tf.variable_scope(tf.get_variable_scope(), reuse=True):
      _build('mobile', _photos(), is_training=False)
    assert tf.global_variables() == before


def test_network_does_not_change_the_config():
  config = _config('cifar')
  before = config.values()
  with tf.Graph().as_default():
    _build('cifar', _photos(), is_training=False, config=config)
  assert config.values() == before
  assert config.drop_path_keep_prob == 0.6


@pytest.mark.parametrize('name, is_training, dropped', [
    ('cifar', True, 5), ('cifar', False, 0), ('mobile', True, 0)])
def test_network_drops_paths_only_in_training(name, is_training, dropped):
  with tf.Graph().as_default():
    _build(name, _photos(), is_training=is_training,
           config=_config(name, dense_dropout_keep_prob=1.0))
    # One path in each of the tiny cells, the reductions included.
    assert len([op for op in _operations('RandomUniform')
                if 'cell_' in op]) == dropped
    steps = [v.op.name for v in tf.global_variables() if 'step' in v.op.name]
    assert steps == (['global_step'] if dropped else [])


def _logits_twice(session, logits, feed=None):
  return [session.run(logits, feed) for _ in range(2)]


def test_network_current_step_sets_how_many_paths_are_dropped():
  with tf.Graph().as_default(), tf.Session() as session:
    step = tf.placeholder(tf.int64, [])
    images = tf.constant(nets_kit.seeded_image(32, 3))
    logits, _ = _build('cifar', images, current_step=step)
    session.run(tf.global_variables_initializer())
    first, second = _logits_twice(session, logits, {step: 0})
    np.testing.assert_array_equal(first, second)
    runs = [session.run(logits, {step: 937500}) for _ in range(4)]
  assert any((run != first).any() for run in runs)


@pytest.mark.parametrize('keep_prob, random', [(0.5, True), (1.0, False)])
def test_network_dropout_uses_the_keep_prob_of_the_config(keep_prob, random):
  with tf.Graph().as_default(), tf.Session() as session:
    config = _config('mobile', dense_dropout_keep_prob=keep_prob)
    logits, _ = _build('mobile', tf.constant(nets_kit.seeded_image(96, 3)),
                       config=config)
    session.run(tf.global_variables_initializer())
    first, second = _logits_twice(session, logits)
  assert (first != second).any() == random


@pytest.mark.parametrize('bounded', [True, False])
def test_network_bounded_activation_replaces_every_relu(bounded):
  with tf.Graph().as_default():
    _build('cifar', _photos(), config=_config(
        'cifar', use_bounded_activation=bounded))
    kinds = {True: 'Relu6', False: 'Relu'}
    assert len(_operations(kinds[bounded])) > 10
    assert _operations(kinds[not bounded]) == []


@pytest.mark.parametrize('skip, read, unread', [(0, 'Cell_0', 'Stem'),
                                                (1, 'Stem', 'Cell_0')])
def test_network_skip_reduction_layer_input_reads_one_layer_further_back(
    skip, read, unread):
  with tf.Graph().as_default():
    _, end_points = _build('cifar', _photos(), config=_config(
        'cifar', skip_reduction_layer_input=skip))
    readers = {name: {op.name.split('/')[0]
                      for op in end_points[name].consumers()}
               for name in (read, unread)}
    assert 'cell_1' in readers[read] and 'cell_1' not in readers[unread]


def test_network_filter_scaling_and_stem_follow_the_config():
  with tf.Graph().as_default():
    _, end_points = _build('mobile', _photos(), is_training=False,
                           config=_config('mobile', filter_scaling_rate=3.0,
                                          num_conv_filters=18,
                                          stem_multiplier=0.25))
    assert [end_points[name].shape.as_list()[3] for name in (
        'Stem', 'Cell_0', 'Cell_1', 'Cell_2')] == [6, 18, 54, 162]
    shapes = nets_kit.variable_shapes()
  assert shapes['conv0/weights'] == [3, 3, 3, 8]
  assert shapes['cell_stem_0/1x1/weights'] == [1, 1, 8, 2]


def test_network_trainable_scopes_of_the_caller_limit_the_updates():
  with tf.Graph().as_default(), slim.arg_scope([batch_norm],
                                               trainable_scopes=['aux_1']):
    _build('cifar', _photos())
    updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    assert len(updates) == 4
    assert all(op.name.startswith('aux_1/') for op in updates)


def test_hparams_are_read_and_set_by_name():
  config = hparams.HParams(count=3, share=0.5, name='NHWC', bounded=False)
  config.set_hparam('count', 4)
  config.set_hparam('share', 1)
  config.set_hparam('bounded', True)
  assert config.override_from_dict({'name': 'NCHW'}) is config
  assert config.values() == {'count': 4, 'share': 1.0, 'name': 'NCHW',
                             'bounded': True}
  assert isinstance(config.share, float)
  config.count = 5
  assert config.get('count') == config.values()['count'] == 5
  assert config.get('unknown') is None and config.get('unknown', 2) == 2
  assert 'count' in config and 'unknown' not in config


@pytest.mark.parametrize('name, value, message', [
    ('cuont', 3, "unknown hyperparameter 'cuont'; known: bounded, count, name"),
    ('count', 3.5, 'count must be of type int, got 3.5'),
    ('count', True, 'count must be of type int, got True'),
    ('share', '0.5', "share must be of type float, got '0.5'"),
    ('name', 3, 'name must be of type str, got 3'),
    ('bounded', 1, 'bounded must be of type bool, got 1')])
def test_hparams_unknown_name_or_wrong_type_is_refused(name, value, message):
  config = hparams.HParams(count=3, share=0.5, name='NHWC', bounded=False)
  before = config.values()
  with pytest.raises(ValueError, match=message):
    config.set_hparam(name, value)
  assert config.values() == before


def test_hparams_parse_sets_values_of_their_types():
  config = hparams.HParams(count=3, share=0.5, name='NHWC', bounded=False)
  assert config.parse('count=4, share=1,name=NCHW,bounded=true') is config
  assert config.values() == {'count': 4, 'share': 1.0, 'name': 'NCHW',
                             'bounded': True}
  assert isinstance(config.share, float)


@pytest.mark.parametrize('text, message', [
    ('count', 'name=value'), ('counts=4', 'hyperparameter'),
    ('count=four', "count must be of type int, got 'four'"),
    ('bounded=maybe', 'bounded must be of type bool')])
def test_hparams_parse_invalid_text_is_refused(text, message):
  config = hparams.HParams(count=3, bounded=False)
  with pytest.raises(ValueError, match=message):
    config.parse(text)


def test_hparams_add_hparam_accepts_only_new_names():
  config = hparams.HParams(count=3)
  config.add_hparam('depth', 2)
  config.set_hparam('depth', 5)
  assert config.values() == {'count': 3, 'depth': 5}
  for name in ('count', 'values'):
    with pytest.raises(ValueError, match='exists already'):
      config.add_hparam(name, 1)
