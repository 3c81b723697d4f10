"""Bands: the losses of a group's seeds at the same places, as figures draw them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from halos.compare.curve import HELD, Curve
from halos.compare.groups import Group

if TYPE_CHECKING:
    Array = np.ndarray[Any, np.dtype[np.float64]]

POINTS = 400  # of a line, at most


@dataclass(frozen=True, eq=False)
class Band:
    """Values of several seeds at the same places, each [points]."""

    at: Array
    mean: Array
    low: Array
    high: Array

    def per(self, unit: float) -> Band:
        """Return the same with places in units of so many."""
        return replace(self, at=self.at / unit)


def curves(group: Group) -> dict[int, Curve]:
    """Return the curves of a group's runs by seed, of those that have a loss."""
    found = {seed: Curve.of(run) for seed, run in group.runs.items()}
    return {seed: curve for seed, curve in found.items() if len(curve)}


def above(found: dict[int, Curve], baseline: dict[int, Curve]) -> dict[int, Curve]:
    """Return losses minus the baseline's last one of the same seed; seeds that it lacks are left out."""
    return {
        seed: replace(curve, loss=curve.loss - baseline[seed].loss[-1])
        for seed, curve in found.items()
        if seed in baseline
    }


def common(found: Sequence[Mapping[int, Curve]]) -> float:
    """Return the most tokens that all runs have trained on, as far as they were evaluated; NaN if there are none."""
    return min((curve.reach("tokens") for several in found for curve in several.values()), default=np.nan)


def gaps(found: Mapping[int, Curve], baseline: Mapping[int, Curve], tokens: float) -> dict[int, float]:
    """Return how much higher losses are than the baseline's of the same seed, after so many tokens; where known."""
    differences = {
        seed: curve.at("tokens", tokens) - baseline[seed].at("tokens", tokens)
        for seed, curve in found.items()
        if seed in baseline
    }
    return {seed: value for seed, value in differences.items() if np.isfinite(value)}


def band(found: Sequence[Curve], of: str, logarithmic: bool = False) -> Optional[Band]:
    """Return what all curves come to, by how much of `of` was spent; None where they have nothing in common.

    The places are those of their evaluations, or POINTS spread evenly (in the logarithm, where places above 0 alone
    count) if these are more.
    """
    spent = [curve.spent[of] for curve in found]
    if not spent or any(np.isnan(each).any() for each in spent):
        return None
    start, end = max(each[0] for each in spent), min(each[-1] for each in spent)
    at = np.unique(np.concatenate(spent))
    at = at[(at >= start) & (at <= end) & ((at > 0) | (not logarithmic))]
    if len(at) > POINTS:
        at = (np.geomspace if logarithmic else np.linspace)(at[0], at[-1], POINTS)
        at = np.clip(at, start, end)  # no rounding error beyond them
    if not len(at):
        return None
    values = np.array([[curve.at(of, float(place)) for place in at] for curve in found])  # [curves, points]
    return Band(at, values.mean(0), values.min(0), values.max(0))


def held(of: str) -> bool:
    """Whether the loss stays that of the last evaluation, and does not lie on the straight line to the next one."""
    return of in HELD
