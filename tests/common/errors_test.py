"""Tests of the messages about wrong user input."""

import pytest

from common import errors


@pytest.mark.parametrize('name, end', [
    ('mobilnet', 'inception_v4, mobilenet; did you mean mobilenet?'),
    ('MobileNet', 'inception_v4, mobilenet; did you mean mobilenet?'),
    ('vgg', 'inception_v4, mobilenet'), ('', 'inception_v4, mobilenet')])
def test_unknown_name_suggests_only_similar_names(name, end):
  error = errors.unknown_name('network', name, ['mobilenet', 'inception_v4'])
  assert str(error) == 'unknown network %r; known: %s' % (name, end)


def test_did_you_mean_names_at_most_two():
  names = ['resnet_v1_50', 'resnet_v2_50', 'resnet_v1_51', 'vgg_16']
  assert errors.did_you_mean('resnet_v1_5', names).count(' or ') == 1
  assert not errors.did_you_mean('resnet', [])
