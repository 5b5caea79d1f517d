"""Tests of --moving_average_decay: averaged variables, and checkpoints."""

import glob

import numpy as np
import pytest

import eval_image_classifier
from common import checkpoint_files
from common.errors import InputError
from compat import slim, tf
from datasets import dataset_factory
from evaluation import loop as evaluation_loop
from kits import network_kit
from kits.helpers import parsed_flags
from kits.trained_kit import CLASSES, MOBILENET, NAME, make_dataset, train
from nets import frozen_backbone, nets_factory
from runs import checkpoints, run_info
from serving.model import inference_graph
from training import loop

AVERAGE = '/ExponentialMovingAverage'
STATISTICS = {'BatchNorm/moving_mean', 'BatchNorm/moving_variance'}


def averaged(monkeypatch, *arguments, scopes=()):
  """Returns names of model variables with averages, and of those without."""
  with network_kit.training(monkeypatch, '--moving_average_decay=0.9',
                             *arguments, scopes=scopes):
    names = {v.op.name for v in tf.global_variables()}
    model_names = {v.op.name for v in slim.get_model_variables()}
  averaged_names = {name[:-len(AVERAGE)] for name in names
                    if name.endswith(AVERAGE)}
  assert averaged_names <= model_names
  return averaged_names, model_names - averaged_names


def test_averages_without_frozen_layers_cover_whole_model_like_slims(
    monkeypatch):
  averaged_names, other_names = averaged(monkeypatch)
  assert len(averaged_names) == 12 and not other_names
  assert 'Backbone/conv/BatchNorm/moving_mean' in averaged_names


def test_averages_with_frozen_backbone_cover_only_the_head(monkeypatch):
  averaged_names, other_names = averaged(monkeypatch, scopes=['Head/fc'])
  assert averaged_names == {'Head/fc/' + name for name in (
      'weights', 'BatchNorm/beta', *STATISTICS)}
  assert {name.split('/')[0] for name in other_names} == {
      'Backbone', 'Aux', 'Head'}


def test_averages_with_train_frozen_batch_norm_cover_its_statistics(
    monkeypatch):
  averaged_names, _ = averaged(monkeypatch, '--train_frozen_batch_norm',
                               scopes=['Aux'])
  assert averaged_names == {'Aux/logits/weights', 'Aux/logits/biases'} | {
      layer + name for layer in ('Backbone/conv/', 'Head/fc/')
      for name in STATISTICS}


def test_averages_after_steps_are_between_old_and_new_weights(monkeypatch):
  with network_kit.training(
      monkeypatch, '--moving_average_decay=0.5', '--optimizer=sgd',
      '--learning_rate_decay_type=fixed', scopes=['Aux']) as graph:
    variable, = [v for v in tf.trainable_variables()
                 if v.op.name == 'Aux/logits/weights']
    with network_kit.session() as session:
      before = session.run(variable)
      session.run(graph.train_op)
      session.run(graph.train_op)
      after, average = session.run(
          [variable, variable.op.name + AVERAGE + ':0'])
  assert not np.array_equal(before, after)
  low, high = np.minimum(before, after), np.maximum(before, after)
  assert (low - 1e-6 <= average).all() and (average <= high + 1e-6).all()


def write_checkpoint(folder, names_of, fill=0.5):
  """Writes a cifarnet checkpoint.

  Args:
    folder: pathlib.Path.
    names_of: function from a variable's name to the names it is saved under.
    fill: value of each average.

  Returns:
    The prefix.
  """
  with tf.Graph().as_default(), tf.Session() as session:
    build_cifarnet()
    names = {}
    for variable in tf.model_variables():
      for name in names_of(variable.op.name):
        names[name] = (tf.Variable(tf.fill(variable.shape, fill))
                       if name.endswith(AVERAGE) else variable)
    tf.set_random_seed(4)
    session.run(tf.global_variables_initializer())
    return tf.train.Saver(names).save(session, str(folder / 'model.ckpt'),
                                      global_step=3, write_meta_graph=False)


def build_cifarnet():
  nets_factory.get_network_fn('cifarnet', 3)(tf.zeros([1, 32, 32, 3]))


def with_head_averages(name):
  """Returns the names that a run with a frozen backbone saves."""
  return [name, name + AVERAGE] if 'logits' in name else [name]


