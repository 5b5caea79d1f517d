"""Tests of the page behind nginx and under other host names, in Chromium.

Chromium resolves every name below .example to this machine, but does not treat
it as localhost: over http it sends no Sec-Fetch-Site, as to any other server.
The application is the real one, with a fake service.
"""

import http.client
import json
import os
import select
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request

import pytest

from kits import browser_kit
from kits import server_load_kit as load_kit
from kits import service_kit as kit
from serving.web.app import create_app

_TOOLS = {'chromium': browser_kit.find(), 'nginx': shutil.which('nginx'),
          'openssl': shutil.which('openssl')}
pytestmark = [pytest.mark.slow] + [
    pytest.mark.skipif(not path, reason='needs %s on the path' % tool)
    for tool, path in _TOOLS.items()]

_SHIPPED_NAME = 'photos.example.org'  # In deploy/nginx.conf.

# Lines of the configuration of nginx by server name: which Host it sends.
HOSTS = {
    'default.example': '',  # Host: 127.0.0.1:<port of the server>
    'portless.example': 'proxy_set_header Host $host;',
    'whole.example': 'proxy_set_header Host $http_host;',
    'bare.example': 'proxy_set_header Host $http_host;'
                    'add_header Referrer-Policy no-referrer;',
}

_MAIN = '''
daemon off;
master_process off;
pid %(folder)s/pid;
events {}
http {
  access_log off;
  client_body_temp_path %(folder)s/body;
  proxy_temp_path %(folder)s/proxy;
  fastcgi_temp_path %(folder)s/fastcgi;
  uwsgi_temp_path %(folder)s/uwsgi;
  scgi_temp_path %(folder)s/scgi;
  client_max_body_size 33m;
  ssl_certificate %(folder)s/cert.pem;
  ssl_certificate_key %(folder)s/key.pem;
  %(servers)s
  include %(folder)s/shipped.conf;
  server {
    %(listen)s
    server_name evil.other;
    location / { default_type text/html; return 200 '<p>mine</p>'; }
  }
}
'''

# /flowers/ is removed from the path, /kept/ is not.
_SERVER = '''
  server {
    %(listen)s
    server_name %(name)s;
    %(host)s
    location / { proxy_pass http://127.0.0.1:%(plain)d; }
    location /flowers/ { proxy_pass http://127.0.0.1:%(plain)d/; }
    location /kept { proxy_pass http://127.0.0.1:%(prefixed)d; }
  }
'''

# Sends a form as another site could, without a click of the user.
_ATTACK = '''{
  const form = document.createElement('form');
  form.method = 'post';
  form.enctype = 'multipart/form-data';
  form.action = '%s';
  const field = document.createElement('input');
  field.type = 'file';
  field.name = 'file';
  const data = new DataTransfer();
  data.items.add(new File(['x'], 'a.jpg'));
  field.files = data.files;
  form.append(field);
  document.body.append(form);
  const policy = document.createElement('meta');
  policy.name = 'referrer';
  policy.content = '%s';
  document.head.append(policy);
  form.submit();
}'''


class Ports:
  """Ports of nginx and of the servers.

  Attributes:
    http, https: of nginx.
    plain, prefixed: of the server without and with --url_prefix=/kept.
    folder: of nginx's files.
  """

  def __init__(self, plain, prefixed, folder):
    self.plain, self.prefixed, self.folder = plain, prefixed, folder
    with socket.socket() as first, socket.socket() as second:
      for free in (first, second):
        free.bind(('127.0.0.1', 0))
      self.http, self.https = first.getsockname()[1], second.getsockname()[1]

  def address(self, route):
    """Returns the URL of a route, '<scheme or direct> <host> <path>'."""
    scheme, host, path = route.split(' ')
    if scheme == 'direct':
      port = self.prefixed if path == '/kept/' else self.plain
      return 'http://%s:%d%s' % (host, port, path)
    return '%s://%s:%d%s' % (scheme, host, getattr(self, scheme), path)


@pytest.fixture(scope='module')
def service():
  return kit.FakeService()


