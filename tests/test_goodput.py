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
from halos.world.cluster import ClusterOptions, RegionOptions, build
from halos.world.faults import Crashes, outages

ROOT = Path(__file__).parents[1]
STUDY = ROOT / "benchmarks/goodput"
TO_REPAIR = 1.0 / 6.0  # hours
MODEL = 4e9 * 8 / 100e9  # seconds: a billion parameters in fp32 over 100 Gbit/s
ALL_REDUCE = 2 * 3 / 4 * MODEL  # of four workers


def test_the_grids_have_what_the_page_compares(tmp_path: Path) -> None:
    sizes, large = ([*asked([str(STUDY / f"{name}.yaml")], []).cells()] for name in ("grid", "large"))
    assert (len(sizes), len(large)) == (48, 16)
    assert {each.labels["crashes"] for each in sizes + large} == {"never", "1000 h", "100 h", "10 h"}
    half = next(each for each in sizes if {"128", "10 h", "decoupled, K = half"} <= {*each.labels.values()})
    (cell,) = Cells(tmp_path).made([half])
    config = cell.config
    assert [len(region.workers) for region in config.cluster.regions] == [32] * 4
    assert (config.policy.quorum, config.faults.between_failures_hours) == (64, 10.0)
    for labels, regions in ((each.labels, each.section["cluster"]["regions"]) for each in sizes + large):
        assert sum(len(region["workers"]) for region in regions) == int(labels["workers"])


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
    seconds = 10 * 600.0 + 8 * ALL_REDUCE + 2 * (2 * 2 / 3 * MODEL) + 4.0  # two among three, and 4 s of another round
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


# What was measured


def measured() -> dict[tuple[int, str, str], float]:
    with (ROOT / "docs/results/goodput.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["measure"] == "expected_goodput" and row["seed"]]
    return {(int(row["workers"]), row["crashes"], row["method"]): float(row["value"]) for row in rows}


def test_the_page_has_what_was_measured() -> None:
    page = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    table = page.split("<!-- tables goodput -->")[1].split("<!-- end -->")[0]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
    heads, _, *rows = lines
    said = {}
    for place, *cells in rows[:12]:
        workers, crashes = place.split(", ")
        said.update({(int(workers), crashes, method): cell for method, cell in zip(heads[1:], cells, strict=True)})
    assert said == {key: f"{100 * value:.1f}" for key, value in measured().items()}
    assert len(said) == 48


def drawn(workers: int, hours: float, between: float) -> tuple[int, float]:
    """How many crashes there were in these runs, and the share of the time during which all workers were up."""
    cluster = build(ClusterOptions(regions=[RegionOptions(workers=[1.0] * workers)], step_time_ms=20_000.0))
    crashes = Crashes(between_failures_hours=between, to_repair_hours=TO_REPAIR)
    crashes.connect(cluster, 0)
    down = sorted((each.start, each.end) for each in outages(crashes, cluster.workers, hours * 3600.0))
    up = until = 0.0
    for start, end in [*down, (hours * 3600.0, math.inf)]:
        up += max(0.0, start - until)
        until = max(until, end)
    return len(down), up / (hours * 3600.0)


@pytest.mark.parametrize(("workers", "hours"), [(16, 300.0), (128, 40.0), (1024, 6.0)])
def test_what_was_measured_is_what_can_be_worked_out(workers: int, hours: float) -> None:
    """DiLoCo: 20 minutes a crash. Data-parallel: while all are up, but for at most a step for each crash."""
    found, all_reduce = measured(), 2 * (workers - 1) / workers * MODEL
    for between in (100.0, 10.0):
        crashes, up = drawn(workers, hours, between)
        lost = 1.0 - found[workers, f"{between:g} h", "DiLoCo"] - all_reduce / (600.0 + all_reduce)
        assert lost == pytest.approx(crashes / 3 / (workers * hours), rel=0.1)
        step = 20.0 + all_reduce
        most = 20.0 / step * up
        least = 20.0 / step * (up - crashes * step / (hours * 3600.0))
        assert least <= found[workers, f"{between:g} h", "data-parallel"] <= most


def test_how_often_all_are_up_in_the_long_run_and_how_often_the_page_says_so() -> None:
    up = [100 * (b / (b + TO_REPAIR)) ** m for m, b in ((16, 100), (128, 100), (1024, 100), (16, 10), (128, 10))]
    assert [f"{each:.1f}" for each in up] == ["97.4", "80.8", "18.2", "76.8", "12.1"]
    assert f"{100 * (1000 / (1000 + TO_REPAIR)) ** 10_000 * 20 / 20.64:.0f}" == "18"
