"""Groups of runs made up for tests of figures and pages: losses, updates, transfers and drifts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

from halos.compare.bands import curves
from halos.compare.curve import Curve
from halos.compare.groups import Group
from halos.reading.run import read
from tests.compare.made_runs import Points, write_run

FALLING: Points = [(0.0, 0, 5.0), (4.0, 4, 4.0), (8.0, 8, 3.0)]


def group(folder: Path, label: str, *losses: Points, drift: float = 1.0, **changes: Any) -> Group:
    """Seeds 1, 2, … with these losses; each has two updates of ‖Δ‖ 2, merged at 4 and 8 s with this drift."""
    updates = [update(1, 2.0, time=3.0), update(2, 2.0, time=7.0, start_time=4.0, worker=1)]
    commits = [commit(4.0, drift, {1: drift}), commit(8.0, drift, {2: drift})]
    filled = {"updates": updates, "commits": commits, "transfers": [(3.5, 1000), (7.5, 1000)], **changes}
    runs = {}
    for seed, points in enumerate(losses, 1):
        place = folder / f"{len(list(folder.iterdir()))}"
        runs[seed] = read(write_run(place, points, seed=seed, **filled))
    return Group(label, {}, runs)


def two(folder: Path) -> tuple[Group, Group]:
    """Two groups of two seeds; the second is always 0.5 below the first."""
    return (
        group(folder, "first", FALLING, lowered(0.25)),
        group(folder, "second & <last>", lowered(0.5), lowered(0.75), drift=4.0),
    )


def lowered(by: float, points: Optional[Points] = None) -> Points:
    return [(time, steps, None if loss is None else loss - by) for time, steps, loss in points or FALLING]


def losses(*groups: Group) -> list[dict[int, Curve]]:
    """Their curves, group by group."""
    return [curves(each) for each in groups]


def update(id: int, norm: float | None, **changes: Any) -> dict[str, Any]:
    return {"id": id, "time": 1.0, "worker": 0, "start_time": 0.0, "delta_norm": norm, "server": None, **changes}


def commit(time: float, hop: float | None, drift: dict[int, float | None], server: str = "global") -> dict[str, Any]:
    """One contribution of the updates in `drift`."""
    ways = [{"staleness": 0, "seconds": 1.0, "drift": each} for each in drift.values()]
    share = {
        "updates": list(drift),
        "workers": [0] * len(drift),
        "factors": [1.0] * len(drift),
        "steps": 1,
        "from_version": 0,
        "hop_staleness": 0,
        "hop_drift": hop,
        "end_to_end": ways if server == "global" else [],
    }
    head = {"time": time, "version": 1, "server": server, "kind": "update", "local_steps": 1}
    return {**head, "norm": 1.0, "step_norm": 1.0, "contributions": [share]}
