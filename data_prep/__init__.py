"""Tracks on disk -> fixed-length records. No JAX in here."""
