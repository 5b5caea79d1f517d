"""Small archives of the shape of COCO 2014's."""

import json
import os

from datasets.conversion import convert_visualwakewords
from kits import dataset_kit
from kits.download_kit import zip_bytes

CATEGORIES = [{'supercategory': 'person', 'id': 1, 'name': 'person'},
              {'supercategory': 'animal', 'id': 18, 'name': 'dog'}]

# {split: [[category, box in a photo of 12 x 10 pixels, area in pixels], ...] of
# each photo}. The threshold of 0.005 is 0.6 pixels.
OBJECTS = {
    'train': [[[1, [3, 2.5, 6, 5], 30.0]],
              [],
              [[1, [0, 0, 1, 1], 0.6], [18, [0, 0, 12, 10], 100.0]],
              [[1, [0, 0, 1, 1], 0.61], [1, [6, 5, 6, 5], 12.0]],
              [[18, [0, 0, 6, 5], 9.0]]],
    'val': [[[1, [0, 0, 12, 10], 120.0]], [], [[18, [3, 0, 3, 5], 15.0]]],
}


def file_name(split, index):
  """Returns the name of a photo."""
  return 'COCO_%s2014_%012d.jpg' % (split, index + 1)


def photo(split, index):
  """Returns the bytes of a photo."""
  return dataset_kit.photo_bytes(100 * (split == 'val') + index)


def annotations(split):
  """Returns the content of a split's annotation file."""
  rows = OBJECTS[split]
  return {
      'info': {'year': 2014}, 'licenses': [], 'categories': CATEGORIES,
      'images': [{'id': index + 1, 'width': 12, 'height': 10, 'license': 1,
                  'file_name': file_name(split, index)}
                 for index in range(len(rows))],
      'annotations': [
          {'id': 10 * index + number, 'image_id': index + 1, 'iscrowd': 0,
           'segmentation': [[0, 0, 1, 0, 1, 1]], 'category_id': category,
           'bbox': box, 'area': area}
          for index, objects in enumerate(rows)
          for number, (category, box, area) in enumerate(objects)]}


def archives(**changes):
  """Returns {file name: bytes} of the three archives.

  Args:
    **changes: {split: content of its annotation file}, as JSON or as bytes.
  """
  texts = {split: changes.get(split, annotations(split)) for split in OBJECTS}
  by_name = {'annotations_trainval2014.zip': zip_bytes({
      'annotations/instances_%s2014.json' % split: (
          text if isinstance(text, bytes) else json.dumps(text))
      for split, text in texts.items()})}
  for split, rows in OBJECTS.items():
    by_name['%s2014.zip' % split] = zip_bytes({
        '%s2014/' % split: b'', **{
            '%s2014/%s' % (split, file_name(split, index)): photo(split, index)
            for index in range(len(rows))}})
  return by_name


def put_archives(folder, **changes):
  """Writes the archives where the converter looks for them.

  Args:
    folder: pathlib.Path of dataset_dir.
    **changes: as for `archives`.
  """
  target = folder / convert_visualwakewords.COCO_DIRNAME
  target.mkdir(parents=True, exist_ok=True)
  for name, data in archives(**changes).items():
    (target / name).write_bytes(data)


def serve(file_server, monkeypatch):
  """Lets a download_kit.FileServer serve the archives, at slim's paths."""
  for name in ('TRAIN_URL', 'VALIDATION_URL', 'ANNOTATIONS_URL'):
    file = os.path.basename(getattr(convert_visualwakewords, name))
    file_server.files['/' + file] = archives()[file]
    monkeypatch.setattr(convert_visualwakewords, name,
                        file_server.url + '/' + file)
