"""Runs in which something goes wrong, small enough to work out by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from halos import Event, Lost, Params, Register, Update, all_of, hookimpl
from halos.errors import ConfigError
from halos.run.cli import main
from halos.sim.clock import Deadlock
from halos.sim.simulation import Simulation
from halos.testing import record, tiny, two_workers
from halos.testing.recording import Recording
from halos.testing.resuming import problem
from halos.testing.witness import everything, first_difference, timeline
from halos.training.inline import Inline
from halos.world.cluster import Cluster, Region, Worker
from halos.world.faults import Crashes, FaultOptions, MessageLoss

HERE = str(Path(__file__))
AVERAGE = {"name": "sgd", "lr": 1.0}
MB_PER_S = {"bandwidth_gbps": 0.008}
FOUR_MB = {"name": "sized", "parameters": 1_000_000}
TWO_REGIONS = {"regions": [{"workers": [1.0]}, {"workers": [1.0]}], "step_time_ms": 1000.0}
ONE_WORKER = {"regions": [{"workers": [1.0]}], "step_time_ms": 1000.0}


@dataclass
class Losing(FaultOptions):
    """Loses the messages of these numbers, and has worker 1 down from one time to another."""

    messages: list[int] = field(default_factory=list)
    down: tuple[float, float] = (math.inf, math.inf)

    def loses(self, message: int) -> bool:
        return message in self.messages

    def outage(self, worker: Worker, time: float) -> tuple[float, float]:
        return self.down if worker.id == 1 and time < self.down[1] else (math.inf, math.inf)


@dataclass
class Half:
    """Sends half of everything, and the rest with the next."""

    error_feedback: bool = True

    def roundtrip(self, payload: Params) -> Params:
        return 0.5 * payload

    def wire_bytes(self, payload: Params) -> int:
        return 2 * payload.size


@dataclass
class Stubborn:
    """Does not know of faults; `beside`: its rounds are a process that nobody awaits."""

    beside: bool = False

    async def run(self, sim: Simulation) -> None:
        if self.beside:
            sim.spawn(self._work(sim))
            await sim.sleep(1e6)
        else:
            await self._work(sim)

    async def _work(self, sim: Simulation) -> None:
        for r in sim.rounds():
            updates = await all_of([sim.train(worker, sim.params, round=r) for worker in sim.workers])
            sim.commit(updates[0].params, updates)


@hookimpl
def register_fault_models(register: Register) -> None:
    register("losing", Losing)


@hookimpl
def register_codecs(register: Register) -> None:
    register("half", Half)


@hookimpl
def register_sync_policies(register: Register) -> None:
    register("stubborn", Stubborn)


@dataclass
class Policy:
    """A policy from a coroutine function."""

    body: Callable[[Simulation], Coroutine[Any, None, None]]

    async def run(self, sim: Simulation) -> None:
        await self.body(sim)


def crash(worker: int, at: float, seconds: float = math.inf, **options: Any) -> dict[str, Any]:
    return {"name": "crashes", "at": [{"worker": worker, "at_seconds": at, "seconds": seconds}], **options}


def outage(region: int, at: float, seconds: float = math.inf, **options: Any) -> dict[str, Any]:
    return {"name": "outages", "at": [{"region": region, "at_seconds": at, "seconds": seconds}], **options}


def link(at: float, seconds: float, share: float) -> dict[str, Any]:
    return {"name": "links", "at": [{"src": 0, "dst": 1, "at_seconds": at, "seconds": seconds, "share": share}]}


def timing(body: Callable[[Simulation], Coroutine[Any, None, None]], **changes: Any) -> Recording:
    return record(tiny(executor={"name": "timing"}, model=FOUR_MB, **changes), policy=Policy(body))


def one_async_worker(faults: dict[str, Any], steps: int, **train: Any) -> Recording:
    """One worker, 2 steps of 1 s a job, that pulls and pushes in no time."""
    policy = {"name": "async_local_sgd", "outer": AVERAGE}
    model = {"dtype": "float64", "size": 1}
    sections = tiny(cluster=ONE_WORKER, policy=policy, model=model, faults=faults, budget={"local_steps": steps})
    return record(sections | {"train": sections["train"] | train})


def adds_up(run: Recording) -> bool:
    """What was dispatched has arrived, is lost, or is under way."""
    sim = run.simulation
    arrived = sum(update.steps for update in run.updates)
    return arrived == sim.ledger.trained and (
        sim.ledger.trained == sim.ledger.committed + sim.ledger.dropped + sim.ledger.in_flight
        and sim.jobs.count == len(run.updates) + sim.losses.jobs + len(sim.jobs.running)
        and sim.jobs.dispatched - sim.ledger.trained - sim.ledger.lost == 2 * len(sim.jobs.running)
    )


# Jobs, transfers and collectives


def test_a_crash_in_the_middle_of_a_job_is_told_after_the_detection_time() -> None:
    seen: list[Any] = []

    async def body(sim: Simulation) -> None:
        worker = sim.workers[0]
        with pytest.raises(Lost, match=r"^job 0 of worker 0 lost at 1.5 s: worker 0 was down$") as lost:
            await sim.train(worker, sim.params, 4)
        seen.extend([sim.now, lost.value.when, sim.faults.up(worker)])
        with pytest.raises(Lost):  # it is down, and that is known by now
            await sim.train(worker, sim.params, 4)
        seen.append(sim.now)
        await sim.faults.returned(worker)
        seen.extend([sim.now, sim.faults.up(worker), sim.faults.up(worker, since=3.4)])
        await sim.train(worker, sim.params, 4)
        seen.append(sim.now)

    run = timing(body, faults=crash(0, 1.5, 2.0, detection_seconds=0.75))
    assert seen == [2.25, 1.5, False, 2.25, 3.5, True, False, 7.5]
    assert (run.simulation.ledger.lost, run.simulation.ledger.trained, run.simulation.losses.jobs) == (8, 4, 2)


def test_a_link_at_half_its_bandwidth_in_the_middle_of_a_transfer() -> None:
    ends: list[float] = []

    async def body(sim: Simulation) -> None:
        await sim.send(sim.params, 0, 1)  # 2 MB by 2 s, 1 MB more by 4 s, the last MB by 5 s
        ends.append(sim.now)

    timing(body, cluster=TWO_REGIONS, network=MB_PER_S, faults=link(2.0, 2.0, 0.5))
    assert ends == [pytest.approx(5.0)]


def test_a_link_at_half_its_bandwidth_in_the_middle_of_a_collective() -> None:
    # Two steps until 2 s; of the all-reduce's 4 s one until 3 s, one until 5 s, and two until 7 s.
    sections = tiny(executor={"name": "timing"}, model=FOUR_MB, cluster=TWO_REGIONS, network=MB_PER_S)
    assert record(sections | {"faults": link(3.0, 2.0, 0.5)}).commits[0].time == pytest.approx(7.0)
    assert record(sections | {"faults": link(3.0, 7.0, 0.0)}).commits[0].time == pytest.approx(13.0)


def test_an_asynchronous_job_on_a_link_at_half_its_bandwidth() -> None:
    async def body(sim: Simulation) -> None:
        await sim.train(sim.workers[1], sim.params, 3, server=0)

    run = timing(body, cluster=TWO_REGIONS, network=MB_PER_S, faults=link(2.0, 7.0, 0.5))
    pull, push = run.transfers
    # 2 MB by 2 s, the other 2 MB by 6 s; three steps by 9 s, when the link is as ever.
    assert [pull.time, run.updates[0].compute, push.time] == [
        pytest.approx(6.0), pytest.approx((6.0, 9.0)), pytest.approx(13.0),
    ]  # fmt: skip


def test_a_fault_that_never_comes_changes_nothing() -> None:
    never = {
        "name": "several",
        "of": [crash(0, 1e9), outage(1, 1e9, 1.0), link(1e9, 1.0, 0.5), {"name": "message_loss", "probability": 0.0}],
    }
    for policy in ("diloco", "async_local_sgd", "halos"):
        sections = tiny(cluster=TWO_REGIONS, network={"bandwidth_gbps": 3e-7}, policy={"name": policy})
        sections = sections | {"budget": {"local_steps": 70}}
        run, same = record(sections), record(sections | {"faults": never})
        assert first_difference(everything(run), everything(same)) is None


def test_giving_a_job_to_a_worker_that_is_down_again_and_again_is_an_error() -> None:
    async def body(sim: Simulation) -> None:
        while True:
            with suppress(Lost):
                await sim.train(sim.workers[0], sim.params)

    with pytest.raises(RuntimeError, match=r"jobs lost at 1 s.*await sim\.faults\.returned\(worker\)"):
        timing(body, faults=crash(0, 1.0))


# DiLoCo


def test_a_diloco_worker_whose_message_is_lost_goes_on_from_its_own_parameters() -> None:
    """A round leaves 0.81 and 0.9 of 1 − θ; worker 1's first message is lost (arXiv 2311.08105)."""
    run = record(two_workers(rounds=2, faults={"name": "losing", "messages": [1]}), plugins=[HERE])
    assert run.thetas == pytest.approx([1 - 0.81, 1 - (0.81**2 + 0.9**2) / 2])
    assert [commit.local_steps for commit in run.commits] == [2, 6]
    assert [share.steps for share in run.commits[1].shares] == [2, 2]  # both of worker 1's rounds
    assert run.simulation.faults.lost() == {"jobs": 0, "messages": 1}


