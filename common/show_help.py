"""Prints the help of a script or a program, without TensorFlow.

  python3 common/show_help.py run_train.sh train_image_classifier.py

The flags are found by running the function `define_flags` of the program with
an object that records them instead of `absl.flags`. Of the project's source
only the code that this function uses is evaluated, so no package has to be
installed.
"""

import ast
import collections
import importlib
import os
import re
import sys
import textwrap
from typing import Any, Dict, List, NamedTuple, Optional, Set, Tuple

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WIDTH = 80


class Flag(NamedTuple):
  """A flag of a program."""

  name: str
  # As in 'integer' for DEFINE_integer.
  kind: str
  default: Any
  help: str
  # The accepted values; empty: any.
  choices: List[str]
  # Limits of a number, or None.
  lower_bound: Optional[float]
  upper_bound: Optional[float]


class Settings(NamedTuple):
  """A section of env_set.sh."""

  comment: str
  # {variable: (default, comment)}; None for a variable without one.
  variables: Dict[str, Tuple[Optional[str], Optional[str]]]


_VARIABLE = re.compile(r': "\$\{(\w+):?=(.*)\}"(?:\s+#\s*(.*))?$')
_WITHOUT_DEFAULT = re.compile(r'#((?: [A-Z_]{4,})+)$')
# A function in env_set.sh, or an array that it sets.
_FUNCTION = re.compile(r'^(\w+)(\(\) \{\n.*?^\}|=\(.*?\))$',
                       re.MULTILINE | re.DOTALL)
# A script that another script starts or sources.
_SCRIPT_USED = re.compile(
    r'(?:\$\{PROJECT_DIR\}|\$\(dirname "\$\{BASH_SOURCE\[0\]\}"\))/'
    r'((?:scripts/)?\w+\.sh)')
# The variables that these read are not settings of the script that uses them.
_NOT_FOLLOWED = {'env_set.sh', 'help.sh', 'engine.sh', 'setup.sh'}


class FlagList:
  """Replaces `absl.flags`: records the flags that are defined.

  Args:
    found: dict to which {name: Flag} is added.
  """

  def __init__(self, found: Dict[str, Flag]) -> None:
    self.__dict__['_found'] = found

  @property
  def FLAGS(self) -> 'FlagList':
    return self

  def set_default(self, name: str, default: Any) -> None:
    self._found[name] = self._found[name]._replace(default=default)

  def __delattr__(self, name):
    del self._found[name]

  def __getattr__(self, name):
    if not name.startswith('DEFINE_'):
      raise AttributeError(name)
    kind = name[len('DEFINE_'):]

    def define(name, default, *rest, lower_bound=None, upper_bound=None):
      *choices, text = rest
      self._found[name] = Flag(name, kind, default, text,
                               list(choices[0]) if choices else [],
                               lower_bound, upper_bound)

    return define


