"""Tests of html_report.py: page, charts, curves, run facts, wrong photos."""

import html.parser
import json
import math
import re
import xml.dom.minidom

import numpy as np
import pytest

from compat import tf
from datasets import manifest
from evaluation import (
  calibration,
  charts,
  curves,
  html_report,
  metrics,
  run_facts,
  run_results,
  wrong_photos,
)
from evaluation.loop import Counted
from kits import dataset_kit
from ood import detector, reference_bank, refused_photos
from runs import run_info

NAMES = ['daisy', '蒲公英', '<script>alert("x")</script>']
DIGEST = 'ab' * 32


def make_result(name, photos=60, names=None, seed=3):
  """Returns a SplitResult of random logits; most predictions are right."""
  names = names or NAMES
  rng = np.random.RandomState(seed)
  labels = np.arange(photos) % len(names)
  logits = rng.normal(size=(photos, len(names))) * 2
  logits[np.arange(photos), labels] += 3
  counted = Counted('/x/model.ckpt-40', 40,
                    ['%s/<i>%d</i>.jpg' % (name, i) for i in range(photos)],
                    labels, calibration.softmax(logits), logits,
                    np.zeros([photos, 3]))
  return run_results.SplitResult(
      name, counted, metrics.compute(labels, counted.probabilities, names), [])


def make_report(*splits, fitted=True, names=None, **changes):
  """Returns a Report on results of `splits`."""
  results = [make_result(split, names=names, seed=seed)
             for seed, split in enumerate(splits)]
  wrong = wrong_photos.find(results, 5)
  fit = calibration.Calibration(1.5, 0.2, 0.1, 'validation', 60, 40, DIGEST,
                                None)
  report = html_report.Report(
      run=run_info.RunInfo('lenet', names or NAMES, 0, 28, 'lenet', 'my & set',
                           '/data', None),
      checkpoint='/x/model.ckpt-40', chosen=None, results=results,
      calibration=fit if fitted else None, calibration_note='no reason <b>',
      curves=curves.Curves([(0, 2.0), (10, 1.0)], [(5, 1.5)], [(5, 0.5)], []),
      wrong=wrong, pictures=[wrong_photos.uri('image/jpeg', b'x')] * len(wrong),
      ood=refused_photos.OodResults(note='no <photos>'),
      flags=[('batch_size', '32'), ('note', '</td><b>')], flags_note=None,
      skipped=run_facts.Skipped([('too & small', 1)],
                                [('a/<b>.jpg', 'too & small')], '/data/s.csv'),
      training_photos={'daisy': 7}, versions=[('Python', '3.7')])
  return report._replace(**changes)


def make_ood(results):
  """Returns OodResults of a bank with odd names, 3 photos per split refused."""
  names = ['daisy/<b>near</b>.jpg', '', 'z/2.jpg']
  bank = reference_bank.assemble(np.eye(3), [0, 1, 2])._replace(
      filenames=names, threshold=-1.5, photos=60, split='validation')
  detections = []
  for result in results:
    scores = np.linspace(-2, 1, len(result.counted.labels))
    accepted = scores >= scores[3]
    detections.append(detector.Detection(
        scores / 10, scores, accepted, detector.RefusedShare(
            3, len(scores), metrics.wilson_interval(3, len(scores)))))
    result.counted.features[:] = [0.9, 0.4, 0.1]
  photos = refused_photos.find(results, detections, bank, 4)
  uri = wrong_photos.uri('image/jpeg', b'y')
  return refused_photos.OodResults(
      detections, photos, [uri] * len(photos),
      [[uri, None, uri] for _ in photos], bank, 'validation')


class _Page(html.parser.HTMLParser):
  """Collects the tags, addresses and text of a page; checks the nesting."""

  EMPTY = ('meta', 'br', 'img')

  def __init__(self, text):
    super().__init__()
    self.tags, self.addresses, self._open, self.text = [], [], [], ''
    self.feed(text)
    assert not self._open

  def handle_starttag(self, tag, attributes):
    self.tags.append(tag)
    self.addresses += [value for name, value in attributes
                       if name in ('src', 'href', 'xlink:href', 'data')]
    if tag not in self.EMPTY:
      self._open.append(tag)

  def handle_startendtag(self, tag, attributes):
    self.tags.append(tag)

  def handle_endtag(self, tag):
    assert self._open.pop() == tag

  def handle_data(self, data):
    self.text += data


