"""Tests of serving/web/app.py: the pages, with a service without a network."""

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
from serving.model.batching import Busy, Closing
from serving.web import app as serving_app
from serving.web import refusals, texts


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


def test_form_shows_field_and_labels(client):
  page = client.get('/')
  text = page.get_data(as_text=True)
  assert page.status_code == 200
  assert 'type="file"' in text and 'name="file"' in text
  assert 'enctype="multipart/form-data"' in text
  assert all(label in text for label in ('daisy', 'tulip', 'rose'))


@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
def test_upload_photo_gives_scores_largest_first(client, service, kind):
  page = post(client, kit.photo(kind))
  text = page.get_data(as_text=True)
  assert page.status_code == 200
  assert service.seen == [kit.photo(kind)]
  assert rows_of(text) == [('tulip', '70.0 %'), ('daisy', '20.0 %')]
  assert re.findall(r'<progress max="1" value="([\d.]+)"', text) == [
      '0.700000', '0.200000']
  assert '<h1>tulip</h1>' in text and 'None of' not in visible(text)


def visible(text):
  """Returns a page without what stands in its tags."""
  return re.sub(r'(?s)<[^>]*>', ' ', text)


def test_upload_unknown_photo_says_none_of_above_the_scores(client, service):
  service.known = True
  text = post(client, kit.photo()).get_data(as_text=True)
  assert 'None of' not in visible(text)
  service.known = False
  text = post(client, kit.photo()).get_data(as_text=True)
  assert '<h1>None of: daisy, tulip, rose</h1>' in text
  assert text.index('None of: daisy') < text.index('<table')
  assert rows_of(text)[0] == ('tulip', '70.0 %')


def test_upload_several_gives_a_card_each_and_says_which_failed(client):
  page = post(client, kit.photo(), b'words', kit.photo('PNG'))
  text = page.get_data(as_text=True)
  assert page.status_code == 200
  assert text.count('<article class="card">') == 3
  assert len(rows_of(text)) == 4
  assert text.count('a.jpg: Plain text is not accepted') == 1
  assert post(client, *[kit.photo()] * 4).status_code == 413


def test_upload_page_shows_the_photo_upright_and_without_metadata(client):
  exif = Image.Exif()
  exif[0x0112] = 6  # Shown turned by 90 degrees.
  exif[0x010e] = 'SECRETPLACE'
  data = kit.photo(size=(40, 20), exif=exif, comment=b'SECRETPLACE')
  assert b'SECRETPLACE' in data
  text = post(client, data).get_data(as_text=True)
  shown = base64.b64decode(re.search(
      r'<img class="photo" src="data:image/jpeg;base64,([^"]+)"',
      text).group(1))
  image = Image.open(io.BytesIO(shown))
  assert image.size == (20, 40)
  assert b'SECRETPLACE' not in shown and not image.getexif()


def test_none_of_many_classes_names_some():
  labels = ['c%d' % number for number in range(14)]
  assert serving_app.none_of(labels[:12]).endswith('c10, c11')
  assert serving_app.none_of(labels).endswith('c11 and 2 others')


def test_upload_unknown_photo_escapes_the_classes():
  service = kit.FakeService(['<b>a</b>', 'b'], (0.6, 0.4))
  service.known = False
  text = post(kit.make_client(service), kit.photo()).get_data(as_text=True)
  assert 'None of: &lt;b&gt;a&lt;/b&gt;, b' in text and '<b>a' not in text


@pytest.mark.parametrize('name', [
    b'../../etc/passwd', b'/etc/cron.d/x', b'a' * 5000 + b'.jpg', b'.htaccess',
    b'<script>alert(1)</script>.jpg', b'x\x00.jpg', b'\xff\xfe',
    b'a\\"; name=\\"b',
], ids=kit.short)
def test_upload_absurd_name_is_never_shown(client, service, name):
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


def test_upload_undecodable_photo_is_refused_without_our_words(client, service):
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
    (Closing(), 503, 'about to end', None),
    (RuntimeError('secret detail in /home/somebody'), 500, 'Please try again',
     None),
])
def test_upload_that_cannot_be_served_gives_a_page(
    client, service, monkeypatch, error, status, sentence, retry):
  monkeypatch.setenv('FLASK_DEBUG', '1')
  service.error = error
  for maker in (client, kit.make_client(service)):
    page = post(maker, kit.photo())
    text = page.get_data(as_text=True)
    assert page.status_code == status and page.mimetype == 'text/html'
    assert sentence in text and page.headers.get('Retry-After') == retry
    assert 'secret' not in text and 'Traceback' not in text


@pytest.mark.parametrize('site, status', [
    ('cross-site', 403), ('same-site', 403), ('same-origin', 200),
    ('none', 200)])
