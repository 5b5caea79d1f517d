"""A frozen graph that tells colours: every answer is known without training.

It is read and served as any other. Red is a daisy, green a tulip, blue a rose;
grey is none of them.
"""

from compat import tf
from serving import graph_info, inference_graph

LABELS = ('daisy', 'tulip', 'rose')


def write(folder, has_shape=False):
  """Writes colors.pb into a folder (pathlib.Path); returns its path.

  Args:
    folder: pathlib.Path.
    has_shape: whether the graph says how many classes there are.
  """
  with tf.Graph().as_default():
    encoded = tf.placeholder(tf.string, name='input')
    colors = tf.map_fn(_mean_color, tf.reshape(encoded, [-1]), dtype=tf.float32,
                       back_prop=False)
    if has_shape:
      colors = tf.reshape(colors, [-1, len(LABELS)])
    shares = tf.divide(colors, tf.reduce_sum(colors, 1, keepdims=True),
                       name='Predictions')
    spread = tf.subtract(tf.reduce_max(colors, 1), tf.reduce_min(colors, 1),
                         name='KnownScore')
    known = tf.greater(spread, 20.0, name='Known')
    info = graph_info.GraphInfo(
        format=graph_info.FORMAT, model_name='colors', labels=list(LABELS),
        labels_offset=0, image_size=16, channels=3,
        preprocessing_name='inception', input=encoded.name,
        input_kind='encoded', logits=tf.log(shares, name='Logits').name,
        predictions=shares.name, features=colors.name,
        checkpoint='model.ckpt-7', known=known.name, known_score=spread.name,
        similarity=tf.divide(spread, 255.0, name='Similarity').name,
        threshold=20.0, threshold_photos=1)
    graph_def = inference_graph.to_graph_def(info)
  path = folder / 'colors.pb'
  path.write_bytes(graph_def.SerializeToString())
  return path


def _mean_color(encoded):
  """Returns the means of red, green and blue of a photo, and 1, [3] float32."""
  image = tf.cast(tf.image.decode_jpeg(encoded, channels=3), tf.float32)
  return tf.reduce_mean(image, [0, 1]) + 1.0
