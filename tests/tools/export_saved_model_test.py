"""Tests of export_saved_model.py: scores equal those of the frozen graph."""

import collections
import io
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from common import files
from common.errors import InputError
from compat import tf
from datasets.photo_files import photos
from kits import photo_kit
from kits import serving_kit as kit
from kits.helpers import ROOT
from ood import reference_bank
from serving.exports import saved_model
from serving.model import graph_files, graph_info, inference_graph
from serving.model.classifier import Classifier
from tools import export_saved_model as program

PHOTOS = [kit.make_photo(seed) for seed in range(6)]
NETWORK = 'mobilenet_v1_025'

# Loads a version in a process that has only TensorFlow.
LOAD = '''
import sys
import numpy as np
import tensorflow
tf = tensorflow.compat.v1
api, path, path_of_outputs = sys.argv[1:4]
photos = [open(name, 'rb').read() for name in sys.argv[4:]]
if api == 'session':
  with tf.Session(graph=tf.Graph()) as session:
    loaded = tf.saved_model.loader.load(session, ['serve'], path)
    signature = loaded.signature_def['serving_default']
    outputs = session.run(
        {name: output.name for name, output in signature.outputs.items()},
        {signature.inputs['image_bytes'].name: photos})
else:
  tf.enable_v2_behavior()
  loaded = tensorflow.compat.v2.saved_model.load(path)
  outputs = loaded.signatures['serving_default'](
      image_bytes=tf.constant(photos))
  outputs = {name: value.numpy() for name, value in outputs.items()}
assert not [name for name in ('compat', 'serving') if name in sys.modules]
outputs['classes'] = outputs['classes'].astype('S')
np.savez(path_of_outputs, **outputs)
'''

# plain, float, fixed, known, known_float: paths of frozen graphs.
Graphs = collections.namedtuple('Graphs', 'plain float fixed known known_float')


@pytest.fixture(scope='module')
def graphs(tmp_path_factory):
  folder = tmp_path_factory.mktemp('graphs')
  prefix = kit.save_checkpoint(folder / 'train', NETWORK)

  def freeze(name, **options):
    with tf.Graph().as_default():
      info = inference_graph.build(NETWORK, kit.LABELS, kit.SIZE,
                                   temperature=2.0, **options)
      graph_def = inference_graph.freeze(info, prefix)
    path = str(folder / (name + '.pb'))
    files.write_bytes(path, graph_def.SerializeToString())
    return path

  plain = freeze('plain', input_kind='encoded')
  bank = make_bank(plain)
  return Graphs(plain, freeze('float'), freeze('fixed', batch_size=2),
                freeze('known', input_kind='encoded', bank=bank),
                freeze('known_float', bank=bank))


def make_bank(path):
  """Returns a Bank of three photos that knows these but not all others."""
  graph_def = graph_files.read_frozen(path, 'graph')
  info = graph_info.read(graph_def)
  with tf.Graph().as_default(), tf.Session() as session:
    tf.import_graph_def(graph_def, name='')
    features, logits = session.run([info.features, info.logits],
                                   {info.input: PHOTOS})
  features = features.reshape([len(PHOTOS), -1])
  bank = reference_bank.assemble(features[:3], [0, 1, 2])._replace(
      filenames=['daisy/secret_%d.jpg' % number for number in range(3)])
  similarities = reference_bank.similarities(bank, features)
  return reference_bank.set_threshold(bank, similarities, logits, 'validation',
                                      0.5)


def export(path, folder, **options):
  """Writes the next version of a frozen graph; returns its path."""
  return saved_model.write(graph_files.read_frozen(path, 'graph'), str(folder),
                           **options)[0]


def serve(version, encoded):
  """Returns the outputs by name, as TensorFlow Serving computes them."""
  with tf.Session(graph=tf.Graph()) as session:
    signature = load(session, version)
    return session.run(
        {name: output.name for name, output in signature.outputs.items()},
        {signature.inputs['image_bytes'].name: encoded})


def load(session, version):
  """Loads a version into a session; returns its signature."""
  loaded = tf.saved_model.loader.load(session, ['serve'], str(version))
  return loaded.signature_def['serving_default']


