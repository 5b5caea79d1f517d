"""Tests of tools/list_models.py, and of the figures in its rows."""

import csv
import io
import json

import pytest

from benchmarks import graph_costs
from common.errors import InputError
from compat import tf
from kits.helpers import parsed_flags, run_program
from nets import nets_factory
from runtime import rates
from tools import list_models


def output_of(capsys, *arguments):
  """Runs the program in this process; returns its output."""
  with parsed_flags(list_models.define_flags, *arguments):
    assert not list_models.main([])
  return capsys.readouterr().out


# registry_test.py counts the costs of all other networks.
@pytest.mark.slow
@pytest.mark.engine('tf1')
@pytest.mark.parametrize('name', [
    name for name, row in sorted(nets_factory.NETWORKS.items())
    if row.image_size != row.function.default_image_size])
def test_costs_at_another_size_than_slims_equal_those_of_graph(name):
  row = nets_factory.get_network(name)
  cost = nets_factory.NETWORKS[name].cost
  with tf.Graph().as_default():
    logits, _ = nets_factory.get_network_fn(name, cost.classes)(
        tf.zeros([1, row.image_size, row.image_size, row.channels]))
    assert graph_costs.count(logits) == (cost.parameters, cost.multiply_adds)


@pytest.mark.parametrize('name,parameters,multiply_adds', [
    ('vgg_16', 138, 15500), ('mobilenet_v1', 4.2, 569),
    ('mobilenet_v2', 3.5, 300), ('mobilenet_v2_050', 1.95, 97),
    ('mobilenet_v2_075', 2.61, 209), ('mobilenet_v2_130', 5.34, 509),
    ('mobilenet_v3_large_minimalistic', 3.9, 209), ('nasnet_mobile', 5.3, 564),
    ('nasnet_large', 88.9, 23800), ('pnasnet_large', 86.1, 25000),
])
def test_costs_agree_with_papers(name, parameters, multiply_adds):
  cost = nets_factory.NETWORKS[name].cost
  assert cost.parameters / 1e6 == pytest.approx(parameters, rel=0.012)
  assert cost.multiply_adds / 1e6 == pytest.approx(multiply_adds, rel=0.005)


def test_count_includes_each_kind_of_layer():
  with tf.Graph().as_default():
    images = tf.zeros([1, 6, 6, 2])
    kernel = tf.get_variable('kernel', [3, 3, 2, 5])
    depthwise = tf.get_variable('depthwise', [3, 3, 5, 2])
    matrix = tf.get_variable('matrix', [10, 4])
    tf.get_variable('unused', [7])
    moving = tf.get_variable('moving', [4], trainable=False)
    net = tf.nn.conv2d(images, kernel, [1, 2, 2, 1], 'SAME')
    net = tf.nn.depthwise_conv2d(net, depthwise, [1, 1, 1, 1], 'VALID')
    net = tf.matmul(tf.reshape(net, [1, 10]), matrix) + moving
    assert graph_costs.count(net) == (
        90 + 90 + 40, 3 * 3 * 5 * 18 + 10 * 9 + 10 * 4)


def test_networks_all_have_costs():
  for name, row in nets_factory.NETWORKS.items():
    assert row.cost, name


def test_published_accuracy_falls_with_size_and_width():
  for network in ('mobilenet_v1', 'mobilenet_v2'):
    rows = [nets_factory.find_checkpoint(name)[1]
            for name in nets_factory.checkpoint_names()]
    accuracies = {
        tuple(map(float, row.name.rsplit('_', 2)[1:])): (row.top_1, row.top_5)
        for row in rows
        if row.name.startswith(network) and not row.is_quantized}
    for (width, size), (top_1, top_5) in accuracies.items():
      for (other_width, other_size), (other_1, other_5) in accuracies.items():
        if (other_width, other_size) == (width, size):
          continue
        if other_width <= width and other_size <= size:
          assert other_1 < top_1 and other_5 < top_5


def test_published_accuracy_is_lower_with_8_bits():
  floats = [nets_factory.find_checkpoint(
      'mobilenet_v1_%s_%d' % (width, size))[1]
            for width in ('1.0', '0.75', '0.5', '0.25')
            for size in (224, 192, 160, 128)]
  for row in floats:
    quantized = nets_factory.find_checkpoint(row.name + '_quant')[1]
    assert row.top_1 - 7 < quantized.top_1 < row.top_1
    assert row.top_5 - 6 < quantized.top_5 < row.top_5


def test_table_has_one_line_per_network(capsys):
  lines = output_of(capsys).splitlines()
  assert [line.split()[0] for line in lines[1:]] == sorted(
      nets_factory.NETWORKS)
  line, = [line for line in lines if line.startswith('inception_v4 ')]
  assert line.split('  ')[0] == 'inception_v4'
  assert line.split() == [
      'inception_v4', '299', '42.65', 'M', '12254', 'M', '80.2', '95.2',
      'inception', 'inception_v4_2016_09_09.tar.gz',
      'InceptionV4/Logits,InceptionV4/AuxLogits']
  line, = [line for line in lines if line.startswith('lenet ')]
  assert line.split() == ['lenet', '28', '3.27', 'M', '14', 'M', '-', '-',
                          'lenet', '-', 'LeNet/fc4']


