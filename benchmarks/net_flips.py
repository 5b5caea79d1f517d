"""Finds literals in the tables of nets/ that can be flipped, one at a time.

A table is an UPPERCASE name at module level that is bound to more than one
value. Its source is read as tokens, so that a flip changes nothing else.
"""

import ast
import glob
import io
import os
import re
import tokenize
from typing import NamedTuple, Optional


class Flip(NamedTuple):
  """One change of one table."""

  # Name of the module, as 'nets.inception_v4'.
  module: str
  # Of its file, from the root.
  path: str
  # In it, counted from 1.
  line: int
  # Columns of what is replaced, in that line.
  start: int
  end: int
  # The source before and after.
  old: str
  new: str
  # Key of the table's entry where the table is a dict, else None.
  entry: Optional[str]


_TABLE_NAME = re.compile(r'_?[A-Z][A-Z0-9_]*$')

# Small numbers are strides, kernels and repeats; others are widths.
_NUMBERS = {0: 1, 1: 2, 2: 1, 3: 5, 5: 3, 7: 5}
_WIDER = 8
_WORDS = {'SAME': 'VALID', 'VALID': 'SAME', 'True': 'False', 'False': 'True'}
_POOLS = {'avg_pool': 'max_pool', 'max_pool': 'avg_pool'}


def find_modules(root):
  """Returns {name: path from root} of the modules of nets/."""
  modules = {}
  for path in glob.glob(os.path.join(root, 'nets', '**', '*.py'),
                        recursive=True):
    relative = os.path.relpath(path, root)
    name = relative[:-len('.py')].replace(os.sep, '.')
    if not name.endswith('__init__'):
      modules[name] = relative
  return modules


def imports_of(path):
  """Returns the dotted names that a file imports, `from x import y` as x.y."""
  names = set()
  for node in ast.walk(_parse(path)):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom) and node.module:
      names.add(node.module)
      names |= {'%s.%s' % (node.module, alias.name) for alias in node.names}
  return names


def find_flips(root, module, modules):
  """Returns the flips of one module, in the order of its source.

  Args:
    root: folder that holds nets/.
    module: dotted name of the module.
    modules: as `find_modules` returns it.
  """
  path = modules[module]
  tree = _parse(os.path.join(root, path))
  with open(os.path.join(root, path), encoding='utf-8') as file:
    tokens = list(tokenize.generate_tokens(io.StringIO(file.read()).readline))
  kinds = _row_kinds(root, tree, modules)
  flips = []
  for statement in tree.body:
    if _is_table(statement):
      flips += _flips_of_table(module, path, kinds,
                               _tokens_of(tokens, statement.lineno))
  return flips


def _row_kinds(root, tree, modules):
  """Returns {name: fields} of the NamedTuples that a module uses.

  Those of an imported module have the key 'module.name'.
  """
  kinds = _defined_kinds(tree)
  for node in tree.body:
    if isinstance(node, ast.ImportFrom):
      for alias in node.names:
        name = alias.asname or alias.name
        whole = '%s.%s' % (node.module, alias.name)
        if whole in modules:
          theirs = _defined_kinds(_parse(os.path.join(root, modules[whole])))
          kinds.update({'%s.%s' % (name, kind): fields
                        for kind, fields in theirs.items()})
        elif node.module in modules:
          theirs = _defined_kinds(
              _parse(os.path.join(root, modules[node.module])))
          if alias.name in theirs:
            kinds[name] = theirs[alias.name]
  return kinds


def _defined_kinds(tree):
  """Returns {name: fields} of the NamedTuples that a module defines."""
  kinds = {}
  for node in tree.body:
    if isinstance(node, ast.ClassDef) and 'NamedTuple' in [
        getattr(base, 'id', None) for base in node.bases]:
      kinds[node.name] = tuple(field.target.id for field in node.body
                               if isinstance(field, ast.AnnAssign))
  return kinds


def _parse(path):
  with open(path, encoding='utf-8') as file:
    return ast.parse(file.read())


def _is_table(statement):
  if not (isinstance(statement, ast.Assign) and
          isinstance(statement.targets[0], ast.Name) and
          _TABLE_NAME.match(statement.targets[0].id)):
    return False
  value = statement.value
  if isinstance(value, ast.Call):  # Of a row type or of dict, not re.compile.
    name = getattr(value.func, 'id', getattr(value.func, 'attr', ''))
    return name == 'dict' or name.lstrip('_')[:1].isupper()
  return any(isinstance(node, (ast.Tuple, ast.List, ast.Dict, ast.Set))
             for node in ast.walk(value))


def _tokens_of(tokens, line):
  """Returns the tokens of the statement that starts in `line`, after `=`."""
  statement = []
  for token in tokens:
    if token.start[0] >= line:
      if token.type == tokenize.NEWLINE:
        break
      statement.append(token)
  first = [token.string for token in statement].index('=') + 1
  return [token for token in statement[first:]
          if token.type not in (tokenize.NL, tokenize.COMMENT)]


def _flips_of_table(module, path, kinds, tokens):
  flips, depth, entry = [], 0, None
  is_dict = tokens[0].string == '{'
  for index, token in enumerate(tokens):
    following = tokens[index + 1].string if index + 1 < len(tokens) else ''
    depth += (token.string in '([{') - (token.string in ')]}')
    if (is_dict and depth == 1 and token.type == tokenize.STRING and
        following == ':'):
      entry = ast.literal_eval(token.string)
    if token.type == tokenize.NAME and following == '(':
      prefix = ''.join(t.string for t in tokens[max(index - 2, 0):index])
      news = _other_kinds(prefix if prefix.endswith('.') else '', token.string,
                          kinds)
    else:
      news = _other_value(token)
    flips += [Flip(module, path, token.start[0], token.start[1], token.end[1],
                   token.string, new, entry) for new in news]
  return flips


def _other_kinds(prefix, name, kinds):
  """Returns the other row types that have the same fields.

  Args:
    prefix: '' or 'module.', the prefix of the name.
    name: of a row type, or of any function.
    kinds: as `_row_kinds` returns it.
  """
  fields = kinds.get(prefix + name)
  if fields is None:
    return []
  same = [other for other in sorted(kinds) if kinds[other] == fields]
  return [other[len(prefix):] for other in same
          if other.rpartition('.')[0] == prefix[:-1] and
          other != prefix + name]


def _other_value(token):
  """Returns the list of replacements for a literal; empty for other tokens."""
  if token.type == tokenize.NUMBER:
    return [_other_number(ast.literal_eval(token.string))]
  if token.type == tokenize.STRING and token.start[0] == token.end[0]:
    text = ast.literal_eval(token.string)
    # An empty string has no letter.
    return [repr(_other_text(text))] if isinstance(text, str) and text else []
  if token.type == tokenize.NAME and token.string in _WORDS:
    return [_WORDS[token.string]]
  return []


def _other_number(number):
  if isinstance(number, float):
    return repr(number * 2 or 0.5)
  return repr(_NUMBERS.get(number, number + (_WIDER if number >= _WIDER
                                             else 1)))


def _other_text(text):
  if text in _WORDS:
    return _WORDS[text]
  for old, new in _POOLS.items():
    if old in text:
      return text.replace(old, new)
  # The last letter or digit, which distinguishes most names in a table.
  index = max([i for i, letter in enumerate(text) if letter.isalnum()],
              default=0)
  return text[:index] + _next_letter(text[index]) + text[index + 1:]


def _next_letter(letter):
  if letter in '9zZ':
    return {'9': '0', 'z': 'a', 'Z': 'A'}[letter]
  return chr(ord(letter) + 1)
