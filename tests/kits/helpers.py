"""Helpers of all tests: the project's folder, and running its programs."""

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
  """Parses a program's flags for the body, and forgets them afterwards.

  Args:
    define_flags: the program's function of that name.
    *arguments: its command line without the program.

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
  """Runs a program in a process of its own.

  Args:
    program: its path in the project.
    *arguments: its command line.
    **kwargs: for subprocess.run.

  Returns:
    The subprocess.CompletedProcess, with text in stdout and stderr.
  """
  return subprocess.run(
      [sys.executable, os.path.join(ROOT, program), *arguments],
      capture_output=True, text=True, **kwargs)


def slow_by_turns(names):
  """Returns parameters of slow tests: half of them for each engine."""
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
