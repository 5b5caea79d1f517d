"""Tests of benchmarks/label_rounds.py."""

import re

import numpy as np
import pytest

from benchmarks import label_rounds as program
from common.errors import InputError
from kits import serving_kit as kit
from kits.trained_kit import MODEL, make_photos


def run(*flags):
  return kit.run(program, '--model_name=' + MODEL, *flags)


@pytest.mark.parametrize('flags', [[], ['--bursts']])
def test_main_prints_a_row_per_method(flags, tmp_path, capsys):
  make_photos(tmp_path / 'photos', 8)
  prefix = kit.save_checkpoint(tmp_path / 'start', MODEL, with_run=False)
  run('--photos=%s' % (tmp_path / 'photos'), '--checkpoint_path=' + prefix,
      '--seeds=2', '--rounds=3', '--count=4', *flags)
  lines = capsys.readouterr().out.splitlines()
  assert lines[0].split() == ['labelled', '4', '8', '12']
  for name, line in zip(program.METHODS, lines[1:]):
    assert re.match(name + r' +(\d\.\d{3} *){3}$', line)
  assert re.match(r'label_next.sh: -?\d\.\d{3} more than random', lines[-1])


def test_accuracies_with_the_same_seed_begin_alike_and_repeat():
  rng = np.random.RandomState(0)
  labels = np.repeat(np.arange(3), 30)
  features = (np.eye(3, 8)[labels] + rng.normal(scale=.5, size=(90, 8))).astype(
      np.float32)
  with kit.parsed_flags(program, '--rounds=4', '--count=8'):
    found = {name: program.accuracies(features, labels, method, 1)
             for name, method in program.METHODS.items()}
    assert found == {name: program.accuracies(features, labels, method, 1)
                     for name, method in program.METHODS.items()}
  assert len({values[0] for values in found.values()}) == 1
  assert all(len(values) == 4 for values in found.values())


def test_accuracies_tests_no_crop_and_trains_on_none_of_a_test_photo():
  labels = np.repeat([0, 1], 40)
  files = ['%d/%d.jpg' % (label, number) for number, label in enumerate(labels)]
  scenes = program.find_scenes(files + [
      '%s.cropped to 80 %%.jpg' % file for file in files])
  assert scenes.tolist() == 2 * list(range(80))
  seen = []

  def choose(scores, features, count, seed):
    seen.append(features[:, 0].astype(int))
    return program.choose_random(scores, features, count, seed)

  numbers = np.arange(160)
  features = np.stack([numbers, np.tile(labels, 2)], axis=1).astype(np.float32)
  with kit.parsed_flags(program, '--rounds=2', '--count=12'):
    program.accuracies(features, np.tile(labels, 2), choose, 0, scenes)
  left, = seen
  assert len(left) == 2 * 56 - 12
  assert len(set(left % 80)) <= 56


def test_accuracies_of_too_few_photos_is_an_input_error():
  with kit.parsed_flags(program):
    with pytest.raises(InputError, match='need 400 photos'):
      program.accuracies(np.ones([90, 4]), np.repeat([0, 1], 45),
                         program.choose_random, 0)