def rotated_photo():
  """Returns a JPEG that its EXIF block says to rotate by 90 degrees."""
  image = Image.open(io.BytesIO(kit.make_photo(1, height=70, width=110)))
  exif = Image.Exif()
  exif[0x0112] = 6
  stream = io.BytesIO()
  image.save(stream, 'JPEG', exif=exif)
  return stream.getvalue()


@pytest.mark.parametrize('batch_size', [1, 6])
@pytest.mark.parametrize('kind', ['plain', 'float'])
def test_saved_model_scores_equal_those_of_classifier(graphs, tmp_path, kind,
                                                      batch_size):
  path = getattr(graphs, kind)
  expected = Classifier.from_frozen_graph(path).classify(PHOTOS)
  assert np.ptp(expected, axis=0).max() > 0.01, 'photos must differ'
  version = export(path, tmp_path)
  outputs = [serve(version, PHOTOS[start:start + batch_size])
             for start in range(0, len(PHOTOS), batch_size)]
  assert set(outputs[0]) == {'classes', 'probabilities'}
  np.testing.assert_allclose(
      np.concatenate([output['probabilities'] for output in outputs]), expected,
      atol=1e-5)
  for output in outputs:
    assert output['probabilities'].dtype == np.float32
    assert [[name.decode() for name in row] for row in output['classes']] == (
        [kit.LABELS] * batch_size)


@pytest.mark.parametrize('kind', ['plain', 'float'])
def test_saved_model_scores_transparent_and_cmyk_photos_like_classifier(
    graphs, tmp_path, kind):
  path = getattr(graphs, kind)
  rare_photos = [*photo_kit.transparent_pngs().values(),
                 *photo_kit.cmyk_jpegs().values()]
  scores = serve(export(path, tmp_path), rare_photos)['probabilities']
  np.testing.assert_allclose(
      scores, Classifier.from_frozen_graph(path).classify(rare_photos),
      atol=1e-5)


@pytest.mark.parametrize('kind', ['known', 'known_float'])
def test_saved_model_known_and_similarity_equal_those_of_classifier(
    graphs, tmp_path, kind):
  path = getattr(graphs, kind)
  predictions = Classifier.from_frozen_graph(path).predict_each(PHOTOS)
  outputs = serve(export(path, tmp_path), PHOTOS)
  assert outputs['known'].dtype == bool
  assert outputs['known'].tolist() == [row.known for row in predictions]
  assert set(outputs['known'].tolist()) == {True, False}
  np.testing.assert_allclose(outputs['similarity'],
                             [row.similarity for row in predictions],
                             atol=1e-5)
  np.testing.assert_allclose(outputs['probabilities'],
                             [row.scores for row in predictions], atol=1e-5)


def test_saved_model_does_not_contain_names_of_training_photos(
    graphs, tmp_path):
  version = export(graphs.known, tmp_path)
  with open(graphs.known, 'rb') as stream:
    assert b'secret_1.jpg' in stream.read()
  with open(os.path.join(version, 'saved_model.pb'), 'rb') as stream:
    assert b'secret_1.jpg' not in stream.read()
  with tf.Session(graph=tf.Graph()) as session:
    load(session, version)
    info = graph_info.read(session.graph.as_graph_def())
  assert (info.checkpoint, info.labels, info.bank_filenames, info.input) == (
      'model.ckpt-7', kit.LABELS, None, 'image_bytes:0')


def test_saved_model_calibrated_scores_equal_those_of_classifier(
    graphs, tmp_path):
  expected = Classifier.from_frozen_graph(
      graphs.plain, calibrated=True).classify(PHOTOS)
  outputs = serve(export(graphs.plain, tmp_path, calibrated=True), PHOTOS)
  np.testing.assert_allclose(outputs['probabilities'], expected, atol=1e-5)
  plain = serve(export(graphs.plain, tmp_path), PHOTOS)['probabilities']
  assert np.abs(plain - expected).max() > 0.01


def test_saved_model_of_graph_with_fixed_batch_size_keeps_it(graphs, tmp_path):
  version = export(graphs.fixed, tmp_path)
  with tf.Session(graph=tf.Graph()) as session:
    signature = load(session, version)
  assert signature.inputs['image_bytes'].tensor_shape.dim[0].size == 2
  expected = Classifier.from_frozen_graph(graphs.fixed).classify(PHOTOS[:2])
  np.testing.assert_allclose(serve(version, PHOTOS[:2])['probabilities'],
                             expected, atol=1e-5)


