"""Collectives joined one by one that go on without what is lost, as the policies whose rounds overlap have them."""

from __future__ import annotations

from typing import Any

import pytest

from halos import Deadlock, Outbox, Update, all_of
from halos.sim.simulation import Simulation
from halos.testing import Recording, record, two_workers
from halos.world.cluster import Worker
from tests.faulty import HERE, crash
from tests.small_runs import timing

AVERAGE = {"name": "sgd", "lr": 1.0}


def delayed(faults: dict[str, Any], rounds: int = 4, **changes: Any) -> Recording:
    """A round takes both 2 s, and from θ moves worker 0 by .19 (1 − θ), worker 1 by .1 (1 − θ); θ ← θ + their mean."""
    policy = {"name": "one_step_delay", "outer": AVERAGE}
    return record(two_workers(rounds, policy=policy, faults=faults, **changes), [HERE, "halos_one_step_delay"])


def test_the_timeline_of_a_crash_that_returns_by_hand() -> None:
    """One round late. Worker 1 is down from 2.5 to 3.5 s, in its second round.

    It loses that, and the third, which it may begin at once, at 2.5 s. The fourth begins with the mean of the second:
    at 4 s, from θ². Its two local steps are made up for by a fifth round.
    """
    run = delayed(crash(1, 2.5, 1.0))
    theta = [0.0, 0.145]  # at 2 s: ½ (.19 + .1)
    theta.append(theta[1] + 0.19)  # at 4 s: worker 0 alone, from θ⁰
    theta.append(theta[2] + 0.19 * (1 - theta[1]))  # at 6 s: alone, from θ¹
    theta.append(theta[3] + 0.145 * (1 - theta[2]))  # at 8 s: both, from θ²; worker 1 has waited since 6 s
    theta.append(theta[4] + 0.145 * (1 - theta[3]))  # at 10 s: both, from θ³
    assert run.thetas == pytest.approx(theta[1:], abs=1e-12)
    assert theta[1:] == pytest.approx([0.145, 0.335, 0.49745, 0.593875, 0.66674475])
    assert [commit.time for commit in run.commits] == [2.0, 4.0, 6.0, 8.0, 10.0]
    assert [commit.local_steps for commit in run.commits] == [3, 5, 7, 10, 13]
    assert [(lost.start_time, lost.time) for lost in run.lost] == [(2.0, 2.5), (2.5, 2.5)]
    first = [update.start_time for update in run.updates if update.worker == 1]
    assert first == [0.0, 4.0, 6.0]
    ledger = run.simulation.ledger
    assert (ledger.trained, ledger.committed, ledger.dropped, ledger.in_flight, ledger.lost) == (13, 13, 0, 0, 2)


def test_what_a_worker_did_not_deliver_it_brings_with_its_next_message() -> None:
    run = delayed({"name": "losing", "messages": [1]}, rounds=2)
    assert run.thetas == pytest.approx([0.19, 0.19 + (0.19 + 0.1 + 0.1) / 2])  # both rounds from 0
    assert [commit.local_steps for commit in run.commits] == [2, 6]
    assert [[update.steps for update in share.updates] for share in run.commits[1].shares] == [[2], [1, 1]]
    assert run.simulation.faults.lost() == {"jobs": 0, "messages": 1}


def test_with_fewer_weights_are_relative_to_those_who_are_there() -> None:
    """Worker 0 counts three times as much: alone it has 1, then three quarters of the mean."""
    weights = {"name": "by_worker", "workers": [3.0, 1.0]}
    run = delayed({"name": "losing", "messages": [1]}, rounds=2, weights=weights)
    assert run.thetas == pytest.approx([0.19, 0.19 + 0.75 * 0.19 + 0.25 * 0.2])


def test_what_a_worker_did_not_deliver_is_dropped_if_it_crashes() -> None:
    run = delayed({"name": "losing", "messages": [1], "down": [2.5, 3.5]}, rounds=2)
    assert run.thetas[:2] == pytest.approx([0.19, 0.19 + 0.19])
    assert (run.simulation.ledger.dropped, run.simulation.ledger.lost) == (1, 2)