def test_page_is_self_contained_and_escapes_names():
  text = html_report.render(make_report('validation', 'test'))
  page = _Page(text)
  assert not {'script', 'link', 'iframe', 'object', 'i'} & set(page.tags)
  pictures = [address for address in page.addresses if address[0] != '#']
  assert len(pictures) == 5
  assert all(address.startswith('data:image/') for address in pictures)
  assert not re.search(r'url\(|@import|https?:', text)
  for name in NAMES + ['a/<b>.jpg', '</td><b>', 'my & set', 'too & small']:
    assert name in page.text, name


def test_page_with_test_photos_calls_only_validation_optimistic():
  report = make_report('validation', 'test',
                       chosen='the checkpoint is the best on these photos')
  text = _Page(html_report.render(report)).text
  assert 'of the 60 test photos are right' in text
  assert ('The validation numbers on this page are optimistic: the checkpoint '
          'is the best on these photos, and the temperature was fitted on '
          'these photos. Nothing was chosen on the test photos.') in text
  assert text.count('optimistic') == 1


def test_page_without_test_photos_calls_validation_optimistic():
  report = make_report('validation', chosen='the checkpoint is the best')
  text = _Page(html_report.render(report)).text
  assert 'of the 60 validation photos are right' in text
  assert 'are optimistic: the checkpoint is the best, and' in text
  assert 'a test split (--percent_test), usually give lower ones' in text
  assert text.count('optimistic') == 1


def test_page_without_choice_on_its_photos_calls_nothing_optimistic():
  for split in ('validation', 'test'):
    text = _Page(html_report.render(make_report(split, fitted=False))).text
    assert 'optimistic' not in text
    assert 'No temperature: no reason <b>.' in text


def test_page_of_bare_run_names_what_is_missing():
  report = make_report(
      'test', fitted=False, curves=curves.Curves([], [], [], ['/x/events.1']),
      wrong=[], pictures=[], flags=[], flags_note='No flags noted.',
      skipped=run_facts.Skipped([], [], None), training_photos={})
  text = _Page(html_report.render(report)).text
  for words in ('neither losses nor evaluations', '/x/events.1 is truncated',
                'none are shown (--num_wrong=0)', 'No flags noted.',
                'the data set has no manifest'):
    assert words in text
  assert 'Accepting only high scores' not in text


def test_page_of_many_classes_has_confusion_matrix_as_picture():
  text = html_report.render(make_report(
      'validation', names=['class %d' % i for i in range(50)]))
  page = _Page(text)
  assert sum(a.startswith('data:image/png') for a in page.addresses) == 1
  assert 'class="matrix"' not in text


def test_page_with_names_that_are_not_utf8_can_be_encoded():
  text = html_report.render(make_report('test', names=['a\udc80', 'b']))
  assert 'a\\udc80' in text.encode('utf-8').decode('utf-8')


def test_scatter_chart_names_cover_neither_points_nor_names():
  points = [charts.Point('network_%d' % number, 10.0 * 1.02 ** number, 0.8,
                         0.01, number % 2) for number in range(4)]
  text = charts.standalone(
      charts.scatter_chart(points, ('<good>', 'others'), 'a & b', 'ms', 'y'))
  document = xml.dom.minidom.parseString(text)
  places = [(float(text.getAttribute('x')), float(text.getAttribute('y')))
            for text in document.getElementsByTagName('text')
            if text.firstChild.data.startswith('network_')]
  assert len(places) == len(document.getElementsByTagName('circle')) == 4
  for x, y in places:
    assert not any(other != (x, y) and abs(other[0] - x) < 60 and
                   abs(other[1] - y) < 13 for other in places)
  assert '&lt;good&gt;' in text and 'a &amp; b' in text


