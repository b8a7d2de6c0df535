"""Whether generated clips are copies of training clips."""
