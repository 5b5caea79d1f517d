"""Table of all networks: one row each, with its published checkpoints.

To add a network, write its module and its row: then all programs accept its
name. The tests need its facts in tests/nets/registry_test.py.

Names, addresses, files and accuracies of the checkpoints are from the table
"Pre-trained Models" in slim's README and the tables of its MobileNet pages, as
of 2018; those of MobileNet V3, MobileNet EdgeTPU and the quantized MobileNets,
as of 2021.
"""

from typing import (
  Any,
  Callable,
  Dict,
  Iterable,
  NamedTuple,
  Optional,
  Tuple,
)

from nets import (
  alexnet,
  cifarnet,
  inception,
  lenet,
  mobilenet_v1,
  overfeat,
  resnet_v1,
  resnet_v2,
  vgg,
)
from nets.mobilenet import mobilenet_v2, mobilenet_v3
from nets.nasnet import nasnet, pnasnet

_STORAGE = 'https://storage.googleapis.com/'
# The same files as on http://download.tensorflow.org.
_MODELS = _STORAGE + 'download.tensorflow.org/models/'
_MOBILENET_V1 = _MODELS + 'mobilenet_v1_2018_02_22/'
_MOBILENET_V1_QUANTIZED = _MODELS + 'mobilenet_v1_2018_08_02/'
_MOBILENET_V2 = _STORAGE + 'mobilenet_v2/checkpoints/'
_MOBILENET_V3 = _STORAGE + 'mobilenet_v3/checkpoints/'
# Asks for a Google account.
_MOBILENET_EDGETPU = ('https://storage.cloud.google.com/mobilenet_edgetpu/'
                      'checkpoints/')


class Cost(NamedTuple):
  """Size of a network and cost per photo, counted from the graph."""

  # Outputs of the published checkpoint, or of the network's own data set if
  # there is none.
  classes: int
  # Trainable parameters that the logits need, without moving statistics and
  # auxiliary heads, as the papers count.
  parameters: int
  # Of convolutions and matrix products, at the network's image size.
  multiply_adds: int


class Checkpoint(NamedTuple):
  """A checkpoint that TF-Slim published, trained on ImageNet (ILSVRC 2012)."""

  # Distinct from the names of all other checkpoints.
  name: str
  # Address of the archive.
  url: str
  # Name of the checkpoint in the archive. It is a single file of that name
  # (TensorFlow's V1 format) in the archives of 2016 and of resnet_v2, and
  # <file>.index and <file>.data-... (V2) in the others; the format is detected.
  # None: not known; the archive must have one checkpoint only.
  file: Optional[str]
  # Accuracies on ImageNet's validation photos, in percent, of a single central
  # crop. ResNet V2 was measured at 299 x 299, the others at the image size of
  # their name or network. None: not published.
  top_1: Optional[float]
  top_5: Optional[float]
  # Whether accuracies and weights are those of 8-bit arithmetic, which training
  # simulated (except for MobileNet EdgeTPU). Their archives also have models
  # for TensorFlow Lite.
  is_quantized: bool = False


class Network(NamedTuple):
  """One row of NETWORKS."""

  # Builds the network.
  function: Callable
  # Function from weight_decay to the arg scope.
  arg_scope: Callable
  # Name of the family, a row of preprocessing_factory.FAMILIES.
  preprocessing: str
  # Default height and width in pixels.
  image_size: int
  # Of the image.
  channels: int
  # Variables to exclude when a checkpoint with other classes is restored, and
  # to train alone when only the classifier is fine-tuned; those after the first
  # are of auxiliary classifiers, which are not trained then.
  classifier_scopes: Tuple[str, ...]
  # The end point that feeds the classifier.
  features: str
  # End points before that, spread over the last third of the network, which a
  # head over several layers reads too (nets/layers_head.py).
  taps: Tuple[str, ...]
  # None: not counted.
  cost: Optional[Cost] = None
  # First the one that the network's name stands for.
  checkpoints: Tuple[Checkpoint, ...] = ()