def test_upload_from_a_foreign_page_is_refused(client, site, status):
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
def test_upload_origin_must_be_that_of_the_host(client, origin, host, status):
  page = post(client, kit.photo(), headers={'Origin': origin, 'Host': host})
  assert page.status_code == status


@pytest.mark.parametrize('origin', ['null', 'http://photos.example'])
def test_upload_with_the_cookie_of_the_page_is_taken_from_any_host(client,
                                                                   origin):
  headers = {'Origin': origin, 'Host': 'upstream'}
  assert post(client, kit.photo(), headers=headers).status_code == 403
  cookie = client.get('/', headers={'Host': 'upstream'}).headers['Set-Cookie']
  assert set(cookie.split('; ')) == {'own_page=1', 'HttpOnly',
                                     'SameSite=Strict'}
  headers['Cookie'] = 'own_page=1'
  assert post(client, kit.photo(), headers=headers).status_code == 200
  # It cannot overrule what the browser says itself.
  headers['Sec-Fetch-Site'] = 'cross-site'
  assert post(client, kit.photo(), headers=headers).status_code == 403


def test_form_over_https_sets_no_cookie(client):
  page = client.get('/', headers={'Sec-Fetch-Site': 'none'})
  assert 'Set-Cookie' not in page.headers


@pytest.mark.parametrize('accept', [
    'application/json', 'application/json, text/plain, */*',
    'text/html;q=0.5, application/json', 'application/*'])
def test_upload_by_a_script_gets_json(client, accept):
  answer = post(client, kit.photo(), headers={'Accept': accept})
  assert answer.json['photos'][0]['classes'] == ['tulip', 'daisy']
  bad = post(client, b'words', headers={'Accept': accept})
  assert bad.status_code == 415
  assert bad.json['error']['code'] == 'not_a_photo'


@pytest.mark.parametrize('accept', [
    '*/*', 'text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8',
    'text/html, application/json', 'image/*', '', ';;q=x'])
def test_upload_by_others_gets_a_page(client, accept):
  for data in (kit.photo(), b'words'):
    answer = post(client, data, headers={'Accept': accept})
    assert answer.mimetype == 'text/html'


@pytest.mark.parametrize('path, base', [
    ('/', './'), ('/nowhere', './'), ('/a/b', '../'), ('/a/b/', '../../')])
def test_pages_addresses_are_relative_to_the_first_page(client, path, base):
  for prefix in ('', '/flowers'):
    text = client.get(path, environ_overrides={
        'SCRIPT_NAME': prefix}).get_data(as_text=True)
    found = re.findall(r'\b(?:href|src|action)="([^"]*)"', text)
    assert sorted(found) == sorted([
        base, base + 'static/icon.svg', base + 'static/page.js',
        base + 'static/style.css'])


def test_prefix_without_slash_leads_to_the_page(client):
  answer = client.get('/', environ_overrides={
      'SCRIPT_NAME': '/all/flowers', 'PATH_INFO': ''})
  assert answer.status_code == 308
  # Relative, because a proxy may have more in front of it.
  assert answer.headers['Location'] == 'flowers/'


def test_upload_unusable_file_is_named_on_the_page(client):
  body = (kit.part(b'\0\0\0\x1cftypavif', filename=b'<b>.avif') +
          kit.form(kit.photo()))
  for language, sentence in (
      ('en', '&lt;b&gt;.avif: AVIF is not accepted: save the photo as JPEG or '
       'PNG.'),
      ('zh', '&lt;b&gt;.avif：不接受 AVIF：请把照片另存为 JPEG 或 PNG。')):
    page = client.post('/', data=body, content_type=kit.form_type(),
                       headers={'Accept-Language': language})
    assert sentence in page.get_data(as_text=True)


def test_form_offers_the_formats_that_are_accepted(client):
  text = client.get('/').get_data(as_text=True)
  names = ['JPEG', 'PNG', *filter(photos.can_read, ('WebP', 'HEIC'))]
  types = ','.join('image/' + name.lower() for name in names)
  assert 'accept="%s"' % types in text
  limits = ' or '.join(', '.join(names).rsplit(', ', 1))
  assert limits + ', up to 1 MB each' in text


@pytest.mark.parametrize('config, english, chinese', [
    ({}, 'Photos are not kept.', '照片不会被保存。'),
    ({'KEEP_UPLOADS': True}, 'are kept on this server for at most 30 days',
     '最多保存 30 天'),
    ({'KEEP_UPLOADS': True, 'KEEP_DAYS': 1}, 'at most 1 day,', ' 1 天')])
def test_pages_say_whether_photos_are_kept(service, tmp_path, config, english,
                                           chinese):
  client = kit.make_client(service, UPLOAD_FOLDER=str(tmp_path), **config)
  for language, sentence in (('en', english), ('zh', chinese)):
    headers = {'Accept-Language': language}
    for page in (client.get('/', headers=headers),
                 post(client, kit.photo(), headers=headers)):
      assert sentence in page.get_data(as_text=True)


