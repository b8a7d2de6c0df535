"""The prepared dataset: TFRecord shards, the manifest, and batches of clips."""
