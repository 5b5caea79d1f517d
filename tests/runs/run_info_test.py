"""Tests of runs/run_info.py."""

import json

import pytest

from common.errors import InputError
from runs import run_info

INFO = run_info.RunInfo('lenet', ['a', '花'], 1, 28, 'lenet', 'digits', '/data',
                        None)


def test_save_then_load_returns_same_run_info(tmp_path):
  folder = str(tmp_path / 'new' / 'run')
  run_info.save(folder, INFO)
  assert run_info.load(folder) == INFO


def test_load_file_of_older_version_takes_defaults(tmp_path):
  facts = dict(INFO._asdict())
  del facts['checkpoint_path']
  (tmp_path / 'run.json').write_text(json.dumps(facts))
  assert run_info.load(str(tmp_path)) == INFO


def test_load_without_file_returns_none(tmp_path):
  assert run_info.load(str(tmp_path)) is None


@pytest.mark.parametrize('text', ['', '[]', '{"model_name": "lenet"}'])
def test_load_damaged_file_names_file(tmp_path, text):
  (tmp_path / 'run.json').write_text(text)
  with pytest.raises(InputError, match='run.json is damaged'):
    run_info.load(str(tmp_path))


def test_is_best_needs_best_json_or_run_in_parent_folder(tmp_path):
  prefix = str(tmp_path / 'run' / 'best' / 'model.ckpt-1')
  # A train directory may be named best.
  run_info.save(str(tmp_path / 'run' / 'best'), INFO)
  assert not run_info.is_best(prefix)
  run_info.save(str(tmp_path / 'run'), INFO)
  assert run_info.is_best(prefix)
  copied = tmp_path / 'copy'
  copied.mkdir()
  assert not run_info.is_best(str(copied / 'model.ckpt-1'))
  (copied / 'best.json').write_text('{}')
  assert run_info.is_best(str(copied / 'model.ckpt-1'))


@pytest.mark.parametrize('labels', [['a'], ['花', 'a'], ['a', '花', 'c'], []])
def test_check_classes_that_differ_raises_described_error(labels):
  with pytest.raises(InputError) as caught:
    run_info.check_classes(INFO, labels, '{} is not {}'.format)
  assert str(caught.value) == 'a, 花 is not ' + ', '.join(labels)


def test_check_classes_equal_to_those_of_run_passes():
  run_info.check_classes(INFO, ['a', '花'], '{} {}'.format)


@pytest.mark.parametrize('given, run_decay, is_best, expected', [
    (None, None, True, None),
    (None, 0.9, False, None),
    (None, 0.9, True, 0.9),
    (0.5, 0.9, True, 0.5),
    (0.0, 0.9, True, 0.0)])
def test_choose_decay_returns_given_value_or_that_of_best_checkpoint(
    tmp_path, given, run_decay, is_best, expected):
  if is_best:
    (tmp_path / 'best.json').write_text('{}')
  assert run_info.choose_decay(
      given, INFO._replace(moving_average_decay=run_decay),
      str(tmp_path / 'model.ckpt-1')) == expected
  assert run_info.choose_decay(given, None, 'nowhere') == given
