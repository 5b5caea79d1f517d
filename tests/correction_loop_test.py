"""Test of the whole loop in Chromium: a wrong answer is corrected and trained.

The page sends corrections, ./review_inbox.sh accepts them, ./run_train.sh
trains the head again, and the server changes to the new graph.
"""

import csv
import io
import json
import os

import numpy as np
import pytest
from PIL import Image

from kits import browser_kit
from kits import server_load_kit as load_kit
from kits import serving_kit as kit
from kits.script_kit import run_script
from kits.trained_kit import CLASSES, NAME, make_photos

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not browser_kit.find(), reason='needs one of %s on the '
                       'path' % ', '.join(browser_kit.NAMES)),
]

DONE = '''document.querySelectorAll("#cards .card").length == %d &&
          !document.querySelector("#cards .status")'''

CORRECT = '''(() => {
    const card = document.querySelectorAll("#cards .card")[%d];
    const form = card.querySelector(".wrong form");
    card.querySelector(".wrong").open = true;
    form.elements[%r].value = %r;
    form.querySelector("button").click();
    })()'''


def striped_photo(number, colours):
  """Returns a JPEG unlike those of trained_kit: stripes of two colours."""
  rng = np.random.RandomState(number)
  pixels = np.zeros([36, 40, 3])
  pixels[:] = colours[0]
  pixels[(np.arange(36) // 6) % 2 == 1] = colours[1]
  buffer = io.BytesIO()
  Image.fromarray((pixels + rng.randint(0, 40, pixels.shape)).astype(
      np.uint8)).save(buffer, 'JPEG')
  return buffer.getvalue()


class Loop:
  """A data set, a run and an inbox in a temporary folder."""

  def __init__(self, folder):
    self.folder = folder
    self.output = folder / 'out'
    self.env = dict(
        os.environ, DATASET_NAME=NAME, DATASET_DIR=str(folder),
        MODEL_NAME='cifarnet', RUNS_DIR=str(folder / 'runs'),
        OUTPUT_DIR=str(self.output), LOG_FILE=str(folder / 'train.log'),
        INBOX=str(folder / 'inbox'), PERCENT_VALIDATION='30',
        CHECKPOINT_PATH=kit.save_checkpoint(folder / 'published', 'cifarnet',
                                            with_run=False))
    self.graph = self.output / 'export' / 'my_cifarnet_freeze.pb'

  def run(self, *command):
    return run_script(*command, env=self.env)

  def train(self):
    """Converts, trains and exports; returns the validation accuracy."""
    self.run('convert_tfrecord.sh')
    self.run('run_train.sh')
    load_kit.wait_until(lambda: not (self.output / 'train' /
                                     'train.pid').exists(), 120)
    self.run('export_freeze.sh')
    best = json.loads((self.output / 'train' / 'best' /
                       'best.json').read_text())
    return best['accuracy']

  def accept_all(self):
    """Reviews the inbox with the file of choices."""
    self.run('review_inbox.sh')
    path = self.folder / 'inbox' / 'review.csv'
    with open(str(path), newline='') as stream:
      rows = list(csv.DictReader(stream))
    choices = self.folder / 'choices.csv'
    choices.write_text('file,label,action,new_label\n' + ''.join(
        '%s,%s,keep,\n' % (row['file'], row['label']) for row in rows))
    return self.run('review_inbox.sh', '--apply=%s' % choices).stdout


def answers(browser, address, paths):
  """Returns the answer for each photo, after reloading the page."""
  browser.open(address)
  browser.choose('#file', *paths)
  browser.wait_for(DONE % len(paths))
  return browser.value('''Array.from(document.querySelectorAll(".card"),
                                     card => card.querySelector("th")
                                     .textContent)''')


def correct(browser, count, field, value):
  """Corrects the answers of the cards on the page."""
  for card in range(count):
    browser.value(CORRECT % (card, field, value))
  browser.wait_for('document.querySelectorAll(".thanks").length == %d' % count)


def wait_for_switches(server, count):
  """Waits until the server has changed to the newest graph."""
  load_kit.wait_until(lambda: sum(
      'switched to the new graph' in line for line in server.lines) == count,
                      30)


@pytest.fixture
def loop(tmp_path):
  make_photos(tmp_path / NAME, 30)
  return Loop(tmp_path)


def test_wrong_answer_is_right_after_five_corrections(loop):
  before = loop.train()
  paths = []
  for number in range(7):
    path = loop.folder / ('%d.jpg' % number)
    path.write_bytes(striped_photo(number, ((200, 180, 20), (20, 160, 170))))
    paths.append(path)
  with load_kit.ServerProcess(
      '--model_name=%s' % loop.graph, '--inbox=' + loop.env['INBOX'],
      '--reload_secs=0.2') as server, browser_kit.Browser() as browser:
    server.wait_until_listening()
    address = 'http://127.0.0.1:%d/' % server.port
    given = answers(browser, address, paths[:5])
    right = next(label for label in CLASSES if label not in given)
    correct(browser, 5, 'class', right)
    assert '%s: 5\n' % right in loop.accept_all()
    after = loop.train()
    wait_for_switches(server, 1)
    assert answers(browser, address, paths) == [right] * 7
    assert after >= before
    assert 'The features of ' in (loop.folder / 'train.log').read_text()

    # A new class is the same loop.
    shown = [loop.folder / ('new%d.jpg' % number) for number in range(10)]
    for number, path in enumerate(shown):
      path.write_bytes(striped_photo(number, ((10, 10, 10), (200, 200, 200))))
    answers(browser, address, shown[:8])
    correct(browser, 8, 'new_class', 'zebra')
    assert 'zebra: 8\n' in loop.accept_all()
    loop.train()
    wait_for_switches(server, 2)
    assert answers(browser, address, shown) == ['zebra'] * 10
