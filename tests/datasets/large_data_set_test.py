"""Tests of large data sets: time to the first batch, memory over many steps."""

import os
import re
import shutil
import subprocess
import sys
import time

import psutil
import pytest

from compat import tf
from datasets import dataset_factory, input_pipeline
from kits import dataset_kit, trained_kit
from kits.helpers import ROOT
from preprocessing import preprocessing_factory

SHARDS = 1000
STEPS = 5000
# Steps after which buffers and pools have their final size.
SETTLED = 1500


@pytest.fixture
def many_shards(tmp_path):
  """Returns a folder like slim's: 1,000 shards of 20 records, no manifest."""
  path, = dataset_kit.make_shards(tmp_path, 'pets', 'once', [20])
  for number in range(SHARDS):
    shutil.copy(str(path), str(tmp_path / (
        'pets_train_%05d-of-%05d.tfrecord' % (number, SHARDS))))
  (tmp_path / 'labels.txt').write_text('0:a\n1:b\n')
  return str(tmp_path)


@pytest.mark.parametrize('workers', [1, 3])
def test_1000_shards_give_their_first_batch_within_5_seconds(many_shards,
                                                             workers):
  start = time.monotonic()
  dataset = dataset_factory.get_dataset('pets', 'train', many_shards)
  with tf.Graph().as_default(), tf.Session() as session:
    batches = input_pipeline.training_batches(
        dataset, preprocessing_factory.get_preprocessing('cifarnet', True), 32,
        batch_size=32, num_shards=workers, shard_index=workers - 1)
    batch = tf.data.make_one_shot_iterator(batches).get_next()
    assert session.run(batch['image']).shape == (32, 32, 32, 3)
  assert dataset.num_samples == SHARDS * 20
  assert time.monotonic() - start < 5


@pytest.mark.slow
def test_5000_steps_need_no_more_memory_than_2000(tmp_path):
  """Reads the resident memory of a training run at each of its log lines."""
  data = trained_kit.make_dataset(tmp_path)
  process = subprocess.Popen(
      [sys.executable, os.path.join(ROOT, 'train_image_classifier.py'),
       *trained_kit.train_arguments(
           data, tmp_path / 'train', '--max_number_of_steps=%d' % STEPS,
           '--log_every_n_steps=100', '--learning_rate=0.001', '--batch_size=1',
           '--save_interval_secs=5', '--save_summaries_secs=5')],
      stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
  memory, lines = {}, []
  for line in process.stderr:
    lines.append(line)
    step = re.search(r'global step (\d+): loss', line)
    if step:
      memory[int(step.group(1))] = psutil.Process(process.pid).memory_info().rss
  assert process.wait() == 0, lines[-5:]
  settled = [used for step, used in memory.items()
             if SETTLED <= step <= SETTLED + 500]
  last = [used for step, used in memory.items() if step > STEPS - 500]
  print('\nmemory of steps %d to %d: %.1f MB, of the last 500: %.1f MB' % (
      SETTLED, SETTLED + 500, max(settled) / 1e6, max(last) / 1e6))
  assert len(settled) >= 5 and len(last) >= 5
  assert max(last) < 1.05 * max(settled)
