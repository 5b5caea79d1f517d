"""The API, and whether static/openapi.json says what it does."""

import json
import os
import re

import jsonschema
import pytest
import service_kit as kit
from helpers import ROOT

from datasets.photos import PhotoError
from serving import metrics, refusals
from serving.batching import Busy, Closing

with open(os.path.join(ROOT, 'serving', 'static', 'openapi.json'),
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


def test_classify_form_answers_every_class_largest_first(client, service):
  answer, reply = classify(client, kit.photo())
  assert answer.status_code == 200
  assert reply['photos'] == [{
      'classes': ['tulip', 'daisy', 'rose'],
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
    ('?top=1', 1), ('?top=2', 2), ('?top=99', 3), ('', 3)])
def test_classify_top_limits_the_classes(client, query, count):
  photo, = classify(client, kit.photo(), query=query)[1]['photos']
  assert len(photo['classes']) == len(photo['probabilities']) == count


@pytest.mark.parametrize('top', [
    '0', '-1', 'x', '', '1.5', '9' * 5000, '%00', '²', '1000000'])
def test_classify_top_that_is_no_number_is_refused(client, top):
  answer, reply = classify(client, kit.photo(), query='?top=' + top)
  assert answer.status_code == 400
  assert reply['error']['code'] == 'bad_parameter'


@pytest.mark.parametrize('data, status, code', [
    (b'', 400, 'empty_file'),
    (b'<html>', 415, 'not_a_photo'),
    (b'GIF89a' + b'x' * 99, 415, 'not_a_photo'),
    (b' ' + kit.photo(), 415, 'not_a_photo'),
    (kit.photo() + b'\0' * 2 ** 20, 413, 'too_large'),
    (kit.photo()[:30], 422, 'unreadable_photo'),
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
    (Busy(3), 503, 'busy', '3'), (Busy(0), 503, 'busy', '1'),
    (Closing(), 503, 'closing', None),
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
                            'message': '这个文件既不是 JPEG 也不是 PNG 照片。'}


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
  # The first is of the page's form only, the second never an answer of ours.
  assert set(codes) == set(refusals.STATUS) - {'cross_site', 'not_ready'}


def test_metrics_count_requests_and_tell_of_the_queue(client):
  for _ in range(3):
    classify(client, kit.photo())
  classify(client, b'')
  for number in range(30):
    client.get('/nowhere/%d' % number)
  text = check(client.get('/metrics'), '/metrics')
  values = dict(line.rsplit(' ', 1) for line in text.splitlines()
                if not line.startswith('#'))
  name = 'classifier_http_requests_total{path="%s",status="%d"}'
  assert values[name % ('/api/classify', 200)] == '3'
  assert values[name % ('/api/classify', 400)] == '1'
  assert values[name % ('other', 404)] == '30' and 'nowhere' not in text
  assert values['classifier_queue_length'] == '3'
  assert values['classifier_photos_total'] == '11'
  assert values['classifier_failed_swaps_total'] == '0'
  seconds = 'classifier_http_request_seconds_%s{path="/api/classify"%s}'
  assert values[seconds % ('count', '')] == '4'
  assert values[seconds % ('bucket', ',le="+Inf"')] == '4'
  sample = re.compile(r'[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [\d.]+')
  for line in text.splitlines():
    assert line.startswith(('# HELP ', '# TYPE ')) or sample.fullmatch(line)


def test_metrics_buckets_count_what_is_not_above_their_bound():
  requests = metrics.Requests()
  for seconds in (.001, .005, .0051, 99):
    requests.add('/', 200, seconds)
  text = requests.render({})
  counts = re.findall(r'_bucket\{path="/",le="([^"]+)"\} (\d+)', text)
  assert counts[:2] == [('0.005', '2'), ('0.01', '3')]
  assert counts[-2:] == [('30', '3'), ('+Inf', '4')]
