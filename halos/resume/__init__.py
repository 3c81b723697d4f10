"""Resuming: what a run leaves behind to be gone on with, and how it is gone on with."""
