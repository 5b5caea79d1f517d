"""Tests of tools/classify_image.py: photos and folders; table, CSV and JSON."""

import csv
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import export_inference_graph
from common.errors import InputError
from datasets import manifest
from evaluation import calibration
from kits import serving_kit as kit
from runs import checkpoints
from serving.model.classifier import Classifier
from tools import classify_image as program

ROOT = os.path.dirname(os.path.abspath(program.__file__))


@pytest.fixture(scope='module')
def train_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('train')
  kit.save_checkpoint(folder, 'cifarnet')
  return str(folder)


@pytest.fixture(scope='module')
def frozen(tmp_path_factory, train_dir):
  path = str(tmp_path_factory.mktemp('frozen') / 'a.pb')
  kit.run(export_inference_graph, '--checkpoint_path=' + train_dir,
          '--input_type=encoded', '--frozen_file=' + path)
  return path


@pytest.fixture(scope='module')
def expected(train_dir):
  """Scores of photos 0 to 3, from the checkpoint."""
  return Classifier.from_checkpoint(train_dir).classify(
      [kit.make_photo(seed) for seed in range(4)])


def _read_csv(text):
  rows = list(csv.reader(io.StringIO(text)))
  assert rows[0] == ['file', 'rank', 'label', 'score', 'known', 'similarity']
  # These graphs have no reference bank; tests/ood/detector_test.py has some.
  assert all(row[4:] == ['', ''] for row in rows[1:])
  return rows[1:]


@pytest.mark.parametrize('source', ['frozen', 'train_dir'])
def test_main_csv_has_each_photo_and_score(source, request, tmp_path, capsys,
                                           expected):
  path = request.getfixturevalue(source)
  flag = {'frozen': 'frozen_graph', 'train_dir': 'checkpoint_path'}[source]
  paths = kit.write_photos(tmp_path, 4)
  capsys.readouterr()
  assert kit.run(program, '--%s=%s' % (flag, path), '--format=csv',
                 '--batch_size=3', str(tmp_path)) == 0
  rows = _read_csv(capsys.readouterr().out)
  assert [row[0] for row in rows] == [p for p in paths for _ in range(5)]
  for index in range(4):
    photo_rows = rows[5 * index:5 * index + 5]
    order = np.argsort(-expected[index])
    assert [row[1] for row in photo_rows] == ['1', '2', '3', '4', '5']
    assert [row[2] for row in photo_rows] == [kit.LABELS[i] for i in order]
    np.testing.assert_allclose([float(row[3]) for row in photo_rows],
                               expected[index][order], atol=1e-5)


@pytest.fixture(scope='module')
def calibrated_dir(tmp_path_factory):
  """A train directory with a temperature of 3, and its frozen graph a.pb."""
  folder = tmp_path_factory.mktemp('calibrated')
  prefix = kit.save_checkpoint(folder, 'cifarnet')
  calibration.save(prefix, calibration.Calibration(
      3.0, 0.2, 0.1, 'validation', 12, 7, checkpoints.digest(prefix), None))
  kit.run(export_inference_graph, '--checkpoint_path=%s' % folder,
          '--input_type=encoded', '--frozen_file=%s' % (folder / 'a.pb'))
  return folder


@pytest.mark.parametrize('flag', ['--frozen_graph=%s/a.pb',
                                  '--checkpoint_path=%s'])
def test_main_prints_calibrated_scores_only_with_flag(
    flag, calibrated_dir, tmp_path, capsys, expected):
  path, = kit.write_photos(tmp_path, 1)
  scores_of_calls = []
  for more_flags in ((), ('--calibrated',)):
    capsys.readouterr()
    kit.run(program, flag % calibrated_dir, '--format=csv', path, *more_flags)
    rows = _read_csv(capsys.readouterr().out)
    scores_of_calls.append({row[2]: float(row[3]) for row in rows})
  plain, calibrated = (np.array([scores[name] for name in kit.LABELS])
                       for scores in scores_of_calls)
  np.testing.assert_allclose(plain, expected[0], atol=1e-5)
  roots = expected[0] ** (1 / 3)
  np.testing.assert_allclose(calibrated, roots / roots.sum(), atol=1e-5)


