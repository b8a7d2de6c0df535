"""A run's folder: its config, checkpoints, metrics and encoded dataset."""