def test_upload_webp_is_answered_where_photos_read_it(client):
  answer = client.post('/', data=kit.form(kit.photo('WEBP')),
                       content_type=kit.form_type(),
                       headers={'Accept': 'application/json'})
  if photos.can_read('WebP'):
    assert answer.json['photos'][0]['classes']
  else:
    assert answer.status_code == 415
    assert answer.json['error']['message'] == (
        'a.jpg: WebP is not accepted: save the photo as JPEG or PNG.')


@pytest.mark.parametrize('accepted, language', [
    ('zh-CN,zh;q=0.9,en;q=0.8', 'zh'), ('zh-TW', 'zh'), ('zh', 'zh'),
    ('en-GB,zh;q=0.5', 'en'), ('fr', 'en'), ('de,zh;q=0.1', 'zh'), ('', 'en'),
    ('%' * 500, 'en'), ('en;q=zzz', 'en'),
])
def test_pages_speak_the_language_of_the_browser(client, accepted, language):
  headers = {'Accept-Language': accepted}
  for page in (client.get('/', headers=headers),
               post(client, b'x', headers=headers),
               post(client, kit.photo(), headers=headers)):
    text = page.get_data(as_text=True)
    assert '<html lang="%s">' % language in text
    assert ('识别' in text) == (language == 'zh')
    assert 'Accept-Language' in page.headers['Vary']


def test_texts_say_the_same_in_every_language():
  values = re.compile(r'%(?:\(\w+\))?[sd]')
  for key, english in texts.of('en').items():
    chinese = texts.of('zh')[key]
    assert sorted(values.findall(english)) == sorted(values.findall(chinese))
  assert set(texts.of('zh')) == set(texts.of('en'))
  everything = dict(name='a', accepted=('b', 'c1', 'd'), seconds=1, max_mb=2,
                    most=3, width=4, height=5, encoding='e6')
  for code, name in [(code, 'f7') for code in refusals.STATUS] + [
      ('not_a_photo', 'JPEG 2000')]:
    refused = refusals.Refused(code, format=name, **everything).of_file('g8')
    english, chinese = (texts.sentence(language, refused)
                        for language in ('en', 'zh'))
    assert english.endswith('.') and chinese.endswith('。')
    assert (sorted(re.findall(r'\d', english)) ==
            sorted(re.findall(r'\d', chinese)))


@pytest.mark.parametrize('path', [
    '/uploads/', '/uploads/..%2f..%2fetc%2fpasswd', '/nowhere',
    '/uploads/' + '0' * 32 + '.jpg', '/%00', '/static/../app.py',
    '/static/..%2fapp.py', '/static/', '/console', '/static/openapi.json/..',
])
def test_other_path_is_not_found(client, path):
  page = client.get(path)
  assert page.status_code == 404
  assert 'nothing at this address' in page.get_data(as_text=True)


def test_pages_carry_security_headers_and_load_nothing_foreign(client):
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


def test_methods_that_are_not_there_are_refused(client):
  answer = client.put('/')
  assert answer.status_code == 405 and 'POST' in answer.headers['Allow']


def test_page_false_leaves_the_api_only(service):
  client = kit.make_client(service, PAGE=False)
  for answer in (client.get('/'), post(client, kit.photo())):
    assert answer.status_code == 404
    assert answer.json['error']['code'] == 'not_found'
  assert kit.post_form(client, '/api/classify', kit.photo()).status_code == 200


def test_process_of_the_app_has_no_debugger():
  code = ('import sys; sys.path.insert(0, "tests");'
          'from kits import service_kit as kit;'
          'client = kit.make_client(kit.FakeService());'
          'assert kit.post_form(client, "/", kit.photo()).status_code == 200;'
          'print([m for m in sys.modules if m.startswith("werkzeug.debug") or '
          'm in ("pdb", "bdb", "code")])')
  said = subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True,
                        stdout=subprocess.PIPE,
                        env=dict(os.environ, FLASK_DEBUG='1')).stdout
  assert b'werkzeug.debug' not in said


@pytest.mark.parametrize('count, expected', [
    (1, ['b']), (3, ['b', 'a', 'c']), (9, ['b', 'a', 'c', 'd']),
    (None, ['b', 'a', 'c', 'd']),
])
def test_top_rows_are_sorted_and_equal_scores_keep_their_order(count,
                                                              expected):
  scores = np.array([0.2, 0.5, 0.2, 0.1], np.float32)
  rows = serving_app.top_rows(scores, list('abcd'), count)
  assert [row.label for row in rows] == expected


def test_none_of_many_classes_names_twelve():
  said = serving_app.none_of([str(n) for n in range(15)])
  assert said == 'none of: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 3 others'
