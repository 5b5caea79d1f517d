"""What a checkpoint is worth: each photo counted once, honest metrics."""
