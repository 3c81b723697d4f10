"""Which figures a comparison has, and what of them is left out because it is not known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from halos.compare.bands import curves
from halos.compare.figures import drift, losses
from halos.compare.figures.differences import differences
from halos.compare.figures.drawing import needed, png
from halos.compare.figures.figure import Figure
from halos.compare.figures.style import styles
from halos.compare.figures.timelines import timelines
from halos.compare.groups import Group
from halos.errors import UserError


@dataclass(frozen=True)
class Figures:
    """All there are, in order; and a sentence about each kind that there is none of."""

    drawn: tuple[Figure, ...]
    left_out: tuple[str, ...]


def figures(groups: Sequence[Group], against: Mapping[str, str], target: Optional[float]) -> Figures:
    """Return the figures of groups of runs; `against` has the label of a group's baseline by its own, if it has one.

    Raises UserError without matplotlib.
    """
    needed()
    labels = [group.label for group in groups]
    looks, drifts = styles(groups), drift.found(groups)
    by_label = {group.label: curves(group) for group in groups}
    found, name = list(by_label.values()), baseline_of(groups, against)
    bases = [by_label.get(against.get(label, ""), {}) for label in labels]
    drawn = [
        (losses.loss(found, looks, target), "Loss: no run has a validation loss, as no timing run has."),
        (drift.over(drifts, looks), "Drift: no run has recorded it together with the sizes of its updates."),
        (
            drift.against_loss(drifts, found, looks, bases if name else None, name),
            "Drift against loss: no run has both, and a baseline of its seed.",
        ),
        (
            losses.pareto(found, looks),
            "Loss against cost: no run ended with a validation loss no higher than what runs began with.",
        ),
    ]
    if name:
        drawn[1:1] = [
            (differences(found, looks, bases, name), "Differences: no group has a loss and a baseline of its seed."),
            (losses.loss_above(found, looks, bases, name), "Loss above the baseline's: it has no final loss."),
        ]
    lines = timelines(groups)
    left_out = [why for figure, why in drawn if figure is None]
    left_out += [] if lines else ["Timelines: no run has recorded an update."]
    return Figures((*(figure for figure, _ in drawn if figure is not None), *lines), tuple(left_out))


def baseline_of(groups: Sequence[Group], against: Mapping[str, str]) -> str:
    """Return what to call the baseline: its label, if all have the same; empty if nothing is held against any."""
    others = [against[group.label] for group in groups if against.get(group.label, group.label) != group.label]
    return (others[0] if len(set(others)) == 1 else "each group's baseline") if others else ""


def save(folder: Path, groups: Sequence[Group], against: Mapping[str, str], target: Optional[float]) -> list[Path]:
    """Write each figure into `folder` as NAME.png, over what is there, and return their paths. Raises UserError."""
    found = figures(groups, against, target)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}") from None
    paths = [folder / f"{figure.name}.png" for figure in found.drawn]
    for figure, path in zip(found.drawn, paths):
        png(figure, path)
    return paths
