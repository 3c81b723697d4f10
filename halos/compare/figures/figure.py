"""A figure: what is drawn on which axes, and what is said of it. How it is drawn is the drawing's matter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

from halos.compare.figures.style import Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    title: str
    draw: Callable[[Axes], None]
    size: tuple[float, float] = (4.6, 3.3)  # inches


@dataclass(frozen=True)
class Figure:
    """Panels that belong together, and what is to be said of them."""

    name: str  # of its file
    title: str
    caption: str  # what exactly is drawn
    panels: tuple[Panel, ...]
    styles: tuple[Style, ...]  # its legend
    marks: bool = False  # which then shows marks, and not lines


def figure(
    name: str,
    title: str,
    caption: str,
    panels: Sequence[Panel],
    looks: Sequence[Style],
    drawn: Iterable[object],
    marks: bool = False,
) -> Optional[Figure]:
    """Return the figure of some panels, its legend of those looks of which something is `drawn`; None without any."""
    used = tuple(look for look, each in zip(looks, drawn) if each)
    return Figure(name, title, caption, tuple(panels), used, marks) if panels else None
