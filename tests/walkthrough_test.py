"""Tests of docs/walkthrough.ipynb: it runs offline and has its current outputs.

After a change to its cells, this command updates its outputs:

  .venv/bin/python tests/walkthrough_test.py
"""

import ast
import glob
import importlib
import json
import os
import re
import sys
import tempfile
from unittest import mock

import nbformat
import pytest
from nbclient import NotebookClient
from traitlets.config import Config

from kits.helpers import ROOT

# See conftest.py.
ONE_ENGINE_BY_TURNS = True

NOTEBOOK = os.path.join(ROOT, 'docs', 'walkthrough.ipynb')
MAX_BYTES = 400 * 1000  # Size of the notebook with its outputs.
CELL_SECONDS = 600  # Time limit of a cell.

# Packages that the notebook may import, besides the project and the standard
# library.
PACKAGES = {'IPython', 'PIL', 'matplotlib', 'numpy'}

# The kernel imports this before anything else.
OFFLINE = '''
import socket

def _refuse(*arguments, **kwargs):
  raise OSError('the notebook asks for the network: %r' % (arguments,))

_connect = socket.socket.connect

def _connect_here(self, address):
  if self.family != socket.AF_UNIX:
    _refuse(address)
  return _connect(self, address)

socket.socket.connect = _connect_here
socket.getaddrinfo = socket.gethostbyname = _refuse
'''


def read_notebook():
  """Returns the notebook as nbformat reads it."""
  return nbformat.read(NOTEBOOK, as_version=nbformat.NO_CONVERT)


def code_cells(notebook):
  """Returns the code cells of a notebook."""
  return [cell for cell in notebook.cells if cell.cell_type == 'code']


def outputs(notebook, kind):
  """Returns the outputs of one output_type, of all cells."""
  return [output for cell in code_cells(notebook) for output in cell.outputs
          if output.output_type == kind]


def stdout_text(cells):
  """Returns what code cells print to stdout."""
  return ''.join(output.text for cell in cells for output in cell.outputs
                 if output.output_type == 'stream' and output.name == 'stdout')


def run_notebook(folder):
  """Runs the notebook in a kernel of this Python.

  Args:
    folder: empty folder for all that the kernel and the notebook write; their
      home and their temporary folder are in it.

  Returns:
    The notebook with its outputs.
  """
  def make_folder(name, file_name=None, text=''):
    path = os.path.join(folder, name)
    os.makedirs(path, exist_ok=True)
    if file_name:
      with open(os.path.join(path, file_name), 'w') as stream:
        stream.write(text)
    return path

  make_folder('data/kernels/walkthrough', 'kernel.json', json.dumps({
      'argv': [sys.executable, '-m', 'ipykernel_launcher', '-f',
               '{connection_file}'],
      'display_name': 'Python 3', 'language': 'python'}))
  environment = {
      'HOME': make_folder('home'), 'TMPDIR': make_folder('tmp'),
      'JUPYTER_PATH': make_folder('data'),
      'JUPYTER_DATA_DIR': make_folder('data'),
      'JUPYTER_CONFIG_DIR': make_folder('config'),
      'IPYTHONDIR': make_folder('ipython'),
      'PYTHONPATH': make_folder('offline', 'sitecustomize.py', OFFLINE),
  }
  notebook = read_notebook()
  for cell in code_cells(notebook):
    cell.outputs, cell.execution_count = [], None
  # The kernel listens on Unix sockets: without network, and closed to other
  # users of the machine. Their paths may have at most 107 bytes, and those of
  # pytest's folders are longer.
  with tempfile.TemporaryDirectory() as sockets:
    client = NotebookClient(
        notebook, kernel_name='walkthrough', timeout=CELL_SECONDS,
        record_timing=False, resources={'metadata': {'path': ROOT}},
        config=Config({'KernelManager': {
            'transport': 'ipc',
            'connection_file': os.path.join(sockets, 'kernel.json')}}))
    environment['JUPYTER_RUNTIME_DIR'] = sockets
    with mock.patch.dict(os.environ, environment):
      return client.execute()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Returns the folder that the run writes to."""
  return tmp_path_factory.mktemp('walkthrough')


@pytest.fixture(scope='module')
def executed(folder):
  """Returns the notebook after a run from top to bottom."""
  return run_notebook(str(folder))


def test_notebook_is_valid_nbformat_4():
  notebook = read_notebook()
  nbformat.validate(notebook)
  assert notebook.nbformat == 4
  assert notebook.metadata.kernelspec.name == 'python3'
  assert len(code_cells(notebook)) > 20


def test_notebook_explains_each_code_cell():
  kinds = [cell.cell_type for cell in read_notebook().cells]
  assert kinds[0] == kinds[-1] == 'markdown'
  assert ('code', 'code') not in set(zip(kinds[1:], kinds[2:]))


def test_notebook_links_lead_to_files():
  links = [link for cell in read_notebook().cells
           if cell.cell_type == 'markdown'
           for link in re.findall(r'\]\(([^)]*)\)', cell.source)]
  assert links
  assert [link for link in links
          if not os.path.exists(os.path.join(
              os.path.dirname(NOTEBOOK), link))] == []


def parsed_cells():
  """Returns the syntax tree of the whole notebook's code."""
  options = {} if sys.version_info < (3, 8) else {'feature_version': (3, 7)}
  return ast.parse('\n'.join(cell.source for cell in code_cells(
      read_notebook())), **options)


def resolve(module_name, name):
  """Returns a module's attribute, or its sub-module of that name."""
  module = importlib.import_module(module_name)
  if not hasattr(module, name):
    importlib.import_module('%s.%s' % (module_name, name))
  return getattr(module, name)


