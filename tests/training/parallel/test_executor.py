"""Training in several processes: the same bits as `inline`, whatever happens on the way."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest

from halos import Update, all_of, hookimpl
from halos.command import FAILED
from halos.config.config import load_config
from halos.config.layers import merge, read
from halos.config.yaml_text import Section
from halos.errors import Died, Diverged
from halos.run.cli import ended, main, terminate
from halos.run.lifecycle import run
from halos.sim.simulation import Simulation
from halos.testing import record, resuming, tiny
from halos.testing.conformance import ExecutorConformance
from halos.testing.resuming import CHECKPOINTED
from halos.testing.witness import everything, fingerprint
from halos.training import Job, Outcome
from halos.training.inline import Inline
from halos.training.parallel import executor as parallel
from halos.training.parallel.executor import Parallel
from halos.training.parallel.pool import Pool
from tests.keeping import HERE
from tests.run.cutting import CASES, NOISY, TRANSFORMER, go_on, make, text, what_it_left
from tests.small_runs import Policy

TWO: Section = {"executor": {"name": "parallel", "processes": 2}}
ADAMW: Section = {"train": {"optimizer": {"name": "adamw"}}}
KEEPING: Section = {
    "model": {"name": "keeping", "noise": 0.1},
    "train": {"batch_size": 4},
}
OF_QUADRATIC = ("size", "optimum", "start", "wire_bytes")
BROKEN = """
from dataclasses import dataclass
import torch
from halos import hookimpl

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.theta = torch.nn.Parameter(torch.zeros(1))

    def forward(self, batch):
        loss = self.theta.sum()
        return loss if loss.item() == 0.0 else 1 / 0

@dataclass
class Broken:
    def build(self, vocab_size, seed):
        return Net()

@hookimpl
def register_models(register):
    register("broken", Broken)
