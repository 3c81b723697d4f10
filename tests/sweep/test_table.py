"""A sweep in tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from halos.sweep import table
from halos.sweep.folder import Place, places
from halos.sweep.timing import Group
from tests.sweep.small import cells, tiny


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Place]:
    """Two cells, of which one has finished."""
    monkeypatch.chdir(tmp_path)
    several = cells(tiny(tmp_path), "policy.outer.lr=1e-3,2", "seed=0..0", out=Path("s"))
    folder = several[0].folder
    folder.mkdir(parents=True)
    told = {"final_validation_loss": 1.25, "simulated_seconds": 90.0, "bytes": {"0->0": 1500}, "finished": True}
    told["commits"] = 3
    (folder / "summary.json").write_text(json.dumps(told))
    return places(several, Path("s"))


def lines(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """What was printed, in words."""
    return [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]


def test_what_the_cells_came_to(two: list[Place], capsys: pytest.CaptureFixture[str]) -> None:
    table.show(["policy.outer.lr", "seed"], two)
    assert lines(capsys) == [
        ["policy.outer.lr", "seed", "validation", "loss", "simulated", "time", "bytes"],
        ["0.001", "0", "1.2500", "1", "min", "30", "s", "1.5", "kB"],
        ["2", "0", "-", "-", "-", "not", "finished"],
    ]


def test_a_model_that_nothing_was_committed_to_has_no_loss_to_show(
    two: list[Place], capsys: pytest.CaptureFixture[str]
) -> None:
    file = two[0].cell.folder / "summary.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "commits": 0}))
    table.show(["policy.outer.lr", "seed"], two)
    assert lines(capsys)[1] == ["0.001", "0", "-", "1", "min", "30", "s", "1.5", "kB"]


def test_what_a_sweep_would_do(two: list[Place], capsys: pytest.CaptureFixture[str]) -> None:
    table.show_due(two)
    _, first, second, last = lines(capsys)
    assert (first[:2], second[:2]) == (["finished,", "skipped"], ["to", "run"])
    assert first[-1] == str(two[0].cell.folder)
    assert last == ["2", "cells,", "1", "to", "run"]


def test_which_the_timing_leaves(capsys: pytest.CaptureFixture[str]) -> None:
    groups = [Group("m [A]", (), (90.0, 1e6)), Group("m B", (), (float("nan"), 2.5e9), "m [A]")]
    table.show_front(groups, ("simulated_seconds", "bytes"))
    assert lines(capsys)[1:] == [
        ["m", "[A]", "1", "min", "30", "s", "1.0", "MB", "trained"],
        ["m", "B", "-", "2.5", "GB", "left", "out,", "worse", "than", "m", "[A]"],
    ]
