"""Confusion matrix as a PNG."""

import io
import logging
import warnings
from typing import Sequence

import numpy as np

# Above this many classes the numbers and names would overlap.
_MAX_NAMED = 40


def to_png(confusion: np.ndarray, names: Sequence[str], title: str) -> bytes:
  """Draws a confusion matrix.

  Args:
    confusion: [classes, classes] integers, rows are labels.
    names: the class names by index.
    title: line above the matrix.

  Returns:
    Bytes of a PNG.
  """
  # Imported here: it takes half a second, and only evaluation needs it.
  logging.getLogger('matplotlib').setLevel(logging.ERROR)
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  count = len(names)
  side = 4 + 0.35 * min(count, _MAX_NAMED)
  figure = Figure(figsize=(side, side), dpi=100)
  FigureCanvasAgg(figure)
  axes = figure.add_subplot(1, 1, 1)
  shares = confusion / confusion.sum(axis=1, keepdims=True).clip(min=1)
  axes.imshow(shares, cmap='Blues', vmin=0, vmax=1)
  axes.set(title=title, xlabel='predicted', ylabel='label')
  if count <= _MAX_NAMED:
    _name_cells(axes, confusion, shares, [
        # A dollar sign would start a formula.
        printable(n, i).replace('$', r'\$') for i, n in enumerate(names)])
  stream = io.BytesIO()
  with warnings.catch_warnings():
    # Very long names leave no room for the matrix: it is clipped, but correct.
    warnings.simplefilter('ignore', UserWarning)
    figure.tight_layout()
  figure.savefig(stream, format='png')
  return stream.getvalue()


def _name_cells(axes, confusion, shares, names):
  """Writes the class names at the axes and the counts into the cells."""
  ticks = range(len(names))
  axes.set_xticks(ticks)
  axes.set_yticks(ticks)
  axes.set_xticklabels(names, rotation=60, ha='right', rotation_mode='anchor')
  axes.set_yticklabels(names)
  for row in ticks:
    for column in ticks:
      if confusion[row, column]:
        axes.text(column, row, int(confusion[row, column]), ha='center',
                  va='center', fontsize=8,
                  color='white' if shares[row, column] > 0.5 else 'black')


def printable(name: str, index: int) -> str:
  """Returns the name, or the class index if the font lacks a character."""
  from matplotlib import font_manager
  font = font_manager.get_font(font_manager.findfont('DejaVu Sans'))
  characters = font.get_charmap()
  return (name if all(ord(c) in characters for c in name) else str(index))
