"""Tests of benchmarks/heat_map_checks.py, with a graph of colours."""

import random

import numpy as np
import pytest
from PIL import Image

from benchmarks import heat_map_checks as program
from common.errors import InputError
from datasets.conversion import draw_flowers
from kits import graph_kit, serving_kit
from serving.model.predictions import HeatMap

COLORS = {'daisy': (220, 30, 50), 'tulip': (30, 160, 60),
          'rose': (40, 60, 220)}


def test_main_maxima_of_coloured_photos_are_inside(tmp_path, capsys):
  graph = graph_kit.write(tmp_path, has_shape=True)
  for label, color in COLORS.items():
    (tmp_path / 'photos' / label).mkdir(parents=True)
    image = Image.new('RGB', (90, 60), (128, 128, 128))
    image.paste(color, (20, 10, 60, 40))
    image.save(str(tmp_path / 'photos' / label / '0.png'))
  serving_kit.run(program, '--frozen_graph=%s' % graph,
                  '--photos=%s' % (tmp_path / 'photos'), '--scenes=6',
                  '--deletions=3')
  text = capsys.readouterr().out
  assert 'four photos: maximum inside in 6 of 6, 100.0 %' in text
  assert 'lower with the map for 3 photos' in text


def test_main_photos_of_other_classes_raise_input_error(tmp_path):
  graph = graph_kit.write(tmp_path, has_shape=True)
  with pytest.raises(InputError, match='no photos of at least two classes'):
    serving_kit.run(program, '--frozen_graph=%s' % graph,
                    '--photos=%s' % tmp_path)


@pytest.mark.parametrize('place, quadrant, expected', [
    ((0, 0), (0, 0), True), ((0, 0), (0, 1), False), ((0, 1), (0, 0), False),
    ((2, 2), (1, 1), True), ((2, 0), (1, 0), True), ((2, 0), (0, 0), False)])
def test_is_inside_middle_row_or_column_is_in_no_quadrant(place, quadrant,
                                                          expected):
  values = np.zeros([3, 3], np.float32)
  assert not program.is_inside(HeatMap('a', values, (0, 0, 1, 1)), quadrant)
  values[place] = 1
  for window in ((0, 0, 1, 1), (0.0625, 0.0625, 0.875, 0.875)):
    assert program.is_inside(HeatMap('a', values, window), quadrant) == expected


def test_draw_flower_in_a_quadrant_leaves_the_others_empty():
  pixels = [np.asarray(draw_flowers.draw_flower(
      'sunflowers', random.Random(3), middle), float).mean(2)
            for middle in ((0.25, 0.25), (0.75, 0.75))]
  # The background is the same, and so is the noise.
  height, width = (side // 2 for side in pixels[0].shape)
  difference = np.abs(pixels[0] - pixels[1])
  assert difference[:height, :width].mean() > 5 > (
      difference[:height, width + 8:].mean())
