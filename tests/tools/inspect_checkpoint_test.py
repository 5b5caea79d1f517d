"""Tests of inspect_checkpoint.py and runs/fit.py; fine-tuning from V1."""

import os
import shlex

import numpy as np
import pytest

from common.errors import InputError
from compat import slim, tf
from kits import trained_kit
from kits.helpers import parsed_flags, run_program
from nets import nets_factory
from runs import fit
from tools import inspect_checkpoint


def save(path, model_name, num_classes, version=tf.train.SaverDef.V2,
         averages=False, leave_out=()):
  """Saves a network's initial variables and a global step."""
  row = nets_factory.get_network(model_name)
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(1)
    network_fn = nets_factory.get_network_fn(model_name, num_classes)
    network_fn(tf.zeros([1, row.image_size, row.image_size, row.channels]))
    tf.train.get_or_create_global_step()
    if averages:
      tf.train.ExponentialMovingAverage(0.9).apply(slim.get_model_variables())
    session.run(tf.global_variables_initializer())
    wanted = [v for v in tf.global_variables() if v.op.name not in leave_out]
    saver = tf.train.Saver(wanted, write_version=version)
    return saver.save(session, str(path), write_meta_graph=False)


def inspect(*arguments):
  """Runs the program in this process; returns its status."""
  with parsed_flags(inspect_checkpoint.define_flags, *arguments):
    return inspect_checkpoint.main([])


def of_lenet(name):
  return 'LeNet/' + name


def test_compare_finds_the_classes_of_the_checkpoint(tmp_path):
  prefix = save(tmp_path / 'x.ckpt', 'lenet', 7)
  found = fit.compare(prefix, 'lenet')
  assert found.classes == 7
  assert len(found.matched) == 8 and found.unused == ['global_step']
  assert not found.missing and not found.differing


def test_compare_sorts_variables_by_how_they_fit(tmp_path):
  prefix = save(tmp_path / 'x.ckpt', 'lenet', 7, averages=True,
                leave_out=['LeNet/conv1/biases'])
  found = fit.compare(prefix, 'lenet', num_classes=5)
  assert found.missing == ['LeNet/conv1/biases']
  assert found.differing == [
      ('LeNet/fc4/biases', [7], [5]),
      ('LeNet/fc4/weights', [1024, 7], [1024, 5])]
  assert found.matched == [of_lenet(name) for name in (
      'conv1/weights', 'conv2/biases', 'conv2/weights', 'fc3/biases',
      'fc3/weights')]
  kinds = fit.kinds_of_unused(found.unused)
  assert kinds['global step'] == ['global_step']
  assert len(kinds['moving averages']) == 8 and len(kinds) == 2


def test_kinds_of_unused_knows_the_optimizers():
  assert fit.kinds_of_unused(['a/weights/Adam_1', 'a/RMSProp', 'beta1']) == {
      "an optimizer's": ['a/weights/Adam_1', 'a/RMSProp'], 'others': ['beta1']}


@pytest.mark.parametrize('name', ['cifarnet', 'lenet', 'mobilenet_v1_025'])
def test_compare_no_layer_has_as_many_channels_as_the_probe(name):
  # Else that layer would be taken for the classifier.
  row = nets_factory.get_network(name)
  shapes = fit._variable_shapes(name)
  dependent = [variable for variable, shape in shapes.items()
               if fit._PROBE in shape]
  assert dependent
  assert all(variable.startswith(row.classifier_scopes)
             for variable in dependent)


def test_program_fitting_checkpoint_gets_the_flags(tmp_path, capsys):
  prefix = save(tmp_path / 'x.ckpt', 'mobilenet_v1_025', 1001)
  assert inspect('--model_name=mobilenet_v1_025',
                 '--checkpoint_path=' + prefix) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0].endswith(': classes: 1001, of the network: 1001')
  assert lines[1:5] == [
      'matched: 137', 'missing, in the network only: 0',
      'differently shaped: 0',
      'unused, in the checkpoint only: 1; global step: 1']
  which = '  --model_name=mobilenet_v1_025 --checkpoint_path=' + prefix
  assert which + ' --checkpoint_exclude_scopes=MobilenetV1/Logits' in lines
  assert lines[-2:] == [which + ' --labels_offset=0',
                        '  (on ImageNet: with the background class 0)']


