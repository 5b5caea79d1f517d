"""Tests of download_and_convert_data.py: output, flags and errors."""

import os
import subprocess
import sys

import pytest

import download_and_convert_data
from common.errors import InputError
from datasets import dataset_factory, manifest
from datasets.conversion import convert_photos, public
from kits import (
  coco_kit,
  dataset_kit,
  download_kit,
  imagenet_kit,
  public_kit,
)
from kits.helpers import parsed_flags

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def run_program(*arguments):
  return subprocess.run(
      [sys.executable, os.path.join(ROOT, 'download_and_convert_data.py'),
       *arguments], capture_output=True, text=True, timeout=60)


def test_program_folder_of_photos_is_converted_and_summarized(tmp_path):
  dataset_kit.make_folder(tmp_path / 'pets', {'cat': 10, 'dog': 15})
  (tmp_path / 'pets' / 'cat' / 'no\nphoto.jpg').write_text('text')
  result = run_program('--dataset_name=pets', '--dataset_dir=%s' % tmp_path,
                       '--percent_validation=20', '--num_shards=2', '--seed=5')
  assert (result.returncode, result.stderr) == (0, '')
  lines = result.stdout.splitlines()
  assert [line.split() for line in lines[:4]] == [
      ['photos', 'train', 'validation'], ['cat', '8', '2'], ['dog', '12', '3'],
      ['all', '20', '5']]
  assert lines[4] == 'skipped files: 1'
  assert lines[5].startswith('  cat/no\\nphoto.jpg: not a photo')
  assert lines[6:] == [
      'written to %s:' % tmp_path,
      '  pets_train-00000-of-00002.tfrecord to '
      'pets_train-00001-of-00002.tfrecord',
      '  pets_validation-00000-of-00002.tfrecord to '
      'pets_validation-00001-of-00002.tfrecord',
      '  labels.txt', '  pets_skipped.csv', '  pets.json',
      '  pets_photos.jpg: a picture of the photos']
  saved = manifest.load(str(tmp_path), 'pets')
  assert (saved.seed, saved.percent_validation) == (5, 20)
  dataset = dataset_factory.get_dataset('pets', 'train', str(tmp_path))
  assert dataset.num_samples == 20


@pytest.mark.slow
@pytest.mark.parametrize('arguments, flag', [
    (['--dataset_dir=/tmp'], '--dataset_name'),
    (['--dataset_name=pets'], '--dataset_dir'),
    (['--dataset_name=pets', '--dataset_dir='], '--dataset_dir')], ids=str)
def test_program_missing_flag_is_named_in_one_line(arguments, flag):
  result = run_program(*arguments)
  assert result.returncode == 1 and result.stdout == ''
  assert result.stderr.count('\n') == 1 and flag in result.stderr


def test_program_missing_folder_is_one_line_error(tmp_path):
  result = run_program('--dataset_name=pets', '--dataset_dir=%s' % tmp_path)
  assert result.returncode == 1 and result.stdout == ''
  assert result.stderr.count('\n') == 1
  assert str(tmp_path / 'pets') in result.stderr


@pytest.mark.parametrize('flag, name', [
    ('dataset_dir', 'mnist'), ('dataset_name', 'pets')])
def test_program_non_utf8_name_is_one_line_error(tmp_path, flag, name):
  arguments = {'dataset_name': name, 'dataset_dir': str(tmp_path / 'data')}
  arguments[flag] += '\udcff'
  result = run_program(*('--%s=%s' % row for row in arguments.items()))
  assert result.returncode == 1 and result.stdout == ''
  assert result.stderr.count('\n') == 1
  assert '--%s is ' % flag in result.stderr and '\\xff, exp' in result.stderr
  assert os.listdir(str(tmp_path)) == []


def test_program_text_that_stdout_cannot_encode_is_escaped(
    tmp_path, monkeypatch):
  dataset_kit.make_folder(tmp_path / 'pets', {'中文': 3, 'a\x1b[31mb': 3})
  (tmp_path / 'pets' / '中文' / '坏.jpg').write_bytes(b'')
  monkeypatch.setenv('PYTHONIOENCODING', 'ascii')
  result = run_program('--dataset_name=pets', '--dataset_dir=%s' % tmp_path,
                       '--max_bad_fraction=0.5')
  assert (result.returncode, result.stderr) == (0, '')
  assert [line.split() for line in result.stdout.splitlines()[:6]] == [
      ['photos', 'train', 'validation'], ['a\\x1b[31mb', '2', '1'],
      ['\\u4e2d\\u6587', '2', '1'], ['all', '4', '2'],
      ['skipped', 'files:', '1'],
      ['\\u4e2d\\u6587/\\u574f.jpg:', 'the', 'file', 'is', 'empty']]
  assert manifest.load(str(tmp_path), 'pets').labels == ['a\x1b[31mb', '中文']


