"""A SavedModel of a frozen graph, as TensorFlow Serving loads it.

  graph_def = graph_files.read_frozen('my_inception_v4_freeze.pb', 'graph')
  saved_model.write(graph_def, 'saved_model/my_inception_v4')

The folder contains one folder per version, named by its number. TensorFlow
Serving watches it, serves the highest version and ignores all other names, such
as the temporary name of a version that is being written.

The signature serving_default, with TensorFlow's names and in the same order as
its classification signature:

  image_bytes    [batch] string: photos, JPEG or PNG files. In the JSON of REST,
                 names that end in _bytes take {"b64": ...}.
  classes        [batch, n] string: the labels, in the same order in each row,
                 so that a column is a class
  probabilities  [batch, n] float32: of these classes
  known          [batch] bool: whether the photo is one of them (package ood),
  similarity     [batch] float32: how similar it is to the training photos; both
                 only if the graph has out-of-distribution detection

The graph decodes JPEG and PNG files, also transparent or CMYK ones, to the same
pixels as the classifier (decode_graph.py). Other work of photo_files.photos is
left to the client: turning a photo upright by its EXIF block, other formats,
the smaller scale of photos that would take much memory (photo_memory.py), and a
reason for each photo that cannot be used. Here, a photo that cannot be
decoded fails the whole batch.
"""

import os
import shutil
from typing import Dict, List, Optional, Tuple

from common import files, label_files, locks
from common.errors import InputError
from compat import tf
from serving.model import graph_files, graph_info, inference_graph

INPUT = 'image_bytes'

# In the folder of a version: its GraphInfo, which has its global step.
# TensorFlow leaves assets.extra to users.
_INFO_FILE = os.path.join('assets.extra', 'info.json')


Tensors = Dict[str, tf.Tensor]


def build(graph_def: tf.GraphDef, calibrated: bool = False
          ) -> Tuple[Tensors, Tensors]:
  """Imports a frozen graph into the default graph, fed by encoded photos.

  Args:
    graph_def: frozen GraphDef with classifier/info.
    calibrated: whether to return the probabilities after temperature scaling.

  Returns:
    {name: tensor} of the inputs, and of the outputs, as listed above.

  Raises:
    InputError: the graph has no metadata or no calibrated scores, or does not
      match its labels.
  """
  info = graph_info.require(graph_def)
  if calibrated:
    graph_info.check_calibrated(info)
  batch_size = _fixed_batch(graph_def, info)
  encoded = tf.placeholder(tf.string, [batch_size], name=INPUT)
  images = encoded
  if info.input_kind == 'float':
    images = inference_graph.photos_to_images(
        encoded, info.preprocessing_name, info.image_size, info.channels,
        batch_size)
  # The names of the training photos are private.
  new_info = info._replace(
      input=encoded.name, input_kind='encoded', cosines=None,
      bank_filenames=None, bank_labels=None)
  graph_files.import_into_default(
      _without(graph_def, [info.input, info.bank_filenames, info.bank_labels],
               new_info), {info.input: images})
  graph = tf.get_default_graph()
  scores = graph.get_tensor_by_name(
      info.calibrated_predictions if calibrated else info.predictions)
  if scores.shape.ndims is None:
    raise InputError('the frozen graph does not define the number of its '
                     'classes')
  label_files.check_count(info.labels, scores.shape.as_list()[-1],
                          'the list of labels')
  outputs = {
      'classes': tf.tile(tf.constant([info.labels]), [tf.shape(scores)[0], 1],
                         name='classes'),
      'probabilities': scores}
  if info.known:
    outputs.update(known=graph.get_tensor_by_name(info.known),
                   similarity=graph.get_tensor_by_name(info.similarity))
  return {INPUT: encoded}, outputs


def _fixed_batch(graph_def, info):
  """Returns the only batch size that a graph accepts, None if it takes any."""
  with tf.Graph().as_default() as graph:
    graph_files.import_into_default(graph_def)
    for name in (info.input, info.predictions):
      shape = graph.get_tensor_by_name(name).shape
      if shape.ndims and shape.as_list()[0]:
        return shape.as_list()[0]
  return None


