"""Tests of runs/run_info.py: the labels offset is given in training only.

VGG and ResNet V1 have 1000 classes; ImageNet's records have 1001, with
`background`.
"""

import csv
import re

import pytest

import eval_image_classifier
import export_inference_graph
import server
from common.errors import InputError
from compat import tf
from kits import imagenet_kit, serving_kit
from kits.helpers import parsed_flags
from kits.trained_kit import train
from runs import run_info
from serving.model.classifier import Classifier
from tools import classify_image

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A folder with a few ImageNet photos in data/ and their run in train/."""
  folder = tmp_path_factory.mktemp('imagenet')
  (folder / 'photos').mkdir()
  imagenet_kit.make_tree(folder / 'photos')
  imagenet_kit.convert(folder / 'photos', folder / 'data')
  train(str(folder / 'data'), folder / 'train', '--dataset_name=imagenet',
        '--labels_offset=1', '--max_number_of_steps=1')
  return folder


def evaluate(folder, *flags):
  with parsed_flags(eval_image_classifier.define_flags,
                    '--checkpoint_path=%s' % (folder / 'train'),
                    '--eval_dir=%s' % (folder / 'eval'),
                    '--dataset_split_name=validation', *flags):
    eval_image_classifier.main([])


def test_run_info_keeps_offset_and_first_class_is_tench(folder):
  run = run_info.load(str(folder / 'train'))
  assert run.labels_offset == 1
  assert len(run.labels) == 1000 and run.labels[0] == 'tench'


def test_evaluation_uses_offset_of_run(folder):
  evaluate(folder)
  rows, = [list(csv.DictReader(path.read_text().splitlines()))
           for path in (folder / 'eval').glob('predictions-*.csv')]
  # Labels 1, 135 and 518 of the records, minus 1.
  assert {row['label'] for row in rows} == {'tench', 'crane'}


def test_export_classification_and_server_use_offset_of_run(folder, capsys):
  frozen = str(folder / 'a.pb')
  assert serving_kit.run(
      export_inference_graph, '--checkpoint_path=%s' % (folder / 'train'),
      '--input_type=encoded', '--frozen_file=' + frozen) == 0
  exported = Classifier.from_frozen_graph(frozen)
  assert exported.labels[0] == 'tench' and len(exported.labels) == 1000
  assert exported.info.labels_offset == 1
  photo = serving_kit.make_photo(1)
  trained = Classifier.from_checkpoint(str(folder / 'train'))
  assert trained.labels == exported.labels
  differences = trained.classify([photo]) - exported.classify([photo])
  assert abs(differences).max() < 1e-5
  with serving_kit.parsed_flags(server, '--model_name=' + frozen):
    service = server.service_from_flags()
    assert service.labels == exported.labels
    service.close()
  (folder / 'photo.jpg').write_bytes(photo)
  capsys.readouterr()
  serving_kit.run(classify_image, '--frozen_graph=' + frozen, '--format=csv',
                  '--num_top_predictions=1000', str(folder / 'photo.jpg'))
  rows = csv.reader(capsys.readouterr().out.splitlines())
  printed_labels = [row[2] for row in rows]
  assert 'background' not in printed_labels and len(printed_labels) == 1 + 1000


@pytest.mark.parametrize('given', ['0', '2'])
def test_different_offset_raises_error_that_names_flag(folder, given):
  flag = '--labels_offset=' + given
  message = flag + ', but the run in .*train'
  with pytest.raises(InputError, match=message):
    evaluate(folder, flag)
  with pytest.raises(InputError, match=message):
    serving_kit.run(
        export_inference_graph, '--checkpoint_path=%s' % (folder / 'train'),
        '--frozen_file=%s' % (folder / 'b.pb'), flag)
  with pytest.raises(InputError, match='holds a run with --labels_offset=1, '
                                       'now it is ' + given):
    train(str(folder / 'data'), folder / 'train', '--dataset_name=imagenet',
          flag, '--max_number_of_steps=2')


def test_published_checkpoint_of_1000_classes_without_offset_names_flag(
    folder, tmp_path):
  prefix = serving_kit.save_checkpoint(
      tmp_path, 'cifarnet', ['%d' % number for number in range(1000)],
      with_run=False)
  with parsed_flags(eval_image_classifier.define_flags,
                    '--checkpoint_path=' + prefix, '--model_name=cifarnet',
                    '--dataset_name=imagenet',
                    '--dataset_dir=%s' % (folder / 'data'),
                    '--dataset_split_name=validation',
                    '--eval_dir=%s' % (tmp_path / 'eval')):
    with pytest.raises(InputError) as caught:
      eval_image_classifier.main([])
    tf.reset_default_graph()
  assert re.search('--labels_offset', str(caught.value))
