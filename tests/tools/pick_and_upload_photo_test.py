"""Tests of pick_photo.py and upload_photo.py, which quickstart.sh uses."""

import http.server
import os
import threading

import pytest

from common.errors import InputError
from datasets import manifest as manifests
from kits.helpers import parsed_flags
from kits.trained_kit import NAME, colour_photo, make_dataset
from tools import pick_photo, upload_photo

PAGE = ('<html><head><title>no</title></head><body><p>red &amp; round</p>'
        '<script>no()</script><span id="a" hidden>no</span>'
        '<b>97 %</b></body></html>')


@pytest.fixture
def server():
  """A server that records the bodies of requests and answers with PAGE."""

  class Handler(http.server.BaseHTTPRequestHandler):

    def do_POST(self):
      body = self.rfile.read(int(self.headers['Content-Length']))
      self.server.bodies.append((self.headers['Content-Type'], body))
      self.send_response(self.server.status)
      self.end_headers()
      self.wfile.write(PAGE.encode())

    def log_message(self, *args):
      del args

  server = http.server.HTTPServer(('127.0.0.1', 0), Handler)
  server.bodies, server.status = [], 200
  server.url = 'http://127.0.0.1:%d/' % server.server_port
  thread = threading.Thread(target=server.serve_forever)
  thread.start()
  yield server
  server.shutdown()
  thread.join()
  server.server_close()


def test_upload_posts_photo_as_field_file(server, tmp_path):
  photo = tmp_path / 'a "b" 花.jpg'
  photo.write_bytes(colour_photo(0, 0))
  assert upload_photo.upload(server.url, str(photo)) == (200, PAGE)
  (kind, body), = server.bodies
  assert kind.startswith('multipart/form-data; boundary=')
  assert b'name="file"; filename="a %22b%22 ' in body
  assert colour_photo(0, 0) in body


def test_upload_refused_returns_status_and_page(server, tmp_path):
  server.status = 415
  (tmp_path / 'x').write_bytes(b'text')
  assert upload_photo.upload(server.url, str(tmp_path / 'x')) == (415, PAGE)


def test_upload_without_photo_or_server_names_flag(server, tmp_path):
  with pytest.raises(InputError, match='--photo=.*/no.jpg: No such file'):
    upload_photo.upload(server.url, str(tmp_path / 'no.jpg'))
  (tmp_path / 'x').write_bytes(b'text')
  with pytest.raises(InputError, match='--url=http://127.0.0.1:1/ does not'):
    upload_photo.upload('http://127.0.0.1:1/', str(tmp_path / 'x'))


def test_visible_text_omits_title_scripts_and_what_is_hidden():
  assert upload_photo.visible_text(PAGE) == ['red & round', '97 %']


def test_pick_takes_validation_photo_that_page_accepts(tmp_path):
  folder = make_dataset(tmp_path)
  manifest = manifests.path(folder, NAME)
  files = manifests.load_file(manifest).files
  first, second = sorted(f for f in files if files[f] == 'validation')[:2]
  assert pick_photo.pick(manifest) == (
      'validation', str(tmp_path / NAME / first))
  (tmp_path / NAME / first).write_bytes(b'BM: not for the page')
  assert pick_photo.pick(manifest) == (
      'validation', str(tmp_path / NAME / second))


@pytest.mark.parametrize('other_split', ['test', 'train'])
def test_pick_from_another_split_prints_its_name(tmp_path, capsys, other_split):
  folder = make_dataset(tmp_path)
  manifest = manifests.path(folder, NAME)
  original = manifests.load_file(manifest)
  manifests.save_file(manifest, original._replace(files={
      name: other_split if split == 'validation' else 'train'
      for name, split in original.files.items()}))
  with parsed_flags(pick_photo.define_flags, '--manifest=' + manifest):
    pick_photo.main([])
  printed = capsys.readouterr()
  assert os.path.isfile(printed.out.rstrip('\n'))
  assert printed.err == ('The page accepts no validation photo: this one is of '
                         'the split %s\n' % other_split)


def test_pick_missing_manifest_names_path(tmp_path):
  with pytest.raises(InputError, match='^--manifest=.*/no.json: no such file'):
    pick_photo.pick(str(tmp_path / 'no.json'))


def test_pick_without_accepted_photo_raises_input_error(tmp_path):
  folder = make_dataset(tmp_path)
  for name in manifests.load(folder, NAME).files:
    (tmp_path / NAME / name).unlink()
  with pytest.raises(InputError, match='accepts no photo in .*/colours'):
    pick_photo.pick(manifests.path(folder, NAME))
