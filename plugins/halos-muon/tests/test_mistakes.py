"""What is said to a mistake in this package's sections: mistakes.md, row by row."""

from halos.testing.mistakes import MistakeTable


class TestMistakes(MistakeTable):
    plugins = ("halos_muon",)
