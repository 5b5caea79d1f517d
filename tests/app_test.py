"""The upload page, with a classifier that needs no network."""

import io
import os
import re

import numpy as np
import pytest
from PIL import Image

from datasets.photos import PhotoError
from serving import app as serving_app
from serving.classifier import Answer


class FakeClassifier:
  """Scores that are known beforehand; remembers what it was given."""

  def __init__(self, labels=('daisy', 'tulip', 'rose'),
               scores=(0.2, 0.7, 0.1)):
    self.labels = list(labels)
    self.scores = np.array(scores, np.float32)
    self.seen = []
    self.error = None
    self.known = None

  def examine_each(self, photos):
    if isinstance(self.error, PhotoError):
      return [self.error] * len(photos)
    if self.error:
      raise self.error
    self.seen.extend(photos)
    return [Answer(self.scores, self.known, 0.5, [])] * len(photos)


@pytest.fixture
def classifier():
  return FakeClassifier()


@pytest.fixture
def client(classifier, tmp_path):
  app = serving_app.create_app(classifier, {
      'UPLOAD_FOLDER': str(tmp_path / 'uploads'), 'NUM_TOP_PREDICTIONS': 2,
      'MAX_UPLOAD_MB': 1})
  return app.test_client()


def photo(kind='JPEG', size=(8, 6)):
  stream = io.BytesIO()
  Image.new('RGB', size, (200, 30, 90)).save(stream, kind)
  return stream.getvalue()


def post(client, data, name='cat.jpg'):
  return client.post('/', data={'file': (io.BytesIO(data), name)})


def kept(tmp_path):
  return sorted(os.listdir(str(tmp_path / 'uploads')))


def test_form_shows_field_and_labels(client):
  page = client.get('/')
  text = page.get_data(as_text=True)
  assert page.status_code == 200
  assert 'type="file"' in text and 'name="file"' in text
  assert 'enctype="multipart/form-data"' in text
  assert all(label in text for label in ('daisy', 'tulip', 'rose'))


@pytest.mark.parametrize('kind, extension', [('JPEG', 'jpg'), ('PNG', 'png')])
def test_upload_photo_gives_scores_largest_first(client, classifier, tmp_path,
                                                 kind, extension):
  page = post(client, photo(kind), 'misleading.txt')
  text = page.get_data(as_text=True)
  assert page.status_code == 200
  assert classifier.seen == [photo(kind)]
  rows = re.findall(r'<th scope="row">(.*?)</th>\s*'
                    r'<td class="percent">(.*?)</td>', text)
  assert rows == [('tulip', '70.0 %'), ('daisy', '20.0 %')]
  assert re.findall(r'<progress max="1" value="([\d.]+)"', text) == [
      '0.700000', '0.200000']
  name, = kept(tmp_path)
  assert name.endswith('.' + extension)
  shown = client.get(re.search(r'<img[^>]*src="([^"]+)"', text).group(1))
  assert shown.data == photo(kind)
  assert shown.mimetype == 'image/' + kind.lower()


def test_upload_photo_that_is_not_known_says_none_of_and_the_scores(
    client, classifier):
  for known in (None, True):
    classifier.known = known
    text = post(client, photo()).get_data(as_text=True)
    assert 'None of' not in text and '<h1>tulip</h1>' in text
  classifier.known = False
  text = post(client, photo()).get_data(as_text=True)
  assert '<h1>None of: daisy, tulip, rose</h1>' in text
  assert '<h1>tulip</h1>' not in text
  assert re.findall(r'<td class="percent">(.*?)</td>', text) == [
      '70.0 %', '20.0 %']


def test_none_of_many_classes_names_some():
  labels = ['c%d' % number for number in range(14)]
  assert serving_app.none_of(labels[:12]).endswith('c10, c11')
  assert serving_app.none_of(labels).endswith('c11 and 2 others')


def test_upload_unknown_photo_escapes_the_classes(tmp_path):
  classifier = FakeClassifier(['<b>a</b>', 'b'], (0.6, 0.4))
  classifier.known = False
  app = serving_app.create_app(classifier, {'UPLOAD_FOLDER': str(tmp_path)})
  text = post(app.test_client(), photo()).get_data(as_text=True)
  assert 'None of: &lt;b&gt;a&lt;/b&gt;, b' in text and '<b>a' not in text


@pytest.mark.parametrize('name', [
    '../../etc/passwd', '/etc/cron.d/x', 'a' * 500 + '.jpg', '.htaccess',
    '<script>alert(1)</script>.jpg', 'x\x00.jpg',
])
def test_upload_absurd_name_never_becomes_a_path(client, tmp_path, name):
  page = post(client, photo(), name)
  assert page.status_code == 200
  assert '<script' not in page.get_data(as_text=True)
  kept_name, = kept(tmp_path)
  assert re.fullmatch(r'[0-9a-f]{32}\.jpg', kept_name)
  assert os.listdir(str(tmp_path)) == ['uploads']


