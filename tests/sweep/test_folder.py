"""A sweep's folder: what has become of its cells, whose it is, and what it lists."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from halos.config.config import load_config
from halos.config.layers import read
from halos.errors import UserError
from halos.run.cli import main
from halos.sweep import folder as folders
from halos.sweep.folder import list_cells, opened, places, state, summary
from tests.sweep.small import cells, tiny

STATES = {
    "new": {},
    "finished": {"config.yaml": "", "summary.json": '{"finished": true}'},
    "diverged": {"summary.json": '{"finished": "diverged: training loss became nan: worker 0"}'},
    "interrupted": {"summary.json": '{"finished": "interrupted"}', "checkpoints/events-1-00.pt": ""},
    "broken off": {"summary.json": '{"finished": "failed: ValueError: no"}'},
}


@pytest.mark.parametrize(("said", "files"), STATES.items(), ids=STATES)
def test_a_runs_folder_says_what_has_become_of_it(said: str, files: dict[str, str], tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert state(tmp_path) == said


def test_so_it_does_if_it_was_killed_or_its_summary_is_no_summary(tmp_path: Path) -> None:
    assert state(tmp_path / "nothing") == "new"
    for text in ("", "{", "[]", '{"finished": 3}'):
        (tmp_path / "summary.json").write_text(text)
        assert state(tmp_path) == "broken off"
    assert summary(tmp_path) == {"finished": 3}
    (tmp_path / "checkpoints").mkdir()
    assert state(tmp_path) == "broken off", "there is none in it"
    (tmp_path / "checkpoints/events-000000000001-00.pt").touch()
    assert state(tmp_path) == "interrupted"


def test_a_folder_is_one_sweeps_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "PATIENCE", 0.2)
    with (
        opened(tmp_path / "a"),
        pytest.raises(UserError, match=r"^--out: .*a is in use: another sweep is writing there$"),
        opened(tmp_path / "a"),
    ):
        pass
    with opened(tmp_path / "a"):
        pass


def test_a_sweep_waits_for_what_is_left_of_one_that_was_killed(tmp_path: Path) -> None:
    lock = (
        "import fcntl, os, sys, time\n"
        "fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)\n"
        "print(flush=True)\ntime.sleep(0.5)\n"
    )
    with subprocess.Popen([sys.executable, "-c", lock, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline()
        with opened(tmp_path):
            assert other.wait() == 0


def test_what_cannot_be_a_sweeps_folder_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([tiny(tmp_path), "out=run"]) == 0
    Path("file").touch()
    for name, why in (
        ("file", "is no folder"),
        ("run", "is the folder of a run; a sweep needs one of its own"),
        ("file/x", "cannot be the folder of a sweep: Not a directory"),
    ):
        with pytest.raises(UserError, match=f"^--out: {name} {why}$"), opened(Path(name)):
            pass


def test_a_folder_that_may_not_be_written_to_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match="cannot be the folder of a sweep: it cannot be written to"), opened(tmp_path):
        pass


def test_a_finished_run_that_lost_its_configuration_is_one_line(tmp_path: Path) -> None:
    (place,) = places(cells(tiny(tmp_path), out=tmp_path / "out"), tmp_path / "out")
    place.cell.folder.mkdir(parents=True)
    (place.cell.folder / "summary.json").write_text('{"finished": true}')
    (place,) = places([place.cell], tmp_path / "out")
    for content, why in ((None, "No such file or directory"), (b"\xff\xfe", "'utf-8' codec can't decode byte 0xff")):
        if content is not None:
            (place.cell.folder / "config.yaml").write_bytes(content)
        with pytest.raises(
            UserError, match=rf"config\.yaml cannot be read: {why}.*; without .* the cell is run again$"
        ):
            list_cells(tmp_path / "out", [], [place])


def test_a_run_is_known_by_its_configuration_and_takes_new_labels(tmp_path: Path) -> None:
    config, out = tiny(tmp_path), tmp_path / "out"
    (before,) = cells(config, "seed=1..1", out=out)
    assert main([config, "seed=1", f"out={before.folder}", "labels={seed: 1, note: x}"]) == 0
    written = (before.folder / "config.yaml").read_text()
    found = places(cells(config, "policy=diloco,halos", "seed=1..2", out=out), out)
    assert [place.state for place in found] == ["finished", "new", "new", "new"]
    assert found[0].cell.folder == before.folder
    list_cells(out, ["policy", "seed"], found)
    listed = json.loads((out / "sweep.json").read_text())
    assert listed["axes"] == ["policy", "seed"] and len(listed["cells"]) == 4
    assert listed["cells"][before.folder.name] == {"policy": "diloco", "seed": 1}
    assert read(before.folder / "config.yaml")["labels"] == {"policy": "diloco", "seed": 1}
    again = (before.folder / "config.yaml").read_text()
    assert again.replace("  policy: diloco\n  seed: 1\n", "  seed: 1\n  note: x\n") == written
    load_config(str(before.folder / "config.yaml"))
    list_cells(out, ["policy", "seed"], found)
    assert (before.folder / "config.yaml").read_text() == again


def test_the_list_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sweep.json").write_text("before")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match=r"sweep.json cannot be written: No space left on device"):
        list_cells(tmp_path, [], [])
    assert (tmp_path / "sweep.json").read_bytes() == b"before"
