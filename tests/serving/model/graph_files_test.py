"""Tests of serving/model/graph_files.py: operations allowed in graph files."""

import pytest
from tensorflow.python.framework import op_def_registry

import server
from common.errors import InputError
from compat import tf
from kits import graph_kit
from kits import server_load_kit as load_kit
from kits import serving_kit as kit
from serving.model import classifier_service, graph_files
from serving.model.classifier import Classifier
from tools import classify_image, export_saved_model, label_image

# Those of OPERATIONS that TensorFlow registers as stateful. Their state is that
# of a step or of a random generator; they have no effect outside the graph.
STATEFUL = {
    'Assert', 'Case', 'CheckNumerics', 'CheckNumericsV2', 'If', 'RandomShuffle',
    'RandomStandardNormal', 'RandomUniform', 'RandomUniformInt',
    'StatefulPartitionedCall', 'TensorArrayCloseV3', 'TensorArrayConcatV3',
    'TensorArrayGatherV3', 'TensorArrayReadV3', 'TensorArrayScatterV3',
    'TensorArraySizeV3', 'TensorArraySplitV3', 'TensorArrayV3',
    'TensorArrayWriteV3', 'TensorListResize', 'TruncatedNormal', 'While'}


@pytest.fixture
def colors(tmp_path):
  """Path of a valid frozen graph."""
  return graph_kit.write(tmp_path, has_shape=True)


def add_write_file(path, target, op='WriteFile'):
  """Changes a frozen graph so that it writes a file at each classification."""
  graph_def = tf.GraphDef.FromString(path.read_bytes())
  with tf.Graph().as_default() as graph:
    tf.write_file(str(target), 'owned', name='evil')
    nodes = graph.as_graph_def().node
  for node in nodes:
    if node.name == 'evil':
      node.op = op
  graph_def.node.extend(nodes)
  for node in graph_def.node:
    if node.name == 'Predictions':
      node.input.append('^evil')
  path.write_bytes(graph_def.SerializeToString())


def test_read_frozen_unlisted_operation_error_names_node_and_flag(
    colors, tmp_path):
  add_write_file(colors, tmp_path / 'target')
  with pytest.raises(InputError) as raised:
    graph_files.read_frozen(str(colors), 'graph')
  message = str(raised.value)
  assert message.startswith("'%s' is not loaded: " % colors)
  assert "WriteFile (node 'evil'); " in message
  assert message.endswith('--allowed_ops=WriteFile')
  assert graph_files.read_frozen(str(colors), 'graph', ['WriteFile']).node


def test_read_frozen_unlisted_operation_in_a_function_is_refused(colors):
  graph_def = tf.GraphDef.FromString(colors.read_bytes())
  function = graph_def.library.function.add()
  function.signature.name = 'later'
  function.node_def.add(name='inside', op='ReadFile')
  colors.write_bytes(graph_def.SerializeToString())
  with pytest.raises(InputError,
                     match=r"ReadFile \(node 'inside' of function 'later'\)"):
    graph_files.read_frozen(str(colors), 'graph')


def test_read_frozen_error_with_many_odd_names_is_one_line(colors):
  graph_def = tf.GraphDef.FromString(colors.read_bytes())
  for number in range(12):
    graph_def.node.add(name='a\nb', op='Op\n%02d' % number)
  colors.write_bytes(graph_def.SerializeToString())
  with pytest.raises(InputError) as raised:
    graph_files.read_frozen(str(colors), 'graph')
  message = str(raised.value)
  assert '\n' not in message and r"Op\n07 (node 'a\nb'), 4 others" in message
  assert '--allowed_ops' not in message  # A shell could run part of a name.


@pytest.mark.parametrize('program', ['classify_image', 'label_image',
                                     'export_saved_model', 'server'])
def test_program_graph_that_writes_a_file_is_refused(colors, tmp_path, program,
                                                     capsys):
  target, photo = tmp_path / 'target', tmp_path / 'photo.jpg'
  photo.write_bytes(kit.make_photo(1))
  add_write_file(colors, target)

  def run(*flags):
    if program == 'server':
      with kit.parsed_flags(server, '--model_name=%s' % colors, *flags):
        server.service_from_flags().close()
      return
    module, arguments = {
        'classify_image': (classify_image, [
            '--frozen_graph=%s' % colors, str(photo)]),
        'label_image': (label_image, [
            '--graph=%s' % colors, '--image=%s' % photo]),
        'export_saved_model': (export_saved_model, [
            '--frozen_file=%s' % colors,
            '--saved_model_dir=%s' % (tmp_path / 'saved')])}[program]
    assert kit.run(module, *arguments, *flags) == 0

  with pytest.raises(InputError, match='--allowed_ops=WriteFile$'):
    run()
  assert not target.exists() and not (tmp_path / 'saved').exists()
  run('--allowed_ops=WriteFile')
  # The export does not run the graph.
  assert target.exists() == (program != 'export_saved_model')


def test_service_keeps_its_graph_if_the_new_one_writes_a_file(colors, tmp_path,
                                                              monkeypatch):
  monkeypatch.setattr(classifier_service, '_STABLE_SECS', 0.05)
  target, other = tmp_path / 'target', tmp_path / 'other'
  service = load_kit.make_service(colors, reload_secs=0.05)
  try:
    other.mkdir()
    evil = graph_kit.write(other)
    add_write_file(evil, target)
    load_kit.replace_file(evil, colors)
    load_kit.wait_until(lambda: service.counts()['failed_swaps'] == 1)
    prediction, = service.predict_each([kit.make_photo(1)])
    assert prediction.labels == list(graph_kit.LABELS)
    assert service.counts()['swaps'] == 0 and not target.exists()
  finally:
    assert service.close(20)


def test_operations_that_are_stateful_are_harmless():
  get_op_def = getattr(op_def_registry, 'get', None) or (
      op_def_registry.get_registered_ops().get)
  op_defs = {name: get_op_def(name) for name in graph_files.OPERATIONS}
  missing = sorted(name for name, op_def in op_defs.items() if op_def is None)
  # TensorFlow 2.21 has all of them; 1.15 loads some on first use.
  assert len(missing) <= (9 if tf.__version__.startswith('1.') else 0), missing
  assert {name for name, op_def in op_defs.items()
          if op_def is not None and op_def.is_stateful} <= STATEFUL


def test_from_frozen_graph_checks_unknown_operations_before_import(
    colors, tmp_path):
  add_write_file(colors, tmp_path / 'target', op='WriteFileV9')
  with pytest.raises(InputError, match='--allowed_ops=WriteFileV9'):
    Classifier.from_frozen_graph(str(colors))
  with pytest.raises(InputError, match='cannot load the graph'):
    Classifier.from_frozen_graph(str(colors), allowed_ops=['WriteFileV9'])