def with_all_averages(name):
  """Returns the names that slim saves."""
  return [name, name + AVERAGE]


def without_averages(name):
  return [name]


@pytest.mark.parametrize('names_of,expected', [
    (with_head_averages, {'CifarNet/logits/weights' + AVERAGE,
                          'CifarNet/conv1/weights'}),
    (with_all_averages, {'CifarNet/logits/weights' + AVERAGE,
                         'CifarNet/conv1/weights' + AVERAGE}),
    # Without any average, no variable is read by its plain name.
    (without_averages, {'CifarNet/logits/weights' + AVERAGE,
                        'CifarNet/conv1/weights' + AVERAGE}),
])
def test_with_plain_names_takes_averages_where_checkpoint_has_them(
    tmp_path, names_of, expected):
  prefix = write_checkpoint(tmp_path, names_of)
  with tf.Graph().as_default():
    build_cifarnet()
    plain = checkpoints.variables_to_restore()
    mapping = checkpoints.with_plain_names(
        prefix, checkpoints.variables_to_restore(0.9))
    assert expected <= set(mapping)
    assert len(mapping) == 10
    assert set(mapping.values()) == set(plain.values())
    assert checkpoints.with_plain_names(prefix, plain) == plain


def test_with_plain_names_variable_with_neither_name_raises(tmp_path):
  prefix = write_checkpoint(
      tmp_path,
      lambda name: [] if 'conv1' in name else with_head_averages(name))
  with tf.Graph().as_default():
    build_cifarnet()
    mapping = checkpoints.with_plain_names(
        prefix, checkpoints.variables_to_restore(0.9))
    with pytest.raises(InputError, match='lacks CifarNet/conv1/biases, '
                       'CifarNet/conv1/weights; do this'):
      checkpoints.check_fits(prefix, mapping, 'do this')


def frozen_constants(prefix):
  """Freezes with averages; returns {variable name: value}."""
  with tf.Graph().as_default():
    info = inference_graph.build('cifarnet', CLASSES)
    graph_def = inference_graph.freeze(info, prefix, 0.9)
  return {node.name: tf.make_ndarray(node.attr['value'].tensor)
          for node in graph_def.node if node.op == 'Const'}


def test_freeze_takes_averages_of_head_and_plain_backbone(tmp_path):
  prefix = write_checkpoint(tmp_path, with_head_averages)
  constants = frozen_constants(prefix)
  assert (constants['CifarNet/logits/weights'] == 0.5).all()
  np.testing.assert_array_equal(
      constants['CifarNet/conv1/weights'],
      checkpoint_files.open_reader(prefix).get_tensor('CifarNet/conv1/weights'))


def test_freeze_takes_averages_of_all_layers(tmp_path):
  constants = frozen_constants(write_checkpoint(tmp_path, with_all_averages))
  for layer in 'conv1', 'fc3', 'logits':
    assert (constants['CifarNet/%s/weights' % layer] == 0.5).all()


@pytest.mark.slow
def test_evaluation_reads_checkpoints_with_some_and_with_all_averages(
    tmp_path):
  data = make_dataset(tmp_path / 'data')
  prefixes = []
  for names_of in with_head_averages, with_all_averages:
    folder = tmp_path / names_of.__name__
    folder.mkdir()
    prefixes.append(write_checkpoint(folder, names_of))
  info = run_info.RunInfo('cifarnet', CLASSES, 0, 32, 'cifarnet', NAME, data,
                          0.9)
  dataset = dataset_factory.get_dataset(NAME, 'validation', data)
  with tf.Graph().as_default() as graph:
    built = evaluation_loop.build_graph(dataset, info, 4,
                                        moving_average_decay=0.9)
    counted = [evaluation_loop.count(built, prefix) for prefix in prefixes]
    size = len(graph.get_operations())
    again = evaluation_loop.count(built, prefixes[0])
    # The graph does not grow when many checkpoints are evaluated.
    assert len(graph.get_operations()) == size
  # Equal averages in the classifier: all classes are equally likely.
  np.testing.assert_allclose(counted[1].probabilities, 1 / 3, rtol=1e-5)
  np.testing.assert_allclose(counted[0].probabilities, 1 / 3, rtol=1e-5)
  np.testing.assert_array_equal(again.probabilities, counted[0].probabilities)


