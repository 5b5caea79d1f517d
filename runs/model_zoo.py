"""Costs of each network and accuracies of its published checkpoints.

Joins the rows of nets/nets_factory.py with those of runs/published.py.
"""

from collections import namedtuple

from nets import nets_factory
from runs import published

Cost = namedtuple('Cost', 'classes parameters multiply_adds')
Cost.__doc__ = """Size of a network and cost per photo.

classes: outputs of the published checkpoint, or of the network's own data set
  if there is none.
parameters: trainable parameters that the logits need, without moving statistics
  and auxiliary heads, as the papers count.
multiply_adds: of convolutions and matrix products, at the network's image size.
"""

# Counted from the graphs; tests/list_models_test.py checks them. A network
# without a row here is listed without costs.
COSTS = {
    'alexnet_v2': Cost(1000, 50303912, 736555776),
    'cifarnet': Cost(10, 1756426, 32778112),
    'inception_resnet_v2': Cost(1001, 55814729, 13155795552),
    'inception_v1': Cost(1001, 6618649, 1498377216),
    'inception_v2': Cost(1001, 11179361, 1934858240),
    'inception_v3': Cost(1001, 23819401, 5713218144),
    'inception_v4': Cost(1001, 42649769, 12253976160),
    'lenet': Cost(10, 3274634, 13883904),
    'mobilenet_v1': Cost(1001, 4233001, 568741376),
    'mobilenet_v1_025': Cost(1001, 470329, 41030528),
    'mobilenet_v1_050': Cost(1001, 1332105, 149497600),
    'mobilenet_v1_075': Cost(1001, 2586329, 325401216),
    'mobilenet_v2': Cost(1001, 3506153, 300775552),
    'mobilenet_v2_140': Cost(1001, 6110569, 582197616),
    'nasnet_cifar': Cost(10, 3346538, 544333312),
    'nasnet_large': Cost(1001, 88757183, 23783418690),
    'nasnet_mobile': Cost(1001, 5291035, 563639872),
    'overfeat': Cost(1000, 145704424, 2647011328),
    'pnasnet_large': Cost(1001, 86061989, 24937400112),
    'resnet_v1_101': Cost(1000, 44549160, 7194476544),
    'resnet_v1_152': Cost(1000, 60192808, 10906697728),
    'resnet_v1_200': Cost(1000, 64673832, 14400552960),
    'resnet_v1_50': Cost(1000, 25557032, 3482255360),
    'resnet_v2_101': Cost(1001, 44579945, 13373518592),
    'resnet_v2_152': Cost(1001, 60238953, 20210823936),
    'resnet_v2_200': Cost(1001, 64728169, 26645934848),
    'resnet_v2_50': Cost(1001, 25570409, 6536213248),
    'vgg_16': Cost(1000, 138357544, 15470264320),
    'vgg_19': Cost(1000, 143667240, 19632062464),
    'vgg_a': Cost(1000, 132863336, 7609090048),
}

