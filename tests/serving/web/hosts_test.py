"""Tests of serving/web/hosts.py: requests with other host names are refused."""

import pytest

from kits import service_kit as kit

LOCAL = ['localhost', 'LOCALHOST.:5001', '127.0.0.1', '127.0.0.1:5001',
         '192.168.7.8', '[::1]', '[::1]:5001', '']
FOREIGN = ['evil.example', 'evil.example:5001', 'localhost.evil.example',
           '127.0.0.1.evil.example', 'notlocalhost', 'a.example.evil',
           '[evil]', '[::1]evil', 'evil.example:x', 'a.example:1:2', ':5001',
           'a b', '@localhost', 'localhost/']


def status(host, allowed, path='/'):
  client = kit.make_client(kit.FakeService(), ALLOWED_HOSTS=allowed)
  return client.get(path, environ_overrides={'HTTP_HOST': host}).status_code


@pytest.mark.parametrize('host', LOCAL)
def test_check_addresses_and_localhost_are_always_allowed(host):
  assert status(host, []) == status(host, ['a.example']) == 200


@pytest.mark.parametrize('host', FOREIGN)
def test_check_names_not_in_allowed_hosts_are_refused(host):
  assert status(host, []) == status(host, ['a.example']) == 421
  assert status(host, ['.a.example']) == 421
  assert status(host, ['*']) < 421


@pytest.mark.parametrize('host, allowed', [
    ('a.example', 'a.example'), ('A.example:8080', 'a.example'),
    ('a.example', '.a.example'), ('b.c.a.example', '.a.example')])
def test_check_names_in_allowed_hosts_are_allowed(host, allowed):
  assert status(host, ['other', allowed]) == 200


@pytest.mark.parametrize('path', ['/', '/api/model', '/metrics', '/nowhere',
                                  '/static/page.js', '/api/openapi.json'])
def test_wrong_host_gets_an_error_for_every_path(path):
  client = kit.make_client(kit.FakeService(), ALLOWED_HOSTS=[])
  response = client.get(path, headers={'Host': 'evil.example:5001',
                                       'Accept': 'text/html'})
  assert response.status_code == 421
  assert response.json == {'error': {'code': 'wrong_host', 'message': (
      'This server does not answer under the name "evil.example:5001"; its '
      'flag --allowed_hosts can allow it.')}}