def test_scatter_chart_axis_is_logarithmic():
  text = charts.scatter_chart(
      [charts.Point(str(x), x, 0.5, 0.1, 0) for x in (1, 10, 100)],
      ('all',), 't', 'ms', 'y')
  xs = [float(x) for x in re.findall(r'circle cx="([\d.]+)"', text)]
  assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)


def test_page_shows_refused_photos_and_their_nearest_photos():
  report = make_report('validation', 'test')
  report = report._replace(ood=make_ood(report.results))
  text = html_report.render(report)
  page = _Page(text)
  assert not {'script', 'i'} & set(page.tags)
  assert '<b>near' not in text
  assert page.text.count('refused, similarity') == 4
  # Each with photos of the bank, nearest first, one without a picture.
  assert page.text.count('train: b>.jpg') == 4
  assert page.text.count('train: record 1') == 4
  assert page.text.count('cannot be shown') == 4
  assert (text.index('cosine 0.909') < text.index('cosine 0.404') <
          text.index('cosine 0.101'))
  assert 'and the threshold of refusal was set with them.' in page.text
  assert ('known from a score of -1.5000 on; this threshold was set with 60'
          in page.text)
  assert 'Share of the photos over known score' in text
  for row, result in zip(html_report.ood_rows(report), report.results):
    right = (result.counted.probabilities.argmax(axis=1) ==
             result.counted.labels)
    assert (row['split'], row['photos'], row['refused']) == (result.name, 60, 3)
    assert row['share'] == 0.05
    assert row['accuracy_of_known'] == pytest.approx(right[3:].mean())
    assert row['accuracy_of_refused'] == pytest.approx(right[:3].mean())
    assert row['interval'] == metrics.wilson_interval(3, 60)


def test_page_begins_with_contents_and_figures_that_matter():
  report = make_report('validation', 'test', weights=2500000)
  report = report._replace(ood=make_ood(report.results), results=[
      result._replace(counted=result.counted._replace(
          computed_by='OpenVINO 1, float32', ms_per_photo=12.34))
      for result in report.results])
  page = _Page(html_report.render(report))
  for address in page.addresses:
    if address[0] == '#':
      assert 'id="%s"' % address[1:] in html_report.render(report), address
  for words in ('10.0 MB 2,500,000 weights', '12.3 ms per photo',
                'OpenVINO 1, float32, on this machine',
                '5.0 % of the test photos are refused'):
    assert words in page.text
  # The test photos are first.
  assert (page.text.index('60 test photos') <
          page.text.index('60 validation photos'))


def test_cells_of_matrix_open_their_photos():
  report = make_report('validation')
  result = report.results[0]
  cells = wrong_photos.find_by_cell(result, 2)
  text = html_report.render(report._replace(
      cells=cells, cell_pictures=[
          wrong_photos.uri('image/jpeg', b'%d' % photo.position)
          for photo in cells]))
  for row, column in zip(*result.metrics.confusion.nonzero()):
    link = '<a href="#cell-%d-%d"' % (row, column)
    assert link in text
    _, _, after = text.partition('id="cell-%d-%d"' % (row, column))
    section = after[:after.index('</div></div>')]
    inside = [photo for photo in cells
              if (photo.label, photo.predicted) == (row, column)]
    assert section.count('<img') == len(inside) == min(
        2, result.metrics.confusion[row, column])
    assert all(wrong_photos.uri('image/jpeg', b'%d' % photo.position) in section
               for photo in inside)
    scores = [photo.score for photo in inside]
    assert scores == sorted(scores, reverse=True)
  # Wrong ones first, so that a limit omits right ones.
  right = [photo.label == photo.predicted for photo in cells]
  assert right == sorted(right)


def test_page_shortens_file_names_and_keeps_them_as_title():
  report = make_report('test')
  name = 'daisy/%s.jpg' % ('0123456789' * 4)
  text = html_report.render(report._replace(
      wrong=[report.wrong[0]._replace(file=name)], pictures=[None]))
  assert 'title="%s"' % name in text
  assert '>test: 012345678901…3456789.jpg<' in text


