"""Runs the scripts of the project."""

import os
import subprocess

from kits.helpers import ROOT


def run_script(name, *arguments, env=None, check=True):
  """Runs a script of the project; returns its CompletedProcess with text."""
  done = subprocess.run([os.path.join(ROOT, name), *arguments], env=env,
                        capture_output=True, text=True, timeout=300,
                        stdin=subprocess.DEVNULL)
  if check:
    assert done.returncode == 0, done.stdout + done.stderr
  return done
