"""Benchmarks: what this project does, measured beside its peers in one interleaved run."""
