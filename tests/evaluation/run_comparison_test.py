"""Tests of the comparison of two runs, as data, as text and as a page."""

import json
import math
import os
import re

import pytest

from common.errors import InputError
from datasets.conversion import convert_photos
from evaluation import comparison_page, run_comparison
from kits.run_folder_kit import add_evaluation, make_run
from kits.trained_kit import make_photos
from runs import run_list
from tools import list_runs

# (file, label, prediction of A, prediction of B): both right, only A, only B,
# both wrong, as often as PHOTOS_OF says.
ROWS = [('both', 'cat', 'cat', 'cat'), ('a', 'dog', 'dog', 'cat'),
        ('b', 'cat', 'dog', 'cat'), ('none', 'dog', 'cat', 'cat')]
COUNTS = (20, 1, 9, 2)


@pytest.fixture
def runs_dir(tmp_path):
  """Returns a RUNS_DIR with the runs old and new, both evaluated."""
  rows = [('%s/%d' % (file, number), *others)
          for (file, *others), count in zip(ROWS, COUNTS)
          for number in range(count)]
  for name, column, step in (('old', 2, 30), ('new', 3, 50)):
    train = make_run(tmp_path, name, step,
                     image_size=224 if name == 'old' else 192)
    add_evaluation(train, [(row[0], row[1], row[column]) for row in rows], step)
    (train / 'flags.json').write_text(json.dumps(
        {'train_dir': str(train), 'learning_rate': step / 100, 'seed': 1}))
    (train / 'validation.jsonl').write_text(''.join(json.dumps(
        {'step': 10 * number, 'accuracy': number / 9, 'loss': 1.0}) + '\n'
        for number in range(1, step // 10 + 1)))
  return tmp_path


def compare(runs_dir, a='old', b='new'):
  return run_comparison.compare(*(run_list.find(str(runs_dir), name)
                                  for name in (a, b)))


@pytest.mark.parametrize('only_a, only_b, expected', [
    (0, 0, 1.0), (3, 3, 1.0), (0, 1, 1.0), (0, 5, 2 / 32), (1, 9, 22 / 1024),
    (5, 2, 58 / 128)])
def test_mcnemar_is_the_exact_binomial_test(only_a, only_b, expected):
  for pair in ((only_a, only_b), (only_b, only_a)):
    assert run_comparison.mcnemar(*pair) == pytest.approx(expected)


def test_mcnemar_of_many_photos_is_close_to_the_normal_approximation():
  only_a, only_b = 24500, 25500
  deviation = (only_b - only_a - 1) / math.sqrt(only_a + only_b)
  assert run_comparison.mcnemar(only_a, only_b) == pytest.approx(
      math.erfc(deviation / math.sqrt(2)), rel=1e-2)


def test_compare_counts_changed_photos_on_the_same_photos(runs_dir):
  found = compare(runs_dir)
  assert found.accuracies() == (21 / 32, 29 / 32)
  assert [a.file for a, _ in found.lost()] == ['a/0']
  assert [a.file for a, _ in found.gained()] == [
      'b/%d' % number for number in range(9)]
  assert found.steps == (30, 50) and found.others == (0, 0)
  assert found.verdict() == ('B is better by 25.0 percentage points: more than '
                             'chance (McNemar, p = 0.0215).')
  assert found.settings == [('image_size', '224', '192'),
                            ('--learning_rate', '0.3', '0.5')]


def test_compare_ignores_photos_that_only_one_run_has(runs_dir):
  add_evaluation(runs_dir / 'new' / 'train', [
      ('both/0', 'cat', 'dog'), ('a/0', 'cat', 'cat'), ('x', 'cat', 'cat')], 50)
  found = compare(runs_dir)  # a/0 has another label now.
  assert [a.file for a, _ in found.pairs] == ['both/0']
  assert found.others == (31, 2)
  assert found.verdict() == ('A is better by 100.0 percentage points: no more '
                             'than chance (McNemar, p = 1.0000).')


def test_compare_prefers_the_test_photos(runs_dir):
  for name, step in (('old', 30), ('new', 50)):
    add_evaluation(runs_dir / name / 'train', [('t', 'cat', 'cat')], step,
                   'test')
  found = compare(runs_dir)
  assert (found.split, len(found.pairs)) == ('test', 1)
  assert found.verdict() == 'Both have the same accuracy.'


def test_compare_what_cannot_be_compared_is_an_input_error(runs_dir):
  make_run(runs_dir, 'raw', 70)
  add_evaluation(make_run(runs_dir, 'tested', 5), [('t', 'cat', 'cat')], 5,
                 'test')
  add_evaluation(make_run(runs_dir, 'others', 5), [('t', 'cat', 'cat')], 5)
  for name, message in (
      ('old', 'old is compared with itself'),
      ('raw', 'raw is not evaluated at step 70: RUN=raw EVAL_INTERVAL_SECS= '
       './run_eval.sh evaluates it'),
      ('tested', 'RUN=tested EVAL_SPLIT=validation EVAL_INTERVAL_SECS= ./run_'),
      ('others', 'old and others have no validation photo in common'),
      ('odl', "unknown run 'odl'; known: new, old, others, raw, tested; did ")):
    with pytest.raises(InputError, match=re.escape(message)):
      compare(runs_dir, 'old', name)


def test_print_and_page_show_settings_accuracy_and_curves(runs_dir, capsys):
  status = list_runs.main(['--runs_dir=%s' % runs_dir, '--compare', 'old',
                           'new'])
  output = capsys.readouterr().out
  assert status == 0
  assert re.search(r'--learning_rate +0.3 +0.5\n', output)
  assert 'A  0.6562, 95 % interval 0.4831 to 0.7959\n' in output
  assert 'From right to wrong: 1 photo\n  a/0: dog, then cat\n' in output
  assert '  b/4: dog, then cat\n  and 4 more\n' in output
  path = runs_dir / 'old_new.html'
  assert output.endswith('Wrote %s\n' % path)
  page = path.read_text(encoding='utf-8')
  assert 'B is better by 25.0 percentage points' in page
  assert page.count('<polyline points=') == 2 * (2 + 1)  # Curves and axes.
  assert page.count('cannot be shown') == 10  # There are no records.
  assert 'src=' not in page and 'http:' not in page


def test_page_has_no_test_accuracy_as_validation_accuracy(
    runs_dir, monkeypatch):
  for name, step in (('old', 30), ('new', 50)):
    (runs_dir / name / 'train' / 'validation.jsonl').unlink()
    add_evaluation(runs_dir / name / 'train', [('t', 'cat', 'cat')], step,
                   'test')
  charts = {}
  monkeypatch.setattr(comparison_page.charts, 'line_chart',
                      lambda series, title, _: charts.update({title: series}))
  comparison_page.render(compare(runs_dir))
  assert charts['Validation accuracy'] == [('A', [(30, 21 / 32)]),
                                           ('B', [(50, 29 / 32)])]


def test_page_shows_the_photos_of_the_records(tmp_path):
  make_photos(tmp_path / 'pets')
  convert_photos.convert(str(tmp_path), 'pets', percent_validation=30)
  records = tmp_path / 'pets.json'
  files = json.loads(records.read_text())['files']
  names = sorted(name for name, split in files.items() if split == 'validation')
  for name, shift in (('old', 0), ('new', 1)):
    train = make_run(tmp_path, name, dataset_dir=str(tmp_path))
    add_evaluation(train, [
        (file, 'red', 'blue' if number % 2 == shift else 'red')
        for number, file in enumerate(names)])
  found = compare(tmp_path)
  pictures = comparison_page.pictures(found, [a for a, _ in found.pairs])
  assert len(pictures) == len(names) == 9
  for picture in pictures:
    assert picture.startswith('data:image/jpeg;base64,')
  assert comparison_page.render(found).count('<img src="data:image') == 9
  # After another conversion the positions may be those of other photos.
  late = os.path.getmtime(found.predictions_file) + 1
  for path in tmp_path.glob('pets_validation*'):
    os.utime(str(path), (late, late))
  assert set(comparison_page.pictures(found, [a for a, _ in found.pairs])) == {
      None}
