"""Paths in messages: relative to the user's current folder."""

import os
import re


def relative(text: str) -> str:
  """Returns a text in which paths below the current folder are relative to it.

  Args:
    text: a path, or a message with paths; other paths stay absolute.
  """
  for folder in _names_of_current_folder():
    if folder != '/':
      # Not in the middle of a longer path.
      text = re.sub(r'(?<![\w./~-])%s/(?=[^\s/])' % re.escape(folder), '', text)
  return text


def _names_of_current_folder():
  """Returns the absolute paths of the current folder; two if one has a link."""
  try:
    folders = {os.getcwd()}
  except OSError:  # It was removed.
    return set()
  logical = os.environ.get('PWD', '')
  if os.path.isabs(logical) and os.path.isdir(logical) and os.path.samefile(
      logical, os.getcwd()):
    folders.add(logical)
  return folders