def test_page_warns_of_temperature_only_where_it_does_not_help():
  report = make_report('validation')
  counted = report.results[0].counted
  for temperature, expected in ((1.0, 1), (None, 0)):
    # Logits that are four times too large need a temperature.
    logits = counted.logits * (1 if temperature else 4)
    result = report.results[0]._replace(counted=counted._replace(
        logits=logits))
    fit = report.calibration._replace(
        temperature=temperature or calibration.fit_temperature(
            logits, counted.labels))
    text = html_report.render(report._replace(results=[result],
                                              calibration=fit))
    assert text.count('The temperature does not help here') == expected


def test_page_says_why_training_loss_is_above_validation_loss():
  report = make_report('test', flags=[('cache_features', 'true'),
                                      ('dropout_keep_prob', '0.5')])
  for training, words in ((1.6, 'dropout switches off'), (1.4, None)):
    text = html_report.render(report._replace(curves=curves.Curves(
        [(5, training)], [(5, 1.5)], [], [])))
    assert ('may be above the validation loss: it also counts' in text) == bool(
        words)
    assert words is None or words in text
    assert 'training distorts' not in text


def test_curves_mark_step_of_checkpoint():
  report = make_report('test', curves=curves.Curves(
      [(0, 2.0), (80, 1.0)], [], [], []))
  text = html_report.render(report)
  assert text.count('this report: step 40') == 2  # Broad and narrow.
  beyond = report._replace(curves=curves.Curves([(0, 2.0), (8, 1.0)], [], [],
                                                []))
  assert 'this report: step' not in html_report.render(beyond)


def test_refused_photos_are_those_of_the_lowest_scores():
  report = make_report('validation', 'test')
  photos = make_ood(report.results).photos
  assert [(photo.split, photo.position) for photo in photos] == [
      ('validation', 0), ('test', 0), ('validation', 1), ('test', 1)]
  for photo in photos:
    counted = report.results[photo.split == 'test'].counted
    assert photo.file == counted.filenames[photo.position]
    assert photo.label == counted.labels[photo.position]
    assert photo.predicted == counted.probabilities[photo.position].argmax()


def test_page_without_bank_gives_reason():
  text = _Page(html_report.render(make_report('test'))).text
  assert 'Not computed: no <photos>.' in text


def test_class_rows_have_wilson_intervals_of_precision_and_recall():
  computed = metrics.compute([0, 0, 0, 1], np.eye(3)[[0, 0, 1, 1]], NAMES)
  rows = html_report.class_rows(computed, {'daisy': 7})
  assert (rows[0]['precision'], rows[0]['recall']) == (1.0, 2 / 3)
  assert rows[0]['precision_interval'] == metrics.wilson_interval(2, 2)
  assert rows[0]['recall_interval'] == metrics.wilson_interval(2, 3)
  assert rows[1]['precision_interval'] == metrics.wilson_interval(1, 2)
  assert [row['training'] for row in rows] == [7, None, None]
  assert rows[2]['precision_interval'] is rows[2]['recall_interval'] is None


def test_threshold_rows_choose_on_validation_and_count_on_test():
  report = make_report('validation', 'test')
  rows = html_report.threshold_rows(report)
  assert [row['calibrated'] for row in rows] == [False] * 3 + [True] * 3
  validation, test = report.results
  row = rows[1]
  chosen = calibration.choose_threshold(
      *calibration.scores_of(validation.counted.probabilities,
                             validation.counted.labels),
      target=0.95)
  assert row['threshold'] == pytest.approx(chosen.threshold)
  scores, right = calibration.scores_of(test.counted.probabilities,
                                        test.counted.labels)
  accepted = scores >= row['threshold']
  assert row['accepted'] == pytest.approx(np.mean(accepted))
  assert row['accuracy'] == pytest.approx(np.mean(right[accepted]))


def points_of(line):
  """Returns the points of a <polyline>: [(x, y)]."""
  return [tuple(map(float, pair.split(',')))
          for pair in line.getAttribute('points').split()]


@pytest.mark.parametrize('points', [
    [(0, 1.0)], [(0, 1.0), (1, 1.0)], [(7, math.nan), (8, -3e-7), (9, 0.0)],
    [(0, 1e30), (1, -1e30)]])
