"""Tests of ood/graph_nodes.py, in export, classifier and page too."""

import collections
import csv
import io
import json
import logging
import os
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

# data: dataset_dir. train_dir: of the run. bank: its Bank. validation: Features
# of its validation photos. encoded, floats, off: frozen graphs.
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


def run_graph(path, photos, at_once, names):
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
    found = [session.run({name: getattr(info, name) for name in names},
                         {info.input: photos[start:start + at_once]})
             for start in range(0, len(photos), at_once)]
  return {name: np.concatenate([part[name] for part in found])
          for name in names}


@pytest.mark.parametrize('at_once', [1, 21])
@pytest.mark.parametrize('kind', ['encoded', 'floats'])
def test_graph_gives_the_numbers_of_numpy(chain, kind, at_once):
  photos = [photo_of(chain, name) for name in chain.validation.filenames]
  found = run_graph(getattr(chain, kind), photos, at_once,
                    ('similarity', 'known_score', 'known', 'cosines'))
  bank, validation = chain.bank, chain.validation
  similarities = reference_bank.similarities(bank, validation.values)
  scores = reference_bank.scores(bank, similarities, validation.logits)
  np.testing.assert_allclose(found['similarity'], similarities, atol=1e-5)
  # A similarity's last digits are hundreds of times larger in its score.
  np.testing.assert_allclose(found['known_score'], scores, atol=1e-3)
  assert found['known'].dtype == bool
  assert found['known'].tolist() == (scores >= bank.threshold).tolist()
  assert np.sum(~found['known']) == bank.refused == 1
  np.testing.assert_allclose(
      found['cosines'],
      reference_bank.normalize(validation.values) @ bank.features.T, atol=1e-5)


def test_predictions_are_untouched(chain):
  photos = [photo_of(chain, name) for name in chain.validation.filenames]
  on, off = (run_graph(path, photos, 7, ('predictions', 'logits', 'features'))
             for path in (chain.encoded, chain.off))
  for name in on:
    np.testing.assert_array_equal(on[name], off[name])


def test_graph_without_known_has_no_such_nodes(chain):
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


def test_export_says_size_threshold_and_photos(chain, tmp_path, log, capsys):
  export(chain.train_dir, tmp_path / 'a.pb')
  assert ('Known: 30 training photos to compare with; known from a score of '
          '%.4f on, set with 21 validation photos, of which 1 are refused' %
          chain.bank.threshold) in log.text
  printed = capsys.readouterr().out
  assert re.search(r'  known +Known \(score of at least %.4f\)\n' %
                   chain.bank.threshold, printed)
  assert re.search(r'  similarity +Similarity\n', printed)


def test_a_far_photo_is_refused_and_others_are_known(chain):
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


def test_checkpoint_with_a_bank_says_what_its_graph_says(chain):
  photos = ood_kit.far_photos() + [
      photo_of(chain, name) for name in chain.validation.filenames]
  ways = [Classifier.from_checkpoint(checkpoints.newest(chain.train_dir),
                                     num_nearest=2),
          Classifier.from_frozen_graph(chain.encoded, num_nearest=2),
          Classifier.from_frozen_graph(chain.floats, num_nearest=2)]
  for answers in zip(*(way.predict_each(photos) for way in ways)):
    assert len({answer.known for answer in answers}) == 1
    assert len({tuple(near.file for near in answer.nearest)
                for answer in answers}) == 1
    for answer in answers[1:]:
      assert answer.similarity == pytest.approx(answers[0].similarity, abs=1e-5)


def test_graph_of_a_fixed_batch_knows_each_photo(chain, tmp_path):
  frozen = export(chain.train_dir, tmp_path / 'a.pb', '--batch_size=2')
  photos = ood_kit.far_photos() + [photo_of(chain, chain.bank.filenames[0])]
  expected = Classifier.from_frozen_graph(chain.encoded, num_nearest=1)
  found = Classifier.from_frozen_graph(frozen, num_nearest=1)
  for count in (4, 3, 1):
    for a, b in zip(found.predict_each(photos[:count]),
                    expected.predict_each(photos[:count])):
      assert (a.known, a.nearest[0].file) == (b.known, b.nearest[0].file)
      assert a.similarity == pytest.approx(b.similarity, abs=1e-5)


def test_a_photo_that_cannot_be_read_does_not_shift_the_answers(chain):
  classifier = Classifier.from_frozen_graph(chain.encoded, num_nearest=1,
                                            batch_size=2)
  far, near = ood_kit.far_photos()[0], photo_of(chain,
                                                  chain.bank.filenames[7])
  found = classifier.predict_each([b'no photo', far, b'\xff\xd8\xff', near])
  assert isinstance(found[0], Exception) and isinstance(found[2], Exception)
  assert found[1].known is False
  assert found[3].nearest[0].file == chain.bank.filenames[7]


