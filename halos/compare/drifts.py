"""Drift in units of the update: how many updates' worth the global model has moved while one was under way.

Parameter drift grows with the number of local steps, and so does ‖Δ‖; what compares methods is their ratio. Only what
the global server merged counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from halos.compare.bands import Band
from halos.values.records import GLOBAL

if TYPE_CHECKING:
    from halos.reading.run import RunRecords

    Array = np.ndarray[Any, np.dtype[np.float64]]

WAYS = ("hop", "end to end")


@dataclass(frozen=True)
class Drifts:
    """One run's, update by update in the order of commits; those that are not known are left out."""

    time: Array  # [updates], simulated seconds, of the commit
    ratio: Array  # [updates], drift / ‖Δ‖

    @property
    def mean(self) -> float:
        """The mean ratio; NaN of nothing."""
        return float(self.ratio.mean()) if len(self.ratio) else np.nan


def drifts(run: RunRecords, way: str) -> Drifts:
    """Return the drifts of one of WAYS of every update that the global server merged, each by its own ‖Δ‖."""
    merged = run.merged.where(run.merged["server"] == GLOBAL)
    norms = _norms(run, merged["update"])
    if way == "hop":
        moved = run.contributions["hop_drift"].astype(np.float64)[merged["contribution"].astype(np.int64)]
    else:
        moved = merged["drift"].astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = moved / norms  # an update of nothing is no unit
    known = np.isfinite(ratio)
    return Drifts(merged["time"][known].astype(np.float64), ratio[known])


def _norms(run: RunRecords, ids: Array) -> Array:
    """Return ‖Δ‖ of updates by id; NaN of those that are not recorded."""
    updates = run.updates
    if not len(updates):
        return np.full(len(ids), np.nan)
    order = np.argsort(updates["id"], kind="stable")
    sorted_ids = updates["id"][order]
    place = np.minimum(np.searchsorted(sorted_ids, ids), len(order) - 1)
    return np.where(sorted_ids[place] == ids, updates["delta_norm"][order][place].astype(np.float64), np.nan)


def over_time(found: Sequence[Drifts], intervals: int = 40) -> Optional[Band]:
    """Return the means in intervals of time, evenly spread in its logarithm, over the runs that merged something then.

    `at` is the geometric middle of each interval; those in which nobody merged anything are left out. None without any.
    """
    times = np.concatenate([each.time[each.time > 0] for each in found] or [np.zeros(0)])
    if not len(times):
        return None
    edges = np.geomspace(times.min(), times.max(), intervals + 1) if times.min() < times.max() else times[[0, 0]]
    means = []
    for each in found:
        inside = each.time > 0
        which = np.clip(np.searchsorted(edges, each.time[inside], side="right") - 1, 0, len(edges) - 2)
        count = np.bincount(which, minlength=len(edges) - 1)
        total = np.bincount(which, each.ratio[inside], minlength=len(edges) - 1)
        means.append(np.where(count > 0, total / np.maximum(count, 1), np.nan))
    values = np.array(means)  # [runs, intervals]
    some = np.isfinite(values).any(0)
    values, middle = values[:, some], np.sqrt(edges[:-1] * edges[1:])[some]
    return Band(middle, np.nanmean(values, 0), np.nanmin(values, 0), np.nanmax(values, 0))