def test_saved_model_signature_suits_tensorflow_serving(graphs, tmp_path):
  with tf.Session(graph=tf.Graph()) as session:
    signature = load(session, export(graphs.known, tmp_path))
  assert signature.method_name == 'tensorflow/serving/predict'
  shapes = {name: (tf.as_dtype(info.dtype).name,
                   [dim.size for dim in info.tensor_shape.dim])
            for side in (signature.inputs, signature.outputs)
            for name, info in side.items()}
  assert shapes == {
      'image_bytes': ('string', [-1]), 'classes': ('string', [-1, 5]),
      'probabilities': ('float32', [-1, 5]), 'known': ('bool', [-1]),
      'similarity': ('float32', [-1])}


@pytest.mark.slow
@pytest.mark.parametrize('api', ['session', 'eager'])
def test_saved_model_loads_in_process_with_only_tensorflow(
    graphs, tmp_path, api):
  check_process_loads(sys.executable, api, graphs.known_float, tmp_path)


def check_process_loads(python, api, path, folder):
  """Exports a graph, loads it in a separate process and compares outputs."""
  names = kit.write_photos(folder, 3)
  version = export(path, folder / 'versions')
  completed = subprocess.run(
      [python, '-I', '-c', LOAD, api, version, str(folder / 'outputs.npz'),
       *names], cwd='/', capture_output=True, text=True)
  assert completed.returncode == 0, completed.stderr
  outputs = np.load(str(folder / 'outputs.npz'))
  predictions = Classifier.from_frozen_graph(path).predict_each(PHOTOS[:3])
  np.testing.assert_allclose(outputs['probabilities'],
                             [row.scores for row in predictions], atol=1e-5)
  assert outputs['known'].tolist() == [row.known for row in predictions]
  assert outputs['classes'][2][4] == b'tulips'


@pytest.mark.slow
@pytest.mark.parametrize('api', ['session', 'eager'])
@pytest.mark.parametrize('kind', ['known', 'known_float'])
def test_saved_model_loads_on_other_engine(graphs, tmp_path, kind, api):
  other_environment = '.venv' if sys.prefix.endswith('-tf2') else '.venv-tf2'
  python = os.path.join(ROOT, other_environment, 'bin', 'python')
  if not os.path.exists(python):
    pytest.skip('needs both engines: ENGINE=... ./setup.sh')
  check_process_loads(python, api, getattr(graphs, kind), tmp_path)


def test_saved_model_leaves_rotation_and_other_formats_to_client(
    graphs, tmp_path):
  classifier = Classifier.from_frozen_graph(graphs.plain)
  version = export(graphs.plain, tmp_path)
  rotated = rotated_photo()
  expected = classifier.classify([rotated])
  raw = serve(version, [rotated])['probabilities']
  assert np.abs(raw - expected).max() > 0.01
  upright = photos.normalize_photo(rotated).encoded
  np.testing.assert_allclose(serve(version, [upright])['probabilities'],
                             expected, atol=1e-5)
  bmp = kit.make_photo(0, 'BMP')
  assert classifier.classify([bmp]).shape == (1, 5)
  for unreadable in (bmp, b'no photo'):
    with pytest.raises(tf.errors.InvalidArgumentError):
      serve(version, [PHOTOS[0], unreadable])
  serve(version, [kit.make_photo(0, 'PNG')])


def test_write_numbers_versions_upwards_and_never_replaces_them(
    graphs, tmp_path):
  folder = tmp_path / 'a' / 'model'
  assert export(graphs.plain, folder) == str(folder / '1')
  assert export(graphs.plain, folder, version=40) == str(folder / '40')
  (folder / 'notes').mkdir()
  (folder / '99x').mkdir()
  assert export(graphs.plain, folder) == str(folder / '41')
  with pytest.raises(InputError) as error:
    export(graphs.float, folder, version=40)
  assert str(error.value) == (
      '--version=40 is in %s already; there are 1, 40, 41' % folder)
  assert sorted(os.listdir(str(folder))) == ['1', '40', '41', '99x', 'notes']


