"""Checkpoint files: complete or not there, and whatever else bears their name is refused with the reason."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from halos.config.config import CheckpointOptions, load_config
from halos.config.yaml_text import to_yaml
from halos.errors import UserError
from halos.resume import checkpoint as checkpoints
from halos.resume.checkpoint import Checkpoint, load_checkpoint, newest
from halos.run import resuming as resume
from halos.run.lifecycle import run
from halos.testing import tiny


def checkpoint(events: int = 7) -> Checkpoint:
    return Checkpoint(
        config={"seed": 1},
        versions={"halos": "0"},
        data={},
        events=events,
        time=2.5,
        timeline={"moments": 1, "committed": 4},
        numbers=torch.tensor([0.1, 0.2], dtype=torch.float64),
        params={3: torch.arange(5.0)},
        executor={"0": {"moments": torch.ones(5)}},
        observers={"watcher": {"seen": 3}},
        wall_seconds=1.0,
    )


def named(folder: Path, content: bytes, events: int = 9) -> Path:
    """A file with any content, under the name that content would have as a checkpoint."""
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    path = folder / f"events-{events:012d}-{digest}.pt"
    path.write_bytes(content)
    return path


def saved(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def contents(one: Checkpoint) -> dict[str, Any]:
    return {"format": checkpoints.FORMAT, **vars(one)}


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    found = load_checkpoint(checkpoint().save(tmp_path, keep=2))
    assert (found.config, found.events, found.time, found.timeline) == (
        {"seed": 1}, 7, 2.5, {"moments": 1, "committed": 4},
    )  # fmt: skip
    assert found.numbers.tolist() == [0.1, 0.2]
    assert found.params[3].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert found.executor["0"]["moments"].tolist() == [1.0] * 5


def test_the_newest_are_kept_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".part-1").write_bytes(b"of a process that was killed")
    for events in (1, 2, 3, 4):
        checkpoint(events).save(tmp_path, keep=2)
    assert [path.name.split("-")[1] for path in sorted(tmp_path.iterdir())] == ["000000000003", "000000000004"]


def test_damaged_newer_ones_do_not_crowd_out_good_ones(tmp_path: Path) -> None:
    good = checkpoint(3).save(tmp_path, keep=2)
    bad = checkpoint(9).save(tmp_path, keep=2)
    bad.write_bytes(b"")
    next_one = checkpoint(5).save(tmp_path, keep=2)  # the run went on from 3
    assert sorted(tmp_path.iterdir()) == sorted([good, next_one])


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def emptied(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut_short, flipped, emptied])
def test_a_damaged_one_is_refused_and_the_one_before_is_used(damage: Callable[[Path], None], tmp_path: Path) -> None:
    checkpoint(3).save(tmp_path, keep=2)
    latest = checkpoint(9).save(tmp_path, keep=2)
    damage(latest)
    found, problems = newest(tmp_path)
    assert found.events == 3
    assert problems == [f"{latest.name} is damaged: its content has another digest than its name says"]


def test_if_none_is_intact_all_are_named(tmp_path: Path) -> None:
    first, second = checkpoint(3).save(tmp_path, keep=2), checkpoint(9).save(tmp_path, keep=2)
    for path in (first, second):
        emptied(path)
    with pytest.raises(UserError, match=f"holds no intact checkpoint: {second.name} is damaged.*; {first.name} is"):
        newest(tmp_path)


def test_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no checkpoint: none was asked for"):
        newest(tmp_path / "checkpoints")


class Malicious:
    """Unpickled without care, makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("pack", [saved, lambda value: pickle.dumps(value, protocol=2)], ids=["saved", "pickled"])
def test_code_in_a_foreign_file_is_not_executed(pack: Callable[[Any], bytes], tmp_path: Path) -> None:
    path = named(tmp_path, pack({**contents(checkpoint()), "executor": Malicious(tmp_path / "done")}))
    with pytest.raises(UserError, match="is no checkpoint: "):
        load_checkpoint(path)
    assert not (tmp_path / "done").exists()
    pickle.loads(pickle.dumps(Malicious(tmp_path / "done")))
    assert (tmp_path / "done").exists(), "or this test could not fail"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is no checkpoint: "),
        (b"some text", "is no checkpoint: "),
        (saved([1, 2]), "is no checkpoint of halos"),
        (saved({"theta": torch.zeros(3)}), "is no checkpoint of halos"),
        (
            saved({**contents(checkpoint()), "format": checkpoints.FORMAT + 1}),
            "was written by another version of halos",
        ),
        (saved({"format": checkpoints.FORMAT, "config": {}}), "was written by another version of halos"),
        (saved({**contents(checkpoint()), "params": {0: 1.0}}), "its parts are not what they should be"),
        (saved({**contents(checkpoint()), "timeline": {}}), "its parts are not what they should be"),
    ],
    ids=["empty", "text", "list", "model", "later version", "lacking", "no tensors", "no timeline"],
)
def test_a_foreign_file_is_refused_with_the_reason(content: bytes, why: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=why):
        load_checkpoint(named(tmp_path, content))