class Source:
  """A source file whose names are evaluated on demand.

  A name that needs a missing package is None: help texts do not need its value.

  Args:
    path: path of the file.
    flags: FlagList.
    others: {path: Source} of the files read so far; this one is added.
  """

  def __init__(self, path: str, flags: FlagList,
               others: 'Dict[str, Source]') -> None:
    with open(path, encoding='utf-8') as file:
      self._tree = ast.parse(file.read(), path)
    others[path] = self
    self._path, self._flags, self._others = path, flags, others
    self._values = {'__file__': path}
    self._nodes = {name: node for node in self._tree.body
                   for name in _names_defined_by(node)}

  @property
  def docstring(self) -> str:
    return ast.get_docstring(self._tree, clean=False) or ''

  def __contains__(self, name):
    return name in self._nodes

  def __getattr__(self, name):
    if name not in self._nodes:
      raise AttributeError('%s has no %s' % (self._path, name))
    self._define(name)
    return self._values[name]

  def _define(self, name):
    """Evaluates a name, after the names that it depends on."""
    if name in self._values or name not in self._nodes:
      return
    self._values[name] = None
    node = self._nodes[name]
    try:
      if isinstance(node, ast.Import):
        self._values[name] = self._module(_alias(node, name).name)
      elif isinstance(node, ast.ImportFrom):
        self._values[name] = self._member(node.module, _alias(node, name).name)
      elif isinstance(getattr(node, 'value', None), ast.Dict):
        self._values[name] = self._dict(node.value)
      else:
        self._define_names_in(node)
        module = ast.Module(body=[node], type_ignores=[])
        exec(compile(module, self._path, 'exec'), self._values)
    except (AttributeError, ImportError, TypeError):
      self._values[name] = None

  def _define_names_in(self, node):
    for inner in ast.walk(node):
      if isinstance(inner, ast.Name):
        self._define(inner.id)

  def _evaluate(self, node):
    self._define_names_in(node)
    return eval(compile(ast.Expression(node), self._path, 'eval'), self._values)

  def _dict(self, node):
    """Evaluates a dict; values that cannot be evaluated are None."""
    found = {}
    for key, value in zip(node.keys, node.values):
      if key is None:  # **value
        found.update(self._evaluate(value))
        continue
      try:
        found[self._evaluate(key)] = self._evaluate(value)
      except (AttributeError, TypeError):
        found[self._evaluate(key)] = None
    return found

  def _module(self, name):
    path = os.path.join(ROOT, *name.split('.')) + '.py'
    if os.path.isfile(path):
      return self._others.get(path) or Source(path, self._flags, self._others)
    return importlib.import_module(name)

  def _member(self, module, name):
    if (module, name) == ('absl', 'flags'):
      return self._flags
    if os.path.isdir(os.path.join(ROOT, *module.split('.'))):
      return self._module('%s.%s' % (module, name))
    return getattr(self._module(module), name)


def _names_defined_by(node):
  """Returns the names to which a statement assigns a value."""
  if isinstance(node, (ast.Import, ast.ImportFrom)):
    return [alias.asname or alias.name.split('.')[0] for alias in node.names]
  if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
    return [node.name]
  if isinstance(node, (ast.Assign, ast.AnnAssign)):
    targets = getattr(node, 'targets', None) or [node.target]
    return [inner.id for target in targets for inner in ast.walk(target)
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store)]
  return []


def _alias(node, name):
  return next(alias for alias in node.names
              if (alias.asname or alias.name.split('.')[0]) == name)


def flags_of(program: str) -> Tuple[str, Optional[Dict[str, Flag]]]:
  """Returns the docstring and the flags of a program.

  Args:
    program: path of its file in the project.

  Returns:
    Its docstring and {name: Flag}; None instead of the latter if the program
    has no function define_flags.
  """
  found: Dict[str, Flag] = {}
  source = Source(os.path.abspath(program), FlagList(found), {})
  if 'define_flags' not in source:
    return source.docstring, None
  source.define_flags()
  return source.docstring, found


def flag_lines(flag: Flag) -> List[str]:
  """Returns the lines that describe a flag."""
  name = '[no]' + flag.name if flag.kind in ('bool', 'boolean') else flag.name
  facts = []
  if flag.choices:
    facts.append(', '.join(flag.choices))
  if flag.default is not None:
    default = flag.default
    if isinstance(default, bool):
      default = str(default).lower()
    elif isinstance(default, (list, tuple)):
      default = ','.join(map(str, default))
    facts.append('default: %s' % ("''" if default == '' else default))
  if flag.lower_bound is not None and flag.upper_bound is not None:
    facts.append('%s to %s' % (flag.lower_bound, flag.upper_bound))
  elif flag.lower_bound is not None:
    facts.append('at least %s' % flag.lower_bound)
  elif flag.upper_bound is not None:
    facts.append('at most %s' % flag.upper_bound)
  lines = _wrapped('--%s: %s' % (name, flag.help), '  ', '    ')
  return lines + _wrapped('(%s)' % '; '.join(facts), '    ') if facts else lines


def _wrapped(text, first, others=None):
  return textwrap.wrap(
      text, WIDTH, initial_indent=first,
      subsequent_indent=first if others is None else others,
      break_long_words=False, break_on_hyphens=False)