def test_program_1000_classes_want_an_offset(tmp_path, capsys):
  prefix = save(tmp_path / 'x.ckpt', 'cifarnet', 1000, averages=True)
  assert inspect('--model_name=cifarnet', '--checkpoint_path=' + prefix) == 0
  shown = capsys.readouterr().out
  assert '--labels_offset=1' in shown
  assert '--moving_average_decay' in shown


def test_program_what_is_missing_outside_the_classifier_gets_its_flag(tmp_path,
                                                                      capsys):
  prefix = save(tmp_path / 'x.ckpt', 'lenet', 7, leave_out=['LeNet/fc3/biases'])
  assert inspect('--model_name=lenet', '--checkpoint_path=' + prefix,
                 '--num_classes=3') == 0
  shown = capsys.readouterr().out
  assert '  LeNet/fc3/biases\n' in shown
  assert '  LeNet/fc4/biases: [7] in the checkpoint, [3] in the net' in shown
  assert '--ignore_missing_vars' in shown
  assert '--labels_offset' not in shown


@pytest.mark.slow
def test_program_long_lists_are_cut_unless_all(tmp_path, capsys):
  prefix = save(tmp_path / 'x.ckpt', 'mobilenet_v1_025', 3)
  arguments = ('--model_name=mobilenet_v1_050', '--checkpoint_path=' + prefix)
  assert inspect(*arguments) == 1  # The biases of the classifier fit.
  short = capsys.readouterr().out
  assert 'more; --all lists them' in short
  assert short.splitlines()[-1] == (
      'it does not fit mobilenet_v1_050; it fits mobilenet_v1_025: give '
      '--model_name=mobilenet_v1_025')
  assert '--checkpoint_exclude_scopes' not in short
  inspect(*arguments, '--all')
  long = capsys.readouterr().out
  assert 'more; --all' not in long
  assert long.count(' in the checkpoint, [') >= 130


def test_program_checkpoint_of_another_network_names_it(tmp_path, capsys):
  prefix = save(tmp_path / 'x.ckpt', 'lenet', 7)
  assert inspect('--model_name=cifarnet', '--checkpoint_path=' + prefix) == 1
  assert capsys.readouterr().out.splitlines()[-1] == (
      'it does not fit cifarnet; it fits lenet: give --model_name=lenet')


def test_program_checkpoint_of_no_known_network_gets_no_flags(tmp_path, capsys):
  # One of eight is too few to go by.
  prefix = save(tmp_path / 'x.ckpt', 'lenet', 7, leave_out=[
      of_lenet(name) for name in ('conv1/weights', 'conv2/weights',
                                  'conv2/biases', 'fc3/weights', 'fc3/biases')])
  assert inspect('--model_name=lenet', '--checkpoint_path=' + prefix) == 1
  shown = capsys.readouterr().out
  assert shown.splitlines()[-1] == (
      'it fits neither lenet nor another network of nets/networks.py')
  assert '--checkpoint_path' not in shown


def flags_after(shown, title):
  """Returns the flags on the line after the one that begins with `title`."""
  lines = shown.splitlines()
  index, = [index for index, line in enumerate(lines) if line.startswith(title)]
  return shlex.split(lines[index + 1])


@pytest.mark.slow
@pytest.mark.parametrize('model_name,classes,leave_out,title', [
    ('mobilenet_v1_025', 5, ['MobilenetV1/Conv2d_0/weights',
                             'MobilenetV1/Logits/Conv2d_1c_1x1/biases'],
     'to fine-tune'),
    ('cifarnet', 7, ['CifarNet/logits/weights', 'CifarNet/logits/biases'],
     'to fine-tune'),
    ('cifarnet', 3, [], 'to continue with its 3 classes')],
                         ids=['missing', 'headless', 'same classes'])
