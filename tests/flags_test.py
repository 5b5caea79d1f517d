"""Tests of the programs' flags: slim's names and defaults.

data/flags.json has those of slim of 2018, data/flags_2021.json those of its
last version, of September 2021.
"""

import importlib
import io
import json
import os
import re
import sys

import pytest

from common import flags as common_flags
from common import show_help
from kits.helpers import ROOT, parsed_flags, run_program
from runs import checkpoints
from tools import list_models

# (file, program, {flag: [type, default]}).
SLIM_FLAGS = []
for file_name in ('flags.json', 'flags_2021.json'):
  with open(os.path.join(ROOT, 'tests', 'data', file_name)) as stream:
    SLIM_FLAGS += [(file_name, program, flags)
                   for program, flags in sorted(json.load(stream).items())]

# Defaults that differ from slim's; docs/differences.md lists each of them.
OTHER_DEFAULTS = {
    # 1.0 makes adam crawl.
    ('train_image_classifier.py', 'opt_epsilon'): None,
}
# Flags of slim that the programs do not have; docs/differences.md has them too.
NOT_HERE = {
    # There are no networks for video.
    ('export_inference_graph.py', 'is_video_model'),
    ('export_inference_graph.py', 'num_frames'),
}
FLAG_TYPES = {'integer': (int,), 'float': (float, int), 'boolean': (bool,),
              'bool': (bool,), 'string': (str,)}


@pytest.mark.parametrize('file_name, program, slims', SLIM_FLAGS)
def test_program_has_slims_flags_with_slims_defaults(file_name, program, slims):
  module = importlib.import_module(program[:-len('.py')])
  with parsed_flags(module.define_flags) as values:
    for name, (kind, default) in slims.items():
      if (program, name) in NOT_HERE:
        assert name not in values and file_name == 'flags_2021.json'
        continue
      flag = values[name]
      expected = OTHER_DEFAULTS.get((program, name), default)
      if expected is not None and kind == 'integer':
        expected = int(expected)
      assert flag.default == expected, name
      if flag.value is not None:
        assert isinstance(flag.value, FLAG_TYPES[kind]), name


def test_other_flags_are_in_the_documented_differences():
  with open(os.path.join(ROOT, 'docs', 'differences.md'),
            encoding='utf-8') as stream:
    differences = stream.read()
  for _, name in [*OTHER_DEFAULTS, *NOT_HERE]:
    assert re.search(r'\|.*`--%s' % name, differences), name


class _ResolveCalled(Exception):
  """Ends a program when it resolves its checkpoint."""


@pytest.mark.parametrize('program, arguments', [
    ('tools.classify_image', ['--checkpoint_path=DIR', 'DIR']),
    ('eval_image_classifier', ['--checkpoint_path=DIR']),
    ('export_inference_graph', ['--checkpoint_path=DIR', '--frozen_file=a.pb']),
    ('tools.export_tflite', [
        '--checkpoint_path=DIR', '--tflite_file=a.tflite']),
    ('tools.inspect_checkpoint', [
        '--checkpoint_path=DIR', '--model_name=lenet']),
    ('tools.make_report', ['--train_dir=DIR']),
    ('tools.make_report', ['--checkpoint_path=DIR']),
])
def test_program_train_directory_is_resolved_by_checkpoints_resolve(
    tmp_path, monkeypatch, program, arguments):
  calls = []

  def resolve(path, which):
    calls.append((path, which))
    raise _ResolveCalled

  monkeypatch.setattr(checkpoints, 'resolve', resolve)
  module = importlib.import_module(program)
  (tmp_path / 'photo.jpg').write_bytes(b'')
  arguments = [text.replace('DIR', str(tmp_path)) for text in arguments]
  for extra in ([], ['--which_checkpoint=newest']):
    flags = [text for text in arguments + extra if text.startswith('--')]
    with parsed_flags(module.define_flags, *flags):
      with pytest.raises(_ResolveCalled):
        module.main([program] + [text for text in arguments
                                 if not text.startswith('--')])
  assert calls == [(str(tmp_path), None), (str(tmp_path), 'newest')]


def test_program_unknown_flag_is_fatal():
  done = run_program('train_image_classifier.py', '--no_such_flag=1')
  assert done.returncode == 1
  assert 'Unknown command line flag' in done.stderr
  assert 'Traceback' not in done.stderr


def test_program_positional_argument_is_fatal():
  done = run_program('eval_image_classifier.py', 'dataset_dir=x')
  assert done.returncode == 1
  assert done.stderr.strip().split('\n') == [
      "eval_image_classifier.py: error: unexpected argument 'dataset_dir=x': "
      'flags are given as --name=value; --help lists them']


@pytest.mark.parametrize('encoding,errors,expected', [
    ('ascii', 'strict', b'\xe9 \\xfc \\u82b1'),
    ('ascii', 'surrogateescape', b'\xe9 \\xfc \\u82b1'),  # LC_ALL=C.
    ('latin-1', 'strict', b'\xe9 \xfc \\u82b1'),
    ('utf-8', 'strict', b'\xe9 \xc3\xbc \xe8\x8a\xb1'),
    ('ascii', 'replace', b'? ? ?'),  # As the user configured.
])
def test_accept_all_names_any_stdout_encoding_prints_file_names(
    monkeypatch, encoding, errors, expected):
  buffer = io.BytesIO()
  with io.TextIOWrapper(buffer, encoding, errors) as stdout:
    monkeypatch.setattr(sys, 'stdout', stdout)
    common_flags._accept_all_names()
    print('\udce9 \xfc \u82b1', end='', flush=True)
    assert buffer.getvalue() == expected


def test_program_help_lists_its_flags_and_none_of_tensorflow():
  done = run_program('tools/list_models.py', '--help')
  assert done.returncode == 0
  assert done.stdout == show_help.program_help(
      os.path.join(ROOT, 'tools', 'list_models.py'))
  assert done.stdout.startswith(list_models.__doc__.split('\n')[0])
  assert re.findall(r'^  --(\S+):', done.stdout, re.MULTILINE) == [
      'format', 'model_name', 'rates_file']