def test_another_name_is_refused(tmp_path: Path) -> None:
    path = checkpoint().save(tmp_path, keep=1).rename(tmp_path / "best.pt")
    with pytest.raises(UserError, match=r"best.pt is no checkpoint: its name is not events-NUMBER-DIGEST.pt"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("options", "key"), [({"every_minutes": 0}, "every_minutes"), ({"every_local_steps": -1}, "every_local_steps"),
                         ({"keep": 0}, "keep")]
)  # fmt: skip
def test_options_are_checked(options: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=f"^{key}: "):
        CheckpointOptions(**options)


# A disk that is full, a folder that cannot be written to


class Full:
    """A disk with room for so many bytes more."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room = file, room

    def write(self, data: Any) -> int:
        self.room -= memoryview(data).nbytes
        if self.room < 0:
            raise OSError(28, "No space left on device")
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def fill(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    init = checkpoints.Hashing.__init__
    monkeypatch.setattr(checkpoints.Hashing, "__init__", lambda self, file: init(self, Full(file, room)))


@pytest.mark.parametrize("room", [0, 1000, 2000])
def test_on_a_full_disk_the_last_one_stays(room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = checkpoint(3).save(tmp_path, keep=1)
    fill(monkeypatch, room)
    with pytest.raises(
        UserError,
        match="No space left on device; earlier ones are intact",
    ):
        checkpoint(9).save(tmp_path, keep=1)
    assert list(tmp_path.iterdir()) == [good]
    assert load_checkpoint(good).events == 3


def test_a_file_in_the_place_of_the_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("not a folder")
    with pytest.raises(UserError, match="checkpoints: File exists"):
        checkpoint().save(tmp_path / "checkpoints", keep=1)


def test_a_run_goes_on_without_a_checkpoint_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sections = tiny(checkpoint={"every_local_steps": 4}, budget={"local_steps": 24}, observers={"progress": False})
    (tmp_path / "c.yaml").write_text(to_yaml(sections), encoding="utf-8")
    save, calls = Checkpoint.save, iter(range(100))

    def failing_later(one: Checkpoint, folder: Path, keep: int) -> Path:
        if next(calls) >= 2:
            fill(monkeypatch, 2000)
        return save(one, folder, keep)

    monkeypatch.setattr(Checkpoint, "save", failing_later)
    whole, _ = run(*load_config(str(tmp_path / "c.yaml"), [f"out={tmp_path / 'run'}"]))
    assert whole["finished"] is True
    said = [each.message for each in caplog.records if "no checkpoint could be written" in each.message]
    assert len(said) == 5  # of six, at 4, 8, … 24 local steps, the last while the last mean is under way, and the end's
    assert all("No space left" in each and each.endswith("; the run goes on") for each in said), said
    monkeypatch.undo()
    again, _ = run(*resume.load_run(tmp_path / "run", []))
    assert again["steps"] == whole["steps"]


def test_a_damaged_checkpoint_is_said_and_the_run_goes_on_from_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sections = tiny(
        checkpoint={"every_local_steps": 4, "keep": 2}, budget={"local_steps": 24}, observers={"progress": False}
    )
    (tmp_path / "c.yaml").write_text(to_yaml(sections), encoding="utf-8")
    run(*load_config(str(tmp_path / "c.yaml"), [f"out={tmp_path / 'run'}"]))
    shutil.copytree(tmp_path / "run", tmp_path / "damaged")
    flipped(max((tmp_path / "damaged/checkpoints").iterdir()))
    run(*resume.load_run(tmp_path / "damaged", []))
    assert "going on from the checkpoint before it" in caplog.text
    for name in ("updates.jsonl", "commits.jsonl", "evaluations.jsonl"):
        assert (tmp_path / "damaged" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()
