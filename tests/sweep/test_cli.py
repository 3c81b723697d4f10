"""`python -m halos.sweep`: killed, interrupted, failing and repeated, it comes to the same table."""

from __future__ import annotations

import importlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from halos.run import cli as run
from halos.run.resuming import load_run
from halos.sweep.cli import _jobs, _work, main
from halos.sweep.folder import places
from halos.sweep.pool import ALWAYS
from tests.sweep.small import begun, cells, recorded, swept, tiny

ROOT = Path(__file__).parents[2]
# Stops in the middle of a run for a moment, so that it can be killed there, unless there is a file `hurry`.
SLOW = """
import os
import time
from dataclasses import dataclass
import halos
from halos import all_of, hookimpl

@dataclass
class Slow:
    seconds: float = 0.0

    async def run(self, sim):
        theta = sim.params
        for r in sim.rounds():
            updates = await all_of(sim.train(worker, theta, round=r) for worker in sim.workers)
            theta = halos.mean(update.delta for update in updates)
            sim.commit(theta, updates)
            time.sleep(0.0 if os.path.exists("hurry") else self.seconds)

@hookimpl
def register_sync_policies(register):
    register("slow", Slow)
"""


@pytest.fixture(scope="module", autouse=True)
def everything_is_imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """In this process, so that those which are forked from it need not."""
    folder = tmp_path_factory.mktemp("warm")
    for name in ALWAYS:
        importlib.import_module(name)
    assert run.main([tiny(folder), f"out={folder / 'run'}"]) == 0


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A configuration whose runs take 1 s, and have a checkpoint every 0.12 s; in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slow.py").write_text(SLOW)
    return tiny(
        tmp_path,
        plugins=["slow.py"],
        policy={"name": "slow", "seconds": 0.06},
        budget={"local_steps": 64},
        checkpoint={"every_local_steps": 8},
    )


def until_under_way(process: BaseProcess, folder: Path, already: set[Path], runs: int = 1) -> None:
    """Wait until so many runs have a checkpoint that was not there before."""
    deadline = time.monotonic() + 60
    while len({path.parent for path in {*folder.glob("*/checkpoints/events-*")} - already}) < runs:
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.02)


def test_killed_twice_it_ends_with_the_same_table_and_records(slow: str, tmp_path: Path) -> None:
    arguments = [slow, "seed=0..1", "train.optimizer.lr=0.1,0.2"]
    Path("hurry").touch()
    whole, _ = swept(*arguments, "--out", "whole", "--jobs", "2")
    Path("hurry").unlink()
    folder, ended = tmp_path / "killed", []
    for _ in range(2):
        before = set(folder.glob("*/checkpoints/events-*"))
        process = begun(*arguments, "--out", "killed", "--jobs", "2")
        until_under_way(process, folder, before)
        process.kill()
        process.join()
        ended.append(sum(path.exists() for path in folder.glob("*/summary.json")))
    assert ended[0] < 4 and ended[1] < 4, "or it was not killed while it was under way"
    Path("hurry").touch()
    again, _ = swept(*arguments, "--out", "killed", "--jobs", "2")
    assert again == whole and whole.count("\n") > 4
    assert recorded(folder) == recorded(tmp_path / "whole")
    assert len(recorded(folder)) == 4
    assert (folder / "sweep.json").read_bytes() == (tmp_path / "whole/sweep.json").read_bytes()
    assert swept(*arguments, "--out", "killed")[0] == whole, "and once more, when all is over"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_ends_its_runs_as_interrupted_ones(number: signal.Signals, slow: str, tmp_path: Path) -> None:
    process = begun(slow, "seed=0..3", "policy.seconds=0.5", "--out", "s", "--jobs", "2")
    until_under_way(process, tmp_path / "s", set(), runs=2)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join()
    assert (process.exitcode, Path("stderr").read_text().splitlines()[-1]) == (
        130,
        "interrupted; the same command goes on, with what its runs have kept",
    )
    states = [json.loads(path.read_text())["finished"] for path in tmp_path.glob("s/*/summary.json")]
    assert states == ["interrupted", "interrupted"]
    for path in tmp_path.glob("s/*/checkpoints/events-*"):
        load_run(path.parents[1], ())


def test_one_failure_neither_stops_nor_hides_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [tiny(tmp_path), "data.samples=64,10,128", "policy.outer.lr=1,1e30", "data.wrap=false", "--out", "s"]
    out, err = swept(*arguments, code=1)
    failures = [line for line in err.splitlines() if line.startswith("failed: ")]
    assert len(failures) == 2
    assert failures[0].startswith(
        "failed: data.samples 10, policy.outer.lr 1: data.wrap: false, but shard 0 has 2 samples"
    )
    log = Path(failures[0].rpartition("; see ")[2])
    assert log.read_text().startswith("error: data.wrap: false")
    rows = [line.split() for line in out.splitlines() if line.strip()][1:]
    assert [row[:2] + row[-1:] for row in rows if row[-1] in ("diverged", "finished")] == [
        ["64", "1e+30", "diverged"], ["10", "1", "finished"], ["10", "1e+30", "finished"], ["128", "1e+30", "diverged"]
    ]  # fmt: skip
    again, err = swept(*arguments, code=1)
    assert again == out
    assert "s | 4/6 cells | 2 failed | wall " in err, "a run that diverged is a result, one that failed is none"