@pytest.mark.parametrize('source,message', [
    ('frozen', 'the graph has no calibrated scores'),
    ('train_dir', 'calibration.json does not exist; ./report.sh fits one')])
def test_main_calibrated_without_temperature_raises_input_error(
    source, message, request, tmp_path):
  flag = {'frozen': 'frozen_graph', 'train_dir': 'checkpoint_path'}[source]
  with pytest.raises(InputError, match='--calibrated: .*' + message):
    kit.run(program, '--%s=%s' % (flag, request.getfixturevalue(source)),
            '--calibrated', *kit.write_photos(tmp_path, 1))


def test_main_bad_photos_are_reported_and_others_classified(frozen, tmp_path,
                                                            capsys):
  kit.write_photos(tmp_path, 2)
  (tmp_path / 'a_text.jpg').write_text('no photo')
  (tmp_path / 'photo_0_empty.jpg').write_bytes(b'')
  (tmp_path / '.hidden').write_text('left out')
  capsys.readouterr()
  status = kit.run(program, '--frozen_graph=' + frozen, '--format=csv',
                   '--num_top_predictions=1', str(tmp_path))
  captured = capsys.readouterr()
  assert status == 1
  assert [os.path.basename(row[0]) for row in _read_csv(captured.out)] == [
      'photo_0.jpg', 'photo_1.jpg']
  lines = [line for line in captured.err.splitlines() if line]
  assert len(lines) == 2
  assert 'a_text.jpg: not a photo' in lines[0]
  assert 'photo_0_empty.jpg: the file is empty' in lines[1]


def test_main_json_is_one_list(frozen, tmp_path, capsys, expected):
  path = tmp_path / 'with "quotes", commas\nand 花.jpg'
  path.write_bytes(kit.make_photo(0))
  capsys.readouterr()
  kit.run(program, '--frozen_graph=' + frozen, '--format=json',
          '--num_top_predictions=2', str(path), str(path))
  photos = json.loads(capsys.readouterr().out)
  assert [photo['file'] for photo in photos] == [str(path)] * 2
  order = np.argsort(-expected[0])[:2]
  assert [p['label'] for p in photos[0]['predictions']] == [
      kit.LABELS[i] for i in order]
  np.testing.assert_allclose([p['score'] for p in photos[0]['predictions']],
                             expected[0][order], atol=1e-5)


def test_main_json_without_readable_photo_is_empty_list(frozen, tmp_path,
                                                        capsys):
  (tmp_path / 'a').write_text('no photo')
  capsys.readouterr()
  assert kit.run(program, '--frozen_graph=' + frozen, '--format=json',
                 str(tmp_path)) == 1
  assert json.loads(capsys.readouterr().out) == []


def test_main_table_shows_best_class_first(frozen, tmp_path, capsys, expected):
  path, = kit.write_photos(tmp_path, 1)
  capsys.readouterr()
  kit.run(program, '--frozen_graph=' + frozen, '--num_top_predictions=2', path)
  first, second = np.argsort(-expected[0])[:2]
  assert capsys.readouterr().out.splitlines() == [path] + [
      '  %8s  %s' % ('%.1f %%' % (100 * expected[0][i]), kit.LABELS[i])
      for i in (first, second)]


def test_main_csv_quotes_odd_names(frozen, tmp_path, capsys):
  path = tmp_path / 'a,"b"\nc.jpg'
  path.write_bytes(kit.make_photo(0))
  capsys.readouterr()
  kit.run(program, '--frozen_graph=' + frozen, '--format=csv',
          '--num_top_predictions=1', str(path))
  assert [row[0] for row in _read_csv(capsys.readouterr().out)] == [str(path)]


