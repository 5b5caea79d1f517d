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
  """Saves a network's initial variables and a step; returns the checkpoint."""
  row = nets_factory.get_network(model_name)
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(1)
    network_fn = nets_factory.get_network_fn(model_name, num_classes)
    network_fn(tf.zeros([1, row.image_size, row.image_size, row.channels]))
    tf.train.get_or_create_global_step()
    if averages:
      tf.train.ExponentialMovingAverage(0.9).apply(slim.get_model_variables())
    session.run(tf.global_variables_initializer())
    variables = [v for v in tf.global_variables() if v.op.name not in leave_out]
    saver = tf.train.Saver(variables, write_version=version)
    return saver.save(session, str(path), write_meta_graph=False)


def inspect(*arguments):
  """Runs the program in this process; returns its status."""
  with parsed_flags(inspect_checkpoint.define_flags, *arguments):
    return inspect_checkpoint.main([])


def lenet_variable(name):
  return 'LeNet/' + name


def test_compare_finds_number_of_classes_of_checkpoint(tmp_path):
  prefix = save(tmp_path / 'x.ckpt', 'lenet', 7)
  comparison = fit.compare(prefix, 'lenet')
  assert comparison.classes == 7
  assert len(comparison.matched) == 8 and comparison.unused == ['global_step']
  assert not comparison.missing and not comparison.differing


def test_find_network_prints_only_the_name(tmp_path, capsys):
  prefix = save(tmp_path / 'x.ckpt', 'lenet', 7)
  assert inspect('--find_network', '--checkpoint_path=' + prefix) == 0
  assert capsys.readouterr().out == 'lenet\n'
  with tf.Graph().as_default(), tf.Session() as session:
    tf.get_variable('other', [3])
    session.run(tf.global_variables_initializer())
    prefix = tf.train.Saver().save(session, str(tmp_path / 'y.ckpt'))
  with pytest.raises(InputError, match='y.ckpt fits no network'):
    inspect('--find_network', '--checkpoint_path=' + prefix)


def test_compare_sorts_variables_by_how_they_fit(tmp_path):
  prefix = save(tmp_path / 'x.ckpt', 'lenet', 7, averages=True,
                leave_out=['LeNet/conv1/biases'])
  comparison = fit.compare(prefix, 'lenet', num_classes=5)
  assert comparison.missing == ['LeNet/conv1/biases']
  assert comparison.differing == [
      ('LeNet/fc4/biases', [7], [5]),
      ('LeNet/fc4/weights', [1024, 7], [1024, 5])]
  assert comparison.matched == [lenet_variable(name) for name in (
      'conv1/weights', 'conv2/biases', 'conv2/weights', 'fc3/biases',
      'fc3/weights')]
  kinds = fit.kinds_of_unused(comparison.unused)
  assert kinds['global step'] == ['global_step']
  assert len(kinds['moving averages']) == 8 and len(kinds) == 2


def test_kinds_of_unused_recognizes_optimizer_variables():
  assert fit.kinds_of_unused(['a/weights/Adam_1', 'a/RMSProp', 'beta1']) == {
      "an optimizer's": ['a/weights/Adam_1', 'a/RMSProp'], 'others': ['beta1']}


@pytest.mark.parametrize('name', ['cifarnet', 'lenet', 'mobilenet_v1_025'])
def test_compare_probe_size_occurs_only_in_classifier(name):
  # Otherwise another layer would be taken for the classifier.
  row = nets_factory.get_network(name)
  shapes = fit._variable_shapes(name)
  dependent = [variable for variable, shape in shapes.items()
               if fit._PROBE in shape]
  assert dependent
  assert all(variable.startswith(row.classifier_scopes)
             for variable in dependent)


def test_program_for_fitting_checkpoint_prints_flags(tmp_path, capsys):
  prefix = save(tmp_path / 'x.ckpt', 'mobilenet_v1_025', 1001)
  assert inspect('--model_name=mobilenet_v1_025',
                 '--checkpoint_path=' + prefix) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0].endswith(': classes: 1001, of the network: 1001')
  assert lines[1:5] == [
      'matched: 137', 'missing, in the network only: 0',
      'differently shaped: 0',
      'unused, in the checkpoint only: 1; global step: 1']
  common_flags = '  --model_name=mobilenet_v1_025 --checkpoint_path=' + prefix
  assert (common_flags +
          ' --checkpoint_exclude_scopes=MobilenetV1/Logits') in lines
  assert lines[-2:] == [common_flags + ' --labels_offset=0',
                        '  (on ImageNet: with the background class 0)']


def test_program_for_1000_classes_prints_labels_offset(tmp_path, capsys):
  prefix = save(tmp_path / 'x.ckpt', 'cifarnet', 1000, averages=True)
  assert inspect('--model_name=cifarnet', '--checkpoint_path=' + prefix) == 0
  output = capsys.readouterr().out
  assert '--labels_offset=1' in output
  assert '--moving_average_decay' in output


def test_program_for_missing_backbone_variable_prints_its_flag(tmp_path,
                                                               capsys):
  prefix = save(tmp_path / 'x.ckpt', 'lenet', 7, leave_out=['LeNet/fc3/biases'])
  assert inspect('--model_name=lenet', '--checkpoint_path=' + prefix,
                 '--num_classes=3') == 0
  output = capsys.readouterr().out
  assert '  LeNet/fc3/biases\n' in output
  assert '  LeNet/fc4/biases: [7] in the checkpoint, [3] in the net' in output
  assert '--ignore_missing_vars' in output
  assert '--labels_offset' not in output


