"""Tests of training/gradient_precision.py: --precision=bfloat16 in training."""

import re
import shutil

import numpy as np
import pytest

from common.errors import InputError
from compat import slim, tf
from kits.run_kit import evaluate, evaluations
from kits.trained_kit import (
  make_dataset,
  read_variables,
  train,
  train_config,
)
from runs import checkpoints, run_info
from runtime import forward_pass, openvino_model, tensorflow_session
from training import gradient_precision, loop

BFLOAT16 = '--precision=bfloat16'
SEED = ['--seed=1', '--session_threads=1']
PLAIN = [*SEED, '--optimizer=adam', '--learning_rate=0.001']
STEPS = 50
CACHED = [*SEED, '--cache_features',
          '--trainable_scopes=CifarNet/logits', '--max_number_of_steps=2',
          '--finetune_all_steps=2']

needs_bfloat16 = pytest.mark.skipif(
    not forward_pass.supports_bfloat16(forward_pass.TENSORFLOW),
    reason='TensorFlow cannot compute with bfloat16 on this machine')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """A data set of 30 photos in 3 classes, 9 of them for validation."""
  return make_dataset(tmp_path_factory.mktemp('data'))


@pytest.fixture
def without_instructions(monkeypatch):
  """TensorFlow cannot compute with bfloat16, and OpenVINO can."""
  monkeypatch.setattr(tensorflow_session, 'supports_bfloat16', lambda: False)
  monkeypatch.setattr(openvino_model, 'supports_bfloat16', lambda: True)


class Recorded:
  """What training steps did.

  Attributes:
    losses: of each step.
    ops: {type of an operation: {dtypes it computed with}}, of the last step,
      after TensorFlow's rewrites.
  """

  def __init__(self, monkeypatch):
    self.losses = []

    def run(step, session, train_op, global_step, feed=None):
      trace = tf.RunMetadata()
      loss, number = session.run(
          [train_op, global_step], feed, run_metadata=trace,
          options=tf.RunOptions(output_partition_graphs=True))
      self.losses.append(float(loss))
      self.ops = {}
      for graph in trace.partition_graphs:
        for node in graph.node:
          for attribute in ('T', 'dtype', 'DstT'):
            if node.attr[attribute].type:
              self.ops.setdefault(node.op, set()).add(
                  tf.as_dtype(node.attr[attribute].type).base_dtype.name)
      return loss, max(number, step.step + 1)

    monkeypatch.setattr(loop.TrainStep, 'run', run)

  def dtypes(self, pattern):
    """Returns the dtypes of the operations whose type has a pattern."""
    matching = [dtypes for op, dtypes in self.ops.items()
                if re.search(pattern, op)]
    assert matching, 'no operation is a ' + pattern
    return set().union(*matching)


@pytest.fixture(scope='module')
def pair(data, tmp_path_factory):
  """{precision: (train directory, Recorded)} of the same STEPS steps."""
  runs = {}
  for precision in ('float32', 'bfloat16'):
    folder = tmp_path_factory.mktemp(precision)
    with pytest.MonkeyPatch.context() as patch:
      recorded = Recorded(patch)
      train(data, folder, *PLAIN, '--precision=' + precision,
            '--max_number_of_steps=%d' % STEPS,
            '--evaluate_every_n_steps=%d' % STEPS)
    runs[precision] = folder, recorded
  return runs


@pytest.mark.slow
@needs_bfloat16
def test_losses_are_near_those_of_float32_and_fall(pair):
  exact, near = (np.array(pair[name][1].losses)
                 for name in ('float32', 'bfloat16'))
  assert len(exact) == len(near) == STEPS
  assert exact[-10:].mean() < 0.7 * exact[:5].mean()
  assert 0 < np.abs(near - exact).max() < 0.1
  assert abs(near[-10:].mean() - exact[-10:].mean()) < 0.02


@pytest.mark.slow
@needs_bfloat16
@pytest.mark.parametrize('op', [
    'Conv2D$', 'Conv2DBackpropFilter', 'Conv2DBackpropInput', 'MatMul'])
def test_convolutions_and_their_gradients_compute_with_the_precision(pair, op):
  assert pair['float32'][1].dtypes(op) == {'float32'}
  assert 'bfloat16' in pair['bfloat16'][1].dtypes(op)
  assert 'bfloat16' in pair['bfloat16'][1].dtypes('^Cast$')


@pytest.mark.slow
@needs_bfloat16
def test_variables_and_applied_gradients_are_float32(pair):
  folder, recorded = pair['bfloat16']
  assert recorded.dtypes('^VariableV2$|^VarHandleOp$') <= {'float32', 'int64'}
  assert recorded.dtypes('ApplyAdam') == {'float32'}
  variables = read_variables(checkpoints.newest(str(folder)))
  assert {value.dtype.name for name, value in variables.items()
          if name != 'global_step'} == {'float32'}
  exact = read_variables(checkpoints.newest(str(pair['float32'][0])))
  assert ({name: value.shape for name, value in variables.items()} ==
          {name: value.shape for name, value in exact.items()})


@pytest.mark.slow
@needs_bfloat16
@pytest.mark.parametrize('before, flag, precision', [
    ('float32', BFLOAT16, 'bfloat16'),
    ('bfloat16', '--precision=float32', 'float32'),
    ('bfloat16', '--precision=auto', 'float32')])
def test_run_resumes_in_the_other_precision(data, pair, tmp_path, log, before,
                                            flag, precision, monkeypatch):
  shutil.copytree(str(pair[before][0]), str(tmp_path / 'run'))
  recorded = Recorded(monkeypatch)
  newest = train(data, tmp_path / 'run', *PLAIN, flag,
                 '--max_number_of_steps=%d' % (STEPS + 3))
  assert newest.endswith('-%d' % (STEPS + 3))
  assert 'Gradients: TensorFlow %s, %s' % (tf.__version__,
                                           precision) in log.text
  assert ('bfloat16' in recorded.dtypes('MatMul')) == (precision == 'bfloat16')
  assert abs(np.mean(recorded.losses) -
             np.mean(pair[before][1].losses[-10:])) < 0.3