def test_write_killed_leaves_no_version(graphs, tmp_path):
  script = ('import os, signal; from serving.exports import saved_model\n'
            'from serving.model import graph_files\n'
            'def rename(old, new):\n'
            '  print(sorted(os.listdir(old)))\n'
            '  os.kill(os.getpid(), signal.SIGKILL)\n'
            'os.rename = rename\n'
            'saved_model.write(graph_files.read_frozen(%r, "graph"), %r)\n' % (
                graphs.plain, str(tmp_path)))
  completed = subprocess.run([sys.executable, '-uc', script], cwd=ROOT,
                             capture_output=True, text=True)
  assert completed.returncode == -9 and 'saved_model.pb' in completed.stdout
  names = os.listdir(str(tmp_path))
  assert '.1.tmp' in names
  # TensorFlow Serving loads only folders with a number as their name.
  assert not [name for name in names if name.isdigit()]
  export(graphs.plain, tmp_path, version=7)
  assert os.listdir(str(tmp_path)) == ['7']


@pytest.mark.parametrize('error, reason', [
    (tf.errors.ResourceExhaustedError(None, None, 'x; No space left\nat'),
     'x; No space left'),
    (PermissionError(13, 'Permission denied'), 'Permission denied')])
def test_write_failing_leaves_nothing(
    graphs, tmp_path, monkeypatch, error, reason):
  def save(path, *_):
    os.makedirs(path)
    raise error

  monkeypatch.setattr(saved_model, '_save', save)
  with pytest.raises(InputError) as raised:
    export(graphs.plain, tmp_path)
  assert str(raised.value) == 'cannot write %s: %s' % (tmp_path / '1', reason)
  assert os.listdir(str(tmp_path)) == []


def test_main_prints_inputs_and_outputs(graphs, tmp_path, capsys):
  assert kit.run(program, '--frozen_file=' + graphs.known,
                 '--saved_model_dir=%s' % (tmp_path / 'm')) == 0
  lines = [line.split() for line in capsys.readouterr().out.splitlines()]
  assert lines[0][:5] == ['Wrote', str(tmp_path / 'm' / '1:'), 'SavedModel',
                          'of', 'model.ckpt-7,']
  assert [line[:5] for line in lines[2:4]] == [
      ['in', 'image_bytes', 'string', '[batch]', 'photos,'],
      ['out', 'classes', 'string', '[batch,', '5]']]
  assert [line[1] for line in lines[4:]] == ['probabilities', 'known',
                                             'similarity']


@pytest.mark.parametrize('flags, message', [
    ([], '--frozen_file is needed'),
    (['--frozen_file=PLAIN'], '--saved_model_dir is needed'),
    (['--frozen_file=/no/where', '--saved_model_dir=DIR'],
     "cannot read the frozen graph '/no/where'"),
    (['--frozen_file=FOREIGN', '--saved_model_dir=DIR'],
     'the frozen graph has no classifier/info: ./export_freeze.sh writes one'),
    (['--frozen_file=UNFITTED', '--saved_model_dir=DIR', '--calibrated'],
     '--calibrated: the graph has no calibrated scores; ./report.sh'),
    (['--frozen_file=PLAIN', '--saved_model_dir=FILE'], 'cannot write .*FILE'),
])
def test_main_with_wrong_flags_raises_one_line_error(
    graphs, tmp_path, flags, message):
  graph_def = graph_files.read_frozen(graphs.plain, 'graph')
  info = graph_info.read(graph_def)
  graph_info.attach(graph_def, info._replace(calibrated_predictions=None))
  (tmp_path / 'UNFITTED').write_bytes(graph_def.SerializeToString())
  foreign = tf.graph_util.extract_sub_graph(
      graph_def, [info.predictions.split(':')[0]])
  (tmp_path / 'FOREIGN').write_bytes(foreign.SerializeToString())
  (tmp_path / 'FILE').write_text('in the way')
  for name in ('UNFITTED', 'FOREIGN', 'FILE', 'DIR'):
    flags = [flag.replace(name, str(tmp_path / name)) for flag in flags]
  flags = [flag.replace('PLAIN', graphs.plain) for flag in flags]
  with pytest.raises(InputError, match='^' + message) as error:
    kit.run(program, *flags)
  assert '\n' not in str(error.value)


