"""A run's folder, read: made by hand, and of real runs against what their files say line by line."""

from __future__ import annotations

import json
import math
import multiprocessing
import re
import time
from pathlib import Path
from typing import Any

import pytest

import halos
from halos.config.config import resolved
from halos.errors import UserError
from halos.reading import run as reading
from halos.run.lifecycle import run as run_for_real
from halos.testing import tiny

ROOT = Path(__file__).parents[2]


def written(folder: Path, **files: Any) -> Path:
    """A run folder with a configuration, and records by file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text("name: made\nlabels: {method: by hand}\ntrain: {lr: 1.0e-05}\n")
    for name, records in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def share(updates: list[int], workers: list[int], ways: list[tuple[int, float, float]], drift: float) -> dict[str, Any]:
    return {
        "updates": updates,
        "workers": workers,
        "factors": [1.0] * len(updates),
        "steps": 4 * len(updates),
        "from_version": 1,
        "hop_staleness": 2,
        "hop_drift": drift,
        "end_to_end": [{"staleness": age, "seconds": s, "drift": far} for age, s, far in ways],
    }


def test_commits_contributions_and_their_updates_point_at_each_other(tmp_path: Path) -> None:
    head = {"kind": "update", "local_steps": 8, "norm": 1.5, "step_norm": None}
    first = {"time": 1.0, "version": 1, "server": "local-0", **head, "contributions": [share([7], [3], [], 0.5)]}
    merge = {"time": 2.0, "version": 1, "server": "local-0", **head, "kind": "merge", "contributions": []}
    both = [share([7, 8], [3, 4], [(0, 1.0, 0.25), (1, 2.0, 0.75)], 0.125), share([9], [5], [(2, 3.0, 4.0)], 0.0)]
    last = {"time": 3.0, "version": 1, "server": "global", **head, "contributions": both}
    run = halos.read(written(tmp_path / "x", commits=[first, merge, last]))
    assert run.commits["contributions"].tolist() == [1, 0, 2] and run.commits["kind"][1] == "merge"
    assert math.isnan(run.commits["step_norm"][0])
    shares = run.contributions
    assert shares["commit"].tolist() == [0, 2, 2] and shares["updates"].tolist() == [1, 2, 1]
    assert shares["hop_drift"].tolist() == [0.5, 0.125, 0.0] and shares["server"].tolist() == [
        "local-0",
        *2 * ["global"],
    ]
    merged = run.merged
    assert merged["contribution"].tolist() == [0, 1, 1, 2] and merged["commit"].tolist() == [0, 2, 2, 2]
    assert merged["update"].tolist() == [7, 7, 8, 9] and merged["worker"].tolist() == [3, 3, 4, 5]
    assert repr(merged["drift"].tolist()) == repr([math.nan, 0.25, 0.75, 4.0])
    assert merged["time"].tolist() == [1.0, 3.0, 3.0, 3.0]
    assert run.name == "made" and run.labels == {"method": "by hand"} and run.config["train"]["lr"] == 1e-5
    assert run.summary is None and run.finished is None


def test_what_an_older_version_did_not_record_is_unknown(tmp_path: Path) -> None:
    bare = {"time": 1.0, "version": 1}
    some = {**bare, "time": 2.0, "contributions": [{"updates": [5, 6], "workers": [3], "steps": 8}]}
    run = halos.read(written(tmp_path / "x", commits=[bare, some]))
    assert repr(run.commits["contributions"].tolist()) == "[nan, 1.0]"
    assert run.contributions["steps"].tolist() == [8] and repr(run.contributions["hop_drift"].tolist()) == "[nan]"
    assert run.merged["update"].tolist() == [5, 6] and repr(run.merged["worker"].tolist()) == "[3.0, nan]"
    assert repr(run.merged["drift"].tolist()) == "[nan, nan]" and run.merged["time"].tolist() == [2.0, 2.0]


@pytest.mark.parametrize("contributions", [3, [3], "x", [{"updates": 3}], [{"updates": [1], "end_to_end": {"a": 1}}]])
def test_what_is_no_commit_is_said_in_one_line(contributions: Any, tmp_path: Path) -> None:
    run = halos.read(written(tmp_path / "x", commits=[{"contributions": contributions}]))
    with pytest.raises(UserError, match=r"commits\.jsonl holds what is no commit$"):
        assert run.commits


def test_row_numbers_go_on_from_block_to_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("halos.reading.lines.BLOCK", 50)
    head = {"server": "global", "kind": "update", "local_steps": 8, "norm": 1.0, "step_norm": 0.5}
    commits = [
        {"time": float(n), "version": n, **head, "contributions": [share([n], [0], [(0, 1.0, 0.5)], 1.0)] * n}
        for n in range(4)
    ]
    run = halos.read(written(tmp_path / "x", commits=commits))
    assert run.contributions["commit"].tolist() == [1, 2, 2, 3, 3, 3]
    assert run.merged["contribution"].tolist() == [0, 1, 2, 3, 4, 5]
    assert run.merged["commit"].tolist() == [1, 2, 2, 3, 3, 3]


def test_curves_are_of_one_model_on_one_set(tmp_path: Path) -> None:
    def evaluation(loss: float, of: str, on: str) -> dict[str, Any]:
        return {"time": 0.0, "loss": loss, "set": on, "of": of, "metrics": {"accuracy": loss / 10}}

    of = [("global", "validation"), ("workers", "validation"), ("global", "other"), ("global", "validation")]
    run = halos.read(written(tmp_path / "x", evaluations=[evaluation(float(n), *each) for n, each in enumerate(of)]))
    assert run.curve()["loss"].tolist() == [0.0, 3.0] and run.curve(of="workers")["loss"].tolist() == [1.0]
    assert run.curve(set="other")["metrics.accuracy"].tolist() == [0.2]
    assert len(run.curve(of="nobody")) == 0


def test_a_plugins_records_are_columns_too(tmp_path: Path) -> None:
    run = halos.read(written(tmp_path / "x", drift=[{"a": 1, "b": {"c": None}}]))
    assert run.records("drift").names == ("a", "b.c")
    with pytest.raises(UserError, match=r"has no drfit\.jsonl \(did you mean 'drift'\?\); there are: drift"):
        run.records("drfit")


@pytest.mark.parametrize("executor", ["inline", "timing"])
def test_a_real_run_is_read_as_its_files_have_it(executor: str, tmp_path: Path) -> None:
    config, plugins = resolved(tiny(executor={"name": executor}, out=str(tmp_path / "run")))
    summary, _ = run_for_real(config, plugins)
    run = halos.read(tmp_path / "run")
    assert run.finished is True and run.summary is not None and run.summary["commits"] == summary["commits"]
    assert run.config["seed"] == config.seed and run.config["budget"]["local_steps"] == config.budget.local_steps
    for name in ("updates", "transfers", "evaluations"):
        columns, records = getattr(run, name), lines(tmp_path / "run" / f"{name}.jsonl")
        assert len(columns) == len(records)
        for key in {key for record in records for key in record} - {"metrics"}:
            assert [same(value) for value in columns[key].tolist()] == [record[key] for record in records], key
    commits = lines(tmp_path / "run" / "commits.jsonl")
    ways = [way["staleness"] for commit in commits for each in commit["contributions"] for way in each["end_to_end"]]
    assert run.merged["staleness"].tolist() == ways and len(ways) > 0
    every = [each["hop_drift"] for commit in commits for each in commit["contributions"]]
    assert [same(value) for value in run.contributions["hop_drift"].tolist()] == every


def same(value: Any) -> Any:
    """A column's value as JSON has it."""
    return None if isinstance(value, float) and math.isnan(value) else value


