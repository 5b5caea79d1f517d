"""Tests of ood/graph_nodes.py, also in export, classifier and web page."""

import collections
import csv
import io
import json
import logging
import os
import pathlib
import re
import shutil
import types

import numpy as np
import pytest

import export_inference_graph
from common.errors import InputError
from compat import tf
from datasets import dataset_factory
from datasets.conversion import convert_photos
from evaluation import calibration, loop
from kits import ood_kit
from kits import serving_kit as kit
from kits.trained_kit import CLASSES, NAME
from ood import detector, graph_nodes, photo_features, reference_bank
from runs import checkpoints, run_info
from serving.model import graph_info, inference_graph
from serving.model.classifier import Classifier
from serving.web import app as serving_app
from tools import classify_image

# data: dataset_dir. train_dir: folder of the run. bank: its Bank. validation:
# Features of its validation photos. encoded, floats, off: paths of frozen
# graphs, of input type encoded, of input type float, and without the bank.
Chain = collections.namedtuple(
    'Chain', 'data train_dir bank validation encoded floats off')


def export(train_dir, path, *flags):
  """Exports a frozen graph; returns its path."""
  kit.run(export_inference_graph, '--checkpoint_path=%s' % train_dir,
          '--which_checkpoint=newest', '--frozen_file=%s' % path, *flags)
  return str(path)


@pytest.fixture(scope='module')
def chain(tmp_path_factory):
  folder = tmp_path_factory.mktemp('chain')
  data = ood_kit.make_data(folder / 'data')
  prefix = ood_kit.make_run(data, folder)
  train_dir = os.path.dirname(prefix)
  encoded = export(train_dir, folder / 'encoded.pb', '--input_type=encoded')
  floats = export(train_dir, folder / 'floats.pb')
  off = export(train_dir, folder / 'off.pb', '--input_type=encoded',
               '--known=off')
  bank = reference_bank.load(prefix)
  validation = photo_features.from_photos(
      run_info.load(train_dir), prefix, dataset_factory.get_dataset(
          NAME, 'validation', data), 21)
  return Chain(data, train_dir, bank, validation, encoded, floats, off)


def photo_of(chain, name):
  with open(os.path.join(chain.data, NAME, name), 'rb') as stream:
    return stream.read()


def run_graph(path, photos, batch_size, names):
  """Returns {field of GraphInfo: values} of a frozen graph."""
  with open(path, 'rb') as stream:
    graph_def = tf.GraphDef.FromString(stream.read())
  info = graph_info.read(graph_def)
  with tf.Graph().as_default(), tf.Session() as session:
    tf.import_graph_def(graph_def, name='')
    if info.input_kind == 'float':
      encoded = tf.placeholder(tf.string, [None])
      photos = session.run(inference_graph.photos_to_images(
          encoded, info.preprocessing_name, info.image_size, info.channels),
                           {encoded: photos})
    batches = [session.run({name: getattr(info, name) for name in names},
                           {info.input: photos[start:start + batch_size]})
               for start in range(0, len(photos), batch_size)]
  return {name: np.concatenate([batch[name] for batch in batches])
          for name in names}


@pytest.mark.parametrize('batch_size', [1, 21])
@pytest.mark.parametrize('kind', ['encoded', 'floats'])
def test_graph_outputs_equal_those_of_numpy(chain, kind, batch_size):
  photos = [photo_of(chain, name) for name in chain.validation.filenames]
  outputs = run_graph(getattr(chain, kind), photos, batch_size,
                      ('similarity', 'known_score', 'known', 'cosines'))
  bank, validation = chain.bank, chain.validation
  similarities = reference_bank.similarities(bank, validation.values)
  scores = reference_bank.scores(bank, similarities, validation.logits)
  np.testing.assert_allclose(outputs['similarity'], similarities, atol=1e-5)
  # The score magnifies the rounding error of a similarity hundreds of times.
  np.testing.assert_allclose(outputs['known_score'], scores, atol=1e-3)
  assert outputs['known'].dtype == bool
  assert outputs['known'].tolist() == (scores >= bank.threshold).tolist()
  assert np.sum(~outputs['known']) == bank.refused == 1
  np.testing.assert_allclose(
      outputs['cosines'],
      reference_bank.normalize(validation.values) @ bank.features.T, atol=1e-5)


