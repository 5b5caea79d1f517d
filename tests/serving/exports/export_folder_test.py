"""Tests of export_folder.py: kept copies, and files of different steps."""

import os

import pytest

from common.errors import InputError
from compat import tf
from serving.exports import export_folder, saved_model
from serving.model import graph_info

INFO = graph_info.GraphInfo(
    format=1, model_name='lenet', labels=['a', 'b'], labels_offset=0,
    image_size=28, channels=1, preprocessing_name='lenet', input='input:0',
    input_kind='float', logits='l:0', predictions='p:0', features='f:0',
    checkpoint='model.ckpt-280', global_step=280)
# As in graphs written before GraphInfo had global_step.
OLDER = INFO._replace(global_step=None)


def write_frozen(folder, info=INFO):
  """Writes a fake my_x_freeze.pb and its labels; returns their paths."""
  graph_def = tf.GraphDef()
  graph_info.attach(graph_def, info)
  path, labels = folder / 'my_x_freeze.pb', folder / 'my_x_freeze.label'
  path.write_bytes(graph_def.SerializeToString())
  labels.write_text(repr(info.labels))
  return str(path), str(labels)


def write_tflite(folder, info=INFO):
  """Writes a fake my_x.tflite, its labels and its info; returns its path."""
  model, labels, info_file = export_folder.tflite_files(
      str(folder / 'my_x.tflite'))
  for path, data in ((model, b'model'), (labels, b'a\nb\n'),
                     (info_file, graph_info.to_json(info))):
    with open(path, 'wb') as file:
      file.write(data)
  return model


@pytest.mark.parametrize('lost, change', [
    ('Known (because)', {'known': 'k:0'}),
    ('CalibratedPredictions', {'calibrated_predictions': 'c:0',
                               'temperature': 2.0}),
    ('the classes c', {'labels': ['a', 'b', 'c']}),
])
def test_keep_previous_graph_with_more_outputs_is_copied(tmp_path, lost,
                                                         change):
  previous = INFO._replace(**change)
  paths = write_frozen(tmp_path, previous)
  before = (tmp_path / 'my_x_freeze.pb').read_bytes()
  for _ in range(2):  # The second call finds the copy.
    message = export_folder.keep_previous(
        paths, export_folder.read_frozen(paths[0]), INFO, {'Known': 'because'})
    assert message == (
        '%s had %s, which the new one lacks; the former one is kept: %s, %s' %
        (paths[0], lost, tmp_path / 'my_x_freeze_step280.pb',
         tmp_path / 'my_x_freeze_step280.label'))
  assert (tmp_path / 'my_x_freeze_step280.pb').read_bytes() == before
  assert (tmp_path / 'my_x_freeze_step280.label').read_text() == repr(
      previous.labels)
  assert len(os.listdir(str(tmp_path))) == 4
  # A different graph of the same step does not replace the copy.
  paths = write_frozen(tmp_path, previous._replace(image_size=32))
  assert 'my_x_freeze_step280_2.pb' in export_folder.keep_previous(
      paths, previous, INFO)


def test_keep_previous_graph_without_more_outputs_is_not_copied(tmp_path):
  paths = write_frozen(tmp_path)
  new_info = INFO._replace(known='k:0', labels=['b', 'a', 'c'])
  for previous in (None, INFO):
    assert export_folder.keep_previous(paths, previous, new_info) is None
  assert len(os.listdir(str(tmp_path))) == 2


def test_keep_previous_unwritable_copy_is_an_input_error(tmp_path):
  paths = write_frozen(tmp_path, INFO._replace(known='k:0'))
  os.mkdir(str(tmp_path / 'my_x_freeze_step280.pb.part'))
  with pytest.raises(InputError, match='cannot write .*_step280.pb'):
    export_folder.keep_previous(paths, INFO._replace(known='k:0'), INFO)


def test_read_frozen_missing_or_foreign_file_returns_none(tmp_path):
  path = tmp_path / 'a.pb'
  assert export_folder.read_frozen(str(path)) is None
  for data in (b'', b'no graph', tf.GraphDef().SerializeToString()):
    path.write_bytes(data)
    assert export_folder.read_frozen(str(path)) is None


@pytest.mark.parametrize('previous', [INFO, OLDER])
def test_rename_outdated_tflite_model_of_another_step_is_renamed(
    tmp_path, previous):
  model = write_tflite(tmp_path, previous)
  frozen = str(tmp_path / 'my_x_freeze.pb')
  assert export_folder.rename_outdated(frozen, INFO) == []
  assert os.path.exists(model)
  message, = export_folder.rename_outdated(
      frozen, INFO._replace(global_step=680))
  assert message == (
      '%s was of step 280, and %s is of step 680: it is called %s now; '
      'scripts/export_tflite.sh writes one of the same step' % (
          model, frozen, tmp_path / 'my_x_step280.tflite'))
  assert sorted(os.listdir(str(tmp_path))) == [
      'my_x_info_step280.json', 'my_x_labels_step280.txt',
      'my_x_step280.tflite']


def test_rename_outdated_tflite_model_of_unknown_step_is_renamed(tmp_path):
  os.remove(export_folder.tflite_files(write_tflite(tmp_path))[2])
  message, = export_folder.rename_outdated(str(tmp_path / 'my_x_freeze.pb'),
                                           INFO)
  assert 'my_x.tflite was of step unknown, and ' in message
  assert sorted(os.listdir(str(tmp_path))) == [
      'my_x_former.tflite', 'my_x_labels_former.txt']


def test_rename_outdated_saved_model_of_another_step_is_reported(tmp_path):
  version = tmp_path / 'saved_model' / 'my_x' / '3'
  (version / 'assets.extra').mkdir(parents=True)
  (version / 'assets.extra' / 'info.json').write_bytes(graph_info.to_json(INFO))
  frozen = str(tmp_path / 'my_x_freeze.pb')
  assert saved_model.read_info(str(version.parent)) == INFO
  assert export_folder.rename_outdated(frozen, INFO) == []
  message, = export_folder.rename_outdated(
      frozen, INFO._replace(global_step=680))
  assert 'is of step 280, and %s is of step 680; scripts/export_saved_model' % (
      frozen) in message
  assert version.exists()


def test_check_tflite_step_other_than_of_the_frozen_graph_is_refused(tmp_path):
  model = str(tmp_path / 'my_x.tflite')
  export_folder.check_tflite(model, 680)
  frozen, _ = write_frozen(tmp_path)
  export_folder.check_tflite(model, 280)
  with pytest.raises(InputError) as error:
    export_folder.check_tflite(model, 680)
  assert str(error.value) == (
      '%s is of step 280, and %s would be of step 680: run ./export_freeze.sh '
      'first, choose the same checkpoint (CHECKPOINT=best or newest), or '
      'export to another folder (EXPORT_DIR)' % (frozen, model))
