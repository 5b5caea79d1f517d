"""Tests of ood/detector.py, also in evaluation and report."""

import csv
import json
import os
import shutil

import numpy as np
import pytest

import eval_image_classifier
from common.errors import InputError
from datasets import dataset_factory
from datasets.conversion import convert_photos
from evaluation import loop, metrics
from kits import serving_kit as kit
from kits.trained_kit import CLASSES, NAME, make_photos
from ood import detector, photo_features, reference_bank
from runs import checkpoints, run_info
from tools import make_report

pytestmark = pytest.mark.slow

PHOTOS = {'train': 30, 'validation': 21, 'test': 9}


def datasets(data):
  return {split: dataset_factory.get_dataset(NAME, split, data)
          for split in ('train', 'validation')}


def test_bank_without_cached_features_is_not_built_if_compute_is_false(
    run, train_dir, checkpoint):
  os.remove(os.path.join(train_dir, 'features.json'))
  bank, reason = detector.find_or_build_bank(run, checkpoint, compute=False)
  assert bank is None
  assert reason == ('the features of %s are not cached; ./export_freeze.sh or '
                    './report.sh computes them' % checkpoint)


def test_bank_threshold_is_set_with_validation_photos_only(
    data, run, checkpoint, monkeypatch):
  calls = []
  set_threshold = reference_bank.set_threshold

  def record(bank, similarities, logits, split):
    calls.append((similarities, logits, split))
    return set_threshold(bank, similarities, logits, split)

  monkeypatch.setattr(reference_bank, 'set_threshold', record)
  bank, description = detector.find_or_build_bank(run, checkpoint)
  (similarities, logits, split), = calls
  validation = photo_features.from_photos(
      run, checkpoint, datasets(data)['validation'], 21)
  np.testing.assert_allclose(similarities, reference_bank.similarities(
      bank, validation.values), atol=1e-5)
  np.testing.assert_allclose(logits, validation.logits, atol=1e-4)
  assert split == bank.split == 'validation'
  assert len(bank.filenames) == PHOTOS['train']
  assert not set(bank.filenames) & set(validation.filenames)
  assert [CLASSES[label] for label in bank.labels] == [
      name.split('/')[0] for name in bank.filenames]
  assert (bank.photos, bank.refused) == (21, 1)
  low, high = metrics.wilson_interval(20, 21)
  assert description == (
      '30 training photos to compare with; known from a score of %.4f on, set '
      'with 21 validation photos, of which 1 are refused (95 %% interval of '
      'the accepted share: %.3f to %.3f)' % (bank.threshold, low, high))


def test_bank_is_stored_and_equal_with_and_without_a_cache(
    run, train_dir, checkpoint, monkeypatch):
  stored, description = detector.find_or_build_bank(run, checkpoint,
                                                    compute=False)
  with monkeypatch.context() as patch:
    patch.setattr(photo_features, 'from_cache', None)  # Must not be called.
    loaded, same_description = detector.find_or_build_bank(run, checkpoint,
                                                           compute=False)
  assert (loaded.threshold, same_description) == (stored.threshold, description)
  os.remove(reference_bank.path(checkpoint))
  os.remove(os.path.join(train_dir, 'features.json'))
  computed, _ = detector.find_or_build_bank(run, checkpoint, batch_size=4)
  np.testing.assert_allclose(computed.features, stored.features, atol=1e-5)
  np.testing.assert_allclose(computed.local_density, stored.local_density,
                             atol=1e-5)
  assert computed.threshold == pytest.approx(stored.threshold, abs=1e-3)
  assert computed.filenames == stored.filenames
  assert computed.positions.tolist() == stored.positions.tolist()


def test_bank_that_is_damaged_is_rebuilt(run, checkpoint):
  bank, _ = detector.find_or_build_bank(run, checkpoint)
  with open(reference_bank.path(checkpoint), 'wb') as stream:
    stream.write(b'PK\x03\x04 half of it')
  rebuilt, _ = detector.find_or_build_bank(run, checkpoint)
  assert rebuilt.threshold == bank.threshold
  assert reference_bank.load(checkpoint).threshold == bank.threshold


def test_bank_of_moving_averages_differs_from_that_of_variables(run,
                                                                checkpoint):
  plain, _ = detector.find_or_build_bank(run, checkpoint)
  averaged, _ = detector.find_or_build_bank(run, checkpoint,
                                            moving_average_decay=0.9)
  assert averaged.moving_average_decay == 0.9
  assert averaged.center[1] != plain.center[1]
  assert reference_bank.load(checkpoint) is None


def test_bank_in_a_read_only_folder_is_used_without_saving(run, checkpoint,
                                                           monkeypatch, log):
  def refuse(*_):
    raise PermissionError(13, 'Permission denied')

  monkeypatch.setattr(reference_bank, 'save', refuse)
  bank, _ = detector.find_or_build_bank(run, checkpoint)
  assert bank.photos == 21
  assert '%s is not saved: Permission denied' % (
      reference_bank.path(checkpoint)) in log.text


