"""Folders like those of training runs, without any training."""

import json


def make_run(runs_dir, name, step=40, accuracy=0.75, **facts):
  """Writes what training and its best checkpoint leave in RUNS_DIR/NAME.

  Args:
    runs_dir: pathlib.Path of RUNS_DIR.
    name: of the folder, or an absolute path.
    step: of the best checkpoint; None: there is no checkpoint yet.
    accuracy: of the best checkpoint on the validation photos.
    **facts: fields of run.json that differ from the usual ones.

  Returns:
    The pathlib.Path of its train directory.
  """
  train = runs_dir / name / 'train'
  train.mkdir(parents=True)
  (train / 'run.json').write_text(json.dumps(dict(
      dict(model_name='lenet', dataset_name='pets', labels=['cat', 'dog'],
           dataset_dir=str(runs_dir / 'data'), checkpoint_path=None),
      **facts)))
  if step is not None:
    best = train / 'best'
    best.mkdir()
    (best / 'best.json').write_text(json.dumps(
        {'step': step, 'accuracy': accuracy, 'loss': 1.0}))
    (best / ('model.ckpt-%d.index' % step)).write_text('')
  return train


def add_evaluation(train, rows, step=40, split='validation'):
  """Writes the predictions of an evaluation beside a train directory.

  Args:
    train: pathlib.Path that make_run returned.
    rows: list of (file, label, predicted).
    step: of the evaluated checkpoint.
    split: of the photos.
  """
  folder = train.parent / 'eval'
  folder.mkdir(exist_ok=True)
  lines = ['file,label,predicted,correct'] + [
      '%s,%s,%s,%d' % (*row, row[1] == row[2]) for row in rows]
  (folder / ('predictions-%s-%d.csv' % (split, step))).write_text(
      '\n'.join(lines) + '\n')
  right = sum(label == predicted for _, label, predicted in rows)
  with (folder / 'metrics.jsonl').open('a') as stream:
    stream.write(json.dumps({
        'global_step': step, 'split': split, 'photos': len(rows),
        'accuracy': right / len(rows)}) + '\n')


def start(runs_dir, *trains):
  """Adds runs to the history, as run_train.sh does; the last is current."""
  with (runs_dir / 'runs.tsv').open('a') as stream:
    for train in trains:
      folders = [train, train.parent / 'eval', train.parent / 'export',
                 train.parent / 'output.log']
      stream.write('\t'.join(['', *map(str, folders)]) + '\n')
