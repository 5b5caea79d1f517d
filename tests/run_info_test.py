"""Tests of runs/run_info.py."""

import json

import pytest

from errors import InputError
from runs import run_info

INFO = run_info.RunInfo('lenet', ['a', '花'], 1, 28, 'lenet', 'digits', '/data',
                        None)


def test_save_then_load_returns_the_same_facts(tmp_path):
  folder = str(tmp_path / 'new' / 'run')
  run_info.save(folder, INFO)
  assert run_info.load(folder) == INFO


def test_load_of_an_older_run_takes_defaults(tmp_path):
  facts = dict(INFO._asdict())
  del facts['checkpoint_path']
  (tmp_path / 'run.json').write_text(json.dumps(facts))
  assert run_info.load(str(tmp_path)) == INFO


def test_load_without_file_returns_none(tmp_path):
  assert run_info.load(str(tmp_path)) is None


@pytest.mark.parametrize('text', ['', '[]', '{"model_name": "lenet"}'])
def test_load_damaged_file_names_it(tmp_path, text):
  (tmp_path / 'run.json').write_text(text)
  with pytest.raises(InputError, match='run.json is damaged'):
    run_info.load(str(tmp_path))
