"""Goodput under crashes: the page says what was measured, and a measurement is what can be worked out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks.goodput import RESULTS, TO_REPAIR, WORKERS, key, measure, policies, table

PAGE = (Path(__file__).parents[1] / "docs/results.md").read_text(encoding="utf-8")


def test_the_page_has_the_recorded_results() -> None:
    found = re.search(r"<!-- table goodput -->\n\n(.*?)\n\n<!-- end -->", PAGE, re.S)
    assert found is not None
    results = json.loads(RESULTS.read_text())
    assert set(results) == {
        key(workers, hours, name)
        for workers in WORKERS
        for hours in (None, 1000.0, 100.0, 10.0)
        for name in policies(16)
    }
    assert found[1] == table(results)


def test_diloco_loses_twenty_minutes_to_a_crash_however_many_workers_there_are() -> None:
    # From crash to repair 10 minutes on average, and on either side half a round of 10 minutes.
    for workers, hours in ((16, 120.0), (128, 16.0)):
        found = measure({"name": "diloco"}, workers, 10.0, hours, seed=1)
        assert 140 < found["crashes"] < 260  # 192 and 205 are expected
        lost = (1.0 - found["goodput"]) * workers * found["hours"] - 0.001 * workers * found["hours"]  # all-reduces
        assert lost / found["crashes"] == pytest.approx(TO_REPAIR + 10 / 60, rel=0.15)


def test_data_parallel_training_goes_on_only_while_all_are_up() -> None:
    found = measure({"name": "data_parallel"}, 16, 10.0, 60.0, seed=1)
    all_up = (10.0 / (10.0 + TO_REPAIR)) ** 16  # 77 %
    assert found["goodput"] == pytest.approx(0.97 * all_up, abs=0.05)


def test_a_quorum_that_is_everybody_merges_what_everybody_sent() -> None:
    found = measure(policies(16)["decoupled, K = M"], 16, None, 1.0, seed=0)
    assert found["policy_report"]["contributions_per_sync"] == 16.0
    assert found["dropped"] == found["crashes"] == 0
