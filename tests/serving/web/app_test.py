"""Tests of serving/web/app.py: the HTML pages, with a fake service."""

import base64
import io
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from datasets.photo_files import photos
from datasets.photo_files.photos import PhotoError
from kits import service_kit as kit
from kits.helpers import ROOT
from serving.model import example_photos
from serving.model.batching import Busy, ShuttingDown
from serving.model.predictions import Neighbour
from serving.web import model_facts, refusals, score_table, texts


@pytest.fixture
def service():
  return kit.FakeService()


@pytest.fixture
def client(service):
  return kit.make_client(service, NUM_TOP_PREDICTIONS=2, MAX_UPLOAD_MB=1,
                         MAX_PHOTOS=3)


def post(client, *data, **options):
  return kit.post_form(client, '/', *data, **options)


def rows_of(text):
  return re.findall(r'<th scope="row">(.*?)</th>\s*'
                    r'<td class="percent">(.*?)</td>', text)


def test_form_shows_file_field_and_labels(client):
  page = client.get('/')
  text = page.get_data(as_text=True)
  assert page.status_code == 200
  assert 'type="file"' in text and 'name="file"' in text
  assert 'enctype="multipart/form-data"' in text
  assert all(label in text for label in ('daisy', 'tulip', 'rose'))


@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
def test_upload_photo_shows_largest_scores_first(client, service, kind):
  page = post(client, kit.photo(kind))
  text = page.get_data(as_text=True)
  assert page.status_code == 200
  assert service.seen == [kit.photo(kind)]
  assert rows_of(text) == [('tulip', '70.0 %'), ('daisy', '20.0 %')]
  assert re.findall(r'<progress max="1" value="([\d.]+)"', text) == [
      '0.700000', '0.200000']
  assert '<h1>tulip</h1>' in text and 'None of' not in visible_text(text)


def visible_text(text):
  """Returns the text of a page without its tags."""
  return re.sub(r'(?s)<[^>]*>', ' ', text)


def test_upload_unknown_photo_folds_the_scores_away(client, service):
  service.known = True
  text = post(client, kit.photo()).get_data(as_text=True)
  assert 'None of' not in visible_text(text)
  service.known = False
  text = post(client, kit.photo()).get_data(as_text=True)
  assert '<h1>None of the 3 classes</h1>' in text
  folded = re.search(r'(?s)<details class="forced">(.*?)</details>', text)
  assert '<summary>If it had to be one of them</summary>' in folded.group(1)
  assert rows_of(folded.group(1))[0] == ('tulip', '70.0 %')
  assert text.count('<table') == 1
  assert 'open' not in re.search('<details class="forced"[^>]*>', text).group()


def test_pages_list_the_classes_once(client, service):
  service.known = False
  for page in (client.get('/'), post(client, kit.photo(), kit.photo('PNG'))):
    text = page.get_data(as_text=True)
    assert re.findall(r'<li><span>(\w+)</span></li>', text) == service.labels


def test_upload_several_photos_shows_one_card_per_photo(client):
  page = post(client, kit.photo(), b'words', kit.photo('PNG'))
  text = page.get_data(as_text=True)
  assert page.status_code == 200
  assert text.count('<article class="card">') == 3
  assert len(rows_of(text)) == 4
  assert text.count('a.jpg: Plain text is not accepted') == 1
  assert post(client, *[kit.photo()] * 4).status_code == 413


def test_upload_page_shows_the_photo_upright_and_without_metadata(client):
  exif = Image.Exif()
  exif[0x0112] = 6  # Displayed rotated by 90 degrees.
  exif[0x010e] = 'SECRETPLACE'
  data = kit.photo(size=(40, 20), exif=exif, comment=b'SECRETPLACE')
  assert b'SECRETPLACE' in data
  text = post(client, data).get_data(as_text=True)
  preview = base64.b64decode(re.search(
      r'<img class="photo" src="data:image/jpeg;base64,([^"]+)"',
      text).group(1))
  image = Image.open(io.BytesIO(preview))
  assert image.size == (20, 40)
  assert b'SECRETPLACE' not in preview and not image.getexif()