def test_a_diloco_worker_that_crashed_starts_from_the_global_parameters() -> None:
    run = record(two_workers(rounds=2, faults=crash(1, 0.5, 1.0)))
    theta = [1 - 0.81, 1 - (0.81**2 + 0.81 * 0.9) / 2]
    # Six steps are the budget: the step that was lost takes another round.
    assert run.thetas == pytest.approx([*theta, 1 - (1 - theta[1]) * (0.81 + 0.9) / 2])
    assert [commit.local_steps for commit in run.commits] == [2, 5, 8]
    assert run.simulation.ledger.lost == 1


def test_a_round_in_which_nobodys_message_arrives_has_no_commit_and_everybody_goes_on() -> None:
    run = record(two_workers(rounds=2, faults={"name": "losing", "messages": [0, 1]}), plugins=[HERE])
    assert [commit.time for commit in run.commits] == pytest.approx([4.0])
    assert run.thetas == pytest.approx([1 - (0.81**2 + 0.9**2) / 2])
    assert run.commits[0].local_steps == 6


def test_what_a_diloco_worker_did_not_deliver_is_gone_if_it_crashes_afterwards() -> None:
    faults = {"name": "losing", "messages": [1], "down": [2.5, 3.5]}
    run = record(two_workers(rounds=2, faults=faults), plugins=[HERE])
    assert run.thetas[:2] == pytest.approx([1 - 0.81, 1 - 0.81**2])
    assert (run.simulation.ledger.dropped, run.simulation.ledger.lost) == (1, 1)
    assert run.commits[-1].local_steps >= 6