def test_line_chart_of_odd_values_is_well_formed_xml(points):
  text = charts.line_chart([('<a>', points)], 'a "title" & <more>', 'step')
  root = xml.dom.minidom.parseString(text).documentElement
  assert root.getAttribute('aria-label') == 'a "title" & <more>'
  for line in root.getElementsByTagName('polyline'):
    assert all(0 <= number <= 640 for point in points_of(line)
               for number in point)


def test_line_chart_places_points_in_proportion():
  text = charts.line_chart([('a', [(0, 0.0), (50, 0.5), (100, 1.0)])], 't', 'x')
  root = xml.dom.minidom.parseString(text).documentElement
  line = next(line for line in root.getElementsByTagName('polyline')
              if line.getAttribute('stroke') == charts.COLOURS[0])
  (x0, y0), (x1, y1), (x2, y2) = points_of(line)
  assert x1 - x0 == pytest.approx(x2 - x1) and x2 > x0 + 500
  assert y0 - y1 == pytest.approx(y1 - y2) and y0 > y2 + 150
  words = [node.firstChild.data for node in root.getElementsByTagName('text')]
  for word in ('0', '20', '100', '0.2', '1', 'a', 'x'):
    assert word in words


def test_line_chart_of_long_curve_stays_small_and_keeps_its_end():
  points = [(step, math.sin(step)) for step in range(100000)]
  text = charts.line_chart([('a', points)], 't', 'x')
  assert len(text) < 20000
  assert '%.1f,' % 628 in text


def test_line_chart_has_gap_where_value_is_not_finite():
  points = [(0, 1.0), (1, 2.0), (2, math.nan), (3, 1.0), (4, math.inf),
            (5, 2.0)]
  text = charts.line_chart([('a', points)], 't', 'x')
  assert text.count('stroke="%s"' % charts.COLOURS[0]) == 3


def test_line_chart_without_points_or_with_4_curves_raises():
  with pytest.raises(ValueError, match="no point to draw in 't'"):
    charts.line_chart([('a', [(1, math.nan)])], 't', 'x')
  with pytest.raises(ValueError, match='4 curves, at most 3'):
    charts.line_chart([('a', [(1, 1.0)])] * 4, 't', 'x')


def test_histogram_shows_shares_of_each_list_and_marks_threshold():
  text = charts.histogram([('a', [0.0, 0.0, 0.0, 1.0]), ('b', [1.0, math.nan])],
                          't', 'x', mark=0.5, num_bins=2)
  root = xml.dom.minidom.parseString(text).documentElement
  lines = {line.getAttribute('stroke'): points_of(line)
           for line in root.getElementsByTagName('polyline')}
  a, b, mark = (lines[colour] for colour in charts.COLOURS[:3])
  bottom = a[0][1]
  heights = [bottom - y for _, y in a]
  # 3/4 in the left bin, 1/4 in the right one; all of b in the right one.
  assert heights[1] == pytest.approx(3 * heights[3], abs=0.5)
  assert bottom - b[3][1] == pytest.approx(4 * heights[3], abs=0.5)
  assert b[1][1] == bottom
  assert mark[0][0] == mark[1][0] == pytest.approx(
      (a[0][0] + a[-1][0]) / 2, abs=0.5)


@pytest.mark.parametrize('values', [[0.5], [0.5] * 9, [-1e30, 1e30]])
def test_histogram_of_odd_values_is_well_formed_xml(values):
  text = charts.histogram([('<a>', values)], 'a & b', 'x', mark=values[0])
  root = xml.dom.minidom.parseString(text).documentElement
  for line in root.getElementsByTagName('polyline'):
    assert all(math.isfinite(number) for point in points_of(line)
               for number in point)


def test_histogram_without_values_raises():
  with pytest.raises(ValueError, match="no value to draw in 't'"):
    charts.histogram([('a', [math.nan])], 't', 'x')


