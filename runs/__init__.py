"""What one training run wrote: its facts (run.json) and its checkpoints."""