def test_temperature_and_known_go_together(chain, tmp_path, capsys):
  train_dir = ood_kit.copy_run(chain.train_dir, tmp_path / 'train')
  prefix = checkpoints.newest(train_dir)
  calibration.save(prefix, calibration.Calibration(
      3.0, 0.2, 0.1, 'validation', 21, 40, checkpoints.digest(prefix), None))
  frozen = export(train_dir, tmp_path / 'a.pb', '--input_type=encoded')
  photo = os.path.join(chain.data, NAME, chain.bank.filenames[0])
  rows = {}
  for flag in ('--nocalibrated', '--calibrated'):
    rows[flag] = classify(capsys, photo, '--frozen_graph=' + frozen, flag)
  said = [[(row['known'], row['similarity']) for row in rows[flag]]
          for flag in rows]
  assert said[0] == said[1] and said[0][0][0] == '1'
  top = [float(rows[flag][0]['score']) for flag in rows]
  assert top[0] > top[1] + 0.05


@pytest.mark.parametrize('change, message', [
    ({'dataset_dir': '/no/where'}, "data set 'colours' in /no/where has no "
     'train and no validation photos'),
    (None, 'no run.json names its training data'),
])
def test_export_of_a_run_without_photos(chain, tmp_path, change, message, log):
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


