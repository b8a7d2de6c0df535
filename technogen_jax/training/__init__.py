"""The training loop, the training step and what they need."""
