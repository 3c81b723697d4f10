"""Which figures a comparison has, and what of them is left out because it is not known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from halos.compare import drift_figures, loss_figures
from halos.compare.bands import curves
from halos.compare.drawing import Figure, needed, png, styles
from halos.compare.groups import Group
from halos.compare.timeline_figures import timelines
from halos.errors import UserError


@dataclass(frozen=True)
class Figures:
    """All there are, in order; and a sentence about each kind that there is none of."""

    drawn: tuple[Figure, ...]
    left_out: tuple[str, ...]


def figures(groups: Sequence[Group], baseline: Optional[Group], target: Optional[float]) -> Figures:
    """Return the figures of groups of runs. Raises UserError without matplotlib."""
    needed()
    if len(groups) < 2:
        baseline = None  # there is nothing to compare with it
    looks = styles([group.label for group in groups])
    known, losses = drift_figures.found(groups), [curves(group) for group in groups]
    other = None if baseline is None else (baseline.label, curves(baseline))
    above = None if other is None else loss_figures.loss_above(losses, looks, *other)
    drawn = [
        (loss_figures.loss(losses, looks, target), "Loss: no run has a validation loss, as no timing run has."),
        (above, "" if len(groups) < 2 else "Loss above the baseline's: there is no final loss of one that all share."),
        (loss_figures.pareto(losses, looks), "Loss against cost: no run has a validation loss."),
        (drift_figures.over(known, looks), "Drift: no run has recorded it together with the sizes of its updates."),
        (
            drift_figures.against_loss(known, losses, looks, other),
            "Drift against loss: no run has both, and a baseline of its seed.",
        ),
    ]
    lines = timelines(groups)
    left_out = [why for figure, why in drawn if figure is None and why]
    left_out += [] if lines else ["Timelines: no run has recorded an update."]
    return Figures((*(figure for figure, _ in drawn if figure is not None), *lines), tuple(left_out))


def save(folder: Path, groups: Sequence[Group], baseline: Optional[Group], target: Optional[float]) -> list[Path]:
    """Write each figure into `folder` as NAME.png, over what is there, and return their paths. Raises UserError."""
    found = figures(groups, baseline, target)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}") from None
    paths = [folder / f"{figure.name}.png" for figure in found.drawn]
    for figure, path in zip(found.drawn, paths):
        png(figure, path)
    return paths