def test_program_reports_test_split_and_duplicate_photos(tmp_path):
  folder = tmp_path / 'pets'
  dataset_kit.make_folder(folder, {'cat': 20, 'dog': 20})
  data = (folder / 'cat' / '000.jpg').read_bytes()
  (folder / 'dog' / 'a\tb.jpg').write_bytes(data)
  data = (folder / 'cat' / '001.jpg').read_bytes()
  (folder / 'cat' / 'b.jpg').write_bytes(data)
  result = run_program('--dataset_name=pets', '--dataset_dir=%s' % tmp_path,
                       '--percent_test=20', '--max_bad_fraction=0')
  assert (result.returncode, result.stderr) == (0, '')
  lines = result.stdout.splitlines()
  assert [line.split() for line in lines[:4]] == [
      ['photos', 'train', 'validation', 'test'], ['cat', '14', '2', '4'],
      ['dog', '14', '2', '4'], ['all', '28', '4', '8']]
  assert lines[4:11] == [
      'skipped files: 2',
      '  cat/000.jpg: the same photo is in another class: dog/a\\tb.jpg',
      '  dog/a\\tb.jpg: the same photo is in another class: cat/000.jpg',
      'same photo in several classes, skipped: 1',
      '  cat/000.jpg, dog/a\\tb.jpg',
      'same photo several times in a class, in one split: 1',
      '  cat/001.jpg, cat/b.jpg']


def test_program_too_many_bad_files_is_one_line_error(tmp_path):
  dataset_kit.make_folder(tmp_path / 'pets', {'cat': 5, 'dog': 5})
  (tmp_path / 'pets' / 'cat' / 'no\nphoto.jpg').write_text('text')
  result = run_program('--dataset_name=pets', '--dataset_dir=%s' % tmp_path)
  assert result.returncode == 1 and result.stdout == ''
  assert result.stderr.count('\n') == 1
  assert 'pets_skipped.csv lists them' in result.stderr


def test_summary_names_the_labels_file_that_was_written(tmp_path):
  for name, classes in (('pets', {'cat': 2, 'dog': 2}),
                        ('trees', {'fir': 2, 'oak': 2})):
    dataset_kit.make_folder(tmp_path / name, classes)
    converted = convert_photos.convert(str(tmp_path), name)
    text = download_and_convert_data.summary(converted, str(tmp_path))
    expected = {'pets': '  labels.txt', 'trees': '  trees_labels.txt'}[name]
    assert [line for line in text.splitlines()
            if line.endswith('labels.txt')] == [expected]


def test_summary_names_the_photos_dir_of_the_former_conversion(tmp_path):
  dataset_kit.make_folder(tmp_path / 'photos', {'cat': 2, 'dog': 2})
  records = str(tmp_path / 'records')
  convert_photos.convert(records, 'pets', photos_dir=str(tmp_path / 'photos'))
  (tmp_path / 'records' / 'pets').mkdir()  # Not read.
  kept = convert_photos.convert(records, 'pets')
  assert 'photos read from %s\n' % (tmp_path / 'photos') in (
      download_and_convert_data.summary(kept, records))


def test_summary_shortens_a_long_list_of_skipped_files(tmp_path):
  dataset_kit.make_folder(tmp_path / 'pets', {'cat': 2, 'dog': 2})
  for index in range(30):
    (tmp_path / 'pets' / 'cat' / ('%d.txt' % index)).write_text('text')
  converted = convert_photos.convert(str(tmp_path), 'pets', max_bad_fraction=1)
  text = download_and_convert_data.summary(converted, str(tmp_path))
  assert text.count('not a photo') == 20
  assert 'skipped files: 30' in text
  assert '  and 10 more, listed in pets_skipped.csv' in text


# Public data sets.


