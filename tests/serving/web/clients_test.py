"""Tests of clients.py: tokens, addresses behind a proxy, limits per client."""

import os

import pytest

from common.errors import InputError
from kits import service_kit as kit
from serving.web import clients
from serving.web.refusals import Refused


def accepts(tokens, word):
  return tokens.match('Bearer ' + word) is not None


def test_tokens_are_read_from_the_flag_or_a_file(tmp_path):
  path = tmp_path / 'token'
  path.write_text('first\n\n  second \n')
  for value, words in (('abc', ['abc']), ('@%s' % path, ['first', 'second'])):
    tokens = clients.Tokens(value)
    assert tokens.required and not accepts(tokens, 'other')
    assert all(accepts(tokens, word) for word in words)
    assert len({tokens.match('bearer ' + word) for word in words}) == len(words)
    assert tokens.match(words[0]) is tokens.match('Basic ' + words[0]) is None
  assert not clients.Tokens(None).required


@pytest.mark.parametrize('value', ['', 'two words', 'line\nbreak', '中文'])
@pytest.mark.parametrize('is_file', [False, True])
def test_tokens_invalid_in_a_header_are_refused(value, is_file, tmp_path):
  if is_file:
    (tmp_path / 'a').write_text(value.replace('\n', ' '), encoding='utf-8')
    value = '@%s' % (tmp_path / 'a')
  with pytest.raises(InputError, match='--api_token must be'):
    clients.Tokens(value)


def test_tokens_missing_file_is_named(tmp_path):
  with pytest.raises(InputError, match='cannot read .*none'):
    clients.Tokens('@%s' % (tmp_path / 'none'))


def test_tokens_changed_file_is_read_again_immediately(tmp_path, caplog):
  path, new_file = tmp_path / 'tokens', tmp_path / 'aside'
  path.write_text('old\n')
  client = kit.make_client(kit.FakeService(), API_TOKEN='@%s' % path)

  def statuses():
    return [client.get('/api/model', headers={
        'Authorization': 'Bearer ' + word}).status_code
            for word in ('old', 'new')]

  assert statuses() == [200, 401]
  path.write_text('old\nnew\n')
  assert statuses() == [200, 200]
  new_file.write_text('new\n')
  os.replace(str(new_file), str(path))
  assert statuses() == [401, 200]
  for damage in (lambda: path.write_text('two words\n'), path.unlink):
    damage()
    assert statuses() == [401, 200]
  path.write_text('old\n\n')
  assert statuses() == [200, 401]
  assert caplog.text.count('the previous tokens stay valid') == 1
  assert 'words' not in caplog.text


@pytest.mark.parametrize('peer, forwarded, address', [
    ('10.0.0.1', '1.2.3.4', '1.2.3.4'),
    ('10.0.0.1', '9.9.9.9, 1.2.3.4', '1.2.3.4'),
    ('::ffff:10.0.0.1', '2001:DB8::1', '2001:db8::1'),
    ('10.0.0.1', '', '10.0.0.1'),
    ('10.0.0.1', '1.2.3.4, "', '10.0.0.1'),
    ('10.0.0.1', 'a\nb', '10.0.0.1'),
    ('10.0.0.2', '1.2.3.4', '10.0.0.2'),
])
def test_client_address_is_taken_from_the_trusted_proxy_only(peer, forwarded,
                                                             address):
  environ = {'REMOTE_ADDR': peer, 'HTTP_X_FORWARDED_FOR': forwarded}
  assert clients.client_address(environ, '10.0.0.1') == address
  assert clients.client_address(environ) == clients.normalize_address(peer)


class Clock:
  now = 1000.0

  def __call__(self):
    return self.now


def test_rate_limit_ends_after_the_seconds_in_retry_after():
  clock = Clock()
  limit = clients.RateLimit(7, clock)

  def retry_after(client, photos):
    try:
      limit.take(client, photos)
    except Refused as refused:
      assert (refused.code, refused.status) == ('too_many_requests', 429)
      return int(refused.headers['Retry-After'])
    return 0

  assert [retry_after('1.1.1.1', 1) for _ in range(8)] == [0] * 7 + [9]
  assert retry_after('1.1.1.2', 3) == 0
  clock.now += 8
  assert retry_after('1.1.1.1', 1) == 1
  clock.now += 1
  assert retry_after('1.1.1.1', 1) == 0
  assert retry_after('1.1.1.1', 1) > 0
  # More photos than per minute: accepted after an inactive minute, and counted.
  clock.now += 60
  assert retry_after('1.1.1.1', 14) == 0
  assert retry_after('1.1.1.1', 1) == 69
  # Returned photos can be used immediately, but no more than those of a minute.
  limit.take('1.1.1.3', 7)
  limit.take('1.1.1.3', -2)
  assert [retry_after('1.1.1.3', 1) for _ in range(3)] == [0, 0, 9]
  # All IPv6 addresses of one customer share a limit.
  assert retry_after('2001:db8::1', 7) == 0
  assert retry_after('2001:db8::ffff:1', 1) > 0
  assert retry_after('2001:db8:0:1::1', 1) == 0


def test_rate_limit_forgets_the_clients_inactive_longest(monkeypatch):
  monkeypatch.setattr(clients, '_MOST_CLIENTS', 3)
  limit = clients.RateLimit(1)
  for number in range(50):
    limit.take('10.0.0.%d' % number, 1)
  for number in (49, 48, 47):
    with pytest.raises(Refused):
      limit.take('10.0.0.%d' % number, 1)
  assert len(limit._clients) == 3
  limit.take('10.0.0.1', 1)


def test_rate_limit_counts_photos_per_address_and_per_token(tmp_path):
  path = tmp_path / 'tokens'
  path.write_text('a\nb\n')
  client = kit.make_client(kit.FakeService(), API_TOKEN='@%s' % path,
                           RATE_LIMIT=3, TRUSTED_PROXY='127.0.0.1')

  def post(path, count, **headers):
    names = {name.replace('_', '-'): value for name, value in headers.items()}
    return kit.post_form(client, path, *[kit.photo()] * count, headers=names)

  api = '/api/classify'
  assert post(api, 3, Authorization='Bearer a').status_code == 200
  response = post(api, 1, Authorization='Bearer a')
  assert (response.status_code, response.json['error']['code']) == (
      429, 'too_many_requests')
  assert 1 <= int(response.headers['Retry-After']) <= 20
  assert post(api, 2, Authorization='Bearer b').status_code == 200
  assert post('/', 3, X_Forwarded_For='1.1.1.1').status_code == 200
  assert post('/', 1, X_Forwarded_For='1.1.1.1').status_code == 429
  assert post('/', 1, X_Forwarded_For='1.1.1.2').status_code == 200
  assert client.get('/healthz').status_code == 200
