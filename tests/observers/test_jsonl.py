"""The record files and the summary."""

import json
import math
import os

import pytest

from halos.errors import UserError
from halos.observers.experiment import Experiment
from halos.observers.jsonl import recorder, write_summary
from halos.values.params import Layout, Params
from halos.values.records import Commit, EndToEnd, Evaluation, Transfer, Update
from halos.world.cluster import Cluster, Region, Worker
from tests.made import share
from tests.observers.full_disk import FullDisk

PARAMS = Params(Layout({"a": (2, 2)}), None)
WORKER = Worker(0, 0, 1.0)
UPDATE = Update(0, 0, 0, PARAMS, PARAMS, 8, 0.0, 1.5, 0, (0, 64), 0, (3.5, math.nan), (4, 4), (0.0, 1.5))
TRANSFER = Transfer(1.5, 2.0, None, None, 16, "all_reduce")
COMMIT = Commit(2.0, 1, "global", "update", 8, (share(UPDATE, ways=(EndToEnd(0, 1.5, 0.25),)),), PARAMS)
EVALUATION = Evaluation(2.0, 1, 8, 8, 512, 3.25, "validation")


def experiment(folder, resumed_at=None):
    cluster = Cluster((Region(0, "here", (WORKER,)),), (WORKER,), 1.0, 0.0)
    return Experiment("run", folder, {}, "diloco", 1, cluster, 16, math.inf, 64, 4, 4, True, {}, resumed_at)


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def record(observer):
    for kind, each in (("update", UPDATE), ("transfer", TRANSFER), ("commit", COMMIT), ("evaluate", EVALUATION)):
        hear = getattr(observer, f"on_{kind}", None)
        if hear is not None:
            hear(each)


def test_every_record_becomes_a_line_of_its_file(tmp_path):
    observer = recorder("all")
    observer.on_start(experiment(tmp_path))
    record(observer)
    observer.on_finish({"name": "run"})
    (update,) = read(tmp_path / "updates.jsonl")
    assert (update["time"], update["worker"], update["end_sample"], update["losses"]) == (1.5, 0, 64, [3.5, None])
    (transfer,) = read(tmp_path / "transfers.jsonl")
    assert (transfer["src"], transfer["kind"], transfer["bytes"]) == (None, "all_reduce", 16)
    (commit,) = read(tmp_path / "commits.jsonl")
    assert commit["contributions"] == [
        {
            "updates": [0], "workers": [0], "factors": [1.0], "steps": 8,
            "from_version": 0, "hop_staleness": 0, "hop_drift": 0.0,
            "end_to_end": [{"staleness": 0, "seconds": 1.5, "drift": 0.25}],
        }
    ]  # fmt: skip
    (evaluation,) = read(tmp_path / "evaluations.jsonl")
    assert (evaluation["loss"], evaluation["set"]) == (3.25, "validation")


@pytest.mark.parametrize(
    ("records", "files"),
    [("commits", {"commits.jsonl", "evaluations.jsonl"}), ("none", {"evaluations.jsonl"})],
)
def test_fewer_records_make_fewer_files_and_no_calls(tmp_path, records, files):
    observer = recorder(records)
    observer.on_start(experiment(tmp_path))
    record(observer)
    observer.on_finish({})
    assert {path.name for path in tmp_path.iterdir()} == files | {"summary.json"}
    assert not hasattr(observer, "on_update")
    assert not hasattr(observer, "on_transfer")


def test_the_summary_has_null_for_what_is_no_finite_number(tmp_path):
    write_summary(tmp_path / "summary.json", {"loss": math.nan, "bytes": {"0->1": 3}, "deep": [{"x": math.inf}]})
    assert json.loads((tmp_path / "summary.json").read_text()) == {
        "loss": None,
        "bytes": {"0->1": 3},
        "deep": [{"x": None}],
    }
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def resume(folder, *, before=1, after=1):
    """All records come again, then the run goes on."""
    observer = recorder("all")
    observer.on_start(experiment(folder, resumed_at=2.0))
    for _ in range(before):
        record(observer)
    observer.on_resume(2.0)
    for _ in range(after):
        record(observer)
    return observer


def test_a_resumed_run_cuts_off_what_came_after_its_checkpoint_and_goes_on(tmp_path):
    first = recorder("all")
    first.on_start(experiment(tmp_path))
    record(first)
    record(first)  # after the checkpoint; then it died
    first.on_finish({})
    with (tmp_path / "updates.jsonl").open("a") as file:
        file.write('{"time": 3.0, "wor')
    resume(tmp_path, before=1, after=2).on_finish({})
    for name in ("updates", "transfers", "commits", "evaluations"):
        lines = (tmp_path / f"{name}.jsonl").read_text().splitlines()
        assert len(lines) == 3
        assert len(set(lines)) == 1


@pytest.mark.parametrize("left", [0, 10, 1000])
def test_a_resumed_run_writes_again_what_had_not_reached_its_files(tmp_path, left):
    """Killed before the last lines were written, or in the middle of one: `left` bytes of 5 records are there."""
    whole = tmp_path / "whole"
    whole.mkdir()
    expected = recorder("all")
    expected.on_start(experiment(whole))
    for _ in range(6):
        record(expected)
    expected.on_finish({})
    for name in ("updates", "transfers", "commits", "evaluations"):
        (tmp_path / f"{name}.jsonl").write_bytes((whole / f"{name}.jsonl").read_bytes()[:left])
    resume(tmp_path, before=5, after=1).on_finish({})
    for name in ("updates", "transfers", "commits", "evaluations"):
        assert (tmp_path / f"{name}.jsonl").read_bytes() == (whole / f"{name}.jsonl").read_bytes()


def test_record_files_that_hold_something_else_are_refused_and_left_alone(tmp_path):
    (tmp_path / "updates.jsonl").write_text('{"time": 1.0}\n')
    with pytest.raises(UserError, match=r"updates.jsonl is not what this run wrote: it was changed, so the run cannot"):
        resume(tmp_path)
    assert (tmp_path / "updates.jsonl").read_text() == '{"time": 1.0}\n'


def test_a_folder_that_is_not_there_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="cannot be written: No such file or directory"):
        recorder("all").on_start(experiment(tmp_path / "gone"))


def test_a_summary_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    write_summary(tmp_path / "summary.json", {"n": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match=r"summary.json cannot be written"):
        write_summary(tmp_path / "summary.json", {"n": 2})
    assert json.loads((tmp_path / "summary.json").read_text()) == {"n": 1}
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_at_the_end_still_leaves_a_summary_and_one_clear_line(tmp_path):
    observer = recorder("all")
    observer.on_start(experiment(tmp_path))
    record(observer)
    for lines in observer.files.values():
        lines._file = FullDisk(lines._file, room=10)
    with pytest.raises(UserError, match=r"updates.jsonl cannot be written: No space left"):
        observer.on_finish({"name": "run", "finished": True})
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["name"] == "run" and summary["finished"].startswith(f"failed: {tmp_path}/updates.jsonl cannot be")
    assert (tmp_path / "transfers.jsonl").read_text() == ""


def test_evaluations_are_on_disk_within_a_second_and_not_at_once(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    observer = recorder("none")
    observer.on_start(experiment(tmp_path))
    observer.on_evaluate(EVALUATION)
    assert read(tmp_path / "evaluations.jsonl") == []
    now[0] += 1.0
    observer.on_evaluate(EVALUATION)
    assert len(read(tmp_path / "evaluations.jsonl")) == 2