def test_a_round_of_nobodys_message_has_no_commit() -> None:
    run = delayed({"name": "losing", "messages": [0, 1]}, rounds=2)
    assert [(commit.time, commit.local_steps) for commit in run.commits] == [(4.0, 6)]
    assert run.thetas == pytest.approx([(2 * 0.19 + 2 * 0.1) / 2])


def test_when_all_are_down_everybody_waits_for_the_first_to_return() -> None:
    both = [{"worker": 0, "at_seconds": 2.5, "seconds": 10}, {"worker": 1, "at_seconds": 3.0, "seconds": 2}]
    run = delayed({"name": "crashes", "at": both})
    # Worker 1 is back at 5 s and begins at once; worker 0 at 12.5 s, and begins with the next mean.
    back = [min(each.start_time for each in run.updates if each.worker == id and each.time > 3.0) for id in (0, 1)]
    assert back == [13.0, 5.0]
    assert run.simulation.ledger.committed >= 12
    for_ever = {"name": "crashes", "at": [{"worker": each, "at_seconds": 3} for each in (0, 1)]}
    with pytest.raises(Deadlock, match=r"Outbox\.mean .*; workers 0, 1 are down for ever$"):
        delayed(for_ever)


def brought(body: Any, **changes: Any) -> Any:
    """Two workers in a policy of `body(sim, outbox)`; timing runs of 4 MB over 1 MB/s."""

    async def run(sim: Simulation) -> None:
        await body(sim, Outbox(sim))

    return timing(run, plugins=[HERE], **changes)


def test_whoever_crashes_while_its_collective_waits_is_left_out_and_its_update_dropped() -> None:
    async def body(sim: Simulation, outbox: Outbox) -> None:
        updates = await all_of([sim.train(worker, sim.params, 2) for worker in sim.workers])  # until 2 s
        average = sim.collective("late")
        outbox.join(average, sim.workers[1], updates[1])
        await sim.sleep(2.0)  # worker 1 is down from 2.5 to 3 s
        assert average.heard == ()
        outbox.join(average, sim.workers[0], updates[0])
        assert await outbox.mean(average) is not None
        assert average.heard == (0,)
        assert [each.updates[0].worker for each in average.contributions(sim.params)] == [0]
        assert (sim.ledger.dropped, sim.ledger.in_flight) == (2, 2)

    brought(body, faults=crash(1, 2.5, 0.5))


def test_messages_of_one_collective_are_not_asked_about_for_another() -> None:
    """Messages 0 and 1 are of the first, 2 and 3 of the second, whichever is complete first: nobody asks again."""

    async def body(sim: Simulation, outbox: Outbox) -> None:
        updates = await all_of([sim.train(worker, sim.params, 2) for worker in sim.workers])
        first, second = sim.collective("first"), sim.collective("second")
        outbox.join(first, sim.workers[0], updates[0])
        outbox.join(second, sim.workers[0], updates[0], updates[0].delta)
        outbox.join(second, sim.workers[1], updates[1])
        outbox.join(first, sim.workers[1], updates[1])
        await all_of([sim.spawn(outbox.mean(each)) for each in (first, second)])
        assert first.heard == second.heard == (0, 1)

    brought(body, faults={"name": "losing", "messages": [4, 5, 6, 7]})


def test_a_worker_that_waits_for_nobody_keeps_what_it_has_only_while_it_is_up() -> None:
    async def body(sim: Simulation, outbox: Outbox) -> None:
        worker: Worker = sim.workers[1]
        update = await outbox.train(worker, sim.params, 2)
        assert update is not None and outbox.keeps(worker)
        assert outbox.join(sim.collective("lost"), worker, update) is None  # message 0
        assert outbox.held(worker) is not None
        await sim.sleep(3.0)  # it is down from 3 to 4 s
        assert not outbox.keeps(worker) and outbox.held(worker) is None
        assert sim.ledger.dropped == 2
        later = await outbox.train(worker, sim.params, 2)
        assert isinstance(later, Update) and outbox.keeps(worker)

    brought(body, faults={"name": "losing", "messages": [0], "down": [3.0, 4.0]})
