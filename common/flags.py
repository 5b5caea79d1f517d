"""Starts programs, and defines the flags that two or more programs share.

No flag is defined on import: the `define_flags()` of a program calls the
functions that it needs, so that two programs can be imported in one test run.
"""

import codecs
import os
import sys
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence

from absl import app, flags

from common import show_help
from common.compat import setup_logging, tf
from common.errors import InputError
from common.paths import relative

# XLA for all graphs, also on processors: tensorflow/compiler/jit/flags.cc.
_XLA_VARIABLE = 'TF_XLA_FLAGS'
_XLA_FLAGS = '--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit'


def run(main: Callable[[List[str]], Optional[int]],
        positional: bool = False) -> None:
  """Runs a program's `main` with its flags parsed.

  Unknown flags are fatal, by absl. Wrong user input ends the program with one
  line on stderr and status 1; any other exception keeps its traceback, because
  it is a bug.

  Args:
    main: function of the command line without the flags; returns the exit
      status, None for 0.
    positional: whether the program takes arguments that are not flags.
  """
  _accept_all_names()
  if 'xla' in flags.FLAGS and _asks_for_xla(sys.argv[1:]):
    os.environ[_XLA_VARIABLE] = '%s %s' % (
        os.environ.get(_XLA_VARIABLE, ''), _XLA_FLAGS)
  if {'--help', '-help', '-h', '--helpshort'} & set(sys.argv[1:]):
    # absl's own help lists TensorFlow's flags too, and exits with status 1.
    print(show_help.program_help(sys.argv[0]), end='')
    sys.exit(0)
  app.run(lambda argv: sys.exit(_call(main, argv, positional)))


def _asks_for_xla(arguments):
  """Returns whether --xla is given, before the flags are parsed.

  TensorFlow reads the setting earlier than `main` could make it.
  """
  asks = os.environ.get('XLA') == '1'
  for argument in arguments:
    value = argument.lstrip('-').lower()
    if value in ('xla', 'xla=1', 'xla=t', 'xla=true'):
      asks = True
    elif value in ('noxla', 'xla=0', 'xla=f', 'xla=false'):
      asks = False
  return asks


def _accept_all_names():
  """Makes stdout accept the names of all files and classes.

  Bytes of a file name that are not valid text are written unchanged. Characters
  that the encoding of stdout lacks are escaped, as in stderr.
  """
  codecs.register_error('name_of_file_or_class', _encode_anyway)
  if sys.stdout is not None and sys.stdout.errors in ('strict',
                                                      'surrogateescape'):
    sys.stdout.reconfigure(errors='name_of_file_or_class')


def _encode_anyway(error):
  """Handles encoding errors for `_accept_all_names`."""
  letter = error.object[error.start]
  try:
    return letter.encode('ascii', 'surrogateescape'), error.start + 1
  except UnicodeEncodeError:
    return letter.encode('ascii', 'backslashreplace'), error.start + 1


def _call(main, argv, positional):
  setup_logging()
  _expand_home()
  if len(argv) > 1 and not positional:
    return _fail('unexpected argument %r: flags are given as --name=value; '
                 '--help lists them' % argv[1])
  try:
    return main(argv)
  except InputError as error:
    return _fail(error)
  except BrokenPipeError:  # From `program | head`: the reader has gone.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
  except OSError as error:
    if error.filename is None:
      raise
    return _fail('%s: %s' % (error.filename, error.strerror))
  except KeyboardInterrupt:
    return _fail('interrupted', status=130)


def _expand_home():
  """Expands ~ in --flag=~/x, which the shell does only in separate words."""
  for name in flags.FLAGS:
    flag = flags.FLAGS[name]
    if isinstance(flag.value, str) and flag.value.startswith('~/'):
      flag.value = os.path.expanduser(flag.value)


def _fail(message, status=1):
  program = os.path.basename(sys.argv[0])
  print('%s: error: %s' % (program, relative(str(message))), file=sys.stderr,
        flush=True)
  return status


def require(values: flags.FlagValues, *names: str) -> None:
  """Checks that flags without a usable default were given.

  Args:
    values: the parsed flags.
    *names: names of flags.

  Raises:
    InputError: one of them is missing or empty.
  """
  for name in names:
    if not values[name].value:
      raise InputError('--%s is needed: %s' % (name, values[name].help))


def given(values: flags.FlagValues) -> Dict[str, Any]:
  """Returns {flag: value} of the flags that the user gave."""
  return {name: values[name].value for name in values if values[name].present}


def define_shard_flag(what: str) -> None:
  """Defines which share of the photos is processed.

  Args:
    what: the end of the help text.
  """
  flags.DEFINE_string(
      'shard_of', None,
      'K/N: process only share K of N of the photos, with K from 1 to N, so '
      'that N processes on any machines process all. %s None: all photos.' %
      what)


def define_dataset_flags(split: str) -> None:
  """Defines which data set is read, and how.

  Args:
    split: default of --dataset_split_name.
  """
  flags.DEFINE_string(
      'dataset_name', 'imagenet', 'Name of the converted data set.')
  flags.DEFINE_string(
      'dataset_split_name', split,
      'Split of the data set: train, validation, test. Evaluation takes '
      'several, with commas between: the first that the data set has.')
  flags.DEFINE_string(
      'dataset_dir', None, 'Folder of the TFRecord files.')
  flags.DEFINE_integer(
      'num_preprocessing_threads', 4,
      'Threads that decode and preprocess photos.', lower_bound=1)


