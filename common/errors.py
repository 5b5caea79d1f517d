"""Errors caused by user input: shown as one line, without a traceback."""

import difflib
from typing import Iterable, Sequence

# How many names a message lists before it only counts them.
_NAMED = 4


class InputError(ValueError):
  """Invalid user input: flags, files, data sets, checkpoints, photos.

  The message is one line that says what is wrong, where, and what is accepted.
  `common_flags.run` prints it and exits with status 1; the server answers 4xx.
  """


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
  """Returns the InputError for a name that is not in a registry.

  Args:
    kind: what the registry contains, as in 'network'.
    name: the unknown name.
    known: the accepted names, in any order.
  """
  names = sorted(known)
  return InputError('unknown %s %r; known: %s%s' % (
      kind, name, ', '.join(names), did_you_mean(name, names)))


def did_you_mean(name: str, known: Iterable[str]) -> str:
  """Returns '; did you mean …?' for the end of a message, or ''.

  Args:
    name: a name that is not known.
    known: the accepted names, in any order.
  """
  by_lower_case = {other.lower(): other for other in sorted(known)}
  close = difflib.get_close_matches(str(name).lower(), by_lower_case, n=2,
                                    cutoff=0.65)
  names = [by_lower_case[other] for other in close]
  return '; did you mean %s?' % ' or '.join(names) if names else ''


def name_some(names: Sequence[str]) -> str:
  """Returns the first few names, and how many more there are, for a message."""
  text = ', '.join(names[:_NAMED])
  more = len(names) - _NAMED
  return text if more <= 0 else '%s and %d more' % (text, more)
