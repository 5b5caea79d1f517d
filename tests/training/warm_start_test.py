"""Tests of training/warm_start.py."""

import pytest

from common.errors import InputError
from compat import slim, tf
from training import warm_start


def small_network(classes, width=4):
  """Builds a backbone (convolution, batch norm) and returns its logits."""
  with tf.variable_scope('Net'):
    net = slim.conv2d(tf.ones([1, 4, 4, 3]), width, 3, scope='conv',
                      normalizer_fn=slim.batch_norm)
    net = slim.flatten(net)
    return slim.fully_connected(net, classes, scope='logits')


def save_network(folder, classes, version=tf.train.SaverDef.V2, width=4):
  """Saves a network with all variables 0.5; returns the checkpoint."""
  with tf.Graph().as_default(), tf.Session() as session:
    small_network(classes, width)
    tf.train.get_or_create_global_step()
    session.run(tf.global_variables_initializer())
    session.run([tf.assign(v, tf.fill(v.shape, 0.5))
                 for v in slim.get_model_variables()])
    saver = tf.train.Saver(write_version=version)
    return saver.save(session, str(folder / 'net.ckpt'))


@pytest.mark.parametrize('version',
                         [tf.train.SaverDef.V1, tf.train.SaverDef.V2])
def test_init_fn_reads_all_but_excluded_variables_in_both_formats(
    tmp_path, version):
  checkpoint = save_network(tmp_path, 5, version)
  with tf.Graph().as_default(), tf.Session() as session:
    small_network(3)
    init_fn = warm_start.init_fn(checkpoint, ['Net/logits'], False)
    session.run(tf.global_variables_initializer())
    init_fn(session)
    values = {v.op.name: session.run(v) for v in slim.get_model_variables()}
  read = {name for name, value in values.items() if (value == 0.5).all()}
  assert read == {'Net/conv/weights', 'Net/conv/BatchNorm/beta',
                  'Net/conv/BatchNorm/moving_mean',
                  'Net/conv/BatchNorm/moving_variance'}


@pytest.mark.parametrize('exclude,ignore,classes,width,message', [
    ([], False, 3, 4, 'the checkpoint has 5 classes and the data set 3; add '
                      '--checkpoint_exclude_scopes=Net/logits'),
    ([], False, 5, 6, r'Net/conv/weights \(checkpoint .3, 3, 3, 4., network '
                      r'.3, 3, 3, 6.\).*--model_name'),
    (['Net/nothing'], False, 5, 4, "'Net/nothing' matches no variable"),
    (['Net'], False, 5, 4, 'excludes every variable'),
])
def test_init_fn_mismatched_checkpoint_names_variable_and_flag(
    tmp_path, exclude, ignore, classes, width, message):
  checkpoint = save_network(tmp_path, 5)
  with tf.Graph().as_default():
    small_network(classes, width)
    with pytest.raises(InputError, match=message):
      warm_start.init_fn(checkpoint, exclude, ignore, 'Net/logits')


def test_init_fn_missing_variables_are_named_or_ignored(tmp_path):
  checkpoint = save_network(tmp_path, 5)
  with tf.Graph().as_default():
    small_network(5)
    slim.model_variable('Net/extra/weights', shape=[1])
    with pytest.raises(InputError,
                       match='lacks Net/extra/weights; .*ignore_missing_vars'):
      warm_start.init_fn(checkpoint, [], False)
    assert callable(warm_start.init_fn(checkpoint, [], True))


def test_init_fn_checkpoint_of_another_network_raises_input_error(tmp_path):
  checkpoint = save_network(tmp_path, 5)
  with tf.Graph().as_default():
    slim.model_variable('Other/weights', shape=[1])
    with pytest.raises(InputError, match='none of the variables.*--model_name'):
      warm_start.init_fn(checkpoint, [], True)


def test_init_fn_missing_checkpoint_names_path(tmp_path):
  with tf.Graph().as_default():
    with pytest.raises(InputError, match='no checkpoint at .*nowhere'):
      warm_start.init_fn(str(tmp_path / 'nowhere'), [], False)
    with pytest.raises(InputError, match='no best checkpoint in'):
      warm_start.init_fn(str(tmp_path), [], False, which_checkpoint='best')


def test_variables_to_train_matches_scopes_at_start_of_name():
  with tf.Graph().as_default():
    small_network(2)
    names = {v.op.name for v in warm_start.variables_to_train(['Net/logits'])}
    assert names == {'Net/logits/weights', 'Net/logits/biases'}
    assert len(warm_start.variables_to_train([])) == 4
    with pytest.raises(InputError, match="trainable_scopes: 'logits' match"):
      warm_start.variables_to_train(['logits'])


def test_split_scopes_drops_blanks():
  assert warm_start.split_scopes(' a/b, c ,,') == ['a/b', 'c']
  assert warm_start.split_scopes(None) == []
