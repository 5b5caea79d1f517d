"""Tests of serving/web/api.py against static/openapi.json."""

import base64
import json
import os
import re
import zlib

import jsonschema
import pytest

from datasets.photo_files.photo_colors import CostlyPhotoError, PhotoError
from kits import service_kit as kit
from kits.helpers import ROOT
from serving.model.batching import Busy, Closing
from serving.model.patience import Gone, TimedOut
from serving.web import refusals

with open(os.path.join(ROOT, 'serving', 'web', 'static', 'openapi.json'),
          encoding='utf-8') as stream:
  OPENAPI = json.load(stream)


@pytest.fixture
def service():
  return kit.FakeService()


@pytest.fixture
def client(service):
  return kit.make_client(service, MAX_UPLOAD_MB=1, MAX_PHOTOS=3,
                         MAX_PIXELS=10000)


def check(answer, path, method='get'):
  """Asserts that an answer is one that the OpenAPI file describes.

  Returns:
    Its JSON, or its text where it is none.
  """
  described = OPENAPI['paths'][path][method]['responses'][
      str(answer.status_code)]
  schema = dict(described['content'][answer.mimetype]['schema'],
                components=OPENAPI['components'])
  value = answer.get_data(as_text=True)
  if answer.mimetype == 'application/json':
    value = json.loads(value, parse_constant=lambda word: pytest.fail(word))
  jsonschema.Draft202012Validator(schema).validate(value)
  for name, header in described.get('headers', {}).items():
    if name in answer.headers and 'const' in header['schema']:
      assert answer.headers[name] == header['schema']['const']
  return value


def classify(client, *data, **options):
  query = options.pop('query', '')
  answer = kit.post_form(client, '/api/classify' + query, *data, **options)
  return answer, check(answer, '/api/classify', 'post')


def gzipped(data):
  packer = zlib.compressobj(wbits=31)  # No time, as gzip.compress has.
  return packer.compress(data) + packer.flush()


def test_classify_form_answers_every_class_largest_first(client, service):
  answer, reply = classify(client, kit.photo())
  assert answer.status_code == 200
  assert reply['photos'] == [{
      'classes': ['tulip', 'daisy', 'rose'], 'model_sha256': '0' * 64,
      'probabilities': [pytest.approx(p) for p in (0.7, 0.2, 0.1)]}]
  assert reply['photos'][0]['probabilities'][0] == float(service.scores[1])
  assert 0 <= reply['milliseconds'] < 10000


@pytest.mark.parametrize('known', [True, False])
def test_classify_graph_that_knows_tells_it(client, service, known):
  service.known = known
  photo, = classify(client, kit.photo())[1]['photos']
  assert (photo['known'], photo['similarity']) == (known, 0.5)


@pytest.mark.parametrize('kind', [
    None, 'image/jpeg', 'application/octet-stream', 'text/html',
    'application/x-www-form-urlencoded'])
def test_classify_raw_bytes_of_any_type_are_a_photo(client, service, kind):
  answer = client.post('/api/classify', data=kit.photo('PNG'),
                       content_type=kind)
  assert len(check(answer, '/api/classify', 'post')['photos']) == 1
  assert service.seen == [kit.photo('PNG')]


def test_classify_several_answers_in_order_with_errors_in_place(client):
  answer, reply = classify(client, b'words', kit.photo(), b'')
  assert answer.status_code == 200
  assert reply['photos'][0]['error']['code'] == 'not_a_photo'
  assert reply['photos'][1]['classes'][0] == 'tulip'
  assert reply['photos'][2]['error']['code'] == 'empty_file'


@pytest.mark.parametrize('query, count', [
    ('?top=1', 1), ('?top=2', 2), ('?top=99', 3), ('', 3),
    ('?top=0000000002', 2), ('?top=' + '0' * 5000 + '2', 2)],
                         ids=lambda value: str(value)[:20])
def test_classify_top_limits_the_classes(client, query, count):
  photo, = classify(client, kit.photo(), query=query)[1]['photos']
  assert len(photo['classes']) == len(photo['probabilities']) == count


