r"""Runs TensorBoard on the folders of a run, without TensorFlow's native notes.

  python -m tools.tensorboard_quietly --train_dir=output/train \
    --eval_dir=output/eval --host=127.0.0.1 --port=6006

shows two runs, train and eval; either folder may be created later. All other
flags are TensorBoard's own, including --logdir and --bind_all, which replace
the flags above.

TensorBoard itself loads TensorFlow, which prints notes about graphics cards
that look like errors on a machine without one.
"""

import argparse
import os
import sys
import tempfile
from typing import Sequence

import compat  # noqa: F401  (the first import sets the notes' level)


def main(arguments: Sequence[str]) -> None:
  """Runs TensorBoard until it is stopped.

  Args:
    arguments: the command line without the program name.
  """
  from tensorboard import main as tensorboard
  parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  for name in ('--train_dir', '--eval_dir', '--host'):
    parser.add_argument(name)
  own, others = parser.parse_known_args(arguments)
  # The runs are named by links. TensorBoard has a flag for that, but its two
  # versions name it differently, and a comma or colon in a path breaks it.
  with tempfile.TemporaryDirectory(prefix='tensorboard-') as links:
    for name, folder in (('train', own.train_dir), ('eval', own.eval_dir)):
      if folder:
        os.symlink(os.path.abspath(folder), os.path.join(links, name))
    ours = []
    if not _is_given(others, '--logdir', '--logdir_spec', '--db'):
      ours.append('--logdir=' + links)
    if own.host and not _is_given(others, '--bind_all'):
      ours.append('--host=' + own.host)
    sys.argv = ['tensorboard', *ours, *others]
    tensorboard.run_main()


def _is_given(arguments, *names):
  """Whether a command line contains one of several flags."""
  return any(argument.split('=')[0] in names for argument in arguments)


if __name__ == '__main__':
  main(sys.argv[1:])
