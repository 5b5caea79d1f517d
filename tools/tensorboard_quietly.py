"""TensorBoard, without the notes of TensorFlow's native code.

  python -m tools.tensorboard_quietly --logdir=output

takes TensorBoard's own flags. It loads TensorFlow by itself, with notes about
graphics cards that read like errors where there is none.
"""

import sys

import compat  # noqa: F401  (the first import sets the notes' level)


def main():
  from tensorboard import main as tensorboard
  sys.argv[0] = 'tensorboard'
  tensorboard.run_main()


if __name__ == '__main__':
  main()
