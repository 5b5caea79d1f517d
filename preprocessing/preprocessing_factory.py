"""All preprocessings by name: the four families, and each network's.

  preprocess = preprocessing_factory.get_preprocessing('inception_v4',
                                                       is_training=False)
  image = preprocess(image, 299, 299)
"""

import functools

from compat import tf
from errors import InputError, unknown_name
from preprocessing import (
  cifarnet_preprocessing,
  inception_preprocessing,
  lenet_preprocessing,
  vgg_preprocessing,
)

_FAMILIES = {
    'cifarnet': cifarnet_preprocessing.preprocess_image,
    'inception': inception_preprocessing.preprocess_image,
    'lenet': lenet_preprocessing.preprocess_image,
    'vgg': vgg_preprocessing.preprocess_image,
}

# Names of networks that stand for their family. ResNet V2 is under vgg in slim;
# its published checkpoints want Inception's (slim's README, note **).
_NETWORKS = {
    'cifarnet': ('nasnet_cifar',),
    'inception': (
        'inception_v1', 'inception_v2', 'inception_v3', 'inception_v4',
        'inception_resnet_v2',
        'mobilenet_v1', 'mobilenet_v1_075', 'mobilenet_v1_050',
        'mobilenet_v1_025',
        'mobilenet_v2', 'mobilenet_v2_035', 'mobilenet_v2_140',
        'nasnet_mobile', 'nasnet_large',
        'pnasnet_mobile', 'pnasnet_large',
        'resnet_v2_50', 'resnet_v2_101', 'resnet_v2_152', 'resnet_v2_200',
    ),
    'lenet': (),
    'vgg': (
        'alexnet_v2', 'overfeat', 'vgg_a', 'vgg_16', 'vgg_19',
        'resnet_v1_50', 'resnet_v1_101', 'resnet_v1_152', 'resnet_v1_200',
    ),
}

# {name: family}.
FAMILY_OF = {name: family for family, networks in _NETWORKS.items()
             for name in (family,) + networks}


def get_preprocessing(name, is_training, height=None, width=None,
                      fast_mode=None, min_crop_area=None):
  """Returns the preprocessing of a family or a network.

  Args:
    name: 'cifarnet', 'inception', 'lenet', 'vgg' or the name of a network.
    is_training: whether images are distorted for training.
    height: of the result, in pixels; None: given with each call.
    width: of the result, in pixels; None: given with each call.
    fast_mode: of Inception's family, whether to leave the dearer distortions
      of training out; None: as the family has it. Others have no such choice.
    min_crop_area: of Inception's family, share of the photo that training's
      random crop takes at least; None: as the family has it.

  Returns:
    `preprocessing_fn(image, output_height=None, output_width=None, **kwargs)`
    from `[h, w, channels]` uint8 to `[height, width, channels]` float32.
    Further arguments go to the family's `preprocess_image`: each takes `seed`,
    which decides all that is random. It raises a ValueError where the size is
    given neither here nor there.

    `preprocessing_fn.random_window` is, where training begins with a random
    part of the photo, the function `(shape, seed)` that says which: `[4]`
    int32 of top, left, height, width. That part, with `crop_image=False` and
    the same seed, gives the same result as the whole photo. Else it is None.

  Raises:
    ValueError: nothing has this name.
  """
  if name not in FAMILY_OF:
    raise unknown_name('preprocessing', name, FAMILY_OF)
  family = FAMILY_OF[name]
  preprocess_image = _FAMILIES[family]
  options = {}
  if family == 'inception':
    given = {'fast_mode': fast_mode, 'min_crop_area': min_crop_area}
    options = {key: value for key, value in given.items() if value is not None}

  # Dataset.map would have AutoGraph rewrite it, which has no `if` on a tensor.
  @tf.autograph.experimental.do_not_convert
  def preprocessing_fn(image, output_height=None, output_width=None, **kwargs):
    size = (output_height or height, output_width or width)
    if None in size:
      raise InputError('preprocessing %r needs a height and a width in pixels, '
                       'got %r and %r' % ((name,) + size))
    return preprocess_image(image, *size, is_training=is_training,
                            **dict(options, **kwargs))

  preprocessing_fn.random_window = None
  if is_training and family == 'inception':
    preprocessing_fn.random_window = functools.partial(
        inception_preprocessing.random_window,
        min_crop_area=options.get('min_crop_area',
                                  inception_preprocessing.CROP_AREA))
  return preprocessing_fn
