"""Tests of benchmarks/head_accuracy.py: the table, and wrong flags."""

import pytest

from benchmarks import head_accuracy as program
from common.errors import InputError
from kits import serving_kit as kit
from kits.trained_kit import NAME, make_photos


@pytest.mark.slow
def test_main_prints_a_line_per_number_and_head(tmp_path, capsys):
  make_photos(tmp_path / NAME, 20)
  prefix = kit.save_checkpoint(tmp_path / 'start', 'cifarnet')
  kit.run(program, '--photos=%s' % (tmp_path / NAME), '--seeds=1',
          '--model_name=cifarnet', '--checkpoint_path=' + prefix,
          '--per_class=4,all')
  lines = capsys.readouterr().out.splitlines()
  start = next(number for number, line in enumerate(lines)
               if line.startswith('per class'))
  rows = [line.replace(', mirrored', '-mirrored').split()
          for line in lines[start + 1:]]
  assert [row[0] for row in rows] == ['4'] * 5 + ['all'] * 5
  assert [row[1] for row in rows[:5]] == [
      'logits', 'layers', 'layers+kernel', 'layers-mirrored',
      'layers+kernel-mirrored']
  # The classes differ by their colour.
  assert all(float(row[2]) > 0.9 for row in rows[5:])
  assert all(float(row[5]) < 1.1 for row in rows[5:])


@pytest.mark.parametrize('text', ['1', 'x', '-3', '1.5'])
def test_a_wrong_number_per_class_is_an_input_error(tmp_path, text):
  prefix = kit.save_checkpoint(tmp_path, 'cifarnet')
  with pytest.raises(InputError, match='accepted are numbers from 2 on and'):
    kit.run(program, '--photos=%s' % tmp_path, '--model_name=cifarnet',
            '--checkpoint_path=' + prefix, '--per_class=5,' + text)