def test_what_a_diloco_worker_trained_is_gone_if_it_crashes_before_the_collective() -> None:
    # Worker 0 takes 2 s for its two steps, worker 1 4 s; worker 0 is down meanwhile.
    cluster = {"regions": [{"workers": [1.0, 0.5]}], "step_time_ms": 1000.0}
    run = record(tiny(cluster=cluster, faults=crash(0, 2.5, 1.0), budget={"local_steps": 4}))
    assert [[share.updates[0].worker for share in commit.shares] for commit in run.commits] == [[1], [0, 1]]
    assert run.simulation.ledger.dropped == 2


def test_diloco_goes_on_without_a_region_that_is_out_even_in_the_middle_of_a_collective() -> None:
    sections = tiny(
        executor={"name": "timing"}, model=FOUR_MB, cluster=TWO_REGIONS, network=MB_PER_S, faults=outage(1, 4.0),
        budget={"local_steps": 6},
    )  # fmt: skip
    run = record(sections)
    # The all-reduce from 2 s on is lost at 4 s; from then on worker 0 is alone, and needs none.
    assert [commit.time for commit in run.commits] == pytest.approx([6.0, 8.0])
    assert [len(share.updates) for commit in run.commits for share in commit.shares] == [2, 1]


def test_diloco_waits_for_the_first_worker_to_return_and_is_stuck_if_none_ever_does() -> None:
    down = {"name": "crashes", "at": [{"worker": 0, "at_seconds": 3, "seconds": 10}, {"worker": 1, "at_seconds": 3}]}
    run = record(tiny(faults=down, budget={"local_steps": 6}))
    assert [commit.time for commit in run.commits] == pytest.approx([2.0, 15.0])
    for_ever = tiny(faults={"name": "crashes", "at": [{"worker": each, "at_seconds": 3} for each in (0, 1)]})
    with pytest.raises(Deadlock, match=r"nothing is left to happen at 3 s.*; workers 0, 1 are down for ever$"):
        record(for_ever)
    timed = record(for_ever | {"budget": {"simulated_hours": 1}})
    assert (timed.simulation.now, timed.simulation.ledger.committed) == (3600.0, 4)


