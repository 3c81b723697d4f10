"""Pairs of runs that differ only in what is recorded, or from where they are started: all results are the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from halos.run.cli import main

# Unequal steps, chunks that do not divide them, real text, stale updates: whatever could depend on it.
CONFIG: dict[str, Any] = {
    "cluster": {"regions": [{"workers": [1.0, 0.6]}, {"workers": [0.35]}], "step_time_ms": 100},
    "network": {"bandwidth_gbps": [[1.0, 1e-5], [1e-5, 1.0]], "latency_ms": 20},
    "model": {"name": "linear_regression", "features": 3, "noise": 0.5},
    "data": {"name": "text", "path": "texts", "sequence_length": 8, "validation_samples": 8},
    "train": {"batch_size": 2, "optimizer": {"lr": 0.05}, "schedule": {"name": "constant"}},
    "steps": {"name": "by_speed", "base": 9},
    "policy": {"name": "async_local_sgd"},
    "budget": {"local_steps": 100},
    "evaluate": {"every_local_steps": 25},
    "observers": {"progress": False, "results": True},
}
ONLY_THEIRS = {"wall_seconds", "name"}


def ran(folder: Path, *changes: str) -> dict[str, Any]:
    """What the run in `folder` recorded, by file, without the chunks of losses; config.yaml says how it was recorded.

    In results.pt, chunks are what upstream has them.
    """
    (folder / "texts").mkdir(exist_ok=True)
    (folder / "texts/a.txt").write_text("Two roads diverged in a yellow wood, and sorry I could not travel both; " * 9)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    run = folder / "run"
    assert main([str(folder / "config.yaml"), f"out={run}", *changes]) == 0
    found: dict[str, Any] = {
        "summary": {k: v for k, v in json.loads((run / "summary.json").read_text()).items() if k not in ONLY_THEIRS},
        "model": [tensor.tolist() for tensor in torch.load(run / "model.pt").values()],
    }
    for path in run.glob("*.jsonl"):
        records = [json.loads(line) for line in path.read_text().splitlines()]
        found[path.name] = [{k: v for k, v in record.items() if k != "losses"} for record in records]
    if (run / "trace.json").exists():
        found["trace"] = (run / "trace.json").read_text()
    if list(run.glob("events*")):
        events = EventAccumulator(str(run), size_guidance={"scalars": 0})
        events.Reload()
        found["curves"] = {tag: repr(events.Scalars(tag)) for tag in events.Tags()["scalars"]}
    if (run / "results.pt").exists():
        results = torch.load(run / "results.pt", weights_only=False)
        found["results"] = {k: v.tolist() for k, v in results.items() if k.startswith("val") or k == "time_history"}
    return found


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found = ran(tmp_path_factory.mktemp("plain"))
    assert len(found) == 9 and found["summary"]["final_train_loss"] > 0
    return found


@pytest.mark.parametrize(
    "changes",
    [
        ["train.loss_average_steps=1"],
        ["train.loss_average_steps=5"],
        ["train.loss_average_steps=1000"],
        ["observers={progress: true, tensorboard: false, trace: false, records: commits}"],
        ["observers={progress: false, tensorboard: false, trace: false, records: none}"],
        ["checkpoint.every_local_steps=10"],
    ],
    ids=lambda changes: changes[0],
)
def test_how_a_run_is_recorded_changes_nothing_else(plain: dict[str, Any], changes: list[str], tmp_path: Path) -> None:
    other = ran(tmp_path, *changes)
    assert len(other) >= 3
    assert {name: plain[name] for name in other} == other


def test_the_working_directory_changes_nothing(
    plain: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert ran(tmp_path) == plain


@pytest.mark.parametrize("every", [1, 4, 8, 9])
def test_nine_steps_have_the_mean_of_nine_losses(every: int, tmp_path: Path) -> None:
    # One worker on ½ (1 − θ)², from 0 with a learning rate of 0.1: the losses are ½ · 0.81^k, and their mean that sum.
    mean = 0.5 * (1 - 0.81**9) / (1 - 0.81) / 9
    config = {
        **CONFIG,
        "cluster": {"regions": [{"workers": [1.0]}], "step_time_ms": 1000},
        "network": {"bandwidth_gbps": float("inf")},
        "model": {"name": "quadratic", "size": 1},
        "data": {"name": "synthetic", "samples": 64, "sequence_length": 8, "validation_samples": 8},
        "train": {
            "batch_size": 1, "optimizer": {"name": "sgd", "lr": 0.1}, "schedule": {"name": "constant"}, "clip": 0.0,
            "loss_average_steps": every,
        },
        "budget": {"local_steps": 9},
    }  # fmt: skip
    (tmp_path / "nine.yaml").write_text(yaml.safe_dump(config))
    assert main([str(tmp_path / "nine.yaml"), f"out={tmp_path / 'run'}"]) == 0
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["final_train_loss"] == pytest.approx(mean, rel=1e-6)
    (update,) = [json.loads(line) for line in (tmp_path / "run/updates.jsonl").read_text().splitlines()]
    assert update["loss"] == summary["final_train_loss"]
    assert len(update["losses"]) == -(-9 // every)
    results = torch.load(tmp_path / "run/results.pt", weights_only=False)
    # As upstream has it: the mean over chunks, however long each of them is.
    assert results["loss_over_time_history"].tolist() == [pytest.approx(sum(update["losses"]) / len(update["losses"]))]