def test_none_of_text_thirteen_classes_or_more_counts_the_others():
  labels = ['c%d' % number for number in range(14)]
  assert score_table.none_of_text(labels[:12]).endswith('c10, c11')
  assert score_table.none_of_text(labels).endswith('c11 and 2 others')


def test_upload_unknown_photo_escapes_the_classes():
  service = kit.FakeService(['<b>a</b>', 'b'], (0.6, 0.4))
  service.known = False
  text = post(kit.make_client(service), kit.photo()).get_data(as_text=True)
  assert '&lt;b&gt;a&lt;/b&gt;' in text and '<b>a' not in text


@pytest.mark.parametrize('name', [
    b'../../etc/passwd', b'/etc/cron.d/x', b'a' * 5000 + b'.jpg', b'.htaccess',
    b'<script>alert(1)</script>.jpg', b'x\x00.jpg', b'\xff\xfe',
    b'a\\"; name=\\"b',
], ids=kit.short_id)
def test_upload_hostile_file_name_is_not_shown(client, service, name):
  body = kit.part(kit.photo(), filename=name) + b'--%s--' % kit.BOUNDARY
  page = client.post('/', data=body, content_type=kit.form_type())
  assert page.status_code == 200 and service.seen == [kit.photo()]
  assert 'alert(1)' not in page.get_data(as_text=True)
  assert 'passwd' not in page.get_data(as_text=True)


def test_upload_labels_with_markup_are_escaped():
  labels = ['<script>alert(1)</script>', '"><img src=x>']
  client = kit.make_client(kit.FakeService(labels, (0.6, 0.4)))
  for page in (client.get('/'), post(client, kit.photo())):
    text = page.get_data(as_text=True)
    assert page.status_code == 200
    assert '<script>' not in text and '<img src=x' not in text
    assert '&lt;script&gt;alert(1)&lt;/script&gt;' in text


def test_upload_undecodable_photo_is_refused_without_internals(client, service):
  service.error = PhotoError('<_io.BytesIO object at 0x7f00>')
  page = post(client, kit.photo())
  text = page.get_data(as_text=True)
  assert page.status_code == 422 and page.mimetype == 'text/html'
  assert 'damaged or cut off' in text and 'BytesIO' not in text


@pytest.mark.parametrize('size', [2 ** 20 + 1, 2 ** 21, 18 * 2 ** 20])
def test_upload_too_large_is_refused(client, service, size):
  page = post(client, kit.photo() + b'\0' * size)
  assert page.status_code == 413
  assert 'larger than 1 MB' in page.get_data(as_text=True)
  assert not service.seen


@pytest.mark.parametrize('error, status, sentence, retry', [
    (Busy(7), 503, 'again in 7 s', '7'),
    (ShuttingDown(), 503, 'shutting down', None),
    (RuntimeError('secret detail in /home/somebody'), 500, 'Please try again',
     None),
])
def test_upload_error_of_the_service_shows_a_page(
    client, service, monkeypatch, error, status, sentence, retry):
  monkeypatch.setenv('FLASK_DEBUG', '1')
  service.error = error
  for each_client in (client, kit.make_client(service)):
    page = post(each_client, kit.photo())
    text = page.get_data(as_text=True)
    assert page.status_code == status and page.mimetype == 'text/html'
    assert sentence in text and page.headers.get('Retry-After') == retry
    assert 'secret' not in text and 'Traceback' not in text


@pytest.mark.parametrize('site, status', [
    ('cross-site', 403), ('same-site', 403), ('same-origin', 200),
    ('none', 200)])
def test_upload_from_another_site_is_refused(client, site, status):
  page = post(client, kit.photo(), headers={
      'Sec-Fetch-Site': site, 'Origin': 'https://evil.example',
      'Host': 'photos.example'})
  assert page.status_code == status
  page = post(client, kit.photo(), headers={
      'Sec-Fetch-Site': site, 'Origin': 'https://photos.example',
      'Host': 'photos.example'})
  assert page.status_code == status


