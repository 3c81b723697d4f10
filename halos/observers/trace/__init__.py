"""The trace: a run's timeline as https://ui.perfetto.dev draws it."""
