"""Tests of uploads.py and request_photos.py: kept uploads, slow forms."""

import gc
import io
import os
import shutil
import stat
import tempfile
import time
import tracemalloc

import pytest
import werkzeug.test
from PIL import Image

from common.errors import InputError
from datasets.photo_files import photos
from kits import service_kit as kit
from serving.model import heap_memory
from serving.web import logs, request_photos, texts, uploads
from serving.web.refusals import Refused

JPEG = b'\xff\xd8\xff\xe0' + b'j' * 10
PNG = b'\x89PNG\r\n\x1a\n' + b'p' * 10
MARK = b'--' + kit.BOUNDARY
# Seconds in which a hostile form of some MiB must be refused, on any machine.
CHEAP = 2.0


def files(body, boundary='----WebKitFormBoundaryAbc123'):
  photos, _ = request_photos.read_form(body, boundary, max_photos=16)
  return [photo.data for photo in photos]


def refusal(function, *arguments):
  """Returns the code with which a function refuses."""
  with pytest.raises(Refused) as caught:
    function(*arguments)
  return caught.value.code


def test_keep_writes_the_bytes_under_a_new_name(tmp_path):
  folder = uploads.make_folder(str(tmp_path / 'a' / 'b'))
  names = [uploads.write_photo(folder, data) for data in (JPEG, JPEG, PNG)]
  assert len(set(names)) == 3
  assert sorted(os.listdir(folder)) == sorted(names)
  assert [name[-4:] for name in names] == ['.jpg', '.jpg', '.png']
  for name, data in zip(names, (JPEG, JPEG, PNG)):
    assert uploads.is_upload_name(name)
    assert os.stat(os.path.join(folder, name)).st_mode & 0o077 == 0
    with open(os.path.join(folder, name), 'rb') as file:
      assert file.read() == data


def test_keep_other_content_is_refused(tmp_path):
  with pytest.raises(InputError, match='not one of JPEG, PNG'):
    uploads.write_photo(str(tmp_path), b'<html>')
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('name', [
    '', 'a.jpg', '0' * 32, '0' * 32 + '.gif', '0' * 31 + '.jpg',
    'A' * 32 + '.jpg', '0' * 32 + '.jpg\n', '../' + '0' * 32 + '.jpg',
    '0' * 32 + '.jpg/..',
])
def test_is_kept_name_other_name_is_refused(name):
  assert not uploads.is_upload_name(name)


