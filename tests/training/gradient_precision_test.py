"""Tests of training/gradient_precision.py: --precision and --xla."""

import os
import re
import shutil

import numpy as np
import pytest

from common.errors import InputError
from compat import slim, tf
from kits import cluster_kit
from kits.helpers import run_program
from kits.run_kit import evaluate, evaluations
from kits.trained_kit import (
  make_dataset,
  read_variables,
  train,
  train_arguments,
  train_config,
)
from runs import checkpoints, run_info
from runtime import forward_pass, openvino_model, tensorflow_session
from training import gradient_precision, loop

BFLOAT16 = '--precision=bfloat16'
SEED = ['--seed=1', '--session_threads=1']
PLAIN = [*SEED, '--runtime=tensorflow', '--optimizer=adam',
         '--learning_rate=0.001']
STEPS = 50
CACHED = [*SEED, '--cache_features',
          '--trainable_scopes=CifarNet/logits', '--max_number_of_steps=2',
          '--finetune_all_steps=2']

needs_bfloat16 = pytest.mark.skipif(
    not forward_pass.supports(forward_pass.TENSORFLOW, 'bfloat16'),
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


def emulate(monkeypatch):
  """Lets a processor compute with float16, as a graphics card does."""
  monkeypatch.setitem(tensorflow_session._PROCESSOR_REWRITES, 'float16',
                      'auto_mixed_precision_cpu')


each_precision = pytest.mark.parametrize('low', [
    pytest.param('bfloat16', marks=needs_bfloat16),
    pytest.param('float16', marks=pytest.mark.engine('tf2'))])


class Runs(dict):
  """{precision: (train directory, Recorded)} of the same STEPS steps."""

  def __init__(self, data, tmp_path_factory):
    self._data, self._factory = data, tmp_path_factory

  def __missing__(self, precision):
    folder = self._factory.mktemp(precision)
    with pytest.MonkeyPatch.context() as patch:
      emulate(patch)
      recorded = Recorded(patch)
      train(self._data, folder, *PLAIN, '--precision=' + precision,
            '--max_number_of_steps=%d' % STEPS,
            '--evaluate_every_n_steps=%d' % STEPS)
    self[precision] = folder, recorded
    return self[precision]


@pytest.fixture(scope='module')
def pair(data, tmp_path_factory):
  return Runs(data, tmp_path_factory)


@pytest.mark.slow
@each_precision
def test_losses_are_near_those_of_float32_and_fall(pair, low):
  exact, near = (np.array(pair[name][1].losses) for name in ('float32', low))
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


@pytest.mark.slow
@each_precision
def test_variables_and_applied_gradients_are_float32(pair, low):
  folder, recorded = pair[low]
  assert low in recorded.dtypes('^Cast$')
  assert recorded.dtypes('^VariableV2$|^VarHandleOp$') <= {'float32', 'int64'}
  assert recorded.dtypes('ApplyAdam') == {'float32'}
  variables = read_variables(checkpoints.newest(str(folder)))
  assert {value.dtype.name for name, value in variables.items()
          if name != 'global_step'} == {'float32'}
  exact = read_variables(checkpoints.newest(str(pair['float32'][0])))
  assert ({name: value.shape for name, value in variables.items()} ==
          {name: value.shape for name, value in exact.items()})


@pytest.mark.slow
@each_precision
@pytest.mark.parametrize('is_low_before, flag', [
    (False, None), (True, 'float32'), (True, 'auto')])
def test_run_resumes_in_the_other_precision(data, pair, tmp_path, log, low,
                                            is_low_before, flag, monkeypatch):
  before, precision = (low, 'float32') if is_low_before else ('float32', low)
  emulate(monkeypatch)
  shutil.copytree(str(pair[before][0]), str(tmp_path / 'run'))
  recorded = Recorded(monkeypatch)
  newest = train(data, tmp_path / 'run', *PLAIN,
                 '--precision=' + (flag or low),
                 '--max_number_of_steps=%d' % (STEPS + 3))
  assert newest.endswith('-%d' % (STEPS + 3))
  assert 'Gradients: TensorFlow %s, %s' % (tf.__version__,
                                           precision) in log.text
  assert (low in recorded.dtypes('^Cast$')) == (precision == low)
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


@pytest.mark.engine('tf2')
def test_steps_whose_gradients_overflow_count_and_change_no_weight(
    data, tmp_path, monkeypatch):
  """The first factors are too large for float16."""
  emulate(monkeypatch)
  Recorded(monkeypatch)
  monkeypatch.setattr(gradient_precision, '_FIRST_FACTOR', 2.0 ** 120)
  flags = [*PLAIN, '--precision=float16', '--optimizer=sgd']
  first = read_variables(train(data, tmp_path / '1', *flags,
                               '--max_number_of_steps=1'))
  third = read_variables(train(data, tmp_path / '1', *flags,
                               '--max_number_of_steps=3'))
  assert first.pop('global_step') == 1 and third.pop('global_step') == 3
  for name, value in first.items():
    if 'moving_' not in name:
      np.testing.assert_array_equal(value, third[name], name)


@pytest.mark.engine('tf2')
def test_gradients_that_stay_not_finite_end_the_run(data, tmp_path,
                                                    monkeypatch):
  emulate(monkeypatch)
  recorded = Recorded(monkeypatch)
  monkeypatch.setattr(gradient_precision.LossScaleOptimizer,
                      'compute_gradients', lambda self, *unused, **kwargs: [
                          (tf.fill(v.shape, np.float32(np.inf)), v)
                          for v in kwargs['var_list']])
  with pytest.raises(InputError, match='not finite'):
    train(data, tmp_path, *PLAIN, '--precision=float16',
          '--max_number_of_steps=100')
  assert len(recorded.losses) == 15  # The factor is then 1.


def test_float16_without_a_card_is_refused(data, tmp_path):
  with pytest.raises(InputError, match='float16: .* graphics card, .*accepted'):
    train(data, tmp_path, *PLAIN, '--precision=float16',
          '--max_number_of_steps=1')


def test_float16_with_parameter_servers_is_refused(monkeypatch):
  config = train_config('--precision=float16')
  monkeypatch.setattr(forward_pass, 'supports', lambda *_: True)
  gradient_precision.check(config)
  with pytest.raises(InputError, match='neither parameter servers'):
    gradient_precision.check(config._replace(
        replicas=config.replicas._replace(num_ps_tasks=1)))


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


@pytest.mark.slow
def test_xla_compiles_steps_and_keeps_the_loss(data, tmp_path):
  """In processes of their own: TensorFlow reads the setting only once."""
  losses = {}
  for flag in ('--noxla', '--xla'):
    result = run_program(
        'train_image_classifier.py', *train_arguments(
            data, tmp_path / flag, *PLAIN, flag, '--log_every_n_steps=1',
            '--max_number_of_steps=%d' % STEPS),
        env=dict(os.environ, TF_CPP_MIN_LOG_LEVEL='0'))
    assert result.returncode == 0, result.stderr
    for line in ('compiled with XLA', 'Compiled cluster using XLA'):
      assert (line in result.stderr) == (flag == '--xla')
    losses[flag] = np.array([
        loss for _, loss in cluster_kit.steps_and_losses(result.stderr)])
    assert len(losses[flag]) == STEPS
    assert losses[flag][-10:].mean() < 0.7 * losses[flag][:5].mean()
  # The random numbers of dropout are others.
  assert losses['--xla'].mean() == pytest.approx(losses['--noxla'].mean(),
                                                 abs=0.05)
