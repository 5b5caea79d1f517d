"""Tests of corrections in headless Chromium.

The server is server.py with a graph that classifies colours.
"""

import importlib.util
import os

import pytest

from kits import browser_kit, graph_kit
from kits import server_load_kit as load_kit
from kits import service_kit as kit
from serving.web import inbox

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not browser_kit.find(), reason='needs one of %s on the '
                       'path' % ', '.join(browser_kit.NAMES)),
]

# Installed by requirements/tf2-dev.txt, for TensorFlow 2 only.
AXE = importlib.util.find_spec('axe_core_python')

DONE = '''document.querySelectorAll("#cards .card").length == %d &&
          !document.querySelector("#cards .status")'''


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Folder with photos of one colour each, and a graph."""
  folder = tmp_path_factory.mktemp('corrections')
  graph_kit.write(folder)
  for name, color in (('red', (220, 30, 50)), ('grey', (128, 128, 128))):
    (folder / (name + '.jpg')).write_bytes(
        kit.photo(size=(64, 48), color=color))
  return folder


@pytest.fixture
def corrections(tmp_path):
  return tmp_path / 'inbox'


@pytest.fixture
def address(folder, corrections):
  """URL of a server with an inbox for one photo."""
  with load_kit.ServerProcess(
      '--model_name=%s' % (folder / 'colors.pb'), '--inbox=%s' % corrections,
      '--inbox_photos=1') as server:
    server.wait_until_listening()
    yield 'http://127.0.0.1:%d/' % server.port


def correct(browser, card, **values):
  """Fills in and sends the form of a card."""
  browser.value('''(card => {
      card.querySelector(".wrong").open = true;
      const form = card.querySelector(".wrong form");
      for (const [name, value] of Object.entries(%r)) {
        form.elements[name].value = value;
      }
      form.querySelector("button").click();
      })(document.querySelectorAll("#cards .card")[%d])''' % (values, card))


def test_correction_is_sent_and_a_full_inbox_says_so(address, folder,
                                                     corrections):
  with browser_kit.Browser() as browser:
    browser.open(address)
    browser.choose('#file', folder / 'red.jpg', folder / 'grey.jpg')
    browser.wait_for(DONE % 2)
    correct(browser, 0, **{'class': 'rose'})
    assert 'Thank you' in browser.wait_for(
        'document.querySelector(".thanks")?.textContent')
    stored, = inbox.read(str(corrections))
    assert (stored.right_class, stored.answer) == ('rose', 'daisy')
    correct(browser, 1, new_class='sea holly')
    assert 'no more corrections' in browser.wait_for(
        'document.querySelector(".wrong .error")?.textContent')
    assert inbox.read(str(corrections)) == [stored]
    assert all(url.startswith((address, 'blob:', 'data:', 'about:'))
               for url in browser.requests)


def test_correction_without_javascript_is_sent(address, folder, corrections):
  with browser_kit.Browser(scripts=False) as browser:
    browser.open(address)
    browser.choose('#file', folder / 'red.jpg')
    browser.click('#upload button[type=submit]')
    browser.wait_until_loaded()
    browser.click('.card .wrong summary')
    browser.choose('.card .wrong input[type=file]', folder / 'red.jpg')
    browser.click('.card .wrong button')
    browser.wait_until_loaded()
    assert 'Thank you' in browser.html()
    assert inbox.read(str(corrections))[0][1:3] == (None, 'daisy')


@pytest.mark.skipif(not AXE, reason='needs axe-core-python, which requirements/'
                    'tf2-dev.txt installs with TensorFlow 2')
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_control_has_no_violations_of_axe(address, folder, scheme):
  with open(os.path.join(AXE.submodule_search_locations[0],
                         'axe.min.js')) as file:
    axe = file.read()
  with browser_kit.Browser(width=390, height=844) as browser:
    browser.emulate(scheme)
    browser.open(address)
    browser.choose('#file', folder / 'red.jpg')
    browser.wait_for(DONE % 1)
    browser.value('document.querySelector(".card .wrong").open = true')
    browser.value(axe + ';0')
    violations = '''axe.run().then(result => result.violations.map(
        v => v.id + ": " + v.nodes.map(n => n.failureSummary).join(" ")))'''
    assert browser.value(violations) == []
    correct(browser, 0, **{'class': 'rose'})
    browser.wait_for('!!document.querySelector(".thanks")')
    assert browser.value(violations) == []