def _without(graph_def, tensors, info):
  """Returns a copy of a graph without some nodes, with new metadata."""
  names = {name.split(':')[0] for name in tensors if name}
  copy = tf.GraphDef()
  copy.CopyFrom(graph_def)
  del copy.node[:]
  copy.node.extend(node for node in graph_def.node if node.name not in names)
  graph_info.attach(copy, info)
  return copy


def write(graph_def: tf.GraphDef, folder: str, version: Optional[int] = None,
          calibrated: bool = False) -> Tuple[str, Tensors, Tensors]:
  """Writes a version under its number; if it fails, nothing is left.

  Args:
    graph_def: frozen GraphDef with classifier/info.
    folder: where the versions are; created if it is missing.
    version: number above 0; None: the highest plus one.
    calibrated: whether to return the probabilities after temperature scaling.

  Returns:
    The path of the version, and the {name: tensor} of inputs and outputs.

  Raises:
    InputError: as for `build`; or the version already exists, another process
      is writing to the folder, or it cannot be written.
  """
  with tf.Graph().as_default():
    inputs, outputs = build(graph_def, calibrated)
    with locks.hold(os.path.join(folder, '.lock'),
                    'another process writes to %s' % folder):
      existing = versions(folder)
      if version in existing:
        raise InputError('--version=%d is in %s already; there are %s' % (
            version, folder, ', '.join(map(str, existing))))
      version = version or max(existing, default=0) + 1
      path = os.path.join(folder, str(version))
      _write_aside(path, inputs, outputs, version_info(graph_def, calibrated))
  return path, inputs, outputs


def version_info(graph_def: tf.GraphDef, calibrated: bool = False
                 ) -> graph_info.GraphInfo:
  """Returns the GraphInfo for a version made of a frozen graph.

  Args:
    graph_def: frozen GraphDef with classifier/info.
    calibrated: whether to return the probabilities after temperature scaling.
  """
  info = graph_info.require(graph_def)._replace(
      cosines=None, bank_filenames=None, bank_labels=None)
  if calibrated:
    return info
  return info._replace(calibrated_predictions=None, temperature=None)


def read_info(folder: str) -> Optional[graph_info.GraphInfo]:
  """Returns the GraphInfo of the last version in a folder; None: no version."""
  existing = versions(folder)
  if not existing:
    return None
  return graph_info.read_file(
      os.path.join(folder, str(existing[-1]), _INFO_FILE))


def versions(folder: str) -> List[int]:
  """Returns the sorted version numbers in a folder, which may be missing."""
  names = os.listdir(folder) if os.path.isdir(folder) else []
  return sorted(int(name) for name in names
                if name.isdigit() and name.isascii())


def _write_aside(path, inputs, outputs, info):
  """Writes the default graph beside `path`, then renames it.

  Remains of a killed process are removed: the folder is locked.
  """
  folder, version = os.path.split(path)
  aside = os.path.join(folder, '.%s.tmp' % version)
  try:
    for name in os.listdir(folder):
      if name.startswith('.') and name.endswith('.tmp'):
        shutil.rmtree(os.path.join(folder, name))
    try:
      _save(aside, inputs, outputs)
      files.write_output(os.path.join(aside, _INFO_FILE),
                         graph_info.to_json(info))
      os.rename(aside, path)
    finally:
      shutil.rmtree(aside, ignore_errors=True)
  except OSError as error:
    raise InputError('cannot write %s: %s' % (path, error.strerror))
  except tf.errors.OpError as error:
    raise InputError('cannot write %s: %s' % (
        path, error.message.split('\n')[0]))


def _save(path, inputs, outputs):
  signature = tf.saved_model.build_signature_def(
      *[{name: tf.saved_model.build_tensor_info(tensor)
         for name, tensor in tensors.items()} for tensors in (inputs, outputs)],
      tf.saved_model.PREDICT_METHOD_NAME)
  builder = tf.saved_model.Builder(path)
  with tf.Session() as session:
    # Without attributes that have default values, so that the other engine and
    # older releases of TensorFlow Serving know all of them.
    builder.add_meta_graph_and_variables(
        session, [tf.saved_model.SERVING],
        {tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY: signature},
        strip_default_attrs=True)
  builder.save()