def imported_names(tree):
  """Returns {name in the notebook: (module it comes from, object)}."""
  names = {}
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      for alias in node.names:
        names[alias.asname or alias.name] = (
            alias.name, importlib.import_module(alias.name))
    elif isinstance(node, ast.ImportFrom):
      for alias in node.names:
        names[alias.asname or alias.name] = (
            node.module, resolve(node.module, alias.name))
  return names


def test_notebook_imports_only_project_standard_library_and_packages():
  imported = {module.split('.')[0]
              for module, _ in imported_names(parsed_cells()).values()}
  project = {name for name in imported
             if os.path.exists(os.path.join(ROOT, name))
             or os.path.exists(os.path.join(ROOT, name + '.py'))}
  assert {'compat', 'datasets', 'nets', 'preprocessing', 'runs', 'training',
          'evaluation', 'serving'} <= project
  standard_library = imported - project - PACKAGES
  for name in standard_library:
    origin = importlib.import_module(name).__spec__.origin
    assert 'site-packages' not in (origin or ''), name


def look_up(node, names):
  """Returns the object of a dotted name, None if it is not imported.

  Args:
    node: expression.
    names: result of imported_names.
  """
  if isinstance(node, ast.Name):
    return names.get(node.id, (None, None))[1]
  if isinstance(node, ast.Attribute):
    owner = look_up(node.value, names)
    assert owner is None or hasattr(owner, node.attr), (owner, node.attr)
    return getattr(owner, node.attr, None)
  return None


def test_notebook_uses_public_names_that_exist():
  tree = parsed_cells()
  names = imported_names(tree)
  attributes = [node for node in ast.walk(tree)
                if isinstance(node, ast.Attribute)]
  assert len([node for node in attributes if look_up(node, names)]) > 50
  parts = {node.attr for node in attributes}
  for name, (module, _) in names.items():
    parts.update([name] + module.split('.'))
  # The methods of a namedtuple are public despite their underscore.
  assert {part for part in parts if re.match('_(?!_)', part)} <= {'_replace'}


def assert_outputs_are_clean(notebook):
  """Asserts that all cells ran, in order, without errors or local paths."""
  counts = [cell.execution_count for cell in code_cells(notebook)]
  assert counts == list(range(1, len(counts) + 1))
  assert outputs(notebook, 'error') == []
  errors = [output.text for output in outputs(notebook, 'stream')
            if output.name == 'stderr']
  assert errors == []
  texts = [stdout_text(code_cells(notebook))]
  texts += [output.data.get('text/plain', '')
            for kind in ('display_data', 'execute_result')
            for output in outputs(notebook, kind)]
  # No path of the machine that ran it.
  assert [text for text in texts
          if re.search(r'(^|[^\w.])/\w|walkthrough_', text)] == []


def test_notebook_committed_outputs_are_of_one_clean_run():
  assert_outputs_are_clean(read_notebook())


def test_notebook_size_is_below_the_limit():
  assert os.path.getsize(NOTEBOOK) < MAX_BYTES


@pytest.mark.slow
def test_notebook_run_has_clean_outputs_and_leaves_no_files(executed, folder):
  assert_outputs_are_clean(executed)
  assert glob.glob(str(folder / 'tmp' / 'walkthrough_*')) == []


@pytest.mark.slow
def test_notebook_run_shows_images(executed):
  types = [kind for output_type in ('display_data', 'execute_result')
           for output in outputs(executed, output_type)
           for kind in output.data]
  assert types.count('image/jpeg') >= 5
  assert types.count('image/png') >= 2


@pytest.mark.slow
def test_notebook_run_accuracy_is_far_above_chance(executed):
  text = stdout_text(code_cells(executed))
  accuracy = float(re.search(r'eval/Accuracy\[(.*?)\]', text).group(1))
  assert accuracy > 0.7  # Five classes: chance is 0.2.
  first, last = map(float, re.search(
      r'first 20 steps (\S+), of the last (\S+)', text).groups())
  assert last < first / 2
  tuned = float(re.search(r'fine-tuned +accuracy (\S+),', text).group(1))
  assert tuned > 0.75  # Two classes, 60 % of the photos in one.


@pytest.mark.slow
def test_notebook_committed_outputs_match_a_run(executed):
  compared = 0
  for new_cell, committed_cell in zip(code_cells(executed),
                                      code_cells(read_notebook())):
    # The first checkpoint has step 1 if its thread begins late.
    texts = [stdout_text([cell]).replace('model.ckpt-1.', 'model.ckpt-0.')
             for cell in (new_cell, committed_cell)]
    # Decimal fractions vary: they are measurements or versions of the engine.
    if texts[0] and not any(re.search(r'\d\.\d', text) for text in texts):
      assert texts[0] == texts[1]
      compared += 1
  assert compared >= 8


def join_streams(cell):
  """Joins the stream outputs that a cell printed in several flushes."""
  joined = []
  for output in cell.outputs:
    if (joined and output.output_type == 'stream'
        and joined[-1].get('name') == output.name):
      joined[-1].text += output.text
    else:
      joined.append(output)
  cell.outputs = joined


def main():
  """Writes the outputs of a run into the notebook."""
  with tempfile.TemporaryDirectory() as folder:
    notebook = run_notebook(folder)
  assert_outputs_are_clean(notebook)
  for cell in code_cells(notebook):
    join_streams(cell)
  # The version of the Python that ran it does not matter.
  notebook.metadata.language_info = {'name': 'python'}
  nbformat.write(notebook, NOTEBOOK)


if __name__ == '__main__':
  main()