def test_graph_with_known_has_the_same_predictions(chain):
  photos = [photo_of(chain, name) for name in chain.validation.filenames]
  on, off = (run_graph(path, photos, 7, ('predictions', 'logits', 'features'))
             for path in (chain.encoded, chain.off))
  for name in on:
    np.testing.assert_array_equal(on[name], off[name])


@pytest.mark.parametrize('kind', ['encoded', 'floats', 'off'])
def test_classifier_with_features_returns_those_of_the_network(chain, kind):
  photos = [photo_of(chain, name) for name in chain.validation.filenames]
  classifier = Classifier.from_frozen_graph(getattr(chain, kind),
                                            with_features=True)
  np.testing.assert_allclose(
      [answer.features for answer in classifier.predict_each(photos)],
      chain.validation.values, atol=1e-4)
  plain = Classifier.from_frozen_graph(getattr(chain, kind))
  assert plain.predict_each(photos[:1])[0].features is None


def test_graph_without_known_has_no_detector_nodes(chain):
  names = {}
  for kind in ('encoded', 'floats', 'off'):
    with open(getattr(chain, kind), 'rb') as stream:
      graph_def = tf.GraphDef.FromString(stream.read())
    names[kind] = {node.name for node in graph_def.node}
    info = graph_info.read(graph_def)
    facts = (info.similarity, info.known_score, info.known, info.threshold,
             info.threshold_photos)
    if kind == 'off':
      assert facts == (None,) * 5
    else:
      assert facts == ('Similarity:0', 'KnownScore:0', 'Known:0',
                       pytest.approx(chain.bank.threshold), 21)
  assert not names['off'] - names['encoded']
  assert {'Similarity', 'KnownScore', 'Known', 'bank/Cosines'} <= (
      names['encoded'] - names['off'])
  assert not [name for name in names['off']
              if re.match('bank|Similarity|Known', name)]


def test_export_logs_bank_size_threshold_and_photos(chain, tmp_path, log,
                                                    capsys):
  export(chain.train_dir, tmp_path / 'a.pb')
  assert ('Known: 30 training photos to compare with; known from a score of '
          '%.4f on, set with 21 validation photos, of which 1 are refused' %
          chain.bank.threshold) in log.text
  output = capsys.readouterr().out
  assert re.search(r'  known +Known \(score of at least %.4f\)\n' %
                   chain.bank.threshold, output)
  assert re.search(r'  similarity +Similarity\n', output)


def test_classifier_refuses_far_photos_and_accepts_training_photos(chain):
  classifier = Classifier.from_frozen_graph(chain.encoded)
  for answer in classifier.predict_each(ood_kit.far_photos()):
    assert answer.known is False
    assert answer.scores.sum() == pytest.approx(1, abs=1e-5)
  training = classifier.predict_each(
      [photo_of(chain, name) for name in chain.bank.filenames])
  assert sum(answer.known for answer in training) >= 28
  far = classifier.predict_each(ood_kit.far_photos())
  assert (max(answer.similarity for answer in far) <
          min(answer.similarity for answer in training) - 0.05)


def test_classifier_of_a_checkpoint_with_a_bank_equals_that_of_its_graphs(
    chain):
  photos = ood_kit.far_photos() + [
      photo_of(chain, name) for name in chain.validation.filenames]
  classifiers = [Classifier.from_checkpoint(checkpoints.newest(chain.train_dir),
                                            num_nearest=2),
                 Classifier.from_frozen_graph(chain.encoded, num_nearest=2),
                 Classifier.from_frozen_graph(chain.floats, num_nearest=2)]
  for answers in zip(*(classifier.predict_each(photos)
                       for classifier in classifiers)):
    assert len({answer.known for answer in answers}) == 1
    assert len({tuple(neighbour.file for neighbour in answer.nearest)
                for answer in answers}) == 1
    for answer in answers[1:]:
      assert answer.similarity == pytest.approx(answers[0].similarity, abs=1e-5)