def program_help(program: str) -> str:
  """Returns the help of a program: its docstring and its flags.

  Args:
    program: path of its file in the project.
  """
  docstring, flags = flags_of(program)
  lines = [docstring.strip(), '']
  if flags is None:
    return '\n'.join(lines)
  lines.append('flags of %s:' % os.path.basename(program))
  for name in sorted(flags):
    lines += flag_lines(flags[name])
  return '\n'.join(lines) + '\n'


def read_settings(text: str) -> List[Settings]:
  """Returns the list of Settings in the text of env_set.sh."""
  found = []
  comment: List[str] = []
  variables: Dict[str, Tuple[Optional[str], Optional[str]]] = (
      collections.OrderedDict())
  for line in [*text.splitlines(), '']:
    variable = _VARIABLE.match(line)
    without_default = _WITHOUT_DEFAULT.match(line)
    if variable:
      name, default, remark = variable.groups()
      variables[name] = (default, remark)
    elif without_default:
      variables.update(dict.fromkeys(without_default.group(1).split(),
                                     (None, None)))
    else:
      if variables:
        found.append(Settings(' '.join(comment), variables))
      if variables or not line.startswith('# '):
        comment, variables = [], collections.OrderedDict()
      if line.startswith('# '):
        comment.append(line[2:])
  return found


def variables_read_by(script: str, settings: List[Settings],
                      env_set: str) -> Set[str]:
  """Returns the names of the variables in env_set.sh that a script reads.

  Includes those that are read by the functions and arrays of env_set.sh, by the
  scripts that it starts, and by the defaults of its variables.

  Args:
    script: path of the script.
    settings: list of Settings.
    env_set: text of env_set.sh.
  """
  defaults = {name: default or '' for group in settings
              for name, (default, _) in group.variables.items()}
  functions = dict(_FUNCTION.findall(env_set))
  texts = [_code(script), _code(os.path.join(ROOT, 'scripts', 'engine.sh'))]
  seen: Set[str] = set()
  while texts:
    text = texts.pop()
    for name in set(re.findall(r'\w+', text) +
                    _SCRIPT_USED.findall(text)) - seen:
      seen.add(name)
      if name in functions or name in defaults:
        texts.append(functions.get(name) or defaults[name])
      elif (name.endswith('.sh') and
            os.path.basename(name) not in _NOT_FOLLOWED):
        path = os.path.join(os.path.dirname(script), name)
        texts.append(_code(path if os.path.isfile(path) else
                           os.path.join(ROOT, name)))
  return seen & set(defaults)


def _code(script):
  """Returns the text of a script without comment lines."""
  with open(script, encoding='utf-8') as file:
    return ''.join(line for line in file if not line.startswith('#'))


def script_help(script: str) -> str:
  """Returns the comment at the top of a script, and the variables it reads.

  Args:
    script: path of the script.
  """
  lines = []
  with open(script, encoding='utf-8') as file:
    for line in list(file)[1:]:
      if not line.startswith('#'):
        break
      lines.append(line[1:].rstrip('\n')[1:])
  with open(os.path.join(ROOT, 'env_set.sh'), encoding='utf-8') as file:
    env_set = file.read()
  settings = read_settings(env_set)
  read = variables_read_by(script, settings, env_set)
  lines += ['', 'variables, given in front of the command as in '
            'MODEL_NAME=lenet ./run_train.sh:']
  for group in settings:
    own = [name for name in group.variables if name in read]
    if not own:
      continue
    lines += _wrapped(group.comment, '  ')
    for name in own:
      default, remark = group.variables[name]
      lines.append('    %s%s' % (
          name if default is None else '%s=%s' % (name, default),
          '  (%s)' % remark if remark else ''))
  return '\n'.join(lines) + '\n'


def main(script: str, program: Optional[str] = None) -> None:
  """Prints the help of a script and of the program that it runs."""
  text = script_help(script)
  if program:
    text += '\n' + program_help(program)
  encoding = sys.stdout.encoding or 'utf-8'
  sys.stdout.buffer.write(text.encode(encoding, 'backslashreplace'))


if __name__ == '__main__':
  try:
    main(*sys.argv[1:])
    sys.stdout.flush()
  except BrokenPipeError:  # From `./run_train.sh --help | head`.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