"""


class TestConformance(ExecutorConformance):
    plugins: ClassVar[Sequence[str]] = ["halos.training.parallel.executor"]
    sections = ({"name": "parallel", "processes": 2},)
    tolerance = 0.0


def only(sections: Section) -> Section:
    """The same without what is only written, and what another component was to be told."""
    quiet = {"progress": False, "tensorboard": False, "trace": False}
    model = {key: value for key, value in sections["model"].items() if value is not None}
    if model["name"] != "quadratic":
        model = {key: value for key, value in model.items() if key not in OF_QUADRATIC}
    return {**sections, "observers": quiet, "model": model}


@pytest.mark.parametrize(
    ("case", "changes"),
    [
        ("diloco", {}),
        ("diloco", TRANSFORMER),
        ("async_local_sgd", ADAMW),
        ("halos, crashes", merge(ADAMW, {"faults": {"inner_state": "gone", "samples": "again"}})),
        ("halos", KEEPING),
        ("halos", merge(TRANSFORMER, {"train": {"precision": "fp16"}})),
    ],
)
def test_all_records_and_inner_states_are_those_of_inline(case: str, changes: Section) -> None:
    sections = only(merge(merge(NOISY, CASES[case][0]), changes))
    one, other = (record(each, [HERE]) for each in (sections, merge(sections, TWO)))
    assert everything(one) == everything(other)
    states = [fingerprint(run.config.executor.state()) for run in (one, other)]  # type: ignore[attr-defined]
    assert states[0] == states[1]


def test_a_checkpoint_is_that_of_inline_and_either_goes_on_from_the_others() -> None:
    """Of asynchronous AdamW, with jobs under way that are computed already."""
    sections = only(merge(merge(NOISY, CASES["async_local_sgd"][0]), ADAMW))
    at = (4, 11)
    (whole, theirs), (_, ours) = (
        resuming.trace(merge(each, CHECKPOINTED), at=at) for each in (sections, sections | TWO)
    )
    for mine, inlines in zip(ours, theirs, strict=True):
        assert mine.params.keys() == inlines.params.keys()
        assert fingerprint([mine.params, mine.numbers, mine.executor, mine.timeline]) == fingerprint(
            [inlines.params, inlines.numbers, inlines.executor, inlines.timeline]
        )
    for other, checkpoint in ((TWO, theirs[1]), ({}, ours[1])):
        resumed, _ = resuming.trace(merge(sections | other, CHECKPOINTED), earlier=checkpoint)
        assert resumed.lines == whole.lines


def test_a_finished_run_is_extended_by_either(tmp_path: Path) -> None:
    """And goes on in as many processes as it is given then."""
    both = {"longer": ["budget.local_steps=96"], "run": []}
    whole, folder = (make(tmp_path, text("halos"), *changes, out=out) for out, changes in both.items())
    go_on(folder, "executor.name=parallel", "executor.processes=2", "budget.local_steps=80")
    assert read(folder / "config.yaml")["executor"] == {
        "name": "parallel", "device": "cpu", "threads": 1, "processes": 2
    }  # fmt: skip
    go_on(folder, "executor.processes=1", "budget.local_steps=88")
    go_on(folder, "executor=inline", "budget.local_steps=96")
    for name in ("updates.jsonl", "commits.jsonl", "evaluations.jsonl"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()


def test_a_gradient_is_computed_elsewhere_and_a_step_along_it_here() -> None:
    async def body(sim: Simulation) -> None:
        updates = await all_of([sim.train(worker, sim.params, 1, gradient=True) for worker in sim.workers])
        # The loss is ½ Σ (θ − 1)², at θ = 0: a gradient of −1; a step of 0.1 along it is 0.1.
        for update in updates:
            assert update.delta.flat is not None and update.delta.flat.tolist() == [-1.0, -1.0]
        sim.commit(sim.inner_step(sim.params, updates[0].delta, 0), updates)

    run = record(tiny(budget={"local_steps": 2}, **TWO), policy=Policy(body))
    assert run.evaluations[-1].loss == pytest.approx(0.9**2)


def test_an_error_is_said_as_inline_says_it_and_where_the_results_due() -> None:
    found = []
    for executor in ({"executor": {"name": "inline"}}, TWO):
        sections = tiny(train={"optimizer": {"lr": 1e20}}, budget={"local_steps": 1000}, **executor)
        with pytest.raises(Diverged) as said:
            record(sections)
        found.append(str(said.value))
    assert found[0] == found[1] and "worker 0" in found[0]


def test_a_bug_in_a_model_is_raised_with_the_line_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(BROKEN, encoding="utf-8")
    with pytest.raises(ZeroDivisionError) as raised:
        record(tiny(**TWO) | {"model": {"name": "broken"}}, [str(tmp_path / "mine.py")])
    assert f'{tmp_path / "mine.py"}", line 13' in str(raised.value.__cause__)


class Killing:
    """Kills so many of the processes, when the second update has arrived."""

    def __init__(self, kills: int) -> None:
        self.kills, self.updates, self.pids = kills, 0, list[int]()

    @hookimpl
    def on_update(self, update: Update) -> None:
        self.updates += 1
        if self.updates == 2:
            self.pids = [child.pid for child in multiprocessing.active_children() if child.pid is not None]
            for pid in self.pids[: self.kills]:
                os.kill(pid, signal.SIGKILL)


def make_and_kill(tmp_path: Path, kills: int, out: str) -> tuple[Path, Killing, str]:
    """A run of 64 steps some of whose two processes are killed; what killed them, and how it ended."""
    killing, said = Killing(kills), ""
    (tmp_path / "c.yaml").write_text(text("halos", **TWO), encoding="utf-8")
    config, plugins = load_config(
        str(tmp_path / "c.yaml"), [f"out={tmp_path / out}", "checkpoint.every_local_steps=1", "observers.results=true"]
    )
    plugins.manager.register(killing)
    try:
        run(config, plugins)
    except Died as error:
        said = str(error)
    return tmp_path / out, killing, said


def test_what_a_process_that_is_killed_had_in_hand_another_does_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, folder = (make_and_kill(tmp_path, kills, out)[0] for kills, out in ((0, "whole"), (1, "run")))
    assert what_it_left(folder) == what_it_left(whole)
    (said,) = [message for message in caplog.messages if "executor parallel" in message]
    assert "was killed by SIGKILL (was memory short?) with job" in said
    assert said.endswith("in hand; the others train these again")


def test_a_run_whose_last_process_is_killed_ends_in_a_line_and_goes_on_from_its_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, _, _ = make_and_kill(tmp_path, 0, "whole")
    folder, killing, said = make_and_kill(tmp_path, 2, "run")
    assert killing.updates < 64 / 4
    assert re.fullmatch(
        rf"executor parallel: process ({killing.pids[0]}|{killing.pids[1]}) was killed by SIGKILL \(was memory"
        r" short\?\)( with job \d+ of worker \d( and job \d+ of worker \d)? in hand)?; no other is left",
        said,
    )
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["finished"] == f"failed: {said}"
    assert ended(Died(said), "halos") == FAILED
    assert capsys.readouterr().err.endswith(f"stopped: {said}; what was recorded until then is kept\n")
    assert what_it_left(go_on(folder)) == what_it_left(whole)


def begun(config: Path, said: Path) -> int:
    """A process that does what the command does, in a session of its own; its number."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, terminate)
        with said.open("w", buffering=1) as sys.stderr:
            os._exit(main([str(config), f"out={config.parent / 'run'}"]))
    return pid