@pytest.mark.slow
def test_program_shortens_long_lists_unless_all_is_given(tmp_path, capsys):
  prefix = save(tmp_path / 'x.ckpt', 'mobilenet_v1_025', 3)
  arguments = ('--model_name=mobilenet_v1_050', '--checkpoint_path=' + prefix)
  assert inspect(*arguments) == 1  # The biases of the classifier fit.
  short_output = capsys.readouterr().out
  assert 'more; --all lists them' in short_output
  assert short_output.splitlines()[-1] == (
      'it does not fit mobilenet_v1_050; it fits mobilenet_v1_025: give '
      '--model_name=mobilenet_v1_025')
  assert '--checkpoint_exclude_scopes' not in short_output
  inspect(*arguments, '--all')
  full_output = capsys.readouterr().out
  assert 'more; --all' not in full_output
  assert full_output.count(' in the checkpoint, [') >= 130


def test_program_for_checkpoint_of_another_network_names_it(tmp_path, capsys):
  prefix = save(tmp_path / 'x.ckpt', 'lenet', 7)
  assert inspect('--model_name=cifarnet', '--checkpoint_path=' + prefix) == 1
  assert capsys.readouterr().out.splitlines()[-1] == (
      'it does not fit cifarnet; it fits lenet: give --model_name=lenet')


def test_program_for_checkpoint_of_unknown_network_prints_no_flags(
    tmp_path, capsys):
  # One matching variable of eight is too few.
  prefix = save(tmp_path / 'x.ckpt', 'lenet', 7, leave_out=[
      lenet_variable(name) for name in (
          'conv1/weights', 'conv2/weights', 'conv2/biases', 'fc3/weights',
          'fc3/biases')])
  assert inspect('--model_name=lenet', '--checkpoint_path=' + prefix) == 1
  output = capsys.readouterr().out
  assert output.splitlines()[-1] == (
      'it fits neither lenet nor another network of nets/networks.py')
  assert '--checkpoint_path' not in output


def flags_after(output, title):
  """Returns the flags on the line after the one that begins with `title`."""
  lines = output.splitlines()
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
def test_program_printed_flags_start_training(
    tmp_path, capsys, model_name, classes, leave_out, title):
  (tmp_path / 'a b').mkdir()
  prefix = save(tmp_path / 'a b' / 'x.ckpt', model_name, classes,
                leave_out=leave_out)
  assert inspect('--model_name=' + model_name,
                 '--checkpoint_path=' + prefix) == 0
  printed_flags = flags_after(capsys.readouterr().out, title)
  checkpoint = trained_kit.train(
      trained_kit.make_dataset(tmp_path), tmp_path / 'train', *printed_flags,
      '--train_image_size=32', '--max_number_of_steps=1')
  assert checkpoint.endswith('model.ckpt-1')


@pytest.mark.parametrize('arguments,message', [
    (['--model_name=lenet'], '--checkpoint_path is needed'),
    (['--checkpoint_path=x'], '--model_name is needed'),
    (['--model_name=lenet5', '--checkpoint_path=x'], "network 'lenet5'; known"),
    (['--model_name=lenet', '--checkpoint_path=/no/x'], 'no checkpoint at /no'),
])
def test_program_with_wrong_flags_raises_input_error(arguments, message):
  with pytest.raises(InputError, match=message):
    inspect(*arguments)


@pytest.mark.slow
def test_program_for_damaged_checkpoint_raises_input_error(tmp_path):
  (tmp_path / 'x.ckpt').write_bytes(b'rubbish' * 1000)
  with pytest.raises(InputError, match='x.ckpt cannot be read') as raised:
    inspect('--model_name=lenet', '--checkpoint_path=%s' % (tmp_path /
                                                           'x.ckpt'))
  assert '\n' not in str(raised.value)


def test_program_runs_as_script():
  completed = run_program('tools/inspect_checkpoint.py', '--model_name=lenet')
  assert completed.returncode == 1 and completed.stderr.count('\n') == 1
  assert '--checkpoint_path is needed' in completed.stderr


@pytest.mark.slow
def test_single_file_checkpoint_is_inspected_and_fine_tuned(tmp_path, capsys):
  prefix = save(tmp_path / 'old.ckpt', 'mobilenet_v1_025', 1001,
                tf.train.SaverDef.V1)
  assert (tmp_path / 'old.ckpt').is_file()
  assert not (tmp_path / 'old.ckpt.index').exists()
  assert inspect('--model_name=mobilenet_v1_025', '--num_classes=3',
                 '--checkpoint_path=' + prefix) == 0
  output = capsys.readouterr().out
  assert 'matched: 135' in output and 'differently shaped: 2' in output
  dataset_dir = trained_kit.make_dataset(tmp_path)
  checkpoint = trained_kit.train(
      dataset_dir, tmp_path / 'train', *trained_kit.MOBILENET,
      *flags_after(output, 'to fine-tune'),
      '--trainable_scopes=MobilenetV1/Logits', '--max_number_of_steps=2')
  before = trained_kit.read_variables(prefix)
  after = trained_kit.read_variables(checkpoint)
  frozen = [name for name in before if name.startswith('MobilenetV1/Conv2d_')]
  assert len(frozen) == 135
  for name in frozen:
    np.testing.assert_array_equal(after[name], before[name])
  assert after['MobilenetV1/Logits/Conv2d_1c_1x1/biases'].shape == (3,)


@pytest.mark.slow
def test_program_for_truncated_data_raises_one_line_error(tmp_path):
  prefix = save(tmp_path / 'x.ckpt', 'lenet', 7)
  os.truncate(prefix + '.data-00000-of-00001', 1000)
  with pytest.raises(InputError, match='x.ckpt cannot be read: its data has '
                     '1000 bytes, its index says ') as raised:
    inspect('--model_name=lenet', '--checkpoint_path=' + prefix)
  assert '\n' not in str(raised.value)
