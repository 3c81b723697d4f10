"""The run folder: what is in it, and that it is one run's."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from halos.config.config import load_config
from halos.config.layers import read
from halos.config.sections import to_sections
from halos.config.yaml_text import to_yaml
from halos.run.folder import locked
from halos.run.lifecycle import run
from halos.testing import tiny
from tests.run.cutting import bytes_of
from tests.run.left import RECORDS, WATCH, lines, summary


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of one run of the tiny config, all observers but the progress line on."""
    folder = tmp_path_factory.mktemp("whole")
    changes = {"evaluate": {"every_local_steps": 4}, "observers": {"results": True, "progress": False}}
    (folder / "c.yaml").write_text(to_yaml(tiny(**changes)))
    run(*load_config(str(folder / "c.yaml"), [f"out={folder / 'run'}"]))
    return folder / "run"


def test_the_run_folder_holds_what_it_should(folder):
    names = {path.name for path in folder.iterdir()}
    (events,) = [name for name in names if name.startswith("events.out.tfevents")]
    results = {"summary.json", "model.pt", "results.pt", "trace.json", "checkpoints"}
    assert names == {"config.yaml", *RECORDS, *results, events}
    assert len(list((folder / "checkpoints").iterdir())) == 1
    assert json.loads((folder / "trace.json").read_text())["traceEvents"]


def test_the_config_is_written_first_and_is_the_resolved_one(folder):
    written = folder / "config.yaml"
    assert written.stat().st_mtime_ns == min(path.stat().st_mtime_ns for path in folder.iterdir())
    assert read(written)["data"]["wrap"] is True  # a default, written out
    assert to_sections(*load_config(str(written))) == read(written)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        (
            "updates",
            "id time worker region steps start_time start_version global_version delta_norm first_sample"
            " end_sample lr_step loss losses server",
        ),
        ("transfers", "start_time time src dst bytes kind worker server"),
        ("commits", "time version server kind local_steps norm step_norm contributions"),
        ("evaluations", "time version local_steps trained_steps tokens loss set of metrics"),
    ],
)
def test_every_record_has_exactly_the_documented_keys(folder, name, keys):
    records = lines(folder / f"{name}.jsonl")
    assert records
    assert all(list(record) == keys.split() for record in records)


def test_the_records_tell_the_story_of_two_rounds_of_two_workers(folder):
    # Two workers, 2 steps of 1 s per round, free communication, 8 steps in all: two rounds, ending at 2 s and 4 s.
    updates = lines(folder / "updates.jsonl")
    assert [(u["worker"], u["start_time"], u["time"], u["first_sample"], u["end_sample"]) for u in updates] == [
        (0, 0.0, 2.0, 0, 2), (1, 0.0, 2.0, 2, 4), (0, 2.0, 4.0, 4, 6), (1, 2.0, 4.0, 6, 8),
    ]  # fmt: skip
    commits = lines(folder / "commits.jsonl")
    assert [(c["time"], c["version"], c["local_steps"]) for c in commits] == [(2.0, 1, 4), (4.0, 2, 8)]
    assert commits[1]["contributions"] == [
        {
            "updates": [2 + worker], "workers": [worker], "factors": [1.0], "steps": 2,
            "from_version": 1, "hop_staleness": 0,
            "hop_drift": 0.0, "end_to_end": [{"staleness": 0, "seconds": 2.0, "drift": 0.0}],
        }
        for worker in (0, 1)
    ]  # fmt: skip
    # Both of two parameters go from 0 to 1 − 0.9² and to 1 − 0.9⁴.
    sizes = [(c["norm"], c["step_norm"]) for c in commits]
    assert sizes == [
        pytest.approx(pair) for pair in ((2**0.5 * 0.19, 2**0.5 * 0.19), (2**0.5 * 0.3439, 2**0.5 * 0.1539))
    ]
    assert [u["delta_norm"] for u in updates] == pytest.approx([2**0.5 * size for size in (0.19, 0.19, 0.1539, 0.1539)])
    # Evaluated at step 0, at the interval, at the end. The loss is ½ Σ (θ − 1)² = (1 − θ)², each step takes a tenth.
    evaluations = lines(folder / "evaluations.jsonl")
    assert [(e["local_steps"], e["tokens"]) for e in evaluations] == [(0, 0), (4, 32), (8, 64)]
    assert [e["loss"] for e in evaluations] == pytest.approx([1.0, 0.9**4, 0.9**8])


