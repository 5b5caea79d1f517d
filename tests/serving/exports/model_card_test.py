"""Tests of model_card.py and results_file.py: what a model card states."""

import os

import numpy as np
import pytest

import export_inference_graph
from datasets import manifest
from evaluation import loop, metrics, report, results_file
from kits import serving_kit as kit
from runs import run_info
from serving.exports import export_folder, model_card

NAMES = ['a|b', 'cat']


def split_facts(right=3):
  """Returns the line of metrics.jsonl of 4 photos, some of them right."""
  labels = np.array([0, 0, 1, 1])
  predicted = np.where(np.arange(4) < right, labels, 1 - labels)
  counted = loop.Counted('/x/model.ckpt-7', 7, ['p'] * 4, labels,
                         np.eye(2)[predicted])
  return report.facts_of(counted, metrics.compute(
      labels, counted.probabilities, NAMES), 'validation')


@pytest.fixture
def facts(tmp_path):
  """The Facts of an exported cifarnet."""
  kit.save_checkpoint(tmp_path / 'train', 'cifarnet')
  frozen = tmp_path / 'f_freeze.pb'
  kit.run(export_inference_graph, '--frozen_file=%s' % frozen,
          '--checkpoint_path=%s' % (tmp_path / 'train'))
  counts = {'size': 9, 'shards': [], 'class_counts': {'a|b': 4, 'cat': 5}}
  return model_card.Facts(
      export_folder.read_frozen(str(frozen)), 'f_freeze.pb', 2500000,
      run_info.RunInfo('cifarnet', NAMES, 0, 32, 'cifarnet', 'my_pets', '/d',
                       None, '/p/old.ckpt'),
      True, {'learning_rate': '0.01', 'train_dir': '/secret'},
      manifest.Manifest('my_pets', NAMES, {'train': counts}, 0, 10, {}, []),
      {}, 'no photos')


def test_export_writes_card_and_keeps_what_a_person_stated(tmp_path, capsys):
  prefix = kit.save_checkpoint(tmp_path / 'train', 'cifarnet')
  arguments = ('--checkpoint_path=%s' % (tmp_path / 'train'),
               '--frozen_file=%s' % (tmp_path / 'f.pb'))
  kit.run(export_inference_graph, *arguments)
  card = tmp_path / 'f.md'
  assert 'Wrote %s: model card' % card in capsys.readouterr().out
  text = card.read_text(encoding='utf-8')
  assert '- **Accuracy:** not stated (./report.sh measures it' in text
  assert '- **License:** not stated' in text
  card.write_text(text.replace(
      next(line for line in text.splitlines() if '**License' in line),
      '- **License:** CC0, \\1 ünd'), encoding='utf-8')
  results_file.save(prefix, None, {'test': split_facts()})
  kit.run(export_inference_graph, *arguments)
  text = card.read_text(encoding='utf-8')
  assert '- **License:** CC0, \\1 ünd\n' in text
  assert '| test | 4 | 75.0 % | 30.1 to 95.4 % | 100.0 % |' in text
  assert '**Accuracy:** not stated' not in text


def test_card_states_facts_and_invents_none(facts):
  text = model_card.render(facts)
  for words in ('# Model card: cifarnet on my_pets', '2.5 MB',
                'model.ckpt-7, step 7', '| a\\|b | 4 |', '9 train',
                '- **Started from:** old.ckpt', 'learning_rate 0.01',
                'none, so that every photo gets a class: no photos'):
    assert words in text, words
  assert '/secret' not in text
  asked = ('Made by', 'License', 'Intended use', 'Not intended for',
           'Origin of the photos', 'License and consent', 'Known failures')
  for name in asked:
    assert '- **%s:** not stated (' % name in text
  for title in ('Intended use', 'Training data', 'Training', 'Metrics',
                'Limits', 'Out-of-distribution photos'):
    assert text.count('## %s\n' % title) == 1


def test_card_of_validation_results_tells_limits(facts):
  line = dict(split_facts(), refused=1, refused_interval_95=[0.01, 0.5],
              ms_per_photo=1.25, computed_by='TensorFlow 9, float32')
  facts = facts._replace(results={'validation': line}, info=facts.info._replace(
      known='Known:0', threshold=-1.5, threshold_photos=4))
  text = model_card.render(facts)
  for words in ('**Optimistic numbers:**', '**Weakest class:** cat: 50.0 %',
                '2 of 2 classes were measured on fewer than 30',
                '1.2 ms per photo', '1 of 4 (95 % interval 1.0 to 50.0 %)',
                'below -1.5000 are refused'):
    assert words in text, words
  other = model_card.render(facts._replace(is_best=False))
  assert 'Optimistic' not in other


def test_card_keeps_all_lines_of_a_person_and_no_old_fact(facts):
  text = model_card.render(facts)
  asked = next(line for line in text.splitlines() if '**License:**' in line)
  for stated in ('- **License:** CC0\n  for all\n\n  and more',
                 asked + '\n- ask us'):
    former = text.replace(asked, stated)
    assert model_card.keep_stated(text, former) == former
  unknown = model_card.render(facts._replace(
      run=None, flags={}, info=facts.info._replace(model_name='')))
  kept = model_card.keep_stated(unknown, text)
  assert kept == unknown
  assert '- **Network:** not known\n- ' in kept and 'my_pets' not in kept


def test_card_has_no_results_of_training_photos(tmp_path):
  prefix = kit.save_checkpoint(tmp_path / 'train', 'cifarnet')
  for split in ('test', 'validation', 'train'):
    results_file.save(prefix, None, {split: split_facts()})
  kit.run(export_inference_graph,
          '--checkpoint_path=%s' % (tmp_path / 'train'),
          '--frozen_file=%s' % (tmp_path / 'f.pb'))
  text = (tmp_path / 'f.md').read_text(encoding='utf-8')
  assert '| train |' not in text and 'Of the test photos' in text


def test_results_of_removed_checkpoint_are_a_warning(tmp_path, caplog):
  results_file.save(str(tmp_path / 'gone'), None, {'test': split_facts()})
  assert 'results.json is not saved: No such file' in caplog.text
  assert not os.listdir(str(tmp_path))


def test_results_of_other_weights_or_damaged_are_not_read(tmp_path):
  prefix = kit.save_checkpoint(tmp_path, 'cifarnet')
  results_file.save(prefix, None, {'validation': split_facts()})
  results_file.save(prefix, 0, {'test': split_facts(4)})
  assert sorted(results_file.load(prefix, None)) == ['test', 'validation']
  assert results_file.load(prefix, 0.9) == {}
  path = results_file.path(prefix)
  for content in ('', '[]', '{"weights": 3}', '{"splits": {"a": 1}}'):
    with open(path, 'w') as stream:
      stream.write(content)
    assert results_file.load(prefix, None) == {}
  results_file.save(prefix, None, {'test': split_facts()})
  kit.save_checkpoint(tmp_path, 'cifarnet', labels=list('abcde'), size=40)
  assert results_file.load(prefix, None) == {}
  os.remove(path)
  assert results_file.load(prefix, None) == {}
