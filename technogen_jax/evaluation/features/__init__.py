"""Features of clips: vectors that sets are compared by, and numbers that a musician understands.

    embedding    the type `Embedding`: a function from clips to vectors, with what identifies it
    log_mel      log-mel spectrograms of clips
    tmr          the embedding `tmr-v1`: timbre, modulation, rhythm
    musicnn      the embeddings of networks that learned people's tags; tf_checkpoint reads their weights
    projection   the projection in which embeddings are compared, fitted to training tracks
    musical/     loudness, low end, tempo, regularity, stereo width and other numbers of one clip

The table of embeddings by name is in `evaluation/embeddings.py`.
"""