# What browsers send over plain http, directly and through a proxy.
@pytest.mark.parametrize('origin, host, status', [
    ('http://photos.example', 'photos.example', 200),
    ('http://Photos.example:8080', 'photos.example:8080', 200),
    ('http://photos.example:8080', 'photos.example', 200),  # nginx's $host
    ('http://photos.example', 'photos.example:80', 200),
    ('https://photos.example', 'photos.example:443', 200),
    ('http://[::1]:5001', '[::1]:5001', 200),
    ('http://photos.example:8080', 'photos.example:5001', 403),
    ('http://photos.example', 'photos.example:5001', 403),
    ('http://evil.example', 'photos.example', 403),
    ('http://photos.example.evil.example', 'photos.example', 403),
    ('http://photos.example@evil.example', 'photos.example', 403),
    ('http://photos.example', '127.0.0.1:5001', 403),  # nginx's default
    ('null', 'photos.example', 403), ('null', '', 403), ('', '', 403),
    ('http://[', 'a', 403), ('http://a:b', 'a:b', 403)])
def test_upload_origin_must_match_the_host(client, origin, host, status):
  page = post(client, kit.photo(), headers={'Origin': origin, 'Host': host})
  assert page.status_code == status


@pytest.mark.parametrize('origin', ['null', 'http://photos.example'])
def test_upload_with_the_cookie_of_the_page_is_accepted_from_any_host(
    client, origin):
  headers = {'Origin': origin, 'Host': 'upstream'}
  assert post(client, kit.photo(), headers=headers).status_code == 403
  cookie = client.get('/', headers={'Host': 'upstream'}).headers['Set-Cookie']
  assert set(cookie.split('; ')) == {'own_page=1', 'HttpOnly',
                                     'SameSite=Strict'}
  headers['Cookie'] = 'own_page=1'
  assert post(client, kit.photo(), headers=headers).status_code == 200
  # The cookie does not override Sec-Fetch-Site.
  headers['Sec-Fetch-Site'] = 'cross-site'
  assert post(client, kit.photo(), headers=headers).status_code == 403


def test_form_requested_with_sec_fetch_site_sets_no_cookie(client):
  page = client.get('/', headers={'Sec-Fetch-Site': 'none'})
  assert 'Set-Cookie' not in page.headers


@pytest.mark.parametrize('accept', [
    'application/json', 'application/json, text/plain, */*',
    'text/html;q=0.5, application/json', 'application/*'])
def test_upload_preferring_json_gets_json(client, accept):
  response = post(client, kit.photo(), headers={'Accept': accept})
  assert response.json['photos'][0]['classes'] == ['tulip', 'daisy']
  refusal = post(client, b'words', headers={'Accept': accept})
  assert refusal.status_code == 415
  assert refusal.json['error']['code'] == 'not_a_photo'


@pytest.mark.parametrize('accept', [
    '*/*', 'text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8',
    'text/html, application/json', 'image/*', '', ';;q=x'])
def test_upload_not_preferring_json_gets_a_page(client, accept):
  for data in (kit.photo(), b'words'):
    response = post(client, data, headers={'Accept': accept})
    assert response.mimetype == 'text/html'


@pytest.mark.parametrize('path, base', [
    ('/', './'), ('/nowhere', './'), ('/a/b', '../'), ('/a/b/', '../../')])
def test_pages_links_are_relative_to_the_first_page(client, path, base):
  for prefix in ('', '/flowers'):
    text = client.get(path, environ_overrides={
        'SCRIPT_NAME': prefix}).get_data(as_text=True)
    links = re.findall(r'\b(?:href|src|action)="([^"]*)"', text)
    assert sorted(links) == sorted([
        base, base + 'static/icon.svg', base + 'static/page.js',
        base + 'static/style.css'])


@pytest.fixture
def example(service):
  photo = example_photos.Example('0123456789abcdef', kit.photo())
  service.examples = {'daisy': photo}
  return photo


