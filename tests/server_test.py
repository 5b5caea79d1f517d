"""The server as a process: starts, answers one upload, ends cleanly."""

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
import serving_kit as kit

import export_inference_graph
import server as program
from errors import InputError
from serving.classifier import Classifier

ROOT = os.path.dirname(os.path.abspath(program.__file__))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Holds train/, the frozen graph a.pb and a.label."""
  folder = tmp_path_factory.mktemp('server')
  kit.save_checkpoint(folder / 'train', 'cifarnet')
  kit.run(export_inference_graph, '--checkpoint_path=%s' % (folder / 'train'),
          '--input_type=encoded', '--frozen_file=%s' % (folder / 'a.pb'))
  return folder


def _start(*arguments):
  return subprocess.Popen(
      [sys.executable, os.path.join(ROOT, 'server.py')] + list(arguments),
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
      cwd=ROOT)


def _upload(url, data):
  boundary = 'x' * 40
  body = (('--%s\r\nContent-Disposition: form-data; name="file"; '
           'filename="cat.jpg"\r\n\r\n' % boundary).encode() + data +
          ('\r\n--%s--\r\n' % boundary).encode())
  request = urllib.request.Request(url, body, {
      'Content-Type': 'multipart/form-data; boundary=' + boundary})
  with urllib.request.urlopen(request, timeout=20) as reply:
    return reply.status, reply.headers, reply.read().decode()


def test_classifier_calibrated_of_a_graph_without_is_refused(folder):
  with kit.parsed_flags(program, '--model_dir=%s' % folder, '--model_name=a.pb',
                        '--calibrated'):
    with pytest.raises(InputError, match='has no calibrated scores'):
      program.classifier_from_flags()


def test_process_answers_one_upload_and_ends_on_sigterm(folder, tmp_path):
  process = _start('--model_dir=%s' % folder, '--model_name=a.pb',
                   '--label_file=a.label', '--port=0',
                   '--upload_folder=%s' % (tmp_path / 'new' / 'uploads'))
  try:
    port = int(re.fullmatch(r'listening on port (\d+)\n',
                            process.stdout.readline()).group(1))
    photo = kit.make_photo(0)
    status, headers, text = _upload('http://127.0.0.1:%d/' % port, photo)
    scores = Classifier.from_frozen_graph(str(folder / 'a.pb')).classify(
        [photo])[0]
    assert status == 200
    assert re.findall(r'value="([\d.]+)"', text) == [
        '%.6f' % s for s in sorted(scores, reverse=True)]
    assert kit.LABELS[scores.argmax()] in text
    assert 'Server' not in headers
    name, = os.listdir(str(tmp_path / 'new' / 'uploads'))
    assert (tmp_path / 'new' / 'uploads' / name).read_bytes() == photo
    second = _start('--port=%d' % port)
    assert second.wait(timeout=60) == 1
    assert second.stderr.read().splitlines() == [
        'server.py: error: cannot listen on 127.0.0.1, port %d: Address '
        'already in use; choose another with --port or --host' % port]
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0
    assert process.stdout.read() == ''
    assert 'Traceback' not in process.stderr.read()
  finally:
    process.kill()
    process.communicate()


def test_bind_port_in_use_is_named():
  with socket.socket() as other:
    other.bind(('127.0.0.1', 0))
    other.listen(1)
    port = other.getsockname()[1]
    with pytest.raises(InputError, match='port %d: Address already.*--port' %
                       port):
      program.bind('127.0.0.1', port)


def test_bind_foreign_address_is_refused():
  with pytest.raises(InputError, match='cannot listen on 192.0.2.1.*--host'):
    program.bind('192.0.2.1', 0)


def test_bind_does_not_listen_yet():
  listener = program.bind('127.0.0.1', 0)
  try:
    with socket.socket() as visitor:
      assert visitor.connect_ex(listener.getsockname()) != 0
  finally:
    listener.close()


@pytest.mark.parametrize('arguments, message', [
    (('--model_name=none.pb',), 'frozen graph .*none.pb'),
    (('--model_name=a.pb', '--label_file=none.label'),
     'label file .*none.label'),
    (('--model_name=a.pb', '--image_size=64'), '--image_size=64 contradicts'),
])
def test_classifier_missing_file_is_named(folder, arguments, message):
  with kit.parsed_flags(program, '--model_dir=%s' % folder, *arguments):
    with pytest.raises(InputError, match=message):
      program.classifier_from_flags()


def test_classifier_labels_in_the_graph_do_without_a_file(folder):
  with kit.parsed_flags(program, '--model_dir=%s' % folder,
                        '--model_name=a.pb'):
    assert program.classifier_from_flags().labels == kit.LABELS


def test_flags_have_the_defaults_of_2017():
  with kit.parsed_flags(program):
    values = program.FLAGS
    assert (values.model_dir, values.model_name, values.label_file,
            values.upload_folder, values.num_top_predictions, values.port,
            values.debug, values.host) == (
                '', 'my_inception_v4_freeze.pb', 'my_inception_v4_freeze.label',
                '/tmp/', 5, 5001, False, '127.0.0.1')
