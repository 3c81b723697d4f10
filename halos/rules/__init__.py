"""Rules: pure choices that a config names."""
