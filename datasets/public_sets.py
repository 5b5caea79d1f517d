"""Table of the public data sets: file names, classes and sizes, one row each.

They are those of slim's scripts, so that records which slim wrote can be read.
A manifest takes precedence over a row, and records that are not the full set
are counted. Each row also has a module `datasets/<name>.py`, as in slim.

Sources: flowers, the archive flower_photos.tgz with 350 photos kept for
validation, as slim splits it; cifar10, Krizhevsky 2009, "Learning Multiple
Layers of Features from Tiny Images"; mnist, LeCun et al. 1998; imagenet, ILSVRC
2012 (Russakovsky et al., arXiv 1409.0575); visualwakewords, Chowdhery et al.,
arXiv 1906.05721, made of COCO 2014 (Lin et al., arXiv 1405.0312).
"""

from typing import Callable, Dict, List, NamedTuple, Sequence

from datasets import imagenet_names

FLOWERS_LABELS = ('daisy', 'dandelion', 'roses', 'sunflowers', 'tulips')

# In the order of batches.meta in the archive.
CIFAR10_LABELS = ('airplane', 'automobile', 'bird', 'cat', 'deer', 'dog',
                  'frog', 'horse', 'ship', 'truck')

MNIST_LABELS = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven',
                'eight', 'nine')

# Label 0 and, unless a conversion was asked for another class, label 1.
WAKEWORDS_LABELS = ('background', 'person')


class PublicSet(NamedTuple):
  """Facts about a public data set."""

  # Names of slim's record files, %s stands for the split.
  file_pattern: str
  # {split name: records of the full set}.
  split_sizes: Dict[str, int]
  # Returns the class names; the index is the label.
  labels: Callable[[], List[str]]
  # 3, or 1 for grey.
  channels: int
  # Description of the item 'image'.
  image: str
  # Names of slim's further items, see record_dataset.FURTHER_ITEMS.
  items: Sequence[str] = ()


PUBLIC_SETS = {
    'flowers': PublicSet(
        'flowers_%s_?????-of-?????.tfrecord',
        {'train': 3320, 'validation': 350}, lambda: list(FLOWERS_LABELS), 3,
        'A color photo, [height, width, 3] uint8 of varying size.'),
    'cifar10': PublicSet(
        'cifar10_%s.tfrecord',
        {'train': 50000, 'test': 10000}, lambda: list(CIFAR10_LABELS), 3,
        'A color photo, [32, 32, 3] uint8.'),
    'mnist': PublicSet(
        'mnist_%s.tfrecord',
        {'train': 60000, 'test': 10000}, lambda: list(MNIST_LABELS), 1,
        'A written digit, [28, 28, 1] uint8; white on black.'),
    'imagenet': PublicSet(
        '%s-?????-of-?????',
        {'train': 1281167, 'validation': 50000}, imagenet_names.labels, 3,
        'A color photo, [height, width, 3] uint8 of varying size.',
        ('label_text', 'object/bbox', 'object/label')),
    'visualwakewords': PublicSet(
        '%s.record-?????-of-?????',
        {'train': 82783, 'val': 40504}, lambda: list(WAKEWORDS_LABELS), 3,
        'A color photo, [height, width, 3] uint8 of varying size.',
        ('object/bbox',)),
}
