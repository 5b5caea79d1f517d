"""Tests of benchmarks/runtime_speed.py, on a small network."""

import numpy as np
import pytest

from benchmarks import runtime_speed
from kits.helpers import parsed_flags
from runtime import openvino_model, rates
from runtime.forward_pass import Choice

LENET_MULTIPLY_ADDS = 13883904


def test_measure_gives_a_rate_for_each_runtime():
  results = runtime_speed.measure('lenet', 2, 0.1, peak=1e12)
  runtimes = [result.choice.runtime for result in results
              if result.choice.precision == 'float32']
  assert runtimes == ['tensorflow'] + (
      ['openvino'] if openvino_model.is_installed() else [])
  for result in results:
    assert result.photos_per_second > 0
    assert result.share == pytest.approx(
        result.photos_per_second * 2 * LENET_MULTIPLY_ADDS / 1e12)


def test_measure_counts_the_time_of_a_slow_runtime(monkeypatch):
  class Slow:
    def __call__(self, photos):
      clock[0] += 0.5

  clock = [0.0]
  monkeypatch.setattr('time.perf_counter', lambda: clock[0])
  rate, = runtime_speed.measure_rates([Slow()], np.zeros([4, 1]), 2)
  assert rate == 8


def test_main_prints_each_network_and_the_peak(capsys):
  with parsed_flags(runtime_speed.define_flags, '--model_names=lenet',
                    '--batch_size=1', '--seconds=0', '--nomemory'):
    runtime_speed.main([])
  first, _, *lines = capsys.readouterr().out.splitlines()
  assert first.startswith('product of float32 matrices: ')
  assert len(lines) == len(runtime_speed.available())
  assert all(line.startswith('lenet ') for line in lines)
  assert 'TensorFlow' in lines[0]


@pytest.mark.slow
def test_main_writes_speeds_and_memory_to_a_file(tmp_path):
  path = str(tmp_path / 'rates.json')
  with parsed_flags(runtime_speed.define_flags, '--model_names=lenet',
                    '--batch_size=2', '--seconds=0', '--rates_file=' + path):
    runtime_speed.main([])
  found = rates.load(path).rates
  assert sorted((rate.runtime, rate.precision) for rate in found) == sorted(
      (Choice(*options[:2]).name(), options.precision)
      for options in runtime_speed.available())
  for rate in found:
    assert (rate.network, rate.batch_size) == ('lenet', 2)
    assert rate.photos_per_second > 0
    # Its weights alone have 13 MB.
    assert 13 < rate.memory_mb < 2000
