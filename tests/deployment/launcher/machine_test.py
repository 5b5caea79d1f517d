"""Tests of deployment/launcher/machine.py: hosts files, this machine."""

import pytest

from common.errors import InputError
from deployment.launcher import machine


@pytest.mark.parametrize('line', ['ps', 'chief a:1', 'ps a:1 b:2'])
def test_read_file_invalid_line_is_named(tmp_path, line):
  path = tmp_path / 'hosts'
  path.write_text('ps a:1\n%s\n' % line)
  with pytest.raises(InputError,
                     match='hosts, line 2: %r is not a task' % line):
    machine.read_file(str(path))


def test_is_here_is_true_only_for_this_machine():
  assert machine.is_here('localhost') and machine.is_here('127.0.0.1')
  assert not machine.is_here('192.0.2.77')
  with pytest.raises(InputError, match="^host 'no.such.invalid' cannot be "):
    machine.is_here('no.such.invalid')
