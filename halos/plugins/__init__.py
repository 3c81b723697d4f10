"""Plugins: what can be extended, and who extends it."""
