"""Tests of the page in headless Chromium: uploads, drops and pastes.

The server is server.py with a graph that classifies colours.
RENEW_SCREENSHOTS=1 updates docs/screenshots.
"""

import base64
import os
import re

import pytest

from kits import browser_kit, graph_kit
from kits import server_load_kit as load_kit
from kits import service_kit as kit
from kits.helpers import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not browser_kit.find(), reason='needs one of %s on the '
                       'path' % ', '.join(browser_kit.NAMES)),
]

CARDS = 'document.querySelectorAll("#cards .card").length'
DONE = CARDS + ' == %d && !document.querySelector("#cards .status")'


@pytest.fixture(scope='module')
def address(tmp_path_factory):
  """URL of a server on a free port, for all tests of this file."""
  graph = graph_kit.write(tmp_path_factory.mktemp('graph'))
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
      widths: Array.from(c.querySelectorAll("progress"),
                         e => e.getBoundingClientRect().width),
      picture: c.querySelector("img") ? c.querySelector("img").naturalWidth : 0,
      }))''')


def assert_no_complaints(browser, address):
  """Asserts that there were no errors and no requests to other servers."""
  assert browser.console_messages == []
  assert browser.requests
  for url in browser.requests:
    assert url.startswith((address, 'blob:' + address, 'data:',
                           'about:blank')), url


def renew_screenshot(browser, name):
  if os.environ.get('RENEW_SCREENSHOTS'):
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
    assert not browser.value('document.body.className')
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
    assert card['heading'] == 'None of: daisy, tulip, rose'
    assert len(card['bars']) == 3
    renew_screenshot(browser, 'unknown.png')
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
        'Array.from(document.images, image => image.width)')
    assert gif_width == photo_width
    # The browser logs every 4xx response; there must be no other complaints.
    assert [re.search(r'status of (\d+)', text).group(1)
            for text in browser.console_messages] == ['415', '415']


def test_page_on_a_phone_in_chinese_fits_its_width(address, folder):
  with browser_kit.Browser('zh-CN', width=360, height=740) as browser:
    browser.open(address)
    assert browser.value('document.documentElement.lang') == 'zh'
    browser.choose('#file', folder / 'grey.jpg')
    browser.wait_for(DONE % 1)
    assert read_cards(browser)[0]['heading'] == '都不是：daisy、tulip、rose'
    assert browser.value('document.documentElement.scrollWidth') <= 360
    assert browser.value('document.querySelector("button").offsetHeight') >= 44
    assert_no_complaints(browser, address)


def test_page_on_a_phone_fits_its_width(address, folder):
  with browser_kit.Browser(width=360, height=740) as browser:
    browser.open(address)
    browser.choose('#file', folder / 'red.jpg', folder / 'grey.jpg')
    browser.wait_for(DONE % 2)
    assert browser.value('document.documentElement.scrollWidth') <= 360
    renew_screenshot(browser, 'phone.png')
    assert_no_complaints(browser, address)


def test_page_without_javascript_uploads_and_shows_bars(address, folder):
  with browser_kit.Browser(scripts=False) as browser:
    browser.open(address)
    assert 'hidden' in re.search(r'<span class="scripted"[^>]*>',
                                 browser.html()).group()
    browser.choose('#file', folder / 'red.jpg', folder / 'notes.txt')
    browser.click('button')
    browser.wait_until_loaded()
    html = browser.html()
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
    browser.click('button')
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
