"""Tests of benchmarks/gpu_speed.py; most replace the parts by a program."""

import json
import os
import subprocess
import sys
import time

import pytest

from benchmarks import gpu_speed
from common.errors import InputError
from kits.helpers import parsed_flags

# A program in place of gpu_parts.py.
FAKE = '''
import json, subprocess, sys, time
part = [word[7:] for word in sys.argv if word.startswith('--part=')][0]
sys.stdin.readline() or sys.exit('no turn')
def put(what, value, unit=''):
  print(json.dumps(dict(what=what, value=value, unit=unit, note=None)),
        flush=True)
put('graphics cards' if part == 'devices' else part, 0 if part == 'devices'
    else 2000.4, 'photos/s')
if part == 'records':
  print('Traceback: not this line', file=sys.stderr)
  sys.exit('no memory on the card')
if part == 'input':
  child = subprocess.Popen(['sleep', '60'])
  put('child', child.pid)
  time.sleep(60)
'''


@pytest.fixture
def fake(tmp_path):
  path = tmp_path / 'fake.py'
  path.write_text(FAKE)
  return [sys.executable, str(path)]


def run(fake, tmp_path, names, seconds=60.0, limit=60):
  """Runs parts of the fake program; returns their rows."""
  rows = []
  gpu_speed.run_parts(
      [gpu_speed.Part(name, limit, ('--part=' + name,)) for name in names],
      fake, str(tmp_path), time.monotonic() + seconds, rows.extend)
  return rows


def test_run_parts_part_that_fails_has_its_last_line_and_others_go_on(
    fake, tmp_path):
  records, failure, train = run(fake, tmp_path, ['records', 'train'])
  assert (records['what'], records['value']) == ('records', 2000.4)
  assert failure == {'part': 'records',
                     'failed': 'status 1: no memory on the card'}
  assert train['part'] == 'train'


def test_run_parts_part_over_its_limit_is_ended_with_its_children(
    fake, tmp_path):
  _, child, failure, train = run(fake, tmp_path, ['input', 'train'], limit=3)
  assert failure['failed'] == 'stopped after its time limit of 3 s'
  assert train['value'] == 2000.4
  with pytest.raises(ProcessLookupError):
    for _ in range(100):  # Until the system has removed it.
      os.kill(child['value'], 0)
      time.sleep(0.1)


def test_run_parts_without_time_left_say_so(fake, tmp_path):
  assert run(fake, tmp_path, ['train', 'server'], seconds=1) == [
      {'part': name, 'failed': 'no time left'} for name in ('train', 'server')]


@pytest.mark.parametrize('one, line', [
    (dict(part='train', what='step', value=1234.5, unit='photos/s', note='a',
          wanted='b'), 'train step 1,234 photos/s a; b'),
    (dict(part='train', what='share', value=0.98765, unit='', note=None),
     'train share 0.9877'),
    (dict(part='devices', what='version', value='2.21', unit=''),
     'devices version 2.21'),
    (dict(part='server', failed='status 1: x'), 'server failed: status 1: x'),
    (dict(part='server', skipped='no card'), 'server skipped: no card')])
def test_to_line_has_value_and_remarks_or_reason(one, line):
  assert gpu_speed.to_line(one).split() == line.split()


@pytest.mark.parametrize('key, value, remark', [
    (('train', 'records to trained classifier'), 19.9,
     'wanted on an H100: < 20, met'),
    (('inception_v4_xla', 'training, batch 128'), 999,
     'wanted on an H100: >= 1000, missed'),
    (('resnet_v1_50_xla', 'training, batch 128'), 1,
     'one A100, TensorFlow 1.15, AMP and XLA: 2,375'),
    (('resnet_v1_50_xla', 'training, batch 32'), 1, None)])
def test_compare_adds_anchors_and_what_is_wanted(key, value, remark):
  one = dict(part=key[0], what=key[1], value=value)
  gpu_speed.compare(one)
  assert one.get('anchor') == remark or one.get('wanted') == remark


def test_derived_compares_records_and_counts_cores():
  rows = [dict(part=part, what=what, value=value) for part, what, value in (
      ('inception_v4_xla', 'training, batch 128', 1200),
      ('records', 'training, batch 128', 1080),
      ('input', '4 threads', 1000),
      ('input', '4 threads, per core', 240),
      ('input', '8 threads, per core', 250),
      ('clones', '--num_clones=1, batch 128', 99),
      ('clones', 'without clones, batch 128', 100))]
  found = {one['what']: (one['value'], one['note'])
           for one in gpu_speed.derived(rows, small=False)}
  assert found == {
      'of the speed on made-up photos': (0.9, 'inception_v4_xla'),
      '--num_clones=1 / without clones': (0.99, None),
      'to feed inception_v4': (4.8, '1200 photos/s, measured'),
      'to feed resnet_v1_50': (9.5, '2375 photos/s, not measured here')}


def test_main_without_a_card_says_so_and_writes_json(
    fake, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(gpu_speed, 'COMMAND', fake)
  path = tmp_path / 'gpu.json'
  with parsed_flags(gpu_speed.define_flags, '--output=%s' % path,
                    '--parts=train,records,resnet_v1_50_float16'):
    assert gpu_speed.main([]) == 1
  output = capsys.readouterr().out
  assert 'THERE IS NO GRAPHICS CARD' in output
  assert output.endswith('failed: records\n')
  found = json.loads(path.read_text())
  assert (found['has_card'], found['small']) == (False, True)
  assert [one['part'] for one in found['rows']] == [
      'devices', 'resnet_v1_50_float16', 'records', 'records', 'train']
  assert 'float16 needs a graphics card' in found['rows'][1]['skipped']


def test_main_unknown_part_is_refused():
  with parsed_flags(gpu_speed.define_flags, '--parts=train,cache'):
    with pytest.raises(InputError, match="unknown part 'cache'; known: photos"):
      gpu_speed.main([])


@pytest.mark.slow
def test_gpu_parts_ends_when_the_parent_has_ended(tmp_path):
  done = subprocess.run(
      [*gpu_speed.COMMAND, '--part=devices', '--folder=%s' % tmp_path],
      stdin=subprocess.DEVNULL, capture_output=True, text=True)
  assert done.returncode == 1 and not done.stdout
  assert 'the program that started this part has ended' in done.stderr


@pytest.mark.slow
@pytest.mark.engine('tf2')
def test_main_small_runs_all_parts(tmp_path, capsys):
  path = tmp_path / 'gpu.json'
  with parsed_flags(gpu_speed.define_flags, '--output=%s' % path, '--small',
                    '--minutes=20'):
    status = gpu_speed.main([])
  output = capsys.readouterr().out
  assert status == 0, output
  rows = json.loads(path.read_text())['rows']
  assert {one['part'] for one in rows} == {'devices'} | {
      part.name for part in gpu_speed.make_parts(True)}
  found = {(one['part'], one['what']): one['value'] for one in rows
           if 'what' in one}
  for key in (('inception_v4_float32', 'forward, batch 2'),
              ('mobilenet_v1_xla', 'training, batch 4'),
              ('input', '16 threads'), ('input', 'to feed inception_v4'),
              ('records', 'of the speed on made-up photos'),
              ('train', 'feature cache, train'), ('finetune_all', 'step'),
              ('server', '64 clients'),
              ('clones', '--num_clones=1 / without clones')):
    assert found[key] > 0, key
  assert found['agreement', 'mobilenet_v1 float32'] <= 1e-3