def define_model_flags(known: Iterable[str]) -> None:
  """Defines which network is used, and how photos are preprocessed for it.

  Args:
    known: names of the accepted networks.
  """
  flags.DEFINE_string(
      'model_name', 'inception_v3',
      'Name of the network: %s.' % ', '.join(sorted(known)))
  flags.DEFINE_integer(
      'labels_offset', 0,
      'Subtracted from the labels of the data set: 1 for the VGG and ResNet V1 '
      'checkpoints, which have no background class.', lower_bound=0)
  flags.DEFINE_string(
      'preprocessing_name', None,
      "Name of the preprocessing. None: the network's own.")
  flags.DEFINE_bool(
      'use_grayscale', False,
      'Convert photos to grey: the input of the network has one channel. '
      'Evaluation and exports take it from run.json.')


def define_quantize_flag() -> None:
  """Defines whether 8-bit arithmetic is simulated."""
  flags.DEFINE_bool(
      'quantize', False,
      'Simulate 8-bit arithmetic in the graph, with the ranges that training '
      'with --quantize_delay has learned. Default: as in run.json. TensorFlow '
      '1.15 only.')


def define_which_checkpoint_flag(choices: Sequence[str]) -> None:
  """Defines which checkpoint of a train directory is used.

  Args:
    choices: the accepted values, runs.checkpoints.CHOICES.
  """
  flags.DEFINE_enum(
      'which_checkpoint', None, choices,
      'Which checkpoint of a train directory is taken: best, the one that was '
      'most accurate on the validation photos, which training keeps in best/; '
      "or newest, slim's choice. None: the best where training keeps one, else "
      'the newest. The path of a checkpoint always means that checkpoint.')


def define_allowed_ops_flag() -> None:
  """Defines which further operations are accepted in a frozen graph."""
  flags.DEFINE_list(
      'allowed_ops', [],
      'Names of TensorFlow operations, with commas between, that a frozen '
      'graph may have beside those that only compute. A graph is code: with '
      'some operations it reads or writes files. Others are therefore refused '
      'before the graph is loaded, by an error that names them. Empty: no '
      'others.')


def define_frozen_graph_flags(choices: Sequence[str]) -> None:
  """Defines which frozen graph is exported, and of which checkpoint it must be.

  Args:
    choices: as for define_which_checkpoint_flag.
  """
  flags.DEFINE_string(
      'frozen_file', None, 'Frozen graph of export_inference_graph.py.')
  define_allowed_ops_flag()
  flags.DEFINE_string(
      'checkpoint_path', None,
      'Train directory, or checkpoint, that the frozen graph must be made '
      'from. None, or a train directory without a checkpoint: not checked.')
  define_which_checkpoint_flag(choices)


def define_runtime_flags(runtimes: Sequence[str],
                         precisions: Sequence[str]) -> None:
  """Defines how forward passes are computed.

  Args:
    runtimes, precisions: the accepted values, of runtime.forward_pass.
  """
  define_runtime_flag(runtimes)
  flags.DEFINE_enum(
      'precision', _from_environment('PRECISION', precisions), precisions,
      'Numbers that forward passes are computed with. bfloat16 and float16 are '
      'faster and less exact; weights stay float32. bfloat16 needs a processor '
      'with instructions for it, float16 a graphics card. auto: as in the '
      'training run; for a new run on cached features, bfloat16 if the '
      'processor has instructions for it. Training on photos, and '
      '--finetune_all_steps, also compute '
      'gradients with the precision that is given; with auto, with float32.')
  flags.DEFINE_bool(
      'xla', os.environ.get('XLA') == '1',
      'Compile what TensorFlow computes with XLA: faster on graphics cards, '
      'after a minute or more of compilation. OpenVINO is not affected.')


def define_runtime_flag(runtimes: Sequence[str]) -> None:
  """Defines what computes forward passes.

  Args:
    runtimes: the accepted values, of runtime.forward_pass.
  """
  flags.DEFINE_enum(
      'runtime', _from_environment('RUNTIME', runtimes), runtimes,
      'What computes forward passes: tensorflow, or openvino, which is faster '
      'on most processors. auto: tensorflow if there is a graphics card, else '
      'openvino if it is installed and can run the graph.')


def _from_environment(name, accepted):
  """Returns the value of an environment variable if it is accepted, or auto."""
  value = os.environ.get(name)
  return value if value in accepted else 'auto'


def define_session_flags() -> None:
  """Defines the TensorFlow session flags."""
  flags.DEFINE_string(
      'master', '', "Address of the TensorFlow master, '' for this process.")
  flags.DEFINE_bool(
      'gpu_allow_growth', False,
      'Take memory of the graphics card as needed instead of all at once.')
  flags.DEFINE_integer(
      'session_threads', 0,
      'Threads that TensorFlow computes with; 0: as many as cores. With 1 and '
      'the same --seed two trainings end with the same bits.', lower_bound=0)


def session_config(values: flags.FlagValues) -> tf.ConfigProto:
  """Returns the tf.ConfigProto for the session flags."""
  config = tf.ConfigProto(allow_soft_placement=True)
  config.gpu_options.allow_growth = values.gpu_allow_growth
  config.intra_op_parallelism_threads = values.session_threads
  config.inter_op_parallelism_threads = values.session_threads
  return config
