"""Tests of serving/web/api.py against static/openapi.json."""

import base64
import io
import json
import os
import re
import zlib

import jsonschema
import pytest
from PIL import Image

from datasets.photo_files.photo_colors import CostlyPhotoError, PhotoError
from kits import service_kit as kit
from kits.helpers import ROOT
from serving.model.batching import Busy, ShuttingDown
from serving.model.deadlines import ClientDisconnected, TimedOut
from serving.model.predictions import Neighbour
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


def check(response, path, method='get'):
  """Asserts that the OpenAPI file describes a response.

  Returns:
    Its JSON, or its text if it is not JSON.
  """
  description = OPENAPI['paths'][path][method]['responses'][
      str(response.status_code)]
  schema = dict(description['content'][response.mimetype]['schema'],
                components=OPENAPI['components'])
  value = response.get_data(as_text=True)
  if response.mimetype == 'application/json':
    value = json.loads(value, parse_constant=lambda word: pytest.fail(word))
  jsonschema.Draft202012Validator(schema).validate(value)
  for name, header in description.get('headers', {}).items():
    if name in response.headers and 'const' in header['schema']:
      assert response.headers[name] == header['schema']['const']
  return value


def classify(client, *data, **options):
  """Posts photos; returns the response and its JSON, both checked."""
  query = options.pop('query', '')
  response = kit.post_form(client, '/api/classify' + query, *data, **options)
  return response, check(response, '/api/classify', 'post')


def gzipped(data):
  packer = zlib.compressobj(wbits=31)  # Has no timestamp.
  return packer.compress(data) + packer.flush()


def test_classify_form_returns_every_class_by_probability(client, service):
  response, result = classify(client, kit.photo())
  assert response.status_code == 200
  assert result['photos'] == [{
      'classes': ['tulip', 'daisy', 'rose'], 'model_sha256': '0' * 64,
      'probabilities': [pytest.approx(p) for p in (0.7, 0.2, 0.1)]}]
  assert result['photos'][0]['probabilities'][0] == float(service.scores[1])
  assert 0 <= result['milliseconds'] < 10000


@pytest.mark.parametrize('known', [True, False])
def test_classify_graph_with_ood_detection_returns_known(client, service,
                                                         known):
  service.known = known
  photo, = classify(client, kit.photo())[1]['photos']
  assert (photo['known'], photo['similarity']) == (known, 0.5)


@pytest.mark.parametrize('kind', [
    None, 'image/jpeg', 'application/octet-stream', 'text/html',
    'application/x-www-form-urlencoded'])
def test_classify_raw_bytes_of_any_content_type_are_a_photo(client, service,
                                                            kind):
  response = client.post('/api/classify', data=kit.photo('PNG'),
                         content_type=kind)
  assert len(check(response, '/api/classify', 'post')['photos']) == 1
  assert service.seen == [kit.photo('PNG')]


def test_classify_several_photos_returns_results_and_errors_in_order(client):
  response, result = classify(client, b'words', kit.photo(), b'')
  assert response.status_code == 200
  assert result['photos'][0]['error']['code'] == 'not_a_photo'
  assert result['photos'][1]['classes'][0] == 'tulip'
  assert result['photos'][2]['error']['code'] == 'empty_file'


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
def test_classify_top_invalid_value_is_refused(client, top):
  response, result = classify(client, kit.photo(), query='?top=' + top)
  assert response.status_code == 400
  assert result['error']['code'] == 'bad_parameter'


def test_classify_top_in_a_form_field_limits_the_classes(client):
  body = kit.part(b'2', name=b'top', filename=None) + kit.form(kit.photo())
  for query, status in (('', 200), ('?top=2', 200), ('?top=3', 400)):
    response = client.post('/api/classify' + query, data=body,
                           content_type=kit.form_type())
    result = check(response, '/api/classify', 'post')
    assert response.status_code == status
    if status == 200:
      assert len(result['photos'][0]['classes']) == 2
    else:
      assert result['error']['code'] == 'bad_parameter'