def test_the_names_of_empty_columns_are_those_of_full_ones(tmp_path: Path) -> None:
    config, plugins = resolved(tiny(out=str(tmp_path / "run")))
    run_for_real(config, plugins)
    full, empty = halos.read(tmp_path / "run"), halos.read(written(tmp_path / "empty"))
    for name in ("updates", "transfers", "commits", "contributions", "merged", "evaluations"):
        names = [each for each in getattr(full, name).names if not each.startswith("metrics.")]
        assert getattr(empty, name).names == tuple(names) and len(getattr(full, name)) > 0


def test_every_column_is_explained_in_the_measures(tmp_path: Path) -> None:
    page = (ROOT / "docs/measures.md").read_text()
    known = set(re.findall(r"^\| `(\w+)`", page, re.M)) | {"commit", "contribution", "update", "worker", "factor"}
    lists = (reading.UPDATE, reading.TRANSFER, reading.COMMIT, reading.CONTRIBUTION, reading.MERGED, reading.EVALUATION)
    assert [name for names in lists for name in names if name not in known] == []


def test_a_run_that_is_killed_is_read_as_far_as_it_came(tmp_path: Path) -> None:
    config, plugins = resolved(tiny(out=str(tmp_path / "run"), budget={"local_steps": 10**9}))
    config.observers.progress = False
    # Forked from this process, where everything is imported already.
    running = multiprocessing.get_context("fork").Process(target=run_for_real, args=(config, plugins))
    running.start()
    try:
        deadline = time.monotonic() + 60.0
        updates = tmp_path / "run" / "updates.jsonl"
        while not updates.exists() or updates.stat().st_size == 0:
            assert time.monotonic() < deadline and running.is_alive()
            time.sleep(0.02)
        going = halos.read(tmp_path / "run")
        assert going.finished is None and len(going.updates) > 0
    finally:
        running.kill()
        running.join()
    killed = halos.read(tmp_path / "run")
    assert killed.finished is None and len(killed.updates) >= len(going.updates)
    assert killed.updates["id"][: len(going.updates)].tolist() == going.updates["id"].tolist()


def test_what_is_no_run_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    for name, problem in (
        ("none", "none is no run folder: it does not exist"),
        ("file", "file is no run folder: it is a file"),
        ("empty", "empty is no run folder: there is no config.yaml in it"),
    ):
        with pytest.raises(UserError, match=problem):
            halos.read(tmp_path / name)
    (tmp_path / "empty" / "sweep.json").write_text("{}")
    with pytest.raises(UserError, match=r"no config\.yaml in it \(it is a sweep's: each folder in it is a run's\)"):
        halos.read(tmp_path / "empty")
    folder = written(tmp_path / "x")
    (folder / "summary.json").write_text("{")
    with pytest.raises(UserError, match=r"summary\.json is no run's summary"):
        halos.read(folder)
    (folder / "config.yaml").write_text("- 1")
    with pytest.raises(UserError, match=r"config\.yaml is no run's configuration"):
        halos.read(folder)


def test_a_text_that_looks_like_a_reference_is_read_as_it_was_meant(tmp_path: Path) -> None:
    config, plugins = resolved(tiny(name="a-\\${b}", out=str(tmp_path / "run")))
    run_for_real(config, plugins)
    assert halos.read(tmp_path / "run").name == config.name == "a-${b}"
