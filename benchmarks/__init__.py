"""Measurements, run by hand: `python -m benchmarks.NAME`; what they gave is in README.md beside this."""
