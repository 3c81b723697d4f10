"""Exporting: what a run has trained, as files that other software reads."""
