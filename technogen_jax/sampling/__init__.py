"""Sound from a trained generator: clips and tracks of any length."""