def test_main_explain_writes_a_picture_of_each_photo(frozen, tmp_path,
                                                     expected):
  for folder in ('a', 'b'):
    (tmp_path / folder).mkdir()
    kit.write_photos(tmp_path / folder, 2)
  (tmp_path / 'a' / 'bad.jpg').write_bytes(b'text')
  pictures = tmp_path / 'new' / 'pictures'
  arguments = ['--frozen_graph=' + frozen, '--explain=%s' % pictures,
               str(tmp_path / 'a'), str(tmp_path / 'b')]
  assert kit.run(program, *arguments) == 1
  names = ['photo_%d_%s' % (index, kit.LABELS[expected[index].argmax()])
           for index in range(2)]
  assert sorted(os.listdir(str(pictures))) == sorted(
      name + number + '.jpg' for name in names for number in ('', '-2'))
  with Image.open(str(pictures / (names[0] + '.jpg'))) as picture:
    assert picture.size == (52, 40)
  assert kit.run(program, '--explain_class=roses', *arguments) == 1
  assert (pictures / 'photo_1_roses.jpg').exists()


@pytest.mark.parametrize('arguments, message', [
    (['--explain_class=roses'], '--explain_class needs --explain'),
    (['--explain=%s', '--explain_class=gull'],
     '--explain_class=gull is not a class; classes: daisy, dandelion'),
    (['--explain=%s/0.jpg'], '--explain=.*: File exists')])
def test_main_explain_that_cannot_be_done_raises_input_error(
    frozen, tmp_path, arguments, message):
  photo = tmp_path / '0.jpg'
  photo.write_bytes(kit.make_photo(0))
  with pytest.raises(InputError, match=message):
    kit.run(program, '--frozen_graph=' + frozen, str(photo), *[
        argument % tmp_path if '%' in argument else argument
        for argument in arguments])
  assert os.listdir(str(tmp_path)) == ['0.jpg']


@pytest.mark.parametrize('kind', ['csv', 'table'])
def test_main_outputs_of_shares_are_together_that_of_all(frozen, tmp_path,
                                                         capfdbinary, kind):
  (tmp_path / 'photos').mkdir()
  paths = kit.write_photos(tmp_path / 'photos', 9)
  os.rename(paths[0], str(tmp_path / 'caf\udce9.jpg'))
  (tmp_path / 'list.txt').write_bytes(
      os.fsencode('%s\n\n%s' % (tmp_path / 'caf\udce9.jpg',
                                tmp_path / 'photos')))
  flags = ['--frozen_graph=' + frozen, '--format=' + kind, '--batch_size=4',
           '--file_list=%s' % (tmp_path / 'list.txt')]
  outputs = []
  for share in ['', '1/4', '2/4', '3/4', '4/4']:
    capfdbinary.readouterr()
    assert kit.run(program, *flags,
                   *(['--shard_of=' + share] if share else [])) == 0
    outputs.append(capfdbinary.readouterr().out)
  together = b''.join(outputs[1:])
  assert sorted(together.splitlines()) == sorted(outputs[0].splitlines())
  assert together.splitlines()[0] == outputs[0].splitlines()[0] or (
      kind == 'table')
  assert max(map(len, outputs[1:])) < len(outputs[0])


@pytest.mark.parametrize('flags, message', [
    (['--shard_of=0/4'], 'to an index that starts at 0 add 1'),
    (['--shard_of='], '--shard_of=: expected K/N'),
    (['--shard_of=1/2', '--explain=x'], '--explain works without --shard_of'),
    (['--file_list=/nowhere'], "cannot read the list --file_list '/nowhere'")])
def test_main_wrong_share_or_list_is_an_input_error(frozen, tmp_path, flags,
                                                    message):
  kit.write_photos(tmp_path, 1)
  with pytest.raises(InputError, match=message):
    kit.run(program, '--frozen_graph=' + frozen, str(tmp_path), *flags)


def test_find_photos_walks_folders_in_order(tmp_path):
  for name in ('b/2.jpg', 'b/10.jpg', 'a/x/1.png', '.git/config', 'c.jpg',
               'a/.DS_Store'):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b'')
  found_paths = program.find_photos([str(tmp_path), str(tmp_path / 'c.jpg')])
  assert [os.path.relpath(path, str(tmp_path)) for path in found_paths] == [
      'c.jpg', 'a/x/1.png', 'b/10.jpg', 'b/2.jpg', 'c.jpg']


