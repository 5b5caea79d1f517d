"""Tests of uploads.py and request_photos.py: kept uploads, hostile forms."""

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
# Maximum seconds to refuse a hostile form of some MiB, on any machine.
REFUSAL_SECS = 2.0


def read_files(body, boundary='----WebKitFormBoundaryAbc123'):
  form_photos, _ = request_photos.read_form(body, boundary, max_photos=16)
  return [photo.data for photo in form_photos]


def refusal_code(function, *arguments):
  """Returns the code of the Refused that a function raises."""
  with pytest.raises(Refused) as caught:
    function(*arguments)
  return caught.value.code


def test_write_photo_writes_the_bytes_to_a_new_private_file(tmp_path):
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


def test_write_photo_other_content_is_refused(tmp_path):
  with pytest.raises(InputError, match='not one of JPEG, PNG'):
    uploads.write_photo(str(tmp_path), b'<html>')
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('name', [
    '', 'a.jpg', '0' * 32, '0' * 32 + '.gif', '0' * 31 + '.jpg',
    'A' * 32 + '.jpg', '0' * 32 + '.jpg\n', '../' + '0' * 32 + '.jpg',
    '0' * 32 + '.jpg/..',
])
def test_is_upload_name_other_name_is_refused(name):
  assert not uploads.is_upload_name(name)


