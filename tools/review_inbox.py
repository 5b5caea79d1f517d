"""Shows the photos in the server's inbox, and carries out what is decided.

  python -m tools.review_inbox --inbox=inbox --dataset_dir=data \
    --dataset_name=my_flower_5

Prints how many photos came for each class, writes a page of them, review.html,
and asks in a terminal about each photo. An accepted photo is moved into the
folder of photos, a rejected one into INBOX/rejected/, and one that is of none
of the classes into INBOX/unknown/, which is not trained on.

  python -m tools.review_inbox ... --apply=choices.csv

carries out the choices of the page instead.
"""

import collections
import contextlib
import os
import shlex
import sys
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from absl import flags

from common import files, locks
from common import flags as common_flags
from common.errors import InputError, unknown_name
from datasets import manifest as manifests
from datasets.conversion import label_choices
from datasets.photo_files import class_names, photo_folder, sorted_folder
from evaluation import html_report, labels_page, wrong_photos
from serving.web import inbox

FLAGS = flags.FLAGS

# Folders in the inbox.
REJECTED, UNKNOWN = 'rejected', 'unknown'

NONE = 'none of the classes'

_QUESTION = ('sent as %s, the answer was %s: %s\n'
             'accept? [y]es, [n]o, [l]ater, [q]uit: ')


def define_flags() -> None:
  """Defines the flags."""
  flags.DEFINE_string('inbox', None, "The server's --inbox. Required.")
  flags.DEFINE_string(
      'dataset_dir', None, 'Folder of the data set. Required.')
  flags.DEFINE_string('dataset_name', None, 'Name of the data set. Required.')
  flags.DEFINE_string(
      'photos_dir', None,
      'Folder of photos that accepted ones join. None: that of the last '
      'conversion.')
  flags.DEFINE_string(
      'apply', None,
      'File of choices, as the page saves it: they are carried out, and '
      'nothing is asked.')


class Target(NamedTuple):
  """The folder of photos."""

  path: str
  classes: List[str]
  # {class: its folder in `path`}.
  folders: Dict[str, str]
  # Where the folder of a new class goes: '', or that of the training split.
  parent: str

  def folder_of(self, label: str) -> str:
    """Returns the path of the folder of a class."""
    return os.path.join(self.path, self.folders.get(label, os.path.join(
        self.parent, label)))


def target_from_flags() -> Target:
  """Returns the Target.

  Raises:
    InputError: there is no such folder of photos.
  """
  manifest = manifests.load(FLAGS.dataset_dir, FLAGS.dataset_name)
  path = FLAGS.photos_dir or manifests.photos_folder(
      FLAGS.dataset_dir, FLAGS.dataset_name, manifest)
  listing = photo_folder.list_photos(
      path, manifest.photos_layout if manifest else 'auto')
  parent = listing.splits.get('train', '')
  folders = {entry.class_name: os.path.dirname(entry.file)
             for entry in listing.files if entry.split in (None, 'train')}
  return Target(path, listing.classes, folders, parent)


class Review:
  """The photos of an inbox, which decisions move out of it.

  Attributes:
    counts: {what was done: number of photos}.
  """

  def __init__(self, folder: str, target: Target):
    """Reads the inbox.

    Raises:
      InputError: it cannot be read.
    """
    self.folder = folder
    self.target = target
    self.waiting = inbox.read(folder)
    self.counts: Dict[str, int] = collections.Counter()

  def class_of(self, correction: inbox.Correction,
               label: Optional[str] = None) -> str:
    """Returns the class that a photo would join, '' for none of the classes.

    Args:
      correction: of the inbox.
      label: class instead of that which was sent.

    Raises:
      InputError: it is neither a class nor a name that was sent for one.
    """
    sent = correction.right_class or ''
    if label is None or label == sent:
      return sent and class_names.check(sent, self.target.classes)
    known = sorted({*self.target.classes, *(
        other.right_class for other in self.waiting if other.right_class)})
    if label not in known:
      raise unknown_name('class', label, known)
    return class_names.check(label, self.target.classes)

  def accept(self, correction: inbox.Correction, label: str) -> None:
    """Moves a photo into the folder of a class, of unknown photos if ''."""
    if label:
      label = class_names.check(label, self.target.classes)
      if label not in self.target.classes:
        self.target.classes.append(label)
      self._move(correction, self.target.folder_of(label))
      self.counts[label] += 1
    else:
      self._move(correction, os.path.join(self.folder, UNKNOWN))
      self.counts[NONE] += 1

  def reject(self, correction: inbox.Correction) -> None:
    """Moves a photo into the folder of rejected ones."""
    self._move(correction, os.path.join(self.folder, REJECTED))
    self.counts[REJECTED] += 1

  def _move(self, correction, folder):
    source = os.path.join(self.folder, correction.photo)
    target = os.path.join(folder, correction.photo)
    try:
      if os.path.islink(folder):
        raise InputError('%s is a symbolic link: photos are not put into other '
                         'folders' % folder)
      os.makedirs(folder, exist_ok=True)
      if not _is_copy(source, target):  # A killed process may have made it.
        # Hidden, so that a conversion omits it.
        sorted_folder.place(source, target, sorted_folder.COPY,
                            os.path.join(folder, '.review_inbox.part'))
      os.remove(source)
      os.remove(inbox.facts_path(source))
    except OSError as error:
      raise InputError('cannot move %s to %s: %s' % (source, folder,
                                                     error.strerror))
    self.waiting.remove(correction)


