"""Errors that a user can mend: shown as one line, without a traceback."""


class InputError(ValueError):
  """Wrong input of a user: flags, files, data sets, checkpoints, photos.

  The message is one line that says what is wrong, where, and what is accepted.
  `common_flags.run` prints it and exits with status 1; the server answers 4xx.
  """


def unknown_name(kind, name, known):
  """Returns the InputError for a name that a registry does not hold.

  Args:
    kind: what the registry holds, as in 'network'.
    name: the name that was asked for.
    known: the names that are accepted, in any order.
  """
  return InputError('unknown %s %r; known: %s' %
                    (kind, name, ', '.join(sorted(known))))