def test_bank_of_a_missing_checkpoint_returns_none_and_the_reason(run,
                                                                  checkpoint):
  os.remove(checkpoint + '.index')
  bank, reason = detector.find_or_build_bank(run, checkpoint)
  assert bank is None and checkpoint in reason


def test_bank_for_another_data_set_is_that_of_the_run(data, run, checkpoint,
                                                      tmp_path):
  bank, _ = detector.find_or_build_bank(run, checkpoint, 'other', str(tmp_path))
  assert bank.photos == 21
  # The data set of the run may have moved.
  moved = run._replace(dataset_dir=str(tmp_path))
  bank, reason = detector.find_or_build_bank(moved, checkpoint)
  assert bank is None
  assert reason == 'data set %r in %s has no train and no validation photos' % (
      NAME, tmp_path)
  bank, _ = detector.find_or_build_bank(moved, checkpoint, NAME, data)
  assert bank.photos == 21
  bank, _ = detector.find_or_build_bank(run._replace(dataset_dir=None),
                                        checkpoint)
  assert bank is None


def convert(folder, classes, percent):
  """Converts photos of the classes; returns the dataset_dir."""
  make_photos(folder / 'all' / NAME, 6)
  (folder / NAME).mkdir()
  for name in classes:
    shutil.move(str(folder / 'all' / NAME / name), str(folder / NAME / name))
  convert_photos.convert(str(folder), NAME, percent_validation=percent)
  return str(folder)


def test_bank_of_a_data_set_without_validation_returns_none_and_the_reason(
    run, checkpoint, tmp_path):
  folder = convert(tmp_path, CLASSES, 0)
  bank, reason = detector.find_or_build_bank(run, checkpoint, NAME, folder)
  assert bank is None
  assert reason == 'data set %r in %s has no validation photos' % (NAME, folder)


def test_bank_of_a_data_set_of_other_classes_returns_none_and_the_reason(
    run, checkpoint, tmp_path):
  folder = convert(tmp_path, CLASSES[:2], 30)
  bank, reason = detector.find_or_build_bank(run, checkpoint, NAME, folder)
  assert bank is None
  assert reason == ('data set %r in %s has the classes blue, green, the run '
                    'blue, green, red' % (NAME, folder))


