"""Reads the evaluation results of a frozen graph.

They are searched in the folder of the graph and in the folders of env_set.sh:
`../eval/metrics.jsonl`, `../train/best/best.json`. Only results of the
checkpoint that the graph was frozen from are used.
"""

import json
import os
from typing import Any, Dict, List, Optional

from runs import run_info

_METRICS = ('metrics.jsonl', os.path.join('..', 'eval', 'metrics.jsonl'))
_BEST = (run_info.BEST_FILE_NAME,
         os.path.join('..', 'train', 'best', run_info.BEST_FILE_NAME))

# Order of preference: test photos were not used to choose anything, validation
# photos chose the checkpoint, and results on training photos mean little.
_RANKS = {'test': 2, 'validation': 1}

# Fields of a line that are published: no folders of this machine, no long
# tables.
_PUBLISHED = ('split', 'photos', 'accuracy', 'accuracy_interval_95', 'recall_5',
              'refused', 'refused_interval_95', 'time')


def read_evaluation(graph_file: str, checkpoint: Optional[str]
                    ) -> Optional[Dict[str, Any]]:
  """Returns the measured accuracy of a graph.

  Args:
    graph_file: path of the frozen graph.
    checkpoint: name of its checkpoint, such as model.ckpt-800; or None.

  Returns:
    Dict with `split`, `accuracy` and more: the last evaluation on the test
    photos, else on the validation photos, else on others. None if there are no
    results.
  """
  if not checkpoint:
    return None
  folder = os.path.dirname(os.path.abspath(graph_file))
  for name in _METRICS:
    lines = [line for line in _lines(os.path.join(folder, name))
             if os.path.basename(str(line.get('checkpoint'))) == checkpoint]
    if lines:
      line = max(reversed(lines), key=lambda line: _RANKS.get(
          str(line.get('split')), 0))
      return {key: line[key] for key in _PUBLISHED if key in line}
  for name in _BEST:
    for line in _lines(os.path.join(folder, name)):
      if checkpoint.endswith('-%s' % line.get('step')):
        return dict(split='validation', accuracy=line.get('accuracy'),
                    loss=line.get('loss'))
  return None


def _lines(path: str) -> List[Dict[str, Any]]:
  """Returns the JSON objects in a file, one per line, without damaged ones."""
  objects = []
  try:
    with open(path, encoding='utf-8') as file:
      lines = file.readlines()
  except (OSError, UnicodeDecodeError):
    return []
  for line in lines:
    try:
      values = json.loads(line)
    except ValueError:
      continue
    if isinstance(values, dict):
      objects.append(values)
  return objects