def test_program_imagenet_is_converted_from_the_folders_in_its_flags(tmp_path):
  imagenet_kit.make_tree(tmp_path)
  out = tmp_path / 'records'
  out.mkdir()
  result = run_program(
      '--dataset_name=imagenet', '--dataset_dir=%s' % out,
      '--imagenet_train_dir=%s' % (tmp_path / 'train'),
      '--imagenet_validation_dir=%s' % (tmp_path / 'validation'),
      '--imagenet_validation_labels=%s' % (tmp_path / 'classes.txt'),
      '--imagenet_bounding_boxes=%s' % (tmp_path / 'boxes.csv'),
      '--imagenet_train_shards=4', '--imagenet_validation_shards=2')
  assert result.returncode == 0, result.stderr
  assert result.stdout.splitlines() == [
      'train: 18 photos in 4 files, the first is %s' %
      (out / 'train-00000-of-00004'),
      'validation: 5 photos in 2 files, the first is %s' %
      (out / 'validation-00000-of-00002'),
      '  imagenet_photos.jpg: a picture of the photos']
  dataset = dataset_factory.get_dataset('imagenet', 'train', str(out))
  assert (dataset.num_samples, dataset.num_classes) == (18, 1001)


def test_program_visualwakewords_passes_its_flags(tmp_path, capsys):
  coco_kit.put_archives(tmp_path)
  (tmp_path / 'coco_dataset').rename(tmp_path / 'coco')
  (tmp_path / 'coco' / 'val2014.zip').rename(tmp_path / 'coco' / 'other.zip')
  with parsed_flags(download_and_convert_data.define_flags,
                    '--dataset_name=visualwakewords',
                    '--dataset_dir=%s' % tmp_path, '--coco_dirname=coco',
                    '--foreground_class_of_interest=dog',
                    '--small_object_area_threshold=0.1',
                    '--coco_validation_url=http://no.invalid/other.zip'):
    download_and_convert_data.main([])
  lines = capsys.readouterr().out.splitlines()
  assert [line.split() for line in lines[:4]] == [
      ['photos', 'train', 'val'], ['background', '4', '2'], ['dog', '1', '1'],
      ['all', '5', '3']]
  assert (tmp_path / 'labels.txt').read_text() == '0:background\n1:dog\n'


@pytest.mark.slow
@pytest.mark.parametrize('arguments, message', [
    (['--dataset_name=imagenet'], 'give --imagenet_train_dir, '),
    (['--dataset_name=pets', '--imagenet_train_dir=x'],
     '--imagenet_train_dir is for --dataset_name=imagenet if dataset_dir '
     "has no folder imagenet/; the data set 'pets' accepts --percent_valida"),
    (['--dataset_name=imagenet', '--num_shards=4'],
     '--num_shards is for folders of photos, flowers, cifar10 and mnist; the '
     "data set 'imagenet' accepts --imagenet_train_dir, "),
    (['--dataset_name=mnist', '--percent_validation=10'],
     '--percent_validation is for folders of photos and flowers; the data set '
     "'mnist' accepts --num_shards\n"),
    (['--dataset_name=cifar10', '--num_shards=2', '--seed=0'],
     '--seed is for folders of photos, flowers and imagenet; '),
    (['--dataset_name=cifar10', '--coco_dirname=x'],
     "--coco_dirname is for visualwakewords; the data set 'cifar10' accepts "),
], ids=str)
def test_program_flag_of_another_converter_is_one_line_error(
    tmp_path, arguments, message):
  result = run_program('--dataset_dir=%s' % tmp_path, *arguments)
  assert result.returncode == 1
  assert message in result.stderr and result.stderr.count('\n') == 1


@pytest.mark.parametrize('arguments, message', [
    (['--dataset_name=flowers', '--shard_of=1/2'], 'are for folders of photos'),
    (['--dataset_name=mnist', '--merge_shards=2'], 'are for folders of photos'),
    (['--dataset_name=pets', '--shard_of=1/2', '--merge_shards=2'],
     'give one of them'),
    (['--dataset_name=pets', '--shard_of='], '--shard_of=: expected K/N')])
def test_main_shares_that_cannot_be_are_an_input_error(tmp_path, arguments,
                                                       message):
  with parsed_flags(download_and_convert_data.define_flags,
                    '--dataset_dir=%s' % tmp_path, *arguments):
    with pytest.raises(InputError, match=message):
      download_and_convert_data.main([])