def test_make_folder_on_a_file_is_refused(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(InputError, match='cannot make the folder.*file'):
    uploads.make_folder(str(tmp_path / 'file'))


def make_store(folder, days=1, megabytes=1):
  return uploads.UploadStore(str(folder), days, megabytes, max_pixels=10 ** 6)


def test_store_over_its_size_limit_removes_the_oldest(tmp_path):
  store = make_store(tmp_path, megabytes=1)
  for number in range(5):
    store.keep(kit.photo(icc_profile=bytes([number]) * 300000))
  numbers = sorted(Image.open(str(path)).info['icc_profile'][0]
                   for path in tmp_path.iterdir())
  assert numbers == [2, 3, 4]


def test_store_removes_old_uploads_but_no_other_files(tmp_path):
  old, new = (uploads.write_photo(str(tmp_path), JPEG) for _ in range(2))
  webp_of_another_engine = '0' * 32 + '.webp'
  (tmp_path / webp_of_another_engine).write_bytes(webp())
  (tmp_path / 'notes.txt').write_text('mine')
  for name in (old, webp_of_another_engine, 'notes.txt'):
    os.utime(str(tmp_path / name), (1, time.time() - 2 * 86400 - 9))
  make_store(tmp_path, days=2)
  assert sorted(os.listdir(str(tmp_path))) == sorted([new, 'notes.txt'])
  make_store(tmp_path, days=2, megabytes=0)
  assert os.listdir(str(tmp_path)) == ['notes.txt']


def test_store_does_not_follow_links(tmp_path):
  (tmp_path / 'precious').write_text('mine')
  link = tmp_path / ('0' * 32 + '.jpg')
  link.symlink_to(tmp_path / 'precious')
  make_store(tmp_path, days=0, megabytes=0)
  assert (tmp_path / 'precious').read_text() == 'mine' and link.is_symlink()


def test_store_file_removed_by_others_is_not_an_error(tmp_path):
  store = make_store(tmp_path, megabytes=0.001)
  store.keep(kit.photo())
  os.remove(str(next(tmp_path.iterdir())))
  store.keep(kit.photo(icc_profile=bytes(900)))
  assert not list(tmp_path.iterdir())


def test_app_with_a_full_disk_still_answers(tmp_path, monkeypatch, log):
  client = kit.make_client(kit.FakeService(), KEEP_UPLOADS=True,
                           UPLOAD_FOLDER=str(tmp_path))
  now = [100.0]
  monkeypatch.setattr(logs.time, 'monotonic', lambda: now[0])
  real_open = open

  def open_on_a_full_disk(path, mode='r', **options):
    if mode != 'xb':
      return real_open(path, mode, **options)
    real_open(path, mode).close()
    return real_open('/dev/full', 'wb')

  monkeypatch.setattr('builtins.open', open_on_a_full_disk)
  for seconds, count in ((100, 1), (101, 1), (159.9, 1), (160, 2)):
    now[0] = seconds
    assert kit.post_form(client, '/', kit.photo()).status_code == 200
    assert log.text.count('cannot keep a photo: No space left') == count
  assert 'No space left on device (2 more times before)' in log.text
  assert not list(tmp_path.iterdir())
  assert '\nclassifier_unkept_total 4\n' in client.get('/metrics').get_data(
      as_text=True)


def test_app_keeps_valid_photos_only_if_configured(tmp_path):
  folder = tmp_path / 'kept'
  client = kit.make_client(kit.FakeService(), KEEP_UPLOADS=True,
                           UPLOAD_FOLDER=str(folder))
  for path in ('/', '/api/classify'):
    kit.post_form(client, path, kit.photo(comment=b'48.8584 N'), b'words',
                  kit.photo('PNG') + b'film')
  assert sorted(path.read_bytes() for path in folder.iterdir()) == sorted(
      2 * [kit.photo(), kit.photo('PNG')])
  other_folder = tmp_path / 'other'
  client = kit.make_client(kit.FakeService(), UPLOAD_FOLDER=str(other_folder))
  kit.post_form(client, '/', kit.photo())
  assert not other_folder.exists()


def pass_days(monkeypatch, days):
  """Moves the clock of uploads.py forward."""
  later = uploads._now() + days * 86400
  monkeypatch.setattr(uploads, '_now', lambda: later)


def move_system_clock(monkeypatch, days):
  """Moves the system clock by a number of days."""
  new_time = time.time() + days * 86400
  monkeypatch.setattr(uploads.time, 'time', lambda: new_time)


def test_store_ages_ignore_jumps_of_the_system_clock(tmp_path, monkeypatch):
  store = make_store(tmp_path, days=30)
  for days in (400, -400, 0):  # Photos arrive while the clock is wrong.
    move_system_clock(monkeypatch, days)
    store.keep(kit.photo())
    store.remove_old()
  assert len(os.listdir(str(tmp_path))) == 3
  pass_days(monkeypatch, 30.1)
  store.keep(kit.photo())
  assert len(os.listdir(str(tmp_path))) == 1


def test_store_photo_with_a_future_time_is_removed_in_time(tmp_path,
                                                           monkeypatch):
  path = tmp_path / uploads.write_photo(str(tmp_path), JPEG)
  future = time.time() + 400 * 86400
  os.utime(str(path), (future, future))
  store = make_store(tmp_path, days=30)
  # The time of the file is also corrected, for the next start of the server.
  assert path.stat().st_mtime <= time.time()
  pass_days(monkeypatch, 29.9)
  store.remove_old()
  assert path.exists()
  pass_days(monkeypatch, 0.2)
  store.remove_old()
  assert not path.exists()


def test_store_deleted_folder_is_recreated_for_its_owner_only(tmp_path):
  folder = tmp_path / 'kept'
  store = make_store(folder)
  shutil.rmtree(str(folder))
  store.keep(kit.photo())
  assert len(os.listdir(str(folder))) == 1
  assert folder.stat().st_mode & 0o777 == 0o700


def test_make_folder_symbolic_link_is_refused(tmp_path, log):
  (tmp_path / 'link').symlink_to(tmp_path)
  with pytest.raises(InputError, match='link\' is a symbolic link'):
    uploads.make_folder(str(tmp_path / 'link'))
  folder = tmp_path / 'kept'
  store = make_store(folder)
  folder.rmdir()
  folder.symlink_to(tmp_path)
  store.keep(kit.photo())
  assert 'is a symbolic link' in log.text
  assert sorted(os.listdir(str(tmp_path))) == ['kept', 'link']


def test_make_folder_of_another_user_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(os, 'geteuid', lambda: 12345)
  monkeypatch.setattr(os, 'lstat', lambda path: os.stat_result(
      [stat.S_IFDIR | 0o777, 0, 0, 1, 54321, 0, 0, 0, 0, 0]))
  with pytest.raises(InputError, match='another user .uid 54321'):
    uploads.make_folder(str(tmp_path))


def test_app_without_new_uploads_removes_old_photos(tmp_path, monkeypatch):
  client = kit.make_client(kit.FakeService(), KEEP_UPLOADS=True, KEEP_DAYS=3,
                           UPLOAD_FOLDER=str(tmp_path))
  kit.post_form(client, '/', kit.photo())
  client.get('/healthz')
  assert len(list(tmp_path.iterdir())) == 1
  pass_days(monkeypatch, 3 + 1e-5)
  client.get('/healthz')
  assert not list(tmp_path.iterdir())


def test_app_without_keep_uploads_creates_no_file(monkeypatch):
  def fail(*arguments, **options):
    raise AssertionError('a file was created')

  for name in ('TemporaryFile', 'SpooledTemporaryFile', 'NamedTemporaryFile',
               'mkstemp'):
    monkeypatch.setattr(tempfile, name, fail)
  # werkzeug imported the class itself.
  monkeypatch.setattr('werkzeug.formparser.SpooledTemporaryFile', fail)
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
], ids=kit.short_id)
def test_check_invalid_photo_is_refused_without_decoding(monkeypatch, data,
                                                         code):
  def decode(*arguments):
    raise AssertionError('decoded')

  monkeypatch.setattr(Image.Image, 'load', decode)
  start = time.monotonic()
  assert refusal_code(uploads.check, data, 10 ** 6, 10 ** 6) == code
  assert time.monotonic() - start < REFUSAL_SECS


