"""HTML page of the findings of label_check: one self-contained file.

A person decides about each photo; a script of the page saves the choices as a
CSV file, see datasets.conversion.label_choices. Without scripts the page can be
read. The browser may fetch nothing.
"""

import base64
import hashlib
import os
import time
from typing import (
  Any,
  Dict,
  Iterable,
  List,
  NamedTuple,
  Optional,
  Sequence,
  Set,
  Tuple,
)

from evaluation import html_report, label_check, wrong_photos

# Longest lists of groups and of outliers.
MAX_GROUPS, MAX_OUTLIERS = 60, 24

# Photos of a group that are shown.
_MAX_IN_GROUP = 8


class Source(NamedTuple):
  """The records of a split."""

  # Of the split.
  name: str
  # Files, in order.
  sources: Sequence[str]


class Row(NamedTuple):
  """A photo on the page."""

  file: str
  split: str
  position: int
  # Class indices.
  label: int
  suggested: int
  # data: URI, None if it cannot be shown.
  uri: Optional[str] = None


class Page(NamedTuple):
  """What the page shows."""

  title: str
  checkpoint: str
  # Name of the file of suspects beside the page.
  csv_name: str
  # Class names.
  names: Sequence[str]
  photos: label_check.Photos
  findings: label_check.Findings
  sources: Sequence[Source]
  # (file, label) of photos whose labels a person found right.
  kept: Set[Tuple[str, str]]
  num_suspects: int


def suspects(page: Page) -> List[label_check.Suspect]:
  """Returns the suspects to show: those that were not kept before."""
  photos = page.photos
  return [found for found in page.findings.suspects
          if (photos.files[found.number],
              page.names[photos.labels[found.number]]) not in page.kept
          ][:page.num_suspects]


def render(page: Page) -> str:
  """Returns the HTML page, as text that UTF-8 can encode."""
  findings, photos = page.findings, page.photos
  shown = suspects(page)
  suggested = {found.number: found.suggested for found in findings.suspects}
  groups = sorted(findings.groups, key=lambda group: (
      len({photos.labels[n] for n in group}) == 1,
      len({photos.splits[n] for n in group}) == 1))[:MAX_GROUPS]
  outliers = findings.outliers[:MAX_OUTLIERS]
  numbers = sorted(
      {found.number for found in shown} | {n for n, _ in outliers} |
      {n for group in groups for n in group[:_MAX_IN_GROUP]})
  row_of = dict(zip(numbers, _rows(page, numbers, suggested)))
  text = html_report.environment().get_template('labels.html').render(
      title=page.title, checkpoint=page.checkpoint, csv_name=page.csv_name,
      names=list(page.names), findings=findings,
      findings_count=len(photos.files), kept=len(page.kept),
      time=time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime()),
      suspects=[(row_of[found.number], found.suspicion) for found in shown],
      groups=[([row_of[n] for n in group[:_MAX_IN_GROUP]],
               _describe(page, group)) for group in groups],
      outliers=[(row_of[n], similarity) for n, similarity in outliers],
      **script_values())
  return text.encode('utf-8', 'backslashreplace').decode('utf-8')


def script_values() -> Dict[str, str]:
  """Returns the values of a template that has choices: their script."""
  with open(os.path.join(html_report.TEMPLATES, 'labels.js'),
            encoding='utf-8') as stream:
    script = stream.read()
  digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
  return {'script': script, 'script_hash': 'sha256-' + digest}


def _rows(page, numbers, suggested) -> Iterable[Row]:
  photos = page.photos
  rows: List[Any] = [
      Row(photos.files[n], photos.splits[n], int(photos.positions[n]),
          int(photos.labels[n]), suggested.get(n, int(photos.labels[n])))
      for n in numbers]
  uris = wrong_photos.pictures(rows, page.sources)
  return [row._replace(uri=uri) for row, uri in zip(rows, uris)]


def _describe(page, group):
  """Returns the heading of a group of near duplicates."""
  inside = set(group)
  kinds = sorted({pair.kind for pair in page.findings.pairs
                  if pair.first in inside})
  notes = [', '.join(kinds)]
  for values, name in ((page.photos.labels, 'classes'),
                       (page.photos.splits, 'splits')):
    count = len({values[n] for n in group})
    if count > 1:
      notes.append('in %d %s' % (count, name))
  if len(group) > _MAX_IN_GROUP:
    notes.append('%d of %d photos' % (_MAX_IN_GROUP, len(group)))
  return '; '.join(notes)