def test_find_photos_without_photos_raises_input_error(tmp_path):
  with pytest.raises(InputError, match='give files or folders, got none'):
    program.find_photos([])
  with pytest.raises(InputError, match='no photos: .*%s' % tmp_path.name):
    program.find_photos([str(tmp_path)])
  with pytest.raises(InputError, match='no such file or folder: nothing.jpg'):
    program.find_photos(['nothing.jpg'])


@pytest.mark.parametrize('arguments, message', [
    ((), 'one of --frozen_graph and --checkpoint_path'),
    (('--frozen_graph=a', '--checkpoint_path=b'), 'one of --frozen_graph'),
    (('--frozen_graph=a', '--moving_average_decay=0.9'),
     '--moving_average_decay works with --checkpoint_path only'),
    (('--frozen_graph=a', '--dataset_name=b'), '--dataset_name works with'),
    (('--checkpoint_path=a', '--dataset_name=b'), 'needs --dataset_dir'),
    (('--frozen_graph=/nowhere.pb',), "frozen graph '/nowhere.pb'"),
])
def test_classifier_from_flags_that_do_not_fit_raises_input_error(
    arguments, message):
  with kit.parsed_flags(program, *arguments):
    with pytest.raises(InputError, match=message):
      program.classifier_from_flags()


def test_classifier_from_flags_takes_labels_from_file_or_dataset(
    train_dir, tmp_path):
  (tmp_path / 'l.txt').write_text('a\nb\nc\nd\ne\n')
  manifest.save(str(tmp_path), manifest.Manifest(
      'letters', list('vwxyz'), {}, 0, 10, {}, []))
  labels = []
  for arguments in (['--label_file=%s' % (tmp_path / 'l.txt')],
                    ['--dataset_name=letters', '--dataset_dir=%s' % tmp_path]):
    with kit.parsed_flags(program, '--checkpoint_path=' + train_dir,
                          *arguments):
      labels.append(''.join(program.classifier_from_flags().labels))
  assert labels == ['abcde', 'vwxyz']


@pytest.mark.slow
def test_program_handles_file_names_that_are_not_utf8(frozen, tmp_path):
  name = os.fsencode(str(tmp_path)) + b'/caf\xe9.jpg'
  with open(name, 'wb') as file:
    file.write(kit.make_photo(0))
  completed = subprocess.run(
      [sys.executable, os.path.join(ROOT, 'classify_image.py'),
       '--frozen_graph=' + frozen, '--format=csv', '--num_top_predictions=1',
       name, str(tmp_path / 'empty')],
      capture_output=True, check=False)
  assert completed.returncode == 1
  assert completed.stderr.decode().splitlines() == [
      'classify_image.py: error: no such file or folder: %s' %
      (tmp_path / 'empty')]
  (tmp_path / 'empty').write_bytes(b'')
  completed = subprocess.run(completed.args, capture_output=True, check=False)
  assert completed.returncode == 1
  assert completed.stdout.splitlines()[1].startswith(name + b',1,')
  started, *errors = completed.stderr.decode().splitlines()
  assert started.startswith('INFO:tensorflow:Forward passes: ')
  assert errors == ['%s: the file is empty' % (tmp_path / 'empty')]
  # On an ASCII terminal the invalid byte is unchanged, the umlaut is escaped.
  (tmp_path / '\xfc.jpg').write_bytes(kit.make_photo(0))
  completed = subprocess.run([*completed.args, str(tmp_path / '\xfc.jpg')],
                             env=dict(os.environ, PYTHONIOENCODING='ascii'),
                             capture_output=True, check=False)
  assert b'Traceback' not in completed.stderr
  rows = completed.stdout.splitlines()[1:]
  assert rows[0].startswith(name + b',1,')
  assert rows[1].startswith(os.fsencode(str(tmp_path)) + b'/\\xfc.jpg,1,')


