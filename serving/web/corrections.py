"""Receives corrections of wrong answers: a photo and its right class."""

from typing import Optional

from common.errors import InputError
from datasets.photo_files import class_names
from serving.web import request_photos, uploads
from serving.web.app_state import AppState
from serving.web.refusals import Refused


def receive(state: AppState, needs_token: bool = True) -> None:
  """Puts the photo of the current request into the inbox.

  Its parameters, in the query or the form: `class`, one of the classes, a new
  name, or empty for none of the classes; and, if not empty, `new_class`, which
  replaces it; `answer`, the class that the server had given; `token`, for
  forms, which cannot set a header.

  Args:
    state: of the application.
    needs_token: whether the token may be in the form only, and was not checked.

  Raises:
    Refused: not_found without an inbox; the request, the photo or a class is
      not accepted, or the inbox is full.
  """
  if not state.inbox:
    raise Refused('not_found')
  photos, fields = request_photos.read(state.config)
  if needs_token and not state.has_token(
      'Bearer ' + (request_photos.value_of('token', fields) or '')):
    raise Refused('unauthorized', {'WWW-Authenticate': 'Bearer'})
  if len(photos) > 1:
    raise Refused('too_many_photos', most=1)
  given = (request_photos.value_of('new_class', fields) or
           request_photos.value_of('class', fields))
  if given is None:
    raise Refused('bad_parameter', name='class', accepted='class=…')
  answer = request_photos.value_of('answer', fields)
  right_class = _class_of(state, given)
  answer = _class_of(state, answer or '')
  state.limit_rate(1)
  photo = photos[0]
  try:
    uploads.check(photo.data, state.config['MAX_UPLOAD_MB'] * 2 ** 20,
                  state.config['MAX_PIXELS'],
                  state.config['MAX_PHOTO_MB'] * 10 ** 6)
    state.inbox.add(photo.data, right_class, answer)
  except Refused as refused:
    raise refused.copy().with_file_name(
        None if refused.code == 'inbox_full' else photo.name)


def _class_of(state: AppState, given: str) -> Optional[str]:
  if not given.strip():
    return None
  try:
    return class_names.check(given, state.service.labels)
  except InputError:
    raise Refused('bad_class', most=class_names.MAX_LETTERS)
