"""Benchmarks: they print tables and assert nothing, since machines are shared and noisy."""
