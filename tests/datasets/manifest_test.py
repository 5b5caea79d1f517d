"""Tests of datasets/manifest.py: a round trip, and invalid manifests."""

import json
import os

import pytest

from common.errors import InputError
from datasets import manifest


def example(**changes):
  fields = dict(
      name='flowers', labels=['daisy', '玫瑰'], seed=3, percent_validation=20,
      splits={'train': {'size': 1, 'shards': ['flowers_train-0'],
                        'class_counts': {'daisy': 1, '玫瑰': 0}}},
      files={'daisy/a.jpg': 'train'},
      skipped=[{'file': 'daisy/b.jpg', 'reason': 'the file is empty'}],
      percent_test=9.5, digests={'daisy/a.jpg': 'ab12'},
      duplicates=[['daisy/c.jpg', '玫瑰/c.jpg'],
                  ['daisy/a.jpg', 'daisy/d.jpg']],
      pixels={'daisy/a.jpg': 'cd34'})
  fields.update(changes)
  return manifest.Manifest(**fields)


def test_load_after_save_returns_the_same_manifest(tmp_path):
  manifest.save(str(tmp_path), example())
  assert manifest.load(str(tmp_path), 'flowers') == example()


def test_save_writes_readable_utf8_and_no_other_file(tmp_path):
  manifest.save(str(tmp_path), example())
  assert os.listdir(str(tmp_path)) == ['flowers.json']
  text = (tmp_path / 'flowers.json').read_bytes().decode('utf-8')
  assert '玫瑰' in text and text.count('\n') > 10
  assert list(json.loads(text)) == list(manifest.Manifest._fields)


def test_load_without_file_or_folder_returns_none(tmp_path):
  assert manifest.load(str(tmp_path), 'flowers') is None
  assert manifest.load(str(tmp_path / 'nowhere'), 'flowers') is None


def test_load_of_an_earlier_version_fills_in_missing_fields(tmp_path):
  fields = example()._asdict()
  for field in ('percent_test', 'digests', 'duplicates', 'pixels'):
    del fields[field]
  (tmp_path / 'flowers.json').write_text(json.dumps(fields))
  assert manifest.load(str(tmp_path), 'flowers') == example(
      percent_test=0, digests={}, duplicates=[], pixels={})


def test_contradictions_returns_the_duplicates_that_are_in_no_split():
  assert manifest.contradictions(example()) == [['daisy/c.jpg', '玫瑰/c.jpg']]


def test_load_of_unreadable_json_names_the_file(tmp_path):
  (tmp_path / 'flowers.json').write_text('{"name": ')
  with pytest.raises(InputError, match=r'cannot read .*flowers\.json'):
    manifest.load(str(tmp_path), 'flowers')


@pytest.mark.parametrize('content, message', [
    ([], r'the file is \[\], expected a table'),
    ({'name': 'flowers'}, "'labels' is missing, expected a list"),
    (dict(example()._asdict(), splits=[]), r"'splits' is \[\], expected a"),
    (dict(example()._asdict(), splits={'train': {'size': 3}}),
     "'shards' of split 'train' is missing"),
    (dict(example()._asdict(), percent_test='1'), "'percent_test' is '1', exp"),
    (dict(example()._asdict(), files={'daisy/a.jpg': 3}),
     "'files' is {'daisy/a.jpg': 3}, expected a table of text"),
], ids=['list', 'no labels', 'splits is a list', 'no shards', 'text', 'file'])
def test_load_of_json_that_is_not_a_manifest_names_the_field(
    tmp_path, content, message):
  (tmp_path / 'flowers.json').write_text(json.dumps(content))
  with pytest.raises(InputError, match=message):
    manifest.load(str(tmp_path), 'flowers')


INVALID_FIELDS = {
    'name': [3, None, '\ud800'],
    'labels': [[], 'daisy', [1, 2], ['daisy', None], ['\udfff'], {'daisy': 0}],
    'splits': [None, [], {'train': []}, {'train': 3}],
    'seed': ['0', 0.5, True, None],
    'percent_validation': ['10', -1, 100, True, float('nan'), 10 ** 400],
    'files': [[], {'a/b': None}], 'digests': [3, {'a/b': 1}],
    'skipped': [{}, ['a/b'], [{'file': 'a/b'}], [{'file': 3, 'reason': ''}]],
    'duplicates': [{}, ['a/b'], [[]], [[3]]],
}
INVALID_SPLIT_FIELDS = {
    'size': ['abc', -1, 1.5, None, True, 10 ** 400],
    'shards': [[], 'x', [3], [''], ['../x'], ['x\0'], ['..'], ['\ud800']],
    'class_counts': [[], {}, {'daisy': 1}, {'daisy': '1', '玫瑰': 0},
                     {'daisy': -1, '玫瑰': 0}],
    'shard_sizes': [3, ['a'], [-1], [1.0], [], [1, 2]],
    'shard_bytes': ['1', [None], [True], [1, 2]],
}


@pytest.mark.parametrize('field', sorted(INVALID_FIELDS))
def test_load_of_invalid_field_names_file_field_and_value(tmp_path, field):
  path = tmp_path / 'flowers.json'
  for value in INVALID_FIELDS[field]:
    path.write_text(json.dumps(dict(example()._asdict(), **{field: value})))
    with pytest.raises(InputError) as caught:
      manifest.load(str(tmp_path), 'flowers')
    message = str(caught.value)
    assert message.startswith('%s is not a manifest' % path)
    assert ": '%s' is " % field in message and '\n' not in message
    assert len(message) < 400


@pytest.mark.parametrize('field', sorted(INVALID_SPLIT_FIELDS))
def test_load_of_invalid_split_names_file_split_and_field(tmp_path, field):
  path = tmp_path / 'flowers.json'
  for value in INVALID_SPLIT_FIELDS[field]:
    entry = dict(example().splits['train'], **{field: value})
    path.write_text(json.dumps(example(splits={'train': entry})._asdict()))
    with pytest.raises(InputError) as caught:
      manifest.load(str(tmp_path), 'flowers')
    message = str(caught.value)
    assert message.startswith('%s is not a manifest' % path)
    assert ": '%s' of split 'train' " % field in message
    assert '\n' not in message


def test_load_keeps_records_and_bytes_of_each_shard(tmp_path):
  entry = dict(example().splits['train'], shard_sizes=[1], shard_bytes=[200])
  manifest.save(str(tmp_path), example(splits={'train': entry}))
  assert manifest.load(str(tmp_path), 'flowers').splits['train'] == entry


@pytest.mark.parametrize('opened, closed', [('[', ']'), ('{"a":', '}')])
def test_load_of_deeply_nested_json_names_the_file(tmp_path, opened, closed):
  (tmp_path / 'flowers.json').write_text(
      opened * 100000 + '0' + closed * 100000)
  with pytest.raises(InputError, match=r'flowers\.json: .*nested too deeply'):
    manifest.load(str(tmp_path), 'flowers')