@pytest.fixture(scope='module')
def ports(service, tmp_path_factory):
  """Starts two servers and nginx in front of them; yields their Ports."""
  folder = tmp_path_factory.mktemp('nginx')
  app = create_app(service, {'NUM_TOP_PREDICTIONS': 2,
                             'ALLOWED_HOSTS': ['.example', _SHIPPED_NAME]})
  plain, prefixed = load_kit.ServerThread(app), load_kit.ServerThread(
      app, url_prefix='/kept')
  subprocess.run(
      ['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2',
       '-subj', '/CN=whole.example', '-keyout', str(folder / 'key.pem'), '-out',
       str(folder / 'cert.pem')], check=True, stderr=subprocess.DEVNULL)
  # Chosen last, so that no other process takes the free ports meanwhile.
  ports = Ports(plain.address[1], prefixed.address[1], str(folder))
  listen = 'listen 127.0.0.1:%d; listen 127.0.0.1:%d ssl;' % (
      ports.http, ports.https)
  (folder / 'shipped.conf').write_text(_shipped(folder, ports, listen))
  (folder / 'nginx.conf').write_text(_MAIN % {
      'folder': folder, 'listen': listen, 'servers': ''.join(
          _SERVER % dict(vars(ports), listen=listen, name=name, host=host)
          for name, host in HOSTS.items())})
  command = ['nginx', '-e', 'stderr', '-p', str(folder), '-c',
             str(folder / 'nginx.conf')]
  subprocess.run(command + ['-t'], check=True)
  nginx = subprocess.Popen(command)
  try:
    load_kit.wait_until(lambda: _is_listening(ports.https) or nginx.poll())
    assert nginx.poll() is None
    yield ports
  finally:
    nginx.terminate()
    nginx.wait(20)
    plain.stop()
    prefixed.stop()
    plain.join()
    prefixed.join()


def _shipped(folder, ports, listen):
  """Returns deploy/nginx.conf with the addresses and files of the test."""
  with open(os.path.join(load_kit.ROOT, 'deploy', 'nginx.conf')) as file:
    text = file.read()
  for old, new in (('listen 443 ssl;', listen),
                   ('/etc/ssl/photos.pem', '%s/cert.pem' % folder),
                   ('/etc/ssl/photos.key', '%s/key.pem' % folder),
                   ('/var/log/nginx/classifier.log', '%s/access.log' % folder),
                   ('127.0.0.1:5001', '127.0.0.1:%d' % ports.plain)):
    assert old in text
    text = text.replace(old, new)
  return text


def _is_listening(port):
  with socket.socket() as client:
    return client.connect_ex(('127.0.0.1', port)) == 0


@pytest.fixture(scope='module')
def photo(tmp_path_factory):
  path = tmp_path_factory.mktemp('photo') / 'rose.jpg'
  path.write_bytes(kit.photo(size=(640, 480)))
  return path


def _browser(scripts):
  return browser_kit.Browser(scripts=scripts, arguments=[
      '--host-resolver-rules=MAP *.example 127.0.0.1, MAP *.other 127.0.0.1',
      '--ignore-certificate-errors', '--disable-features=HttpsUpgrades'])


@pytest.fixture(scope='module')
def scripted():
  with _browser(True) as browser:
    yield browser


@pytest.fixture(scope='module')
def unscripted():
  with _browser(False) as browser:
    yield browser


def visit(browser, address):
  """Opens a page as if for the first time."""
  browser.send('Network.clearBrowserCookies')
  del browser.console_messages[:], browser.requests[:]
  browser.open(address)


def check(browser, address):
  """Asserts that all requests succeeded and went to URLs below `address`."""
  assert browser.console_messages == []
  assert len(browser.requests) > 2
  for url in browser.requests:
    assert url.startswith((address, 'blob:', 'data:')), url


ROUTES = [
    'direct whole.example /', 'direct whole.example /kept/',
    'http default.example /', 'http default.example /flowers/',
    'http default.example /kept/', 'http portless.example /',
    'http whole.example /flowers/', 'http bare.example /kept/',
    'https default.example /', 'https portless.example /flowers/',
    'https bare.example /kept/',
]


@pytest.mark.parametrize('route', ROUTES)
def test_page_by_any_route_classifies(ports, scripted, photo, route):
  address = ports.address(route)
  visit(scripted, address)
  scripted.choose('#file', photo)
  scripted.wait_for('document.querySelector("#cards .card") && '
                    '!document.querySelector("#cards .status")')
  assert scripted.value('document.querySelector("#cards h3, #cards .error")'
                        '.textContent') == 'tulip'
  assert scripted.value('document.styleSheets[0].cssRules.length') > 5
  check(scripted, address)


@pytest.mark.parametrize('route', ROUTES)
def test_page_by_any_route_classifies_without_scripts(ports, unscripted, photo,
                                                      route):
  address = ports.address(route)
  visit(unscripted, address)
  unscripted.choose('#file', photo)
  unscripted.click('button[type=submit]')
  unscripted.wait_until_loaded()
  html = unscripted.html()
  assert '<h1>tulip</h1>' in html, html
  check(unscripted, address)


@pytest.mark.parametrize('route', ['direct whole.example /',
                                   'http portless.example /flowers/'])
def test_page_behind_a_proxy_that_passes_the_host_needs_no_cookie(
    ports, unscripted, photo, route):
  visit(unscripted, ports.address(route))
  unscripted.send('Network.clearBrowserCookies')
  unscripted.choose('#file', photo)
  unscripted.click('button[type=submit]')
  unscripted.wait_until_loaded()
  assert '<h1>tulip</h1>' in unscripted.html()


