"""Tests of nets/inception_resnet_v2.py: options.

To be fast to build, the network is SHALLOW (one residual block of each kind)
where only sizes matter, and has the few layers of HEADS where only the heads
do. registry_test.py builds the whole network.
"""

import numpy as np
import pytest

from compat import slim, tf
from kits import inception_kit, nets_kit
from nets import inception, inception_resnet_v2
from nets.batch_norm import batch_norm

pytestmark = pytest.mark.slow

# End points of the base, in the order that they are built.
BASE = ['Conv2d_1a_3x3', 'Conv2d_2a_3x3', 'Conv2d_2b_3x3', 'MaxPool_3a_3x3',
        'Conv2d_3b_1x1', 'Conv2d_4a_3x3', 'MaxPool_5a_3x3', 'Mixed_5b',
        'Mixed_6a', 'PreAuxLogits', 'Mixed_7a', 'Conv2d_7b_1x1']
CHANNELS = [32, 32, 64, 64, 80, 192, 192, 320, 1088, 1088, 2080, 1536]

SHALLOW = tuple(row._replace(count=1) if row.scope == 'Repeat_1' else row
                for row in inception_resnet_v2.LAYERS
                if row.scope not in ('Repeat', 'Repeat_2', 'Block8'))
HEADS = tuple(row for row in SHALLOW if row.scope in (
    'Conv2d_1a_3x3', 'Mixed_6a', 'Repeat_1', 'Conv2d_7b_1x1'))
HEADS_END_POINTS = ['Conv2d_1a_3x3', 'Mixed_6a', 'PreAuxLogits',
                    'Conv2d_7b_1x1']


@pytest.fixture
def shallow(monkeypatch):
  monkeypatch.setattr(inception_resnet_v2, 'LAYERS', SHALLOW)


@pytest.fixture
def heads(monkeypatch):
  monkeypatch.setattr(inception_resnet_v2, 'LAYERS', HEADS)


def _base(size=299, **options):
  return inception.inception_resnet_v2_base(tf.zeros([2, size, size, 3]),
                                            **options)


@pytest.mark.parametrize('options, sizes', [
    ({}, [149, 147, 147, 73, 73, 71, 35, 35, 17, 17, 8, 8]),
    ({'align_feature_maps': True},
     [150, 150, 150, 75, 75, 75, 38, 38, 19, 19, 10, 10]),
    ({'output_stride': 8, 'final_endpoint': 'PreAuxLogits'},
     [149, 147, 147, 73, 73, 71, 35, 35, 33, 33]),
    ({'output_stride': 8, 'final_endpoint': 'PreAuxLogits',
      'align_feature_maps': True},
     [150, 150, 150, 75, 75, 75, 38, 38, 38, 38]),
])
def test_base_has_the_end_points_in_order(shallow, options, sizes):
  with tf.Graph().as_default():
    net, end_points = _base(**options)
    assert list(end_points) == BASE[:len(sizes)]
    assert [point.shape.as_list() for point in end_points.values()] == [
        [2, size, size, channels] for size, channels in zip(sizes, CHANNELS)]
    assert net is end_points[BASE[len(sizes) - 1]]
    # Without an arg scope there is no batch norm.
    assert not [name for name in nets_kit.variable_shapes()
                if 'BatchNorm' in name]


def test_base_pools_have_slims_scopes(shallow):
  with tf.Graph().as_default():
    net, _ = _base()
    assert net.op.name.startswith('InceptionResnetV2/Conv2d_7b_1x1')
    halving = ('MaxPool', [3, 3], [2, 2], 'VALID')
    assert inception_kit.pools() == {
        'MaxPool_3a_3x3': halving,
        'MaxPool_5a_3x3': halving,
        'Mixed_5b/Branch_3/AvgPool_0a_3x3': inception_kit.same_pool('AvgPool'),
        'Mixed_6a/Branch_2/MaxPool_1a_3x3': halving,
        'Mixed_7a/Branch_3/MaxPool_1a_3x3': halving,
    }


@pytest.mark.parametrize('final_endpoint, last', [
    ('Conv2d_1a_3x3', 'Conv2d_1a_3x3'), ('MaxPool_5a_3x3', 'Conv2d_4a_3x3'),
    ('Mixed_6a', 'Mixed_6a'), ('PreAuxLogits', 'Repeat_1')])
def test_base_final_endpoint_builds_nothing_after_it(shallow, final_endpoint,
                                                     last):
  with tf.Graph().as_default():
    net, end_points = _base(final_endpoint=final_endpoint, scope='Mine')
    assert list(end_points) == BASE[:BASE.index(final_endpoint) + 1]
    assert net is end_points[final_endpoint]
    scopes = [name.split('/')[:2] for name in nets_kit.variable_shapes()]
    assert scopes[-1] == ['Mine', last]