@pytest.mark.parametrize('options', [
    dict(kind='PNG'), dict(kind='JPEG'), dict(kind='JPEG', progressive=True),
    dict(kind='JPEG', comment=b'\xff\xc0\0\x0b\x08\xff\xff\xff\xff'),
    dict(kind='JPEG', icc_profile=b'\xff\xc2' * 40000),
])
def test_check_reads_the_same_size_as_pillow(options):
  data = kit.photo(size=(123, 45), **options)
  uploads.check(data, 10 ** 7, 123 * 45)
  assert refusal_code(uploads.check, data, 10 ** 7, 123 * 45 - 1) == (
      'too_many_pixels')


def test_check_larger_second_frame_is_refused():
  data = kit.photo(size=(20, 10))
  frame = b'\xff\xc0\0\x0b\x08\xff\xdc\xff\xdc\x01\x01\x11\0'
  assert refusal_code(uploads.check, data[:2] + frame + data[2:], 10 ** 6,
                      10 ** 6) == 'too_many_pixels'


def test_preview_is_small_upright_and_without_metadata():
  exif = Image.Exif()
  exif[0x0112], exif[0x010e] = 8, 'SECRET'
  data = kit.photo(size=(2000, 1000), exif=exif)
  small = uploads.preview(data, 10 ** 7)
  image = Image.open(io.BytesIO(small))
  assert image.size == (360, 720)
  assert b'SECRET' in data and b'SECRET' not in small


def test_preview_of_an_upright_photo_has_no_metadata():
  exif = Image.Exif()
  exif[0x010e] = 'SECRET'
  data = kit.photo(exif=exif, comment=b'SECRET', icc_profile=b'SECRET' * 9)
  assert data.count(b'SECRET') == 11
  assert b'SECRET' not in uploads.preview(data, 10 ** 7)


def test_read_form_returns_the_files_byte_for_byte():
  contents = [b'', b'\r\n', b'--', bytes(range(256)) * 9, b'\r\n--x',
              MARK[:-1] + b'\r\n']
  assert read_files(kit.form(*contents)) == contents


def test_read_form_skips_file_fields_without_a_file():
  body = (kit.part(b'a', name=b'other', filename=None) +
          kit.part(b'', filename=b'') + kit.part(b'c', filename=b'') +
          kit.part(b'd') + MARK + b'--\r\n')
  assert read_files(body) == [b'c', b'd']


@pytest.mark.parametrize('body', [
    b'preamble\r\n' + kit.form(b'a') + b'epilogue',
    kit.form(b'a')[:-2],
    MARK + b' \t\r\nContent-Disposition:form-data;name=file;filename=a\r\n\r\n'
    b'a\r\n' + MARK + b'--',
    MARK + b'\r\nContent-Type: image/png\r\ncontent-disposition: Form-Data; '
    b"NAME=\"file\"; filename*=UTF-8''%e4\r\n\r\na\r\n" + MARK + b'--',
], ids=kit.short_id)
def test_read_form_unusual_but_valid_form_is_accepted(body):
  assert read_files(body) == [b'a']


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
], ids=kit.short_id)
def test_read_form_damaged_form_is_refused(body):
  assert refusal_code(read_files, body) == 'bad_form'


@pytest.mark.parametrize('boundary', ['x', "'()+_,-./:=? 9", 'x' * 200],
                         ids=kit.short_id)
def test_read_form_any_valid_boundary_is_accepted(boundary):
  body = kit.form(b'a').replace(kit.BOUNDARY, boundary.encode())
  assert read_files(body, boundary) == [b'a']


@pytest.mark.parametrize('boundary', [None, ''])
def test_read_form_without_boundary_is_refused(boundary):
  assert refusal_code(read_files, kit.form(b'a'), boundary) == 'no_boundary'


@pytest.mark.parametrize('boundary', [
    ' ', 'x' * 201, 'é', 'a\r\nb', 'a;b', '\0', 'a '], ids=kit.short_id)
def test_read_form_invalid_boundary_is_refused(boundary):
  assert refusal_code(read_files, kit.form(b'a'), boundary) == 'bad_form'


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
], ids=kit.short_id)
def test_read_form_hostile_form_is_refused_quickly(body, code):
  start = time.monotonic()
  assert refusal_code(read_files, body) == code
  assert time.monotonic() - start < REFUSAL_SECS