def test_upload_labels_with_markup_are_escaped(tmp_path):
  labels = ['<script>alert(1)</script>', '"><img src=x>']
  app = serving_app.create_app(FakeClassifier(labels, (0.6, 0.4)),
                               {'UPLOAD_FOLDER': str(tmp_path)})
  for page in (app.test_client().get('/'), post(app.test_client(), photo())):
    text = page.get_data(as_text=True)
    assert page.status_code == 200
    assert '<script' not in text and '<img src=x' not in text
    assert '&lt;script&gt;alert(1)&lt;/script&gt;' in text


@pytest.mark.parametrize('form, status, sentence', [
    ({}, 400, 'choose a photo'),
    ({'file': 'only text'}, 400, 'choose a photo'),
    ({'other': (io.BytesIO(b'x'), 'a.jpg')}, 400, 'choose a photo'),
    ({'file': (io.BytesIO(b''), '')}, 400, 'choose a photo'),
    ({'file': (io.BytesIO(b''), 'a.jpg')}, 400, 'is empty'),
    ({'file': (io.BytesIO(b'<html>'), 'a.jpg')}, 415, 'neither a JPEG nor'),
    ({'file': (io.BytesIO(b'GIF89a' + b'x' * 99), 'a.png')}, 415,
     'neither a JPEG nor'),
])
def test_upload_unusable_file_is_refused_with_a_sentence(
    client, classifier, tmp_path, form, status, sentence):
  page = client.post('/', data=form, content_type='multipart/form-data')
  assert page.status_code == status
  assert sentence in page.get_data(as_text=True)
  assert page.mimetype == 'text/html'
  assert not classifier.seen and not kept(tmp_path)


def test_upload_undecodable_photo_is_refused_and_not_kept(client, classifier,
                                                          tmp_path):
  classifier.error = PhotoError('damaged <b>header</b>')
  page = post(client, b'\xff\xd8\xff' + b'x' * 50)
  text = page.get_data(as_text=True)
  assert page.status_code == 422
  assert 'damaged &lt;b&gt;header&lt;/b&gt;' in text
  assert not kept(tmp_path)


@pytest.mark.parametrize('size', [2 ** 20 + 1, 2 ** 21])
def test_upload_too_large_is_refused(client, classifier, tmp_path, size):
  page = post(client, photo() + b'\0' * size)
  assert page.status_code == 413
  assert 'larger than 1 MB' in page.get_data(as_text=True)
  assert not classifier.seen and not kept(tmp_path)


def test_upload_our_mistake_shows_no_traceback(classifier, tmp_path):
  app = serving_app.create_app(classifier, {'UPLOAD_FOLDER': str(tmp_path)})
  classifier.error = RuntimeError('secret detail')
  page = post(app.test_client(), photo())
  text = page.get_data(as_text=True)
  assert page.status_code == 500
  assert 'Please try again' in text
  assert 'secret' not in text and 'Traceback' not in text


@pytest.mark.parametrize('path', [
    '/uploads/', '/uploads/..%2f..%2fetc%2fpasswd', '/uploads/notes.txt',
    '/uploads/' + '0' * 32 + '.jpg', '/uploads/%00.jpg', '/nowhere',
])
def test_uploads_other_path_is_not_found(client, tmp_path, path):
  (tmp_path / 'uploads' / 'notes.txt').write_text('private')
  page = client.get(path)
  assert page.status_code == 404
  assert 'private' not in page.get_data(as_text=True)
  assert 'nothing at this address' in page.get_data(as_text=True)


def test_pages_carry_security_headers_and_load_nothing_foreign(client):
  pages = [client.get('/'), post(client, photo()), client.get('/nowhere'),
           client.post('/'), client.get('/healthz'),
           client.get('/static/style.css')]
  assert [page.status_code for page in pages] == [200, 200, 404, 400, 200, 200]
  for page in pages:
    text = page.get_data(as_text=True)
    assert "default-src 'self'" in page.headers['Content-Security-Policy']
    assert page.headers['X-Content-Type-Options'] == 'nosniff'
    assert page.headers['X-Frame-Options'] == 'DENY'
    assert 'Werkzeug' not in page.headers.get('Server', '')
    assert 'http:' not in text and 'https:' not in text
    assert 'style=' not in text and '<style' not in text
    assert '<script' not in text


def test_healthz_answers_ok(client):
  page = client.get('/healthz')
  assert (page.status_code, page.data) == (200, b'ok')


def test_other_methods_are_refused(client):
  assert client.put('/').status_code == 405
  assert client.delete('/uploads/' + '0' * 32 + '.jpg').status_code == 405


@pytest.mark.parametrize('count, expected', [
    (1, ['b']), (3, ['b', 'a', 'c']), (9, ['b', 'a', 'c', 'd']),
])
def test_top_rows_are_sorted_and_equal_scores_keep_their_order(count,
                                                              expected):
  scores = np.array([0.2, 0.5, 0.2, 0.1], np.float32)
  rows = serving_app.top_rows(scores, list('abcd'), count)
  assert [row.label for row in rows] == expected
