"""Tests of run_tensorboard.sh and of the program that it runs."""

import os
import sys

import pytest
import tensorboard.main

from compat import tf
from kits.board_kit import Board, wait_for
from tools import tensorboard_quietly

DEFAULT_FLAGS = ('--train_dir=a, b:c', '--eval_dir=d', '--host=127.0.0.1')


@pytest.fixture
def starts(tmp_path, monkeypatch):
  """Returns a list of (TensorBoard's flags, its runs), one row per start."""
  rows = []

  def run_main():
    logdirs = [flag.split('=')[1] for flag in sys.argv
               if flag.startswith('--logdir=')]
    rows.append((sys.argv[1:], {
        name: os.readlink(os.path.join(folder, name))
        for folder in logdirs[-1:] for name in sorted(os.listdir(folder))}))

  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sys, 'argv', ['program'])
  monkeypatch.setattr(tensorboard.main, 'run_main', run_main)
  return rows


def test_tensorboard_runs_are_links_in_a_temporary_folder(starts, tmp_path):
  tensorboard_quietly.main([*DEFAULT_FLAGS, '--port', '7007'])
  (logdir, *others), runs = starts.pop()
  assert others == ['--host=127.0.0.1', '--port', '7007']
  assert runs == {'eval': str(tmp_path / 'd'),
                  'train': str(tmp_path / 'a, b:c')}
  assert ',' not in logdir and not os.path.exists(logdir.split('=')[1])


@pytest.mark.parametrize('given,flags', [
    (['--logdir=.'], ['--host=127.0.0.1', '--logdir=.']),
    (['--logdir_spec', 'a:b'], ['--host=127.0.0.1', '--logdir_spec', 'a:b']),
    (['--logdir=.', '--bind_all'], ['--logdir=.', '--bind_all']),
    (['--logdir=.', '--host=::'], ['--host=::', '--logdir=.']),
], ids=str)
def test_tensorboard_given_flags_replace_the_defaults(starts, given, flags):
  tensorboard_quietly.main([*DEFAULT_FLAGS, *given])
  assert starts.pop()[0] == flags


@pytest.mark.slow
def test_script_listens_on_all_addresses_and_passes_flags_on(tmp_path):
  with tf.summary.FileWriter(str(tmp_path / 'logs' / 'run')) as writer:
    writer.add_summary(tf.Summary(value=[
        tf.Summary.Value(tag='loss', simple_value=2.0)]), 1)
  with Board(tmp_path / 'none', '--logdir=%s' % (tmp_path / 'logs')) as board:
    assert board.answers_at('127.0.0.2')
    assert wait_for(board.runs) == ['run']
