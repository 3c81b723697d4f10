"""Goodput under crashes: the grids are what the page says, and their setting does what can be worked out by hand."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

import halos
from halos.run.cli import main
from halos.sweep.cells import Cells
from halos.sweep.grid import asked

ROOT = Path(__file__).parents[1]
STUDY = ROOT / "benchmarks/goodput"
TO_REPAIR = 1.0 / 6.0  # hours
ALL_REDUCE = 2 * 3 / 4 * 4e9 * 8 / 100e9  # seconds: four workers, a billion parameters in fp32, 100 Gbit/s


def test_the_grids_have_what_the_page_compares(tmp_path: Path) -> None:
    sizes, large = ([*asked([str(STUDY / f"{name}.yaml")], []).cells()] for name in ("grid", "large"))
    assert (len(sizes), len(large)) == (48, 16)
    assert {each.labels["crashes"] for each in sizes + large} == {"never", "1000 h", "100 h", "10 h"}
    half = next(each for each in sizes if {128, "10 h", "decoupled, K = half"} <= {*each.labels.values()})
    (cell,) = Cells(tmp_path).made([half])
    config = cell.config
    assert [len(region.workers) for region in config.cluster.regions] == [32] * 4
    assert (config.policy.quorum, config.faults.between_failures_hours) == (64, 10.0)
    for labels, regions in ((each.labels, each.section["cluster"]["regions"]) for each in sizes + large):
        assert sum(len(region["workers"]) for region in regions) == labels["workers"]


def summary(folder: Path, policy: str, seconds: float, at: float) -> halos.Summary:
    """Four workers under the study's setting, of whom the last crashes once, and is back after ten minutes."""
    faults = f"faults.at=[{{worker: 3, at_seconds: {at}, seconds: {TO_REPAIR * 3600}}}]"
    given = ["cluster.regions=[{workers: [1, 1, 1, 1]}]", faults, f"budget.simulated_hours={seconds / 3600}"]
    assert main([str(STUDY / "common.yaml"), f"policy.name={policy}", *given, f"out={folder}"]) == 0
    found = halos.read(folder).summary
    assert found is not None
    return found


@pytest.mark.parametrize("at", [610.0, 900.0, 1190.0])
def test_diloco_loses_twenty_minutes_to_a_crash(tmp_path: Path, at: float) -> None:
    """Whenever in a round it is: that round and the one in which the worker is back, ten minutes each."""
    seconds = 10 * (600.0 + ALL_REDUCE) + 4.0  # ten rounds, and 4 s of another
    found = summary(tmp_path / "run", "diloco", seconds, at)
    whole = 4 * 10 * 600.0
    assert found["goodput"] * 4 * seconds == pytest.approx(whole - 20 * 60)
    assert found["expected_goodput"] * 4 * seconds == pytest.approx(whole - 20 * 60 + 4 * 4.0)


def test_data_parallel_training_goes_on_only_while_all_are_up(tmp_path: Path) -> None:
    """29 steps until 593.9 s; the 30th is lost at 600 s, and after the repair there are 117 more until 3,596.2 s."""
    found = summary(tmp_path / "run", "data_parallel", 3600.0, 600.0)
    assert [math.floor(each / (20.0 + ALL_REDUCE)) for each in (600.0, 2400.0)] == [29, 117]
    assert found["commits"] == 146
    assert found["goodput"] == pytest.approx(146 * 20.0 / 3600.0)
    under_way = 2400.0 - 117 * (20.0 + ALL_REDUCE)
    assert found["expected_goodput"] == pytest.approx((146 * 20.0 + under_way) / 3600.0)


def measured() -> dict[tuple[int, str, str], float]:
    with (ROOT / "docs/results/goodput.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["measure"] == "expected_goodput" and row["seed"]]
    return {(int(row["workers"]), row["crashes"], row["method"]): float(row["value"]) for row in rows}


@pytest.mark.parametrize("workers", [16, 128, 1024, 10_000])
def test_the_page_has_diloco_lose_as_much_whatever_the_workers(workers: int) -> None:
    """A crash of 20 minutes every 10 h 10 min; all-reduces take 0.64 s of 600 s at most. They are drawn: 15 %."""
    lost = 1.0 - measured()[workers, "10 h", "DiLoCo"] - 0.64 / 600.0
    assert lost == pytest.approx(20 / 610, rel=0.15)
