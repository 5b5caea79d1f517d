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
  """Returns names of the variables that have averages, and of the others."""
  with network_kit.training(monkeypatch, '--moving_average_decay=0.9',
                             *arguments, scopes=scopes):
    names = {v.op.name for v in tf.global_variables()}
    of_model = {v.op.name for v in slim.get_model_variables()}
  found = {name[:-len(AVERAGE)] for name in names if name.endswith(AVERAGE)}
  assert found <= of_model
  return found, of_model - found


def test_averages_with_all_trained_cover_the_model_as_slims(monkeypatch):
  found, others = averaged(monkeypatch)
  assert len(found) == 12 and not others
  assert 'Backbone/conv/BatchNorm/moving_mean' in found


def test_averages_with_a_frozen_backbone_cover_the_head_alone(monkeypatch):
  found, others = averaged(monkeypatch, scopes=['Head/fc'])
  assert found == {'Head/fc/' + name for name in (
      'weights', 'BatchNorm/beta', *STATISTICS)}
  assert {name.split('/')[0] for name in others} == {'Backbone', 'Aux', 'Head'}


def test_averages_cover_statistics_that_drift_below_what_is_trained(
    monkeypatch):
  found, _ = averaged(monkeypatch, '--train_frozen_batch_norm',
                      scopes=['Aux'])
  assert found == {'Aux/logits/weights', 'Aux/logits/biases'} | {
      layer + name for layer in ('Backbone/conv/', 'Head/fc/')
      for name in STATISTICS}


def test_averages_follow_what_the_steps_do(monkeypatch):
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
    names_of: function of a variable's name that gives the names it is saved by.
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


def of_head(name):
  """As a run with a frozen backbone saves it: an average of the classifier."""
  return [name, name + AVERAGE] if 'logits' in name else [name]


def of_all(name):
  """As slim saves it."""
  return [name, name + AVERAGE]


def of_none(name):
  return [name]


@pytest.mark.parametrize('names_of,expected', [
    (of_head, {'CifarNet/logits/weights' + AVERAGE, 'CifarNet/conv1/weights'}),
    (of_all, {'CifarNet/logits/weights' + AVERAGE,
              'CifarNet/conv1/weights' + AVERAGE}),
    # Not a word of plain names: averages were asked for and there are none.
    (of_none, {'CifarNet/logits/weights' + AVERAGE,
               'CifarNet/conv1/weights' + AVERAGE}),
])
def test_with_plain_names_takes_averages_where_there_are(
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


def test_with_plain_names_what_has_neither_is_still_an_error(tmp_path):
  prefix = write_checkpoint(
      tmp_path, lambda name: [] if 'conv1' in name else of_head(name))
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


def test_freeze_takes_averages_of_the_head_and_the_trunk_itself(tmp_path):
  prefix = write_checkpoint(tmp_path, of_head)
  constants = frozen_constants(prefix)
  assert (constants['CifarNet/logits/weights'] == 0.5).all()
  np.testing.assert_array_equal(
      constants['CifarNet/conv1/weights'],
      checkpoint_files.open_reader(prefix).get_tensor('CifarNet/conv1/weights'))


def test_freeze_takes_slims_averages_of_all(tmp_path):
  constants = frozen_constants(write_checkpoint(tmp_path, of_all))
  for layer in 'conv1', 'fc3', 'logits':
    assert (constants['CifarNet/%s/weights' % layer] == 0.5).all()


@pytest.mark.slow
def test_evaluation_counts_checkpoints_with_some_and_with_all_averages(
    tmp_path):
  data = make_dataset(tmp_path / 'data')
  prefixes = []
  for names_of in of_head, of_all:
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
    # A loop over the checkpoints of a long run does not grow.
    assert len(graph.get_operations()) == size
  # Equal averages in the classifier: all classes are equally likely.
  np.testing.assert_allclose(counted[1].probabilities, 1 / 3, rtol=1e-5)
  np.testing.assert_allclose(counted[0].probabilities, 1 / 3, rtol=1e-5)
  np.testing.assert_array_equal(again.probabilities, counted[0].probabilities)


class Watched(loop.TrainStep):
  """Notes what was printed as the loss, and all losses at that time."""

  def __init__(self, stop, losses, noted):
    super().__init__(stop)
    self._losses = losses
    self._noted = noted

  def take(self, session, train_op, global_step, train_step_kwargs):
    parts = session.run(self._losses)
    loss, done = super().take(session, train_op, global_step,
                              train_step_kwargs)
    self._noted.append((loss, sum(parts)))
    return loss, done


def trunk_weights():
  """Returns the frozen weights of the default graph that have a loss."""
  weights, = [v for v in tf.model_variables()
              if v.op.name == 'Backbone/conv/weights']
  return weights


def test_frozen_losses_are_in_the_loss_and_of_the_weights_that_were_read(
    monkeypatch, tmp_path):
  noted = []
  with network_kit.training(
      monkeypatch, '--weight_decay=0.1', '--learning_rate=0.01',
      '--optimizer=sgd', scopes=['Head', 'Aux']) as graph:
    weights = trunk_weights()
    losses = tf.losses.get_losses() + tf.losses.get_regularization_losses()
    # As if a published checkpoint were read: it comes after initial values.
    loop.run(
        graph, str(tmp_path), number_of_steps=2,
        init_fn=lambda session: weights.load(
            np.full(weights.shape, 3.0, np.float32), session),
        make_step=lambda stop: Watched(stop, losses, noted),
        session_config=tf.ConfigProto(allow_soft_placement=True))
  assert len(noted) == 2
  for loss, parts in noted:
    assert loss == pytest.approx(parts, rel=1e-6)
    assert loss > 0.1 * 0.5 * 9 * 108  # L2 of 108 weights of 3.
  assert noted[0][0] != noted[1][0]
  assert len(glob.glob(str(tmp_path / 'model.ckpt-2.index'))) == 1
  names = checkpoint_files.open_reader(
      str(tmp_path / 'model.ckpt-2')).get_variable_to_shape_map()
  assert not [name for name in names if 'frozen' in name]


def test_frozen_losses_are_not_computed_at_each_step(monkeypatch):
  with network_kit.training(monkeypatch, '--weight_decay=0.1',
                             scopes=['Head']) as graph:
    needed = set(frozen_backbone.ancestors([graph.train_op]))
    computed = [loss.op.name.split('/')[0]
                for loss in tf.losses.get_regularization_losses()
                if loss.op in needed]
    assert computed == ['Head', 'Head']
    with network_kit.session() as session:
      expected = session.run(tf.add_n([
          loss for loss in tf.losses.get_regularization_losses()
          if not loss.op.name.startswith('Head')]))
      assert session.run(graph.frozen_loss) == pytest.approx(expected)


def test_frozen_losses_of_a_network_trained_whole_are_none(monkeypatch):
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