def test_details_name_each_checkpoint_of_network(capsys):
  output = output_of(capsys, '--model_name=mobilenet_v1_025')
  for size in (224, 192, 160, 128):
    assert 'mobilenet_v1_0.25_%d.tgz' % size in output
  assert '--checkpoint_exclude_scopes=MobilenetV1/Logits\n' in output
  assert '0.47 M with 1001 classes' in output
  assert '--labels_offset' not in output
  assert '--labels_offset=1' in output_of(capsys, '--model_name=vgg_16')
  lines = [line.split() for line in output_of(
      capsys, '--model_name=mobilenet_v3_small').splitlines()]
  assert ['v3-small_224_1.0_uint8', '64.9', '%', '-'] in [
      line[:4] for line in lines]
  assert [line[-1] for line in lines].count('(8-bit)') == 1
  assert 'no checkpoint' in output_of(capsys, '--model_name=cifarnet')


def test_json_and_csv_have_exact_numbers(capsys):
  models = json.loads(output_of(capsys, '--format=json'))
  assert [model['name'] for model in models] == sorted(nets_factory.NETWORKS)
  model, = json.loads(output_of(capsys, '--format=json', '--model_name=vgg_16'))
  assert model['parameters'] == 138357544 and model['image_size'] == 224
  assert model['checkpoints'] == [{
      'name': 'vgg_16', 'file': 'vgg_16_2016_08_28.tar.gz',
      'url': nets_factory.get_network('vgg_16').checkpoints[0].url,
      'top_1': 71.5, 'top_5': 89.8, 'is_quantized': False}]
  rows = list(csv.DictReader(io.StringIO(output_of(capsys, '--format=csv'))))
  assert len(rows) == len(models)
  rows_by_name = {row['name']: row for row in rows}
  assert rows_by_name['nasnet_mobile']['classifier_scopes'] == ','.join(
      nets_factory.get_network('nasnet_mobile').classifier_scopes)
  assert rows_by_name['lenet']['top_1'] == ''
  assert int(rows_by_name['vgg_16']['parameters']) == 138357544


def test_unknown_name_lists_known_networks():
  with parsed_flags(list_models.define_flags, '--model_name=vgg16'):
    with pytest.raises(InputError, match="network 'vgg16'; known: alexnet_v2"):
      list_models.main([])


def test_program_runs_as_script():
  completed = run_program('tools/list_models.py', '--model_name=')
  assert completed.returncode == 1 and completed.stdout == ''
  assert completed.stderr.startswith(
      "list_models.py: error: unknown network ''")
  assert completed.stderr.count('\n') == 1


@pytest.fixture
def rates_file(tmp_path):
  """Path of a file with two speeds of lenet and one of cifarnet."""
  path = str(tmp_path / 'rates.json')
  rates.add(path, [
      rates.Rate('lenet', 'OpenVINO 2026.4.0', 'bfloat16', 8, 1234.56, 110.4),
      rates.Rate('lenet', 'TensorFlow 1.15.5', 'float32', 4, 99.0),
      rates.Rate('cifarnet', 'TensorFlow 1.15.5', 'float32', 4, 50.25)])
  return '--rates_file=' + path


def test_rates_table_has_a_column_per_runtime_and_precision(capsys, rates_file):
  title, head, *lines = output_of(capsys, rates_file).splitlines()
  assert title == ('Photos per second of the forward pass, ' +
                   rates.processor())
  assert head.split('  ')[-2:] == ['OpenVINO 2026.4.0, bfloat16',
                                   'TensorFlow 1.15.5, float32']
  assert len(lines) == len(nets_factory.NETWORKS)
  speeds = {line.split()[0]: line.split()[-2:] for line in lines}
  assert speeds['lenet'] == ['1234.6', '99.0']
  assert speeds['cifarnet'] == ['-', '50.2']
  assert speeds['vgg_16'] == ['-', '-']


def test_rates_are_in_details_json_and_csv(capsys, rates_file):
  details = output_of(capsys, rates_file, '--model_name=lenet')
  assert [line.strip() for line in details.splitlines() if 'batches' in line
          ] == ['OpenVINO 2026.4.0, bfloat16 1234.6  in batches of 8, 110 MB',
                'TensorFlow 1.15.5, float32    99.0  in batches of 4']
  assert 'speed' not in output_of(capsys, rates_file, '--model_name=vgg_16')
  model, = json.loads(output_of(capsys, rates_file, '--model_name=lenet',
                                '--format=json'))
  assert [rate['photos_per_second'] for rate in model['rates']] == [
      1234.56, 99.0]
  row, = csv.DictReader(io.StringIO(output_of(
      capsys, rates_file, '--model_name=lenet', '--format=csv')))
  assert row['OpenVINO 2026.4.0, bfloat16'] == '1234.56'


def test_rates_file_of_something_else_is_an_error(tmp_path):
  (tmp_path / 'a.json').write_text('{}')
  with parsed_flags(list_models.define_flags,
                    '--rates_file=%s' % (tmp_path / 'a.json')):
    with pytest.raises(InputError, match='is not a file of benchmarks/runtim'):
      list_models.main([])
