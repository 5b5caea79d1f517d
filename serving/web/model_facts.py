"""Describes the graph for visitors: its network and its measured accuracy."""

import re
from typing import Any, List, Mapping, Optional

from serving.web import texts

# Splits that have a text of their own.
_SPLITS = ('test', 'train', 'validation')


def describe(language: str, info: Mapping[str, Any]) -> List[str]:
  """Returns the facts that the page shows, each a few words.

  Facts that are unknown are left out. The results of an evaluation come from
  files that may have been written by anyone, so each value is checked.

  Args:
    language: one of texts.LANGUAGES.
    info: as Service.model_info returns it.
  """
  text, facts = texts.for_language(language), []
  if info.get('name'):
    facts.append(text['network'] % {'name': info['name']})
  evaluation = info.get('evaluation') or {}
  accuracy = _percent(evaluation.get('accuracy'))
  if accuracy is None:
    return facts
  facts.append(text['accuracy'] % {
      'percent': accuracy, 'photos': _photos(text, evaluation)})
  interval = evaluation.get('accuracy_interval_95')
  if isinstance(interval, (list, tuple)) and len(interval) == 2:
    low, high = map(_percent, interval)
    if low is not None and high is not None:
      facts.append(text['interval'] % {'low': low, 'high': high})
  date = re.match(r'\d{4}-\d\d-\d\d', str(evaluation.get('time')))
  if date:
    facts.append(text['measured'] % {'date': date.group()})
  return facts


def _photos(text, evaluation):
  """Returns which photos were classified, in words."""
  split, count = str(evaluation.get('split')), evaluation.get('photos')
  if split in _SPLITS:
    return (text[split + '_photos'] % {'count': count}
            if isinstance(count, int) else text[split + '_split'])
  return text['split_photos'] % {'split': split}


def _percent(share: Any) -> Optional[str]:
  """Returns a number from 0 to 1 as a percentage; None: it is not one."""
  try:
    value = float(share)
  except (TypeError, ValueError, OverflowError):
    return None
  return '%.1f %%' % (100 * value) if 0 <= value <= 1 else None
