"""Benchmarks: `python -m experiments.bench --help`."""
