"""What workers and links did, worked out by hand from a few records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from halos.compare import timelines
from halos.compare.timelines import COMPUTE, DOWN, TRANSFER, Row, blocks, timeline, window
from halos.reading.run import RunRecords, read
from tests.compare.made_runs import write_run


def update(worker: int, start: float, end: float, server: int | None = None) -> dict[str, Any]:
    return {"id": 0, "time": end, "worker": worker, "start_time": start, "delta_norm": None, "server": server}


def transfer(start: float, end: float, kind: str, worker: int | None = None, **where: int) -> dict[str, Any]:
    ends = {"src": None, "dst": None, **where}
    return {"start_time": start, "time": end, "bytes": 10, "kind": kind, "worker": worker, "server": None, **ends}


def run(folder: Path, updates: list[Any], transfers: list[Any] = (), **changes: Any) -> RunRecords:  # type: ignore[assignment]
    import json

    write_run(folder / "run", [], updates=updates, **changes)
    (folder / "run" / "transfers.jsonl").write_text("".join(json.dumps(each) + "\n" for each in transfers))
    return read(folder / "run")


def spans(row: Row, what: str) -> list[tuple[float, float, float]]:
    """From when to when which share."""
    share = row.shares[what]
    return [(float(row.edges[a]), float(row.edges[b]), float(share[a])) for a, b in blocks(share)]


def test_a_round_is_computing_then_an_all_reduce_that_computing_may_hide(tmp_path: Path) -> None:
    """Worker 0 computes 0–2 and 3–5, worker 1 computes 0–1; the collective takes 2–4."""
    updates = [update(1, 0.0, 1.0), update(0, 0.0, 2.0), update(0, 3.0, 5.0)]
    found = timeline(run(tmp_path, updates, [transfer(2.0, 4.0, "all_reduce")]), 6.0)
    first, second = found.workers
    assert (first.label, second.label) == ("us · 0", "eu · 1")
    assert spans(first, COMPUTE) == [(0, 2, 1), (3, 5, 1)]
    assert spans(first, TRANSFER) == [(2, 3, 1)]
    assert spans(second, COMPUTE) == [(0, 1, 1)]
    assert spans(second, TRANSFER) == [(2, 4, 1)]
    (link,) = found.links
    assert (link.label, spans(link, TRANSFER)) == ("all-reduce", [(2, 4, 1)])


def test_a_round_trip_is_pull_compute_push(tmp_path: Path) -> None:
    trip = [transfer(0.0, 1.0, "pull", 1, src=0, dst=1), transfer(3.0, 5.0, "push", 1, src=1, dst=0)]
    found = timeline(run(tmp_path, [update(1, 0.0, 5.0, server=0)], trip), 10.0)
    assert spans(found.workers[1], COMPUTE) == [(1, 3, 1)]
    assert spans(found.workers[1], TRANSFER) == [(0, 1, 1), (3, 5, 1)]
    assert spans(found.workers[0], COMPUTE) == []
    assert [(link.label, spans(link, TRANSFER)) for link in found.links] == [
        ("us → eu", [(0, 1, 1)]),
        ("eu → us", [(3, 5, 1)]),
    ]


def test_what_reaches_beyond_the_end_is_cut(tmp_path: Path) -> None:
    found = timeline(run(tmp_path, [update(0, 1.0, 5.0), update(0, 5.0, 9.0)]), 4.0)
    assert spans(found.workers[0], COMPUTE) == [(1, 4, 1)]


def test_too_much_for_exact_moments_becomes_shares_of_short_intervals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs of 0.5 s every second, of which four fall into each of two intervals."""
    monkeypatch.setattr(timelines, "INTERVALS", 2)
    found = timeline(run(tmp_path, [update(0, float(i), i + 0.5) for i in range(8)]), 8.0)
    assert found.workers[0].edges.tolist() == [0, 4, 8]
    assert spans(found.workers[0], COMPUTE) == [(0, 8, 0.5)]


