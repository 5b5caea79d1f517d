"""From batches of photos to checkpoints: optimizer, warm start, loop."""