@pytest.mark.parametrize('route, policy', [
    ('direct whole.example /', 'no-referrer'),
    ('http default.example /', 'no-referrer'),
    ('http default.example /kept/', 'unsafe-url'),
    ('http portless.example /flowers/', 'unsafe-url'),
    ('https default.example /', 'no-referrer')])
def test_form_of_another_site_is_refused(ports, service, scripted, route,
                                         policy):
  visit(scripted, ports.address(route))  # Sets the cookie if there is one.
  scripted.open(ports.address('http evil.other /'))
  service.seen.clear()
  scripted.value(_ATTACK % (ports.address(route), policy))
  scripted.wait_until_loaded()
  assert 'Photos are only accepted from' in scripted.html()
  assert not service.seen


def test_prefix_without_slash_redirects_to_the_page(ports, unscripted):
  unscripted.open(ports.address('http default.example /kept'))
  history = unscripted.send('Page.getNavigationHistory')
  assert history['entries'][history['currentIndex']]['url'] == ports.address(
      'http default.example /kept/')
  assert 'id="upload"' in unscripted.html()


@pytest.mark.parametrize('path', ['/', '/flowers/', '/kept/'])
def test_openapi_server_url_includes_the_prefix(ports, path):
  openapi_url = 'http://127.0.0.1:%d%sapi/openapi.json' % (ports.http, path)
  with urllib.request.urlopen(openapi_url) as response:
    server_url = urllib.parse.urljoin(
        openapi_url, json.loads(response.read().decode())['servers'][0]['url'])
  request = urllib.request.Request(
      server_url + 'api/classify?top=1', kit.photo(),
      {'Content-Type': 'application/octet-stream'})
  with urllib.request.urlopen(request) as response:
    result = json.loads(response.read().decode())
  assert result['photos'][0]['classes'] == ['tulip']


def connect(ports, last_byte=1):
  """Returns a connection from the address 127.0.0.`last_byte`."""
  return http.client.HTTPConnection('127.0.0.1', ports.http, 20, (
      '127.0.0.%d' % last_byte, 0))


def send(connection, method, path, body=None):
  """Sends a request by deploy/nginx.conf; returns the response and its text."""
  connection.request(method, path, body, {
      'Host': _SHIPPED_NAME, 'X-Request-Id': 'mine',
      'Content-Type': 'application/octet-stream'})
  response = connection.getresponse()
  return response, response.read().decode()


def assert_rate_limited(response, text):
  assert response.status == 429
  assert response.headers['Retry-After'] == '1'
  assert json.loads(text)['error']['code'] == 'too_many_requests'


def test_shipped_configuration_logs_its_own_request_ids(ports):
  response, text = send(connect(ports), 'GET', '/?secret')
  assert response.status == 200 and 'id="upload"' in text
  request_id = response.headers['X-Request-Id']
  assert len(request_id) == 32

  def logged_requests():  # nginx logs after the response.
    with open(os.path.join(ports.folder, 'access.log')) as file:
      lines = [json.loads(line) for line in file.readlines()]
    return [(line['path'], line['status']) for line in lines
            if line['request_id'] == request_id]

  load_kit.wait_until(logged_requests)
  assert logged_requests() == [('/', 200)]


@pytest.mark.parametrize('last_byte, status', [(1, 200), (2, 403)])
def test_shipped_configuration_shows_metrics_to_localhost_only(ports, last_byte,
                                                               status):
  assert send(connect(ports, last_byte), 'GET', '/metrics')[0].status == status


def test_shipped_configuration_limits_uploads_but_not_pages(ports):
  connection = connect(ports, 3)
  responses = []
  while not responses or responses[-1][0].status == 200:
    assert len(responses) < 500
    responses.append(send(connection, 'POST', '/api/classify', kit.photo()))
  assert len(responses) > 20
  assert_rate_limited(*responses[-1])
  assert send(connection, 'GET', '/')[0].status == 200


def test_shipped_configuration_limits_parallel_requests_per_address(ports):
  connections = [connect(ports, 4) for _ in range(30)]
  for connection in connections:  # None of them sends its body.
    connection.putrequest('GET', '/', skip_host=True)
    connection.putheader('Host', _SHIPPED_NAME)
    connection.putheader('Content-Length', '1')
    connection.endheaders()
  sockets = {connection.sock: connection for connection in connections}
  refused, _, _ = select.select(list(sockets), [], [], 20)
  connection = sockets[refused[0]]
  response = connection.getresponse()
  assert_rate_limited(response, response.read().decode())
  for connection in connections:
    connection.close()
