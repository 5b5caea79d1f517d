"""Content negotiation: the language and the format that a client asks for."""

import flask

from serving.web import texts


def language() -> str:
  """Returns the one of texts.LANGUAGES that the visitor prefers."""
  for tag, quality in flask.request.accept_languages:
    primary = tag.split('-')[0].lower()
    if quality > 0 and primary in texts.LANGUAGES:
      return primary
  return texts.LANGUAGES[0]


def wants_json() -> bool:
  """Whether the client asks for JSON instead of a page."""
  path = flask.request.path
  best = flask.request.accept_mimetypes.best_match(
      ['text/html', 'application/json'])
  return (path == '/api' or path.startswith('/api/') or
          best == 'application/json')
