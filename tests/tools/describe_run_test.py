"""Tests of tools/describe_run.py."""

import json

import pytest

from common.errors import InputError
from datasets import manifest as manifests
from kits.helpers import parsed_flags
from tools import describe_run

HEADER = 'file,label,predicted,correct,probability,label_probability,known\n'


def write_evaluation(folder, rows):
  """Writes an evaluation of (label, predicted, known) rows."""
  (folder / 'metrics.jsonl').write_text(
      json.dumps({'split': 'test', 'global_step': 3}) + '\n' +
      json.dumps({'split': 'validation', 'global_step': 7}) + '\n')
  (folder / 'predictions-validation-7.csv').write_text(HEADER + ''.join(
      'x.jpg,%s,%s,%d,0.9,0.9,%s\n' % (label, predicted, label == predicted,
                                       known)
      for label, predicted, known in rows))


def describe(folder):
  manifest = manifests.Manifest(
      'pets', ['cat', 'dog'], {'train': {'size': 30}}, 0, 10.0,
      {'cat/%d.jpg' % number: 'train' for number in range(50)}, [])
  return describe_run.sentences(*describe_run.read(str(folder)), manifest)


def test_sentences_tell_accuracy_confusion_and_refusals(tmp_path):
  write_evaluation(tmp_path, 15 * [('cat', 'cat', 1)] + [
      ('cat', 'dog', 0), ('dog', 'cat', 1)] + 3 * [('dog', 'dog', 1)])
  assert describe(tmp_path) == [
      '50 photos of 2 classes, 30 of them for training.',
      '18 of 20 validation photos are classified correctly: 90.0 % (95 % '
      'interval 69.9 to 97.2 %).',
      # 16 of 20 are cats.
      'That is not better than chance: always answering cat is right for '
      '80.0 %. The network needs more steps, more photos, or a published '
      'checkpoint to start from.',
      'Confused most often: cat and dog, 2 photos.',
      '1 of 20 photos of these classes are refused as none of them.']


def test_sentences_without_confusion_and_detection_are_two(tmp_path):
  write_evaluation(tmp_path, 10 * [('cat', 'cat', ''), ('dog', 'dog', '')])
  lines = describe(tmp_path)
  assert len(lines) == 2
  assert '20 of 20 validation photos' in lines[1] and '100.0 %)' in lines[1]


@pytest.mark.parametrize('folder', ['best', ''])
@pytest.mark.parametrize('step,refused', [(7, 2), (6, None)])
def test_refusals_unknown_to_the_evaluation_are_those_of_its_report(
    tmp_path, folder, step, refused):
  write_evaluation(tmp_path, 10 * [('cat', 'cat', ''), ('dog', 'dog', '')])
  (tmp_path / 'train' / folder).mkdir(parents=True)
  (tmp_path / 'train' / folder / 'results.json').write_text(json.dumps(
      {'splits': {'validation': {'global_step': step, 'refused': 2}}}))
  result, rows = describe_run.read(str(tmp_path))
  found = describe_run.read_refused(str(tmp_path / 'train'), result)
  assert found == refused
  lines = describe_run.sentences(result, rows, manifests.Manifest(
      'pets', ['cat', 'dog'], {}, 0, 10.0, {}, []), found)
  assert ('2 of 20 photos of these classes are refused as none of them.' in
          lines) == (refused is not None)


@pytest.mark.parametrize('rows', [None, []])
def test_missing_evaluation_is_one_line_error(tmp_path, rows):
  if rows is not None:
    write_evaluation(tmp_path, rows)
  with pytest.raises(InputError, match='no evaluation; ./run_eval.sh'):
    describe_run.read(str(tmp_path))


def test_missing_manifest_is_one_line_error(tmp_path):
  with parsed_flags(describe_run.define_flags, '--eval_dir=%s' % tmp_path,
                    '--manifest=%s/x.json' % tmp_path):
    with pytest.raises(InputError, match='x.json: no such file'):
      describe_run.main([])
