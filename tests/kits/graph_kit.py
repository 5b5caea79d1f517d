"""A frozen graph that classifies colours, with known scores, without training.

It is loaded and served like any other graph. Red is a daisy, green a tulip,
blue a rose; grey is none of them.
"""

from compat import tf
from serving.model import graph_info, inference_graph

LABELS = ('daisy', 'tulip', 'rose')
SIZE = 16


def write(folder, has_shape=False):
  """Writes colors.pb into a folder (pathlib.Path); returns its path.

  Args:
    folder: pathlib.Path.
    has_shape: whether the output shape contains the number of classes.
  """
  with tf.Graph().as_default():
    encoded = tf.placeholder(tf.string, name='input')
    images = inference_graph.photos_to_images(encoded, 'inception', SIZE, 3)
    # Means of red, green and blue of each photo, plus 1.
    colors = tf.reduce_mean((images + 1.0) * 127.5, [1, 2]) + 1.0
    if has_shape:
      colors = tf.reshape(colors, [-1, len(LABELS)])
    predictions = tf.divide(colors, tf.reduce_sum(colors, 1, keepdims=True),
                            name='Predictions')
    spread = tf.subtract(tf.reduce_max(colors, 1), tf.reduce_min(colors, 1),
                         name='KnownScore')
    known = tf.greater(spread, 20.0, name='Known')
    info = graph_info.GraphInfo(
        format=graph_info.FORMAT, model_name='colors', labels=list(LABELS),
        labels_offset=0, image_size=SIZE, channels=3,
        preprocessing_name='inception', input=encoded.name,
        input_kind='encoded', logits=tf.log(predictions, name='Logits').name,
        predictions=predictions.name, features=colors.name,
        checkpoint='model.ckpt-7', known=known.name, known_score=spread.name,
        similarity=tf.divide(spread, 255.0, name='Similarity').name,
        threshold=20.0, threshold_photos=1)
    graph_def = inference_graph.to_graph_def(info)
  path = folder / 'colors.pb'
  path.write_bytes(graph_def.SerializeToString())
  return path
