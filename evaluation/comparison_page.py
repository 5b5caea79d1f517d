"""HTML page that compares two runs: one self-contained file, as the report."""

import os
import time
from typing import List, Optional, Sequence, Tuple

import jinja2

from common.errors import InputError
from datasets import dataset_factory
from evaluation import charts, curves, wrong_photos
from evaluation.run_comparison import Comparison, Prediction
from runs import run_list

_TEMPLATES = os.path.join(os.path.dirname(os.path.abspath(__file__)),
                          'templates')
# Photos shown per direction of change.
MAX_PHOTOS = 60


def render(comparison: Comparison) -> str:
  """Returns the HTML page of a Comparison, as text that UTF-8 can encode."""
  environment = jinja2.Environment(
      loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True,
      undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
  groups = [('From right to wrong', comparison.lost()),
            ('From wrong to right', comparison.gained())]
  page = environment.get_template('comparison.html').render(
      c=comparison, time=time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime()),
      rows=list(zip('AB', comparison.runs, comparison.steps,
                    comparison.accuracies(), comparison.intervals(),
                    charts.COLOURS)),
      groups=[(title, len(pairs), list(zip(pairs, pictures(
          comparison, [pair[0] for pair in pairs[:MAX_PHOTOS]]))))
              for title, pairs in groups],
      charts=_charts(comparison))
  return page.encode('utf-8', 'backslashreplace').decode('utf-8')


def _charts(comparison: Comparison) -> List[Tuple[str, str]]:
  """Returns (title, SVG) of the curves of both runs."""
  found = [curves.read(run.train_dir, run.eval_dir)
           for run in comparison.runs]
  made = []
  for title, name in (('Validation accuracy', 'validation_accuracy'),
                      ('Validation loss', 'validation_loss'),
                      ('Training loss', 'training_loss')):
    series = [(letter, getattr(one, name)) for letter, one in zip('AB', found)]
    try:
      made.append((title, charts.line_chart(series, title, 'step')))
    except ValueError:  # Neither run has such points.
      pass
  return made


def pictures(comparison: Comparison,
             photos: Sequence[Prediction]) -> List[Optional[str]]:
  """Returns a data: URI of each photo, None for those that cannot be shown.

  Args:
    comparison: a Comparison.
    photos: Predictions of its run A.
  """
  facts = run_list.facts(comparison.runs[0])
  encoded = {}
  try:
    sources = dataset_factory.find_split(
        facts.get('dataset_name') or '', comparison.split,
        facts.get('dataset_dir') or '').sources
    evaluated = os.path.getmtime(comparison.predictions_file)
    # If the data set was converted again, the records may be in another order.
    if all(os.path.getmtime(source) <= evaluated for source in sources):
      encoded = dict(wrong_photos.read_photos(
          sources, {photo.position for photo in photos}))
  except (InputError, OSError):  # The records are gone.
    pass
  return [wrong_photos.data_uri(encoded.get(photo.position))
          for photo in photos]