def test_heap_trimmer_merges_calls_and_loses_none(monkeypatch):
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


def test_trim_heap_without_malloc_trim_does_nothing(monkeypatch):
  monkeypatch.setattr(heap_memory.ctypes, 'CDLL', lambda name: object())
  heap_memory.trim_heap()


@pytest.mark.parametrize('data', [
    b'x' * 10 ** 7, kit.photo()[:30] + b'\0' * 10 ** 6], ids=kit.short_id)
def test_refused_large_photo_is_freed(data):
  app = kit.make_client(kit.FakeService(), MAX_UPLOAD_MB=1).application
  statuses = []

  def post():
    # Not with the test client: it keeps references to requests.
    body = kit.form(data)
    environ = werkzeug.test.create_environ(
        '/', method='POST', data=body, content_type=kit.form_type())
    list(app(environ, lambda status, headers: statuses.append(status)))

  post()
  gc.collect()
  gc.disable()
  tracemalloc.start()
  try:
    post()
    assert statuses[1].startswith('4')
    assert tracemalloc.get_traced_memory()[0] < 10 ** 6
  finally:
    tracemalloc.stop()
    gc.enable()


def test_store_photo_larger_than_its_size_limit_is_not_written(tmp_path):
  store = make_store(tmp_path, megabytes=1)
  store.keep(kit.photo())
  store.keep(kit.photo(icc_profile=bytes(2 ** 20)))
  assert len(os.listdir(str(tmp_path))) == 1


@pytest.mark.parametrize('disposition, name', [
    (b'form-data; name="file"; filename="a\\"', 'a\\'),
    (b'form-data; name="file"; filename="a.jpg";', 'a.jpg'),
    (b'form-data; name="file"; filename="a \\"b\\".jpg"', 'a "b".jpg'),
    (b"form-data; name=file; filename*=UTF-8''%e7%8b%97%20.jpg", '狗 .jpg'),
    ('form-data; name=file; filename="狗.jpg"'.encode(), '狗.jpg'),
    (b'form-data; name=file; filename=a.jpg ; ', 'a.jpg')], ids=kit.short_id)
def test_read_form_file_names_of_various_clients_are_parsed(disposition, name):
  body = (b'--x\r\nContent-Disposition: ' + disposition +
          b'\r\n\r\ndata\r\n--x--\r\n')
  photo, = request_photos.read_form(body, 'x', max_photos=2)[0]
  assert photo == request_photos.Upload(name, b'data')


def test_check_side_above_the_jpeg_limit_is_refused():
  with pytest.raises(Refused) as caught:
    uploads.check(kit.photo('PNG', size=(66000, 2)), 2 ** 20, 10 ** 7)
  assert caught.value.code == 'too_many_pixels_a_side'


def webp(**options):
  return kit.photo('WEBP', size=(40, 30), **options)


@pytest.mark.skipif(not photos.can_read('WebP'), reason='WebP cannot be read')
def test_check_webp_is_accepted_if_it_can_be_read(tmp_path):
  uploads.check(webp(), 10 ** 6, 1200)
  assert refusal_code(uploads.check, webp(), 10 ** 6, 1199) == 'too_many_pixels'
  assert refusal_code(uploads.check, webp()[:28], 10 ** 6, 1200) == (
      'unreadable_photo')
  assert uploads.is_upload_name(uploads.write_photo(str(tmp_path), webp()))
  assert uploads.preview(webp(), 1200)[:3] == JPEG[:3]


@pytest.mark.skipif(photos.can_read('WebP'), reason='WebP can be read')
def test_check_webp_is_refused_if_it_cannot_be_read(tmp_path):
  assert refusal_code(uploads.check, webp(), 10 ** 6, 1200) == 'not_a_photo'
  with pytest.raises(InputError):
    uploads.write_photo(str(tmp_path), webp())


def test_check_refuses_webp_and_heic_with_the_message_of_the_converter(
    monkeypatch):
  monkeypatch.setattr(photos, '_READERS', {'JPEG': None, 'PNG': None})
  monkeypatch.setattr(uploads, 'ACCEPTED', ('JPEG', 'PNG'))
  for data in (webp(), b'\0\0\0\x18ftypheic' + bytes(40)):
    with pytest.raises(Refused) as refused:
      uploads.check(data, 10 ** 6, 1200)
    with pytest.raises(photos.PhotoError) as photo_error:
      photos.normalize_photo(data)
    assert texts.message('en', refused.value) == '%s.' % photo_error.value
