"""The study of quality: its grids are runs that can be made, and its page says what is recorded of every run."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
import yaml

from halos.run.cli import main as halos
from halos.sweep.cells import Cells
from halos.sweep.grid import asked

ROOT = Path(__file__).parents[1]
GRIDS, NUMBERS = ROOT / "benchmarks/quality", ROOT / "docs/results/quality"
PAGE = (ROOT / "docs/results.md").read_text(encoding="utf-8")
CONFIGS = sorted({*(GRIDS / "configs").glob("*.yaml")} - {GRIDS / "configs/common.yaml"})
RUNS = {"main": 51, "two_workers": 12, "no_momentum": 9, "tuning": 55, "tuning_later": 27}  # 17 · 3, 4 · 3, 3 · 3
PLACES = {
    "tokens": ("main", "DiLoCo"),
    "time": ("main", "DiLoCo"),
    "targets": ("main", "DiLoCo"),
    "work": ("main", "DiLoCo"),
    "two_workers": ("two_workers", "DiLoCo, 0.4"),
    "no_momentum": ("no_momentum", ""),
    "tuning": ("tuning", ""),
    "tuning_later": ("tuning_later", ""),
}
STUDENT = {2: 12.706205, 3: 4.302653}  # 97.5 % quantiles for so many pairs, from a printed table
HEADS = {  # of tables of means: the measure, and its unit
    "simulated s": ("simulated_seconds", 1.0),
    "GB sent": ("bytes", 1e9),
    "computing": ("compute_share", 0.01),
    "transferring": ("transfer_share", 0.01),
    "idle": ("idle_share", 0.01),
    "k tokens": ("tokens", 1e3),
    "steps trained": ("trained_steps", 1.0),
    "never committed": ("in_flight_steps", 1.0),
    "global commits": ("commits", 1.0),
    "goodput": ("goodput", 0.01),
    "expected goodput": ("expected_goodput", 0.01),
    "staleness by hop": ("hop_staleness", 1.0),
    "drift by hop": ("hop_drift", 1.0),
}

Runs = dict[str, dict[str, float]]  # by measure and seed; NaN: it was not reached
Table = tuple[str, list[str], list[list[str]]]  # title, heads, rows

# Grids and configurations


@pytest.mark.parametrize("part", RUNS)
def test_a_grid_is_of_runs_that_can_be_made_and_all_of_them_are_recorded(part: str, tmp_path: Path) -> None:
    cells = list(asked([str(GRIDS / f"{part}.yaml")], []).cells())
    assert len(cells) == RUNS[part]
    assert Cells(tmp_path).made(cells[::4])  # of every method: at least four values of each were tried
    with (NUMBERS / f"{part}.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["run"]]
    names = [name for name in cells[0].labels if name != "seed"]
    known = {(*(row[name] for name in names), row["seed"]) for row in rows if row["measure"] == "final_loss"}
    assert known == {(*(str(cell.labels[name]) for name in names), str(cell.labels.get("seed", 0))) for cell in cells}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_config_of_the_study_runs_a_round(config: Path, tmp_path: Path) -> None:
    changes = ["executor.name=timing", "budget.local_steps=1", f"out={tmp_path / 'run'}"]
    assert halos([str(config), *changes]) == 0


def written(config: Path, key: str) -> float:
    """What a configuration says of a key, or what it extends does."""
    found: Any = yaml.safe_load(config.read_text())
    below = found.get("extends")
    for part in key.split("."):
        found = found.get(part, {})
    return found or written(config.parent / below, key)


@pytest.mark.parametrize("measure", ["final_loss", "loss@steps=4096"])
def test_what_was_tuned_is_the_best_of_what_was_tried_and_not_at_its_edge(measure: str) -> None:
    tried = dict[tuple[str, str], dict[float, float]]()
    for part in ("tuning", "tuning_later"):
        known = recorded(part)
        for label, each in yaml.safe_load((GRIDS / f"{part}.yaml").read_text())["axes"]["tried"].items():
            ((key, value),) = ((key, value) for key, value in each.items() if key != "config")
            tried.setdefault((each["config"], key), {})[value] = known[label][measure]["0"]
    assert len(tried) == 17
    for (config, key), losses in tried.items():
        used = written(GRIDS / config, key)
        assert min(losses, key=losses.__getitem__) == used, config
        assert min(losses) < used < max(losses), config


# The page


def recorded(part: str) -> dict[str, Runs]:
    """The rows of runs, by group, measure and seed; nothing that was worked out of several."""
    found: dict[str, Runs] = {}
    with (NUMBERS / f"{part}.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["run"]:
                value = float(row["value"] or math.nan)
                found.setdefault(row["group"], {}).setdefault(row["measure"], {})[row["seed"]] = value
    return found


def tables(place: str) -> list[Table]:
    (text,) = re.findall(rf"<!-- tables {place} -->\n(.*?)<!-- end -->", PAGE, re.S)
    found = re.findall(r"^\*(.+)\*\n\n((?:\|.*\|\n)+)", text.replace("\\", ""), re.M)
    lines = [(title, [line[2:-2].split(" | ") for line in table.splitlines()]) for title, table in found]
    return [(title, heads, rows) for title, (heads, _, *rows) in lines]


def shows(cell: str, *values: float) -> bool:
    """Whether the numbers in a cell are these, to the last digit that it gives."""
    shown = [text.replace(",", "") for text in re.findall(r"[-+]?\d[\d,]*(?:\.\d+)?", cell)]
    digits = [len(text.partition(".")[2]) for text in shown]
    near = [abs(float(text) - value) < 0.5000001 * 0.1**count for text, count, value in zip(shown, digits, values)]
    return len(shown) == len(values) and all(near)


def spread(values: list[float]) -> list[float]:
    return [mean(values), *([stdev(values)] if len(values) > 1 else [])]


def interval(values: list[float]) -> list[float]:
    around, half = mean(values), STUDENT[len(values)] * stdev(values) / math.sqrt(len(values))
    return [around - half, around + half]


def loss(head: str, runs: Runs) -> str:
    """The measure of a loss `2,048 steps` or `at 204 s`; the latter may be rounded."""
    number, unit = head.removeprefix("at ").replace(",", "").split()
    names = [name for name in runs if name.startswith({"s": "loss@seconds=", "steps": "loss@steps="}[unit])]
    (name,) = [name for name in names if round(float(name.split("=")[1])) == int(number)]
    return name


def check_losses(heads: list[str], cells: list[str], ours: Runs) -> None:
    for head, cell in zip(heads, cells):
        if " until " in head:
            (name,) = [name for name in ours if name.startswith("seconds@tokens=")]
        else:
            name = loss(head, ours)
            at = float(name.split("=")[1])
            over = "seconds" in name and min(ours["simulated_seconds"].values()) < at - 1e-6
            assert cell.startswith("(") == over, "in brackets: a run had ended before"
        assert shows(cell, *spread(list(ours[name].values()))), (head, cell)


def check_differences(heads: list[str], cells: list[str], ours: Runs, theirs: Runs) -> None:
    for head, cell, beside in zip(heads[::2], cells[::2], cells[1::2]):
        name = loss(head, ours)
        gaps = [ours[name][seed] - theirs[name][seed] for seed in ours[name]]
        assert shows(cell, *spread(gaps)), (head, cell)
        assert shows(beside, *interval(gaps)), (head, beside)


def check_target(title: str, heads: list[str], cells: list[str], ours: Runs, theirs: Runs, alone: bool) -> None:
    margin = "+" + title.split("+ ")[1].split()[0]
    assert heads == ["simulated s", "times as fast", "k tokens"]
    seconds, tokens = ours[f"seconds@loss={margin}"], ours[f"tokens@loss={margin}"]
    there = [seed for seed, value in seconds.items() if value == value]
    if not there:
        assert cells == ["not reached", "–", "–"]
        return
    of_all = f" ({len(there)} of {len(seconds)} seeds)" if len(there) < len(seconds) else ""
    assert cells[0].endswith(of_all) and ("seeds" in cells[0]) == bool(of_all)
    assert shows(cells[0].removesuffix(of_all), *spread([seconds[seed] for seed in there])), cells[0]
    assert shows(cells[2], *spread([tokens[seed] / 1e3 for seed in there])), cells[2]
    if alone:
        assert cells[1] == "–"
        return
    logs = [math.log(theirs[f"seconds@loss={margin}"][seed] / seconds[seed]) for seed in there]
    faster = [math.exp(each) for each in [mean(logs), *(interval(logs) if len(logs) > 1 else [])]]
    assert cells[1].endswith(of_all)
    assert shows(cells[1].removesuffix(of_all), *faster), cells[1]


def check_means(heads: list[str], cells: list[str], ours: Runs) -> None:
    measure, unit = "", 1.0
    for head, cell in zip(heads, cells):
        measure, unit = HEADS.get(head, (measure.removeprefix("hop_"), unit))  # `end to end`, of what is left of it
        assert shows(cell, mean(ours[measure].values()) / unit), (head, cell)


@pytest.mark.parametrize("place", PLACES)
def test_the_pages_tables_are_what_is_recorded_of_the_runs(place: str) -> None:
    """Means, deviations, differences, intervals and ratios are worked out again here."""
    part, baseline = PLACES[place]
    known, checked = recorded(part), 0
    for title, (_, *heads), rows in tables(place):
        if title == "To be known":
            continue
        of_differences = " minus " in title
        assert [row[0] for row in rows] == [name for name in known if not (of_differences and name == baseline)]
        for name, *cells in rows:
            assert len(cells) == len(heads)
            ours, theirs = known[name], known.get(baseline, {})
            if of_differences:
                check_differences(heads, cells, ours, theirs)
            elif title.startswith("Validation loss"):
                check_losses(heads, cells, ours)
            elif title.startswith("Until"):
                check_target(title, heads, cells, ours, theirs, alone=name == baseline)
            else:
                check_means(heads, cells, ours)
        checked += 1
    assert checked == {"tokens": 2, "time": 1, "targets": 4, "work": 3, "two_workers": 2}.get(place, 1)


def test_all_runs_are_of_one_text_and_the_page_says_what_else_is_to_be_known() -> None:
    """Of runs of another text a comparison says so."""
    said = {row[0] for place in PLACES for title, _, rows in tables(place) for row in rows if title == "To be known"}
    (one,) = said
    assert one.startswith("every seed has a validation set of its own")
