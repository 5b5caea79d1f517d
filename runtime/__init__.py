"""Forward passes of frozen graphs, by OpenVINO or by TensorFlow.

  forward = forward_pass.load(graph_def, [images], [features], options)
  features, = forward(photos)

Nothing outside of this package depends on which of the two computes.
"""
