"""What clips are compared by: embeddings and musical features."""
