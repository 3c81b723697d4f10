"""Which runs a command line stands for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from halos.compare.given import given
from halos.errors import UserError
from tests.compare.made_runs import write_run


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("runs/run-10", "runs/run-2", "runs/deep/er/run-1"):
        write_run(tmp_path / name, [(0.0, 0, 5.0)])
    (tmp_path / "runs/notes.txt").write_text("…")
    write_run(tmp_path / "runs/run-2/.replaced", [(0.0, 0, 5.0)])
    (tmp_path / "empty").mkdir()
    return tmp_path


def names(*arguments: str) -> tuple[list[str], list[str]]:
    runs, remarks = given(arguments)
    return [run.folder.name for run in runs], remarks


def test_a_folder_is_all_runs_below_it_in_the_order_of_people() -> None:
    assert names("runs") == (["run-1", "run-2", "run-10"], [])


def test_a_pattern_is_what_it_matches_that_is_a_run() -> None:
    assert names("runs/*") == (["run-1", "run-2", "run-10"], [])
    assert names("runs/run-1*") == (["run-10"], [])


def test_a_run_is_taken_once_however_often_it_is_named(here: Path) -> None:
    assert names("runs/run-2", str(here / "runs"), "runs/run-2/") == (["run-2", "run-1", "run-10"], [])


def test_a_sweep_is_its_cells_as_last_asked_for_and_says_which_have_not_begun(here: Path) -> None:
    cells = {"run-10": {"H": "1"}, "run-2": {"H": "2"}, "run-3": {"H": "3"}}
    (here / "runs/sweep.json").write_text(json.dumps({"axes": ["H"], "cells": cells}))
    assert names("runs") == (["run-10", "run-2"], ["runs: 1 of 3 cells have not begun"])


def test_what_holds_no_run_and_what_cannot_be_read_is_said_beside_the_rest(here: Path) -> None:
    (here / "runs/run-2/config.yaml").write_text("- 1")
    found, remarks = names("runs/run-10", "runs/notes.txt", "runs/run-2", "empty")
    assert found == ["run-10"]
    assert remarks == [
        "there is no run in runs/notes.txt",
        "runs/run-2/config.yaml is no run's configuration; left out",
        "there is no run in empty",
    ]


def test_a_configuration_that_is_no_runs_is_left_out_and_said(here: Path) -> None:
    (here / "runs/run-2/config.yaml").write_text("cluster: {}\npolicy: diloco\n")
    assert names("runs") == (
        ["run-1", "run-10"],
        ["runs/run-2/config.yaml is not of a run: it has no section 'policy'; left out"],
    )


def test_a_run_with_a_record_that_is_none_is_left_out_and_its_line_named(here: Path) -> None:
    with (here / "runs/run-2/commits.jsonl").open("a") as file:
        file.write("[1, 2\n")
    found, remarks = names("runs")
    assert found == ["run-1", "run-10"]
    assert remarks == ["runs/run-2/commits.jsonl, line 1: is no record: '[1, 2'; left out"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("runs/nothing-*", "no run matches 'runs/nothing-*'"),
        ("run-2", "run-2 does not exist (did you mean runs/run-2?)"),
        ("", "'' does not exist"),
        ("empty", "there is no run in empty"),
        ("runs/notes.txt", "there is no run in runs/notes.txt"),
    ],
)
def test_no_run_at_all_is_a_mistake(name: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        given([name])
    assert str(caught.value) == said


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"cells": [3]}', '{"cells": ["run-1"]}', '{"cells": null}'])
def test_a_sweeps_list_that_is_none_is_a_mistake(here: Path, text: str) -> None:
    (here / "empty/sweep.json").write_text(text)
    with pytest.raises(UserError, match=r"empty/sweep.json is no list of a sweep's cells"):
        given(["empty"])
