"""What a run came to, by hand; with a summary and without one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from halos.compare.measures import measured
from halos.compare.prices import Prices
from halos.reading.run import read
from tests.compare.made_runs import write_run


def update(number: int, size: float) -> dict[str, Any]:
    return {"id": number, "time": 1.0, "worker": 0, "steps": 4, "delta_norm": size}


def share(updates: list[int], hop_drift: float, ways: list[tuple[int, float]]) -> dict[str, Any]:
    return {
        "updates": updates,
        "workers": [0] * len(updates),
        "factors": [1.0] * len(updates),
        "steps": 4,
        "from_version": 0,
        "hop_staleness": 1,
        "hop_drift": hop_drift,
        "end_to_end": [{"staleness": stale, "seconds": 1.0, "drift": drift} for stale, drift in ways],
    }


def commit(version: int, server: str, shares: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "time": float(version),
        "version": version,
        "server": server,
        "kind": "update",
        "local_steps": 4 * version,
        "norm": 1.0,
        "step_norm": 1.0,
        "contributions": shares,
    }


UPDATES = [update(7, 2.0), update(3, 0.5), update(5, 4.0)]  # as they arrived
COMMITS = [
    commit(1, "local-0", [share([7], 9.0, [])]),
    commit(1, "global", [share([7, 3], 1.0, [(0, 1.0), (2, 2.0)])]),
    commit(2, "global", [share([5], 3.0, [(4, 6.0)])]),
]


def test_what_a_summary_says_and_drift_in_units_of_the_updates(tmp_path: Path) -> None:
    """By hop 1/2, 1/0.5 and 3/4; end to end 1/2, 2/0.5 and 6/4. What local servers took in does not count."""
    folder = write_run(tmp_path / "run", [(8.0, 40, 2.5)], updates=UPDATES, commits=COMMITS, transfers=[(4.0, 10**9)])
    found = measured(read(folder), Prices(0.02))
    assert found.pop("hop_drift_in_updates") == pytest.approx((0.5 + 2.0 + 0.75) / 3)
    assert found.pop("drift_in_updates") == pytest.approx((0.5 + 4.0 + 1.5) / 3)
    assert found == {
        "final_loss": 2.5,
        "simulated_seconds": 8.0,
        "tokens": 400.0,
        "trained_steps": 40.0,
        "committed_steps": 40.0,
        "in_flight_steps": 0.0,
        "dropped_steps": 0.0,
        "lost_steps": 0.0,
        "commits": 2.0,
        "updates": 4.0,
        "bytes": 1e9,
        "dollars": pytest.approx(0.02),
        "compute_share": 0.625,  # of 0.5 and 0.75
        "transfer_share": 0.25,
        "idle_share": 0.125,
        "down_share": 0.0,
        "goodput": 0.5,
        "expected_goodput": 0.625,
        "hop_staleness": 1.0,
        "hop_staleness_max": 2.0,
        "staleness": 1.5,
        "staleness_max": 3.0,
        "hop_drift": 0.5,
        "hop_drift_max": 1.0,
        "drift": 0.75,
        "drift_max": 1.5,
    }


def test_a_run_still_going_is_as_far_as_its_records_are(tmp_path: Path) -> None:
    points = [(0.0, 0, 5.0), (1.5, 8, 3.0)]
    folder = write_run(
        tmp_path / "run", points, updates=UPDATES, commits=COMMITS, transfers=[(1.0, 30), (2.0, 12)], finished=None
    )
    collective = '{"time": 2.0, "src": null, "dst": null, "bytes": 1000000000, "kind": "all_reduce"}'
    with (folder / "transfers.jsonl").open("a") as file:
        file.write(collective + "\n")
    found = measured(read(folder), Prices(0.02))
    assert found.pop("dollars") == pytest.approx(0.02)  # one worker in each of two regions: all of it crosses
    known = {name: value for name, value in found.items() if not math.isnan(value)}
    assert known == {
        "final_loss": 3.0,
        "simulated_seconds": 2.0,  # of the last commit
        "tokens": 80.0,
        "trained_steps": 12.0,
        "committed_steps": 8.0,
        "commits": 2.0,
        "updates": 3.0,
        "bytes": 1e9 + 42.0,
        "hop_staleness": 1.0,
        "hop_staleness_max": 1.0,
        "staleness": 2.0,  # of 0, 2 and 4
        "staleness_max": 4.0,
        "hop_drift": 2.0,  # of 1 and 3
        "hop_drift_max": 3.0,
        "drift": 3.0,  # of 1, 2 and 6
        "drift_max": 6.0,
        "hop_drift_in_updates": pytest.approx(3.25 / 3),
        "drift_in_updates": pytest.approx(2.0),
    }


def test_what_timing_does_not_know_stays_unknown_and_wall_time_has_to_be_asked_for(tmp_path: Path) -> None:
    nothing = {"mean": None, "max": None}
    summary = {"drift": {"hop": nothing, "end_to_end": nothing}, "goodput": None, "staleness": None}
    summary["expected_goodput"] = None
    timed = [{**update(7, 0.0), "delta_norm": None}]
    hollow = commit(1, "global", [{**share([7], 0.0, [(0, 0.0)]), "hop_drift": None}])
    folder = write_run(tmp_path / "run", [], executor="timing", summary=summary, updates=timed, commits=[hollow])
    found = measured(read(folder), None)
    ways = [name for name in found if "drift" in name or "staleness" in name]
    unknown = {"final_loss", "goodput", "expected_goodput", *ways}
    assert {name for name, value in found.items() if math.isnan(value)} == unknown
    assert "wall_seconds" not in found
    assert measured(read(folder), None, wall=True)["wall_seconds"] == 3.0


def test_an_update_that_nobody_recorded_or_that_was_nothing_is_no_unit(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [], updates=[update(7, 2.0), update(3, 0.0)], commits=COMMITS)
    found = measured(read(folder), None)
    assert (found["hop_drift_in_updates"], found["drift_in_updates"]) == (0.5, 0.5)