def test_graph_of_a_fixed_batch_size_detects_each_photo(chain, tmp_path):
  frozen = export(chain.train_dir, tmp_path / 'a.pb', '--batch_size=2')
  photos = ood_kit.far_photos() + [photo_of(chain, chain.bank.filenames[0])]
  reference = Classifier.from_frozen_graph(chain.encoded, num_nearest=1)
  classifier = Classifier.from_frozen_graph(frozen, num_nearest=1)
  for count in (4, 3, 1):
    for got, expected in zip(classifier.predict_each(photos[:count]),
                             reference.predict_each(photos[:count])):
      assert (got.known, got.nearest[0].file) == (
          expected.known, expected.nearest[0].file)
      assert got.similarity == pytest.approx(expected.similarity, abs=1e-5)


def test_classifier_unreadable_photo_does_not_shift_the_answers(chain):
  classifier = Classifier.from_frozen_graph(chain.encoded, num_nearest=1,
                                            batch_size=2)
  far, near = ood_kit.far_photos()[0], photo_of(chain,
                                                  chain.bank.filenames[7])
  answers = classifier.predict_each([b'no photo', far, b'\xff\xd8\xff', near])
  assert isinstance(answers[0], Exception) and isinstance(answers[2], Exception)
  assert answers[1].known is False
  assert answers[3].nearest[0].file == chain.bank.filenames[7]


def test_temperature_changes_scores_but_not_known(chain, tmp_path, capsys):
  train_dir = ood_kit.copy_run(chain.train_dir, tmp_path / 'train')
  prefix = checkpoints.newest(train_dir)
  calibration.save(prefix, calibration.Calibration(
      3.0, 0.2, 0.1, 'validation', 21, 40, checkpoints.digest(prefix), None))
  frozen = export(train_dir, tmp_path / 'a.pb', '--input_type=encoded')
  photo = os.path.join(chain.data, NAME, chain.bank.filenames[0])
  rows = {}
  for flag in ('--nocalibrated', '--calibrated'):
    rows[flag] = classify(capsys, photo, '--frozen_graph=' + frozen, flag)
  known = [[(row['known'], row['similarity']) for row in rows[flag]]
           for flag in rows]
  assert known[0] == known[1] and known[0][0][0] == '1'
  top_scores = [float(rows[flag][0]['score']) for flag in rows]
  assert top_scores[0] > top_scores[1] + 0.05


@pytest.mark.parametrize('change, message', [
    ({'dataset_dir': '/no/where'}, "data set 'colours' in /no/where has no "
     'train and no validation photos'),
    (None, 'no run.json names its training data'),
])
def test_export_of_a_run_without_photos_is_refused_or_leaves_known_out(
    chain, tmp_path, change, message, log):
  train_dir = ood_kit.copy_run(chain.train_dir, tmp_path / 'train')
  flags = []
  if change:
    run_info.save(train_dir, run_info.load(train_dir)._replace(**change))
  else:
    os.remove(run_info.path(train_dir))
    flags = ['--model_name=cifarnet', '--dataset_name=' + NAME,
             '--dataset_dir=' + chain.data]
  with pytest.raises(InputError) as error:
    export(train_dir, tmp_path / 'a.pb', '--known=on', *flags)
  assert str(error.value) == '--known=on: ' + message
  assert not os.path.exists(str(tmp_path / 'a.pb'))
  log.clear()
  export(train_dir, tmp_path / 'a.pb', '--input_type=encoded', *flags)
  assert 'Known: left out, ' + message in log.text
  answer, = Classifier.from_frozen_graph(str(tmp_path / 'a.pb')).predict_each(
      ood_kit.far_photos()[:1])
  assert (answer.known, answer.similarity, answer.nearest) == (None, None, [])