# Asynchronous policies


def test_asynchronous_local_sgd_misses_an_update() -> None:
    run = one_async_worker(crash(0, 3.0, 2.0), steps=6)
    assert [update.time for update in run.updates] == pytest.approx([2.0, 7.0, 9.0])
    assert run.thetas == pytest.approx([1 - 0.81, 1 - 0.81**2, 1 - 0.81**3])
    assert run.simulation.ledger.lost == 2


def test_a_worker_that_cannot_reach_its_server_starts_again_when_it_can() -> None:
    sections = tiny(
        executor={"name": "timing"}, model=FOUR_MB, cluster=TWO_REGIONS, network=MB_PER_S, budget={"local_steps": 8},
        policy={"name": "async_local_sgd", "outer": AVERAGE}, faults=link(3.0, 20.0, 0.0),
    )  # fmt: skip
    run = record(sections)
    # Worker 0 pulls 4 s, computes 2 s, pushes 4 s. Worker 1's pull is lost at 3 s; it begins again at 23 s.
    assert [(update.worker, update.time) for update in run.updates] == [
        (0, pytest.approx(10.0)), (0, pytest.approx(20.0)), (0, pytest.approx(30.0)), (1, pytest.approx(33.0)),
    ]  # fmt: skip
    assert run.simulation.faults.lost() == {"jobs": 1, "messages": 1}


@pytest.mark.parametrize(("samples", "dealt"), [("lost", (4, 6)), ("again", (2, 4))])
def test_samples_of_a_lost_job_are_lost_or_dealt_again_and_learning_rates_are_the_same(
    samples: str, dealt: tuple[int, int]
) -> None:
    run = one_async_worker(crash(0, 3.0, 2.0, samples=samples), steps=4)
    assert [update.samples for update in run.updates] == [(0, 2), dealt]
    assert [update.lr_step for update in run.updates] == [0, 2]


def momentum_sgd(theta: float, velocity: float) -> tuple[float, float]:
    """Two steps of rate 0.1 and momentum 0.9 on ½ (θ − 1)²."""
    for _ in range(2):
        velocity = 0.9 * velocity + (theta - 1.0)
        theta -= 0.1 * velocity
    return theta, velocity


@pytest.mark.parametrize("inner_state", ["kept", "gone"])
def test_a_crashed_workers_inner_state_is_kept_as_at_the_start_of_the_lost_job_or_gone(inner_state: str) -> None:
    sgd = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0}
    run = one_async_worker(crash(0, 3.0, 2.0, inner_state=inner_state), steps=4, optimizer=sgd)
    first, velocity = momentum_sgd(0.0, 0.0)
    second, _ = momentum_sgd(first, velocity if inner_state == "kept" else 0.0)
    assert run.thetas == pytest.approx([first, second])


