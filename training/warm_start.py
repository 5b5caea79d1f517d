"""Warm start from a checkpoint: which variables are restored and trained.

All errors are found before the first step: a missing checkpoint, a scope that
matches nothing, different shapes.
"""

import re
from typing import Callable, List, Optional, Sequence

from common import checkpoint_files
from common.errors import InputError, name_some
from compat import slim, tf
from runs import checkpoints

# Restores weights in a session, as slim.learning.train calls it.
InitFn = Callable[[tf.Session], None]


def split_scopes(text: Optional[str]) -> List[str]:
  """Returns the scopes of a comma-separated flag; [] for None and ''."""
  return [scope.strip() for scope in (text or '').split(',') if scope.strip()]


def matching(variables: Sequence[tf.Variable],
             scopes: Sequence[str]) -> List[tf.Variable]:
  """Returns the variables whose names start with one of the scopes.

  Args:
    variables: list of variables.
    scopes: regular expressions, matched from the start of the name, as
      TensorFlow's collections do.
  """
  return [v for v in variables
          if any(re.match(scope, v.op.name) for scope in scopes)]


def variables_to_train(scopes: Sequence[str]) -> List[tf.Variable]:
  """Returns the trainable variables inside the given scopes.

  Args:
    scopes: list of scopes; [] for all trainable variables.

  Raises:
    InputError: a scope matches nothing.
  """
  variables = tf.trainable_variables()
  if not scopes:
    return variables
  _check_scopes('--trainable_scopes', scopes, variables)
  return matching(variables, scopes)


def init_fn(checkpoint_path: str, exclude_scopes: Sequence[str],
            ignore_missing_vars: bool, exclude_hint: str = '',
            which_checkpoint: Optional[str] = None) -> InitFn:
  """Prepares restoring a checkpoint at the start of a new run.

  Args:
    checkpoint_path: a checkpoint of either format, or a folder with one.
    exclude_scopes: scopes of variables that are not restored.
    ignore_missing_vars: whether variables that the checkpoint lacks keep their
      initial values instead of being an error.
    exclude_hint: comma-separated scopes to suggest in the error about another
      number of classes.
    which_checkpoint: which one of a train directory, as checkpoints.resolve.

  Returns:
    A function of the session, for `slim.learning.train`.

  Raises:
    InputError: there is no checkpoint; it lacks variables, or their shapes
      differ; an excluded scope matches nothing; nothing is left to restore.
  """
  prefix = checkpoints.resolve(checkpoint_path, which_checkpoint)
  variables = slim.get_model_variables()
  _check_scopes('--checkpoint_exclude_scopes', exclude_scopes, variables)
  excluded = {v.op.name for v in matching(variables, exclude_scopes)}
  wanted = {v.op.name: v for v in variables if v.op.name not in excluded}
  restored = _check_checkpoint(prefix, wanted, ignore_missing_vars,
                               exclude_hint)
  tf.logging.info('Fine-tuning from %s', prefix)
  tf.logging.info('%d variables from the checkpoint, %d newly initialized',
                  len(restored), len(variables) - len(restored))
  return slim.assign_from_checkpoint_fn(prefix, restored)


def _check_checkpoint(prefix, wanted, ignore_missing_vars, exclude_hint):
  """Returns the wanted variables that the checkpoint has, with checks."""
  shapes = checkpoint_files.open_reader(prefix).get_variable_to_shape_map()
  restored = {name: v for name, v in wanted.items() if name in shapes}
  missing = sorted(set(wanted) - set(restored))
  if missing and not restored:
    raise InputError(
        '%s has none of the variables of this network (%s); is --model_name '
        "the checkpoint's network?" % (prefix, name_some(missing)))
  if missing and not ignore_missing_vars:
    raise InputError(
        '%s lacks %s; give their scopes to --checkpoint_exclude_scopes, or '
        '--ignore_missing_vars, to initialize them instead' %
        (prefix, name_some(missing)))
  if not restored:
    raise InputError('--checkpoint_exclude_scopes excludes every variable; '
                     'omit --checkpoint_path to train from scratch')
  _check_shapes(prefix, shapes, restored, exclude_hint)
  return restored


def _check_shapes(prefix, shapes, variables, exclude_hint):
  mismatched = [name for name in sorted(variables)
                if shapes[name] != variables[name].shape.as_list()]
  if not mismatched:
    return
  details = ['%s (checkpoint %s, network %s)' %
             (name, shapes[name], variables[name].shape.as_list())
             for name in mismatched]
  last_sizes = [(shapes[name][-1], variables[name].shape.as_list()[-1])
                for name in mismatched if shapes[name]]
  if last_sizes and all(pair == last_sizes[0] for pair in last_sizes):
    reason = ('the checkpoint has %d classes and the data set %d; add '
              '--checkpoint_exclude_scopes=%s' %
              (last_sizes[0] + (exclude_hint,)))
  else:
    reason = "is --model_name the checkpoint's network?"
  raise InputError('%s has different shapes: %s; %s' %
                   (prefix, name_some(details),
                    checkpoints.colour_advice(shapes, variables) or reason))


def _check_scopes(flag, scopes, variables):
  for scope in scopes:
    if not matching(variables, [scope]):
      prefixes = sorted({'/'.join(v.op.name.split('/')[:2]) for v in variables})
      raise InputError('%s: %r matches no variable; existing scopes: %s' %
                       (flag, scope, name_some(prefixes[-8:])))