def test_export_that_no_longer_has_known_keeps_the_old_graph_and_warns(
    chain, tmp_path, caplog):
  # The classes of the data set have changed since the training.
  ood_kit.make_photos(tmp_path / NAME, 4)
  (tmp_path / NAME / 'red').rename(tmp_path / NAME / 'black')
  convert_photos.convert(str(tmp_path), NAME, percent_validation=50)
  path = tmp_path / 'a_freeze.pb'
  shutil.copy(chain.encoded, str(path))
  before = path.read_bytes()
  caplog.set_level(logging.WARNING, logger='tensorflow')
  export(chain.train_dir, path, '--input_type=encoded',
         '--dataset_dir=%s' % tmp_path)
  step = checkpoints.read_global_step(checkpoints.newest(chain.train_dir))
  kept = tmp_path / ('a_freeze_step%d.pb' % step)
  warning, = caplog.messages
  assert warning.startswith(
      "%s had Known (data set 'colours' in %s has the classes black, blue, "
      'green, the run blue, green, red), which the new one lacks; the former '
      'one is kept: %s' % (path, tmp_path, kept))
  assert kept.read_bytes() == before
  info = graph_info.read(tf.GraphDef.FromString(path.read_bytes()))
  assert info.known is None


def test_export_of_a_data_set_that_has_moved_uses_the_flags(chain, tmp_path):
  train_dir = ood_kit.copy_run(chain.train_dir, tmp_path / 'train')
  run_info.save(train_dir, run_info.load(train_dir)._replace(
      dataset_dir='/no/where'))
  for number, flags in enumerate(([], ['--dataset_name=' + NAME])):
    path = tmp_path / ('%d.pb' % number)
    export(train_dir, path, '--known=on', '--dataset_dir=' + chain.data, *flags)
    assert graph_info.read(tf.GraphDef.FromString(
        path.read_bytes())).threshold_photos == 21


def test_export_with_known_on_without_a_checkpoint_is_refused(tmp_path):
  with pytest.raises(InputError, match='--known=on: a graph without weights '
                     'cannot detect'):
    kit.run(export_inference_graph, '--model_name=lenet', '--known=on',
            '--output_file=%s' % (tmp_path / 'a.pb'))


def test_export_with_another_preprocessing_leaves_known_out(chain, tmp_path,
                                                            log):
  flag = '--preprocessing_name=inception'
  export(chain.train_dir, tmp_path / 'a.pb', flag)
  assert ('Known: left out, the run was trained with 32 pixels and '
          'preprocessing cifarnet') in log.text
  with pytest.raises(InputError, match='--known=on: the run was trained with'):
    export(chain.train_dir, tmp_path / 'a.pb', flag, '--known=on')


def test_label_file_also_names_the_nearest_photos(chain, tmp_path):
  names = tmp_path / 'names'
  names.write_text('0:blau\n1:grün\n2:rot\n', encoding='utf-8')
  classifier = Classifier.from_frozen_graph(chain.encoded, str(names),
                                            num_nearest=1)
  index = list(chain.bank.labels).index(1)
  answer, = classifier.predict_each(
      [photo_of(chain, chain.bank.filenames[index])])
  assert answer.nearest[0].label == 'grün'


def classify(capsys, *arguments):
  """Returns the rows of classify_image.py's CSV."""
  capsys.readouterr()
  assert kit.run(classify_image, '--format=csv', *arguments) == 0
  return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


@pytest.fixture(scope='module')
def far_and_near(chain, tmp_path_factory):
  """Returns paths of a far and a training photo, and the name of the latter."""
  folder = tmp_path_factory.mktemp('photos')
  name = chain.bank.filenames[11]
  paths = [folder / 'far.jpg', folder / 'near.jpg']
  for path, data in zip(paths, (ood_kit.far_photos()[0],
                                photo_of(chain, name))):
    path.write_bytes(data)
  return [str(path) for path in paths], name