@pytest.fixture
def album(tmp_path):
  """A folder of four photos, two files that are none, and three links."""
  folder = tmp_path / 'album'
  (folder / 'sub').mkdir(parents=True)
  kit.write_photos(folder, 4)
  (folder / 'photo_3.jpg').rename(folder / 'sub' / 'photo_0.jpg')
  (folder / 'broken.jpg').write_bytes(b'broken')
  (folder / '.hidden.jpg').write_bytes(kit.make_photo(0))
  (tmp_path / 'outside.jpg').write_bytes(kit.make_photo(0))
  (folder / 'out.jpg').symlink_to(tmp_path / 'outside.jpg')
  (folder / 'in.jpg').symlink_to(folder / 'photo_1.jpg')
  (folder / 'dangling.jpg').symlink_to(folder / 'none.jpg')
  return folder


def _sort(frozen, album, *flags):
  return kit.run(program, '--frozen_graph=' + frozen, str(album),
                 '--sort_into=%s' % (album.parent / 'to'), *flags)


def _sorted(album):
  return sorted(str(path.relative_to(album.parent / 'to')) for path in
                (album.parent / 'to').glob('*/*'))


def test_sort_places_each_photo_in_the_folder_of_its_class(
    frozen, album, capsys, expected):
  assert _sort(frozen, album) == 1
  labels = [kit.LABELS[int(np.argmax(scores))] for scores in expected]
  names = ['photo_0.jpg', 'photo_1.jpg', 'photo_2.jpg', 'photo_0.jpg']
  if labels[3] == labels[0]:
    names[3] = 'photo_0_2.jpg'
  assert _sorted(album) == sorted(
      [label + '/' + name for label, name in zip(labels, names)] +
      [labels[1] + '/in.jpg'])
  out, err = capsys.readouterr()
  assert 'out.jpg: a symbolic link that leads out of the folder' in err
  assert 'dangling.jpg: No such file or directory' in err
  assert 'broken.jpg: ' in err and '.hidden' not in err
  first, *counts, last = out.splitlines()
  assert ': 5 photos sorted in ' in first and first.endswith('), 0 before')
  assert sum(int(line.split()[0]) for line in counts) == 5
  assert last.split(None, 1) == ['3', 'cannot be used, for the reasons above']


def test_sort_again_neither_copies_nor_classifies_again(frozen, album, capsys,
                                                        monkeypatch):
  for name in ('broken.jpg', 'dangling.jpg'):
    (album / name).unlink()
  assert _sort(frozen, album) == 1
  placed = _sorted(album)
  monkeypatch.delattr(program, 'classifier_from_flags')
  capsys.readouterr()
  assert _sort(frozen, album) == 1
  assert _sorted(album) == placed
  assert ': 0 photos sorted in ' in capsys.readouterr().out


def test_sort_by_move_leaves_links_and_bad_files(frozen, album, capsys):
  assert _sort(frozen, album, '--sort_by=move') == 1
  assert sorted(path.name for path in album.rglob('*.jpg')) == [
      '.hidden.jpg', 'broken.jpg', 'dangling.jpg', 'in.jpg', 'out.jpg']
  assert 'in.jpg: a symbolic link, which is not moved' in (
      capsys.readouterr().err)
  assert len(_sorted(album)) == 4


@pytest.mark.parametrize('flags, message', [
    (['--sort_by=link'], '--sort_by works with --sort_into only'),
    (['--sort_into=x', '--format=csv'], '--format works without --sort_into'),
    (['--sort_into=ALBUM/sorted'], 'none inside the other'),
    (['--sort_into=/dev/null/x'], '--sort_into=/dev/null/x: /dev/null')])
def test_sort_wrong_flags_are_an_input_error(frozen, album, flags, message):
  with pytest.raises(InputError, match=message):
    kit.run(program, '--frozen_graph=' + frozen, str(album),
            *[flag.replace('ALBUM', str(album)) for flag in flags])
