"""The manifest file: what is written comes back, anything else is refused."""

import json
import os

import pytest

from datasets import manifest
from errors import InputError


def example(**changes):
  fields = dict(
      name='flowers', labels=['daisy', '玫瑰'], seed=3, percent_validation=20,
      splits={'train': {'size': 1, 'shards': ['flowers_train-0'],
                        'class_counts': {'daisy': 1, '玫瑰': 0}}},
      files={'daisy/a.jpg': 'train'},
      skipped=[{'file': 'daisy/b.jpg', 'reason': 'the file is empty'}],
      percent_test=9.5, digests={'daisy/a.jpg': 'ab12'},
      duplicates=[['daisy/c.jpg', '玫瑰/c.jpg'],
                  ['daisy/a.jpg', 'daisy/d.jpg']])
  fields.update(changes)
  return manifest.Manifest(**fields)


def test_load_after_save_gives_the_same_manifest(tmp_path):
  manifest.save(str(tmp_path), example())
  assert manifest.load(str(tmp_path), 'flowers') == example()


def test_save_writes_readable_utf8_and_leaves_nothing_aside(tmp_path):
  manifest.save(str(tmp_path), example())
  assert os.listdir(str(tmp_path)) == ['flowers.json']
  text = (tmp_path / 'flowers.json').read_bytes().decode('utf-8')
  assert '玫瑰' in text and text.count('\n') > 10
  assert list(json.loads(text)) == list(manifest.Manifest._fields)


def test_load_without_file_or_folder_gives_none(tmp_path):
  assert manifest.load(str(tmp_path), 'flowers') is None
  assert manifest.load(str(tmp_path / 'nowhere'), 'flowers') is None


def test_load_of_an_earlier_version_fills_in_what_it_lacks(tmp_path):
  fields = example()._asdict()
  for field in ('percent_test', 'digests', 'duplicates'):
    del fields[field]
  (tmp_path / 'flowers.json').write_text(json.dumps(fields))
  assert manifest.load(str(tmp_path), 'flowers') == example(
      percent_test=0, digests={}, duplicates=[])


def test_contradictions_are_the_duplicates_in_no_split():
  assert manifest.contradictions(example()) == [['daisy/c.jpg', '玫瑰/c.jpg']]


def test_load_of_unreadable_json_names_the_file(tmp_path):
  (tmp_path / 'flowers.json').write_text('{"name": ')
  with pytest.raises(InputError, match=r'cannot read .*flowers\.json'):
    manifest.load(str(tmp_path), 'flowers')


@pytest.mark.parametrize('content, lacking', [
    ([], 'name'), ({'name': 'flowers'}, 'labels'),
    (dict(example()._asdict(), splits=[]), 'splits'),
    (dict(example()._asdict(), splits={'train': {'size': 3}}), 'class_counts'),
    (dict(example()._asdict(), percent_test='1'), "'percent_test' that is a"),
    (dict(example()._asdict(), files={'daisy/a.jpg': 3}), 'daisy/a.jpg.*is 3'),
], ids=['list', 'no labels', 'splits is a list', 'no shards', 'text', 'file'])
def test_load_of_another_json_names_what_lacks(tmp_path, content, lacking):
  (tmp_path / 'flowers.json').write_text(json.dumps(content))
  with pytest.raises(InputError, match=lacking):
    manifest.load(str(tmp_path), 'flowers')