def test_reliability_chart_bar_has_height_of_accuracy():
  probabilities = np.array([[0.8, 0.2]] * 4)
  bins = calibration.reliability(probabilities, [0, 0, 0, 1])
  root = xml.dom.minidom.parseString(
      charts.reliability_chart(bins, 't')).documentElement
  bar, = root.getElementsByTagName('rect')
  axis = next(line for line in root.getElementsByTagName('polyline'))
  (_, top), (_, bottom), _ = points_of(axis)
  assert float(bar.getAttribute('height')) == pytest.approx(
      0.75 * (bottom - top), abs=0.2)
  assert '4 photos, mean score 0.800, right 0.750' in (
      bar.firstChild.firstChild.data)


def write_events(path, points, tag='total_loss_1'):
  """Writes an event file of scalars and returns its path."""
  with tf.python_io.TFRecordWriter(str(path)) as writer:
    for step, value in points:
      event = tf.Event(step=step, summary=tf.Summary(value=[
          tf.Summary.Value(tag=tag, simple_value=value),
          tf.Summary.Value(tag='other', simple_value=9.0)]))
      writer.write(event.SerializeToString())
  return path


def test_curves_of_killed_run_omit_lost_steps(tmp_path):
  # Files are in the order of the seconds in their names, not alphabetical.
  write_events(tmp_path / 'events.out.tfevents.999.x', [(0, 4.0), (10, 3.0)])
  write_events(tmp_path / 'events.out.tfevents.1000.x',
               [(10, 2.5), (20, 2.0), (30, 1.0)])
  write_events(tmp_path / 'events.out.tfevents.2000.x', [(15, 2.25), (25, 1.5)])
  run_curves = curves.read(str(tmp_path))
  assert run_curves.training_loss == [
      (0, 4.0), (10, 2.5), (15, 2.25), (25, 1.5)]
  assert run_curves.validation_accuracy == run_curves.damaged == []


