"""Jobs in actors on two nodes: the bits of `inline`, whatever happens on the way."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest

pytest.importorskip("ray")

from halos_ray import Ray
from halos_ray.cluster import reach
from halos_ray.crew import Crew, Given, Inner, Member
from halos_ray.seat import Place

from halos import ConfigError, Diverged, Job, Outcome
from halos.testing import main, record, tiny
from halos.testing.conformance import ExecutorConformance
from halos.testing.witness import everything, fingerprint

TWO = {"executor": {"name": "ray", "actors": 2, "cpus_per_actor": 0.25}}
NOISY = tiny(
    cluster={"regions": [{"workers": [1.0, 0.7]}, {"workers": [0.4, 0.9]}]},
    network={"bandwidth_gbps": 0.001},
    model={"name": "quadratic", "size": 3, "noise": 0.3, "wire_bytes": 200_000},
    data={"samples": 4096, "validation_samples": 4},
    train={"optimizer": {"name": "adamw", "lr": 0.03}},
    policy={"name": "halos"},
    steps={"base": 4},
    budget={"local_steps": 64},
    evaluate={"every_local_steps": 24},
    observers={"progress": False, "tensorboard": False, "trace": False},
)
# Large enough for Ray's store: smaller vectors travel with the messages.
LARGE = {"model": {"name": "quadratic", "size": 30_000, "noise": 0.3, "wire_bytes": 200_000}}


@pytest.mark.usefixtures("lasting")
class TestConformance(ExecutorConformance):
    plugins: ClassVar[Sequence[str]] = ["halos_ray"]
    sections = (TWO["executor"],)
    tolerance = 0.0


@pytest.mark.usefixtures("lasting")
@pytest.mark.parametrize(
    "changes",
    [
        LARGE,
        {"faults": {"name": "crashes", "between_failures_hours": 0.008, "to_repair_hours": 0.001,
                    "inner_state": "gone", "samples": "again"}},
        {"train": {"precision": "fp16"}, "model": {"name": "gpt_neox", "hidden_size": 8, "layers": 1, "heads": 2,
                   "wire_bytes": 200_000, "size": None, "noise": None, "optimum": None, "start": None}},
    ],
    ids=["large", "crashes", "fp16"],
)  # fmt: skip
def test_all_records_and_inner_states_are_those_of_inline(changes: dict[str, Any]) -> None:
    sections = merged(NOISY, changes)
    one, other = (record(each) for each in (sections, merged(sections, TWO)))
    assert everything(one) == everything(other)
    states = [fingerprint(run.config.executor.state()) for run in (one, other)]  # type: ignore[attr-defined]
    assert states[0] == states[1]


def merged(sections: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The same with these keys changed; null: without it."""
    result = dict(sections)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        if both and value.get("name", result[key].get("name")) == result[key].get("name"):
            value = merged(result[key], value)
        elif isinstance(value, dict):
            value = {name: each for name, each in value.items() if each is not None}
        result[key] = value
    return result


@pytest.mark.usefixtures("lasting")
def test_an_error_is_said_as_inline_says_it_and_when_the_result_is_due() -> None:
    found = []
    for executor in ({}, TWO):
        with pytest.raises(Diverged) as said:
            record(tiny(train={"optimizer": {"lr": 1e20}}, budget={"local_steps": 1000}, **executor))
        found.append(str(said.value))
    assert found[0] == found[1] and "worker 0" in found[0]


@pytest.mark.usefixtures("lasting")
def test_plugins_that_are_files_are_there_in_actors_and_so_are_the_lines_of_their_bugs(tmp_path: Path) -> None:
    """A package's file, whose model is at 0.5 and fails after the first step; the actor has never heard of it."""
    package = tmp_path / "mine" / "__init__.py"
    package.parent.mkdir()
    package.write_text(PLUGIN, encoding="utf-8")
    (package.parent / "net.py").write_text(NET, encoding="utf-8")
    sections = merged(tiny(**TWO), {"model": {"name": "mine", "start": 0.5}})
    one_step = merged(sections, {"steps": {"base": 1}, "budget": {"local_steps": 2}})
    (thetas,) = [record(one_step, [str(package)]).thetas]
    assert thetas == pytest.approx([0.4])  # the loss is θ, the gradient 1, a step 0.1
    with pytest.raises(ZeroDivisionError) as raised:
        record(sections, [str(package)])
    assert f'{package.parent / "net.py"}", line 11' in str(raised.value.__cause__)


