"""Tests of benchmarks/unknown_scores.py: measures, classifier and methods."""

import re

import numpy as np
import pytest

from benchmarks import unknown_scores as program
from common.errors import InputError
from compat import tf
from evaluation import calibration
from kits import ood_kit
from kits import serving_kit as kit
from kits.trained_kit import NAME, make_photos
from ood import reference_bank


def scores(known, others):
  return program.Scores(np.array(known, float), np.array(others, float))


@pytest.mark.parametrize('known, others', [
    ([3, 4, 5], [0, 1, 2]), ([0, 1], [5, 6, 7]), ([1, 2, 2, 3], [2, 2, 0]),
    ([1, 1], [1]), ([0.5], [0.5, 0.25, 0.75])])
def test_auroc_is_the_share_of_correctly_ordered_pairs(known, others):
  wins = [1.0 if a > b else 0.5 if a == b else 0.0
          for a in known for b in others]
  assert program.auroc(scores(known, others)) == pytest.approx(np.mean(wins))
  assert program.auroc(scores(others, known)) == pytest.approx(
      1 - np.mean(wins))


def test_auroc_of_many_scores_with_ties_matches_the_definition():
  rng = np.random.RandomState(0)
  known, others = rng.randint(0, 30, 90), rng.randint(-5, 25, 70)
  pairs = (known[:, None] > others) + 0.5 * (known[:, None] == others)
  assert program.auroc(scores(known, others)) == pytest.approx(pairs.mean())


@pytest.mark.parametrize('known, others, expected', [
    (range(20), [0, 0.5, 1, 2], 2 / 4),  # 19 of 20 are 1 or more.
    (range(6), [-1, 0, 3], 2 / 3),       # All six are 0 or more.
    ([5], [4, 5, 6], 2 / 3),
    ([7] * 40, [7, 6.9], 1 / 2),
    (range(100), [4.9, 5], 1 / 2)])
def test_accepted_is_the_share_above_the_threshold_of_95_percent(
    known, others, expected):
  assert program.accepted(scores(known, others)) == pytest.approx(expected)


def test_accepted_is_the_share_above_the_shipped_threshold():
  rng = np.random.RandomState(1)
  bank = reference_bank.assemble(rng.normal(size=(50, 6)), [0] * 50)
  known, known_logits = rng.rand(287), rng.normal(size=(287, 3))
  others, other_logits = rng.rand(99) - 0.5, rng.normal(size=(99, 3))
  bank = reference_bank.set_threshold(bank, known, known_logits, 'validation')
  other_scores = reference_bank.scores(bank, others, other_logits)
  assert program.accepted(program.Scores(
      reference_bank.scores(bank, known, known_logits),
      other_scores)) == pytest.approx(np.mean(other_scores >= bank.threshold))


def make_features(classes=6, per_class=30, width=12, seed=0):
  """Returns features around one centre per class, and the labels."""
  rng = np.random.RandomState(seed)
  labels = np.repeat(np.arange(classes), per_class)
  centres = np.eye(width)[:classes] * 3 + 0.5
  return (np.abs(centres[labels] + rng.normal(scale=0.3, size=(
      len(labels), width))).astype(np.float32), labels)


def test_train_classifier_learns_separable_features():
  features, labels = make_features()
  other, other_labels = make_features(seed=1)
  weights, biases = program.train_classifier(
      (features, labels), (other, other_labels), 6, seed=0)
  assert weights.shape == (12, 6) and biases.shape == (6,)
  assert np.mean((other @ weights + biases).argmax(axis=1) ==
                 other_labels) == 1.0
  same_weights, _ = program.train_classifier(
      (features, labels), (other, other_labels), 6, seed=0)
  np.testing.assert_array_equal(weights, same_weights)


@pytest.fixture
def parsed():
  with kit.parsed_flags(program, '--percent_validation=20'):
    yield


def test_make_task_leaves_classes_out_and_parts_share_no_photo(parsed):
  features, labels = make_features()
  features[:, 0] += np.arange(len(features)) * 1e-4  # Makes each row unique.
  task = program.make_task(features, labels, None, (2, 3), seed=4)
  parts = [{row.tobytes() for row in part.features} for part in task]
  assert [len(part) for part in parts] == [4 * 24, 4 * 6, 60]
  assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
  left_out = {row.tobytes() for row in features[np.isin(labels, (2, 3))]}
  assert parts[2] == left_out
  label_by_row = {row.tobytes(): label for row, label in zip(features, labels)}
  for part in task[:2]:
    assert [(0, 1, 4, 5)[label] for label in part.labels] == [
        label_by_row[row.tobytes()] for row in part.features]
    assert part.logits.shape == (len(part.labels), 4)
  other = program.make_task(features, labels, None, (2, 3), seed=5)
  assert {row.tobytes() for row in other.validation.features} != parts[1]


def test_make_task_without_a_validation_photo_is_refused(parsed):
  features, labels = make_features(per_class=2)
  with pytest.raises(InputError, match='--percent_validation=20 leaves no '
                     'photo of 12'):
    program.make_task(features, labels, None, (2, 3), seed=4)


@pytest.mark.parametrize('kind', ['layers', 'layers+kernel'])
def test_make_task_with_a_head_over_layers(parsed, kind):
  features, labels = make_features()
  lower = np.random.RandomState(3).rand(len(features), 5).astype(np.float32)
  pooled = np.concatenate([lower, features], axis=1)
  task = program.make_task(pooled, labels, None, (2, 3), 4, kind, 12)
  assert np.isin(task.others.features, features).all()
  assert [len(part.features) for part in task] == [4 * 24, 4 * 6, 60]
  for part in task[:2]:
    assert (part.logits.argmax(axis=1) == part.labels).all()


