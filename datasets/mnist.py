"""Data set mnist, as in slim: `get_split('train', dataset_dir)`."""

import functools

from datasets import dataset_factory

get_split = functools.partial(dataset_factory.get_dataset, 'mnist')
