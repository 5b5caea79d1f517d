"""How a program starts, and the flags that two or more programs share.

Nothing here is defined on import: a program's `define_flags()` calls what it
needs, so that two programs can be imported in one test run.
"""

import os
import sys

from absl import app

from compat import setup_logging
from errors import InputError


def run(main):
  """Runs a program's `main` with its flags parsed.

  Unknown flags are fatal, by absl. A user's mistake ends the program with one
  line on stderr and status 1; anything else keeps its traceback, because it is
  a mistake of ours.

  Args:
    main: function of the left-over command line, as for `absl.app.run`.
  """
  app.run(lambda argv: sys.exit(_call(main, argv)))


def _call(main, argv):
  setup_logging()
  if len(argv) > 1:
    return _fail('unexpected argument %r: flags are given as --name=value; '
                 '--help lists them' % argv[1])
  try:
    return main(argv)
  except InputError as error:
    return _fail(error)


def _fail(message):
  program = os.path.basename(sys.argv[0])
  print('%s: error: %s' % (program, message), file=sys.stderr, flush=True)
  return 1
