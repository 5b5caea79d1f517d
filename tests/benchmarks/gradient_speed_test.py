"""Tests of benchmarks/gradient_speed.py, on a small network."""

import re

import pytest

from benchmarks import gradient_speed
from benchmarks.gradient_speed import Step
from common.errors import InputError
from kits import trained_kit
from kits.helpers import parsed_flags
from runtime import forward_pass


def measure(folder, *arguments):
  with parsed_flags(gradient_speed.define_flags, *arguments,
                    '--dataset_dir=' + trained_kit.make_dataset(folder),
                    '--dataset_name=' + trained_kit.NAME,
                    '--model_name=cifarnet', '--batch_size=4'):
    gradient_speed.main([])


@pytest.mark.slow
@pytest.mark.skipif(
    not forward_pass.supports(forward_pass.TENSORFLOW, 'bfloat16'),
    reason='TensorFlow cannot compute with bfloat16 on this machine')
def test_main_prints_near_losses_of_both_precisions(tmp_path, capsys):
  measure(tmp_path, '--steps=12')
  out = capsys.readouterr().out
  losses = re.findall(r'^(\d+) to \d+ +([\d.]+) +([\d.]+)$', out, re.MULTILINE)
  assert [int(step) for step, _, _ in losses] == list(range(1, 13))
  assert all(float(exact) == pytest.approx(float(near), abs=0.1)
             for _, exact, near in losses)
  assert any(exact != near for _, exact, near in losses)
  assert len(re.findall(r'float32 [\d.]+, bfloat16 [\d.]+: ', out)) == 2


@pytest.mark.engine('tf1')
def test_main_on_tensorflow_1_raises_one_line_error(tmp_path):
  with pytest.raises(InputError, match='bfloat16: .* needs TensorFlow 2 '):
    measure(tmp_path)


def test_report_ignores_the_first_step(capsys):
  gradient_speed.report({
      'float32': [Step(1, 90, 90), Step(1, 3, 6), Step(1, 5, 6)],
      'bfloat16': [Step(1, 90, 90), Step(1, 2, 2), Step(1, 2, 2)]})
  assert capsys.readouterr().out.splitlines() == [
      'seconds per step, median: float32 4.00, bfloat16 2.00: '
      '2.00 times as fast',
      'of all cores together, median: float32 6.00, bfloat16 2.00: '
      '3.00 times as fast']