def test_make_folder_on_a_file_is_refused(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(InputError, match='cannot make the folder.*file'):
    uploads.make_folder(str(tmp_path / 'file'))


def take_over(folder, days=1, megabytes=1):
  return uploads.UploadStore(str(folder), days, megabytes, max_pixels=10 ** 6)


def test_kept_too_much_removes_the_oldest(tmp_path):
  kept = take_over(tmp_path, megabytes=1)
  for number in range(5):
    kept.keep(kit.photo(icc_profile=bytes([number]) * 300000))
  found = sorted(Image.open(str(path)).info['icc_profile'][0]
                 for path in tmp_path.iterdir())
  assert found == [2, 3, 4]


def test_kept_too_old_is_removed_and_foreign_files_stay(tmp_path):
  old, new = (uploads.write_photo(str(tmp_path), JPEG) for _ in range(2))
  webp_of_another_engine = '0' * 32 + '.webp'
  (tmp_path / webp_of_another_engine).write_bytes(webp())
  (tmp_path / 'notes.txt').write_text('mine')
  for name in (old, webp_of_another_engine, 'notes.txt'):
    os.utime(str(tmp_path / name), (1, time.time() - 2 * 86400 - 9))
  take_over(tmp_path, days=2)
  assert sorted(os.listdir(str(tmp_path))) == sorted([new, 'notes.txt'])
  take_over(tmp_path, days=2, megabytes=0)
  assert os.listdir(str(tmp_path)) == ['notes.txt']


def test_kept_link_of_another_is_not_followed(tmp_path):
  (tmp_path / 'precious').write_text('mine')
  link = tmp_path / ('0' * 32 + '.jpg')
  link.symlink_to(tmp_path / 'precious')
  take_over(tmp_path, days=0, megabytes=0)
  assert (tmp_path / 'precious').read_text() == 'mine' and link.is_symlink()


def test_kept_file_that_somebody_removed_is_no_error(tmp_path):
  kept = take_over(tmp_path, megabytes=0.001)
  kept.keep(kit.photo())
  os.remove(str(next(tmp_path.iterdir())))
  kept.keep(kit.photo(icc_profile=bytes(900)))
  assert not list(tmp_path.iterdir())


def test_kept_disk_that_is_full_still_answers(tmp_path, monkeypatch, log):
  client = kit.make_client(kit.FakeService(), KEEP_UPLOADS=True,
                           UPLOAD_FOLDER=str(tmp_path))

  now = [100.0]
  monkeypatch.setattr(logs.time, 'monotonic', lambda: now[0])
  really_open = open

  def open_on_a_full_disk(path, mode='r', **options):
    if mode != 'xb':
      return really_open(path, mode, **options)
    really_open(path, mode).close()
    return really_open('/dev/full', 'wb')

  monkeypatch.setattr('builtins.open', open_on_a_full_disk)
  for seconds, lines in ((100, 1), (101, 1), (159.9, 1), (160, 2)):
    now[0] = seconds
    assert kit.post_form(client, '/', kit.photo()).status_code == 200
    assert log.text.count('cannot keep a photo: No space left') == lines
  assert 'No space left on device (2 more times before)' in log.text
  assert not list(tmp_path.iterdir())
  assert '\nclassifier_unkept_total 4\n' in client.get('/metrics').get_data(
      as_text=True)


def test_app_keeps_usable_photos_only_where_asked(tmp_path):
  folder = tmp_path / 'kept'
  client = kit.make_client(kit.FakeService(), KEEP_UPLOADS=True,
                           UPLOAD_FOLDER=str(folder))
  for path in ('/', '/api/classify'):
    kit.post_form(client, path, kit.photo(comment=b'48.8584 N'), b'words',
                  kit.photo('PNG') + b'film')
  assert sorted(path.read_bytes() for path in folder.iterdir()) == sorted(
      2 * [kit.photo(), kit.photo('PNG')])
  other = tmp_path / 'other'
  client = kit.make_client(kit.FakeService(), UPLOAD_FOLDER=str(other))
  kit.post_form(client, '/', kit.photo())
  assert not other.exists()


def pass_days(monkeypatch, days):
  later = uploads._now() + days * 86400
  monkeypatch.setattr(uploads, '_now', lambda: later)


def set_clock(monkeypatch, days):
  """Has the system's clock jump by so many days."""
  then = time.time() + days * 86400
  monkeypatch.setattr(uploads.time, 'time', lambda: then)


def test_kept_ages_do_not_follow_jumps_of_the_clock(tmp_path, monkeypatch):
  kept = take_over(tmp_path, days=30)
  for days in (400, -400, 0):  # Photos come while the clock is wrong.
    set_clock(monkeypatch, days)
    kept.keep(kit.photo())
    kept.remove_old()
  assert len(os.listdir(str(tmp_path))) == 3
  pass_days(monkeypatch, 30.1)
  kept.keep(kit.photo())
  assert len(os.listdir(str(tmp_path))) == 1


def test_kept_photo_of_the_future_is_removed_in_time(tmp_path, monkeypatch):
  path = tmp_path / uploads.write_photo(str(tmp_path), JPEG)
  ahead = time.time() + 400 * 86400
  os.utime(str(path), (ahead, ahead))
  kept = take_over(tmp_path, days=30)
  assert path.stat().st_mtime <= time.time()  # Nor from the next start on.
  pass_days(monkeypatch, 29.9)
  kept.remove_old()
  assert path.exists()
  pass_days(monkeypatch, 0.2)
  kept.remove_old()
  assert not path.exists()


def test_kept_folder_that_is_gone_is_made_again_for_its_owner(tmp_path):
  folder = tmp_path / 'kept'
  kept = take_over(folder)
  shutil.rmtree(str(folder))
  kept.keep(kit.photo())
  assert len(os.listdir(str(folder))) == 1
  assert folder.stat().st_mode & 0o777 == 0o700


def test_make_folder_behind_a_link_is_refused(tmp_path, log):
  (tmp_path / 'link').symlink_to(tmp_path)
  with pytest.raises(InputError, match='link\' is a symbolic link'):
    uploads.make_folder(str(tmp_path / 'link'))
  folder = tmp_path / 'kept'
  kept = take_over(folder)
  folder.rmdir()
  folder.symlink_to(tmp_path)
  kept.keep(kit.photo())
  assert 'is a symbolic link' in log.text
  assert sorted(os.listdir(str(tmp_path))) == ['kept', 'link']


def test_make_folder_of_another_user_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(os, 'geteuid', lambda: 12345)
  monkeypatch.setattr(os, 'lstat', lambda path: os.stat_result(
      [stat.S_IFDIR | 0o777, 0, 0, 1, 54321, 0, 0, 0, 0, 0]))
  with pytest.raises(InputError, match='another user .uid 54321'):
    uploads.make_folder(str(tmp_path))


def test_app_idle_removes_what_is_too_old(tmp_path, monkeypatch):
  client = kit.make_client(kit.FakeService(), KEEP_UPLOADS=True, KEEP_DAYS=3,
                           UPLOAD_FOLDER=str(tmp_path))
  kit.post_form(client, '/', kit.photo())
  client.get('/healthz')
  assert len(list(tmp_path.iterdir())) == 1
  pass_days(monkeypatch, 3 + 1e-5)
  client.get('/healthz')
  assert not list(tmp_path.iterdir())


def test_app_without_keeping_makes_no_file_at_all(monkeypatch):
  def no_file(*arguments, **options):
    raise AssertionError('a file was made')

  for name in ('TemporaryFile', 'SpooledTemporaryFile', 'NamedTemporaryFile',
               'mkstemp'):
    monkeypatch.setattr(tempfile, name, no_file)
  # werkzeug has its own reference to it.
  monkeypatch.setattr('werkzeug.formparser.SpooledTemporaryFile', no_file)
  client = kit.make_client(kit.FakeService())
  large = kit.photo() + b'\0' * 3 * 2 ** 20  # Above any spool limit.
  for path in ('/', '/api/classify'):
    assert kit.post_form(client, path, large, large).status_code == 200


@pytest.mark.parametrize('data, code', [
    (b'', 'empty_file'), (b'x', 'not_a_photo'), (JPEG, 'unreadable_photo'),
    (PNG, 'unreadable_photo'),
    (kit.photo()[:100], 'unreadable_photo'),
    (kit.photo('PNG')[:20], 'unreadable_photo'),
    (b'\xff\xd8' + b'\xff' * 999000, 'unreadable_photo'),
    (b'\xff\xd8' + b'\xff\xe0\0\x02' * 10 ** 5, 'too_costly'),
    (b'\xff\xd8\xff\xe0\0\0' * 10 ** 5, 'unreadable_photo'),
    (kit.photo(size=(1001, 1000)), 'too_many_pixels'),
    (kit.photo('PNG', size=(1001, 1000)), 'too_many_pixels'),
    (kit.photo() + b'\0' * 10 ** 6, 'too_large'),
], ids=kit.short)
def test_check_refuses_before_anything_is_decoded(monkeypatch, data, code):
  def decode(*arguments):
    raise AssertionError('decoded')

  monkeypatch.setattr(Image.Image, 'load', decode)
  start = time.monotonic()
  assert refusal(uploads.check, data, 10 ** 6, 10 ** 6) == code
  assert time.monotonic() - start < CHEAP


@pytest.mark.parametrize('options', [
    dict(kind='PNG'), dict(kind='JPEG'), dict(kind='JPEG', progressive=True),
    dict(kind='JPEG', comment=b'\xff\xc0\0\x0b\x08\xff\xff\xff\xff'),
    dict(kind='JPEG', icc_profile=b'\xff\xc2' * 40000),
])
def test_check_reads_the_size_as_pillow_does(options):
  data = kit.photo(size=(123, 45), **options)
  uploads.check(data, 10 ** 7, 123 * 45)
  assert refusal(uploads.check, data, 10 ** 7, 123 * 45 - 1) == (
      'too_many_pixels')


def test_check_second_frame_of_another_size_counts():
  data = kit.photo(size=(20, 10))
  frame = b'\xff\xc0\0\x0b\x08\xff\xdc\xff\xdc\x01\x01\x11\0'
  assert refusal(uploads.check, data[:2] + frame + data[2:], 10 ** 6,
                 10 ** 6) == 'too_many_pixels'


def test_preview_is_small_upright_and_bare():
  exif = Image.Exif()
  exif[0x0112], exif[0x010e] = 8, 'SECRET'
  data = kit.photo(size=(2000, 1000), exif=exif)
  small = uploads.preview(data, 10 ** 7)
  image = Image.open(io.BytesIO(small))
  assert image.size == (360, 720)
  assert b'SECRET' in data and b'SECRET' not in small


def test_preview_of_an_upright_photo_is_bare_too():
  exif = Image.Exif()
  exif[0x010e] = 'SECRET'
  data = kit.photo(exif=exif, comment=b'SECRET', icc_profile=b'SECRET' * 9)
  assert data.count(b'SECRET') == 11
  assert b'SECRET' not in uploads.preview(data, 10 ** 7)


def test_files_come_back_byte_for_byte():
  contents = [b'', b'\r\n', b'--', bytes(range(256)) * 9, b'\r\n--x',
              MARK[:-1] + b'\r\n']
  assert files(kit.form(*contents)) == contents


def test_files_of_empty_choices_do_not_count():
  body = (kit.part(b'a', name=b'other', filename=None) +
          kit.part(b'', filename=b'') + kit.part(b'c', filename=b'') +
          kit.part(b'd') + MARK + b'--\r\n')
  assert files(body) == [b'c', b'd']


@pytest.mark.parametrize('body', [
    b'preamble\r\n' + kit.form(b'a') + b'epilogue',
    kit.form(b'a')[:-2],
    MARK + b' \t\r\nContent-Disposition:form-data;name=file;filename=a\r\n\r\n'
    b'a\r\n' + MARK + b'--',
    MARK + b'\r\nContent-Type: image/png\r\ncontent-disposition: Form-Data; '
    b"NAME=\"file\"; filename*=UTF-8''%e4\r\n\r\na\r\n" + MARK + b'--',
], ids=kit.short)
def test_files_of_unusual_forms_are_found(body):
  assert files(body) == [b'a']


@pytest.mark.parametrize('body', [
    b'', b'x', MARK, MARK + b'\r\n', kit.form(b'a')[:-20], kit.part(b'a'),
    MARK + b'\r\n\r\n\r\n' + MARK + b'--',
    MARK + b'x\r\n' + kit.form(b'a')[len(MARK) + 2:],
    MARK + b'\r\nContent-Disposition: form-data\r\n\r\na\r\n' + MARK + b'--',
    MARK + b'\r\nContent-Disposition: attachment; name="file"\r\n\r\na\r\n' +
    MARK + b'--',
    MARK + b'\r\nContent-Type: image/png\r\n\r\na\r\n' + MARK + b'--',
    MARK + b'\r\nContent-Disposition: form-data; name="file\r\n\r\na\r\n' +
    MARK + b'--',
    kit.part(b'a', filename=b'n' * 9000) + MARK + b'--',
    kit.form(b'a').replace(b'\r\n', b'\n'),
], ids=kit.short)
def test_files_of_a_damaged_form_are_refused(body):
  assert refusal(files, body) == 'bad_form'


@pytest.mark.parametrize('boundary', ['x', "'()+_,-./:=? 9", 'x' * 200],
                         ids=kit.short)
def test_files_with_any_boundary_of_a_client_are_found(boundary):
  body = kit.form(b'a').replace(kit.BOUNDARY, boundary.encode())
  assert files(body, boundary) == [b'a']


@pytest.mark.parametrize('boundary', [None, ''])
def test_files_without_a_boundary_are_refused(boundary):
  assert refusal(files, kit.form(b'a'), boundary) == 'no_boundary'


@pytest.mark.parametrize('boundary', [
    ' ', 'x' * 201, 'é', 'a\r\nb', 'a;b', '\0', 'a '], ids=kit.short)
def test_files_with_a_bad_boundary_are_refused(boundary):
  assert refusal(files, kit.form(b'a'), boundary) == 'bad_form'


@pytest.mark.parametrize('body, code', [
    (kit.part(b'a') * 17 + MARK + b'--', 'too_many_photos'),
    (kit.part(b'a', filename=None) * 33 + MARK + b'--', 'too_many_parts'),
    (kit.part(b'', filename=b'') * 10000 + MARK + b'--', 'too_many_parts'),
    (kit.part(b'a') * 10000, 'too_many_photos'),
    # CVE-2023-46136: a line break, and then megabytes without another one.
    (kit.part(b'a')[:-3] + b'\r' + b'a' * 2 ** 24, 'bad_form'),
    (kit.part(b'a')[:-3] + b'\n' * 2 ** 24, 'bad_form'),
    (MARK[:-1] * 10 ** 6, 'bad_form'),
    ((b'\r\n' + MARK[:-1]) * 10 ** 6, 'bad_form'),
    (MARK + b'\r\n' + b'a: b\r\n' * 10 ** 6, 'bad_form'),
    (MARK + b'\r\nContent-Disposition: form-data' + b'; a="' * 10 ** 6,
     'bad_form'),
    (MARK + b'\r\nContent-Disposition: form-data; a="' + b'\\"' * 3900 +
     b'\r\n\r\n\r\n' + MARK + b'--', 'bad_form'),
], ids=kit.short)
def test_files_of_a_hostile_form_are_refused_cheaply(body, code):
  start = time.monotonic()
  assert refusal(files, body) == code
  assert time.monotonic() - start < CHEAP


def test_trimmer_trims_once_for_all_calls_and_forgets_none(monkeypatch):
  calls, timers = [], []

  class Timer:
    fails = False

    def __init__(self, seconds, function):
      self.seconds, self.function = seconds, function

    def start(self):
      if Timer.fails:
        raise RuntimeError("can't start new thread")
      timers.append(self)

  monkeypatch.setattr(heap_memory.threading, 'Timer', Timer)
  trimmer = heap_memory.HeapTrimmer(10)
  monkeypatch.setattr(heap_memory, 'trim_heap', lambda: calls.append(1))
  trimmer.trim()
  trimmer.trim()
  assert [timer.seconds for timer in timers] == [10] and timers[0].daemon
  assert not calls
  timers.pop().function()
  assert len(calls) == 1
  Timer.fails = True
  trimmer.trim()
  Timer.fails = False
  trimmer.trim()
  timers.pop().function()
  assert len(calls) == 2


def test_trim_heap_of_a_c_library_without_it_does_nothing(monkeypatch):
  monkeypatch.setattr(heap_memory.ctypes, 'CDLL', lambda name: object())
  heap_memory.trim_heap()


@pytest.mark.parametrize('data', [
    b'x' * 10 ** 7, kit.photo()[:30] + b'\0' * 10 ** 6], ids=kit.short)
def test_refusal_of_a_large_photo_does_not_hold_it(data):
  app = kit.make_client(kit.FakeService(), MAX_UPLOAD_MB=1).application
  said = []

  def post():
    # Not by the test client, which holds requests itself.
    body = kit.form(data)
    environ = werkzeug.test.create_environ(
        '/', method='POST', data=body, content_type=kit.form_type())
    list(app(environ, lambda status, headers: said.append(status)))

  post()
  gc.collect()
  gc.disable()
  tracemalloc.start()
  try:
    post()
    assert said[1].startswith('4')
    assert tracemalloc.get_traced_memory()[0] < 10 ** 6
  finally:
    tracemalloc.stop()
    gc.enable()


def test_kept_photo_larger_than_all_may_be_is_not_written(tmp_path):
  kept = take_over(tmp_path, megabytes=1)
  kept.keep(kit.photo())
  kept.keep(kit.photo(icc_profile=bytes(2 ** 20)))
  assert len(os.listdir(str(tmp_path))) == 1


@pytest.mark.parametrize('disposition, name', [
    (b'form-data; name="file"; filename="a\\"', 'a\\'),
    (b'form-data; name="file"; filename="a.jpg";', 'a.jpg'),
    (b'form-data; name="file"; filename="a \\"b\\".jpg"', 'a "b".jpg'),
    (b"form-data; name=file; filename*=UTF-8''%e7%8b%97%20.jpg", '狗 .jpg'),
    ('form-data; name=file; filename="狗.jpg"'.encode(), '狗.jpg'),
    (b'form-data; name=file; filename=a.jpg ; ', 'a.jpg')], ids=kit.short)
def test_files_names_of_many_clients_are_understood(disposition, name):
  body = (b'--x\r\nContent-Disposition: ' + disposition +
          b'\r\n\r\ndata\r\n--x--\r\n')
  photo, = request_photos.read_form(body, 'x', max_photos=2)[0]
  assert photo == request_photos.Upload(name, b'data')


def test_check_side_longer_than_a_jpeg_holds_is_named():
  with pytest.raises(Refused) as caught:
    uploads.check(kit.photo('PNG', size=(66000, 2)), 2 ** 20, 10 ** 7)
  assert caught.value.code == 'too_many_pixels_a_side'


def webp(**options):
  return kit.photo('WEBP', size=(40, 30), **options)


@pytest.mark.skipif(not photos.can_read('WebP'), reason='refused: see below')
def test_check_webp_is_accepted_where_photos_read_it(tmp_path):
  uploads.check(webp(), 10 ** 6, 1200)
  assert refusal(uploads.check, webp(), 10 ** 6, 1199) == 'too_many_pixels'
  assert refusal(uploads.check, webp()[:28], 10 ** 6, 1200) == (
      'unreadable_photo')
  assert uploads.is_upload_name(uploads.write_photo(str(tmp_path), webp()))
  assert uploads.preview(webp(), 1200)[:3] == JPEG[:3]


@pytest.mark.skipif(photos.can_read('WebP'), reason='accepted: see above')
def test_check_webp_is_refused_where_photos_do_not_read_it(tmp_path):
  assert refusal(uploads.check, webp(), 10 ** 6, 1200) == 'not_a_photo'
  with pytest.raises(InputError):
    uploads.write_photo(str(tmp_path), webp())


def test_check_refuses_webp_and_heic_in_the_words_of_the_converter(monkeypatch):
  monkeypatch.setattr(photos, '_READERS', {'JPEG': None, 'PNG': None})
  monkeypatch.setattr(uploads, 'ACCEPTED', ('JPEG', 'PNG'))
  for data in (webp(), b'\0\0\0\x18ftypheic' + bytes(40)):
    with pytest.raises(Refused) as on_the_page:
      uploads.check(data, 10 ** 6, 1200)
    with pytest.raises(photos.PhotoError) as converting:
      photos.normalize_photo(data)
    assert texts.message('en', on_the_page.value) == '%s.' % converting.value