@pytest.mark.slow
@needs_bfloat16
def test_evaluation_follows_the_precision_of_the_run(pair, tmp_path, log):
  folder, _ = pair['bfloat16']
  assert run_info.load(str(folder)).precision == 'bfloat16'
  line, = evaluations(folder)
  _, accuracy, loss = evaluate(folder / 'best', tmp_path, '--precision=auto')
  assert re.search('Forward passes: .*, bfloat16', log.text)
  assert (accuracy, loss) == (pytest.approx(line['accuracy'], abs=0.12),
                              pytest.approx(line['loss'], abs=0.02))


@pytest.mark.slow
@needs_bfloat16
def test_auto_trains_on_photos_with_the_bits_of_float32(data, tmp_path, log):
  first, second = (
      read_variables(train(data, tmp_path / name, *PLAIN,
                           '--precision=' + name, '--max_number_of_steps=3'))
      for name in ('auto', 'float32'))
  assert log.text.count('Gradients: TensorFlow %s, float32' %
                        tf.__version__) == 2
  assert run_info.load(str(tmp_path / 'auto')).precision == 'float32'
  for name, value in first.items():
    np.testing.assert_array_equal(value, second[name], name)


@pytest.mark.slow
@needs_bfloat16
@pytest.mark.parametrize('flag, precision', [
    (BFLOAT16, 'bfloat16'), ('--precision=auto', 'float32')])
def test_finetune_all_uses_bfloat16_if_it_is_given(
    data, tmp_path, monkeypatch, log, flag, precision):
  recorded = Recorded(monkeypatch)
  newest = train(data, tmp_path, *CACHED, flag,
                 '--feature_cache_dir=%s' % (tmp_path / 'features'))
  assert newest.endswith('-4')
  # The features are computed with bfloat16 in both cases.
  assert run_info.load(str(tmp_path)).precision == 'bfloat16'
  assert log.text.count('Gradients: ') == 1
  assert 'Gradients: TensorFlow %s, %s' % (tf.__version__,
                                           precision) in log.text
  assert ('bfloat16' in recorded.dtypes('Conv2DBackpropFilter')) == (
      precision == 'bfloat16')


@needs_bfloat16
def test_worker_of_a_cluster_computes_with_bfloat16():
  server = tf.train.Server.create_local_server()
  config = train_config(BFLOAT16)
  config = config._replace(replicas=config.replicas._replace(
      master=server.target))
  with tf.Graph().as_default():
    photos = tf.random_uniform([4, 8, 8, 3])
    # TensorFlow may fuse these three operations.
    features = slim.conv2d(photos, 8, 3)
    train_op = tf.train.GradientDescentOptimizer(0.1).minimize(
        tf.reduce_mean(tf.square(slim.conv2d(features, 4, 3))))
    trace = tf.RunMetadata()
    with tf.Session(server.target, config=gradient_precision.session_config(
        config, None)) as session:
      session.run(tf.global_variables_initializer())
      session.run(train_op, run_metadata=trace,
                  options=tf.RunOptions(output_partition_graphs=True))
  dtypes = {node.attr['T'].type for graph in trace.partition_graphs
            for node in graph.node if 'Conv2DBackprop' in node.op}
  assert dtypes == {tf.bfloat16.as_datatype_enum}


def test_training_on_photos_without_instructions_is_refused(
    data, tmp_path, without_instructions):
  with pytest.raises(InputError) as caught:
    train(data, tmp_path / 'run', *PLAIN, BFLOAT16, '--max_number_of_steps=1')
  assert str(caught.value) == (
      '--precision=bfloat16: training on photos with it needs TensorFlow 2 in '
      'this process, a processor with AVX-512 BF16 or AMX instructions, and no '
      'graphics card (this is TensorFlow %s); accepted: float32, auto' %
      tf.__version__)
  assert checkpoints.newest(str(tmp_path / 'run')) is None


@pytest.mark.engine('tf1')
def test_training_on_photos_on_tensorflow_1_is_refused(data, tmp_path):
  with pytest.raises(InputError, match='bfloat16: .* TensorFlow 2 .*accepted'):
    train(data, tmp_path, *PLAIN, BFLOAT16, '--max_number_of_steps=1')


def test_master_in_another_process_is_refused(monkeypatch):
  monkeypatch.setattr(tensorflow_session, 'supports_bfloat16', lambda: True)
  gradient_precision.check(train_config(BFLOAT16))
  with pytest.raises(InputError, match='needs TensorFlow 2 in this process'):
    gradient_precision.check(train_config(BFLOAT16, '--master=grpc://a:1'))


@pytest.mark.slow
@pytest.mark.skipif(not openvino_model.is_installed(),
                    reason='openvino is not installed')
def test_cached_features_need_only_openvino_and_finetune_all_says_so(
    data, tmp_path, without_instructions, log):
  newest = train(data, tmp_path, *CACHED, BFLOAT16,
                 '--feature_cache_dir=%s' % (tmp_path / 'features'))
  assert newest.endswith('-4')
  assert re.search('Forward passes: OpenVINO .*, bfloat16', log.text)
  line, = [record.getMessage() for record in log.records
           if record.getMessage().startswith('Gradients: ')]
  assert line.startswith('Gradients: TensorFlow %s, float32; bfloat16 needs '
                         'TensorFlow 2 ' % tf.__version__)
  assert run_info.load(str(tmp_path)).precision == 'bfloat16'
