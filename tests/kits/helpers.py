"""Helpers for all tests: the project's folder, and ways to run its programs."""

import contextlib
import itertools
import os
import subprocess
import sys

import pytest
from absl import flags

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))


@contextlib.contextmanager
def parsed_flags(define_flags, *arguments):
  """Defines and parses a program's flags, and removes them afterwards.

  Args:
    define_flags: function that defines the program's flags.
    *arguments: command-line arguments.

  Yields:
    The parsed flags.
  """
  before = set(flags.FLAGS)
  define_flags()
  try:
    flags.FLAGS(['test', *arguments])
    yield flags.FLAGS
  finally:
    for name in set(flags.FLAGS) - before:
      delattr(flags.FLAGS, name)


def run_program(program, *arguments, **kwargs):
  """Runs a program in a new process.

  Args:
    program: path of the program in the project.
    *arguments: command-line arguments.
    **kwargs: further arguments of subprocess.run.

  Returns:
    The subprocess.CompletedProcess, with text in stdout and stderr.
  """
  return subprocess.run(
      [sys.executable, os.path.join(ROOT, program), *arguments],
      capture_output=True, text=True, **kwargs)


def slow_by_turns(names):
  """Returns pytest parameters of slow tests, alternately for tf1 and tf2."""
  return [pytest.param(name, marks=[pytest.mark.slow,
                                    pytest.mark.engine(engine)])
          for name, engine in zip(names, itertools.cycle(['tf1', 'tf2']))]


def shared_folder():
  """Returns the folder that SHARED_DIR names; skips the test without it."""
  folder = os.environ.get('SHARED_DIR')
  if not folder:
    pytest.skip('SHARED_DIR is not set: a folder with the reference facts '
                '(reference/) and real photos (real/)')
  return folder