class RecordingStep(loop.TrainStep):
  """Records each printed loss, and the sum of all losses at that time."""

  def __init__(self, stop, losses, recorded):
    super().__init__(stop)
    self._losses = losses
    self._recorded = recorded

  def take(self, session, train_op, global_step, train_step_kwargs):
    parts = session.run(self._losses)
    loss, done = super().take(session, train_op, global_step,
                              train_step_kwargs)
    self._recorded.append((loss, sum(parts)))
    return loss, done


def backbone_weights():
  """Returns the frozen weights, which are regularized."""
  weights, = [v for v in tf.model_variables()
              if v.op.name == 'Backbone/conv/weights']
  return weights


def test_frozen_losses_are_in_the_loss_and_use_restored_weights(
    monkeypatch, tmp_path):
  recorded = []
  with network_kit.training(
      monkeypatch, '--weight_decay=0.1', '--learning_rate=0.01',
      '--optimizer=sgd', scopes=['Head', 'Aux']) as graph:
    weights = backbone_weights()
    losses = tf.losses.get_losses() + tf.losses.get_regularization_losses()
    # Like a published checkpoint: it is read after the initial values.
    loop.run(
        graph, str(tmp_path), number_of_steps=2,
        init_fn=lambda session: weights.load(
            np.full(weights.shape, 3.0, np.float32), session),
        make_step=lambda stop: RecordingStep(stop, losses, recorded),
        session_config=tf.ConfigProto(allow_soft_placement=True))
  assert len(recorded) == 2
  for loss, parts in recorded:
    assert loss == pytest.approx(parts, rel=1e-6)
    assert loss > 0.1 * 0.5 * 9 * 108  # L2 of 108 weights of 3.
  assert recorded[0][0] != recorded[1][0]
  assert len(glob.glob(str(tmp_path / 'model.ckpt-2.index'))) == 1
  names = checkpoint_files.open_reader(
      str(tmp_path / 'model.ckpt-2')).get_variable_to_shape_map()
  assert not [name for name in names if 'frozen' in name]


def test_frozen_losses_are_not_computed_in_each_step(monkeypatch):
  with network_kit.training(monkeypatch, '--weight_decay=0.1',
                             scopes=['Head']) as graph:
    needed_ops = set(frozen_backbone.ancestors([graph.train_op]))
    computed = [loss.op.name.split('/')[0]
                for loss in tf.losses.get_regularization_losses()
                if loss.op in needed_ops]
    assert computed == ['Head', 'Head']
    with network_kit.session() as session:
      expected = session.run(tf.add_n([
          loss for loss in tf.losses.get_regularization_losses()
          if not loss.op.name.startswith('Head')]))
      assert session.run(graph.frozen_loss) == pytest.approx(expected)


def test_frozen_losses_without_frozen_layers_are_none(monkeypatch):
  with network_kit.training(monkeypatch, '--weight_decay=0.1') as graph:
    assert graph.frozen_loss is None


@pytest.mark.slow
def test_train_classifier_with_averages_then_evaluate_and_freeze(tmp_path):
  data = make_dataset(tmp_path / 'data')
  first = train(data, tmp_path / 'first', *MOBILENET, '--max_number_of_steps=2')
  prefix = train(
      data, tmp_path / 'run', *MOBILENET, '--max_number_of_steps=4',
      '--train_classifier_only', '--checkpoint_path=' + first,
      '--moving_average_decay=0.9')
  names = checkpoint_files.open_reader(prefix).get_variable_to_shape_map()
  assert {name for name in names if name.endswith(AVERAGE)} == {
      'MobilenetV1/Logits/Conv2d_1c_1x1/%s%s' % (kind, AVERAGE)
      for kind in ('weights', 'biases')}
  with parsed_flags(
      eval_image_classifier.define_flags, '--checkpoint_path=' + prefix,
      '--eval_dir=%s' % (tmp_path / 'eval'), '--moving_average_decay=0.9',
      '--dataset_split_name=validation'):
    eval_image_classifier.main([])
  assert len((tmp_path / 'eval' / 'metrics.jsonl').read_text().split('\n')) == 2
  with tf.Graph().as_default():
    info = inference_graph.build('mobilenet_v1_025', CLASSES, 32)
    assert inference_graph.freeze(info, prefix, 0.9).node
