"""Tests of the page of check_labels.sh, with and without a browser."""

import csv
import time

import numpy as np
import pytest

from datasets.photo_files import near_photos
from evaluation import label_check, labels_page
from kits import browser_kit

NAMES = ['cat', 'dog', '<b>"owl"</b>', 'a,b']
FILES = ['cat/0.jpg', 'cat/1.jpg', 'dog/"2", <i>.jpg', 'dog/3.jpg', 'a,b/4.jpg']


def render(**changes):
  photos = label_check.Photos(
      ['train', 'train', 'validation', 'train', 'test'], FILES,
      np.array([0, 0, 1, 1, 3]), np.arange(5), np.zeros([5, 2]),
      np.ones(5, bool))
  findings = label_check.Findings(
      suspects=[label_check.Suspect(2, 0, 0.98), label_check.Suspect(0, 2, 0.9),
                label_check.Suspect(4, 1, 0.6)],
      expected=2.6, planted=(3, 2, 3),
      pairs=[near_photos.Pair(0, 1, 'crop', .95),
             near_photos.Pair(2, 3, 'copy', .95)],
      groups=[[0, 1], [2, 3]], outliers=[(4, 0.25)],
      alike=[label_check.AlikeClasses(0, 2, 9, .5, (.2, .8), True)],
      accuracies=[label_check.Accuracy('validation', 10, .9, 8, .875)])
  return labels_page.render(labels_page.Page(
      'pets', '/run/model.ckpt-1', 'labels.csv', NAMES, photos,
      findings, [], changes.get('kept', set()), 100))


def test_page_names_are_escaped_and_nothing_is_fetched():
  page = render()
  assert '<b>"owl"' not in page and '<i>.jpg' not in page
  assert 'src=' not in page and 'http:' not in page and 'https:' not in page
  assert "default-src 'none'" in page
  assert '87.5 %' in page and 'cannot be told apart' in page
  # Copies in several splits are before those in one.
  assert page.index('copy; in 2 splits') < page.index('<h3>crop</h3>')


def test_page_kept_photos_are_not_suspect_again():
  page = render(kept={('cat/0.jpg', 'cat')})
  assert page.count('looks like') == 2
  assert '2 of 3 photos' in page and '1 photos that were kept' in page


def wait_until(is_true):
  end = time.monotonic() + 20
  while not is_true():
    assert time.monotonic() < end
    time.sleep(.05)


needs_browser = pytest.mark.skipif(not browser_kit.find(),
                                   reason='no Chromium is installed')


@pytest.fixture
def address(tmp_path):
  (tmp_path / 'labels.html').write_text(render(), encoding='utf-8')
  return 'file://%s' % (tmp_path / 'labels.html')


@needs_browser
def test_page_saves_the_choices_of_mouse_and_keyboard(address, tmp_path):
  with browser_kit.Browser() as browser:
    browser.send('Browser.setDownloadBehavior', behavior='allow',
                 downloadPath=str(tmp_path))
    browser.open(address)
    assert browser.value('document.querySelector("button").disabled')
    figure = '#suspects figure:nth-child(%d) '
    browser.click(figure % 1 + 'input[value=move]')
    # The same photo among the near duplicates has the same choice.
    assert browser.value('document.querySelectorAll(".decided").length') == 2
    browser.value('document.querySelector(\'%sinput[value="drop"]\').focus()' %
                  (figure % 2))
    browser.press(' ')
    browser.value('document.querySelector(\'%sselect\').focus()' % (figure % 3))
    browser.value('''(select => {
        select.value = '<b>"owl"</b>';
        select.dispatchEvent(new Event('change', {bubbles: true}));
      })(document.querySelector('%sselect'))''' % (figure % 3))
    assert browser.value('document.getElementById("bar").innerText').startswith(
        '2 to move, 1 to drop, 0 to keep')
    browser.click('#bar button')
    path = tmp_path / 'choices.csv'
    wait_until(path.exists)
    assert browser.console_messages == []
  with open(str(path), encoding='utf-8', newline='') as stream:
    assert list(map(list, csv.reader(stream))) == [
        ['file', 'label', 'action', 'new_label', 'new_file'],
        [FILES[2], 'dog', 'move', 'cat', ''],
        [FILES[0], 'cat', 'drop', '', ''],
        [FILES[4], 'a,b', 'move', NAMES[2], '']]


@needs_browser
@pytest.mark.parametrize('width', [390, 1000])
def test_page_fits_its_width_and_focus_is_not_under_the_bar(address, width):
  with browser_kit.Browser(width=width) as browser:
    browser.open(address)
    assert browser.value('document.documentElement.scrollWidth') <= width
    for _ in range(40):
      browser.press('Tab')
      assert browser.value('''(() => {
          const box = document.activeElement.getBoundingClientRect();
          const bar = document.getElementById('bar');
          return bar.contains(document.activeElement) ||
            document.activeElement === document.body ||
            box.bottom <= bar.getBoundingClientRect().top;
        })()''')


@needs_browser
def test_page_without_scripts_can_be_read(address):
  with browser_kit.Browser(scripts=False) as browser:
    browser.open(address)
    text = browser.html()
    assert 'Scripts are off' in text and 'looks like cat, 98 %' in text