@pytest.mark.parametrize(("given", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_however_it_is_ended_no_process_stays_behind(given: signal.Signals, code: int, tmp_path: Path) -> None:
    """Ctrl-C is said to all of them; the others to the first alone."""
    (tmp_path / "c.yaml").write_text(text("diloco", budget={"local_steps": 10**9}, **TWO), encoding="utf-8")
    pid = begun(tmp_path / "c.yaml", tmp_path / "said")
    records = tmp_path / "run/updates.jsonl"
    try:
        wait_until(lambda: not alive(pid) or (records.exists() and records.stat().st_size > 0))
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        assert len(children) == 2 and all(map(alive, children))
        (os.killpg if given == signal.SIGINT else os.kill)(pid, given)
        wait_until(lambda: not any(map(alive, [pid, *children])))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == code
    if code == 130:
        assert (tmp_path / "said").read_text() == "interrupted; what was recorded until then is kept\n"


def alive(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except OSError:
        return False


def wait_until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "in vain"
        time.sleep(0.02)


def of_auto(monkeypatch: pytest.MonkeyPatch, cores: int, seconds: float) -> tuple[list[int], int]:
    """With so many cores, and jobs of so many seconds: its pools' processes, and how many jobs it trains itself."""
    monkeypatch.setattr(parallel, "cores", lambda: cores)
    pools: list[int] = []
    here = []
    made, trained, clock = Pool.__init__, Inline._trained, [0.0]

    def noted(self: Pool, compute: Any, pack: Any, processes: int) -> None:
        pools.append(processes)
        made(self, compute, pack, processes)

    def timed(self: Inline, job: Job, *into: Any) -> Outcome:
        here.append(job.id)
        clock[0] += seconds
        return trained(self, job, *into)

    monkeypatch.setattr(Pool, "__init__", noted)
    monkeypatch.setattr(Inline, "_trained", timed)
    monkeypatch.setattr(parallel.time, "perf_counter", lambda: clock[0])
    record(tiny(executor={"name": "parallel"}, budget={"local_steps": 2 * 30}))  # 30 jobs of two workers
    return pools, len(here)


@pytest.mark.parametrize(
    ("cores", "seconds", "processes", "here"),
    [
        (1, 1.0, [], 30),  # nothing to gain
        (8, 0.1, [2], 4),  # at most one per worker; the first job does not count, three more are a quarter of a second
        (2, 0.001, [2], 30),  # too short to be sent elsewhere
        (2, 0.01, [2], 26),  # a quarter of a second of them, and the first
    ],
)
def test_auto_sends_jobs_away_where_that_pays(
    cores: int, seconds: float, processes: list[int], here: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert of_auto(monkeypatch, cores, seconds) == (processes, here)


def test_hardly_anything_is_computed_that_nobody_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten jobs of 2 s, one after another, and meanwhile seven of 100 s, which the run does not live to see."""
    given: list[int] = []
    pack = Parallel._pack

    def noted(self: Parallel, job: Job) -> Any:
        given.append(job.worker)
        return pack(self, job)

    async def body(sim: Simulation) -> None:
        theta = sim.params
        for worker in sim.workers[1:]:
            sim.train(worker, theta, 100)
        for _ in range(10):
            update = await sim.train(sim.workers[0], theta, 2)
            theta = update.params
            sim.commit(theta, [update])

    monkeypatch.setattr(Parallel, "_pack", noted)
    sections = tiny(cluster={"regions": [{"workers": [1.0] * 8}]}, budget={"local_steps": 20}, **TWO)
    assert len(record(sections, policy=Policy(body)).updates) == 10
    assert given.count(0) == 10
    assert sum(worker > 0 for worker in given) <= 5  # of seven: what two processes may be ahead
