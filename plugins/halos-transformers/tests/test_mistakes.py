"""What is said to a mistake in this package's sections: mistakes.md, row by row."""

import transformers  # noqa: F401 - before the table hides installed packages, which it looks for

from halos.testing.mistakes import MistakeTable


class TestMistakes(MistakeTable):
    plugins = ("halos_transformers",)