@pytest.mark.parametrize('parts, code, message', [
    # curl -F photo=@rose.jpg
    ([kit.part(kit.photo(), name=b'photo')], 'wrong_field',
     'The field "photo" is not known: photos belong in the field "file".'),
    # Ignoring the second photo would go unnoticed.
    ([kit.part(kit.photo()), kit.part(kit.photo(), name=b'file2')],
     'wrong_field', 'The field "file2" is not known: .*'),
    # curl -F file=rose.jpg, -F photo=rose.jpg
    ([kit.part(b'rose.jpg', filename=None)], 'not_a_file',
     'The field "file" contains text instead of a file.'),
    ([kit.part(b'rose.jpg', b'photo', None)], 'wrong_field',
     'The field "photo" is not known: .*'),
    ([kit.part(b'rose.jpg', b'photos/file', None)], 'wrong_field',
     'The field "photos/file" is not known: .*'),
    ([kit.part(b'', b'<a\nb>' + b'x' * 999)], 'wrong_field',
     'The field "<a b>x{75}…" is not known: .*'),
    ([kit.part(b'', filename=b'')], 'no_photo', '.*choose one first.'),
], ids=kit.short_id)
def test_classify_form_without_a_photo_error_names_the_field(client, parts,
                                                             code, message):
  response = client.post('/api/classify', content_type=kit.form_type(),
                         data=b''.join(parts) + b'--%s--\r\n' % kit.BOUNDARY)
  error = check(response, '/api/classify', 'post')['error']
  assert (response.status_code, error['code']) == (400, code)
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
], ids=kit.short_id)
def test_classify_invalid_photo_error_names_file_and_format(client, name, data,
                                                            message):
  body = kit.part(data, filename=name)
  for parts in (body, kit.part(kit.photo()) + body):
    response = client.post('/api/classify', content_type=kit.form_type(),
                           data=parts + b'--%s--\r\n' % kit.BOUNDARY)
    result = check(response, '/api/classify', 'post')
    error = result['error'] if parts == body else result['photos'][1]['error']
    assert re.fullmatch(message, error['message'])


def test_classify_undecodable_photo_error_names_the_file(client, service):
  service.error = PhotoError('cut off')
  result = classify(client, kit.photo())[1]
  assert result['error']['message'].startswith('a.jpg: This photo cannot be ')


@pytest.mark.parametrize('data, kind, name', [
    (json.dumps({'image': base64.b64encode(kit.photo()).decode()}),
     'application/json', 'JSON'),
    (base64.b64encode(kit.photo('PNG')), 'text/plain', 'Base64'),
    (gzipped(kit.photo()), 'image/jpeg', 'gzip'),
    # curl -d file=@rose.jpg
    (b'file=@rose.jpg', 'application/x-www-form-urlencoded', 'Plain text'),
], ids=kit.short_id)
def test_classify_body_not_a_photo_error_names_its_format(client, data, kind,
                                                          name):
  response = client.post('/api/classify', data=data, content_type=kind)
  error = check(response, '/api/classify', 'post')['error']
  assert (response.status_code, error['code']) == (415, 'not_a_photo')
  assert error['message'].startswith(name + ' is not accepted: send the photo ')


@pytest.mark.parametrize('coding', ['gzip', 'br', 'identity, gzip'])
def test_classify_compressed_body_is_refused_by_its_header(client, coding):
  response = client.post('/api/classify', data=gzipped(kit.photo()),
                         headers={'Content-Encoding': coding})
  error = check(response, '/api/classify', 'post')['error']
  assert (response.status_code, error['code']) == (415, 'bad_encoding')
  assert 'Content-Encoding: ' + coding in error['message']
  assert response.headers['Accept-Encoding'] == 'identity'


def test_classify_form_without_boundary_is_refused(client):
  # Sent by clients whose caller sets the header by hand.
  response = client.post('/api/classify', data=kit.form(kit.photo()),
                         content_type='multipart/form-data')
  error = check(response, '/api/classify', 'post')['error']
  assert error['code'] == 'no_boundary' and 'boundary' in error['message']


def test_classify_from_another_site_is_refused(client, service):
  response, result = classify(client, kit.photo(),
                              headers={'Origin': 'http://evil.example'})
  assert (response.status_code, result['error']['code']) == (403, 'cross_site')
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
], ids=kit.short_id)
def test_classify_single_invalid_photo_is_refused(client, service, data, status,
                                                  code):
  response, result = classify(client, data)
  assert (response.status_code, result['error']['code']) == (status, code)
  assert not service.seen


