"""Tracks on disk: finding them, decoding them, and their tempo and beats."""
