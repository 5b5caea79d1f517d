"""Starting from a published checkpoint: which variables are read and trained.

All mistakes are found before the first step: a missing checkpoint, a scope that
matches nothing, shapes that differ.
"""

import re

from compat import slim, tf
from errors import InputError
from runs import checkpoints


def split_scopes(text):
  """Returns the scopes of a comma-separated flag; [] for None and ''."""
  return [scope.strip() for scope in (text or '').split(',') if scope.strip()]


def matching(variables, scopes):
  """Returns the variables whose names start with one of the scopes.

  Args:
    variables: list of variables.
    scopes: regular expressions, matched from the start of the name, as
      TensorFlow's collections do.
  """
  return [v for v in variables
          if any(re.match(scope, v.op.name) for scope in scopes)]


def variables_to_train(scopes):
  """Returns the trainable variables inside the given scopes.

  Args:
    scopes: list of scopes; an empty one means all trainable variables.

  Raises:
    InputError: a scope matches nothing.
  """
  variables = tf.trainable_variables()
  if not scopes:
    return variables
  _check_scopes('--trainable_scopes', scopes, variables)
  return matching(variables, scopes)


def init_fn(checkpoint_path, exclude_scopes, ignore_missing_vars,
            exclude_hint='', which_checkpoint=None):
  """Prepares the reading of a checkpoint at the start of a new run.

  Args:
    checkpoint_path: a checkpoint of either format, or a folder that has one.
    exclude_scopes: scopes of variables that are not read from it.
    ignore_missing_vars: whether variables that the checkpoint lacks keep their
      initial values instead of being an error.
    exclude_hint: the scopes to name in an error about another number of
      classes, comma-separated.
    which_checkpoint: of a train directory, as for checkpoints.resolve.

  Returns:
    A function of the session, for `slim.learning.train`.

  Raises:
    InputError: no checkpoint there; it lacks variables or has other shapes; an
      excluded scope matches nothing; nothing is left to read.
  """
  prefix = checkpoints.resolve(checkpoint_path, which_checkpoint)
  variables = slim.get_model_variables()
  _check_scopes('--checkpoint_exclude_scopes', exclude_scopes, variables)
  excluded = {v.op.name for v in matching(variables, exclude_scopes)}
  wanted = {v.op.name: v for v in variables if v.op.name not in excluded}
  found = _check_checkpoint(prefix, wanted, ignore_missing_vars, exclude_hint)
  tf.logging.info('Fine-tuning from %s', prefix)
  tf.logging.info('%d variables from the checkpoint, %d start anew',
                  len(found), len(variables) - len(found))
  return slim.assign_from_checkpoint_fn(prefix, found)


def _check_checkpoint(prefix, wanted, ignore_missing_vars, exclude_hint):
  """Returns the wanted variables that the checkpoint has; InputError if not."""
  shapes = checkpoints.open_reader(prefix).get_variable_to_shape_map()
  found = {name: v for name, v in wanted.items() if name in shapes}
  missing = sorted(set(wanted) - set(found))
  if missing and not found:
    raise InputError(
        '%s has none of the variables of this network (%s); is --model_name '
        "the checkpoint's network?" % (prefix, checkpoints.name_some(missing)))
  if missing and not ignore_missing_vars:
    raise InputError(
        '%s lacks %s; give their scopes to --checkpoint_exclude_scopes, or '
        '--ignore_missing_vars, to start them anew' %
        (prefix, checkpoints.name_some(missing)))
  if not found:
    raise InputError('--checkpoint_exclude_scopes excludes every variable; '
                     'leave --checkpoint_path away to train from scratch')
  _check_shapes(prefix, shapes, found, exclude_hint)
  return found


def _check_shapes(prefix, shapes, variables, exclude_hint):
  other = [name for name in sorted(variables)
           if shapes[name] != variables[name].shape.as_list()]
  if not other:
    return
  details = ['%s (there %s, here %s)' %
             (name, shapes[name], variables[name].shape.as_list())
             for name in other]
  last = [(shapes[name][-1], variables[name].shape.as_list()[-1])
          for name in other if shapes[name]]
  if last and all(pair == last[0] for pair in last):
    why = ('the checkpoint has %d classes and the data set %d; add '
           '--checkpoint_exclude_scopes=%s' % (last[0] + (exclude_hint,)))
  else:
    why = "is --model_name the checkpoint's network?"
  raise InputError('%s has other shapes: %s; %s' %
                   (prefix, checkpoints.name_some(details), why))


def _check_scopes(flag, scopes, variables):
  for scope in scopes:
    if not matching(variables, [scope]):
      tops = sorted({'/'.join(v.op.name.split('/')[:2]) for v in variables})
      raise InputError('%s: %r matches no variable; there are %s' %
                       (flag, scope, checkpoints.name_some(tops[-8:])))