def test_the_inner_state_is_gone_as_well_if_a_worker_crashes_between_its_jobs() -> None:
    # Worker 1 waits from 2 s to 4 s for worker 0; it is down in between, and its update with it.
    sgd = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0}
    cluster = {"regions": [{"workers": [0.5, 1.0]}], "step_time_ms": 1000.0}
    sections = tiny(cluster=cluster, model={"dtype": "float64", "size": 1}, budget={"local_steps": 6})
    sections = sections | {"train": sections["train"] | {"optimizer": sgd}}
    thetas = {
        each: record(sections | {"faults": crash(1, 2.5, 1.0, inner_state=each)}).thetas for each in ("kept", "gone")
    }
    first, velocity = momentum_sgd(0.0, 0.0)
    on, new = momentum_sgd(first, velocity)[0], momentum_sgd(first, 0.0)[0]
    assert thetas["kept"][:2] == pytest.approx([first, on])
    assert thetas["gone"][:2] == pytest.approx([first, (on + new) / 2])


def test_what_was_only_lost_on_its_way_back_has_changed_the_inner_state() -> None:
    sgd = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0}
    sections = tiny(
        cluster=ONE_WORKER, model={"dtype": "float64", "size": 1}, budget={"local_steps": 2},
        policy={"name": "async_local_sgd", "outer": AVERAGE}, faults={"name": "losing", "messages": [1]},
    )  # fmt: skip
    run = record(sections | {"train": sections["train"] | {"optimizer": sgd}}, plugins=[HERE])  # 1: the first push
    _, velocity = momentum_sgd(0.0, 0.0)
    assert run.thetas == pytest.approx([momentum_sgd(0.0, velocity)[0]])


@pytest.mark.parametrize("inner_state", ["kept", "gone"])
def test_a_lost_push_leaves_error_feedback_alone_and_a_crash_keeps_it_or_not(inner_state: str) -> None:
    """A job moves by 0.19 of 1 − θ, of which half arrives, and the other half with the next that does."""
    sections = tiny(
        cluster=ONE_WORKER, model={"dtype": "float64", "size": 1}, budget={"local_steps": 4}, codec={"name": "half"},
        policy={"name": "async_local_sgd", "outer": AVERAGE},
    )  # fmt: skip
    crashed = record(sections | {"faults": crash(0, 3.0, 1.0, inner_state=inner_state)}, plugins=[HERE])
    first = 0.19 / 2
    left = 0.19 / 2 if inner_state == "kept" else 0.0
    second = first + (0.19 * (1 - first) + left) / 2
    assert crashed.thetas == pytest.approx([first, second])
    losing = record(sections | {"faults": {"name": "losing", "messages": [3]}}, plugins=[HERE])  # the second push
    assert losing.thetas == pytest.approx([first, first + (0.19 * (1 - first) + 0.19 / 2) / 2])


@pytest.mark.parametrize("region", [0, 1])
def test_halos_survives_the_loss_of_a_region(region: int) -> None:
    """Also of the one with the global server: nothing is committed then, and everything goes on afterwards."""
    cluster = {"regions": [{"workers": [1.0, 0.7]}, {"workers": [1.0, 0.7]}], "step_time_ms": 1000.0}
    run = record(
        tiny(
            cluster=cluster, network={"bandwidth_gbps": 1e-6}, budget={"local_steps": 400},
            policy={"name": "halos", "local_updates": 4, "outer": AVERAGE, "local": {"name": "sgd", "lr": 0.5}},
            faults=outage(region, 100.0, 50.0, detection_seconds=2.0),
        )
    )  # fmt: skip
    assert run.simulation.ledger.committed >= 400
    heard = [
        (commit.time, run.simulation.workers[share.updates[0].worker].region)
        for commit in run.global_commits
        for share in commit.shares
    ]
    silent = [time for time, where in heard if 101.0 < time < 150.0 and (where == region or region == 0)]
    assert silent == []
    assert [time for time, where in heard if where == region and time > 150.0]
    if region == 1:
        assert [time for time, where in heard if where == 0 and 101.0 < time < 150.0]
    down = {(each.worker, each.start, each.end) for each in run.simulation.faults.outages()}
    assert down == {(2 * region, 100.0, 150.0), (2 * region + 1, 100.0, 150.0)}
    assert run.simulation.faults.lost()["jobs"] >= 2
    assert 1 - run.global_commits[-1].params.flat[0] < 0.01  # type: ignore[index]