def _dated(name: str, date: str, top_1: float, top_5: float,
           file: Optional[str] = None) -> Checkpoint:
  """Returns the checkpoint in `<name>_<date>.tar.gz`."""
  return Checkpoint(name, '%s%s_%s.tar.gz' % (_MODELS, name, date),
                    file or name + '.ckpt', top_1, top_5)


def _by_size(
    name: str, folder: str, accuracies: Dict[int, Tuple[float, float]]
) -> Tuple[Checkpoint, ...]:
  """Returns the checkpoints of a MobileNet of one width, one per image size.

  Args:
    name: their name without the image size.
    folder: address of the folder of their archives.
    accuracies: {image size in pixels: (top 1, top 5)}.
  """
  names = {size: '%s_%d' % (name, size) for size in accuracies}
  return tuple(Checkpoint(names[size], '%s%s.tgz' % (folder, names[size]),
                          names[size] + '.ckpt', top_1, top_5)
               for size, (top_1, top_5) in accuracies.items())


def _quantized_v1(
    width: str, accuracies: Dict[int, Tuple[float, float]]
) -> Tuple[Checkpoint, ...]:
  """Returns the quantized checkpoints of MobileNet V1, one per image size.

  Args:
    width: as in their names.
    accuracies: {image size in pixels: (top 1, top 5)}.
  """
  names = {size: 'mobilenet_v1_%s_%d_quant' % (width, size)
           for size in accuracies}
  return tuple(
      Checkpoint(names[size], '%s%s.tgz' % (_MOBILENET_V1_QUANTIZED,
                                            names[size]),
                 names[size] + '.ckpt', top_1, top_5, is_quantized=True)
      for size, (top_1, top_5) in accuracies.items())


def _quantized_v2(width: str, sizes: Iterable[int]) -> Tuple[Checkpoint, ...]:
  """Returns the quantized checkpoints of MobileNet V2, one per image size.

  Args:
    width: as in '0.75'.
    sizes: in pixels.
  """
  names = ['quantized_v2_%d_%.0f' % (size, 100 * float(width))
           for size in sizes]
  return tuple(Checkpoint(name, '%s%s.tgz' % (_MOBILENET_V2, name), None, None,
                          None, is_quantized=True) for name in names)


def _v3(name: str, top_1: float, step: Optional[int] = None) -> Checkpoint:
  """Returns a checkpoint of MobileNet V3.

  Args:
    name: of the archive; it ends in 'float' or 'uint8'.
    top_1: accuracy in percent.
    step: of training, in the name of the checkpoint with the moving averages;
      None: not known.
  """
  return Checkpoint(name, '%s%s.tgz' % (_MOBILENET_V3, name),
                    'model-%d' % step if step else None, top_1, None,
                    is_quantized=name.endswith('uint8'))


def _edgetpu(width: str, top_1: float) -> Checkpoint:
  name = 'mobilenet_edgetpu_224_' + width
  return Checkpoint(name, '%s%s.tgz' % (_MOBILENET_EDGETPU, name), None, top_1,
                    None, is_quantized=True)


def _network(function: Any, arg_scope: Callable, preprocessing: str,
             classifier_scopes: Tuple[str, ...], features: str,
             taps: Tuple[str, ...], cost: Cost, *checkpoints: Checkpoint,
             channels: int = 3,
             image_size: Optional[int] = None) -> Network:
  return Network(function, arg_scope, preprocessing,
                 image_size or function.default_image_size, channels,
                 classifier_scopes, features, taps, cost, checkpoints)


def _plain(function, arg_scope, tap, cost, *checkpoints):
  name = function.__name__
  return _network(function, arg_scope, 'vgg', (name + '/fc8',), name + '/fc7',
                  tuple(name + layer for layer in (tap, '/pool5', '/fc6')),
                  cost, *checkpoints)


def _resnet_taps(name, block):
  return ('%s/block3' % name, '%s/block4/unit_1/%s' % (name, block),
          '%s/block4/unit_2/%s' % (name, block))


