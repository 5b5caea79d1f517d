"""Tests of the page in headless Chromium: uploads, drops and pastes.

The server is server.py with a graph that classifies colours.
RENEW_SCREENSHOTS=1 updates docs/screenshots.
"""

import base64
import importlib.util
import io
import json
import os
import re

import pytest
from PIL import Image

from kits import browser_kit, graph_kit
from kits import server_load_kit as load_kit
from kits import service_kit as kit
from kits.helpers import ROOT
from serving.model import example_photos

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not browser_kit.find(), reason='needs one of %s on the '
                       'path' % ', '.join(browser_kit.NAMES)),
]

# Installed by requirements/tf2-dev.txt, for TensorFlow 2 only.
AXE = importlib.util.find_spec('axe_core_python')

CARDS = 'document.querySelectorAll("#cards .card").length'
DONE = CARDS + ' == %d && !document.querySelector("#cards .status")'


@pytest.fixture(scope='module')
def address(tmp_path_factory):
  """URL of a server on a free port, for all tests of this file."""
  graph = graph_kit.write(tmp_path_factory.mktemp('graph'))
  (graph.parent / 'metrics.jsonl').write_text(json.dumps({
      'checkpoint': 'model.ckpt-7', 'split': 'validation', 'photos': 60,
      'accuracy': 0.9, 'accuracy_interval_95': [0.8, 0.95],
      'time': '2026-11-29T03:21:07Z'}))
  example_photos.replace(str(graph), example_photos.to_bytes('model.ckpt-7', {
      'daisy': kit.photo(size=(96, 96), color=(220, 30, 50)),
      'tulip': kit.photo(size=(96, 96), color=(30, 160, 60)),
      'rose': kit.photo(size=(96, 96), color=(40, 60, 220))}))
  with load_kit.ServerProcess('--model_name=%s' % graph) as server:
    server.wait_until_listening()
    yield 'http://127.0.0.1:%d/' % server.port


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Folder with photos of one colour each, and a text file."""
  folder = tmp_path_factory.mktemp('photos')
  for name, color in (('red', (220, 30, 50)), ('green', (30, 160, 60)),
                      ('blue', (40, 60, 220)), ('grey', (128, 128, 128))):
    (folder / (name + '.jpg')).write_bytes(
        kit.photo(size=(640, 480), color=color))
  (folder / 'notes.txt').write_text('only words')
  return folder


def read_cards(browser):
  """Returns heading or error, labels, bars and picture width of each card."""
  return browser.value('''Array.from(document.querySelectorAll(".card"), c => ({
      heading: c.querySelector("h1,h2,h3,.error").textContent,
      labels: Array.from(c.querySelectorAll("th"), e => e.textContent),
      bars: Array.from(c.querySelectorAll("progress"), e => e.value),
      widths: Array.from(c.querySelectorAll("progress"), e =>
          e.checkVisibility() ? e.getBoundingClientRect().width : 0),
      picture: c.querySelector("img") ? c.querySelector("img").naturalWidth : 0,
      }))''')


def colors_of_bars(browser):
  return browser.value('''Array.from(document.querySelectorAll("progress"),
                                     e => getComputedStyle(e).color)''')


def assert_no_complaints(browser, address):
  """Asserts that there were no errors and no requests to other servers."""
  assert browser.console_messages == []
  assert browser.requests
  for url in browser.requests:
    assert url.startswith((address, 'blob:' + address, 'data:',
                           'about:blank')), url


def renew_screenshot(browser, name):
  if os.environ.get('RENEW_SCREENSHOTS'):
    browser.value('scrollTo(0, 0)')  # The buttons stay at the top of a phone.
    browser.screenshot(os.path.join(ROOT, 'docs', 'screenshots', name))


def test_chosen_photo_shows_bars_without_reloading(address, folder):
  with browser_kit.Browser() as browser:
    browser.open(address)
    browser.value('window.marked = 1')
    renew_screenshot(browser, 'page.png')
    browser.choose('#file', folder / 'red.jpg')
    browser.wait_for(DONE % 1)
    card, = read_cards(browser)
    assert card['heading'] == card['labels'][0] == 'daisy'
    assert card['labels'][1:] and card['picture'] == 640
    assert card['bars'] == sorted(card['bars'], reverse=True)
    assert sum(card['bars']) == pytest.approx(1, abs=1e-5)
    assert min(card['widths']) > 100
    assert browser.value('window.marked') == 1
    browser.choose('#file', folder / 'blue.jpg')
    browser.wait_for(DONE % 2)
    assert [card['heading'] for card in read_cards(browser)] == [
        'rose', 'daisy']
    renew_screenshot(browser, 'result.png')
    assert_no_complaints(browser, address)


def test_dropped_photos_get_one_card_each_in_order(address, folder):
  with browser_kit.Browser() as browser:
    browser.open(address)
    browser.drop(300, 300, folder / 'green.jpg', folder / 'blue.jpg')
    browser.wait_for(DONE % 2)
    assert [card['heading'] for card in read_cards(browser)] == [
        'tulip', 'rose']
    assert browser.value('document.body.className') == 'has-results'
    assert_no_complaints(browser, address)


def test_pasted_photo_is_classified(address, folder):
  data = base64.b64encode((folder / 'green.jpg').read_bytes()).decode()
  with browser_kit.Browser() as browser:
    browser.open(address)
    browser.value('''{
        const bytes = Uint8Array.from(atob("%s"), c => c.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], "x.jpg", {type: "image/jpeg"}));
        document.dispatchEvent(new ClipboardEvent("paste", {
            clipboardData: data, bubbles: true, cancelable: true}));
        }''' % data)
    browser.wait_for(DONE % 1)
    assert read_cards(browser)[0]['heading'] == 'tulip'
    assert_no_complaints(browser, address)


def test_unknown_photo_shows_none_of_the_classes(address, folder):
  with browser_kit.Browser() as browser:
    browser.open(address)
    browser.choose('#file', folder / 'grey.jpg')
    browser.wait_for(DONE % 1)
    card, = read_cards(browser)
    assert card['heading'] == 'None of the 3 classes'
    assert len(card['bars']) == 3 and card['widths'] == [0, 0, 0]
    renew_screenshot(browser, 'unknown.png')
    browser.click('.forced summary')
    assert min(read_cards(browser)[0]['widths']) > 100
    grey, green = 'rgb(93, 104, 98)', 'rgb(47, 111, 79)'
    assert colors_of_bars(browser) == [grey] * 3
    browser.choose('#file', folder / 'red.jpg')
    browser.wait_for(DONE % 2)
    assert colors_of_bars(browser) == [green] * 3 + [grey] * 3
    assert_no_complaints(browser, address)


def test_files_of_other_formats_show_an_error_on_their_cards(address, folder):
  (folder / 'red.gif').write_bytes(kit.photo('GIF', size=(640, 480)))
  with browser_kit.Browser() as browser:
    browser.open(address)
    browser.choose('#file', folder / 'notes.txt', folder / 'red.gif',
                   folder / 'red.jpg')
    browser.wait_for(DONE % 3)
    text, gif, photo = read_cards(browser)
    assert text['heading'].startswith('notes.txt: Plain text is not accepted')
    assert gif['heading'].startswith('red.gif: GIF is not accepted')
    assert not text['picture'] and photo['heading'] == 'daisy'
    gif_width, photo_width = browser.value(
        'Array.from(document.querySelectorAll(".photo"), e => e.width)')
    assert gif_width == photo_width
    # The browser logs every 4xx response; there must be no other complaints.
    assert [re.search(r'status of (\d+)', text).group(1)
            for text in browser.console_messages] == ['415', '415']


def test_why_shows_the_heat_map_of_any_class(address, folder):
  with Image.open(str(folder / 'grey.jpg')) as image:
    image.paste((220, 30, 50), (0, 0, 320, 240))
    image.paste((40, 60, 220), (480, 360, 640, 480))
    image.save(str(folder / 'corner.png'))
  with browser_kit.Browser() as browser:
    browser.open(address)
    browser.choose('#file', folder / 'corner.png')
    browser.wait_for(DONE % 1)
    assert browser.value('document.querySelectorAll(".why img").length') == 0
    browser.click('.why button')
    browser.wait_for('!!document.querySelector(".why .photo")')
    assert text_of(browser, '.explanation').startswith(
        'Yellow: what raises the score of daisy.')
    assert text_of(browser, '#announcer') == text_of(browser, '.explanation')
    assert yellow_corners(browser) == [True, False]
    assert browser.value(
        'document.querySelectorAll(".why .example").length') == 0
    browser.value('''{
        const select = document.querySelector(".why select");
        select.value = "rose";
        select.dispatchEvent(new Event("change"));
        }''')
    browser.wait_for('document.querySelector(".explanation").textContent'
                     '.includes("rose")')
    assert yellow_corners(browser) == [False, True]
    assert text_of(browser, '#done') == '1 of 1 photos classified'
    renew_screenshot(browser, 'why.png')
    assert_no_complaints(browser, address)


def yellow_corners(browser):
  """Returns whether the heat map is yellow at the top left and bottom right."""
  data = browser.value('document.querySelector(".why .photo").src')
  image = Image.open(io.BytesIO(base64.b64decode(data.split(',')[1])))
  assert image.size == (640, 480)
  pixels = (image.getpixel(place) for place in ((100, 80), (560, 420)))
  return [red > blue for red, _, blue in pixels]


def test_page_on_a_phone_in_chinese_fits_its_width(address, folder):
  with browser_kit.Browser('zh-CN', width=360, height=740) as browser:
    browser.emulate(touch=True)
    browser.open(address)
    assert browser.value('document.documentElement.lang') == 'zh'
    browser.choose('#file', folder / 'grey.jpg')
    browser.wait_for(DONE % 1)
    assert read_cards(browser)[0]['heading'] == '不属于这 3 个类别'
    assert browser.value('document.documentElement.scrollWidth') <= 360
    assert browser.value('document.querySelector("#choose").offsetHeight') >= 44
    assert_no_complaints(browser, address)


def test_page_on_a_phone_fits_its_width(address, folder):
  with browser_kit.Browser(width=360, height=740) as browser:
    browser.emulate(touch=True)
    browser.open(address)
    browser.choose('#file', folder / 'red.jpg', folder / 'grey.jpg')
    browser.wait_for(DONE % 2)
    assert browser.value('document.documentElement.scrollWidth') <= 360
    renew_screenshot(browser, 'phone.png')
    assert_no_complaints(browser, address)


def test_page_without_javascript_uploads_and_shows_bars(address, folder):
  with browser_kit.Browser(scripts=False) as browser:
    browser.open(address)
    assert 'hidden' in re.search(r'<span class="scripted drop"[^>]*>',
                                 browser.html()).group()
    assert browser.html().count('<img class="example"') == 3
    browser.choose('#file', folder / 'red.jpg', folder / 'notes.txt')
    browser.click('input[name=explain]')
    browser.click('button[type=submit]')
    browser.wait_until_loaded()
    html = browser.html()
    assert html.count('<section class="why">') == 1
    assert re.findall(r'<th scope="row">(\w+)</th>', html) == [
        'daisy', 'rose', 'tulip']
    assert len(re.findall(r'<progress max="1" value="[\d.]+"', html)) == 3
    assert 'src="data:image/jpeg;base64,' in html
    assert html.count('notes.txt: Plain text is not accepted') == 1
    renew_screenshot(browser, 'without-javascript.png')
    assert_no_complaints(browser, address)


def test_page_without_javascript_refuses_a_text_file(address, folder):
  with browser_kit.Browser(scripts=False) as browser:
    browser.open(address)
    browser.choose('#file', folder / 'notes.txt')
    browser.click('button[type=submit]')
    browser.wait_until_loaded()
    html = browser.html()
    assert 'notes.txt: Plain text is not' in html and '<progress' not in html


def test_server_that_does_not_respond_shows_an_error(address, folder):
  with browser_kit.Browser() as browser:
    browser.open(address)
    browser.send('Network.emulateNetworkConditions', offline=True, latency=0,
                 downloadThroughput=-1, uploadThroughput=-1)
    browser.choose('#file', folder / 'red.jpg')
    browser.wait_for(DONE % 1)
    assert 'does not respond' in read_cards(browser)[0]['heading']


def text_of(browser, selector):
  return browser.value('document.querySelector("%s").textContent' % selector)


def test_results_have_names_and_can_be_cleared(address, folder):
  with browser_kit.Browser() as browser:
    browser.open(address)
    for count in (1, 2):  # The same file can be chosen again.
      browser.choose('#file', folder / 'red.jpg')
      browser.wait_for(DONE % count)
    browser.choose('#file', folder / 'grey.jpg', folder / 'notes.txt')
    browser.wait_for(DONE % 4)
    names = browser.value(
        'Array.from(document.querySelectorAll(".file"), e => e.textContent)')
    # The error has its name in the sentence.
    assert names == ['grey.jpg', 'red.jpg', 'red.jpg']
    assert text_of(browser, '#done') == '3 of 4 photos classified'
    assert text_of(browser, '#choose') == 'More photos'
    browser.click('#clear')
    assert browser.value(CARDS) == 0
    assert browser.value('document.querySelector("#results").hidden')
    assert browser.value('document.querySelector("#clear").hidden')
    assert browser.value('document.activeElement.id') == 'file'
    assert text_of(browser, '#choose') == 'Choose photos'
    assert text_of(browser, '#announcer') == 'The results are cleared.'
    browser.choose('#file', folder / 'blue.jpg')
    browser.wait_for(DONE % 1)
    assert text_of(browser, '#done') == '1 of 1 photos classified'


def test_clear_ends_the_uploads_of_the_page(address, folder):
  with browser_kit.Browser() as browser:
    browser.open(address)
    browser.send('Network.emulateNetworkConditions', offline=False, latency=800,
                 downloadThroughput=-1, uploadThroughput=-1)
    browser.choose('#file', *[folder / 'red.jpg'] * 5)
    browser.wait_for(CARDS + ' == 5')
    browser.click('#clear')
    browser.choose('#file', folder / 'blue.jpg')
    browser.wait_for(DONE % 1)
    assert [card['heading'] for card in read_cards(browser)] == ['rose']
    assert text_of(browser, '#done') == '1 of 1 photos classified'
    assert browser.console_messages == []


def test_live_region_reads_each_answer(address, folder):
  with browser_kit.Browser() as browser:
    browser.open(address)
    assert browser.value(
        'document.querySelector("#announcer").getAttribute("role")') == 'status'
    browser.choose('#file', folder / 'red.jpg')
    browser.wait_for(DONE % 1)
    assert re.fullmatch(r'red\.jpg: daisy, \d+\.\d %',
                        text_of(browser, '#announcer'))
    browser.choose('#file', folder / 'grey.jpg')
    browser.wait_for(DONE % 2)
    assert text_of(browser, '#announcer') == 'grey.jpg: None of the 3 classes'
    assert browser.value(
        'document.querySelectorAll("[aria-live],[role=status]").length') == 1


def test_header_shows_network_and_accuracy(address):
  with browser_kit.Browser() as browser:
    browser.open(address)
    assert ' '.join(text_of(browser, '#model').split()) == (
        'Network colors · 90.0 % of 60 validation photos correct · 95 % '
        'interval 80.0 % to 95.0 % · measured on 2026-11-29')


def test_example_is_classified_by_keyboard(address):
  with browser_kit.Browser() as browser:
    browser.open(address)
    focused = []
    for _ in range(12):
      browser.press('Tab')
      focused.append(browser.value(
          '(e => e.getAttribute("aria-label") || e.id || e.tagName)'
          '(document.activeElement)'))
      if focused[-1].endswith('tulip'):
        break
    assert focused == ['file', 'SUMMARY'] + [
        'Classify the training photo: ' + label for label in ('daisy', 'tulip')]
    assert browser.value('getComputedStyle(document.activeElement)'
                         '.outlineStyle') == 'solid'
    browser.press('Enter')
    browser.wait_for(DONE % 1)
    card, = read_cards(browser)
    assert card['heading'] == 'tulip' and card['picture'] == 96
    assert text_of(browser, '.file') == 'tulip.jpg'
    assert_no_complaints(browser, address)


def test_file_field_that_is_not_shown_has_a_focus_ring(address):
  with browser_kit.Browser() as browser:
    browser.open(address)
    browser.press('Tab')
    assert browser.value('getComputedStyle(document.querySelector("#choose"))'
                         '.outlineStyle') == 'solid'


@pytest.mark.parametrize('touch', [False, True])
def test_camera_is_offered_on_touch_screens_only(address, folder, touch):
  with browser_kit.Browser(width=390, height=844) as browser:
    browser.emulate(touch=touch)
    browser.open(address)
    width = 'document.querySelector("%s").offsetWidth'
    assert bool(browser.value(width % '[for=camera]')) == touch
    assert bool(browser.value(width % '.drop')) != touch
    assert browser.value('document.querySelector("#camera").getAttribute('
                         '"capture")') == (
        'environment')
    if touch:
      browser.choose('#camera', folder / 'red.jpg')
      browser.wait_for(DONE % 1)


@pytest.mark.parametrize('width', [360, 390])
def test_results_on_a_phone_fill_one_screen_each(address, folder, width):
  with browser_kit.Browser(width=width, height=844) as browser:
    browser.emulate(touch=True)
    browser.open(address)
    browser.choose('#file', folder / 'red.jpg', folder / 'grey.jpg')
    browser.wait_for(DONE % 2)
    browser.wait_for('Array.from(document.querySelectorAll(".photo"))'
                     '.every(e => e.complete)')
    first, second = browser.value('''Array.from(
        document.querySelectorAll(".card"), c => {
          const box = c.getBoundingClientRect();
          const last = c.querySelector("table").getBoundingClientRect();
          return [box.top, box.bottom, last.bottom];
        })''')
    buttons = browser.value('''Array.from(
        document.querySelectorAll("#choose, [for=camera], #clear"), e => {
          const box = e.getBoundingClientRect();
          return [box.left, box.right, box.top, box.bottom];
        })''')
    # The buttons are in one row above the answer and all its scores.
    assert [box[2] for box in buttons] == [buttons[0][2]] * 3
    assert 0 <= buttons[0][2] and buttons[0][3] <= first[0]
    assert all(left[1] < right[0] for left, right in zip(buttons, buttons[1:]))
    assert buttons[-1][1] <= width and first[2] <= 844
    assert second[0] - first[0] >= 844 - 80


@pytest.mark.skipif(not AXE, reason='needs axe-core-python, which requirements/'
                    'tf2-dev.txt installs with TensorFlow 2')
@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('width, height', [(1300, 900), (390, 844)])
def test_page_has_no_violations_of_axe(address, folder, scheme, width, height):
  with open(os.path.join(AXE.submodule_search_locations[0],
                         'axe.min.js')) as file:
    axe = file.read()

  def violations():
    return browser.value('''axe.run().then(result => result.violations.map(
        v => v.id + ": " + v.nodes.map(n => n.failureSummary).join(" ")))''')

  with browser_kit.Browser(width=width, height=height) as browser:
    browser.emulate(scheme, touch=width < 600)
    browser.open(address)
    browser.value(axe + ';0')
    assert violations() == []
    browser.choose('#file', folder / 'red.jpg', folder / 'grey.jpg',
                   folder / 'notes.txt')
    browser.wait_for(DONE % 3)
    assert violations() == []
    browser.value('document.querySelector(".forced").open = true')
    assert violations() == []
    # The image has no alternative text: axe finds it, so it did run.
    browser.value('document.querySelector(".photo").removeAttribute("alt")')
    assert [text.split(':')[0] for text in violations()] == ['image-alt']