def test_examples_of_classes_are_served(client, service, example):
  text = client.get('/').get_data(as_text=True)
  assert re.findall(r'<img class="example" src="([^"]*)"', text) == [
      './examples/0123456789abcdef.jpg']
  photo = client.get('/examples/0123456789abcdef.jpg')
  assert photo.status_code == 200 and photo.data == example.data
  assert photo.mimetype == 'image/jpeg'
  assert photo.headers['Cross-Origin-Resource-Policy'] == 'same-origin'
  for path in ('/examples/0.jpg', '/examples/', '/examples/a%2fb.jpg'):
    assert client.get(path).status_code == 404


def test_examples_are_not_served_without_the_setting(service, example):
  client = kit.make_client(service, EXAMPLES=False)
  assert 'class="example"' not in client.get('/').get_data(as_text=True)
  assert client.get('/examples/%s.jpg' % example.name).status_code == 404


@pytest.mark.parametrize('language, text', [
    ('en', 'Yellow: what raises the score of tulip.'),
    ('zh', '黄色：提高“tulip”得分的部位')])
def test_form_with_the_box_shows_heat_map_and_nearest_photos(
    client, service, language, text):
  service.nearest = [Neighbour('a.jpg', 'rose', 0.75, 0, kit.photo())]
  body = kit.part(b'', b'explain', None) + kit.form(kit.photo(size=(60, 60)))
  page = client.post('/', data=body, content_type=kit.form_type(),
                     headers={'Accept-Language': language}).get_data(
                         as_text=True)
  why, = re.findall('<section class="why">.*?</section>', page, re.DOTALL)
  assert why.count('src="data:image/jpeg;base64,') == 2
  assert text in visible_text(why) and 'rose 0.75' in visible_text(why)
  assert '<section class="why">' not in kit.post_form(
      client, '/', kit.photo()).get_data(as_text=True)


@pytest.mark.parametrize('explain, accept, kept', [
    (False, 'application/json', 1), (True, 'application/json', 0),
    (True, 'text/html', 1)])
def test_photo_sent_again_for_its_heat_map_is_not_kept_again(
    service, tmp_path, explain, accept, kept):
  client = kit.make_client(service, KEEP_UPLOADS=True,
                           UPLOAD_FOLDER=str(tmp_path / 'kept'))
  body = kit.part(b'', b'explain', None) if explain else b''
  response = client.post('/', data=body + kit.form(kit.photo()),
                         content_type=kit.form_type(),
                         headers={'Accept': accept})
  assert response.status_code == 200
  assert len(os.listdir(str(tmp_path / 'kept'))) == kept


def test_form_offers_heat_maps_only_where_there_are_any(client, service):
  assert 'name="explain"' in client.get('/').get_data(as_text=True)
  other = kit.make_client(service, EXPLAIN=False)
  assert 'name="explain"' not in other.get('/').get_data(as_text=True)
  service.can_explain = False
  text = client.get('/').get_data(as_text=True)
  assert 'name="explain"' not in text and 'data-why=' not in text


def test_form_shows_the_network_and_its_accuracy(client, service, monkeypatch):
  evaluation = {'split': 'test', 'photos': 60, 'accuracy': np.float32(0.875),
                'accuracy_interval_95': [0.75, 0.9375],
                'time': '2026-11-29T03:21:07Z'}
  monkeypatch.setattr(service, 'model_info', lambda: {
      'name': 'mobilenet_v1', 'evaluation': evaluation})
  text = ' '.join(visible_text(client.get('/').get_data(as_text=True)).split())
  assert ('Network mobilenet_v1 · 87.5 % of 60 test photos correct · 95 % '
          'interval 75.0 % to 93.8 % · measured on 2026-11-29') in text
  text = client.get('/', headers={'Accept-Language': 'zh'}).get_data(
      as_text=True)
  assert '60 张测试照片中 87.5 % 正确' in text and '2026-11-29' in text


@pytest.mark.parametrize('evaluation, facts', [
    (None, []), ({}, []), ({'accuracy': 'high'}, []),
    ({'accuracy': float('nan')}, []), ({'accuracy': 2}, []),
    ({'accuracy': 0.5, 'split': '<b>', 'photos': 'x', 'time': '<b>',
      'accuracy_interval_95': ['a', 1]},
     ['50.0 % of the <b> photos correct']),
    ({'accuracy': 0.5, 'split': 'validation', 'accuracy_interval_95': 3},
     ['50.0 % of the validation photos correct'])])
