"""Measures what the programs do on a graphics card, in at most --minutes.

Each part is a process of its own with a time limit; the others continue if it
fails. Without a card all parts run small on the processor, which only shows
that they work. It needs no environment of ./setup.sh if the packages of
requirements/tf2.txt are installed; in the project's folder:

  python3 -m benchmarks.gpu_speed --output=gpu.json
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from absl import flags

from common import files
from common import flags as common_flags
from common.errors import InputError

FLAGS = flags.FLAGS

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# A part gets no less time, in seconds.
_LEAST_SECS = 5
_LONGEST_REASON = 300  # In characters.

# Start of the command line of a part.
COMMAND = [sys.executable, '-m', 'benchmarks.gpu_parts']

_NETWORKS = ('inception_v4', 'resnet_v1_50', 'mobilenet_v1')


class Part(NamedTuple):
  """A process of benchmarks/gpu_parts.py."""

  name: str
  # Time limit.
  seconds: int
  # Flags.
  arguments: Tuple[str, ...]
  # Reason for which it is skipped without a card, or None.
  needs_card: Optional[str] = None
  # Whether the next part must not be prepared meanwhile.
  is_alone: bool = False


class Running:
  """A part that was started and waits for its turn.

  Args:
    part: Part.
    command: its command line.
    folder: for its output.
  """

  def __init__(self, part: Part, command: List[str], folder: str) -> None:
    self.part = part
    self._paths = [os.path.join(folder, part.name + end)
                   for end in ('.out', '.err')]
    with open(self._paths[0], 'wb') as out, open(self._paths[1], 'wb') as err:
      self._process = subprocess.Popen(
          command, stdin=subprocess.PIPE, stdout=out, stderr=err, cwd=_ROOT,
          # For the programs in benchmarks/ that a part runs.
          env=dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, (
              _ROOT, os.environ.get('PYTHONPATH'))))),
          start_new_session=True)

  def finish(self, seconds: float) -> List[Dict[str, Any]]:
    """Gives the part its turn.

    Args:
      seconds: after which it is killed.

    Returns:
      Its figures, dicts of part, what, value, unit and note; and if it failed
      a dict of part and failed, the reason.
    """
    reason = None
    try:
      self._process.communicate(b'\n', timeout=seconds)
    except subprocess.TimeoutExpired:
      reason = 'stopped after its time limit of %.0f s' % seconds
    self.kill()
    rows = self._read_rows()
    if reason is None and self._process.returncode:
      reason = 'status %d: %s' % (self._process.returncode, self._last_error())
    if reason is None and not rows:
      reason = 'no figures'
    return rows + ([failed(self.part, reason)] if reason else [])

  def kill(self) -> None:
    """Ends its process and those that this started."""
    try:
      os.killpg(self._process.pid, signal.SIGKILL)
    except ProcessLookupError:
      pass
    self._process.wait()

  def _read_rows(self):
    with open(self._paths[0], errors='replace') as file:
      return [dict(json.loads(line), part=self.part.name) for line in file
              if line.startswith('{') and line.endswith('}\n')]

  def _last_error(self):
    with open(self._paths[1], errors='replace') as file:
      lines = [line.strip() for line in file if line.strip()]
    return lines[-1][:_LONGEST_REASON] if lines else 'no message'


def failed(part: Part, reason: str) -> Dict[str, Any]:
  """Returns the row of a part that failed."""
  return dict(part=part.name, failed=reason)


# Published speeds in training, in photos per second.
_ANCHORS = {
    ('resnet_v1_50_xla', 'training, batch 128'):
        'one A100, TensorFlow 1.15, AMP and XLA: 2,375',
    ('inception_v4_float16', 'training, batch 128'): 'RTX 3090, AMP: 405',
    ('inception_v4_float32', 'training, batch 128'): 'V100, float32: 112'}

# What is wanted on an H100.
_WANTED = {
    ('inception_v4_xla', 'training, batch 128'): ('>=', 1000),
    ('inception_v4_xla', 'forward, batch 128'): ('>=', 2000),
    ('records', 'of the speed on made-up photos'): ('>=', 0.9),
    ('train', 'records to trained classifier'): ('<', 20)}

# Speeds in training for which the cores of the input are computed if they were
# not measured: what is wanted, and the anchor.
_SPEEDS_TO_FEED = {'inception_v4': 1000, 'resnet_v1_50': 2375}


def define_flags() -> None:
  """Defines the flags of this program."""
  flags.DEFINE_float('minutes', 6, 'All parts together end after this time.',
                     lower_bound=0)
  flags.DEFINE_string('output', None, 'JSON file to write. None: only the '
                      'table is printed.')
  flags.DEFINE_list('parts', None, 'Names of the parts to measure, with commas '
                    'between. devices always is. None: all.')
  flags.DEFINE_string(
      'folder', None, 'Folder that keeps the made photos, the trained run and '
      'the logs, for --parts of a later call. None: a temporary one.')
  flags.DEFINE_bool('small', False, 'Measure as little as without a card.')


def make_parts(small: bool) -> List[Part]:
  """Returns the parts; the most important ones are first.

  Args:
    small: whether few steps on small photos are measured.
  """
  name = 'mobilenet_v1' if small else _NETWORKS[0]
  model = ('--model_name=' + name,)
  fast = () if small else ('--precision=float16', '--xla')
  networks = {network: _speed_parts(network, small) for network in _NETWORKS}
  parts = [
      Part('photos', 90, ('--part=photos',)),
      *networks['inception_v4'],
      Part('records', 90, ('--part=records', *model, *fast), is_alone=True),
      Part('input', 30, ('--part=input', *model), is_alone=True),
      Part('train', 60, ('--part=train', *model)),
      Part('finetune_all', 60, ('--part=finetune_all', *model)),
      Part('server', 60, ('--part=server', *model), is_alone=True),
      Part('agreement', 60, ('--part=agreement', '--model_name=' + (
          name if small else ','.join(_NETWORKS)))),
      Part('clones', 60, ('--part=clones', '--model_name=mobilenet_v1',
                          '--precision=float32')),
      *networks['resnet_v1_50'], *networks['mobilenet_v1'],
      Part('records_on_device', 90, (
          '--part=records', *model, *fast, '--preprocess_on_device'),
           is_alone=True)]
  # A slow processor may need longer than a card.
  return [part._replace(seconds=120) for part in parts] if small else parts


def _speed_parts(network, small):
  start = ('--part=speed', '--model_name=' + network)
  xla = Part(network + '_xla', 120, (*start, '--xla', '--precision=float16'),
             'compiling it on a processor takes minutes')
  if small and network == 'mobilenet_v1':
    xla = xla._replace(arguments=(*start, '--xla', '--precision=float32'),
                       needs_card=None)
  return [xla,
          Part(network + '_float16', 45, (*start, '--precision=float16'),
               'training with float16 needs a graphics card'),
          Part(network + '_float32', 45, (*start, '--precision=float32'))]


def run_parts(parts, command, folder, deadline, report):
  """Runs parts one after the other; the next one is started ahead.

  Args:
    parts: list of Parts.
    command: list of the words before a part's arguments.
    folder: for the output of the parts.
    deadline: time.monotonic() at which all end.
    report: function that takes the rows of each part as it ends.
  """
  started = []

  def start(part):
    started.append(Running(part, [*command, *part.arguments], folder))

  try:
    for number, part in enumerate(parts):
      left = deadline - time.monotonic()
      if left < _LEAST_SECS:
        report([failed(part, 'no time left')])
        continue
      if not started:
        start(part)
      if not part.is_alone and number + 1 < len(parts):
        start(parts[number + 1])
      report(started[0].finish(min(part.seconds, left)))
      started.pop(0)
  finally:
    for running in started:
      running.kill()


def derived(rows: List[Dict[str, Any]], small: bool) -> List[Dict[str, Any]]:
  """Returns rows that compare figures of several parts."""
  found = {(one['part'], one['what']): one['value'] for one in rows
           if 'what' in one}
  training = {key: value for key, value in found.items()
              if key[1].startswith('training')}
  made = 'mobilenet_v1_float32' if small else 'inception_v4_xla'
  more = []
  for (part, what), value in training.items():
    if part.startswith('records') and (made, what) in found:
      more.append(dict(part=part, what='of the speed on made-up photos',
                       value=value / found[made, what], unit='', note=made))
  clones = [value for (part, _), value in found.items() if part == 'clones']
  if len(clones) == 2:
    more.append(dict(part='clones', what='--num_clones=1 / without clones',
                     value=clones[0] / clones[1], unit='', note=None))
  per_core = max((value for (part, what), value in found.items()
                  if part == 'input' and what.endswith('threads, per core')),
                 default=0)
  for network in _NETWORKS if per_core else ():
    speed, note = max((value for (part, _), value in training.items()
                       if part.startswith(network)), default=0), 'measured'
    if small or not speed:
      speed, note = _SPEEDS_TO_FEED.get(network, 0), 'not measured here'
    if speed:
      more.append(dict(
          part='input', what='to feed %s' % network, value=speed / per_core,
          unit='cores', note='%.0f photos/s, %s' % (speed, note)))
  return more


def to_line(one: Dict[str, Any]) -> str:
  """Returns a row as a line of the table."""
  if 'what' not in one:
    reason = 'failed' if 'failed' in one else 'skipped'
    return '%-21s %s: %s' % (one['part'], reason, one[reason])
  value = one['value']
  if not isinstance(value, str):
    value = '%.4g' % value if abs(value) < 1000 else '{:,.0f}'.format(value)
  remarks = '; '.join(filter(None, map(one.get, ('note', 'anchor', 'wanted'))))
  return ('%-21s %-31s %10s %-9s %s' % (
      one['part'], one['what'], value, one['unit'], remarks)).rstrip()


def compare(one: Dict[str, Any]) -> None:
  """Adds to a figure of a card a published one, and what is wanted."""
  key = (one['part'], one.get('what'))
  if key in _ANCHORS:
    one['anchor'] = _ANCHORS[key]
  if key in _WANTED:
    sign, bound = _WANTED[key]
    met = one['value'] >= bound if sign == '>=' else one['value'] < bound
    one['wanted'] = 'wanted on an H100: %s %g, %s' % (
        sign, bound, 'met' if met else 'missed')


def measure(folder: str) -> Dict[str, Any]:
  """Measures all parts, and prints the table; returns the content of --output.

  Args:
    folder: for photos, the trained run and logs.

  Raises:
    InputError: --parts has an unknown name.
  """
  known = [part.name for part in make_parts(False)]
  for name in FLAGS.parts or ():
    if name not in known:
      raise InputError('--parts=%s: unknown part %r; known: %s' % (
          ','.join(FLAGS.parts), name, ', '.join(known)))
  deadline = time.monotonic() + 60 * FLAGS.minutes
  rows: List[Dict[str, Any]] = []
  has_card = False

  def report(found):
    for one in found:
      if has_card:
        compare(one)
      rows.append(one)
      print(to_line(one), flush=True)

  command = [*COMMAND, '--folder=' + folder]
  run_parts([Part('devices', 60, ('--part=devices',))], command, folder,
            deadline, report)
  has_card = any(one.get('what') == 'graphics cards' and one['value'] > 0
                 for one in rows)
  small = FLAGS.small or not has_card
  if not has_card:
    print('\nTHERE IS NO GRAPHICS CARD: all parts run small on the processor, '
          'to show that they work.\nTheir figures say nothing about a card.\n')
  parts = [part for part in make_parts(small)
           if part.name in (FLAGS.parts or known)]
  if not has_card:
    report([dict(part=part.name, skipped=part.needs_card)
            for part in parts if part.needs_card])
    parts = [part for part in parts if not part.needs_card]
  run_parts(parts, [*command, *(['--small'] if small else [])], folder,
            deadline, report)
  report(derived(rows, small))
  return dict(has_card=has_card, small=small, rows=rows, seconds=round(
      time.monotonic() - deadline + 60 * FLAGS.minutes, 1))


def main(_: List[str]) -> int:
  """Prints the table and writes the JSON; returns 1 if a part failed."""
  with tempfile.TemporaryDirectory(prefix='gpu-') as made:
    if FLAGS.folder:
      os.makedirs(FLAGS.folder, exist_ok=True)
    result = measure(os.path.abspath(FLAGS.folder or made))
  if FLAGS.output:
    files.write_output(FLAGS.output, json.dumps(result, indent=1).encode())
  names = [one['part'] for one in result['rows'] if 'failed' in one]
  print('\n%.0f s; failed: %s' % (result['seconds'],
                                  ', '.join(names) or 'none'))
  return int(bool(names))


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