@pytest.mark.parametrize('top', [
    '0', '-1', 'x', '', '1.5', '9' * 5000, '0' * 5000, '%00', '²', '1000000',
    '2&top=3'])
def test_classify_top_that_is_no_number_is_refused(client, top):
  answer, reply = classify(client, kit.photo(), query='?top=' + top)
  assert answer.status_code == 400
  assert reply['error']['code'] == 'bad_parameter'


def test_classify_top_in_a_field_of_the_form_limits_the_classes(client):
  body = kit.part(b'2', name=b'top', filename=None) + kit.form(kit.photo())
  for query, status in (('', 200), ('?top=2', 200), ('?top=3', 400)):
    answer = client.post('/api/classify' + query, data=body,
                         content_type=kit.form_type())
    reply = check(answer, '/api/classify', 'post')
    assert answer.status_code == status
    if status == 200:
      assert len(reply['photos'][0]['classes']) == 2
    else:
      assert reply['error']['code'] == 'bad_parameter'


@pytest.mark.parametrize('parts, code, message', [
    # curl -F photo=@rose.jpg
    ([kit.part(kit.photo(), name=b'photo')], 'wrong_field',
     'The field "photo" is not known: photos belong in the field "file".'),
    # A photo that is left out would be missed.
    ([kit.part(kit.photo()), kit.part(kit.photo(), name=b'file2')],
     'wrong_field', 'The field "file2" is not known: .*'),
    # curl -F file=rose.jpg, -F photo=rose.jpg
    ([kit.part(b'rose.jpg', filename=None)], 'not_a_file',
     'The field "file" holds text in place of a file.'),
    ([kit.part(b'rose.jpg', b'photo', None)], 'wrong_field',
     'The field "photo" is not known: .*'),
    ([kit.part(b'rose.jpg', b'photos/file', None)], 'wrong_field',
     'The field "photos/file" is not known: .*'),
    ([kit.part(b'', b'<a\nb>' + b'x' * 999)], 'wrong_field',
     'The field "<a b>x{75}…" is not known: .*'),
    ([kit.part(b'', filename=b'')], 'no_photo', '.*choose one first.'),
], ids=kit.short)
def test_classify_form_without_a_photo_names_the_field(client, parts, code,
                                                       message):
  answer = client.post('/api/classify', content_type=kit.form_type(),
                       data=b''.join(parts) + b'--%s--\r\n' % kit.BOUNDARY)
  error = check(answer, '/api/classify', 'post')['error']
  assert (answer.status_code, error['code']) == (400, code)
  assert re.fullmatch(message, error['message'])


@pytest.mark.parametrize('name, data, message', [
    (b'hat.avif', b'\0\0\0\x1cftypavif', 'hat.avif: AVIF is not accepted: '
     'save the photo as JPEG or PNG.'),
    (b'C:\\photos\\hat.jpg', b'\0\0\0\x18ftypcrx ', 'hat.jpg: CR3 is .*'),
    ('../帽\u202e子\0'.encode(), b'<svg/>', '帽�子�: SVG is .*'),
    # As macOS names screenshots.
    ('at 3.00.00\u202fPM.png'.encode(), b'<svg/>', 'at 3.00.00 PM.png: SVG .*'),
    (b'a' * 99 + b'.jpg', b'%PDF-1.4', 'a{80}…: PDF is .*'),
    (b'a.jpg', b'\x7fELF', 'a.jpg: A file of this kind is not accepted: .*'),
    (b'a.jpg', b'', 'a.jpg: The file is empty.'),
    (b'a.jpg', kit.photo()[:30], 'a.jpg: This photo cannot be read: .*'),
    (b'a.jpg', kit.photo(size=(101, 100)), 'a.jpg: The photo has 101 x .*'),
    (b'a.jpg', kit.photo() + b'\0' * 2 ** 20, 'a.jpg: The photo is larger .*'),
], ids=kit.short)
def test_classify_unusable_photo_names_file_and_format(client, name, data,
                                                       message):
  body = kit.part(data, filename=name)
  for parts in (body, kit.part(kit.photo()) + body):
    answer = client.post('/api/classify', content_type=kit.form_type(),
                         data=parts + b'--%s--\r\n' % kit.BOUNDARY)
    reply = check(answer, '/api/classify', 'post')
    error = reply['error'] if parts == body else reply['photos'][1]['error']
    assert re.fullmatch(message, error['message'])