def test_of_many_workers_a_row_is_a_region(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of three compute in the first half, one of them in the second."""
    monkeypatch.setattr(timelines, "ROWS", 2)
    monkeypatch.setattr(timelines, "INTERVALS", 2)
    regions = [{"name": "us", "workers": [1.0, 1.0, 1.0]}, {"name": "eu", "workers": [1.0]}]
    updates = [update(0, 0.0, 2.0), update(1, 0.0, 1.0), update(3, 0.0, 2.0)]
    found = timeline(run(tmp_path, updates, config={"cluster": {"regions": regions}}), 2.0)
    assert [row.label for row in found.workers] == ["us, 3 workers", "eu, 1 workers"]
    assert found.workers[0].shares[COMPUTE].tolist() == pytest.approx([2 / 3, 1 / 3], abs=1e-4)
    assert spans(found.workers[1], COMPUTE) == [(0, 2, 1)]


def test_of_many_regions_all_are_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timelines, "ROWS", 1)
    monkeypatch.setattr(timelines, "REGIONS", 1)
    found = timeline(run(tmp_path, [update(0, 0.0, 2.0)]), 2.0)
    assert [(row.label, spans(row, COMPUTE)) for row in found.workers] == [("all regions, 2 workers", [(0, 2, 0.5)])]


def test_links_beyond_the_number_that_is_drawn_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that carried 20 is drawn, the other, of 10, is not."""
    monkeypatch.setattr(timelines, "LINKS", 1)
    moved = [transfer(0.0, 1.0, "send", src=0, dst=1), *[transfer(i, i + 1.0, "send", src=1, dst=0) for i in (0, 3)]]
    found = timeline(run(tmp_path, [update(0, 0.0, 1.0)], moved), 5.0)
    assert ([link.label for link in found.links], found.hidden) == (["eu → us"], 1)


def test_outages_follow_from_the_configuration(tmp_path: Path) -> None:
    """The region `eu` is cut off from 2 to 4 s, its worker and both links of it."""
    faults = {"name": "outages", "at": [{"region": 1, "at_seconds": 2.0, "seconds": 2.0}]}
    section = {
        "cluster": {
            "regions": [{"name": "us", "workers": [1.0]}, {"name": "eu", "workers": [1.0]}],
            "bandwidth_gbps": [[1.0, 1.0], [1.0, 1.0]],
        },
        "faults": faults,
        "model": {"name": "sized", "parameters": 10},
        "steps": {"name": "fixed", "base": 1},
        "budget": {"local_steps": 4},
    }
    moved = [transfer(0.0, 1.0, "send", src=0, dst=1)]
    made = run(tmp_path, [update(1, 0.0, 1.0)], moved, config=section, summary={"simulated_seconds": 3.0})
    found = timeline(made, 8.0)
    assert found.faults and found.end == 3.0
    assert spans(found.workers[1], DOWN) == [(2, 3, 1)]  # the run was over then
    assert spans(found.workers[0], DOWN) == []
    assert spans(found.links[0], DOWN) == [(2, 3, 1)]


def test_outages_of_a_model_that_is_not_installed_are_not_known(tmp_path: Path) -> None:
    found = timeline(run(tmp_path, [update(0, 0.0, 1.0)], config={"faults": {"name": "gremlins"}}), 2.0)
    assert not found.faults


def test_the_window_is_half_of_the_workers_third_update(tmp_path: Path) -> None:
    """Worker 0's third arrives at 6, worker 1's only one at 10: the median is 8."""
    updates = [update(0, 0.0, 2.0), update(0, 2.0, 4.0), update(0, 4.0, 6.0), update(0, 6.0, 8.0), update(1, 0.0, 10.0)]
    assert window(run(tmp_path, updates)) == 8.0
    assert window(read(write_run(tmp_path / "none", []))) is None


def test_a_block_ends_where_any_of_several_shares_changes() -> None:
    share = np.array([0.0, 0.9, 0.4, 0.4, 0.4, 0.0])
    assert blocks(share) == [(1, 2), (2, 5)]
    assert blocks(share, np.array([0.0, 0.0, 0.05, 0.05, 0.1, 0.1])) == [(1, 2), (2, 4), (4, 5)]


def test_a_thousand_workers_are_drawn_in_little(tmp_path: Path) -> None:
    """Ten rounds of a thousand, all alike but for when they begin."""
    regions = [{"name": f"r{i}", "workers": [1.0] * 250} for i in range(4)]
    updates = [update(worker, 10.0 * i, 10.0 * i + 5 + worker / 250) for i in range(10) for worker in range(1000)]
    found = timeline(run(tmp_path, updates, config={"cluster": {"regions": regions}}), 100.0)
    drawn = sum(len(blocks(share)) for row in found.workers for share in row.shares.values())
    assert len(found.workers) == 4 and drawn < 2000
    # A worker computes 5 s and its number / 250 s of every ten: in region 0, 5.5 in the mean.
    row = found.workers[0]
    assert float((row.shares[COMPUTE] * np.diff(row.edges)).sum()) == pytest.approx(10 * (5 + 124.5 / 250), abs=0.01)