def _resnet_v1(function, cost, *checkpoints):
  name = function.__name__
  return _network(function, resnet_v1.resnet_arg_scope, 'vgg',
                  (name + '/logits',), 'global_pool',
                  _resnet_taps(name, 'bottleneck_v1'), cost, *checkpoints)


def _resnet_v2(function, cost, *checkpoints):
  # By slim's README, the published checkpoints need Inception preprocessing and
  # 299 x 299; slim's own default size is 224.
  name = function.__name__
  return _network(function, resnet_v2.resnet_arg_scope, 'inception',
                  (name + '/logits',), 'global_pool',
                  _resnet_taps(name, 'bottleneck_v2'), cost, *checkpoints,
                  image_size=299)


def _mobilenet_v1(function, cost, width, accuracies, quantized):
  return _network(function, mobilenet_v1.mobilenet_v1_arg_scope, 'inception',
                  ('MobilenetV1/Logits',), 'AvgPool_1a',
                  tuple('Conv2d_%d_pointwise' % layer
                        for layer in (9, 10, 11, 12)), cost,
                  *_by_size('mobilenet_v1_' + width, _MOBILENET_V1, accuracies),
                  *_quantized_v1(width, quantized))


def _mobilenet_v2(function, cost, width, accuracies):
  return _network(function, mobilenet_v2.training_scope, 'inception',
                  ('MobilenetV2/Logits',), 'global_pool',
                  ('layer_13/depthwise_output', 'layer_15/depthwise_output',
                   'layer_17/depthwise_output', 'layer_18/output'), cost,
                  *_by_size('mobilenet_v2_' + width, _MOBILENET_V2, accuracies),
                  *_quantized_v2(width, accuracies))


def _mobilenet_v3(function, layers, cost, *checkpoints):
  """Returns a row; `layers`: the last three bottlenecks."""
  return _network(function, mobilenet_v3.training_scope, 'inception',
                  ('MobilenetV3/Logits',), 'global_pool',
                  tuple('layer_%d/depthwise_output' % layer for layer in layers
                        ) + ('layer_%d' % (layers[-1] + 1),), cost,
                  *checkpoints)


def _mobilenet_edgetpu(function, cost, *checkpoints):
  return _network(function, mobilenet_v3.training_scope, 'inception',
                  ('MobilenetEdgeTPU/Logits',), 'global_pool',
                  ('layer_18/depthwise_output', 'layer_20/depthwise_output',
                   'layer_22/depthwise_output', 'layer_23/output'), cost,
                  *checkpoints)


def _nasnet(function, arg_scope, preprocessing, aux_scope, cells, cost,
            *checkpoints):
  # The scopes of NASNets do not begin with the name of the network.
  return _network(function, arg_scope, preprocessing,
                  ('final_layer', aux_scope), 'global_pool',
                  tuple('Cell_%d' % cell for cell in cells), cost, *checkpoints)


