"""Tests of benchmarks/finetune_speed.py and compare_engines.py.

The programs that they measure are replaced.
"""

import json
import os
import re

import pytest

import train_image_classifier
from benchmarks import OLD_RUNTIME, compare_engines, finetune_speed
from kits.helpers import parsed_flags


def flag(arguments, name):
  value, = [argument.split('=', 1)[1] for argument in arguments
            if argument.startswith('--%s=' % name)]
  return value


def test_main_prints_tensorflow_beside_the_default_runtime(monkeypatch, capsys):
  calls = []

  def fake_run(program, *arguments):
    """Takes 10 s for a run, or 40 s with the old runtime; a pass 2 and 6 s."""
    is_old = set(OLD_RUNTIME) <= set(arguments)
    calls.append((program, is_old))
    if program.startswith('eval_'):
      return ('Starting evaluation at 2026-01-01-00:00:00\n'
              'Finished evaluation at 2026-01-01-00:00:0%d\n' %
              (3 if is_old else 1)), 9.0
    if '--cache_features' not in arguments:
      return '(0.500 sec/step)\n' * 5, 9.0
    best = os.path.join(flag(arguments, 'train_dir'), 'best')
    os.makedirs(best)
    with open(os.path.join(best, 'best.json'), 'w') as file:
      json.dump({'accuracy': 0.7 if is_old else 0.75, 'step': 100}, file)
    return '', 40.0 if is_old else 10.0

  monkeypatch.setattr(finetune_speed, 'run', fake_run)
  with parsed_flags(finetune_speed.define_flags, '--dataset_dir=a',
                    '--dataset_name=b', '--checkpoint_path=c', '--steps=2'):
    assert finetune_speed.main([]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[1:4] == [
      'one evaluation pass over all photos           2.0 s',
      'on cached features, records to the end       10.0 s: validation '
      'accuracy 0.7500 at step 100',
      'as before (TensorFlow, float32, logits): one pass 6.0 s, 3.0 times as '
      'long; records to the end 40.0 s, 4.0 times as long: validation accuracy '
      '0.7000 at step 100']
  # The old settings are measured with the default runtime.
  assert [is_old for _, is_old in calls] == [False] * 3 + [True] * 3 + [
      False] * 2


def test_compare_engines_prints_tensorflow_and_what_is_used_without_flags(
    monkeypatch, capsys):
  def fake_run(engine, *arguments):
    if 'benchmarks.engine_speed' in arguments:
      factor = 2 if engine == 'tf2' else 1
      return json.dumps({
          'evaluation': 10.0 * factor, 'classification': 8.0 / factor,
          'auto_evaluation': 40.0 * factor, 'auto_classification': 2.0,
          'auto': 'OpenVINO of ' + engine}), ''
    return '', '(0.500 sec/step)\n' * 6

  monkeypatch.setattr(compare_engines, 'run', fake_run)
  with parsed_flags(compare_engines.define_flags, '--rounds=1', '--steps=2'):
    compare_engines.main([])
  output = capsys.readouterr().out
  rows = {line.split('  ')[0]: re.findall(r'[\d.]+', line)
          for line in output.splitlines()}
  assert rows['evaluation, TensorFlow, photos/s'] == ['10.0', '20.0', '2.00']
  assert rows['evaluation, auto, photos/s'] == ['40.0', '80.0', '2.00']
  assert rows['classification, TensorFlow, ms'] == ['8.0', '4.0', '2.00']
  assert rows['classification, auto, ms'] == ['2.0', '2.0', '1.00']
  assert output.splitlines()[-2:] == ['auto of tf1: OpenVINO of tf1',
                                      'auto of tf2: OpenVINO of tf2']


@pytest.mark.parametrize('name', OLD_RUNTIME)
def test_old_runtime_are_flags_of_the_trainer(name):
  with parsed_flags(train_image_classifier.define_flags, name) as values:
    key, value = name[2:].split('=')
    assert values[key].value == value