@pytest.mark.parametrize('damage', ['cut', 'flipped'])
def test_curves_of_damaged_event_file_end_before_damage(tmp_path, damage):
  path = write_events(tmp_path / 'events.out.tfevents.5.x',
                      [(step, float(step)) for step in range(20)])
  data = bytearray(path.read_bytes())
  if damage == 'cut':
    del data[-7:]
  else:
    data[len(data) // 2] ^= 255
  path.write_bytes(data)
  run_curves = curves.read(str(tmp_path))
  assert 5 <= len(run_curves.training_loss) < 20
  assert run_curves.training_loss[:5] == [
      (step, float(step)) for step in range(5)]
  if damage == 'flipped':
    assert run_curves.damaged == [str(path)]


def test_curves_of_validation_are_read_despite_incomplete_line(tmp_path):
  lines = [{'step': 20, 'accuracy': 0.7, 'loss': 0.9},
           {'step': 10, 'accuracy': 0.5, 'loss': 1.5}]
  (tmp_path / 'validation.jsonl').write_text(
      ''.join(json.dumps(line) + '\n' for line in lines) + '{"step": 3')
  write_events(tmp_path / 'events.out.tfevents.5.x', [(1, 0.1)],
               'validation/Accuracy')
  run_curves = curves.read(str(tmp_path))
  assert run_curves.validation_accuracy == [(10, 0.5), (20, 0.7)]
  assert run_curves.validation_loss == [(10, 1.5), (20, 0.9)]
  assert run_curves.damaged == [str(tmp_path / 'validation.jsonl')]
  (tmp_path / 'validation.jsonl').unlink()
  assert curves.read(str(tmp_path)).validation_accuracy == [
      (1, pytest.approx(0.1))]


def test_curves_of_training_are_means_supplemented_by_single_steps(tmp_path):
  write_events(tmp_path / 'events.out.tfevents.5.x',
               [(1, 3.0), (3, 2.5), (9, 2.0)])
  lines = [{'step': step, 'train_loss': 1.0 / step} for step in (2, 4)]
  for count, expected in (
      (0, [(1, 3.0), (3, 2.5), (9, 2.0)]),
      (2, [(1, 3.0), (2, 0.5), (4, 0.25), (9, 2.0)])):
    (tmp_path / 'validation.jsonl').write_text(
        ''.join(json.dumps(line) + '\n' for line in lines[:count]))
    assert curves.read(str(tmp_path)).training_loss == expected


def test_curves_of_plain_run_come_from_evaluations_of_validation(tmp_path):
  lines = [{'global_step': 5, 'accuracy': 0.5, 'split': 'validation'},
           {'global_step': 6, 'accuracy': 0.9, 'split': 'train'}]
  (tmp_path / 'metrics.jsonl').write_text(
      ''.join(json.dumps(line) + '\n' for line in lines))
  run_curves = curves.read(str(tmp_path / 'no'), str(tmp_path))
  assert run_curves == curves.Curves([], [], [(5, 0.5)], [])


def test_find_wrong_photos_returns_highest_scores_of_all_splits():
  results = [make_result('validation'), make_result('test', seed=5)]
  photos = wrong_photos.find(results, 1000)
  assert len(photos) == sum(r.metrics.photos - np.trace(r.metrics.confusion)
                            for r in results)
  assert {photo.split for photo in photos} == {'validation', 'test'}
  assert [p.score for p in photos] == sorted((p.score for p in photos),
                                             reverse=True)
  assert all(p.label != p.predicted and p.score >= p.label_score
             for p in photos)
  assert wrong_photos.find(results, 3) == photos[:3]
  assert wrong_photos.find(results, 0) == []


def test_read_photos_finds_records_by_number_across_files(tmp_path):
  paths = dataset_kit.make_shards(tmp_path, 'x', 'test', [3, 1, 4])
  photos = dict(wrong_photos.read_photos(map(str, paths), [7, 0, 3]))
  assert photos == {n: dataset_kit.photo_bytes(n) for n in (0, 3, 7)}


def test_read_photos_omits_damaged_record(tmp_path):
  path, = dataset_kit.make_shards(tmp_path, 'x', 'test', [3])
  data = bytearray(path.read_bytes())
  data[100] ^= 255
  path.write_bytes(data)
  assert [n for n, _ in wrong_photos.read_photos([str(path)], [0, 2])] == [2]


@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
def test_data_uri_is_small_jpeg(kind):
  text = wrong_photos.data_uri(dataset_kit.photo_bytes(1, kind, (900, 300)))
  assert text.startswith('data:image/jpeg;base64,/9j/')
  assert len(text) < 30000


def test_data_uri_of_unreadable_photo_is_none():
  assert wrong_photos.data_uri(None) is None
  assert wrong_photos.data_uri(b'no photo') is None
  assert wrong_photos.data_uri(dataset_kit.photo_bytes(1)[:200]) is None


@pytest.mark.parametrize('text,rows,note', [
    (None, [], 'did not save its flags'), ('{', [], 'cannot be read'),
    ('[]', [], 'holds no table'),
    ('{"b": 0.5, "a": "x", "c": null, "d": [1]}',
     [('a', 'x'), ('b', '0.5'), ('c', 'null'), ('d', '[1]')], None)])
def test_read_flags_returns_rows_or_note(tmp_path, text, rows, note):
  if text is not None:
    (tmp_path / 'flags.json').write_text(text)
  actual_rows, actual_note = run_facts.read_flags(str(tmp_path))
  assert actual_rows == rows
  assert actual_note is note or note in actual_note


def test_read_skipped_uses_list_or_else_manifest(tmp_path):
  folder = str(tmp_path)
  assert run_facts.read_skipped(folder, 'x') == run_facts.Skipped([], [], None)
  manifest.save(folder, manifest.Manifest(
      'x', ['a'], {}, 0, 10, {}, [{'file': 'a/1.jpg', 'reason': 'empty'}]))
  assert run_facts.read_skipped(folder, 'x').reasons == [('empty', 1)]
  (tmp_path / 'x_skipped.csv').write_text(
      'file,reason\n"a/2.jpg","cut, off"\n"a/3.jpg","cut, off"\n"b","small"\n')
  skipped = run_facts.read_skipped(folder, 'x')
  assert skipped.reasons == [('cut, off', 2), ('small', 1)]
  assert skipped.files[1] == ('a/3.jpg', 'cut, off')
  assert skipped.origin == str(tmp_path / 'x_skipped.csv')