def test_export_that_no_longer_knows_keeps_the_former_and_warns(
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


def test_export_of_a_data_set_that_has_moved_takes_the_flags(chain, tmp_path):
  train_dir = ood_kit.copy_run(chain.train_dir, tmp_path / 'train')
  run_info.save(train_dir, run_info.load(train_dir)._replace(
      dataset_dir='/no/where'))
  for number, more in enumerate(([], ['--dataset_name=' + NAME])):
    path = tmp_path / ('%d.pb' % number)
    export(train_dir, path, '--known=on', '--dataset_dir=' + chain.data, *more)
    assert graph_info.read(tf.GraphDef.FromString(
        path.read_bytes())).threshold_photos == 21


def test_export_without_a_checkpoint_cannot_know(tmp_path):
  with pytest.raises(InputError, match='--known=on: a graph without weights '
                     'cannot detect'):
    kit.run(export_inference_graph, '--model_name=lenet', '--known=on',
            '--output_file=%s' % (tmp_path / 'a.pb'))


def test_export_for_other_photos_than_the_runs_leaves_it_out(chain, tmp_path,
                                                             log):
  flag = '--preprocessing_name=inception'
  export(chain.train_dir, tmp_path / 'a.pb', flag)
  assert ('Known: left out, the run was trained with 32 pixels and '
          'preprocessing cifarnet') in log.text
  with pytest.raises(InputError, match='--known=on: the run was trained with'):
    export(chain.train_dir, tmp_path / 'a.pb', flag, '--known=on')


def test_label_file_names_the_nearest_photos_too(chain, tmp_path):
  names = tmp_path / 'names'
  names.write_text('0:blau\n1:grün\n2:rot\n', encoding='utf-8')
  classifier = Classifier.from_frozen_graph(chain.encoded, str(names),
                                            num_nearest=1)
  place = list(chain.bank.labels).index(1)
  answer, = classifier.predict_each(
      [photo_of(chain, chain.bank.filenames[place])])
  assert answer.nearest[0].label == 'grün'


def classify(capsys, *arguments):
  """Returns the rows of classify_image.py's CSV."""
  capsys.readouterr()
  assert kit.run(classify_image, '--format=csv', *arguments) == 0
  return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


@pytest.fixture(scope='module')
def two(chain, tmp_path_factory):
  """A far photo and a training photo: paths, and the name of the latter."""
  folder = tmp_path_factory.mktemp('photos')
  name = chain.bank.filenames[11]
  paths = [folder / 'far.jpg', folder / 'near.jpg']
  for path, data in zip(paths, (ood_kit.far_photos()[0],
                                photo_of(chain, name))):
    path.write_bytes(data)
  return [str(path) for path in paths], name


def test_csv_has_known_similarity_and_the_nearest(chain, two, capsys):
  (far, near), name = two
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


def test_csv_of_more_nearest_than_there_are_stays_a_table(chain, two, capsys):
  rows = classify(capsys, two[0][1], '--frozen_graph=' + chain.encoded,
                  '--nearest=40')
  for row in rows:
    assert None not in row and None not in row.values()
    assert row['near_30'] and not row['near_31'] and row['near_40'] == ''


def test_csv_of_a_graph_that_does_not_say_has_empty_columns(chain, two, capsys):
  rows = classify(capsys, *two[0], '--frozen_graph=' + chain.off)
  assert len(rows) == 6
  assert {(row['known'], row['similarity']) for row in rows} == {('', '')}


def test_json_has_known_similarity_and_the_nearest(chain, two, capsys):
  paths, name = two
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


def test_table_says_none_of_the_classes_and_the_scores_still(chain, two,
                                                             capsys):
  paths, name = two
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
def test_nearest_where_there_is_no_bank_is_one_line(chain, two, tmp_path, flag):
  path = chain.off
  if 'checkpoint' in flag:
    path = str(tmp_path)
    kit.save_checkpoint(tmp_path, 'cifarnet')
  with pytest.raises(InputError) as error:
    kit.run(classify_image, '--nearest=1', flag % path, two[0][0])
  assert str(error.value) == (
      '--nearest: the graph holds no training photos; ./export_freeze.sh '
      '--known=on puts them in')


def test_checkpoint_with_the_bank_of_other_weights_does_not_say(
    chain, two, tmp_path, capsys):
  newest = '--which_checkpoint=newest'
  rows = classify(capsys, two[0][0], '--checkpoint_path=' + chain.train_dir,
                  newest)
  assert rows[0]['known'] == '0'
  train_dir = ood_kit.copy_run(chain.train_dir, tmp_path / 'train')
  prefix = checkpoints.newest(train_dir)
  reference_bank.save(prefix, chain.bank._replace(digest='another'))
  rows = classify(capsys, two[0][0], '--checkpoint_path=' + train_dir, newest)
  assert rows[0]['known'] == ''


def test_page_says_none_of_and_still_the_scores(chain):
  classifier = Classifier.from_frozen_graph(chain.encoded)
  client = serving_app.create_app(types.SimpleNamespace(
      labels=classifier.labels,
      predict_each=lambda photos, deadline: classifier.predict_each(photos),
  )).test_client()
  pages = []
  for data in (ood_kit.far_photos()[0], photo_of(
      chain, chain.bank.filenames[0])):
    page = client.post('/', data={'file': (io.BytesIO(data), 'a.jpg')})
    assert page.status_code == 200
    pages.append(page.get_data(as_text=True))
  far, near = pages
  assert '<h1>None of: blue, green, red</h1>' in far
  assert '<title>None of: blue, green, red' in re.sub(r'\s+', ' ', far)
  for text in pages:
    assert len(re.findall(r'<td class="percent">[\d.]+ %</td>', text)) == 3
  assert 'None of' not in re.sub('<[^>]*>', '', near)
  assert '<h1>%s</h1>' % chain.bank.filenames[0].split('/')[0] in near


def test_bank_of_two_photos_works_in_a_graph():
  bank = reference_bank.set_threshold(
      reference_bank.assemble([[1.0, 0, 0], [0, 1.0, 0]], [0, 1]),
      np.float32([0.9, 0.4]), np.float32([[1, 0], [0, 2]]), 'validation')
  asked = np.float32([[2, 0, 0], [1, 1, 0], [0, 0, 5], [0, 0, 0]])
  logits = np.float32([[1, 0], [0, 2], [5, 5], [0, 0]])
  with tf.Graph().as_default(), tf.Session() as session:
    nodes = graph_nodes.add_nodes(tf.constant(asked), tf.constant(logits), bank)
    found = session.run({name: nodes[name]
                         for name in ('similarity', 'known_score', 'known')})
  similarities = reference_bank.similarities(bank, asked)
  scores = reference_bank.scores(bank, similarities, logits)
  np.testing.assert_allclose(similarities, [1, 0.5 ** 0.5, 0, 0], atol=1e-6)
  np.testing.assert_allclose(found['similarity'], similarities, atol=1e-6)
  np.testing.assert_allclose(found['known_score'], scores, atol=1e-5)
  assert found['known'].tolist() == (scores >= bank.threshold).tolist()


def test_detect_counts_the_photos_below_the_threshold(chain):
  counted = loop.Counted(
      'model.ckpt-1', 1, [], None, None, chain.validation.logits,
      chain.validation.values)
  detection = detector.detect(chain.bank, counted)
  assert detection.known.tolist() == (
      detection.scores >= chain.bank.threshold).tolist()
  assert detection.refused[:2] == (1, 21)