def test_program_flowers_passes_only_explicit_flags(tmp_path, monkeypatch):
  calls = []

  def convert(name, dataset_dir, **options):
    calls.append((name, dataset_dir, options))
    return convert_photos.convert(dataset_dir, 'pets')

  dataset_kit.make_folder(tmp_path / 'pets', {'cat': 10, 'dog': 15})
  monkeypatch.setattr(public, 'convert', convert)
  for extra, options in (([], {}), (['--imagenet_train_dir='], {}),
                         (['--percent_validation=10', '--seed=0'],
                          {'percent_validation': 10, 'seed': 0})):
    with parsed_flags(download_and_convert_data.define_flags,
                      '--dataset_name=flowers',
                      '--dataset_dir=%s' % tmp_path, *extra):
      download_and_convert_data.main([])
    assert calls.pop() == ('flowers', str(tmp_path), options)


def test_program_folder_of_photos_named_imagenet_is_converted(tmp_path):
  dataset_kit.make_folder(tmp_path / 'imagenet', {'cat': 10, 'dog': 15})
  result = run_program('--dataset_name=imagenet', '--dataset_dir=%s' % tmp_path)
  assert result.returncode == 0, result.stderr
  assert manifest.load(str(tmp_path), 'imagenet').labels == ['cat', 'dog']


def test_program_photo_folder_named_like_public_set_takes_photo_flags(tmp_path):
  for name in ('mnist', 'imagenet'):
    dataset_kit.make_folder(tmp_path / name, {'cat': 10, 'dog': 15})
    with parsed_flags(download_and_convert_data.define_flags,
                      '--dataset_name=%s' % name,
                      '--dataset_dir=%s' % tmp_path,
                      '--percent_validation=40'):
      download_and_convert_data.main([])
    splits = manifest.load(str(tmp_path), name).splits
    assert splits['validation']['size'] == 10


# Runs the program with the address, size and checksum given as arguments, and
# does not wait between retries.
PUBLIC_PROGRAM = """
import sys
sys.path.insert(0, %r)
import download_and_convert_data
from common import flags
from datasets.conversion import convert_cifar10
from downloads import fetch
fetch.WAITS = (0,)
convert_cifar10.URLS, convert_cifar10.SIZE, convert_cifar10.SHA256 = (
    (sys.argv.pop(1),), int(sys.argv.pop(1)), sys.argv.pop(1))
download_and_convert_data.define_flags()
flags.run(download_and_convert_data.main)
""" % ROOT


@pytest.mark.slow
@pytest.mark.engine('tf1')
@pytest.mark.parametrize('case,message', [
    ('cut', None),
    ('size', ': it offers 3 bytes, but 4 are expected'),
    ('hostile', "cifar-10-binary.tar.gz.part is not unpacked: its member '../x'"
     ' leaves the folder'),
    ('gone', ': HTTP 404 Not Found); get it another way, put it at '),
    ('network', 'http://no.invalid/cifar-10-binary.tar.gz: '),
])
def test_program_failed_download_is_one_line_error_and_leaves_no_file(
    tmp_path, monkeypatch, case, message):
  monkeypatch.setenv('no_proxy', '*')
  archive = {'size': b'123', 'gone': None,
             'hostile': download_kit.tar_gz({'../x': b'x'})}.get(
                 case, public_kit.cifar_archive())
  size = 4 if case == 'size' else len(archive or b'')
  with download_kit.running() as kit:
    kit.files['/cifar-10-binary.tar.gz'] = archive
    kit.behaviours[:] = [{'cut': 1000}] if case == 'cut' else []
    host = 'http://no.invalid' if case == 'network' else kit.url
    done = subprocess.run(
        [sys.executable, '-c', PUBLIC_PROGRAM,
         host + '/cifar-10-binary.tar.gz', str(size),
         download_kit.sha256(archive or b''), '--dataset_name=cifar10',
         '--dataset_dir=%s' % (tmp_path / 'data')],
        capture_output=True, text=True)
  files = sorted(os.listdir(str(tmp_path / 'data')))
  if message is None:
    assert done.returncode == 0, done.stderr
    assert 'trying again' in done.stderr and 'Resuming' in done.stderr
    assert 'cifar10.json' in files and len(files) == 6
    return
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  errors = [line for line in done.stderr.splitlines() if ': error: ' in line]
  assert message in errors[0] and len(errors) == 1
  assert done.stderr.splitlines()[-1] == errors[0]
  assert not files and os.listdir(str(tmp_path)) == ['data']
