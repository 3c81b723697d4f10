"""A cell in its process: the run that `python -m halos.run` would be, and it goes on where it was."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from halos.command import FAILED, MISTAKE
from halos.config.layers import read
from halos.run.cli import main
from halos.sweep.folder import Place, places, state
from halos.sweep.process import Log, attempt, work
from tests.sweep.small import RECORDS, cells, tiny

BROKEN = """
from dataclasses import dataclass
from halos import hookimpl

@dataclass
class Broken:
    async def run(self, sim):
        raise ValueError("a bug\\nin two lines")

@hookimpl
def register_sync_policies(register):
    register("broken", Broken)
"""


def place(config: str, *arguments: str, out: Path) -> Place:
    (found,) = places(cells(config, *arguments, out=out), out)
    return found


def test_it_is_the_run_that_its_command_line_is_bit_for_bit(tmp_path: Path) -> None:
    config = tiny(tmp_path)
    cell = place(config, "seed=3..3", "policy=halos", out=tmp_path / "out")
    told: list[float] = []
    assert attempt(cell, told.append) == 0
    assert main([config, "seed=3", "policy=halos", f"out={tmp_path / 'own'}"]) == 0
    for name in RECORDS:
        assert (cell.cell.folder / name).read_bytes() == (tmp_path / "own" / name).read_bytes() != b""
    assert told == sorted(told) and told[-1] == 1.0
    assert read(cell.cell.folder / "config.yaml")["labels"] == {"seed": 3}


def test_it_goes_on_from_its_checkpoint_with_the_labels_of_today(tmp_path: Path) -> None:
    config, out = tiny(tmp_path, checkpoint={"every_local_steps": 4}), tmp_path / "out"
    whole = place(config, "seed=1..1", out=tmp_path / "whole")
    assert attempt(whole, lambda share: None) == 0
    cell = place(config, "seed=1..1", out=out)
    assert attempt(cell, lambda share: None) == 0
    (cell.cell.folder / "summary.json").unlink()  # as if it had been killed
    cell = place(config, "seed=1..1", "labels.note=new", out=out)
    assert cell.state == "interrupted"
    assert attempt(cell, lambda share: None) == 0
    for name in RECORDS:
        assert (cell.cell.folder / name).read_bytes() == (whole.cell.folder / name).read_bytes()
    assert state(cell.cell.folder) == "finished"
    assert read(cell.cell.folder / "config.yaml")["labels"] == {"seed": 1, "note": "new"}


@pytest.mark.parametrize("left", ["damaged checkpoints", "no checkpoint", "half a config.yaml"])
def test_it_begins_again_if_there_is_nothing_to_go_on_from(left: str, tmp_path: Path) -> None:
    config, out = tiny(tmp_path), tmp_path / "out"
    cell = place(config, "seed=1..1", out=out)
    assert attempt(cell, lambda share: None) == 0
    records = {name: (cell.cell.folder / name).read_bytes() for name in RECORDS}
    (cell.cell.folder / "summary.json").unlink()
    (cell.cell.folder / "commits.jsonl").write_text('{"cut off')
    for path in (cell.cell.folder / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:100])
        if left != "damaged checkpoints":
            path.unlink()
    if left == "half a config.yaml":
        (cell.cell.folder / "config.yaml").write_text("name: t\n")
    assert attempt(place(config, "seed=1..1", out=out), lambda share: None) == 0
    assert {name: (cell.cell.folder / name).read_bytes() for name in RECORDS} == records
    assert state(cell.cell.folder) == "finished"


def test_how_it_ended_is_its_last_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    config, nothing = tiny(tmp_path), lambda share: None
    plugin = f"plugins=[{tmp_path / 'broken.py'}]"
    for arguments, code, last in (
        (["policy=broken", plugin], FAILED, "failed: ValueError: a bug in two lines"),
        (["policy.outer.lr=1e30"], FAILED, "stopped: "),
        (["data.wrap=false", "data.samples=10"], MISTAKE, "error: data.wrap: false, but shard 0 has"),
    ):
        assert attempt(place(config, *arguments, out=tmp_path / "out"), nothing) == code
        assert capsys.readouterr().err.splitlines()[-1].startswith(last)


def test_a_full_disk_does_not_keep_it_from_saying_what_is_wrong(tmp_path: Path) -> None:
    files = os.dup(1), os.dup(2)
    try:
        log = Log(tmp_path / "log")
        print("one\ntwo \N{SNOWMAN} \udcff\n\n", file=log, end="")
        assert (tmp_path / "log").read_bytes() == "one\ntwo ☃ \\udcff\n\n".encode()
        os.write(1, b"a library\n")
        assert (tmp_path / "log").read_bytes().endswith(b"a library\n")
        with open("/dev/full", "w") as full:
            os.dup2(full.fileno(), 2)
            print("error: no room", file=log)
    finally:
        for number, file in enumerate(files, 1):
            os.dup2(file, number)
    assert log.last == "error: no room"


def test_its_process_ends_with_the_one_that_began_it(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        BROKEN.replace('raise ValueError("a bug\\nin two lines")', "__import__('time').sleep(60)")
    )
    cell = place(tiny(tmp_path), "policy=broken", f"plugins=[{tmp_path / 'slow.py'}]", out=tmp_path / "out")
    cell.log.parent.mkdir(parents=True)
    context = multiprocessing.get_context("fork")
    alive, held = context.Pipe(duplex=False)
    modules, theirs = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(cell, lambda share: None, theirs, alive, held))
    process.start()
    process.join(0.5)
    assert process.is_alive()
    held.close()
    process.join(10)
    assert process.exitcode == -signal.SIGKILL
    modules.close()