def test_classify_photo_that_the_decoder_refuses_names_the_file(client,
                                                                service):
  service.error = PhotoError('cut off')
  reply = classify(client, kit.photo())[1]
  assert reply['error']['message'].startswith('a.jpg: This photo cannot be ')


@pytest.mark.parametrize('data, kind, name', [
    (json.dumps({'image': base64.b64encode(kit.photo()).decode()}),
     'application/json', 'JSON'),
    (base64.b64encode(kit.photo('PNG')), 'text/plain', 'Base64'),
    (gzipped(kit.photo()), 'image/jpeg', 'gzip'),
    # curl -d file=@rose.jpg
    (b'file=@rose.jpg', 'application/x-www-form-urlencoded', 'Plain text'),
], ids=kit.short)
def test_classify_body_that_is_no_photo_names_its_format(client, data, kind,
                                                         name):
  answer = client.post('/api/classify', data=data, content_type=kind)
  error = check(answer, '/api/classify', 'post')['error']
  assert (answer.status_code, error['code']) == (415, 'not_a_photo')
  assert error['message'].startswith(name + ' is not accepted: send the photo ')


@pytest.mark.parametrize('coding', ['gzip', 'br', 'identity, gzip'])
def test_classify_compressed_body_is_refused_by_its_header(client, coding):
  answer = client.post('/api/classify', data=gzipped(kit.photo()),
                       headers={'Content-Encoding': coding})
  error = check(answer, '/api/classify', 'post')['error']
  assert (answer.status_code, error['code']) == (415, 'bad_encoding')
  assert 'Content-Encoding: ' + coding in error['message']
  assert answer.headers['Accept-Encoding'] == 'identity'


def test_classify_form_without_boundary_says_so(client):
  # What a client sends whose caller has set the header by hand.
  answer = client.post('/api/classify', data=kit.form(kit.photo()),
                       content_type='multipart/form-data')
  error = check(answer, '/api/classify', 'post')['error']
  assert error['code'] == 'no_boundary' and 'boundary' in error['message']


def test_classify_from_another_site_is_refused(client, service):
  answer, reply = classify(client, kit.photo(),
                           headers={'Origin': 'http://evil.example'})
  assert (answer.status_code, reply['error']['code']) == (403, 'cross_site')
  assert not service.seen


@pytest.mark.parametrize('data, status, code', [
    (b'', 400, 'empty_file'),
    (b'<html>', 415, 'not_a_photo'),
    (b'GIF89a' + b'x' * 99, 415, 'not_a_photo'),
    (b' ' + kit.photo(), 415, 'not_a_photo'),
    (kit.photo() + b'\0' * 2 ** 20, 413, 'too_large'),
    (kit.photo()[:30], 422, 'unreadable_photo'),
    (kit.photo()[:2] + b'\xff\xfe\0\2' * 1001 + kit.photo()[2:], 422,
     'too_costly'),
    (kit.photo(size=(101, 100)), 422, 'too_many_pixels'),
    (kit.photo('PNG', size=(101, 100)), 422, 'too_many_pixels'),
], ids=kit.short)
def test_classify_only_photo_unusable_is_refused(client, service, data, status,
                                                 code):
  answer, reply = classify(client, data)
  assert (answer.status_code, reply['error']['code']) == (status, code)
  assert not service.seen


