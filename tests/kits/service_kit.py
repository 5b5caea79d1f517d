"""A service without a neural network, photos, and forms as browsers send them.

For tests of the server's pages and API.
"""

import io

import numpy as np
from PIL import Image

from datasets.photo_files import photos
from serving.model.predictions import NOTHING_MORE, HeatMap, Prediction
from serving.web import app as serving_app

LABELS = ('daisy', 'tulip', 'rose')
SCORES = (0.2, 0.7, 0.1)

BOUNDARY = b'----WebKitFormBoundaryAbc123'


class FakeService:
  """Service with fixed scores, which records the photos that it gets.

  Attributes:
    seen: list of the photos, as bytes.
    error: exception that predict_each raises, or returns for each photo if it
      is a PhotoError.
    known: value of `known` in each prediction.
    ready: result of is_ready.
    examples: {class: example_photos.Example}.
    nearest: list of Neighbours, which each photo has.
    can_explain: whether there are heat maps, which have their maximum at the
      top left.
  """

  def __init__(self, labels=LABELS, scores=SCORES):
    self.labels = list(labels)
    self.scores = np.array(scores, np.float32)
    self.seen = []
    self.error = None
    self.known = None
    self.ready = True
    self.examples = {}
    self.nearest = []
    self.can_explain = True

  @property
  def has_nearest(self):
    return bool(self.nearest)

  def predict_each(self, data, deadline=None, details=NOTHING_MORE):
    if isinstance(self.error, photos.PhotoError):
      return [self.error] * len(data)
    if self.error:
      raise self.error
    self.seen.extend(data)
    similarity = None if self.known is None else 0.5
    heat_map = None
    if details.explain is not None and self.can_explain:
      heat_map = HeatMap(
          details.explain or self.labels[self.scores.argmax()],
          np.array([[1, 0.25], [0, 0]], np.float32), (0.125, 0.125, 0.75, 0.75))
    return [Prediction(self.scores, self.known, similarity,
                       self.nearest[:details.nearest], None, '0' * 64,
                       heat_map)] * len(data)

  def is_ready(self):
    return self.ready

  def model_info(self):
    return {'name': 'inception_v4', 'classes': self.labels, 'image_size': 299,
            'file': '/home/somebody/graphs/a.pb', 'bytes': 171000000,
            'sha256': '0' * 64, 'checkpoint': '/home/somebody/model.ckpt-7',
            'known': True, 'loaded_at': '2026-11-23T14:00:00Z',
            'runtime': 'OpenVINO 2026.4.0', 'precision': 'bfloat16',
            'evaluation': {'accuracy': np.float32(0.5), 'loss': float('nan'),
                           'file': '/home/somebody/best.json'}}

  def counts(self):
    return {'queue_length': 3, 'queue_limit': 64, 'batches': 5, 'photos': 11,
            'refused': 2, 'swaps': 1, 'failed_swaps': 0}


def short_id(value):
  """Returns a short test id for long bytes, else None for pytest's id."""
  if isinstance(value, bytes) and len(value) > 20:
    return '%r of %d bytes' % (value[:12], len(value))
  return None


def make_client(service, **config):
  """Returns a test client of the application."""
  return serving_app.create_app(service, config).test_client()


def photo(kind='JPEG', size=(8, 6), color=(200, 30, 90), **options):
  """Returns the bytes of a photo of one colour."""
  stream = io.BytesIO()
  Image.new('RGB', size, color).save(stream, kind, **options)
  return stream.getvalue()


def part(content, name=b'file', filename=b'a.jpg', boundary=BOUNDARY):
  """Returns the bytes of one part of a form; a field if filename is None."""
  disposition = b'form-data; name="%s"' % name
  if filename is not None:
    disposition += b'; filename="%s"' % filename
  return (b'--%s\r\nContent-Disposition: %s\r\nContent-Type: image/jpeg'
          b'\r\n\r\n%s\r\n' % (boundary, disposition, content))


def form(*contents):
  """Returns the bytes of a form with these files."""
  return b''.join(map(part, contents)) + b'--' + BOUNDARY + b'--\r\n'


def form_type(boundary=BOUNDARY):
  """Returns the Content-Type of a form."""
  return 'multipart/form-data; boundary=' + boundary.decode('latin-1')


def post_form(client, path, *contents, **options):
  """Posts files in a form; returns the response."""
  return client.post(path, data=form(*contents), content_type=form_type(),
                     **options)
