"""Tests of serving/web/corrections.py and inbox.py: the API and the page."""

import json
import os

import pytest

from common.errors import InputError
from kits import service_kit as kit
from serving.web import inbox
from serving.web.inbox import Correction


@pytest.fixture
def folder(tmp_path):
  return tmp_path / 'inbox'


@pytest.fixture
def client(folder):
  return make_client(folder)


def make_client(folder, **config):
  return kit.make_client(kit.FakeService(), **dict(
      dict(INBOX=str(folder), MAX_UPLOAD_MB=1, MAX_PIXELS=10000), **config))


def send(client, data=None, path='/api/corrections', headers=(), **fields):
  """Posts a form with a photo and fields; returns the response."""
  body = b''.join(
      kit.part(value.encode(), name.encode(), None)
      for name, value in sorted(fields.items()))
  return client.post(path, data=body + kit.form(data or kit.photo()),
                     content_type=kit.form_type(), headers=dict(headers))


def code_of(response):
  return response.status_code, response.get_json()['error']['code']


def test_correction_is_stored_under_a_generated_name(client, folder):
  data = kit.photo(comment=b'Somewhere, Somebody')
  response = send(client, data, **{'class': 'rose', 'answer': 'tulip'})
  assert (response.status_code, response.get_json()) == (201, {'received': 1})
  stored, = inbox.read(str(folder))
  assert (stored.right_class, stored.answer) == ('rose', 'tulip')
  assert len(stored.photo) == 36 and stored.time.endswith('Z')
  assert sorted(os.listdir(str(folder))) == sorted(
      [stored.photo, stored.photo[:32] + '.json'])
  content = (folder / stored.photo).read_bytes()
  assert content[:2] == b'\xff\xd8' and b'Somebody' not in content
  assert (folder / stored.photo).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize('fields, stored', [
    ({'class': ''}, None),
    ({'class': 'ROSE '}, 'rose'),
    ({'class': 'sea  holly'}, 'sea holly'),
    ({'class': 'rose', 'new_class': 'sea holly'}, 'sea holly'),
    ({'class': 'rose', 'new_class': ''}, 'rose'),
    ({'class': '向日葵'}, '向日葵'),
])
def test_correction_has_a_class_a_new_one_or_none(client, folder, fields,
                                                  stored):
  assert send(client, **fields).status_code == 201
  assert [one.right_class for one in inbox.read(str(folder))] == [stored]


@pytest.mark.parametrize('name', [
    '../rose', 'a/b', 'a\\b', '.rose', 'rose.', 'x' * 61, 'a\x00b', 'a\x1bb',
    'train', 'Validation', '@eaDir', '__MACOSX', 'a\u202eb', '…'])
def test_correction_with_an_invalid_class_is_refused(client, folder, name):
  for field in ('class', 'answer'):
    response = send(client, **dict({'class': 'rose'}, **{field: name}))
    assert code_of(response) == (400, 'bad_class')
  assert os.listdir(str(folder)) == []


def test_correction_without_a_class_is_refused(client):
  assert code_of(send(client)) == (400, 'bad_parameter')


@pytest.mark.parametrize('data, expected', [
    (b'only words', (415, 'not_a_photo')),
    (kit.photo(size=(200, 100)), (422, 'too_many_pixels')),
    (kit.photo()[:60], (422, 'unreadable_photo')),
])
def test_correction_with_an_invalid_photo_is_refused(client, folder, data,
                                                     expected):
  assert code_of(send(client, data, **{'class': 'rose'})) == expected
  assert os.listdir(str(folder)) == []


def test_correction_that_takes_too_much_memory_is_refused(folder):
  client = make_client(folder, MAX_PHOTO_MB=10)
  assert code_of(send(client, **{'class': 'rose'})) == (422, 'too_much_memory')


def test_correction_of_several_photos_is_refused(client):
  response = kit.post_form(client, '/api/corrections?class=rose', kit.photo(),
                           kit.photo())
  assert code_of(response) == (413, 'too_many_photos')


def test_correction_as_a_bare_body_is_accepted(client, folder):
  response = client.post('/api/corrections?class=rose', data=kit.photo())
  assert response.status_code == 201
  assert len(inbox.read(str(folder))) == 1


@pytest.mark.parametrize('limit', [
    {'INBOX_PHOTOS': 2}, {'INBOX_MB': 3 * len(kit.photo()) / 2 ** 20 - 1e-5}])
def test_full_inbox_refuses_until_it_is_emptied(folder, limit):
  client = make_client(folder, **limit)
  assert [send(client, **{'class': 'rose'}).status_code
          for _ in range(2)] == [201, 201]
  assert code_of(send(client, **{'class': 'rose'})) == (507, 'inbox_full')
  first = inbox.read(str(folder))[0].photo
  os.remove(str(folder / first))
  assert send(client, **{'class': 'rose'}).status_code == 201