def test_program_flags_that_are_shown_start_a_training(
    tmp_path, capsys, model_name, classes, leave_out, title):
  (tmp_path / 'a b').mkdir()
  prefix = save(tmp_path / 'a b' / 'x.ckpt', model_name, classes,
                leave_out=leave_out)
  assert inspect('--model_name=' + model_name,
                 '--checkpoint_path=' + prefix) == 0
  shown = flags_after(capsys.readouterr().out, title)
  trained = trained_kit.train(
      trained_kit.make_dataset(tmp_path), tmp_path / 'train', *shown,
      '--train_image_size=32', '--max_number_of_steps=1')
  assert trained.endswith('model.ckpt-1')


@pytest.mark.parametrize('arguments,message', [
    (['--model_name=lenet'], '--checkpoint_path is needed'),
    (['--checkpoint_path=x'], '--model_name is needed'),
    (['--model_name=lenet5', '--checkpoint_path=x'], "network 'lenet5'; known"),
    (['--model_name=lenet', '--checkpoint_path=/no/x'], 'no checkpoint at /no'),
])
def test_program_mistakes_are_input_errors(arguments, message):
  with pytest.raises(InputError, match=message):
    inspect(*arguments)


@pytest.mark.slow
def test_program_damaged_checkpoint_is_an_input_error(tmp_path):
  (tmp_path / 'x.ckpt').write_bytes(b'rubbish' * 1000)
  with pytest.raises(InputError, match='x.ckpt cannot be read') as raised:
    inspect('--model_name=lenet', '--checkpoint_path=%s' % (tmp_path /
                                                           'x.ckpt'))
  assert '\n' not in str(raised.value)


def test_program_runs_by_itself():
  done = run_program('tools/inspect_checkpoint.py', '--model_name=lenet')
  assert done.returncode == 1 and done.stderr.count('\n') == 1
  assert '--checkpoint_path is needed' in done.stderr


@pytest.mark.slow
def test_single_file_checkpoint_is_inspected_and_fine_tuned(tmp_path, capsys):
  prefix = save(tmp_path / 'old.ckpt', 'mobilenet_v1_025', 1001,
                tf.train.SaverDef.V1)
  assert (tmp_path / 'old.ckpt').is_file()
  assert not (tmp_path / 'old.ckpt.index').exists()
  assert inspect('--model_name=mobilenet_v1_025', '--num_classes=3',
                 '--checkpoint_path=' + prefix) == 0
  shown = capsys.readouterr().out
  assert 'matched: 135' in shown and 'differently shaped: 2' in shown
  dataset_dir = trained_kit.make_dataset(tmp_path)
  trained = trained_kit.train(
      dataset_dir, tmp_path / 'train', *trained_kit.MOBILENET,
      *flags_after(shown, 'to fine-tune'),
      '--trainable_scopes=MobilenetV1/Logits', '--max_number_of_steps=2')
  before = trained_kit.read_variables(prefix)
  after = trained_kit.read_variables(trained)
  frozen = [name for name in before if name.startswith('MobilenetV1/Conv2d_')]
  assert len(frozen) == 135
  for name in frozen:
    np.testing.assert_array_equal(after[name], before[name])
  assert after['MobilenetV1/Logits/Conv2d_1c_1x1/biases'].shape == (3,)


@pytest.mark.slow
def test_program_data_cut_short_is_one_line(tmp_path):
  prefix = save(tmp_path / 'x.ckpt', 'lenet', 7)
  os.truncate(prefix + '.data-00000-of-00001', 1000)
  with pytest.raises(InputError, match='x.ckpt cannot be read: its data has '
                     '1000 bytes, its index says ') as raised:
    inspect('--model_name=lenet', '--checkpoint_path=' + prefix)
  assert '\n' not in str(raised.value)