def test_base_dilated_output_subsampled_equals_the_strided_output(shallow):
  outputs = {}
  for output_stride in (8, 16):
    with tf.Graph().as_default(), tf.Session() as session:
      # 65, 33, 17, 9, 5: an odd number of rows at each stride, so that the same
      # pixels are sampled with either output stride.
      net, _ = inception.inception_resnet_v2_base(
          tf.constant(nets_kit.seeded_image(65, 3)), 'PreAuxLogits',
          output_stride=output_stride, align_feature_maps=True)
      nets_kit.load_seeded_weights(session, tf.global_variables())
      outputs[output_stride] = session.run(net)
  assert outputs[8].shape == (1, 9, 9, 1088)
  assert outputs[16].shape == (1, 5, 5, 1088)
  np.testing.assert_allclose(outputs[8][:, ::2, ::2], outputs[16], rtol=1e-4,
                             atol=1e-5 * abs(outputs[16]).max())


@pytest.mark.parametrize('options, message', [
    ({'output_stride': 32}, 'output_stride must be 8 or 16, got 32'),
    ({'output_stride': None}, 'output_stride must be 8 or 16, got None'),
    ({'output_stride': 8}, 'up to the end point PreAuxLogits, got .*_7b_1x1'),
    ({'output_stride': 8, 'final_endpoint': 'Mixed_7a'},
     'up to the end point PreAuxLogits, got .* Mixed_7a'),
    ({'final_endpoint': 'Mixed_8a'}, "final_endpoint 'Mixed_8a'; known: "),
    ({'final_endpoint': 'Repeat'}, "final_endpoint 'Repeat'; known: "),
    ({'final_endpoint': 'Block8'}, "final_endpoint 'Block8'; known: "),
    ({'final_endpoint': None}, 'final_endpoint None; known: '),
])
def test_base_bad_argument_is_refused(options, message):
  with tf.Graph().as_default():
    with pytest.raises(ValueError, match=message):
      _base(**options)
    assert tf.global_variables() == []


def test_base_last_residual_block_is_not_activated(monkeypatch):
  monkeypatch.setattr(inception_resnet_v2, 'LAYERS', HEADS[:1] + tuple(
      row for row in inception_resnet_v2.LAYERS if row.scope == 'Block8'
  ) + HEADS[-2:])
  with tf.Graph().as_default() as graph:
    _base(99)
    activations = [op.name for op in graph.get_operations()
                   if op.type == 'Relu' and
                   op.name.split('/')[-2].lower().startswith('block')]
    assert activations == ['InceptionResnetV2/Repeat_1/block17_1/Relu']


BLOCKS = [
    (inception_resnet_v2.block35, 'Block35', 128),
    (inception_resnet_v2.block17, 'Block17', 384),
    (inception_resnet_v2.block8, 'Block8', 448),
]


@pytest.mark.parametrize('block, scope, mixed', BLOCKS)
def test_block_function_has_slims_scope_and_reuses_variables(block, scope,
                                                             mixed):
  with tf.Graph().as_default():
    inputs = tf.zeros([2, 9, 9, 10])
    assert block(inputs).shape.as_list() == [2, 9, 9, 10]
    shapes = nets_kit.variable_shapes()
    assert {name.split('/')[0] for name in shapes} == {scope}
    assert shapes[scope + '/Conv2d_1x1/weights'] == [1, 1, mixed, 10]
    assert shapes[scope + '/Conv2d_1x1/biases'] == [10]
    block(inputs, scope=scope, reuse=True)
    assert nets_kit.variable_shapes() == shapes
    block(inputs, scope='Mine')
    assert len(nets_kit.variable_shapes()) == 2 * len(shapes)