def test_model_facts_leave_out_what_is_unknown_or_damaged(evaluation, facts):
  info = {'name': 'a', 'evaluation': evaluation}
  assert model_facts.describe('en', info) == ['Network a'] + facts
  assert model_facts.describe('en', {'name': None}) == []


def test_prefix_without_slash_redirects_to_the_page(client):
  response = client.get('/', environ_overrides={
      'SCRIPT_NAME': '/all/flowers', 'PATH_INFO': ''})
  assert response.status_code == 308
  # Relative, because a proxy may add another prefix.
  assert response.headers['Location'] == 'flowers/'


def test_upload_invalid_file_is_named_on_the_page(client):
  body = (kit.part(b'\0\0\0\x1cftypavif', filename=b'<b>.avif') +
          kit.form(kit.photo()))
  for language, sentence in (
      ('en', '&lt;b&gt;.avif: AVIF is not accepted: save the photo as JPEG or '
       'PNG.'),
      ('zh', '&lt;b&gt;.avif：不接受 AVIF：请把照片另存为 JPEG 或 PNG。')):
    page = client.post('/', data=body, content_type=kit.form_type(),
                       headers={'Accept-Language': language})
    assert sentence in page.get_data(as_text=True)


def test_form_lists_the_accepted_formats(client):
  text = client.get('/').get_data(as_text=True)
  names = ['JPEG', 'PNG', *filter(photos.can_read, ('WebP', 'HEIC'))]
  types = ','.join('image/' + name.lower() for name in names)
  assert 'accept="%s"' % types in text
  sentence = ' or '.join(', '.join(names).rsplit(', ', 1))
  assert sentence + ', up to 1 MB each' in text


@pytest.mark.parametrize('config, english, chinese', [
    ({}, 'Photos are not kept.', '照片不会被保存。'),
    ({'KEEP_UPLOADS': True}, 'are kept on this server for at most 30 days',
     '最多保存 30 天'),
    ({'KEEP_UPLOADS': True, 'KEEP_DAYS': 1}, 'at most 1 day,', ' 1 天')])
def test_pages_state_whether_photos_are_kept(service, tmp_path, config, english,
                                             chinese):
  client = kit.make_client(service, UPLOAD_FOLDER=str(tmp_path), **config)
  for language, sentence in (('en', english), ('zh', chinese)):
    headers = {'Accept-Language': language}
    for page in (client.get('/', headers=headers),
                 post(client, kit.photo(), headers=headers)):
      assert sentence in page.get_data(as_text=True)


def test_upload_webp_is_classified_if_it_can_be_read(client):
  response = client.post('/', data=kit.form(kit.photo('WEBP')),
                         content_type=kit.form_type(),
                         headers={'Accept': 'application/json'})
  if photos.can_read('WebP'):
    assert response.json['photos'][0]['classes']
  else:
    assert response.status_code == 415
    assert response.json['error']['message'] == (
        'a.jpg: WebP is not accepted: save the photo as JPEG or PNG.')


@pytest.mark.parametrize('accepted, language', [
    ('zh-CN,zh;q=0.9,en;q=0.8', 'zh'), ('zh-TW', 'zh'), ('zh', 'zh'),
    ('en-GB,zh;q=0.5', 'en'), ('fr', 'en'), ('de,zh;q=0.1', 'zh'), ('', 'en'),
    ('%' * 500, 'en'), ('en;q=zzz', 'en'),
])
def test_pages_language_follows_accept_language(client, accepted, language):
  headers = {'Accept-Language': accepted}
  for page in (client.get('/', headers=headers),
               post(client, b'x', headers=headers),
               post(client, kit.photo(), headers=headers)):
    text = page.get_data(as_text=True)
    assert '<html lang="%s">' % language in text
    assert ('识别' in text) == (language == 'zh')
    assert 'Accept-Language' in page.headers['Vary']


