"""Tests of serving/model/graph_info.py: a round trip, and damaged metadata."""

import json

import pytest

from common.errors import InputError
from compat import tf
from serving.model import graph_info

INFO = graph_info.GraphInfo(
    format=1, model_name='lenet', labels=['ä', '<b>'], labels_offset=1,
    image_size=28, channels=1, preprocessing_name='lenet', input='input:0',
    input_kind='float', logits='l:0', predictions='p:0', features='f:0',
    checkpoint=None)

# The fields when calibration was added.
OLD_FIELDS = (
    'format', 'model_name', 'labels', 'labels_offset', 'image_size', 'channels',
    'preprocessing_name', 'input', 'input_kind', 'logits', 'predictions',
    'features', 'checkpoint', 'calibrated_predictions', 'temperature')


def _with_text(text):
  graph_def = tf.GraphDef()
  graph_info.attach(graph_def, INFO)
  graph_def.node[0].attr['value'].tensor.CopyFrom(tf.make_tensor_proto(text))
  return graph_def


def test_attach_info_is_read_back_after_serializing():
  graph_def = tf.GraphDef()
  graph_def.node.add(name='other', op='NoOp')
  graph_info.attach(graph_def, INFO._replace(checkpoint='old'))
  graph_info.attach(graph_def, INFO)
  copy = tf.GraphDef.FromString(graph_def.SerializeToString())
  assert graph_info.read(copy) == INFO
  assert [node.name for node in copy.node] == ['other', 'classifier/info']


def test_attach_adds_a_constant_that_can_be_run():
  graph_def = tf.GraphDef()
  graph_info.attach(graph_def, INFO)
  with tf.Graph().as_default(), tf.Session() as session:
    tf.import_graph_def(graph_def, name='')
    text = session.run('classifier/info:0')
  assert json.loads(text.decode('utf-8'))['labels'] == ['ä', '<b>']


def test_read_info_older_than_calibration_has_none():
  fields = INFO._asdict()
  del fields['calibrated_predictions'], fields['temperature']
  assert graph_info.read(_with_text(json.dumps(fields))) == INFO
  assert INFO.calibrated_predictions is INFO.temperature is None


def test_read_info_older_than_ood_detection_has_none():
  fields = {name: value for name, value in INFO._asdict().items()
            if name in OLD_FIELDS}
  info = graph_info.read(_with_text(json.dumps(fields)))
  assert info == INFO
  assert info.known is info.similarity is info.threshold is info.cosines is None


def test_attach_keeps_the_ood_fields():
  info = INFO._replace(similarity='s:0', known_score='k:0', known='b:0',
                       cosines='c:0', bank_filenames='n:0', bank_labels='l:0',
                       threshold=-1.25, threshold_photos=21)
  graph_def = tf.GraphDef()
  graph_info.attach(graph_def, info)
  assert graph_info.read(graph_def) == info


def test_read_graph_without_info_returns_none():
  assert graph_info.read(tf.GraphDef()) is None


@pytest.mark.parametrize('text, message', [
    ('{', 'is damaged'),
    ('[]', 'is damaged'),
    ('{}', 'is damaged'),
    (json.dumps(dict(INFO._asdict(), format=2)), 'has format 2, .* reads 1'),
    (json.dumps(dict(INFO._asdict(), image_size='28')), "image_size is '28'"),
    (json.dumps(dict(INFO._asdict(), labels=None)), 'labels is None'),
    (json.dumps(dict(INFO._asdict(), input_kind='x')), "input_kind is 'x'"),
    (json.dumps(dict(INFO._asdict(), temperature='2')), "temperature is '2'"),
])
def test_read_damaged_info_is_refused(text, message):
  with pytest.raises(InputError, match=message):
    graph_info.read(_with_text(text))