def test_the_summary_has_the_documented_keys(folder):
    found = summary(folder)
    assert set(found) == {
        "name", "policy", "seed", "simulated_seconds", "wall_seconds", "local_steps", "tokens", "commits", "updates",
        "final_train_loss", "final_validation_loss", "bytes", "links", "workers", "steps", "skipped_steps", "data",
        "staleness",
        "drift", "goodput", "expected_goodput", "policy_report", "versions", "finished", "lost", "parameters",
        "final_losses", "final_metrics", "final_losses_of", "observers", "unfinished",
    }  # fmt: skip
    assert (found["observers"], found["unfinished"]) == ({}, {"jobs": [], "collective_since": None})
    assert (found["name"], found["policy"], found["seed"], found["finished"]) == ("run", "diloco", 1234, True)
    assert (found["simulated_seconds"], found["tokens"], found["commits"], found["updates"]) == (4.0, 64, 2, 4)
    assert found["steps"] == {"trained": 8, "committed": 8, "dropped": 0, "in_flight": 0, "lost": 0}
    assert found["workers"][1] == {
        "worker": 1, "region": 0, "compute": 1.0, "transfer": 0.0, "idle": 0.0, "down": 0.0, "local_steps": 4,
    }  # fmt: skip
    data = found["data"]
    assert set(data) == {"hash", "samples", "train_samples", "tokens", "bytes_per_token", "epochs"}
    assert (data["tokens"], data["train_samples"], data["bytes_per_token"]) == (64 * 8, 64 - 8, None)
    assert data["epochs"] == 8 / 56
    assert set(found["versions"]) >= {"halos", "python", "torch"}
    assert found["final_validation_loss"] == pytest.approx(0.9**8)


def test_the_model_is_a_state_dict_of_the_final_parameters(folder):
    state = torch.load(folder / "model.pt", weights_only=True)
    assert list(state) == ["theta"]
    assert state["theta"].tolist() == pytest.approx([1 - 0.9**4] * 2)


def test_a_folder_in_use_is_refused_and_left_alone(command, tiny_yaml, tmp_path):
    assert command("c.yaml", files={"c.yaml": tiny_yaml()}).code == 0
    before = bytes_of(tmp_path / "runs" / "run")
    got = command("c.yaml", "seed=7")
    assert (got.code, got.made) == (2, set())
    said = (
        "out: runs/run exists already and is not empty; choose another name=… or out=…, or replace it with --overwrite"
    )
    assert got.err == f"error: {said}\n"
    assert bytes_of(tmp_path / "runs" / "run") == before


def test_an_empty_folder_is_used(command, tiny_yaml, tmp_path):
    (tmp_path / "here").mkdir()
    assert command("c.yaml", "out=here", files={"c.yaml": tiny_yaml()}).code == 0
    assert (tmp_path / "here" / "summary.json").exists()