# Top-1 and top-5 accuracy on ImageNet's validation photos, in percent, of a
# single central crop: from slim's README, or its MobileNet pages for those that
# are only there. ResNet V2 was measured at 299 x 299, the others at the image
# size of their name or network.
ACCURACY = {
    'inception_v1': (69.8, 89.6),
    'inception_v2': (73.9, 91.8),
    'inception_v3': (78.0, 93.9),
    'inception_v4': (80.2, 95.2),
    'inception_resnet_v2': (80.4, 95.3),
    'resnet_v1_50': (75.2, 92.2),
    'resnet_v1_101': (76.4, 92.9),
    'resnet_v1_152': (76.8, 93.2),
    'resnet_v2_50': (75.6, 92.8),
    'resnet_v2_101': (77.0, 93.7),
    'resnet_v2_152': (77.8, 94.1),
    'vgg_16': (71.5, 89.8),
    'vgg_19': (71.1, 89.8),
    'mobilenet_v1_1.0_224': (70.9, 89.9),
    'mobilenet_v1_1.0_192': (70.0, 89.2),
    'mobilenet_v1_1.0_160': (68.0, 87.7),
    'mobilenet_v1_1.0_128': (65.2, 85.8),
    'mobilenet_v1_0.75_224': (68.4, 88.2),
    'mobilenet_v1_0.75_192': (67.2, 87.3),
    'mobilenet_v1_0.75_160': (65.3, 86.0),
    'mobilenet_v1_0.75_128': (62.1, 83.9),
    'mobilenet_v1_0.5_224': (63.3, 84.9),
    'mobilenet_v1_0.5_192': (61.7, 83.6),
    'mobilenet_v1_0.5_160': (59.1, 81.9),
    'mobilenet_v1_0.5_128': (56.3, 79.4),
    'mobilenet_v1_0.25_224': (49.8, 74.2),
    'mobilenet_v1_0.25_192': (47.7, 72.3),
    'mobilenet_v1_0.25_160': (45.5, 70.3),
    'mobilenet_v1_0.25_128': (41.5, 66.3),
    'mobilenet_v2_1.4_224': (74.9, 92.5),
    'mobilenet_v2_1.3_224': (74.4, 92.1),
    'mobilenet_v2_1.0_224': (71.9, 91.0),
    'mobilenet_v2_1.0_192': (70.7, 90.1),
    'mobilenet_v2_1.0_160': (68.8, 89.0),
    'mobilenet_v2_1.0_128': (65.3, 86.9),
    'mobilenet_v2_1.0_96': (60.3, 83.2),
    'mobilenet_v2_0.75_224': (69.8, 89.6),
    'mobilenet_v2_0.75_192': (68.7, 88.9),
    'mobilenet_v2_0.75_160': (66.4, 87.3),
    'mobilenet_v2_0.75_128': (63.2, 85.3),
    'mobilenet_v2_0.75_96': (58.8, 81.6),
    'mobilenet_v2_0.5_224': (65.4, 86.4),
    'mobilenet_v2_0.5_192': (63.9, 85.4),
    'mobilenet_v2_0.5_160': (61.0, 83.2),
    'mobilenet_v2_0.5_128': (57.7, 80.8),
    'mobilenet_v2_0.5_96': (51.2, 75.8),
    'mobilenet_v2_0.35_224': (60.3, 82.9),
    'mobilenet_v2_0.35_192': (58.2, 81.2),
    'mobilenet_v2_0.35_160': (55.7, 79.1),
    'mobilenet_v2_0.35_128': (50.8, 75.0),
    'mobilenet_v2_0.35_96': (45.5, 70.4),
    'nasnet-a_mobile': (74.0, 91.6),
    'nasnet-a_large': (82.7, 96.2),
    'pnasnet-5_large': (82.9, 96.2),
    'pnasnet-5_mobile': (74.2, 91.9),
}


def describe(name):
  """Returns the facts about a network, ready for JSON.

  Args:
    name: of the network.

  Returns:
    A dict: the name; the network's row without its functions; the fields of
    Cost, each None if COSTS has no row; `checkpoints`, a list of dicts of name,
    file, url, top_1 and top_5, starting with the one that the network's name
    stands for.

  Raises:
    InputError: no network has this name.
  """
  row = nets_factory.get_network(name)
  facts = {'name': name, 'image_size': row.image_size,
           'channels': row.channels, 'preprocessing': row.preprocessing,
           'classifier_scopes': list(row.classifier_scopes),
           'features': row.features}
  facts.update(COSTS.get(name, Cost(None, None, None))._asdict())
  facts['checkpoints'] = [
      {'name': checkpoint, 'file': published_row.url.rpartition('/')[2],
       'url': published_row.url, 'top_1': ACCURACY[checkpoint][0],
       'top_5': ACCURACY[checkpoint][1]}
      for checkpoint, published_row in published.PUBLISHED.items()
      if published_row.network == name]
  return facts
