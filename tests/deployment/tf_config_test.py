"""Tests of deployment/tf_config.py: TF_CONFIG as orchestrators set it."""

import json

import pytest

import train_image_classifier
from common.errors import InputError
from deployment import tf_config
from kits.helpers import parsed_flags
from tools import run_cluster

# As Kubeflow's training operator writes it.
TFJOB = {'cluster': {'chief': ['f-chief-0.ns.svc:2222'],
                     'ps': ['f-ps-0.ns.svc:2222'],
                     'worker': ['f-worker-0.ns.svc:2222',
                                'f-worker-1.ns.svc:2222']},
         'task': {'type': 'worker', 'index': 1}, 'environment': 'cloud'}
WORKERS = 'f-chief-0.ns.svc:2222,f-worker-0.ns.svc:2222,f-worker-1.ns.svc:2222'
# As Vertex AI, as SageMaker, and as TensorFlow's Estimator know it.
VERTEX = {'cluster': {'chief': ['w0-0:2222'], 'worker': ['w1-0:2222'],
                      'ps': ['w2-0:2222'], 'evaluator': ['w3-0:2222']},
          'task': {'type': 'chief', 'index': 0, 'trial': '7'}, 'job': '{}'}
SAGEMAKER = {'cluster': {'master': ['algo-1:2222'], 'worker': ['algo-2:2222'],
                         'ps': ['algo-1:2223', 'algo-2:2223']},
             'task': {'type': 'ps', 'index': '1'}, 'environment': 'cloud'}
NO_CHIEF = {'cluster': {'worker': ['a:1', 'b:1'], 'ps': ['c:1']},
            'task': {'type': 'worker', 'index': 1}}


def changed(config, **changes):
  return json.dumps(dict(config, **changes))


@pytest.mark.parametrize('config, expected', [
    (TFJOB, ('f-ps-0.ns.svc:2222', WORKERS, 'worker', 2)),
    (dict(TFJOB, task={'type': 'chief', 'index': 0}),
     ('f-ps-0.ns.svc:2222', WORKERS, 'worker', 0)),
    (VERTEX, ('w2-0:2222', 'w0-0:2222,w1-0:2222', 'worker', 0)),
    (SAGEMAKER, ('algo-1:2223,algo-2:2223', 'algo-1:2222,algo-2:2222', 'ps',
                 1)),
    (NO_CHIEF, ('c:1', 'a:1,b:1', 'worker', 1))])
def test_read_returns_the_flags_of_the_same_cluster(config, expected):
  assert tf_config.read(json.dumps(config)) == dict(
      zip(('ps_hosts', 'worker_hosts', 'job_name', 'task'), expected))


@pytest.mark.parametrize('text', [
    None, '', '{}', '{"cluster": {}, "task": {"type": "worker", "index": 0}}',
    '{"cluster": {"chief": ["a:1"]}, "task": {"type": "chief", "index": 0}}',
    '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}'])
def test_read_single_process_needs_no_flags(text):
  assert tf_config.read(text) == {}


@pytest.mark.parametrize('text, message', [
    ('{"cluster": ', 'TF_CONFIG is not JSON: Expecting value'),
    ('["a:1"]', 'TF_CONFIG is not an object with cluster and task: '),
    (changed(TFJOB, cluster=['a:1']), 'TF_CONFIG: cluster must have lists of '),
    (changed(TFJOB, cluster={'worker': 'a:1'}),
     'TF_CONFIG: cluster must have lists of host:port of these jobs: chief, '
     'master, worker, ps, evaluator, got {"worker": "a:1"}'),
    (changed(TFJOB, cluster={'worker': {'0': 'a:1'}}),
     'TF_CONFIG: cluster must have lists of'),
    (changed(TFJOB, cluster={'worker': ['a:1'], 'gpu': ['a:2']}),
     'TF_CONFIG: cluster must have lists of'),
    (changed(TFJOB, cluster={'chief': ['a:1', 'b:1']}, task={'type': 'chief'}),
     'TF_CONFIG: cluster must have one chief, got {"chief": ["a:1", "b:1"]}'),
    (changed(TFJOB, task={'type': 'evaluator', 'index': 0}),
     'TF_CONFIG: this task is an evaluator, which training has no use for: '
     'omit it; run_eval.sh evaluates'),
    (changed(TFJOB, task={'type': 'gpu', 'index': 0}),
     'TF_CONFIG: task must have one of the types chief, ps, worker, got {'),
    (changed(TFJOB, task=3), 'TF_CONFIG: task must have one of the types'),
    (json.dumps({'cluster': TFJOB['cluster']}),
     'TF_CONFIG: task must have one of the types chief, ps, worker, got {}'),
    (changed(TFJOB, task={'type': 'worker', 'index': 2}),
     'TF_CONFIG: task must have an index of the 2 of type worker, got {'),
    (changed(TFJOB, task={'type': 'worker', 'index': -1}),
     'TF_CONFIG: task must have an index of the 2 of type worker, got {')])
def test_read_wrong_value_is_refused_in_one_line(text, message):
  with pytest.raises(InputError) as caught:
    tf_config.read(text)
  assert str(caught.value).startswith(message)
  assert '\n' not in str(caught.value)


def test_set_flags_keeps_which_were_given():
  with parsed_flags(train_image_classifier.define_flags, '--task=2') as values:
    tf_config.set_flags(values, json.dumps(TFJOB))
    assert (values.job_name, values.task) == ('worker', 2)
    assert values.worker_hosts == WORKERS
    assert train_image_classifier.config_from_flags().given == {'task': 2}


@pytest.mark.parametrize('flag, message', [
    ('--task=1', '--task=1 contradicts TF_CONFIG, by which it is 2: omit the '),
    ('--ps_hosts=a:1', '--ps_hosts=a:1 contradicts TF_CONFIG, by which it is '
     'f-ps-0.ns.svc:2222'),
    ('--master=grpc://a:1', '--master=grpc://a:1: with --worker_hosts each ')])
def test_tf_config_that_contradicts_a_flag_is_refused(monkeypatch, flag,
                                                      message):
  monkeypatch.setenv('TF_CONFIG', json.dumps(TFJOB))
  with parsed_flags(train_image_classifier.define_flags, flag):
    with pytest.raises(InputError) as caught:
      train_image_classifier.main([])
  assert str(caught.value).startswith(message)


def test_run_cluster_under_an_orchestrator_is_refused(monkeypatch):
  monkeypatch.setenv('TF_CONFIG', json.dumps(TFJOB))
  with parsed_flags(run_cluster.define_flags):
    with pytest.raises(InputError, match='^TF_CONFIG is set, so an orchestr'):
      run_cluster.main([])
