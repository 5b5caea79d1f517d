"""Tests of nets/nasnet/pnasnet.py: options.

To be fast to build, cells are TINY where only their order matters.
registry_test.py builds the whole large network.
"""

import inspect

import numpy as np
import pytest

from compat import slim, tf
from kits import nets_kit
from nets.nasnet import nasnet_utils, pnasnet

pytestmark = pytest.mark.slow

TINY = nasnet_utils.Cell(
    (nasnet_utils.Combination('max_pool_3x3', 0, 'none', 1),), output=(2,))

# End points of a network of three cells.
END_POINTS = ['Stem', 'Cell_0', 'Cell_1', 'AuxLogits', 'Cell_2', 'global_pool',
              'Logits', 'Predictions']

NETWORKS = {
    'large': (pnasnet.build_pnasnet_large, pnasnet.pnasnet_large_arg_scope,
              pnasnet.large_imagenet_config),
    'mobile': (pnasnet.build_pnasnet_mobile, pnasnet.pnasnet_mobile_arg_scope,
               pnasnet.mobile_imagenet_config),
}


@pytest.fixture
def tiny_cells(monkeypatch):
  monkeypatch.setattr(pnasnet.PNasNetNormalCell, 'cell', TINY)


def _config(name, **values):
  return NETWORKS[name][2]().override_from_dict(
      dict({'num_cells': 3, 'num_conv_filters': 8}, **values))


def _build(name, images, num_classes=7, config=None, **options):
  network, arg_scope, _ = NETWORKS[name]
  with slim.arg_scope(arg_scope()):
    return network(images, num_classes, config=config or _config(name),
                   **options)


def _photos():
  return tf.zeros([2, 96, 96, 3])


@pytest.mark.parametrize('name', sorted(NETWORKS))
def test_network_training_has_slims_end_points_in_order(name, tiny_cells):
  with tf.Graph().as_default():
    logits, end_points = _build(name, _photos())
    assert list(end_points) == END_POINTS
    assert logits is end_points['Logits']
    assert [end_points[key].shape.as_list() for key in (
        'Stem', 'Cell_0', 'Cell_1', 'Cell_2', 'global_pool', 'AuxLogits',
        'Predictions')] == [
            [2, 12, 12, 4], [2, 12, 12, 8], [2, 6, 6, 16], [2, 3, 3, 32],
            [2, 32], [2, 7], [2, 7]]
    assert 'aux_1/aux_logits/FC/weights' in nets_kit.variable_shapes()


@pytest.mark.parametrize('name, size, filters, cells, multiplier, keep_prob', [
    ('large', 331, 216, 12, 3.0, 0.6), ('mobile', 224, 54, 9, 1.0, 1.0)])
def test_network_has_the_published_values(name, size, filters, cells,
                                          multiplier, keep_prob):
  network, arg_scope, config = NETWORKS[name]
  assert network.default_image_size == size
  arguments = list(inspect.signature(network).parameters)
  assert arguments == ['images', 'num_classes', 'is_training',
                       'final_endpoint', 'config', 'current_step']
  assert config().values() == dict(
      num_cells=cells, num_conv_filters=filters, stem_multiplier=multiplier,
      drop_path_keep_prob=keep_prob, dense_dropout_keep_prob=0.5,
      skip_reduction_layer_input=1, total_training_steps=250000,
      filter_scaling_rate=2.0, num_reduction_layers=2, use_aux_head=1,
      data_format='NHWC', use_bounded_activation=False)
  values = {argument.name: argument.default for argument in
            inspect.signature(arg_scope).parameters.values()}
  assert values == {'weight_decay': 4e-5, 'batch_norm_decay': 0.9997,
                    'batch_norm_epsilon': 0.001}
  scope = arg_scope(batch_norm_decay=0.5)
  assert scope[slim.arg_scope_func_key(slim.batch_norm)] == {
      'decay': 0.5, 'epsilon': 0.001, 'scale': True, 'fused': True}


def test_network_mobile_default_config_is_mobile_imagenet_config(tiny_cells):
  with tf.Graph().as_default(), slim.arg_scope(
      pnasnet.pnasnet_mobile_arg_scope()):
    logits, end_points = pnasnet.build_pnasnet_mobile(_photos(), 7)
    assert logits.shape.as_list() == [2, 7]
    assert end_points['global_pool'].shape.as_list() == [2, 4 * 54]
    assert 'Cell_8' in end_points and 'Cell_9' not in end_points
    assert 'aux_5/aux_logits/FC/weights' in nets_kit.variable_shapes()


