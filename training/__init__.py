"""Training: graph, losses, optimizer, warm start, loop and validation."""
