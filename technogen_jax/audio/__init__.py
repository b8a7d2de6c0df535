"""Waveform files, spectra, loudness and pictures of spectrograms."""
