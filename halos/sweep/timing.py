"""`--timing-first`: every cell timed without training, and of these the ones that no other beats in two measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from halos.compare.front import dominators
from halos.errors import UserError, did_you_mean, shown
from halos.sweep.axes import Label
from halos.sweep.cells import Cell
from halos.sweep.grid import said

SEED = "seed"  # the axis over which is averaged


def _mean_of_workers(share: str) -> Callable[[Mapping[str, Any]], Optional[float]]:
    def mean(summary: Mapping[str, Any]) -> Optional[float]:
        shares = [float(worker[share]) for worker in summary["workers"]]
        return sum(shares) / len(shares) if shares else None

    return mean


# What a run without training knows, how it is read from its summary, and whether less of it is better.
MEASURES: dict[str, tuple[Callable[[Mapping[str, Any]], Optional[float]], bool]] = {
    "simulated_seconds": (lambda summary: summary["simulated_seconds"], True),
    "bytes": (lambda summary: sum(summary["bytes"].values()), True),
    "dollars": (lambda summary: summary.get("dollars"), True),  # put there by who knows prices
    "tokens": (lambda summary: summary["tokens"], True),  # trained on
    "staleness": (lambda summary: summary["staleness"]["end_to_end"]["mean"], True),
    "goodput": (lambda summary: summary["goodput"], False),
    "compute": (_mean_of_workers("compute"), False),
    "transfer": (_mean_of_workers("transfer"), True),
    "idle": (_mean_of_workers("idle"), True),
}


@dataclass(frozen=True)
class Group:
    """Cells that differ in their seed only, and the means of what was asked for."""

    label: str
    cells: tuple[Cell, ...]
    values: tuple[float, ...]
    beaten_by: Optional[str] = None  # the label of a group that is better; None: it is on the front


def pair(text: str) -> tuple[str, str]:
    """`A,B` as two measures. Raises UserError for one that a run without training does not know."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in MEASURES:
            raise UserError(
                f"--timing-first: {shown(name)} is nothing that timing tells{did_you_mean(name, MEASURES)}; there are:"
                f" {', '.join(MEASURES)}"
            )
    if len(set(names)) != 2:
        raise UserError(f"--timing-first: {shown(text)} is not two measures, A,B")
    return names[0], names[1]


def front(cells: Sequence[Cell], summaries: Mapping[str, Mapping[str, Any]], measures: Sequence[str]) -> list[Group]:
    """The groups of `cells`, each on the front or beaten by another; by digest, `summaries` of the timed ones.

    A group of which a value is not known is beaten by none. One with a cell that could not be timed is left out.
    """
    several: dict[str, list[Cell]] = {}
    for cell in cells:
        several.setdefault(said(_without_seed(cell.labels)), []).append(cell)
    groups = []
    for label, members in several.items():
        timed = [summary for cell in members if (summary := summaries.get(cell.digest)) is not None]
        if len(timed) == len(members):
            values = tuple(_mean([MEASURES[name][0](summary) for summary in timed]) for name in measures)
            groups.append(Group(label, tuple(members), values))
    signs = [1.0 if MEASURES[name][1] else -1.0 for name in measures]
    better = dominators(
        {each.label: [sign * value for sign, value in zip(signs, each.values, strict=True)] for each in groups}
    )
    return [Group(each.label, each.cells, each.values, next(iter(better[each.label]), None)) for each in groups]


def _mean(values: Sequence[Optional[float]]) -> float:
    """NaN if one is not known."""
    return sum(float("nan") if value is None else value for value in values) / len(values)


def _without_seed(labels: Mapping[str, Label]) -> dict[str, Label]:
    return {name: label for name, label in labels.items() if name != SEED}
