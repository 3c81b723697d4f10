"""The ledger: every step is somewhere, and nowhere twice."""

from __future__ import annotations

import pytest

from halos.sim.ledger import Ledger
from halos.sim.simulation import Simulation
from tests.made import update
from tests.small_runs import timing


def test_steps_are_committed_dropped_or_in_flight_and_never_counted_twice() -> None:
    async def body(sim: Simulation) -> None:
        first = await sim.train(sim.workers[0], sim.params, 1)
        second = await sim.train(sim.workers[0], sim.params, 2)
        await sim.train(sim.workers[0], sim.params, 4)
        sim.commit(sim.params, [first])
        sim.drop([second])
        with pytest.raises(RuntimeError, match="update 0 of worker 0 is committed, but it was"):
            sim.commit(sim.params, [first])
        with pytest.raises(RuntimeError, match="update 1 of worker 0 is dropped, but it was"):
            sim.drop([second])

    ledger = timing(body).simulation.ledger
    assert (ledger.trained, ledger.committed, ledger.dropped, ledger.in_flight) == (7, 1, 2, 4)


def test_an_update_is_outstanding_until_it_is_committed_or_dropped() -> None:
    ledger = Ledger()
    assert not ledger.outstanding(0)
    for id in range(3):
        ledger.add(update(id))
    ledger.commit([update(0)])
    ledger.drop([update(2)])
    assert [ledger.outstanding(id) for id in range(4)] == [False, True, False, False]


def test_what_has_arrived_is_in_flight_until_it_is_committed_or_dropped() -> None:
    ledger, three, five = Ledger(), update(0, steps=3), update(1, steps=5)
    ledger.add(three)
    ledger.add(five)
    assert (ledger.trained, ledger.in_flight) == (8, 8)
    ledger.commit([three])
    assert (ledger.committed, ledger.in_flight) == (3, 5)
    ledger.drop([five])
    assert (ledger.trained, ledger.committed, ledger.dropped, ledger.in_flight) == (8, 3, 5, 0)


def test_what_was_not_delivered_is_unheard_until_it_is_settled() -> None:
    ledger, three, five = Ledger(), update(0, steps=3), update(1, steps=5)
    for each in (three, five):
        ledger.add(each)
        ledger.miss(each)
    assert (ledger.undelivered, ledger.in_flight) == (8, 8)
    ledger.commit([three])
    assert ledger.undelivered == 5
    ledger.drop([five])
    assert ledger.undelivered == 0


def test_seconds_of_computing_go_where_the_steps_go() -> None:
    ledger = Ledger()
    two, three, seven = update(0, compute=(0.0, 2.0)), update(1, compute=(1.0, 4.0)), update(2, compute=(1.0, 8.0))
    for each in (two, three, seven):
        ledger.add(each)
    assert (ledger.pending_seconds, ledger.dropped_seconds) == (12.0, 0.0)
    ledger.miss(seven)  # its message was lost: nobody is going to commit it
    assert ledger.pending_seconds == 5.0
    ledger.drop([three])
    assert (ledger.pending_seconds, ledger.dropped_seconds) == (2.0, 3.0)
    ledger.commit([two])
    assert (ledger.pending_seconds, ledger.dropped_seconds) == (0.0, 3.0)


def test_an_update_that_never_arrived_cannot_be_committed() -> None:
    with pytest.raises(RuntimeError, match="update 7 of worker 1 is committed, but it was committed or dropped before"):
        Ledger().commit([update(7)])