def test_bank_of_damaged_records_returns_none_and_the_reason(
    run, data, checkpoint, tmp_path):
  folder = shutil.copytree(data, str(tmp_path / 'data'))
  shard = next(name for name in sorted(os.listdir(folder))
               if 'train' in name and name.endswith('tfrecord'))
  with open(os.path.join(folder, shard), 'r+b') as stream:
    stream.truncate(os.path.getsize(os.path.join(folder, shard)) // 2)
  bank, reason = detector.find_or_build_bank(run, checkpoint, NAME, folder)
  assert bank is None and shard in reason


def test_bank_of_features_that_are_not_finite_returns_none_and_the_reason(
    run, train_dir, checkpoint, monkeypatch):
  from_cache = photo_features.from_cache

  def from_cache_with_nan(*arguments):
    features = from_cache(*arguments)
    features['train'].values[3, 1] = np.nan
    return features

  monkeypatch.setattr(photo_features, 'from_cache', from_cache_with_nan)
  bank, reason = detector.find_or_build_bank(run, checkpoint)
  assert bank is None and 'not finite' in reason
  assert not os.path.exists(reference_bank.path(checkpoint))


def evaluate(train_dir, eval_dir, split, *flags):
  """Returns the last line of metrics.jsonl and the rows of predictions."""
  kit.run(eval_image_classifier, '--checkpoint_path=%s' % train_dir,
          '--which_checkpoint=newest', '--eval_dir=%s' % eval_dir,
          '--dataset_split_name=%s' % split, *flags)
  with open(os.path.join(str(eval_dir), 'metrics.jsonl')) as stream:
    result = json.loads(stream.readlines()[-1])
  csv_name = 'predictions-%s-%d.csv' % (split, result['global_step'])
  with open(os.path.join(str(eval_dir), csv_name), newline='') as stream:
    return result, list(csv.DictReader(stream))


def test_polling_uses_the_averages_once_a_best_checkpoint_exists(
    train_dir, tmp_path, monkeypatch):
  newest = checkpoints.find(train_dir, 'newest')
  best = checkpoints.find(train_dir)
  expected_results = [evaluate(prefix, tmp_path / str(number), 'validation')
                      for number, prefix in enumerate((newest, best))]
  monkeypatch.setattr(loop, 'poll', lambda train_dir, first, evaluate, *more: [
      evaluate(prefix) for prefix in (newest, best)])
  evaluate(train_dir, tmp_path / 'both', 'validation', '--eval_interval_secs=0')
  with open(str(tmp_path / 'both' / 'metrics.jsonl')) as stream:
    lines = [json.loads(line) for line in stream]
  for line, (expected, _) in zip(lines, expected_results):
    assert dict(line, time=None) == dict(expected, time=None)
  assert len(lines) == 2


def test_evaluation_prints_and_writes_how_many_photos_are_refused(
    run, train_dir, checkpoint, tmp_path, capsys):
  for split, photos in (('validation', 21), ('test', 9)):
    result, rows = evaluate(train_dir, tmp_path / split, split)
    output = capsys.readouterr().out
    refused = result['refused']
    low, high = metrics.wilson_interval(refused, photos)
    assert ('Refused as none of the classes: %d of %d photos, 95 %% interval '
            '%.3f to %.3f' % (refused, photos, low, high)) in output
    assert ('(the threshold was set with these photos)\n' in output) == (
        split == 'validation')
    assert result['refused_interval_95'] == pytest.approx([low, high])
    assert [row['known'] for row in rows].count('0') == refused
    assert all(0.2 < float(row['similarity']) < 0.6 for row in rows)
  bank, _ = detector.find_or_build_bank(run, checkpoint)
  validation, _ = evaluate(train_dir, tmp_path / 'validation', 'validation')
  assert validation['refused'] == bank.refused == 1


def test_evaluation_without_cached_features_counts_refused_only_on_request(
    train_dir, tmp_path, capsys, log):
  os.remove(os.path.join(train_dir, 'features.json'))
  for flag in ('auto', 'off'):
    result, rows = evaluate(train_dir, tmp_path / 'eval', 'validation',
                            '--known=' + flag)
    assert 'refused' not in result and 'known' not in rows[0]
    assert 'Refused' not in capsys.readouterr().out
  assert log.text.count('Known: not computed, the features of') == 1
  result, _ = evaluate(train_dir, tmp_path / 'eval', 'validation', '--known=on')
  assert result['refused'] == 1


def test_evaluation_of_another_data_set_uses_the_bank_of_the_run(
    train_dir, checkpoint, tmp_path, capsys):
  make_photos(tmp_path / 'other', 8)
  convert_photos.convert(str(tmp_path), 'other', percent_validation=50)
  result, _ = evaluate(train_dir, tmp_path / 'eval', 'validation',
                       '--dataset_name=other', '--dataset_dir=%s' % tmp_path)
  assert result['photos'] == 12 and 'refused' in result
  assert 'was set with these photos' not in capsys.readouterr().out
  assert reference_bank.load(checkpoint).photos == 21


@pytest.mark.parametrize('flags, message', [
    (('--preprocessing_name=inception',),
     'another image size or preprocessing'),
    ((), 'no run.json names its training data'),
])
def test_evaluation_that_cannot_count_refused_photos_logs_the_reason(
    train_dir, data, tmp_path, flags, message, log):
  if not flags:
    os.remove(run_info.path(train_dir))
    flags = ('--model_name=cifarnet', '--dataset_name=' + NAME,
             '--dataset_dir=' + data)
  with pytest.raises(InputError, match='--known=on: .*' + message):
    evaluate(train_dir, tmp_path, 'validation', '--known=on', *flags)
  result, _ = evaluate(train_dir, tmp_path, 'validation', *flags)
  assert 'refused' not in result
  assert 'Known: not computed, ' in log.text and message in log.text


def report(train_dir, *flags):
  kit.run(make_report, '--train_dir=' + train_dir, '--nocalibrate',
          '--num_per_cell=0', *flags)
  with open(os.path.join(train_dir, 'report.html'), encoding='utf-8') as stream:
    return stream.read()


def test_report_shows_histogram_and_refused_photos_with_the_nearest(
    data, train_dir, tmp_path):
  page = report(train_dir, '--num_wrong=0')
  best = os.path.join(train_dir, 'best')
  bank = reference_bank.load(checkpoints.newest(best), moving_average_decay=0.9)
  counts = {}
  for split in ('validation', 'test'):
    result, _ = evaluate(best, tmp_path / split, split)
    counts[split] = result['refused']
    assert ('<td data-name="split">%s</td><td data-name="photos">%d</td>'
            '<td data-name="refused">%d</td>' % (
                split, PHOTOS[split], result['refused'])) in page
  assert counts['validation'] == bank.refused == 1
  num_shown = sum(counts.values())
  assert page.count('the threshold of refusal was set with them') == 1
  assert 'aria-label="Share of the photos over known score"' in page
  assert page.count('<strong>refused</strong>') == num_shown
  assert page.count('<img src="data:image/jpeg') == 4 * num_shown
  assert sum(page.count('title="%s">train: ' % name)
             for name in bank.filenames) == 3 * num_shown
  assert 'cannot be shown' not in page
  # With --num_refused=0 the page shows no refused photos.
  assert report(train_dir, '--num_refused=0', '--num_wrong=0').count(
      '<strong>refused</strong>') == 0


def test_report_without_known_shows_the_reason(train_dir):
  page = report(train_dir, '--noknown')
  assert 'Not computed: --noknown was given.' in page
  assert 'refused</strong>' not in page
  assert not os.path.exists(os.path.join(train_dir, 'best', 'known.npz'))


def test_report_of_another_data_set_does_not_say_its_photos_set_the_threshold(
    train_dir, tmp_path):
  make_photos(tmp_path / 'other', 8)
  convert_photos.convert(str(tmp_path), 'other', percent_validation=50)
  page = report(train_dir, '--dataset_name=other',
                '--dataset_dir=%s' % tmp_path)
  assert 'set with 21 validation photos' in page
  assert 'the threshold of refusal was set' not in page