def _is_copy(source, target):
  try:
    with open(source, 'rb') as one, open(target, 'rb') as other:
      return one.read() == other.read()
  except FileNotFoundError:
    return False


def describe(review: Review) -> str:
  """Returns how many photos wait, by class."""
  counts = collections.Counter(
      correction.right_class or '' for correction in review.waiting)
  lines = ['%s: %d photos' % (review.folder, len(review.waiting))]
  for label, count in sorted(counts.items()):
    note = '' if not label or label in review.target.classes else ' (new class)'
    lines.append('  %s%s: %d' % (label or NONE, note, count))
  return '\n'.join(lines)


def write_page(review: Review) -> None:
  """Writes review.html and review.csv into the inbox."""
  csv_path = os.path.join(review.folder, 'review.csv')
  names = sorted({*review.target.classes, *(
      one.right_class for one in review.waiting if one.right_class)})
  groups: Dict[str, List[Dict[str, Any]]] = {}
  for number, one in enumerate(review.waiting):
    data = files.read_if_exists(os.path.join(review.folder, one.photo))
    groups.setdefault(one.right_class or NONE, []).append(dict(
        file=one.photo, label=one.right_class or '', number=number,
        answer=one.answer or NONE, time=one.time,
        uri=wrong_photos.data_uri(data, 148)))
  page = html_report.environment().get_template('inbox.html').render(
      title=os.path.abspath(review.folder), photos=review.waiting, names=names,
      csv_name=os.path.basename(csv_path), groups=sorted(groups.items()),
      **labels_page.script_values())
  files.write_output(os.path.join(review.folder, 'review.html'),
                     page.encode('utf-8', 'backslashreplace'))
  label_choices.keep_decided(csv_path)
  files.write_output(csv_path, label_choices.to_csv(
      (one.photo, one.right_class or '', '', '', '')
      for one in review.waiting).encode('utf-8', 'backslashreplace'))


def apply_choices(review: Review, path: str) -> None:
  """Carries out a file of choices.

  Raises:
    InputError: a row is wrong; nothing has been moved then.
  """
  waiting = {one.photo: one for one in review.waiting}
  chosen: List[Tuple[inbox.Correction, Optional[str]]] = []
  for line, row in label_choices.read_rows(path, files.read(
      path, 'file of choices')):
    try:
      if row['action'] not in label_choices.ACTIONS:
        raise unknown_name('action', row['action'], label_choices.ACTIONS[:-1])
      one = waiting.get(row['file'])
      if one is None or not row['action']:  # It was reviewed before.
        continue
      chosen.append((one, None if row['action'] == label_choices.DROP else
                     review.class_of(one, row['new_label'] if row['action'] ==
                                     label_choices.MOVE else None)))
      del waiting[row['file']]
    except InputError as error:
      raise InputError('%s, line %d: %s; nothing was moved' % (path, line,
                                                               error))
  for one, label in chosen:
    if label is None:
      review.reject(one)
    else:
      review.accept(one, label)


def ask(review: Review) -> None:
  """Asks in the terminal about each photo."""
  for one in list(review.waiting):
    answer = ''
    while answer not in ('y', 'n', 'l', 'q'):
      try:
        answer = input(_QUESTION % (
            one.right_class or NONE, one.answer or NONE,
            os.path.join(review.folder, one.photo))).strip().lower()[:1]
      except EOFError:
        answer = 'q'
    if answer == 'q':
      return
    if answer == 'y':
      review.accept(one, review.class_of(one))
    elif answer == 'n':
      review.reject(one)


def main(_: List[str]) -> None:
  """Shows the inbox, and moves the photos that are decided about."""
  common_flags.require(FLAGS, 'inbox', 'dataset_dir', 'dataset_name')
  review = Review(FLAGS.inbox, target_from_flags())
  with contextlib.ExitStack() as held:
    try:
      held.enter_context(locks.locked_folder(FLAGS.inbox))
    except BlockingIOError:
      raise InputError('another process reviews %s' % FLAGS.inbox)
    if FLAGS.apply:
      apply_choices(review, FLAGS.apply)
    else:
      print(describe(review))
      if review.waiting:
        write_page(review)
        print('Wrote %s; --apply=choices.csv carries out its choices' %
              os.path.join(FLAGS.inbox, 'review.html'))
        if sys.stdin.isatty():
          ask(review)
  if review.counts:
    print('\n'.join('%s: %d' % item for item in sorted(review.counts.items())))
    print('%d photos are still in the inbox' % len(review.waiting))
  if set(review.counts) - {NONE, REJECTED}:
    run = os.environ.get('RUN')
    print('Next: ' + ' && '.join(
        (run and 'RUN=%s ' % shlex.quote(run) or '') + './%s.sh' % name
        for name in ('convert_tfrecord', 'run_train', 'export_freeze')))


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