PLUGIN = """
from dataclasses import dataclass
from halos import hookimpl
from .net import Net

@dataclass
class Mine:
    start: float = 0.0

    def build(self, vocab_size, seed):
        return Net(self.start)

@hookimpl
def register_models(register):
    register("mine", Mine)
"""
NET = """
import torch

class Net(torch.nn.Module):
    def __init__(self, start):
        super().__init__()
        self.start = start
        self.theta = torch.nn.Parameter(torch.full((1,), start))

    def forward(self, batch):
        return self.theta.sum() if self.theta.item() >= self.start - 0.15 else 1 / 0
"""


@pytest.mark.usefixtures("lasting")
def test_a_model_is_put_into_the_store_once_and_inner_states_hardly_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight workers start from one model, four rounds long; where an inner state is brought, it takes a minute."""
    put, vectors, orders = Crew._start, set[Any](), []

    def start(self: Crew, job: Job) -> Any:
        reference = put(self, job)
        vectors.add(reference)
        return reference

    soonest = Crew._soonest

    def chosen(self: Crew, job: Job, inner: Inner | None) -> Member | None:
        for member in self.members:
            member.moving = 60.0
        member = soonest(self, job, inner)
        if member is not None and len(member.given) < 2:
            orders.append(inner is not None and member.holds.get(job.worker) != inner.job)
        return member

    monkeypatch.setattr(Crew, "_start", start)
    monkeypatch.setattr(Crew, "_soonest", chosen)
    sections = tiny(cluster={"regions": [{"workers": [1.0] * 8}]}, budget={"local_steps": 64}, **TWO)
    assert len(record(sections).updates) == len(orders) == 32
    assert len(vectors) == 4 and not any(orders)


@pytest.mark.usefixtures("lasting")
def test_a_node_whose_data_are_others_and_a_cluster_that_is_too_small_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"^executor\.actors: 17 is not at most 16, for which the cluster has room$"):
        record(tiny(executor={**TWO["executor"], "actors": 17}))
    monkeypatch.setattr(Ray, "describe", lambda self: {"hash": "mine"})
    with pytest.raises(ConfigError, match=r"^data: on node [\d.]+, they are others than here: .* instead of .*'mine'"):
        record(tiny(**TWO))


@pytest.mark.parametrize(("moving", "number"), [(0.3, 1), (0.5, 0)])
def test_a_worker_moves_where_that_pays(moving: float, number: int) -> None:
    """At home 4 steps wait, of 0.1 s: its own 2 are done in 0.6 s. The other has none: in 0.2 s, after the move."""
    home, other = (
        Member(each, None, Place("", "", 0), holds=holds, pace=0.1) for each, holds in enumerate(({0: 7}, {}))
    )
    home.given, other.moving = [Given(job(8, 1, steps=4), None, None)], moving
    crew = Crew.__new__(Crew)
    crew.members = [home, other]
    chosen = crew._soonest(job(9, 0, steps=2), Inner(7, {}, None))
    assert chosen is not None and chosen.number == number
    assert crew._soonest(job(9, 2, steps=2), None) is other  # a new one has nothing to be moved


def job(id: int, worker: int, steps: int) -> Job:
    return Job(id, worker, None, steps, 0, 0, steps, 0, 0.0)  # type: ignore[arg-type]


Deed = Callable[[Crew], None]


def made(folder: Path, deeds: dict[int, Deed], patch: pytest.MonkeyPatch, **changes: Any) -> int:
    """A run into a folder, to whose crew things are done when so many results have been asked for; the exit code."""
    asked, result = [0], Ray.result

    def counted(self: Ray, job: Job) -> Outcome:
        asked[0] += 1
        if asked[0] in deeds:
            deeds[asked[0]](self._crew)
        return result(self, job)

    patch.setattr(Ray, "result", counted)
    sections = merged(merged(NOISY, LARGE), {"checkpoint": {"every_local_steps": 1}, **changes})
    config = folder.with_suffix(".yaml")
    config.write_text(json.dumps(sections), encoding="utf-8")  # JSON is YAML
    return main([str(config), f"out={folder}", "observers.results=true"])


def left(folder: Path) -> dict[str, bytes]:
    """What a run has left that is the same whoever has trained it."""
    names = ("updates.jsonl", "commits.jsonl", "evaluations.jsonl", "transfers.jsonl", "model.pt")
    found = {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}
    assert len(found) >= 4
    return found


@pytest.mark.long
def test_what_dies_is_named_and_others_train_its_jobs_again_until_nobody_is_left(
    cluster: Any,
    hired: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of three actors on two nodes one is killed, then a node, then the last, from which `inline` goes on."""
    assert made(tmp_path / "whole", {}, monkeypatch) == 0
    head, (node,) = cluster.head_node, cluster.worker_nodes
    on: dict[str, list[Member]] = {}

    def kill(crew: Crew) -> None:
        """One of the two that are on one node."""
        for member in crew.members:
            on.setdefault(member.place.node, []).append(member)
        assert on.keys() == {head.node_id, node.node_id}
        os.kill(max(on.values(), key=len)[0].place.pid, signal.SIGKILL)

    def kill_node(crew: Crew) -> None:
        assert len(crew.members) == 2
        cluster.remove_node(node, allow_graceful=False)

    def kill_last(crew: Crew) -> None:
        (last,) = crew.members
        assert last.place.node == head.node_id
        os.kill(last.place.pid, signal.SIGKILL)

    executor = {"name": "ray", "actors": 3, "cpus_per_actor": 0.25}
    capsys.readouterr()
    assert made(tmp_path / "run", {4: kill, 8: kill_node, 13: kill_last}, monkeypatch, executor=executor) == 1
    cluster.add_node(num_cpus=2, include_dashboard=False)
    hired.clear()  # some may have been on the other one
    first, second = [message for message in caplog.messages if "executor ray" in message]
    whose = r"executor ray: actor \d \(process \d+ on node [\d.]+\) "
    jobs = r"with job \d+ of worker \d( and job \d+ of worker \d)? in hand"
    assert re.fullmatch(rf"{whose}has ended {jobs}; the others train these again", first)
    assert re.match(rf"{whose}is dead, and its node", second)
    assert re.search(rf"stopped: {whose}has ended( {jobs})?; no other is left; what", capsys.readouterr().err)
    assert main(["--resume", str(tmp_path / "run"), "executor=inline"]) == 0
    assert left(tmp_path / "run") == left(tmp_path / "whole")