@pytest.mark.parametrize('block, scope, mixed', BLOCKS)
def test_block_function_adds_the_scaled_residual(block, scope, mixed):
  with tf.Graph().as_default(), tf.Session() as session:
    inputs = tf.constant(nets_kit.seeded_image(9, 10))
    outputs = [
        block(inputs, scale, activation_fn, scope, reuse=tf.AUTO_REUSE)
        for scale, activation_fn in ((1.0, None), (0.5, None),
                                     (0.5, tf.nn.relu), (1e6, tf.nn.relu6))]
    nets_kit.load_seeded_weights(session, tf.global_variables())
    net, full, half, activated, clipped = session.run([inputs] + outputs)
  residual = full - net
  assert abs(residual).max() > 0.1
  np.testing.assert_allclose(half, net + residual / 2, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(activated, np.maximum(half, 0), rtol=1e-5)
  # relu6 bounds the residual as well as the sum.
  np.testing.assert_allclose(clipped, np.clip(net + 6 * np.sign(residual), 0,
                                              6), rtol=1e-5)


def test_network_no_classes_returns_the_pooled_features(heads):
  with tf.Graph().as_default():
    net, end_points = inception.inception_resnet_v2(tf.zeros([5, 299, 299, 3]),
                                                    None)
    assert net.op.name.startswith('InceptionResnetV2/Logits/AvgPool_1a_8x8')
    assert net.shape.as_list() == [5, 1, 1, 1536]
    assert list(end_points) == HEADS_END_POINTS + ['global_pool']
    assert not [name for name in nets_kit.variable_shapes()
                if 'Logits' in name]


def test_network_end_points_have_slims_order_and_names(heads):
  with tf.Graph().as_default():
    logits, end_points = inception.inception_resnet_v2(
        tf.zeros([5, 299, 299, 3]), 7)
    assert list(end_points) == HEADS_END_POINTS + [
        'AuxLogits', 'global_pool', 'PreLogitsFlatten', 'Logits', 'Predictions']
    assert logits.shape.as_list() == [5, 7]
    assert logits.op.name.startswith('InceptionResnetV2/Logits')
    assert end_points['AuxLogits'].shape.as_list() == [5, 7]
    assert end_points['AuxLogits'].op.name.startswith(
        'InceptionResnetV2/AuxLogits')
    assert end_points['Predictions'].shape.as_list() == [5, 7]
    pools = inception_kit.pools()
    assert pools['AuxLogits/Conv2d_1a_3x3'] == ('AvgPool', [5, 5], [3, 3],
                                                'VALID')


def test_network_without_aux_logits_builds_none(heads):
  with tf.Graph().as_default():
    _, end_points = inception.inception_resnet_v2(
        tf.zeros([5, 299, 299, 3]), 7, create_aux_logits=False)
    assert 'AuxLogits' not in end_points
    assert not [name for name in nets_kit.variable_shapes()
                if 'AuxLogits' in name]


def test_network_other_image_size_is_pooled_over_all_positions(shallow):
  with tf.Graph().as_default():
    _, end_points = inception.inception_resnet_v2(tf.zeros([2, 150, 150, 3]), 7)
    assert end_points['Conv2d_7b_1x1'].shape.as_list() == [2, 3, 3, 1536]
    assert end_points['global_pool'].shape.as_list() == [2, 1, 1, 1536]
    _, end_points = inception.inception_resnet_v2(
        tf.zeros([2, 330, 400, 3]), 7, create_aux_logits=False, reuse=True)
    assert end_points['Conv2d_7b_1x1'].shape.as_list() == [2, 8, 11, 1536]
    assert end_points['global_pool'].shape.as_list() == [2, 1, 1, 1536]


def test_network_unknown_image_size_runs_at_two_sizes(heads):
  with tf.Graph().as_default(), tf.Session() as session:
    images = tf.placeholder(tf.float32, [None, None, None, 3])
    logits, end_points = inception.inception_resnet_v2(
        images, 7, is_training=False, create_aux_logits=False)
    assert logits.shape.as_list() == [None, 7]
    assert (end_points['global_pool'].op.name ==
            'InceptionResnetV2/Logits/global_pool')
    session.run(tf.global_variables_initializer())
    for shape in ((2, 40, 40, 3), (1, 31, 50, 3)):
      output = session.run(logits, {images: np.zeros(shape)})
      assert output.shape == (shape[0], 7)


@pytest.mark.parametrize('size', [None, 17])
def test_network_aux_logits_at_unsuitable_size_are_refused(heads, size):
  with tf.Graph().as_default():
    images = tf.placeholder(tf.float32, [1, size, size, 3])
    with pytest.raises(ValueError, match='create_aux_logits=False'):
      inception.inception_resnet_v2(images, 7)


def test_network_aux_logits_need_107_pixels(shallow):
  with tf.Graph().as_default():
    _, end_points = inception.inception_resnet_v2(tf.zeros([1, 107, 107, 3]), 7)
    assert end_points['PreAuxLogits'].shape.as_list() == [1, 5, 5, 1088]
    assert end_points['AuxLogits'].shape.as_list() == [1, 7]
    with pytest.raises(ValueError, match=r'107 x 107 .* layer of \(4, 4\)'):
      inception.inception_resnet_v2(tf.zeros([1, 106, 106, 3]), 7, reuse=True)


def test_network_reuse_argument_shares_the_variables(heads):
  with tf.Graph().as_default():
    images = tf.zeros([1, 99, 99, 3])
    inception.inception_resnet_v2(images, 7)
    before = tf.global_variables()
    inception.inception_resnet_v2(images, 7, is_training=False, reuse=True)
    assert tf.global_variables() == before


def test_network_scope_renames_the_variables(heads):
  with tf.Graph().as_default():
    inception.inception_resnet_v2(tf.zeros([1, 99, 99, 3]), 7, scope='Mine')
    assert {name.split('/')[0] for name in nets_kit.variable_shapes()} == {
        'Mine'}


def test_network_activation_fn_reaches_the_residual_blocks(heads):
  with tf.Graph().as_default() as graph:
    inception.inception_resnet_v2(tf.zeros([1, 99, 99, 3]), 7,
                                  activation_fn=tf.nn.relu6)
    bounded = [op.name for op in graph.get_operations() if op.type == 'Relu6']
    assert len(bounded) == 1
    assert bounded[0].endswith('InceptionResnetV2/Repeat_1/block17_1/Relu6')


@pytest.mark.parametrize('is_training', [True, False])
def test_network_dropout_is_applied_only_in_training(heads, is_training):
  with tf.Graph().as_default(), tf.Session() as session:
    # All inputs of dropout are 1, so that its outputs are 0 or 1 / 0.25.
    with slim.arg_scope([slim.conv2d],
                        weights_initializer=tf.zeros_initializer(),
                        biases_initializer=tf.ones_initializer()):
      _, end_points = inception.inception_resnet_v2(
          tf.zeros([1, 40, 40, 3]), 7, is_training, dropout_keep_prob=0.25,
          create_aux_logits=False)
    session.run(tf.global_variables_initializer())
    features = session.run(end_points['PreLogitsFlatten'])
  if is_training:
    assert set(features.flat) == {0.0, 4.0}
    assert 0.15 < (features > 0).mean() < 0.35
  else:
    assert set(features.flat) == {1.0}


def _build_heads(scope_options, **options):
  with slim.arg_scope(inception.inception_resnet_v2_arg_scope(**scope_options)):
    return inception.inception_resnet_v2(tf.zeros([2, 99, 99, 3]), 7, **options)


@pytest.mark.parametrize('scope_options, gammas', [
    ({}, 0), ({'batch_norm_scale': True}, 12)])
def test_arg_scope_batch_norm_scale_adds_a_gamma(heads, scope_options, gammas):
  with tf.Graph().as_default():
    _build_heads(scope_options, is_training=False)
    names = nets_kit.variable_shapes()
    assert len([name for name in names if name.endswith('/gamma')]) == gammas
    assert len([name for name in names if name.endswith('/beta')]) == 12
    # The convolution that restores the width of a residual has none.
    assert not [name for name in names if '1/Conv2d_1x1/BatchNorm' in name]


def test_arg_scope_regularizes_weights_and_biases(heads):
  with tf.Graph().as_default():
    _build_heads({'weight_decay': 0.1})
    losses = tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
    kinds = [name.split('/')[-1] for name in nets_kit.variable_shapes()]
    assert kinds.count('biases') == 3
    assert len(losses) == kinds.count('weights') + kinds.count('biases')


def test_arg_scope_options_reach_the_layers(heads):
  with tf.Graph().as_default() as graph:
    _build_heads({'activation_fn': tf.nn.elu, 'batch_norm_decay': 0.5,
                  'batch_norm_epsilon': 0.25,
                  'batch_norm_updates_collections': 'mine'})
    assert len(tf.get_collection('mine')) == 2 * 12
    assert tf.get_collection(tf.GraphKeys.UPDATE_OPS) == []
    operations = graph.get_operations()
    assert len([op for op in operations if op.type == 'Elu']) == 12
    norms = [op for op in operations if op.type.startswith('FusedBatchNorm')]
    assert {op.get_attr('epsilon') for op in norms} == {0.25}
    decays = [op for op in operations if op.name.endswith('AssignMovingAvg/'
                                                          'decay')]
    assert {float(tf.get_static_value(op.outputs[0])) for op in decays} == {0.5}


def test_network_frozen_layers_make_no_updates(heads):
  with tf.Graph().as_default():
    with slim.arg_scope([batch_norm],
                        trainable_scopes=['InceptionResnetV2/AuxLogits']):
      _build_heads({})
    updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    assert len(updates) == 4
    assert all('AuxLogits' in update.name for update in updates)
