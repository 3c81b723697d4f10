"""Drift in units of the update, by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from halos.compare.drifts import Drifts, drifts, over_time
from halos.reading.run import read
from tests.compare.made_groups import commit, update
from tests.compare.made_runs import write_run


def test_drift_is_by_the_norm_of_the_same_update(tmp_path: Path) -> None:
    """Update 7 has ‖Δ‖ 2, update 3 has 0.5; another server's commit does not count."""
    updates = [update(7, 2.0), update(3, 0.5), update(4, 1.0)]
    commits = [commit(4.0, 3.0, {3: 1.0, 7: 6.0}), commit(5.0, 9.0, {4: 9.0}, "local-0"), commit(8.0, 0.0, {4: 0.25})]
    run = read(write_run(tmp_path / "run", [], updates=updates, commits=commits))
    ours = drifts(run, "end to end")
    assert (ours.time.tolist(), ours.ratio.tolist()) == ([4.0, 4.0, 8.0], [2.0, 3.0, 0.25])
    assert ours.mean == 1.75
    hop = drifts(run, "hop")
    assert (hop.time.tolist(), hop.ratio.tolist()) == ([4.0, 4.0, 8.0], [6.0, 1.5, 0.0])


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    """An update that is not recorded, one without a norm, one of nothing, a drift that is not known."""
    updates = [update(2, None), update(3, 0.0), update(4, 1.0), update(5, 2.0)]
    commits = [commit(1.0, 1.0, {1: 1.0}), commit(2.0, 1.0, {2: 1.0, 3: 1.0, 4: None}), commit(3.0, None, {5: 1.0})]
    run = read(write_run(tmp_path / "run", [], updates=updates, commits=commits))
    assert drifts(run, "end to end").ratio.tolist() == [0.5]
    assert drifts(run, "hop").ratio.tolist() == [1.0]


@pytest.mark.parametrize("way", ["hop", "end to end"])
def test_nothing_recorded_is_no_drift(tmp_path: Path, way: str) -> None:
    found = drifts(read(write_run(tmp_path / "run", [])), way)
    assert len(found.ratio) == 0 and math.isnan(found.mean)
    without_updates = read(write_run(tmp_path / "other", [], commits=[commit(1.0, 1.0, {1: 1.0})]))
    assert len(drifts(without_updates, way).ratio) == 0


def of(**ratios: float) -> Drifts:
    return Drifts(np.array([float(time[1:]) for time in ratios]), np.array(list(ratios.values())))


def test_over_time_is_the_mean_in_intervals_of_equal_factors() -> None:
    """From 1 to 16 in two: to 4 and from 4 on, in the middle of which are 2 and 8."""
    found = over_time([of(t1=1.0, t2=3.0, t4=10.0, t16=20.0), of(t1=4.0)], intervals=2)
    assert found is not None
    assert found.at.tolist() == pytest.approx([2.0, 8.0])
    assert found.mean.tolist() == [3.0, 15.0]  # (1 + 3) / 2 and 4; (10 + 20) / 2 alone
    assert (found.low.tolist(), found.high.tolist()) == ([2.0, 15.0], [4.0, 15.0])


def test_intervals_in_which_nothing_was_merged_are_left_out() -> None:
    found = over_time([of(t1=1.0, t1000=2.0)], intervals=3)
    assert found is not None and found.mean.tolist() == [1.0, 2.0]
    alone = over_time([of(t5=1.5)])
    assert alone is not None and (alone.at.tolist(), alone.mean.tolist()) == ([5.0], [1.5])
    assert over_time([]) is None and over_time([of(t0=1.0)]) is None