@pytest.mark.long
@pytest.mark.parametrize(("given", "local"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_interrupted_it_leaves_nobody_behind_but_a_cluster_that_it_had_joined(
    given: signal.Signals, local: bool, cluster: Any, tmp_path: Path
) -> None:
    """Ctrl-C is said to all of the terminal's processes, SIGTERM to the first alone; Ray itself says nothing."""
    address = "local" if local else cluster.address
    sections = merged(
        NOISY, {"budget": {"local_steps": 10**9}, "executor": {"name": "ray", "actors": 1, "address": address}}
    )
    config, records = tmp_path / "c.yaml", tmp_path / "run" / "updates.jsonl"
    config.write_text(json.dumps(sections), encoding="utf-8")
    command = [sys.executable, "-m", "halos.run", str(config), f"out={tmp_path / 'run'}"]
    before = actors()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            wait_until(lambda: process.poll() is not None or (records.exists() and records.stat().st_size > 0))
            ours = descendants(process.pid) if local else actors() - before
            assert ours and all(map(alive, ours))
            (os.killpg if given == signal.SIGINT else os.kill)(process.pid, given)
            _, said = process.communicate(timeout=60)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, said) == (130, "interrupted; what was recorded until then is kept\n")
    wait_until(lambda: not any(map(alive, ours)))
    assert all(node.any_processes_alive() for node in cluster.list_all_nodes())


def processes() -> dict[int, tuple[int, str]]:
    """By number, the parent and the name of every process that has not ended."""
    found = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            number, name, state, parent = re.match(r"(\d+) \((.*)\) (.) (\d+)", status.read_text(), re.S).groups()  # type: ignore[union-attr]
            if state != "Z":
                found[int(number)] = int(parent), name
    return found


def actors() -> set[int]:
    return {number for number, (_, name) in processes().items() if name.startswith("ray::Seat")}


def descendants(pid: int) -> set[int]:
    there = processes()
    found, more = set[int](), {pid}
    while more:
        found |= more
        more = {number for number, (parent, _) in there.items() if parent in found} - found
    return found - {pid}


def alive(pid: int) -> bool:
    return pid in processes()


def wait_until(true: Callable[[], bool], seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "in vain"
        time.sleep(0.1)


def test_an_address_where_nobody_answers_is_said_before_ray_looks_for_it_for_minutes() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"  # bound, and nobody listens
        with pytest.raises(
            ConfigError, match=rf"^address: nobody answers at '{address}' .*; it is host:port of a cluster$"
        ):
            reach(address)
    with pytest.raises(ConfigError, match=r"^address: nobody answers at 'here'"):
        reach("here")