def test_csv_has_known_similarity_and_nearest_photos(chain, far_and_near,
                                                     capsys):
  (far, near), name = far_and_near
  rows = classify(capsys, far, near, '--frozen_graph=' + chain.encoded,
                  '--nearest=3')
  assert [row['file'] for row in rows] == [far] * 3 + [near] * 3
  assert [row['known'] for row in rows] == ['0'] * 3 + ['1'] * 3
  assert float(rows[0]['similarity']) < float(rows[3]['similarity']) - 0.05
  for row in rows[3:]:
    assert row['near_1'] == name
    assert row['near_1_label'] == name.split('/')[0]
    assert float(row['near_1_similarity']) == pytest.approx(1, abs=1e-5)
    assert float(row['near_3_similarity']) <= float(row['near_2_similarity'])
  plain = classify(capsys, near, '--frozen_graph=' + chain.encoded)
  assert list(plain[0]) == ['file', 'rank', 'label', 'score', 'known',
                            'similarity']


def test_sorted_photos_of_no_class_are_apart(chain, far_and_near, tmp_path):
  (far, near), name = far_and_near
  assert kit.run(classify_image, '--frozen_graph=' + chain.encoded, far, near,
                 '--sort_into=%s' % tmp_path) == 0
  assert {path.relative_to(tmp_path) for path in tmp_path.glob('*/*')} == {
      pathlib.Path('unknown/far.jpg'),
      pathlib.Path(name.split('/')[0]) / 'near.jpg'}


def test_csv_of_more_nearest_photos_than_exist_has_empty_cells(
    chain, far_and_near, capsys):
  rows = classify(capsys, far_and_near[0][1], '--frozen_graph=' + chain.encoded,
                  '--nearest=40')
  for row in rows:
    assert None not in row and None not in row.values()
    assert row['near_30'] and not row['near_31'] and row['near_40'] == ''


def test_csv_of_a_graph_without_known_has_empty_columns(chain, far_and_near,
                                                        capsys):
  rows = classify(capsys, *far_and_near[0], '--frozen_graph=' + chain.off)
  assert len(rows) == 6
  assert {(row['known'], row['similarity']) for row in rows} == {('', '')}


def test_json_has_known_similarity_and_nearest_photos(chain, far_and_near,
                                                      capsys):
  paths, name = far_and_near
  capsys.readouterr()
  kit.run(classify_image, '--format=json', '--nearest=2',
          '--frozen_graph=' + chain.encoded, *paths)
  far, near = json.loads(capsys.readouterr().out)
  assert (far['known'], near['known']) == (False, True)
  assert far['similarity'] < near['similarity']
  assert len(far['predictions']) == len(CLASSES)
  assert len(near['nearest']) == 2
  assert near['nearest'][0] == {'file': name, 'label': name.split('/')[0],
                                'similarity': pytest.approx(1, abs=1e-5)}
  kit.run(classify_image, '--format=json', '--frozen_graph=' + chain.off,
          paths[0])
  assert set(json.loads(capsys.readouterr().out)[0]) == {'file', 'predictions'}


def test_table_shows_none_of_the_classes_and_the_scores(chain, far_and_near,
                                                        capsys):
  paths, name = far_and_near
  capsys.readouterr()
  kit.run(classify_image, '--nearest=1', '--frozen_graph=' + chain.encoded,
          *paths)
  far, near = capsys.readouterr().out.split(paths[1])
  assert re.search(r'\n  none of: blue, green, red; similarity 0\.\d{4}\n', far)
  assert far.count('%') == near.count('%') == 3
  assert 'none of' not in near
  assert re.search(r'\n  near it: %s \(%s\), cosine 1\.0000\n' % (
      name, name.split('/')[0]), near)


