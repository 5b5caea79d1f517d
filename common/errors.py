"""Errors caused by user input: shown as one line, without a traceback."""


class InputError(ValueError):
  """Invalid user input: flags, files, data sets, checkpoints, photos.

  The message is one line that says what is wrong, where, and what is accepted.
  `common_flags.run` prints it and exits with status 1; the server answers 4xx.
  """


def unknown_name(kind, name, known):
  """Returns the InputError for a name that is not in a registry.

  Args:
    kind: what the registry contains, as in 'network'.
    name: the unknown name.
    known: the accepted names, in any order.
  """
  return InputError('unknown %s %r; known: %s' %
                    (kind, name, ', '.join(sorted(known))))
