"""Tests of kits/make_nets_facts.py: the golden values from slim's networks.

The tests have no checkout of slim. The project's networks replace it, with the
imports of slim of 2018.
"""

import glob
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from common.errors import InputError
from kits import make_nets_facts, nets_kit
from kits.helpers import ROOT
from nets import nets_factory


def run(*arguments):
  """Runs the program as in its docstring."""
  return subprocess.run(
      [sys.executable, '-m', 'kits.make_nets_facts', *arguments], cwd=ROOT,
      env=dict(os.environ, PYTHONPATH='tests'), capture_output=True, text=True)


def assert_same_facts(facts, expected):
  """Compares facts as nets/registry_test.py compares a network with them."""
  logits, expected_logits = facts.pop('logits'), expected.pop('logits')
  assert facts == expected
  np.testing.assert_allclose(logits, expected_logits, rtol=0,
                             atol=1e-3 * np.abs(expected_logits).max())


@pytest.mark.parametrize('name', [
    'cifarnet', 'lenet', 'mobilenet_v1_025',
    pytest.param('nasnet_cifar', marks=pytest.mark.slow),
    pytest.param('resnet_v2_50', marks=pytest.mark.slow)])
def test_network_facts_equal_the_committed_file(name):
  assert_same_facts(make_nets_facts.network_facts(nets_factory, name),
                    nets_kit.load(name))


def test_network_facts_of_a_new_grey_network_need_only_its_row(monkeypatch):
  for table in (nets_factory.NETWORKS, nets_factory.networks_map):
    monkeypatch.setitem(table, 'grey', table['lenet'])
  assert_same_facts(make_nets_facts.network_facts(nets_factory, 'grey'),
                    dict(nets_kit.load('lenet'), name='grey'))


@pytest.mark.engine('tf1')  # TensorFlow 2 has no contrib.
def test_program_rewrites_files_with_a_slim_that_uses_contrib(tmp_path):
  shutil.copytree(os.path.join(ROOT, 'nets'), str(tmp_path / 'nets'))
  for path in glob.glob(str(tmp_path / 'nets' / '**' / '*.py'), recursive=True):
    with open(path, encoding='utf-8') as file:
      text = file.read()
    with open(path, 'w', encoding='utf-8') as file:
      file.write(re.sub('from compat import .*',
                        'import tensorflow as tf\nslim = tf.contrib.slim',
                        text))
  output = tmp_path / 'output'
  output.mkdir()
  for name in ('lenet', 'cifarnet'):
    (output / (name + '.json')).write_text('{}')
  result = run('--slim_dir=%s' % tmp_path, '--output_dir=%s' % output)
  assert result.returncode == 0, result.stderr
  assert '/lenet.json: 8 variables, 3275659 parameters\n' in result.stdout
  for name in ('lenet', 'cifarnet'):
    text = (output / (name + '.json')).read_text()
    facts = json.loads(text)
    # In the format of the committed files, so that only values can differ.
    assert text == json.dumps(facts, sort_keys=True,
                              separators=(',', ':')) + '\n'
    assert_same_facts(facts, nets_kit.load(name))


def test_unknown_network_and_folder_without_slim_are_refused(tmp_path):
  with pytest.raises(InputError, match='unknown network .none.; known: alex'):
    make_nets_facts.network_facts(nets_factory, 'none')
  with pytest.raises(InputError, match='no nets/nets_factory.py'):
    make_nets_facts.load_slim(str(tmp_path))


@pytest.mark.slow
def test_program_prints_help_and_names_a_missing_flag():
  result = run('--help')
  assert result.returncode == 0
  for flag in ('--slim_dir', '--networks', '--output_dir'):
    assert '\n  %s: ' % flag in result.stdout
  result = run()
  assert result.returncode == 1
  assert result.stderr == (
      'make_nets_facts.py: error: --slim_dir is required: research/slim of a '
      'checkout of https://github.com/tensorflow/models\n')
