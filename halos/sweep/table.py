"""A sweep in tables: what its cells came to, and which the timing leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from rich.console import Console
from rich.table import Table
from rich.text import Text

from halos.observers.units import duration, size
from halos.sweep.axes import text_of
from halos.sweep.folder import Place, state, summary
from halos.sweep.grid import said
from halos.sweep.timing import SEED, Group

DUE = {
    "new": "to run",
    "broken off": "to run again: it had no checkpoint",
    "interrupted": "to go on from its checkpoint",
    "finished": "finished, skipped",
    "diverged": "diverged, skipped",
}


def console() -> Console:
    return Console(highlight=False, markup=False, emoji=False)  # labels mean their brackets


def show_due(places: Sequence[Place], measures: Optional[Sequence[str]] = None) -> None:
    """What a sweep would do; with `measures`, only to those cells that are on their front."""
    rows = [[DUE[place.state], str(place.cell.folder)] for place in places]
    _print(("", "cell"), rows)
    over = sum(place.over for place in places)
    cells = f"{len(places):,} cell{'s' * (len(places) != 1)}"
    first = "" if measures is None else f": all are timed, and those on the front of {' and '.join(measures)} run"
    console().print(f"{cells}, {len(places) - over:,} to run{first}", soft_wrap=True)


def show_front(groups: Sequence[Group], measures: Sequence[str]) -> None:
    """Which groups are on the front, and by which others the rest is beaten."""
    rows = [
        [
            each.label or "the only cell",
            *(_said(name, value) for name, value in zip(measures, each.values, strict=True)),
            "trained" if each.beaten_by is None else f"left out, worse than {each.beaten_by}",
        ]
        for each in groups
    ]
    _print(("timed", *(name.replace("_", " ") for name in measures), ""), rows, right=range(1, 1 + len(measures)))


def show(axes: Sequence[str], places: Sequence[Place]) -> None:
    """What the cells came to: nothing in it depends on how often the sweep was broken off, or how long it took."""
    rows = []
    for place in places:
        came, now = summary(place.cell.folder) or {}, state(place.cell.folder)
        loss, seconds, links = (came.get(key) for key in ("final_validation_loss", "simulated_seconds", "bytes"))
        rows.append(
            [
                *(text_of(place.cell.labels[name]) for name in axes),
                "-" if loss is None or not came.get("commits") else f"{loss:.4f}",  # the initial model's says nothing
                duration(seconds),
                "-" if links is None else size(sum(links.values())),
                "" if now == "finished" else "diverged" if now == "diverged" else "not finished",
            ]
        )
    heads = (*axes, "validation loss", "simulated time", "bytes", "")
    _print(heads, rows, right=range(len(axes), len(axes) + 3))


def comparable(places: Sequence[Place]) -> bool:
    """Whether there are losses of cells that differ in more than their seeds."""
    several = {
        said({name: label for name, label in place.cell.labels.items() if name != SEED})
        for place in places
        if (summary(place.cell.folder) or {}).get("final_validation_loss") is not None
    }
    return len(several) > 1


def _print(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for index, head in enumerate(heads):
        table.add_column(Text(head), justify="right" if index in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console().print()
    console().print(table)
    console().print()


def _said(measure: str, value: float) -> str:
    if value != value:
        return "-"
    if measure == "simulated_seconds":
        return duration(value)
    return size(value) if measure == "bytes" else f"{value:,.4g}"