def test_a_folder_that_was_there_stays_but_empty(command, tiny_yaml, tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    watch = WATCH.format(event="start", record="experiment", error="UserError('no printer')")
    got = command("c.yaml", "out=deep/er", "--plugin", "watch.py", files={"c.yaml": tiny_yaml(), "watch.py": watch})
    assert (got.code, got.made) == (2, set())
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep" / "er"]


def test_a_config_that_cannot_be_written_leaves_no_folder(command, tiny_yaml, monkeypatch):
    command("c.yaml", "--show-config", files={"c.yaml": tiny_yaml()})

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    got = command("c.yaml")
    assert (got.code, got.made) == (2, set())
    assert got.err == "error: out: runs/run/config.yaml cannot be written: No space left on device\n"


# --overwrite


def left(folder: Path) -> dict[str, bytes]:
    """Every file in the folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_is_replaced_whole_and_what_is_not_its_own_stays(command, tiny_yaml, tmp_path):
    files = {"c.yaml": tiny_yaml(checkpoint={"every_local_steps": 4})}
    folder = tmp_path / "runs/run"
    assert command("c.yaml", "observers.results=true", files=files).code == 0
    (folder / "notes.txt").write_text("mine")
    changes = ("seed=7", "checkpoint={every_local_steps: null, every_minutes: null, at_end: false}")
    assert command("c.yaml", *changes, "--overwrite").code == 0
    assert command("c.yaml", *changes, "name=fresh").code == 0
    again, fresh = left(folder), left(tmp_path / "runs/fresh")
    assert again.keys() == {*fresh, "notes.txt"} and again["notes.txt"] == b"mine"
    assert {name for name in fresh if fresh[name] != again[name]} == {"config.yaml", "summary.json"}  # name, wall time
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == []


def test_so_is_one_that_was_made_before_runs_had_labels(command, tiny_yaml, tmp_path):
    assert command("c.yaml", files={"c.yaml": tiny_yaml()}).code == 0
    written = tmp_path / "runs/run/config.yaml"
    written.write_text(written.read_text().replace("labels: {}\n", ""))
    assert command("c.yaml", "--overwrite").code == 0
    assert "labels: {}\n" in written.read_text()


def test_where_there_is_no_run_to_replace_it_is_as_without(command, tiny_yaml, tmp_path):
    assert command("c.yaml", "--overwrite", files={"c.yaml": tiny_yaml()}).code == 0
    (tmp_path / "empty").mkdir()
    assert command("c.yaml", "--overwrite", "out=empty").code == 0


@pytest.mark.parametrize(
    "mistake", ["policy=dilocoo", "data.samples=1", "budget.tokens=x", "observers.records=x", "model.weights=3"]
)
def test_with_any_mistake_the_run_that_is_there_stays(command, tiny_yaml, tmp_path, mistake):
    assert command("c.yaml", files={"c.yaml": tiny_yaml()}).code == 0
    before = left(tmp_path / "runs")
    got = command("c.yaml", "--overwrite", mistake)
    assert (got.code, got.made, got.err.count("\n")) == (2, set(), 1)
    assert left(tmp_path / "runs") == before


@pytest.mark.parametrize("error", ["UserError('no printer')", "KeyboardInterrupt", "OSError('no disk')"])
def test_an_observer_that_fails_at_the_start_brings_the_old_run_back(command, tiny_yaml, tmp_path, error):
    watch = WATCH.format(event="start", record="experiment", error=error)
    files = {"c.yaml": tiny_yaml(checkpoint={"every_local_steps": 4}), "watch.py": watch}
    assert command("c.yaml", files=files).code == 0
    before = left(tmp_path / "runs")
    with suppress(OSError):
        assert command("c.yaml", "--overwrite", "--plugin=watch.py", "seed=7").code in (2, 130)
    assert left(tmp_path / "runs") == before
    assert [path.name for path in (tmp_path / "runs/run").iterdir() if path.is_dir()] == ["checkpoints"]


def test_a_folder_that_no_run_made_is_never_touched(command, tiny_yaml, tmp_path):
    """Nor one with a config.yaml that somebody wrote, or that was copied from a run."""
    config = tiny_yaml(name="used")
    resolved = command("c.yaml", "--show-config", files={"c.yaml": config}).out
    for place, text in (("used", config), ("used", "name: used"), ("used", "["), ("project", resolved), ("used", None)):
        folder = tmp_path / place
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "model.pt").write_text("dear")
        if text is not None:
            (folder / "config.yaml").write_text(text)
        before = left(folder)
        got = command("c.yaml", f"out={place}", "--overwrite")
        assert (got.code, got.err.count("\n")) == (2, 1)
        assert f"out: {place} exists already and is not empty; choose another name=… or out=…, or delete it" in got.err
        assert left(folder) == before


def test_nor_is_one_that_a_live_run_writes(command, tiny_yaml, tmp_path):
    assert command("c.yaml", files={"c.yaml": tiny_yaml()}).code == 0
    before = left(tmp_path / "runs")
    with locked(tmp_path / "runs/run"):
        got = command("c.yaml", "--overwrite")
    assert (got.code, got.err) == (2, "error: out: runs/run is in use: another run is writing there\n")
    assert left(tmp_path / "runs") == before


def test_what_a_kill_left_of_a_replacement_is_replaced_in_turn(command, tiny_yaml, tmp_path):
    """Killed between putting the old run away and writing the new one's config.yaml."""
    assert command("c.yaml", files={"c.yaml": tiny_yaml()}).code == 0
    folder = tmp_path / "runs/run"
    (folder / ".replaced").mkdir()
    for path in [path for path in folder.iterdir() if path.is_file()]:
        path.rename(folder / ".replaced" / path.name)
    assert command("c.yaml", "--overwrite").code == 0
    assert not (folder / ".replaced").exists() and summary(folder)["finished"] is True


def test_a_replaced_run_may_be_what_the_new_one_starts_from(command, tiny_yaml, tmp_path):
    model = {"name": "gpt_neox", "hidden_size": 8, "layers": 1, "heads": 1}
    files = {"c.yaml": tiny_yaml(model=model)}
    assert command("c.yaml", files=files).code == 0
    assert command("runs/run/config.yaml", "model.weights=runs/run", "--overwrite").code == 0
    assert read(tmp_path / "runs/run/config.yaml")["model"]["weights"] == str(tmp_path / "runs/run")
