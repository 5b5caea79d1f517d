"""Files of a training run: run.json, checkpoints, feature cache."""
