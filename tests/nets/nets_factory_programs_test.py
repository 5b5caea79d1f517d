"""Tests of networks of nets_factory.py in training, export and inference."""

import csv
import json

import numpy as np
import pytest

import eval_image_classifier
import export_inference_graph
from compat import tf
from kits import nets_kit, trained_kit
from kits import serving_kit as kit
from kits.helpers import parsed_flags
from nets import nets_factory
from serving.model import inference_graph
from tools import classify_image

LABELS = ['class %d' % index for index in range(nets_kit.NUM_CLASSES)]


def check_nodes(name, info):
  """Asserts that outputs have slim's names; slim's VGG has no softmax."""
  nodes = nets_kit.load(name)['output_nodes']
  assert info.logits == nodes['logits'] + ':0'
  assert info.predictions == (nodes['predictions'] or 'Predictions') + ':0'


@pytest.mark.parametrize('name', ['alexnet_v2', 'resnet_v1_50'])
def test_inference_graph_without_end_point_predictions_has_one_softmax(name):
  with tf.Graph().as_default() as graph:
    info = inference_graph.build(name, LABELS)
    check_nodes(name, info)
    softmaxes = [operation for operation in graph.get_operations()
                 if operation.type == 'Softmax']
  assert len(softmaxes) == 1


# Networks of some families; registry_test.py tests the nodes of all networks.
FAMILIES = ['alexnet_v2', 'inception_v1', 'inception_v3', 'lenet',
            'mobilenet_v1_025', 'mobilenet_v2', 'mobilenet_v3_small',
            'resnet_v1_50', 'resnet_v2_50']


@pytest.mark.slow
@pytest.mark.parametrize('name', FAMILIES)
def test_frozen_graph_has_slims_nodes_and_runs(name, tmp_path):
  row = nets_factory.get_network(name)
  prefix = kit.save_checkpoint(tmp_path, name, LABELS, row.image_size)
  with tf.Graph().as_default():
    info = inference_graph.build(name, LABELS)
    check_nodes(name, info)
    graph_def = inference_graph.freeze(info, prefix)
  assert not [node.name for node in graph_def.node
              if node.op.startswith(('Variable', 'VarHandle'))]
  image = nets_kit.seeded_image(row.image_size, row.channels)
  with tf.Graph().as_default(), tf.Session() as session:
    tf.import_graph_def(graph_def, name='')
    scores, features = session.run([info.predictions, info.features],
                                   {info.input: image})
  assert scores.shape == (1, nets_kit.NUM_CLASSES)
  np.testing.assert_allclose(scores.sum(), 1, rtol=1e-4)
  assert np.isfinite(features).all()


@pytest.mark.slow
@pytest.mark.parametrize('name,size', [('alexnet_v2', 224),
                                       ('resnet_v1_50', 64)])
def test_network_is_trained_evaluated_exported_and_classifies(name, size,
                                                              tmp_path, capsys):
  dataset_dir = trained_kit.make_dataset(tmp_path)
  train_dir = tmp_path / 'train'
  trained_kit.train(dataset_dir, train_dir, '--model_name=' + name,
                    '--train_image_size=%d' % size, '--optimizer=sgd',
                    '--learning_rate=0.001', '--max_number_of_steps=2')
  with parsed_flags(eval_image_classifier.define_flags,
                    '--checkpoint_path=%s' % train_dir,
                    '--eval_dir=%s' % (tmp_path / 'eval'), '--batch_size=3',
                    '--dataset_split_name=validation'):
    assert not eval_image_classifier.main([])
  result = json.loads((tmp_path / 'eval' / 'metrics.jsonl').read_text())
  assert 0 <= result['accuracy'] <= 1 and result['recall_5'] == 1

  graph_file = tmp_path / 'graph.pb'
  assert not kit.run(export_inference_graph,
                     '--checkpoint_path=%s' % train_dir,
                     '--output_file=%s' % graph_file)
  capsys.readouterr()
  photo = str(next((tmp_path / trained_kit.NAME / 'red').iterdir()))
  scores = []
  for flag in ('--frozen_graph=%s' % (tmp_path / 'graph_freeze.pb'),
               '--checkpoint_path=%s' % train_dir):
    with parsed_flags(classify_image.define_flags, flag, '--format=csv'):
      assert not classify_image.main(['', photo])
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert {row['label'] for row in rows} == set(trained_kit.CLASSES)
    scores.append({row['label']: float(row['score']) for row in rows})
  assert scores[0] == pytest.approx(scores[1], abs=1e-3)
  assert sum(scores[0].values()) == pytest.approx(1, abs=1e-3)