def test_timed_first_only_the_front_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # A round of 2 or 4 steps sends the same, so fewer rounds send less and take no longer: 4 beats 2 and 1.
    config = tiny(tmp_path, network={"bandwidth_gbps": 1e-9})
    out, _ = swept(config, "steps.base=1,2,4", "seed=0,1", "--timing-first", "simulated_seconds,bytes", "--out", "s")
    rows = [line.split() for line in out.splitlines() if line.startswith("steps.base ")]
    assert [(row[1], "trained" in row) for row in rows[:3]] == [("1", False), ("2", False), ("4", True)]
    listed = json.loads(Path("s/sweep.json").read_text())["cells"]
    assert list(listed.values()) == [{"steps.base": 4, "seed": 0}, {"steps.base": 4, "seed": 1}]
    assert {path.name for path in Path("s").glob("*/model.pt")} == {"model.pt"}
    assert {path.parent.name for path in Path("s").glob("*/config.yaml")} == set(listed)
    assert len(list(Path("s/timing").glob("*/summary.json"))) == 6


def test_what_traffic_costs_is_known_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gigabyte to and fro in each round: of 2 steps for 2 workers, 2 rounds of 8 steps, $2 at 0.5 a GB; of 4, $1."""
    monkeypatch.chdir(tmp_path)
    config = tiny(
        tmp_path,
        cluster={"regions": [{"workers": [1.0]}, {"workers": [1.0]}], "step_time_ms": 1000.0},
        model={"name": "sized", "parameters": 250_000_000},
        executor={"name": "timing"},
        budget={"local_steps": 8},
    )
    first = ("--timing-first", "dollars,tokens", "--prices", "0.5", "--out", "s")
    out, _ = swept(config, "steps.base=2,4", *first)
    rows = [line.split()[:3] for line in out.splitlines() if line.startswith("steps.base ")][:2]
    assert rows == [["steps.base", "2", "2"], ["steps.base", "4", "1"]]
    assert [place.name[:6] for place in Path("s").glob("base=*")] == ["base=4"]


def test_a_dry_run_lists_the_cells_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = tiny(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main([config, "seed=0..2", "--dry-run"]) == 0
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines() if "runs/tiny-sweep" in line] == [
        ["to", "run"]
    ] * 3
    assert sorted(tmp_path.rglob("*")) == before


def test_there_are_as_many_processes_as_cores_by_the_threads_of_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for change, jobs in (("executor.threads=1", 8), ("executor.threads=3", 2), ("executor.threads=9", 1)):
        assert _jobs(cells(config, change, "seed=1,2", out=tmp_path)) == jobs
    assert _jobs(cells(config, "executor.name=timing", out=tmp_path)) == 8
    for processes, jobs in (("3", 2), ("auto", 1)):
        assert _jobs(cells(config, "executor.name=parallel", f"executor.processes={processes}", out=tmp_path)) == jobs


def test_the_longest_runs_come_first(tmp_path: Path) -> None:
    several = cells(
        tiny(tmp_path, evaluate={"every_local_steps": 8}, budget={"local_steps": None}),
        "budget={local_steps: 8},{trained_steps: 64, local_steps: 200},{tokens: 256},{target_loss: 0.1}",
        "train.batch_size=1,2",
        out=tmp_path,
    )
    # In tokens, 8 a sample; of a run that only a loss ends, nobody knows.
    assert [_work(place) for place in places(several, tmp_path)] == [
        64, 128, 512, 1024, 256, 256, math.inf, math.inf
    ]  # fmt: skip


def test_as_a_command_it_answers_without_loading_pytorch(tmp_path: Path) -> None:
    what = f"import runpy, sys; sys.argv[1:] = {[tiny(tmp_path), 'seed=0..2', '--dry-run']!r}\n"
    what += "try: runpy.run_module('halos.sweep', run_name='__main__', alter_sys=True)\n"
    what += "finally: print(type(sys.modules['torch']).__name__)"
    done = subprocess.run([sys.executable, "-c", what], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[-2:]) == (0, ["3 cells, 3 to run", "_Lazy"]), done.stderr


def test_many_cells_are_no_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    out, _ = swept(tiny(tmp_path), "executor.name=timing", "seed=0..9", "policy=diloco,halos", "--out", "s")
    assert len([line for line in out.splitlines() if line.strip()]) == 21
    assert len(list(Path("s").glob("*/summary.json"))) == 20
