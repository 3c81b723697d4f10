"""What a panel has drawn, for tests."""

from __future__ import annotations

from typing import Any

from halos.compare.figures.figure import Figure
from halos.compare.figures.style import styles
from halos.compare.groups import Group

LOOKS = styles([Group("first", {}, {}), Group("second", {}, {})])


def axes(figure: Figure, panel: int) -> Any:
    """The axes of one panel, drawn."""
    from matplotlib.figure import Figure as Drawn

    found = Drawn().subplots()
    figure.panels[panel].draw(found)
    return found


def line(found: Any, number: int) -> tuple[list[float], list[float]]:
    """The places of one of its lines, across and up."""
    drawn = found.get_lines()[number]
    return list(drawn.get_xdata()), list(drawn.get_ydata())