def test_network_stem_cells_have_slims_variables():
  with tf.Graph().as_default():
    net, _ = _build('large', _photos(), final_endpoint='Stem')
    assert net.shape.as_list() == [2, 12, 12, 5 * 4]
    shapes = nets_kit.variable_shapes()
  assert shapes['cell_stem_0/1x1/weights'] == [1, 1, 96, 2]
  # An identity that reads the cell's own input needs no projection.
  assert 'cell_stem_0/comb_iter_0/right/1x1/weights' in shapes
  assert 'cell_stem_1/comb_iter_0/right/1x1/weights' not in shapes


def test_network_no_classes_returns_the_pooled_features(tiny_cells):
  with tf.Graph().as_default():
    net, end_points = _build('large', _photos(), None)
    assert net.op.name.startswith('final_layer/Mean')
    assert net.shape.as_list() == [2, 32]
    assert list(end_points) == [
        name for name in END_POINTS[:-2] if name != 'AuxLogits']


@pytest.mark.parametrize('values, is_training', [({'use_aux_head': 0}, True),
                                                 ({}, False)])
def test_network_without_aux_head_has_no_auxiliary_logits(values, is_training,
                                                          tiny_cells):
  with tf.Graph().as_default():
    _, end_points = _build('large', _photos(), is_training=is_training,
                           config=_config('large', **values))
    assert 'AuxLogits' not in end_points
    assert not [name for name in nets_kit.variable_shapes()
                if name.startswith('aux_')]


def test_network_unknown_final_endpoint_is_refused():
  with tf.Graph().as_default():
    with pytest.raises(ValueError, match="'Reduction_Cell_0'; known: Cell_0, "):
      _build('large', _photos(), final_endpoint='Reduction_Cell_0')
    assert tf.global_variables() == []


def test_network_channels_first_stem_has_slims_shape(tiny_cells):
  with tf.Graph().as_default():
    net, _ = _build('large', _photos(), final_endpoint='Stem',
                    config=_config('large', data_format='NCHW'))
    assert net.shape.as_list() == [2, 4, 12, 12]


@pytest.mark.parametrize('skip, read, unread', [(1, 'Cell_0', 'Stem'),
                                                (0, 'Stem', 'Cell_0')])
def test_network_skip_reduction_layer_input_selects_what_reductions_read(
    skip, read, unread, tiny_cells):
  with tf.Graph().as_default():
    _, end_points = _build('large', _photos(), config=_config(
        'large', skip_reduction_layer_input=skip))
    readers = {name: {op.name.split('/')[0]
                      for op in end_points[name].consumers()}
               for name in (read, unread)}
    assert 'cell_2' in readers[read] and 'cell_2' not in readers[unread]


def test_network_consecutive_reductions_without_skip_are_built(tiny_cells):
  # The layer three steps back is then four times as large.
  with tf.Graph().as_default():
    _, end_points = _build('large', _photos(), is_training=False,
                           config=_config('large', num_cells=2,
                                          skip_reduction_layer_input=0))
    assert end_points['Cell_1'].shape.as_list() == [2, 3, 3, 32]


def test_network_unknown_image_size_runs_at_two_sizes(tiny_cells):
  with tf.Graph().as_default(), tf.Session() as session:
    images = tf.placeholder(tf.float32, [None, None, None, 3])
    logits, _ = _build('large', images, is_training=False)
    session.run(tf.global_variables_initializer())
    for shape in ((2, 96, 96, 3), (1, 67, 80, 3)):
      assert session.run(logits, {images: np.ones(shape)}).shape == (
          shape[0], 7)


def test_network_training_drops_paths_by_the_global_step(tiny_cells):
  with tf.Graph().as_default(), tf.Session() as session:
    step = tf.train.create_global_step()
    config = _config('large', dense_dropout_keep_prob=1.0)
    logits, _ = _build('large', tf.constant(nets_kit.seeded_image(96, 3)),
                       config=config)
    session.run(tf.global_variables_initializer())
    first, second = (session.run(logits) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    session.run(tf.assign(step, 250000))
    runs = [session.run(logits) for _ in range(4)]
  assert any((run != first).any() for run in runs)