def test_main_with_graph_of_another_step_than_run_raises_input_error(
    graphs, tmp_path):
  folder = tmp_path / 'm'
  flags = ['--frozen_file=' + graphs.plain, '--saved_model_dir=%s' % folder]
  train_dir = os.path.join(os.path.dirname(graphs.plain), 'train')
  kit.run(program, '--checkpoint_path=' + train_dir, *flags)
  kit.run(program, '--checkpoint_path=%s' % tmp_path, *flags)  # No run.
  assert saved_model.versions(str(folder)) == [1, 2]
  kit.save_checkpoint(tmp_path / 'best', NETWORK, step=9)
  kit.run(program, '--checkpoint_path=' + train_dir, *flags)
  with pytest.raises(InputError, match='is of step 7, and .*best/model.ckpt-9, '
                     'the checkpoint of the run, is of step 9: run ./export_f'):
    kit.run(program, '--checkpoint_path=%s' % tmp_path, *flags)
  assert saved_model.versions(str(folder)) == [1, 2, 3]


def test_main_writes_step_and_logs_outputs_that_version_lacks(
    graphs, tmp_path, caplog):
  folder = str(tmp_path / 'm')
  for name, more_flags, lost_outputs in ((graphs.known, ['--calibrated'], None),
                                         (graphs.plain, [],
                                          'Known and CalibratedPredictions'),
                                         (graphs.plain, [], None)):
    caplog.clear()
    kit.run(program, '--frozen_file=' + name, '--saved_model_dir=' + folder,
            *more_flags)
    assert saved_model.read_info(folder).global_step == 7
    assert [message for message in caplog.messages if 'lacks' in message] == (
        ['%s/2 lacks what the previous version has: %s; that version is kept' %
         (folder, lost_outputs)] if lost_outputs else [])


@pytest.fixture
def project(tmp_path):
  """A copy of scripts/ with programs that only record how they are called."""
  shutil.copytree(os.path.join(ROOT, 'scripts'), str(tmp_path / 'scripts'))
  shutil.copy(os.path.join(ROOT, 'env_set.sh'), str(tmp_path))
  for name in ('setup.sh', 'export_freeze.sh', '.venv/bin/python',
               '.venv-tf2/bin/python'):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('#!/usr/bin/env bash\necho "${0##*/} ${CHECKPOINT:-rule} '
                    '$*" >>"$CALLS"\n')
    path.chmod(0o755)
  return tmp_path


@pytest.mark.parametrize('graph_exists, variables, flags, frozen_checkpoint', [
    (True, {}, [], None),
    (False, {}, [], 'rule'),
    (True, {'CHECKPOINT': 'newest'}, [], 'newest'),
    (False, {}, ['--frozen_file=/mine.pb', '--version=3'], None),
])
def test_script_freezes_only_when_needed(
    project, graph_exists, variables, flags, frozen_checkpoint):
  if graph_exists:
    (project / 'my_lenet_freeze.pb').write_text('')
  env = dict(os.environ, MODEL_NAME='lenet', EXPORT_DIR=str(project),
             CALLS=str(project / 'calls'), **variables)
  completed = subprocess.run(
      [str(project / 'scripts' / 'export_saved_model.sh'), *flags], env=env,
      capture_output=True, text=True)
  assert completed.returncode == 0, completed.stderr
  calls = [line.split() for line in (project / 'calls').read_text().split('\n')
           if line and not line.startswith('setup.sh')]
  frozen = [call[1] for call in calls if call[0] == 'export_freeze.sh']
  assert frozen == ([frozen_checkpoint] if frozen_checkpoint else [])
  assert calls[-1][0] == 'python'
  which = ['--which_checkpoint=newest'] if variables else []
  assert calls[-1][2:] == [
      str(project / 'tools' / 'export_saved_model.py'),
      '--frozen_file=%s/my_lenet_freeze.pb' % project,
      '--saved_model_dir=%s/saved_model/my_lenet' % project, *which, *flags]
