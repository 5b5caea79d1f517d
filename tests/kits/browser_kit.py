"""Headless Chromium, controlled over its DevTools protocol.

https://chromedevtools.github.io/devtools-protocol/

The websocket client is that of tornado, which the notebook packages require.
"""

import asyncio
import base64
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request

import tornado.websocket

NAMES = ('chromium', 'chromium-browser', 'google-chrome')

# Time limit of each command.
_SECONDS = 60


def find():
  """Returns the path of the browser, None if there is none."""
  return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
  """One page of a new browser process; a context manager.

  Attributes:
    console_messages: messages of the console and the browser's log, such as
      errors, warnings and failed requests.
    requests: addresses of all requests.
  """

  def __init__(self, language='en', scripts=True, width=1000, height=900,
               arguments=()):
    """Starts the browser.

    Args:
      language: value of Accept-Language.
      scripts: whether JavaScript is on.
      width, height: size of the page in pixels.
      arguments: further command-line arguments.
    """
    self.console_messages, self.requests = [], []
    self._numbers = itertools.count(1)
    self._loop = asyncio.new_event_loop()
    self._events = []
    self._folder = tempfile.mkdtemp(prefix='browser')
    self._process = subprocess.Popen(
        [find(), '--headless', '--no-sandbox', '--disable-gpu',
         '--disable-dev-shm-usage', '--disable-background-networking',
         '--no-first-run', '--remote-debugging-port=0',
         '--remote-allow-origins=*', '--user-data-dir=' + self._folder,
         *arguments,
         'about:blank'], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
        env=dict(os.environ, HOME=self._folder), start_new_session=True)
    try:
      self._connect(self._wait_for_address())
      self._set_up(language, scripts, width, height)
    except BaseException:
      self.close()
      raise

  def __enter__(self):
    return self

  def __exit__(self, *error):
    self.close()

  def close(self):
    """Kills the browser and removes its files."""
    os.killpg(self._process.pid, signal.SIGKILL)  # Also its helper processes.
    self._process.wait()
    self._process.stderr.close()
    self._loop.run_until_complete(self._end_tasks())
    self._loop.close()
    shutil.rmtree(self._folder, ignore_errors=True)

  async def _end_tasks(self):
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
      task.cancel()
      await asyncio.wait([task])

  def send(self, method, **parameters):
    """Sends a command of the protocol; returns its result."""
    number = next(self._numbers)
    command = {'id': number, 'method': method, 'params': parameters}
    self._run(lambda: self._socket.write_message(json.dumps(command)))
    while True:
      message = self._read()
      if message.get('id') == number:
        assert 'error' not in message, '%s: %s' % (method, message['error'])
        return message['result']

  def open(self, address):
    """Opens a page and waits until it is loaded."""
    self._events.clear()
    self.send('Page.navigate', url=address)
    self.wait_until_loaded()

  def wait_until_loaded(self):
    """Waits until the next page is loaded."""
    while 'Page.loadEventFired' not in self._events:
      self._read()
    self._events.clear()

  def value(self, expression):
    """Returns the value of a JavaScript expression; awaits a promise."""
    result = self.send('Runtime.evaluate', expression=expression,
                       returnByValue=True, awaitPromise=True, userGesture=True)
    assert 'exceptionDetails' not in result, result
    return result['result'].get('value')

  def wait_for(self, expression):
    """Waits until a JavaScript expression is true; returns its value."""
    end = time.monotonic() + _SECONDS
    while True:
      value = self.value(expression)
      if value:
        return value
      assert time.monotonic() < end, expression
      time.sleep(.05)

  def html(self):
    """Returns the current HTML of the page, also if JavaScript is off."""
    root = self.send('DOM.getDocument')['root']
    return self.send('DOM.getOuterHTML', nodeId=root['nodeId'])['outerHTML']

  def node(self, selector):
    """Returns the node id of the first element that matches a CSS selector."""
    root = self.send('DOM.getDocument')['root']
    return self.send('DOM.querySelector', nodeId=root['nodeId'],
                     selector=selector)['nodeId']

  def choose(self, selector, *paths):
    """Chooses the files of a file field."""
    self.send('DOM.setFileInputFiles', files=list(map(str, paths)),
              nodeId=self.node(selector))

  def click(self, selector):
    """Clicks the middle of an element, with mouse events."""
    node = self.node(selector)
    self.send('DOM.scrollIntoViewIfNeeded', nodeId=node)
    corners = self.send('DOM.getContentQuads', nodeId=node)['quads'][0]
    x, y = sum(corners[0::2]) / 4, sum(corners[1::2]) / 4
    for kind in ('mousePressed', 'mouseReleased'):
      self.send('Input.dispatchMouseEvent', type=kind, x=x, y=y, button='left',
                clickCount=1)

  def press(self, key):
    """Presses a key, such as Tab or Enter."""
    code = {'Tab': 9, 'Enter': 13, ' ': 32}[key]
    for kind in ('keyDown', 'keyUp'):
      text = {'text': '\r'} if (kind, key) == ('keyDown', 'Enter') else {}
      self.send('Input.dispatchKeyEvent', type=kind, key=key,
                windowsVirtualKeyCode=code, **text)

  def emulate(self, scheme='light', touch=False):
    """Emulates a colour scheme, and a screen that is touched."""
    self.send('Emulation.setEmulatedMedia', features=[
        {'name': 'prefers-color-scheme', 'value': scheme}])
    self.send('Emulation.setTouchEmulationEnabled', enabled=touch)

  def drop(self, x, y, *paths):
    """Drags files over the page and drops them there."""
    for kind in ('dragEnter', 'dragOver', 'drop'):
      self.send('Input.dispatchDragEvent', type=kind, x=x, y=y, data={
          'items': [], 'files': list(map(str, paths)), 'dragOperationsMask': 1})

  def screenshot(self, path):
    """Writes a PNG of the whole page."""
    size = self.send('Page.getLayoutMetrics')['cssContentSize']
    data = self.send('Page.captureScreenshot', captureBeyondViewport=True,
                     clip={'x': 0, 'y': 0, 'width': size['width'],
                           'height': size['height'], 'scale': 1})['data']
    with open(path, 'wb') as file:
      file.write(base64.b64decode(data))

  def _wait_for_address(self):
    """Returns the websocket address of the first page."""
    for line in self._process.stderr:
      match = re.search(rb'DevTools listening on ws://(\S+?)/', line)
      if match:
        host = match.group(1).decode()
        break
    else:
      raise RuntimeError('the browser exited')
    with urllib.request.urlopen('http://%s/json/list' % host) as response:
      pages = json.loads(response.read().decode())
    return next(page['webSocketDebuggerUrl'] for page in pages
                if page['type'] == 'page')

  def _connect(self, address):
    self._socket = self._run(lambda: tornado.websocket.websocket_connect(
        address, max_message_size=2 ** 28))

  def _set_up(self, language, scripts, width, height):
    for domain in ('Page', 'Runtime', 'Log', 'Network', 'DOM'):
      self.send(domain + '.enable')
    self.send('Network.setExtraHTTPHeaders',
              headers={'Accept-Language': language})
    self.send('Emulation.setScriptExecutionDisabled', value=not scripts)
    self.send('Emulation.setDeviceMetricsOverride', width=width, height=height,
              deviceScaleFactor=1, mobile=width < 600)

  def _run(self, function):
    async def call():  # tornado must be called while the loop runs.
      return await asyncio.wait_for(function(), _SECONDS)

    return self._loop.run_until_complete(call())

  def _read(self):
    message = json.loads(self._run(self._socket.read_message))
    method, values = message.get('method'), message.get('params')
    if method == 'Log.entryAdded':
      self.console_messages.append(values['entry']['text'])
    elif method == 'Runtime.consoleAPICalled':
      self.console_messages.append('console: %s' % values['args'])
    elif method == 'Runtime.exceptionThrown':
      self.console_messages.append('exception: %s' % values['exceptionDetails'])
    elif method == 'Network.requestWillBeSent':
      self.requests.append(values['request']['url'])
    elif method:
      self._events.append(method)
    return message