def test_methods_yield_the_shipped_one_last(parsed):
  features, labels = make_features()
  strangers = np.random.RandomState(8).rand(40, 12).astype(np.float32)
  task = program.make_task(features, labels, strangers, (), seed=0)
  method_scores = dict(program.methods(task))
  assert list(method_scores)[-1] == 'known score (shipped)'
  assert len(method_scores) == 7
  rows = reference_bank.choose(task.train.labels)
  bank = reference_bank.assemble(task.train.features[rows],
                               task.train.labels[rows])
  bank = reference_bank.set_threshold(
      bank, reference_bank.similarities(bank, task.validation.features),
      task.validation.logits, 'validation')
  for part, shipped in zip((task.validation, task.others),
                           method_scores['known score (shipped)']):
    np.testing.assert_allclose(shipped, reference_bank.scores(
        bank, reference_bank.similarities(bank, part.features), part.logits))
  for part, softmax, energy, nearest in zip(
      (task.validation, task.others), method_scores['largest softmax'],
      method_scores['energy'], method_scores['10-th nearest training photo']):
    np.testing.assert_allclose(
        softmax, calibration.softmax(part.logits).max(axis=1))
    np.testing.assert_allclose(
        energy, np.log(np.exp(part.logits.astype(float)).sum(axis=1)),
        rtol=1e-4)
    cosines = (reference_bank.normalize(part.features) @
               reference_bank.normalize(task.train.features).T)
    np.testing.assert_allclose(nearest, np.sort(cosines, axis=1)[:, -10],
                               atol=1e-5)
  # Photos far from all classes are told apart from them.
  assert program.auroc(method_scores['known score (shipped)']) > 0.99


def test_print_table_has_means_and_deviations(capsys):
  program.print_table([{'a': {'far': (0.5, 0.25), 'near': (0.9, 0.5)}},
                       {'a': {'far': (0.7, 0.75), 'near': (0.7, 0.5)}}])
  lines = capsys.readouterr().out.splitlines()
  assert lines[0].startswith('mean +- deviation, 2 splits')
  assert re.split(' {2,}', lines[1].strip()) == [
      'a', '0.6000 +- 0.1000', '0.5000 +- 0.2500', '0.8000 +- 0.1000',
      '0.5000 +- 0.0000']


def test_print_table_without_near_strangers_has_dashes(capsys):
  program.print_table([{'a': {'far': (0.5, 0.25)}}])
  assert capsys.readouterr().out.splitlines()[1].split()[-2:] == ['-', '-']


@pytest.mark.parametrize('flags, message', [
    ((), '--photos is needed'),
    (('--photos=/no/where', '--strangers=.', '--checkpoint_path=CKPT'),
     '/no/where is not a folder'),
    (('--photos=.', '--strangers=.', '--checkpoint_path=/no/x'),
     'no checkpoint at /no/x'),
])
def test_main_wrong_flag_is_an_input_error(tmp_path, flags, message):
  prefix = 'CKPT'
  if any('CKPT' in flag for flag in flags):
    prefix = kit.save_checkpoint(tmp_path, 'cifarnet')
  with pytest.raises(InputError, match=message):
    kit.run(program, *(flag.replace('CKPT', prefix) for flag in flags))


@pytest.mark.slow
def test_main_prints_table_and_time(tmp_path, capsys):
  make_photos(tmp_path / NAME, 20)
  strangers = tmp_path / 'strangers'
  strangers.mkdir()
  for number, data in enumerate(ood_kit.far_photos()):
    (strangers / ('%d.jpg' % number)).write_bytes(data)
  prefix = kit.save_checkpoint(tmp_path / 'start', 'cifarnet')
  flags = ['--photos=%s' % (tmp_path / NAME), '--strangers=%s' % strangers,
           '--model_name=cifarnet', '--checkpoint_path=' + prefix,
           '--seeds=2', '--percent_validation=40', '--rounds=3',
           '--most_added=1000']
  assert kit.run(program, *flags) == 0
  lines = capsys.readouterr().out.splitlines()
  start = lines.index('60 photos of 3 classes, 3 strangers, 0 pairs of classes '
                      'left out')
  rows = [re.split(' {2,}', line.strip()) for line in lines[start + 1:-1]]
  assert rows[0][:3] == ['mean +- deviation, 2 splits', 'far AUROC',
                         'far accepted']
  shipped = rows[-1]
  assert shipped[0] == 'known score (shipped)' and len(rows) == 8
  assert all(0 <= float(row[1].split()[0]) <= 1 for row in rows[1:])
  assert re.match(r'asking takes -?[\d.]+ ms more than [\d.]+ ms, with \d+ '
                  r'training photos: -?[\d.]+ %$', lines[-1])
  assert float(shipped[1].split()[0]) > 0.99
  assert float(shipped[2].split()[0]) < 0.1
  assert kit.run(program, *flags, '--least_far_auroc=1.01') == 1


def test_measure_time_restores_the_checkpoint(tmp_path, capsys):
  features, labels = make_features(classes=3, per_class=4, width=192)
  prefix = kit.save_checkpoint(tmp_path, 'cifarnet')
  with kit.parsed_flags(program, '--model_name=cifarnet', '--rounds=2'), \
      tf.Graph().as_default() as graph:
    added = program.measure_time(features, labels, prefix)
  assert added > -1
  assert 'with 12 training photos' in capsys.readouterr().out
  assert not graph.get_operations()