def test_halos_that_has_lost_its_global_server_for_ever_ends_with_a_word() -> None:
    sections = tiny(cluster=TWO_REGIONS, executor={"name": "timing"}, policy={"name": "halos", "local_updates": 2})
    with pytest.raises(Deadlock, match=r"none committed until .* s; faults keep it from going on; workers 0 are down"):
        record(sections | {"faults": outage(0, 3.0)})


# Chance


def test_messages_are_lost_as_often_as_said() -> None:
    model = MessageLoss(probability=0.1)
    model.connect(Cluster((), (), 1.0, 0.0), seed=7)
    lost = [model.loses(message) for message in range(20_000)]
    assert fmean(lost) == pytest.approx(0.1, abs=4 * math.sqrt(0.1 * 0.9 / 20_000))
    pairs = fmean(one and other for one, other in pairwise(lost))  # and independently
    assert pairs == pytest.approx(0.01, abs=4 * math.sqrt(0.01 * 0.99 / 20_000))


def test_random_crashes_are_exponential_with_the_means_given() -> None:
    workers = tuple(Worker(each, 0, 1.0) for each in range(50))
    model = Crashes(between_failures_hours=2.0, to_repair_hours=0.25)
    model.connect(Cluster((Region(0, "here", workers),), workers, 1.0, 0.0), seed=7)
    ups, downs = [], []
    for worker in workers:
        now = 0.0
        for _ in range(100):
            start, end = model.outage(worker, now)
            ups.append((start - now) / 3600)
            downs.append((end - start) / 3600)
            assert model.outage(worker, (start + end) / 2) == (start, end)  # the same if asked again
            now = end
        assert model.outage(worker, 0.0)[0] == pytest.approx(3600 * ups[-100])
    count = len(ups)
    assert fmean(ups) == pytest.approx(2.0, abs=4 * 2.0 / math.sqrt(count))
    assert fmean(downs) == pytest.approx(0.25, abs=4 * 0.25 / math.sqrt(count))
    longer = fmean(each > 2.0 for each in ups)
    assert longer == pytest.approx(math.exp(-1), abs=4 * math.sqrt(math.exp(-1) * (1 - math.exp(-1)) / count))


# Every built-in policy, every kind of fault

KINDS = {
    "crashes": {"name": "crashes", "between_failures_hours": 0.01, "to_repair_hours": 0.002},
    "gone and again": {
        "name": "crashes", "between_failures_hours": 0.01, "to_repair_hours": 0.002, "detection_seconds": 1.5,
        "samples": "again", "inner_state": "gone",
    },
    "outages": {
        "name": "outages", "detection_seconds": 3.0,
        "at": [{"region": 1, "at_seconds": 20, "seconds": 30}, {"region": 0, "at_seconds": 60, "seconds": 7}],
    },
    "links": {
        "name": "links",
        "at": [
            {"src": 0, "dst": 1, "at_seconds": 10, "seconds": 9},
            {"src": 1, "dst": 0, "at_seconds": 30, "share": 0.5},
        ],
    },
    "message loss": {"name": "message_loss", "probability": 0.2, "detection_seconds": 0.5},
    "several": {
        "name": "several", "detection_seconds": 0.25, "samples": "again", "inner_state": "gone",
        "of": [
            {"name": "crashes", "between_failures_hours": 0.02, "to_repair_hours": 0.001},
            {"name": "message_loss", "probability": 0.1},
            {"name": "links", "at": [{"src": 0, "dst": 1, "at_seconds": 15, "seconds": 20, "share": 0.3}]},
        ],
    },
}  # fmt: skip
POLICIES: dict[str, dict[str, Any]] = {
    "diloco": {"name": "diloco"},
    "async_local_sgd": {"name": "async_local_sgd"},
    "grace": {"name": "async_local_sgd", "grace_seconds": 1.5},
    "halos": {"name": "halos", "local_updates": 3},
    "keep_local": {"name": "halos", "local_updates": 3, "rebase": "keep_local"},
}


