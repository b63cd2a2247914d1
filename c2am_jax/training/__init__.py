"""State, optimizer, step, loop, checkpoints, metrics."""
