"""Which figures a comparison has, and what of them is left out because it is not known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from halos.compare import drift_figures, loss_figures
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
    looks = styles([group.label for group in groups])
    known = drift_figures.found(groups)
    drawn = {
        "Loss": loss_figures.loss(groups, looks, target),
        "Loss above the baseline's": None if baseline is None else loss_figures.loss_above(groups, looks, baseline),
        "Loss against cost": loss_figures.pareto(groups, looks),
        "Drift over time": drift_figures.over(known, looks),
        "Drift against loss": drift_figures.against_loss(known, groups, looks, baseline),
    }
    lines = timelines(groups)
    why = {
        "Loss": "no run has a validation loss (a timing run has none)",
        "Loss above the baseline's": "there is no baseline with a final loss" if baseline else "no baseline is chosen",
        "Loss against cost": "no run has a validation loss",
        "Drift over time": "no run has recorded drifts and the sizes of its updates",
        "Drift against loss": "no run has both, and the baseline a loss of the same seed",
    }
    left_out = [f"{name} is not drawn: {why[name]}." for name, figure in drawn.items() if figure is None]
    if not lines:
        left_out.append("Timelines are not drawn: no run has recorded an update.")
    return Figures((*(figure for figure in drawn.values() if figure is not None), *lines), tuple(left_out))


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
