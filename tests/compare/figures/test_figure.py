"""What a figure consists of."""

from __future__ import annotations

from halos.compare.figures.figure import Panel, figure
from halos.compare.figures.style import Style

LOOKS = [Style(name, "#111111", "solid", "o") for name in "abc"]
PANEL = Panel("against time", lambda axes: None)


def test_its_legend_has_those_of_whom_something_is_drawn() -> None:
    made = figure("loss", "Loss", "What it shows.", [PANEL], LOOKS, [{0: 1}, {}, {1: 1}], marks=True)
    assert made is not None and (made.name, made.panels, made.marks) == ("loss", (PANEL,), True)
    assert [style.label for style in made.styles] == ["a", "c"]


def test_without_a_panel_there_is_none() -> None:
    assert figure("loss", "Loss", "What it shows.", [], LOOKS, [{0: 1}, {}, {}]) is None