@pytest.mark.parametrize('error, status, code, retry', [
    (PhotoError('in /home/somebody'), 422, 'unreadable_photo', None),
    (CostlyPhotoError('in /home/somebody'), 422, 'too_costly', None),
    (Busy(3), 503, 'busy', '3'), (Busy(0), 503, 'busy', '1'),
    (Closing(), 503, 'closing', None),
    (TimedOut(3), 503, 'timed_out', '3'),
    (Gone(), 499, 'client_left', None),
    (RuntimeError('in /home/somebody'), 500, 'our_mistake', None),
])
def test_classify_service_that_fails_says_so_in_json(client, service, error,
                                                     status, code, retry):
  service.error = error
  answer, reply = classify(client, kit.photo())
  assert (answer.status_code, reply['error']['code']) == (status, code)
  assert answer.headers.get('Retry-After') == retry
  assert 'somebody' not in reply['error']['message']


def test_classify_sentence_follows_the_language(client):
  reply = classify(client, b'x', headers={'Accept-Language': 'zh-CN'})[1]
  assert reply['error'] == {'code': 'not_a_photo',
                            'message': 'a.jpg：不接受纯文本：'
                                       '请发送 JPEG 或 PNG 格式的照片。'}


@pytest.mark.parametrize('method, path, status, code', [
    ('get', '/api/classify', 405, 'not_allowed'),
    ('delete', '/api/model', 405, 'not_allowed'),
    ('get', '/api/nothing', 404, 'not_found'),
    ('get', '/api/', 404, 'not_found'), ('get', '/api', 404, 'not_found'),
])
def test_api_errors_of_the_path_are_json(client, method, path, status, code):
  answer = getattr(client, method)(path)
  assert (answer.status_code, answer.json['error']['code']) == (status, code)
  assert set(answer.json['error']) == {'code', 'message'}


@pytest.mark.parametrize('header, status', [
    (None, 401), ('Bearer wrong', 401), ('Basic s3cret', 401), ('s3cret', 401),
    ('Bearer', 401), ('Bearer s3cret2', 401), ('Bearer \xff\xfe', 401),
    ('Bearer s3cret', 200), ('bearer s3cret', 200),
])
def test_token_is_wanted_by_classify_and_model(service, header, status):
  client = kit.make_client(service, API_TOKEN='s3cret')
  headers = {} if header is None else {'Authorization': header}
  answers = [classify(client, kit.photo(), headers=headers)[0],
             client.get('/api/model', headers=headers)]
  check(answers[1], '/api/model')
  assert [answer.status_code for answer in answers] == [status] * 2
  if status == 401:
    assert not service.seen
    assert answers[0].headers['WWW-Authenticate'] == 'Bearer'
  others = ['/', '/healthz', '/readyz', '/metrics', '/api/openapi.json']
  assert [client.get(path).status_code for path in others] == [200] * 5
  assert kit.post_form(client, '/', kit.photo()).status_code == 200


def test_model_tells_facts_without_paths(client):
  facts = check(client.get('/api/model'), '/api/model')
  assert (facts['file'], facts['checkpoint']) == ('a.pb', 'model.ckpt-7')
  assert facts['evaluation'] == {'accuracy': 0.5, 'loss': None,
                                 'file': 'best.json'}


def test_health_and_readiness(client, service):
  assert check(client.get('/healthz'), '/healthz') == 'ok'
  assert check(client.get('/readyz'), '/readyz') == 'ready'
  service.ready = False
  answer = client.get('/readyz')
  assert answer.status_code == 503 and check(answer, '/readyz') == 'not ready'
  assert client.get('/healthz').status_code == 200


def test_openapi_is_served_and_describes_every_address(client):
  assert check(client.get('/api/openapi.json'), '/api/openapi.json') == OPENAPI
  rules = {rule.rule: rule.methods - {'HEAD', 'OPTIONS'}
           for rule in client.application.url_map.iter_rules()}
  described = {path: {method.upper() for method in methods}
               for path, methods in OPENAPI['paths'].items()}
  assert described == {path: methods for path, methods in rules.items()
                       if path != '/' and not path.startswith('/static/')}
  codes = OPENAPI['components']['schemas']['Error']['properties']['error'][
      'properties']['code']['enum']
  assert codes == sorted(refusals.STATUS)


def test_metrics_are_text(client):
  assert 'classifier_photos_total 11\n' in check(client.get('/metrics'),
                                                 '/metrics')