NETWORKS = {
    'alexnet_v2': _plain(
        alexnet.alexnet_v2, alexnet.alexnet_v2_arg_scope,
        '/conv4', Cost(1000, 50303912, 736555776)),
    'cifarnet': _network(
        cifarnet.cifarnet, cifarnet.cifarnet_arg_scope, 'cifarnet',
        ('CifarNet/logits',), 'fc4', ('pool2', 'fc3'),
        Cost(10, 1756426, 32778112)),
    'inception_v1': _network(
        inception.inception_v1, inception.inception_v1_arg_scope, 'inception',
        ('InceptionV1/Logits',), 'AvgPool_0a_7x7',
        ('Mixed_4d', 'Mixed_4e', 'Mixed_4f', 'Mixed_5b'),
        Cost(1001, 6618649, 1498377216),
        _dated('inception_v1', '2016_08_28', 69.8, 89.6)),
    'inception_v2': _network(
        inception.inception_v2, inception.inception_v2_arg_scope, 'inception',
        ('InceptionV2/Logits',), 'AvgPool_1a',
        ('Mixed_4d', 'Mixed_4e', 'Mixed_5a', 'Mixed_5b'),
        Cost(1001, 11179361, 1934858240),
        _dated('inception_v2', '2016_08_28', 73.9, 91.8)),
    'inception_v3': _network(
        inception.inception_v3, inception.inception_v3_arg_scope, 'inception',
        ('InceptionV3/Logits', 'InceptionV3/AuxLogits'), 'PreLogits',
        ('Mixed_6c', 'Mixed_6e', 'Mixed_7a', 'Mixed_7b'),
        Cost(1001, 23819401, 5713218144),
        _dated('inception_v3', '2016_08_28', 78.0, 93.9)),
    'inception_v4': _network(
        inception.inception_v4, inception.inception_v4_arg_scope, 'inception',
        ('InceptionV4/Logits', 'InceptionV4/AuxLogits'), 'PreLogitsFlatten',
        ('Mixed_6h', 'Mixed_7a', 'Mixed_7b', 'Mixed_7c'),
        Cost(1001, 42649769, 12253976160),
        _dated('inception_v4', '2016_09_09', 80.2, 95.2)),
    'inception_resnet_v2': _network(
        inception.inception_resnet_v2, inception.inception_resnet_v2_arg_scope,
        'inception',
        ('InceptionResnetV2/Logits', 'InceptionResnetV2/AuxLogits'),
        'PreLogitsFlatten',
        ('Mixed_6a', 'PreAuxLogits', 'Mixed_7a'),
        Cost(1001, 55814729, 13155795552),
        _dated('inception_resnet_v2', '2016_08_30', 80.4, 95.3,
               'inception_resnet_v2_2016_08_30.ckpt')),
    'lenet': _network(
        lenet.lenet, lenet.lenet_arg_scope, 'lenet', ('LeNet/fc4',), 'fc3',
        ('pool2',), Cost(10, 3274634, 13883904), channels=1),
    'mobilenet_v1': _mobilenet_v1(
        mobilenet_v1.mobilenet_v1, Cost(1001, 4233001, 568741376), '1.0', {
            224: (70.9, 89.9), 192: (70.0, 89.2), 160: (68.0, 87.7),
            128: (65.2, 85.8)}, {
            224: (70.1, 88.9), 192: (69.2, 88.3), 160: (67.2, 86.7),
            128: (63.4, 84.2)}),
    'mobilenet_v1_075': _mobilenet_v1(
        mobilenet_v1.mobilenet_v1_075, Cost(1001, 2586329, 325401216), '0.75', {
            224: (68.4, 88.2), 192: (67.2, 87.3), 160: (65.3, 86.0),
            128: (62.1, 83.9)}, {
            224: (66.8, 87.0), 192: (66.1, 86.4), 160: (62.3, 83.8),
            128: (55.8, 78.8)}),
    'mobilenet_v1_050': _mobilenet_v1(
        mobilenet_v1.mobilenet_v1_050, Cost(1001, 1332105, 149497600), '0.5', {
            224: (63.3, 84.9), 192: (61.7, 83.6), 160: (59.1, 81.9),
            128: (56.3, 79.4)}, {
            224: (60.7, 83.2), 192: (60.0, 82.2), 160: (57.7, 80.4),
            128: (54.5, 77.7)}),
    'mobilenet_v1_025': _mobilenet_v1(
        mobilenet_v1.mobilenet_v1_025, Cost(1001, 470329, 41030528), '0.25', {
            224: (49.8, 74.2), 192: (47.7, 72.3), 160: (45.5, 70.3),
            128: (41.5, 66.3)}, {
            224: (48.0, 72.8), 192: (46.0, 71.2), 160: (43.4, 68.5),
            128: (39.5, 64.4)}),
    'mobilenet_v2': _mobilenet_v2(
        mobilenet_v2.mobilenet, Cost(1001, 3506153, 300775552), '1.0', {
            224: (71.9, 91.0), 192: (70.7, 90.1), 160: (68.8, 89.0),
            128: (65.3, 86.9), 96: (60.3, 83.2)}),
    'mobilenet_v2_035': _mobilenet_v2(
        mobilenet_v2.mobilenet_v2_035, Cost(1001, 1678409, 59287088), '0.35', {
            224: (60.3, 82.9), 192: (58.2, 81.2), 160: (55.7, 79.1),
            128: (50.8, 75.0), 96: (45.5, 70.4)}),
    'mobilenet_v2_050': _mobilenet_v2(
        mobilenet_v2.mobilenet_v2_050, Cost(1001, 1969961, 97133120), '0.5', {
            224: (65.4, 86.4), 192: (63.9, 85.4), 160: (61.0, 83.2),
            128: (57.7, 80.8), 96: (51.2, 75.8)}),
    'mobilenet_v2_075': _mobilenet_v2(
        mobilenet_v2.mobilenet_v2_075, Cost(1001, 2637705, 209071072), '0.75', {
            224: (69.8, 89.6), 192: (68.7, 88.9), 160: (66.4, 87.3),
            128: (63.2, 85.3), 96: (58.8, 81.6)}),
    'mobilenet_v2_130': _mobilenet_v2(
        mobilenet_v2.mobilenet_v2_130, Cost(1001, 5388457, 509376224), '1.3', {
            224: (74.4, 92.1)}),
    'mobilenet_v2_140': _mobilenet_v2(
        mobilenet_v2.mobilenet_v2_140, Cost(1001, 6110569, 582197616), '1.4', {
            224: (74.9, 92.5)}),
    'mobilenet_v3_large': _mobilenet_v3(
        mobilenet_v3.large, (14, 15, 16), Cost(1001, 5484313, 216591040),
        _v3('v3-large_224_1.0_float', 75.2, 540000),
        _v3('v3-large_224_1.0_uint8', 73.9)),
    'mobilenet_v3_large_minimalistic': _mobilenet_v3(
        mobilenet_v3.large_minimalistic, (14, 15, 16),
        Cost(1001, 3925569, 209137984),
        _v3('v3-large-minimalistic_224_1.0_float', 72.3, 342500),
        _v3('v3-large-minimalistic_224_1.0_uint8', 71.3)),
    'mobilenet_v3_small': _mobilenet_v3(
        mobilenet_v3.small, (10, 11, 12), Cost(1001, 2543881, 56511424),
        _v3('v3-small_224_1.0_float', 67.5, 388500),
        _v3('v3-small_224_1.0_uint8', 64.9)),
    'mobilenet_v3_small_minimalistic': _mobilenet_v3(
        mobilenet_v3.small_minimalistic, (10, 11, 12),
        Cost(1001, 2045761, 52289472),
        _v3('v3-small-minimalistic_224_1.0_float', 61.9, 498000)),
    'mobilenet_edgetpu': _mobilenet_edgetpu(
        mobilenet_v3.edge_tpu, Cost(1001, 4092713, 990670464),
        _edgetpu('1.0', 75.6)),
    'mobilenet_edgetpu_075': _mobilenet_edgetpu(
        mobilenet_v3.edge_tpu_075, Cost(1001, 2989441, 624487584),
        _edgetpu('0.75', 73.5)),
    # Trained with padded random crops and flips, as in 'cifarnet'.
    'nasnet_cifar': _nasnet(
        nasnet.build_nasnet_cifar, nasnet.nasnet_cifar_arg_scope, 'cifarnet',
        'aux_11', (11, 13, 15, 16), Cost(10, 3346538, 544333312)),
    'nasnet_mobile': _nasnet(
        nasnet.build_nasnet_mobile, nasnet.nasnet_mobile_arg_scope,
        'inception', 'aux_7', (5, 7, 9, 10), Cost(1001, 5291035, 563639872),
        _dated('nasnet-a_mobile', '04_10_2017', 74.0, 91.6, 'model.ckpt')),
    'nasnet_large': _nasnet(
        nasnet.build_nasnet_large, nasnet.nasnet_large_arg_scope, 'inception',
        'aux_11', (11, 15), Cost(1001, 88757183, 23783418690),
        _dated('nasnet-a_large', '04_10_2017', 82.7, 96.2, 'model.ckpt')),
    'overfeat': _plain(
        overfeat.overfeat, overfeat.overfeat_arg_scope,
        '/conv4', Cost(1000, 145704424, 2647011328)),
    'pnasnet_large': _nasnet(
        pnasnet.build_pnasnet_large, pnasnet.pnasnet_large_arg_scope,
        'inception', 'aux_7', (7, 9), Cost(1001, 86061989, 24937400112),
        _dated('pnasnet-5_large', '2017_12_13', 82.9, 96.2, 'model.ckpt')),
    'pnasnet_mobile': _nasnet(
        pnasnet.build_pnasnet_mobile, pnasnet.pnasnet_mobile_arg_scope,
        'inception', 'aux_5', (3, 5, 7), Cost(1001, 5065568, 587294280),
        _dated('pnasnet-5_mobile', '2017_12_13', 74.2, 91.9, 'model.ckpt')),
    'resnet_v1_50': _resnet_v1(
        resnet_v1.resnet_v1_50, Cost(1000, 25557032, 3482255360),
        _dated('resnet_v1_50', '2016_08_28', 75.2, 92.2)),
    'resnet_v1_101': _resnet_v1(
        resnet_v1.resnet_v1_101, Cost(1000, 44549160, 7194476544),
        _dated('resnet_v1_101', '2016_08_28', 76.4, 92.9)),
    'resnet_v1_152': _resnet_v1(
        resnet_v1.resnet_v1_152, Cost(1000, 60192808, 10906697728),
        _dated('resnet_v1_152', '2016_08_28', 76.8, 93.2)),
    'resnet_v1_200': _resnet_v1(
        resnet_v1.resnet_v1_200, Cost(1000, 64673832, 14400552960)),
    'resnet_v2_50': _resnet_v2(
        resnet_v2.resnet_v2_50, Cost(1001, 25570409, 6536213248),
        _dated('resnet_v2_50', '2017_04_14', 75.6, 92.8)),
    'resnet_v2_101': _resnet_v2(
        resnet_v2.resnet_v2_101, Cost(1001, 44579945, 13373518592),
        _dated('resnet_v2_101', '2017_04_14', 77.0, 93.7)),
    'resnet_v2_152': _resnet_v2(
        resnet_v2.resnet_v2_152, Cost(1001, 60238953, 20210823936),
        _dated('resnet_v2_152', '2017_04_14', 77.8, 94.1)),
    'resnet_v2_200': _resnet_v2(
        resnet_v2.resnet_v2_200, Cost(1001, 64728169, 26645934848)),
    'vgg_a': _plain(
        vgg.vgg_a, vgg.vgg_arg_scope, '/pool4',
        Cost(1000, 132863336, 7609090048)),
    'vgg_16': _plain(
        vgg.vgg_16, vgg.vgg_arg_scope, '/pool4',
        Cost(1000, 138357544, 15470264320),
        _dated('vgg_16', '2016_08_28', 71.5, 89.8)),
    'vgg_19': _plain(
        vgg.vgg_19, vgg.vgg_arg_scope, '/pool4',
        Cost(1000, 143667240, 19632062464),
        _dated('vgg_19', '2016_08_28', 71.1, 89.8)),
}

# Published checkpoints of networks that have no row above, by a name for the
# network: MobileNet V3 with depth_multiplier=0.75 and
# finegrain_classification_mode.
OTHER_CHECKPOINTS = {
    'mobilenet_v3_large_075': (_v3('v3-large_224_0.75_float', 73.3, 220000),),
    'mobilenet_v3_small_075': (_v3('v3-small_224_0.75_float', 65.4, 497500),),
}