def test_inbox_that_cannot_be_written_refuses(client, folder, monkeypatch):
  def fail(path, text):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(inbox.files, 'write_text', fail)
  assert code_of(send(client, **{'class': 'rose'})) == (507, 'inbox_full')
  assert os.listdir(str(folder)) == []


def test_inbox_removes_photos_without_facts_at_the_start(folder):
  folder.mkdir()
  name = 'ab' * 16 + '.jpg'
  (folder / name).write_bytes(kit.photo())
  (folder / 'mine.jpg').write_bytes(kit.photo())
  make_client(folder)
  # Another server may still be writing it.
  assert sorted(os.listdir(str(folder))) == [name, 'mine.jpg']
  os.utime(str(folder / name), (0, 0))
  make_client(folder)
  assert os.listdir(str(folder)) == ['mine.jpg']


@pytest.mark.parametrize('facts', [
    '', '{}', '[]', '{"class": 3, "answer": null, "time": ""}'])
def test_read_with_damaged_facts_is_an_error(folder, facts):
  folder.mkdir()
  (folder / ('ab' * 16 + '.jpg')).write_bytes(kit.photo())
  (folder / ('ab' * 16 + '.json')).write_text(facts)
  with pytest.raises(InputError, match='abab.json is damaged'):
    inbox.read(str(folder))


def test_without_inbox_there_is_no_address_and_no_control():
  client = kit.make_client(kit.FakeService())
  for path in ('/api/corrections', '/corrections'):
    assert send(client, path=path, **{'class': 'rose'}).status_code == 404
  assert b'This is wrong' not in client.get('/').data
  assert b'This is wrong' not in kit.post_form(client, '/', kit.photo()).data


def test_correction_needs_the_token(folder):
  client = make_client(folder, API_TOKEN='secret')
  fields = {'class': 'rose'}
  assert code_of(send(client, **fields)) == (401, 'unauthorized')
  assert code_of(send(client, token='secret', **fields)) == (
      401, 'unauthorized')  # In the API it is a header.
  assert send(client, headers={'Authorization': 'Bearer secret'},
              **fields).status_code == 201
  page = '/corrections'
  assert send(client, path=page, **fields).status_code == 401
  assert send(client, path=page, token='wrong', **fields).status_code == 401
  assert send(client, path=page, token='secret', **fields).status_code == 201
  assert b'name="token"' in client.get('/').data


@pytest.mark.parametrize('path', ['/corrections', '/api/corrections'])
def test_correction_from_another_site_is_refused(client, folder, path):
  response = send(client, path=path, headers={
      'Sec-Fetch-Site': 'cross-site', 'Accept': 'application/json'},
                  **{'class': 'rose'})
  assert code_of(response) == (403, 'cross_site')
  assert os.listdir(str(folder)) == []


def test_corrections_count_for_the_rate_limit(folder):
  client = make_client(folder, RATE_LIMIT=2)
  statuses = [send(client, **{'class': 'rose'}).status_code for _ in range(3)]
  assert statuses == [201, 201, 429]


@pytest.mark.parametrize('language, thanks', [
    ('en', 'Thank you'), ('zh', '谢谢')])
def test_page_has_a_form_at_each_result_and_thanks(client, folder, language,
                                                   thanks):
  headers = {'Accept-Language': language, 'Accept': 'text/html'}
  page = kit.post_form(client, '/', kit.photo(), headers=headers)
  text = page.get_data(as_text=True)
  card = text[text.index('<article'):text.index('</article>')]
  assert 'action="./corrections"' in card
  assert 'name="answer" value="tulip"' in card and '<option>rose' in card
  response = send(client, path='/corrections', headers=headers, answer='tulip',
                  new_class='', **{'class': ''})
  assert response.status_code == 201
  assert thanks in response.get_data(as_text=True)
  assert inbox.read(str(folder))[0][1:3] == (None, 'tulip')


def test_read_returns_the_oldest_first(folder):
  folder.mkdir()
  for letter, time in (('a', '2026-01-02'), ('b', '2026-01-01')):
    (folder / (letter * 32 + '.png')).write_bytes(b'')
    (folder / (letter * 32 + '.json')).write_text(json.dumps(
        {'class': None, 'answer': 'rose', 'time': time}))
  assert inbox.read(str(folder)) == [
      Correction('b' * 32 + '.png', None, 'rose', '2026-01-01'),
      Correction('a' * 32 + '.png', None, 'rose', '2026-01-02')]
