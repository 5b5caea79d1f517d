"""The classifier that answers requests: its graph, batches, replacement."""
