"""Tests of tools/summarize_graph.py: each line of its output."""

import re

import pytest

import export_inference_graph
from common import files
from common.errors import InputError
from compat import tf
from kits import serving_kit as kit
from nets import nets_factory
from tools import summarize_graph


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A folder with plain.pb, plain.pbtxt and frozen.pb of one MobileNet."""
  folder = tmp_path_factory.mktemp('graphs')
  kit.save_checkpoint(folder / 'train')
  for name, more_flags in (('plain.pb', []),
                           ('plain.pbtxt', ['--write_text_graphdef'])):
    kit.run(export_inference_graph, '--checkpoint_path=%s' % (folder / 'train'),
            '--output_file=%s' % (folder / name),
            '--frozen_file=%s' % (folder / 'frozen.pb'), *more_flags)
  return folder


def summary_of(capsys, path, *more_flags):
  """Returns the printed lines for a graph."""
  capsys.readouterr()
  assert kit.run(summarize_graph, '--in_graph=%s' % path, *more_flags) == 0
  return capsys.readouterr().out.splitlines()


def parameters_of(model_name, num_classes):
  """Returns the number of variables of inference, and of their values."""
  row = nets_factory.get_network(model_name)
  with tf.Graph().as_default():
    nets_factory.get_network_fn(model_name, num_classes)(
        tf.zeros([1, kit.SIZE, kit.SIZE, row.channels]))
    sizes = [v.shape.num_elements() for v in tf.global_variables()]
  return len(sizes), sum(sizes)


def test_summary_of_frozen_graph_has_each_line(folder, capsys):
  lines = summary_of(capsys, folder / 'frozen.pb')
  assert lines[0] == ('Found 1 possible inputs: (name=input, type=float(1), '
                      'shape=[?,32,32,3])')
  assert lines[1] == 'No variables spotted.'
  assert lines[2] == ('Found 1 possible outputs: '
                      '(name=MobilenetV1/Predictions/Reshape_1, op=Reshape)')
  match = re.match(r'Found (\S+) \((\d+)\) const parameters, 0 \(0\) variable '
                   r'parameters, and 0 control_edges$', lines[3])
  _, parameters = parameters_of('mobilenet_v1_025', len(kit.LABELS))
  # Apart from the weights, only a few shapes and the info are constants.
  assert parameters < int(match.group(2)) < parameters + 100
  assert match.group(1) == '%.2fk' % (int(match.group(2)) / 1000)
  assert lines[4].startswith('Op types used: ')
  counts = [part.split() for part in lines[4][len('Op types used: '):].split(
      ', ')]
  assert ['15', 'Conv2D'] in counts
  assert ['13', 'DepthwiseConv2dNative'] in counts
  numbers = [int(count) for count, _ in counts]
  assert numbers == sorted(numbers, reverse=True)
  assert lines[5] == (
      'Network mobilenet_v1_025, 32 x 32 pixels, preprocessing inception, '
      '5 classes; input=input:0 (float) '
      'predictions=MobilenetV1/Predictions/Reshape_1:0')
  assert len(lines) == 6


def test_summary_of_graph_with_variables_lists_them(folder, capsys):
  lines = summary_of(capsys, folder / 'plain.pb')
  number, parameters = parameters_of('mobilenet_v1_025', len(kit.LABELS))
  assert lines[1].startswith(
      'Found %d variables: (name=MobilenetV1/Conv2d_0/weights, '
      'type=float(1), shape=[3,3,3,8]) ' % number)
  assert '%d) variable parameters' % parameters in lines[3]
  # TensorFlow 1 writes a variable's shape into the node, or not at all.
  assert '(0) variable parameters' not in lines[3]


def test_summary_of_text_equals_that_of_binary(folder, capsys):
  assert (summary_of(capsys, folder / 'plain.pbtxt') ==
          summary_of(capsys, folder / 'plain.pb'))


def test_print_structure_has_each_node_with_its_inputs(folder, capsys):
  lines = summary_of(capsys, folder / 'frozen.pb', '--print_structure')[6:]
  graph_def = tf.GraphDef.FromString((folder / 'frozen.pb').read_bytes())
  assert len(lines) == len(graph_def.node)
  assert 'input (Placeholder): []' in lines
  conv = [line for line in lines if line.startswith(
      'MobilenetV1/MobilenetV1/Conv2d_0/Conv2D (')]
  assert len(conv) == 1
  assert conv[0].startswith('MobilenetV1/MobilenetV1/Conv2d_0/Conv2D (Conv2D): '
                            '[input, MobilenetV1/Conv2d_0/weights')


def test_summary_counts_inputs_outputs_and_control_edges(tmp_path, capsys):
  with tf.Graph().as_default() as graph:
    first = tf.placeholder(tf.string, name='first')
    second = tf.placeholder(tf.int32, [], name='second')
    three = tf.constant([1, 2, 3])
    with tf.control_dependencies([first]):
      tf.add(second, three, name='sum')
    tf.identity(second, name='same')
    tf.no_op(name='nothing')
  path = tmp_path / 'a.pb'
  files.write_bytes(str(path), graph.as_graph_def().SerializeToString())
  lines = summary_of(capsys, path)
  assert lines[0] == ('Found 2 possible inputs: (name=first, type=string(7), '
                      'shape=<unknown>) (name=second, type=int32(3), shape=[])')
  assert lines[2] == ('Found 2 possible outputs: (name=sum, op=%s) '
                      '(name=same, op=Identity)' %
                      graph.get_operation_by_name('sum').type)
  assert lines[3] == ('Found 3 (3) const parameters, 0 (0) variable '
                      'parameters, and 1 control_edges')


@pytest.mark.parametrize('number,text', [
    (0, '0'), (999, '999'), (1000, '1.00k'), (23853718, '23.85M'),
    (999999, '1.00M'), (138e9, '138.00B'), (5e15, '5000.00T')])
def test_human_abbreviates_large_numbers(number, text):
  assert summarize_graph.human(number) == text


@pytest.mark.parametrize('content,message', [
    (None, 'No such file'), (b'', 'contains no graph'),
    (b'\xff' * 50, 'not a GraphDef, neither binary nor text'),
    (b'node { nam: 3 }', 'not a GraphDef, neither binary nor text')], ids=str)
def test_file_without_graph_raises_input_error(tmp_path, content, message):
  path = tmp_path / 'a.pb'
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(InputError, match=message) as caught:
    kit.run(summarize_graph, '--in_graph=%s' % path)
  assert str(path) in str(caught.value)
  with pytest.raises(InputError, match='--in_graph is needed'):
    kit.run(summarize_graph)