def test_texts_contain_the_same_values_in_every_language():
  values = re.compile(r'%(?:\(\w+\))?[sd]')
  for key, english in texts.for_language('en').items():
    chinese = texts.for_language('zh')[key]
    assert sorted(values.findall(english)) == sorted(values.findall(chinese))
  assert set(texts.for_language('zh')) == set(texts.for_language('en'))
  everything = dict(name='a', accepted=('b', 'c1', 'd'), seconds=1, max_mb=2,
                    most=3, width=4, height=5, encoding='e6', needed=9)
  for code, name in [(code, 'f7') for code in refusals.STATUS] + [
      ('not_a_photo', 'JPEG 2000')]:
    refused = refusals.Refused(
        code, format=name, **everything).with_file_name('g8')
    english, chinese = (texts.message(language, refused)
                        for language in ('en', 'zh'))
    assert english.endswith('.') and chinese.endswith('。')
    assert (sorted(re.findall(r'\d', english)) ==
            sorted(re.findall(r'\d', chinese)))


@pytest.mark.parametrize('path', [
    '/uploads/', '/uploads/..%2f..%2fetc%2fpasswd', '/nowhere',
    '/uploads/' + '0' * 32 + '.jpg', '/%00', '/static/../app.py',
    '/static/..%2fapp.py', '/static/', '/console', '/static/openapi.json/..',
])
def test_unknown_path_is_not_found(client, path):
  page = client.get(path)
  assert page.status_code == 404
  assert 'nothing at this address' in page.get_data(as_text=True)


def test_pages_have_security_headers_and_no_external_content(client):
  pages = [client.get('/'), post(client, kit.photo()), client.get('/nowhere'),
           client.post('/'), client.get('/healthz'),
           client.get('/static/style.css'), client.get('/static/page.js')]
  assert [page.status_code for page in pages] == [200, 200, 404, 400, 200, 200,
                                                  200]
  for page in pages:
    text = page.get_data(as_text=True)
    policy = page.headers['Content-Security-Policy']
    assert "default-src 'self'" in policy and 'unsafe' not in policy
    assert page.headers['X-Content-Type-Options'] == 'nosniff'
    assert page.headers['X-Frame-Options'] == 'DENY'
    assert page.headers['Referrer-Policy'] == 'same-origin'
    assert 'Werkzeug' not in page.headers.get('Server', '')
    assert 'http:' not in text and 'https:' not in text
    assert 'style=' not in text and '<style' not in text
    assert not re.search(r'<script(?! src="./static/)', text)
    assert not re.search(r'<[^>]* on\w+=', text)


def test_unsupported_method_is_refused(client):
  response = client.put('/')
  assert response.status_code == 405 and 'POST' in response.headers['Allow']


def test_page_false_serves_the_api_only(service):
  client = kit.make_client(service, PAGE=False)
  for response in (client.get('/'), post(client, kit.photo())):
    assert response.status_code == 404
    assert response.json['error']['code'] == 'not_found'
  assert kit.post_form(client, '/api/classify', kit.photo()).status_code == 200


def test_app_in_debug_mode_loads_no_debugger():
  code = ('import sys; sys.path.insert(0, "tests");'
          'from kits import service_kit as kit;'
          'client = kit.make_client(kit.FakeService());'
          'assert kit.post_form(client, "/", kit.photo()).status_code == 200;'
          'print([m for m in sys.modules if m.startswith("werkzeug.debug") or '
          'm in ("pdb", "bdb", "code")])')
  output = subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True,
                          stdout=subprocess.PIPE,
                          env=dict(os.environ, FLASK_DEBUG='1')).stdout
  assert b'werkzeug.debug' not in output


@pytest.mark.parametrize('count, expected', [
    (1, ['b']), (3, ['b', 'a', 'c']), (9, ['b', 'a', 'c', 'd']),
    (None, ['b', 'a', 'c', 'd']),
])
def test_top_rows_are_sorted_and_ties_keep_their_order(count, expected):
  scores = np.array([0.2, 0.5, 0.2, 0.1], np.float32)
  rows = score_table.top_rows(scores, list('abcd'), count)
  assert [row.label for row in rows] == expected


def test_none_of_text_many_classes_names_twelve():
  text = score_table.none_of_text([str(n) for n in range(15)])
  assert text == 'none of: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 3 others'