def test_classify_photo_that_takes_too_much_memory_is_refused(service):
  client = kit.make_client(service, MAX_PHOTO_MB=42)
  response, result = classify(client, kit.photo('PNG', size=(1000, 500)))
  assert (response.status_code, result['error']) == (422, {
      'code': 'too_much_memory', 'message':
          'a.jpg: As a PNG, this photo of 1000 x 500 pixels takes 45 MB of '
          'memory; at most 42 MB are accepted. Please make it smaller.'})
  _, result = classify(client, kit.photo(size=(1000, 500), progressive=True))
  assert 'As a progressive JPEG, ' in result['error']['message']
  assert not service.seen
  response, _ = classify(client, kit.photo(size=(1000, 500)))
  assert response.status_code == 200


@pytest.mark.parametrize('error, status, code, retry', [
    (PhotoError('in /home/somebody'), 422, 'unreadable_photo', None),
    (CostlyPhotoError('in /home/somebody'), 422, 'too_costly', None),
    (Busy(3), 503, 'busy', '3'), (Busy(0), 503, 'busy', '1'),
    (ShuttingDown(), 503, 'closing', None),
    (TimedOut(3), 503, 'timed_out', '3'),
    (ClientDisconnected(), 499, 'client_left', None),
    (RuntimeError('in /home/somebody'), 500, 'our_mistake', None),
])
def test_classify_error_of_the_service_is_returned_as_json(
    client, service, error, status, code, retry):
  service.error = error
  response, result = classify(client, kit.photo())
  assert (response.status_code, result['error']['code']) == (status, code)
  assert response.headers.get('Retry-After') == retry
  assert 'somebody' not in result['error']['message']


def test_classify_error_message_follows_accept_language(client):
  result = classify(client, b'x', headers={'Accept-Language': 'zh-CN'})[1]
  assert result['error'] == {'code': 'not_a_photo',
                             'message': 'a.jpg：不接受纯文本：'
                                        '请发送 JPEG 或 PNG 格式的照片。'}


@pytest.mark.parametrize('method, path, status, code', [
    ('get', '/api/classify', 405, 'not_allowed'),
    ('delete', '/api/model', 405, 'not_allowed'),
    ('get', '/api/nothing', 404, 'not_found'),
    ('get', '/api/', 404, 'not_found'), ('get', '/api', 404, 'not_found'),
])
def test_api_wrong_path_or_method_returns_json(client, method, path, status,
                                               code):
  response = getattr(client, method)(path)
  assert response.status_code == status
  assert response.json['error']['code'] == code
  assert set(response.json['error']) == {'code', 'message'}


@pytest.mark.parametrize('header, status', [
    (None, 401), ('Bearer wrong', 401), ('Basic s3cret', 401), ('s3cret', 401),
    ('Bearer', 401), ('Bearer s3cret2', 401), ('Bearer \xff\xfe', 401),
    ('Bearer s3cret', 200), ('bearer s3cret', 200),
])
def test_token_is_required_by_classify_and_model_only(service, header, status):
  client = kit.make_client(service, API_TOKEN='s3cret')
  headers = {} if header is None else {'Authorization': header}
  responses = [classify(client, kit.photo(), headers=headers)[0],
               client.get('/api/model', headers=headers)]
  check(responses[1], '/api/model')
  assert [response.status_code for response in responses] == [status] * 2
  if status == 401:
    assert not service.seen
    assert responses[0].headers['WWW-Authenticate'] == 'Bearer'
  open_paths = ['/', '/healthz', '/readyz', '/metrics', '/api/openapi.json']
  assert [client.get(path).status_code for path in open_paths] == [200] * 5
  assert kit.post_form(client, '/', kit.photo()).status_code == 200


def test_model_returns_file_names_without_folders(client):
  info = check(client.get('/api/model'), '/api/model')
  assert (info['file'], info['checkpoint']) == ('a.pb', 'model.ckpt-7')
  assert info['evaluation'] == {'accuracy': 0.5, 'loss': None,
                                'file': 'best.json'}


def test_readyz_follows_the_service_and_healthz_does_not(client, service):
  assert check(client.get('/healthz'), '/healthz') == 'ok'
  assert check(client.get('/readyz'), '/readyz') == 'ready'
  service.ready = False
  response = client.get('/readyz')
  assert response.status_code == 503
  assert check(response, '/readyz') == 'not ready'
  assert client.get('/healthz').status_code == 200


