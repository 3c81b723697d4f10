"""Figures of timelines: of one run of each group, over the same time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from halos.compare.figures.figure import Figure, Panel
from halos.compare.figures.style import Style
from halos.compare.groups import Group
from halos.compare.scale import Scale
from halos.compare.timelines import COMPUTE, DOWN, TRANSFER, Row, Timeline, blocks, timeline, window

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STATES = {COMPUTE: "#2f7ed8", TRANSFER: "#e9a23b", DOWN: "#d1435b"}
LEGEND = tuple(Style(label, colour, "solid", "s") for label, colour in STATES.items())
HEIGHT = 0.82  # of a row


def timelines(groups: Sequence[Group]) -> list[Figure]:
    """Return a figure for each group whose runs have recorded updates: of the run with the lowest seed that has."""
    chosen = []
    for number, group in enumerate(groups, 1):
        for seed, run in group.runs.items():
            if (ends := window(run)) is not None:
                chosen.append((number, group, seed, ends))
                break
    until = max((ends for *_, ends in chosen), default=0.0)
    return [
        _figure(f"timeline-{number}", group, seed, timeline(group.runs[seed], until))
        for number, group, seed, _ in chosen
        if until > 0
    ]


def _figure(name: str, group: Group, seed: int, drawn: Timeline) -> Figure:
    scale = Scale.of([drawn.until], "seconds")
    size, unit = scale.size, scale.unit
    rows = len(drawn.workers) + len(drawn.links)
    draw = partial(_draw, drawn=drawn, size=size, unit=unit)
    caption = (
        f"{group.label}, seed {seed}: the first {drawn.until / size:.3g} {unit} of simulated time, as for all groups."
        f" Above, a row for each {drawn.of}; below, for each link. Where a row is coloured in part, so much of the"
        " time, or of the workers, was spent on it. A worker transfers while its pull or push is under way, or a"
        " collective that its computing does not hide. Blank: idle, or a job of which no update came."
    )
    if drawn.end < drawn.until:
        caption += " Grey: after the end of the run, or of what it has recorded."
    if drawn.hidden:
        caption += f" {drawn.hidden:,} more links carried less and are not drawn."
    if not drawn.faults:
        caption += " Outages are not drawn: the run's configuration cannot be loaded here."
    styles = (
        LEGEND
        if any(DOWN in row.shares and row.shares[DOWN].any() for row in (*drawn.workers, *drawn.links))
        else LEGEND[:2]
    )
    panel = Panel(f"timeline of {group.label}, seed {seed}", draw, (9.6, 0.9 + 0.17 * rows + 0.2))
    return Figure(name, f"Timeline: {group.label}", caption, (panel,), styles)


def _draw(axes: Axes, drawn: Timeline, size: float, unit: str) -> None:
    gap = 1 if drawn.links else 0  # between workers and links
    places = [*range(len(drawn.workers)), *(len(drawn.workers) + gap + i for i in range(len(drawn.links)))]
    rows = (*drawn.workers, *drawn.links)
    for what, colour in STATES.items():
        corners = [corner for place, row in zip(places, rows) for corner in _corners(row, what, place, size)]
        if corners:
            axes.add_patch(_patch(corners, colour))
    if drawn.end < drawn.until:
        axes.axvspan(drawn.end / size, drawn.until / size, color="#888888", alpha=0.15, linewidth=0)
    axes.set(xlim=(0, drawn.until / size), ylim=(places[-1] + 1, -0.2), xlabel=f"simulated time ({unit})")
    axes.set_yticks([place + 0.5 for place in places], [row.label for row in rows], fontsize=7.5)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def _corners(row: Row, what: str, place: int, size: float) -> Iterator[tuple[float, float, float, float]]:
    """Yield left, right, lower and upper of the rectangles for one of a row's shares, on top of those before it."""
    if what not in row.shares:
        return
    order = [state for state in STATES if state in row.shares]
    below: Any = sum((row.shares[state] for state in order[: order.index(what)]), np.zeros(len(row.edges) - 1))
    share = row.shares[what]
    for first, end in blocks(share, below):
        low = place + 1 - HEIGHT * min(1.0, float(below[first]))
        yield row.edges[first] / size, row.edges[end] / size, low, low - HEIGHT * float(share[first])


def _patch(corners: Sequence[tuple[float, float, float, float]], colour: str) -> Any:
    """Return rectangles as one patch: a tenth of the text of one each."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    points = [((a, c), (b, c), (b, d), (a, d), (a, c)) for a, b, c, d in corners]
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * len(corners)
    return PathPatch(Path(np.array(points).reshape(-1, 2), codes), facecolor=colour, linewidth=0)
