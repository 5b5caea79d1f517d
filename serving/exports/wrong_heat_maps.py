"""Heat maps of misclassified photos, for the report of a run."""

from typing import List, Optional, Sequence, Tuple

from common import progress
from datasets.photo_files.photos import PhotoError
from evaluation import run_results, wrong_photos
from runs import run_info
from runtime import forward_pass
from serving.model import heat_map_pictures
from serving.model.classifier import Classifier, prepare

# Longer side of the pictures, in pixels.
_SIDE = 160

# data: URIs of the maps of the predicted class and of the label.
Pair = Tuple[str, str]


def draw(photos: Sequence[wrong_photos.ClassifiedPhoto],
         results: Sequence[run_results.SplitResult], run: run_info.RunInfo,
         checkpoint: str, moving_average_decay: Optional[float] = None,
         options: forward_pass.Options = forward_pass.DEFAULT
         ) -> List[Optional[Pair]]:
  """Draws two heat maps of each photo: of its predicted class and its label.

  Args:
    photos: list of ClassifiedPhotos.
    results: the SplitResults that they were found in.
    run: RunInfo of the run.
    checkpoint: prefix of the checkpoint.
    moving_average_decay: decay of the averages that were used, None without.
    options: forward_pass.Options.

  Returns:
    A list of the same length; None for photos that cannot be read.

  Raises:
    InputError: the network has no heat maps.
  """
  if not photos:
    return []
  classifier = Classifier.from_checkpoint(
      checkpoint, run.model_name, run.labels, run.image_size,
      run.preprocessing_name, moving_average_decay, options=options)
  classifier.heat_maps.load()
  pairs = {}
  with progress.Progress('explained', len(photos)) as shown:
    for result in results:
      wanted = {photo.position: photo for photo in photos
                if photo.split == result.name}
      for position, data in wrong_photos.read_photos(result.sources, wanted):
        pairs[result.name, position] = _draw_pair(
            classifier, data, wanted[position])
        shown.add()
  classifier.close()
  return [pairs.get((photo.split, photo.position)) for photo in photos]


def _draw_pair(classifier, data, photo):
  prepared = prepare(data)
  if isinstance(prepared, PhotoError):
    return None
  image = classifier.decode(prepared)
  if isinstance(image, PhotoError):
    return None
  return tuple(
      wrong_photos.uri('image/jpeg', heat_map_pictures.draw(
          prepared.encoded,
          classifier.heat_map(prepared, index, image),
          _SIDE))
      for index in (photo.predicted, photo.label))
