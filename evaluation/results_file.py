"""Results of a checkpoint, in results.json next to it.

./report.sh and ./run_eval.sh write them; the export reads them for the model
card.
"""

import json
import os
from typing import Any, Dict, Optional

from common import files
from compat import tf
from runs import checkpoints

FILE_NAME = 'results.json'


def path(checkpoint: str) -> str:
  """Returns the path of the results of a checkpoint."""
  return os.path.join(os.path.dirname(checkpoint), FILE_NAME)


def load(checkpoint: str,
         moving_average_decay: Optional[float]) -> Dict[str, Dict[str, Any]]:
  """Returns {split: its line of metrics.jsonl} for exactly these weights.

  Args:
    checkpoint: prefix of a checkpoint.
    moving_average_decay: decay of the moving averages that are used, None for
      the plain variables.

  Returns:
    A dict, which is empty if there is no such file, or it is damaged or of
    other weights.
  """
  try:
    with open(path(checkpoint), encoding='utf-8') as stream:
      facts = json.load(stream)
    if (facts['weights'] == _weights(checkpoint, moving_average_decay)
        and all(isinstance(line, dict) for line in facts['splits'].values())):
      return facts['splits']
  except (OSError, AttributeError, KeyError, TypeError, ValueError):
    pass
  return {}


def save(checkpoint: str, moving_average_decay: Optional[float],
         splits: Dict[str, Dict[str, Any]]) -> None:
  """Adds the results of some splits, if the folder is writable.

  Args:
    checkpoint, moving_average_decay: as for `load`.
    splits: as `load` returns them; others in the file are kept.
  """
  merged = dict(load(checkpoint, moving_average_decay), **splits)
  try:  # Training may have removed the checkpoint since.
    facts = {'weights': _weights(checkpoint, moving_average_decay),
             'splits': merged}
    files.write_text(path(checkpoint),
                     json.dumps(facts, indent=1, ensure_ascii=False) + '\n')
  except OSError as error:
    tf.logging.warning('%s is not saved: %s', path(checkpoint), error.strerror)


def _weights(checkpoint, moving_average_decay):
  """Returns what identifies the weights."""
  return [checkpoints.digest(checkpoint), moving_average_decay or None]