def under(policy: str, kind: str, **changes: Any) -> dict[str, Any]:
    cluster = {"regions": [{"workers": [1.0, 0.6]}, {"workers": [0.8, 0.9]}], "step_time_ms": 1000.0}
    return tiny(
        cluster=cluster, network={"bandwidth_gbps": 1e-7}, policy=POLICIES[policy], faults=KINDS[kind],
        budget={"local_steps": 200}, data={"shards": "by_region"}, **changes,
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", POLICIES)
def test_every_built_in_policy_spends_its_budget_under_every_kind_of_fault(policy: str, kind: str) -> None:
    run = record(under(policy, kind))
    assert run.simulation.ledger.committed >= 200
    assert adds_up(run)
    if kind != "links" or policy != "diloco":  # whose collectives only wait for links
        assert sum(run.simulation.faults.lost().values()) > 0
    committed = [update.id for commit in run.global_commits for share in commit.shares for update in share.updates]
    assert len(committed) == len({*committed})
    assert first_difference(everything(run), everything(record(under(policy, kind)))) is None
    hollow = record(under(policy, kind, executor={"name": "timing"}))
    assert first_difference(timeline(run), timeline(hollow)) is None


@pytest.mark.parametrize("policy", ["diloco", "halos"])
def test_a_run_with_faults_that_is_cut_and_resumed_is_the_run_itself(policy: str) -> None:
    optimizer = {"name": "adamw", "lr": 0.01, "weight_decay": 0.0}
    sections = under(policy, "several")
    sections = sections | {"train": sections["train"] | {"optimizer": optimizer}}
    assert problem(sections, cuts=4) is None


# From the command line


def written(folder: Path, **changes: Any) -> str:
    (folder / "c.yaml").write_text(json.dumps(tiny(**changes)))  # JSON is YAML, with .inf as Infinity
    return str(folder / "c.yaml")


@pytest.mark.parametrize("beside", [False, True])
def test_a_policy_that_does_not_go_on_ends_the_run_with_one_line(
    beside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = written(
        tmp_path,
        policy={"name": "stubborn", "beside": beside},
        network={"bandwidth_gbps": 1.0},
        faults=crash(1, 3.0, 1.0),
    )
    assert main([config, "--plugin", HERE, "observers.progress=false"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "stopped: policy stubborn does not go on without what is lost: job 3 of worker 1 lost at 3 s: worker 1 was down"
    )
    summary = json.loads((tmp_path / "runs/run/summary.json").read_text())
    assert summary["finished"] == "failed: job 3 of worker 1 lost at 3 s: worker 1 was down"


def test_the_summary_and_the_trace_say_what_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = written(tmp_path, network={"bandwidth_gbps": 1000.0}, faults=crash(1, 3.0, 2.0), budget={"local_steps": 8})
    assert main([config, "observers.progress=false"]) == 0
    summary = json.loads((tmp_path / "runs/run/summary.json").read_text())
    # Rounds until 2, 4 and 6 s. Worker 1 crashes in the second, and is down at the start of the third.
    assert summary["simulated_seconds"] == pytest.approx(6.0, abs=1e-6)
    assert summary["steps"] == {"trained": 8, "committed": 8, "dropped": 0, "in_flight": 0, "lost": 4}
    assert summary["lost"] == {"jobs": 2, "messages": 0}
    assert summary["goodput"] == pytest.approx(8 / 12)
    shares = [[each[key] for key in ("compute", "transfer", "idle", "down")] for each in summary["workers"]]
    assert shares[0] == pytest.approx([1, 0, 0, 0], abs=1e-6)
    assert shares[1] == pytest.approx([3 / 6, 0, 1 / 6, 2 / 6], abs=1e-6)  # of the three, one for nothing
    events = json.loads((tmp_path / "runs/run/trace.json").read_text())["traceEvents"]
    assert [(each["ts"], each["dur"]) for each in events if each["name"] == "down"] == [(3_000_000, 2_000_000)]
    said = " ".join(capsys.readouterr().out.split())
    assert "0 in flight, 4 lost" in said and "2 jobs, 0 messages; goodput 66.7%" in said


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        (crash(2, 1.0), "faults.at[0].worker: 2 is not a worker, 0 to 1"),
        (outage(1, 1.0), "faults.at[0].region: 1 is not a region, 0 to 0"),
        (link(1.0, 1.0, 0.5), "faults.at[0].dst: 1 is not a region, 0 to 0"),
        (crash(0, 1.0, 0.0), "faults.at[0].seconds: 0.0 is not a positive time"),
        ({"name": "message_loss", "probability": 1.0}, "faults.probability: 1.0 is not in [0, 1)"),
        ({"name": "none", "samples": "some"}, "faults.samples: 'some' is not one of lost, again"),
        ({"name": "several", "of": [outage(1, 1.0)]}, "faults.of[0].at[0].region: 1 is not a region, 0 to 0"),
        (
            {"name": "several", "of": [crash(0, 1.0, detection_seconds=3.0)]},
            "faults.of[0].detection_seconds: belongs beside `of`, where it is said for all",
        ),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_faults_that_do_not_fit_are_refused_by_key(faults: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        record(tiny(faults=faults))
    assert str(refused.value) == said


def test_an_executor_that_cannot_forget_is_not_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Inline, "forget")
    record(tiny(faults=crash(0, 1.0, 1.0)))
    with pytest.raises(
        ConfigError, match=r"^faults\.inner_state: cannot be gone: this executor has no method `forget`"
    ):
        record(tiny(faults=crash(0, 1.0, 1.0, inner_state="gone")))


def test_loss_of_a_job_that_nobody_awaits_is_no_error() -> None:
    async def body(sim: Simulation) -> None:
        left: Event[Update] = sim.train(sim.workers[0], sim.params)
        await sim.sleep(5.0)
        with pytest.raises(Lost):
            await left

    assert timing(body, faults=crash(0, 1.0)).simulation.now == 5.0


@pytest.mark.parametrize("policy", ["async_local_sgd", "diloco"])
def test_a_run_whose_jobs_are_all_lost_ends(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("halos.sim.faults.losses.MOST_IN_A_ROW", 1000)
    # A job takes 16 s, and a worker is up for 1 s on average: e^-16 of them, one in nine million, is ever done.
    faults = {"name": "crashes", "between_failures_hours": 1 / 3600, "to_repair_hours": 1 / 3600}
    with pytest.raises(Deadlock, match=r"^1,\d\d\d jobs lost one after another at .* s, the last because worker \d"):
        record(tiny(policy=policy, cluster=TWO_REGIONS, steps={"name": "fixed", "base": 16}, faults=faults))


def test_a_collective_that_a_member_is_down_for_is_lost_as_it_begins() -> None:
    async def body(sim: Simulation) -> None:
        updates = await all_of([sim.train(worker, sim.params, 2) for worker in sim.workers])  # until 2 s
        await sim.sleep(3.0)  # worker 1 is down from 4 to 8 s
        with pytest.raises(Lost, match="a collective lost at 5 s: worker 1 was down"):
            await sim.all_reduce(update.delta for update in updates)
        assert sim.now == 5.5  # and this is known half a second later
        assert sim.collectives.lost == "worker 1 was down"

    timing(body, faults=crash(1, 4.0, 4.0, detection_seconds=0.5))


def test_a_message_to_a_collective_is_lost_for_those_who_do_not_ask_too() -> None:
    async def body(sim: Simulation) -> None:
        updates = await all_of([sim.train(worker, sim.params, 2) for worker in sim.workers])
        with pytest.raises(Lost, match="a collective lost at 2 s: a message to it did not arrive"):
            await sim.all_reduce(update.delta for update in updates)  # messages 0 and 1
        await sim.all_reduce(update.delta for update in updates)  # messages 2 and 3
        assert sim.faults.lost()["messages"] == 1

    timing(body, plugins=[HERE], faults={"name": "losing", "messages": [1]})
