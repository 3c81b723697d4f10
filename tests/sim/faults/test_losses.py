"""Jobs that are lost: when that is told, what they cost, and what is left of them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from halos import Event, Lost, Update
from halos.sim.clock import Deadlock
from halos.sim.simulation import Simulation
from halos.testing import record, tiny
from halos.values.records import LostJob
from tests.faulty import HERE, crash, link, one_async_worker
from tests.small_runs import AVERAGE, MB_PER_S, ONE_WORKER, TWO_REGIONS, timing


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
    # Observers are told when the policy is: of the first at 2.25 s, of the second, which never began, at once.
    assert run.lost == [
        LostJob(2.25, 0, 0, 4, 0.0, 1.5, "worker 0 was down"),
        LostJob(2.25, 0, 0, 4, 2.25, 2.25, "worker 0 was down"),
    ]


def test_an_asynchronous_job_on_a_link_at_half_its_bandwidth() -> None:
    async def body(sim: Simulation) -> None:
        await sim.train(sim.workers[1], sim.params, 3, server=0)

    run = timing(body, cluster=TWO_REGIONS, network=MB_PER_S, faults=link(2.0, 7.0, 0.5))
    pull, push = run.transfers
    # 2 MB by 2 s, the other 2 MB by 6 s; three steps by 9 s, when the link is as ever.
    assert [pull.time, run.updates[0].compute, push.time] == [
        pytest.approx(6.0), pytest.approx((6.0, 9.0)), pytest.approx(13.0),
    ]  # fmt: skip


def test_giving_a_job_to_a_worker_that_is_down_again_and_again_is_an_error() -> None:
    async def body(sim: Simulation) -> None:
        while True:
            with suppress(Lost):
                await sim.train(sim.workers[0], sim.params)

    with pytest.raises(RuntimeError, match=r"jobs lost at 1 s.*await sim\.faults\.returned\(worker\)"):
        timing(body, faults=crash(0, 1.0))


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