@pytest.mark.parametrize('flag', ['--frozen_graph=%s', '--checkpoint_path=%s'])
def test_nearest_without_a_bank_is_refused_in_one_line(chain, far_and_near,
                                                       tmp_path, flag):
  path = chain.off
  if 'checkpoint' in flag:
    path = str(tmp_path)
    kit.save_checkpoint(tmp_path, 'cifarnet')
  with pytest.raises(InputError) as caught:
    kit.run(classify_image, '--nearest=1', flag % path, far_and_near[0][0])
  assert str(caught.value) == (
      '--nearest: the graph holds no training photos; ./export_freeze.sh '
      '--known=on puts them in')


def test_checkpoint_with_the_bank_of_other_weights_leaves_known_out(
    chain, far_and_near, tmp_path, capsys):
  newest = '--which_checkpoint=newest'
  rows = classify(capsys, far_and_near[0][0],
                  '--checkpoint_path=' + chain.train_dir, newest)
  assert rows[0]['known'] == '0'
  train_dir = ood_kit.copy_run(chain.train_dir, tmp_path / 'train')
  prefix = checkpoints.newest(train_dir)
  reference_bank.save(prefix, chain.bank._replace(digest='another'))
  rows = classify(capsys, far_and_near[0][0], '--checkpoint_path=' + train_dir,
                  newest)
  assert rows[0]['known'] == ''


def test_page_shows_none_of_the_classes_and_the_scores(chain):
  classifier = Classifier.from_frozen_graph(chain.encoded)
  client = serving_app.create_app(types.SimpleNamespace(
      labels=classifier.labels,
      predict_each=lambda photos, *options: classifier.predict_each(photos),
      examples={}, can_explain=False, has_nearest=False, model_info=lambda: {},
  )).test_client()
  pages = []
  for data in (ood_kit.far_photos()[0], photo_of(
      chain, chain.bank.filenames[0])):
    page = client.post('/', data={'file': (io.BytesIO(data), 'a.jpg')})
    assert page.status_code == 200
    pages.append(page.get_data(as_text=True))
  far, near = pages
  assert '<h1>None of the 3 classes</h1>' in far
  assert '<title>None of the 3 classes' in re.sub(r'\s+', ' ', far)
  for text in pages:
    assert len(re.findall(r'<td class="percent">[\d.]+ %</td>', text)) == 3
  assert 'None of' not in re.sub('<[^>]*>', '', near)
  assert '<h1>%s</h1>' % chain.bank.filenames[0].split('/')[0] in near


def test_graph_of_a_bank_of_two_photos_equals_numpy():
  bank = reference_bank.set_threshold(
      reference_bank.assemble([[1.0, 0, 0], [0, 1.0, 0]], [0, 1]),
      np.float32([0.9, 0.4]), np.float32([[1, 0], [0, 2]]), 'validation')
  features = np.float32([[2, 0, 0], [1, 1, 0], [0, 0, 5], [0, 0, 0]])
  logits = np.float32([[1, 0], [0, 2], [5, 5], [0, 0]])
  with tf.Graph().as_default(), tf.Session() as session:
    nodes = graph_nodes.add_nodes(tf.constant(features), tf.constant(logits),
                                  bank)
    outputs = session.run({name: nodes[name]
                           for name in ('similarity', 'known_score', 'known')})
  similarities = reference_bank.similarities(bank, features)
  scores = reference_bank.scores(bank, similarities, logits)
  np.testing.assert_allclose(similarities, [1, 0.5 ** 0.5, 0, 0], atol=1e-6)
  np.testing.assert_allclose(outputs['similarity'], similarities, atol=1e-6)
  np.testing.assert_allclose(outputs['known_score'], scores, atol=1e-5)
  assert outputs['known'].tolist() == (scores >= bank.threshold).tolist()


def test_detect_counts_the_photos_below_the_threshold(chain):
  counted = loop.Counted(
      'model.ckpt-1', 1, [], None, None, chain.validation.logits,
      chain.validation.values)
  detection = detector.detect(chain.bank, counted)
  assert detection.known.tolist() == (
      detection.scores >= chain.bank.threshold).tolist()
  assert detection.refused[:2] == (1, 21)
