"""The ledger: every step is somewhere, and nowhere twice."""

from __future__ import annotations

import pytest

from halos.sim.simulation import Simulation
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