def test_openapi_is_served_and_describes_every_route(client):
  assert check(client.get('/api/openapi.json'), '/api/openapi.json') == OPENAPI
  rules = {rule.rule: rule.methods - {'HEAD', 'OPTIONS'}
           for rule in client.application.url_map.iter_rules()}
  described = {path: {method.upper() for method in methods}
               for path, methods in OPENAPI['paths'].items()}
  assert described == {path: methods for path, methods in rules.items()
                       if path not in ('/', '/corrections') and
                       not path.startswith(('/static/', '/examples/'))}
  codes = OPENAPI['components']['schemas']['Error']['properties']['error'][
      'properties']['code']['enum']
  assert codes == sorted(refusals.STATUS)


def test_metrics_are_text(client):
  assert 'classifier_photos_total 11\n' in check(client.get('/metrics'),
                                                 '/metrics')


def nearest_photos():
  return [Neighbour('a/%s.jpg' % label, label, 0.75, row, picture)
          for row, (label, picture) in enumerate(zip(
              ('rose', 'tulip'), (kit.photo(), None)))]


@pytest.mark.parametrize('given, label', [('', 'tulip'), ('rose', 'rose')])
def test_classify_explain_returns_the_heat_map_of_the_class(client, given,
                                                            label):
  response, result = classify(client, kit.photo(size=(80, 80)),
                              query='?explain=' + given)
  assert response.status_code == 200
  heat_map = result['photos'][0]['heat_map']
  assert heat_map['class'] == label
  assert heat_map['values'] == [[1, 0.25], [0, 0]]
  assert heat_map['window'] == [0.125, 0.125, 0.75, 0.75]
  data = base64.b64decode(heat_map['picture'].split(',')[1])
  assert Image.open(io.BytesIO(data)).size == (80, 80)


def test_classify_explain_in_a_form_field_names_a_class_of_any_length(
    client, service):
  service.labels[0] = '雏' * 60
  response = client.post('/api/classify', data=kit.part(
      service.labels[0].encode(), b'explain', None) + kit.form(kit.photo()),
                         content_type=kit.form_type())
  result = check(response, '/api/classify', 'post')
  assert result['photos'][0]['heat_map']['class'] == service.labels[0]


def test_classify_without_parameters_returns_scores_only(client, service):
  service.nearest = nearest_photos()
  _, result = classify(client, kit.photo())
  assert not {'heat_map', 'nearest'} & set(result['photos'][0])


def test_classify_nearest_returns_training_photos(client, service):
  service.nearest = nearest_photos()
  _, result = classify(client, kit.photo(), query='?nearest=3')
  first, second = result['photos'][0]['nearest']
  assert first['file'] == 'rose.jpg' and first['class'] == 'rose'
  assert first['similarity'] == 0.75
  assert base64.b64decode(first['picture'].split(',')[1]) == kit.photo()
  assert second['picture'] is None
  _, result = classify(client, kit.photo(), query='?nearest=1')
  assert len(result['photos'][0]['nearest']) == 1


@pytest.mark.parametrize('query, code', [
    ('?explain=gull', 'bad_parameter'), ('?explain=rose&explain=tulip',
                                         'bad_parameter'),
    ('?nearest=0', 'bad_parameter'), ('?nearest=x', 'bad_parameter'),
    ('?nearest=3', 'not_available')])
def test_classify_details_that_do_not_exist_are_refused(client, query, code):
  response, result = classify(client, kit.photo(), query=query)
  assert response.status_code == 400 and result['error']['code'] == code


@pytest.mark.parametrize('query, config', [
    ('?explain=', {'EXPLAIN': False}), ('?nearest=3', {'EXAMPLES': False})])
def test_classify_details_that_the_settings_forbid_are_refused(service, query,
                                                               config):
  service.nearest = nearest_photos()
  client = kit.make_client(service, **config)
  response, result = classify(client, kit.photo(), query=query)
  assert result['error']['code'] == 'not_available' and not service.seen


def test_classify_explain_with_a_graph_without_heat_maps_is_refused(client,
                                                                    service):
  service.can_explain = False
  response, result = classify(client, kit.photo(), query='?explain=')
  assert response.status_code == 400
  assert result['error']['code'] == 'not_available'
