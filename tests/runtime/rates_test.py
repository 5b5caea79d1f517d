"""Tests of runtime/rates.py: a file of measured speeds."""

import json

import pytest

from common.errors import InputError
from runtime import rates

OLD = rates.Rate('lenet', 'TensorFlow 1.15.5', 'float32', 8, 100.0)
NEW = OLD._replace(runtime='OpenVINO 2026.4.0', precision='bfloat16',
                   photos_per_second=300.5, memory_mb=110.5)


def test_add_keeps_other_rates_and_replaces_those_of_the_same_kind(tmp_path):
  path = str(tmp_path / 'folder' / 'rates.json')
  rates.add(path, [OLD])
  rates.add(path, [NEW])
  assert rates.load(path) == (rates.processor(), [NEW, OLD])
  faster = OLD._replace(photos_per_second=120.0, batch_size=16)
  rates.add(path, [faster])
  assert rates.load(path).rates == [NEW, faster]


def test_add_to_the_file_of_another_processor_is_refused(tmp_path):
  path = tmp_path / 'rates.json'
  path.write_text(json.dumps({'processor': 'Z80', 'rates': []}))
  with pytest.raises(InputError, match=r'another processor \(Z80\)'):
    rates.add(str(path), [OLD])
  assert 'Z80' in path.read_text()


@pytest.mark.parametrize('text', [
    '', '[]', '{"rates": []}', '{"processor": "a", "rates": [{"network": 1}]}',
    '{"processor": "a", "rates": 3}'])
def test_load_another_file_is_an_error(tmp_path, text):
  path = tmp_path / 'rates.json'
  path.write_text(text)
  with pytest.raises(InputError, match='rates.json is not a file of bench'):
    rates.load(str(path))


def test_load_missing_file_is_an_error(tmp_path):
  with pytest.raises(InputError, match='none.json'):
    rates.load(str(tmp_path / 'none.json'))


def test_processor_has_a_name():
  assert rates.processor().strip()
