"""Tests of review_inbox.py."""

import json
import os

import pytest

from common.errors import InputError
from kits import serving_kit as kit
from kits.trained_kit import NAME, colour_photo, make_photos
from serving.web import inbox
from tools import review_inbox as program


@pytest.fixture
def data(tmp_path):
  make_photos(tmp_path / NAME, 2)
  return tmp_path


@pytest.fixture
def folder(data):
  """Inbox with four photos: a.., b.., c.. and d.."""
  folder = data / 'inbox'
  folder.mkdir()
  for number, (letter, right_class) in enumerate(
      [('a', 'red'), ('b', 'red'), ('c', None), ('d', 'sea holly')]):
    (folder / (letter * 32 + '.jpg')).write_bytes(colour_photo(1, 80 + number))
    (folder / (letter * 32 + '.json')).write_text(json.dumps({
        'class': right_class, 'answer': 'green',
        'time': '2026-11-30T06:00:0%dZ' % number}))
  return folder


def review(data, *arguments):
  kit.run(program, '--inbox=%s' % (data / 'inbox'), '--dataset_dir=%s' % data,
          '--dataset_name=' + NAME, *arguments)


def answer(monkeypatch, text):
  """Lets a terminal give these answers, one letter each."""
  letters = iter(text)
  monkeypatch.setattr(program.sys.stdin, 'isatty', lambda: True,
                      raising=False)
  monkeypatch.setattr('builtins.input', lambda prompt: next(letters))


def files_in(folder):
  return sorted(os.path.relpath(os.path.join(parent, name), str(folder))
                for parent, _, names in os.walk(str(folder)) for name in names)


def photo(letter):
  return letter * 32 + '.jpg'


def test_review_without_a_terminal_writes_a_page_and_moves_nothing(
    data, folder, capsys):
  before = files_in(data)
  review(data)
  output = capsys.readouterr().out
  assert '4 photos\n  none of the classes: 1\n  red: 2\n' in output
  assert '  sea holly (new class): 1\n' in output
  assert files_in(data) == sorted(before + ['inbox/review.csv',
                                            'inbox/review.html'])
  page = (folder / 'review.html').read_text()
  assert page.count('src="data:image/jpeg') == 4
  assert page.count('<figure data-file=') == 4
  assert (folder / 'review.csv').read_text().splitlines()[1] == (
      '"%s","red","","",""' % photo('a'))


def test_review_in_a_terminal_moves_photos_as_answered(data, folder, capsys,
                                                       monkeypatch):
  content = (folder / photo('d')).read_bytes()
  answer(monkeypatch, 'ynxyy')  # x is asked again.
  review(data)
  assert (data / NAME / 'red' / photo('a')).is_file()
  assert (folder / 'rejected' / photo('b')).is_file()
  assert (folder / 'unknown' / photo('c')).is_file()
  assert (data / NAME / 'sea holly' / photo('d')).read_bytes() == content
  assert inbox.read(str(folder)) == []
  assert not list(folder.glob('*.json'))
  assert 'red: 1\nrejected: 1\nsea holly: 1\n0 photos are still' in (
      capsys.readouterr().out)


def test_review_that_is_quit_continues_later(data, folder, monkeypatch):
  answer(monkeypatch, 'ylq')
  review(data)
  assert [one.photo for one in inbox.read(str(folder))] == [
      photo('b'), photo('c'), photo('d')]


def test_review_after_a_kill_between_copy_and_removal_continues(
    data, folder, monkeypatch):
  content = (folder / photo('a')).read_bytes()
  (data / NAME / 'red' / photo('a')).write_bytes(content)
  answer(monkeypatch, 'yq')
  review(data)
  assert (data / NAME / 'red' / photo('a')).read_bytes() == content
  assert len(inbox.read(str(folder))) == 3


def test_review_never_overwrites_a_photo(data, folder, monkeypatch):
  (data / NAME / 'red' / photo('a')).write_bytes(b'another')
  answer(monkeypatch, 'y')
  with pytest.raises(InputError, match='cannot move .*: File exists'):
    review(data)
  assert (data / NAME / 'red' / photo('a')).read_bytes() == b'another'
  assert (folder / photo('a')).is_file()


def choices(data, *rows):
  path = data / 'choices.csv'
  path.write_text('file,label,action,new_label,new_file\n' + ''.join(
      '%s,%s,%s,%s,\n' % row for row in rows))
  return '--apply=%s' % path


def test_apply_carries_out_choices_and_again_does_nothing(data, folder):
  flag = choices(data, (photo('a'), 'red', 'keep', ''),
                 (photo('b'), 'red', 'move', 'sea holly'),
                 (photo('c'), '', 'drop', ''), (photo('d'), '', '', ''))
  review(data, flag)
  assert (data / NAME / 'red' / photo('a')).is_file()
  assert (data / NAME / 'sea holly' / photo('b')).is_file()
  assert (folder / 'rejected' / photo('c')).is_file()
  assert [one.photo for one in inbox.read(str(folder))] == [photo('d')]
  after = files_in(data)
  review(data, flag)
  assert files_in(data) == after


@pytest.mark.parametrize('row, message', [
    ((photo('b'), '', 'move', 'yellow'), "line 3: unknown class 'yellow'"),
    ((photo('b'), '', 'eat', ''), "line 3: unknown action 'eat'")])
def test_apply_with_a_wrong_row_moves_nothing(data, folder, row, message):
  before = files_in(data)
  with pytest.raises(InputError, match=message):
    review(data, choices(data, (photo('a'), '', 'keep', ''), row))
  assert [name for name in files_in(data) if name != 'choices.csv'] == before


def test_accepted_photos_join_the_training_split_of_ready_made_splits(
    data, folder, monkeypatch):
  os.rename(str(data / NAME), str(data / 'classes'))
  for split in ('train', 'val'):
    make_photos(data / NAME / split, 2)
  answer(monkeypatch, 'yyyy')
  review(data)
  assert (data / NAME / 'train' / 'red' / photo('a')).is_file()
  assert (data / NAME / 'train' / 'sea holly' / photo('d')).is_file()


def test_review_with_a_class_that_cannot_be_a_folder_is_an_error(
    data, folder, monkeypatch):
  (folder / ('a' * 32 + '.json')).write_text(json.dumps(
      {'class': '../x', 'answer': None, 'time': ''}))
  answer(monkeypatch, 'y')
  with pytest.raises(InputError, match='cannot be the name of a class'):
    review(data)


def test_review_without_an_inbox_is_an_error(data):
  with pytest.raises(InputError, match='cannot read the inbox'):
    review(data)
