"""The CSV file: every number unrounded, a row per run and measure and one per group and measure."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from halos.compare import tidy
from halos.compare.amounts import amounts
from halos.compare.targets import Target
from halos.errors import UserError
from tests.compare.made_comparison import QUICK, make
from tests.compare.made_runs import Points

Rows = dict[tuple[str, str, str], dict[str, str]]


def written(path: Path) -> Rows:
    """By group, seed and measure."""
    with path.open(newline="") as file:
        return {(row["group"], row["seed"], row["measure"]): row for row in csv.DictReader(file)}


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rows:
    monkeypatch.chdir(tmp_path)
    found = make(tmp_path, [("new", 1, [(0.0, 0, 4.0), (5.0, 400, 2.25)], {}), ("new", 2, QUICK[2], {})])
    tidy.write(tmp_path / "all.csv", found, amounts(found, ["steps=100%"]), [Target.parse("+1")])
    return written(tmp_path / "all.csv")


def test_a_run_has_its_value_and_what_it_differs_by_from_the_baselines_of_its_seed(rows: Rows) -> None:
    row = rows["new", "1", "loss@steps=400"]
    assert (row["method"], row["run"]) == ("new", "new-1-4")
    assert (row["value"], row["minus_baseline"]) == ("2.25", "0.25")
    assert [row[name] for name in ("sd", "count", "minus_sd", "low", "high", "pairs")] == [""] * 6
    assert rows["slow", "1", "loss@steps=400"]["minus_baseline"] == ""


def test_a_group_has_mean_deviation_and_interval(rows: Rows) -> None:
    """Losses 2.25 and 4.7: mean 3.475, deviation 2.45 / √2; differences 0.25 and 0.7: 0.475 ± 12.7062 · 0.225."""
    row = rows["new", "", "loss@steps=400"]
    assert (row["run"], row["count"], row["pairs"]) == ("", "2", "2")
    found = [float(row[name]) for name in ("value", "sd", "minus_baseline", "minus_sd", "low", "high")]
    low, high = 0.475 - 12.706205 * 0.225, 0.475 + 12.706205 * 0.225
    assert found == pytest.approx([3.475, 2.45 / 2**0.5, 0.475, 0.45 / 2**0.5, low, high], rel=1e-7)


def test_targets_and_what_runs_came_to_are_there_too(rows: Rows) -> None:
    """Targets 3 and 5: reached after 5 s by one, 10 s by the other, as by the baseline: √2 times as fast."""
    assert rows["new", "1", "seconds@loss=+1"]["value"] == "5.0"
    assert rows["new", "", "seconds@loss=+1"]["value"] == "7.5"
    fast = rows["new", "", "times_as_fast@loss=+1"]
    assert (float(fast["value"]), fast["pairs"]) == (pytest.approx(2**0.5), "2")
    assert rows["quick", "2", "goodput"]["value"] == "0.5"
    assert rows["quick", "", "simulated_seconds"]["minus_baseline"] == "-30.0"


def test_losses_at_equal_time_come_with_the_time_until_all_had_trained_as_much(tmp_path: Path) -> None:
    """All have trained on 4,000 tokens, 400 steps: `slow` after 40 s; `quick` is seen to have them at 10 s."""
    found = make(tmp_path / "runs")
    tidy.write(tmp_path / "all.csv", found, amounts(found, ["seconds=10"]), [])
    rows = written(tmp_path / "all.csv")
    assert [rows[name, "", "seconds@tokens=4000"]["value"] for name in ("slow", "quick")] == ["40.0", "10.0"]


def test_seeds_that_missed_a_target_are_censored_and_in_no_mean(tmp_path: Path) -> None:
    """`slow` ends at 2 and 4; `new` is at 3 after 5 s with one seed, and never at 5 with the other."""
    points: dict[int, Points] = {1: [(0.0, 0, 4.0), (5.0, 100, 3.0)], 2: [(0.0, 0, 6.0), (5.0, 100, 5.5)]}
    found = make(tmp_path / "runs", [("new", seed, points[seed], {}) for seed in (1, 2)])
    tidy.write(tmp_path / "all.csv", found, [], [Target.parse("+1")])
    rows = written(tmp_path / "all.csv")
    measure = "seconds@loss=+1"
    assert [rows["new", seed, measure]["value"] for seed in ("1", "2", "")] == ["5.0", "", "5.0"]
    assert [rows["new", seed, measure]["censored"] for seed in ("1", "2", "")] == ["0", "1", "1"]
    assert rows["new", "", measure]["count"] == "1"
    assert rows["new", "", "times_as_fast@loss=+1"]["value"] == "2.0"
    assert rows["new", "", "goodput"]["censored"] == ""


def test_what_is_not_known_is_not_there(rows: Rows) -> None:
    assert not any(measure in ("wall_seconds", "dollars", "drift_in_updates") for _, _, measure in rows)
    assert not any(value in ("nan", "None") for row in rows.values() for value in row.values())


def test_a_key_that_is_called_as_a_column_is_told_from_it(tmp_path: Path) -> None:
    found = make(tmp_path, by=["method", "data.name"])
    more = make(tmp_path / "two", [("x", 1, QUICK[1], {"labels": {"method": "x", "value": "7"}})])
    tidy.write(tmp_path / "one.csv", found, [], [])
    tidy.write(tmp_path / "two.csv", more, [], [])
    heads = [path.read_text().splitlines()[0] for path in (tmp_path / "one.csv", tmp_path / "two.csv")]
    assert heads[0].startswith("group,method,data.name,seed,run,measure,value,")
    assert heads[1].startswith("group,method,label.value,seed,run,measure,value,")


def test_a_file_that_cannot_be_written_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written: Is a directory"):
        tidy.write(tmp_path, make(tmp_path / "runs"), [], [])
