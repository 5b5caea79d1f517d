"""Tests of training/summaries.py: the event file."""

import collections
import glob

import pytest

from compat import tf
from training import summaries

Graph = collections.namedtuple('Graph', 'scalar_op summary_op')


def read_steps(train_dir):
  """Returns {tag: steps} of the only event file of a folder."""
  path, = glob.glob(str(train_dir / 'events.*'))
  steps = collections.defaultdict(list)
  for event in tf.train.summary_iterator(path):
    for value in event.summary.value:
      steps[value.tag].append(event.step)
  return steps


@pytest.mark.parametrize('steps,scalars', [
    (range(1, 26), [1, 10, 20]),
    # The other steps are taken by other workers.
    ([3, 8, 12, 14, 31, 38], [3, 12, 31])], ids=['alone', 'one of several'])
def test_summaries_have_scalars_by_steps_and_photos_by_seconds(
    tmp_path, monkeypatch, steps, scalars):
  now = 1000.0
  monkeypatch.setattr(summaries.time, 'time', lambda: now)
  with tf.Graph().as_default(), tf.Session() as session:
    run_summaries = summaries.Summaries(
        str(tmp_path), Graph(tf.summary.scalar('loss', 1.0),
                             tf.summary.scalar('slow', 2.0)),
        every_n_steps=10, secs=6)
    for step in steps:
      run_summaries.add(session.run(run_summaries.fetches()), step)
      now += 2
    run_summaries.writer.close()
  assert read_steps(tmp_path) == {'loss': scalars, 'slow': list(steps)[::3]}
