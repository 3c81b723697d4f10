"""What a policy may ask about faults, and what is told of them afterwards."""

from __future__ import annotations

import math
from typing import Any

import pytest

from halos import Lost
from halos.sim.simulation import Simulation
from halos.testing import record, tiny
from halos.world.faults import Outage
from tests.faulty import HERE, crash, link, outage
from tests.small_runs import AVERAGE, FOUR_MB, MB_PER_S, ONE_WORKER, TWO_REGIONS, timing


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


def test_without_faults_everybody_is_up_and_everything_arrives() -> None:
    async def body(sim: Simulation) -> None:
        update = await sim.train(sim.workers[0], sim.params, 2)
        await sim.faults.returned(sim.workers[0], 1)
        await sim.faults.reachable(0, 1)
        assert (sim.now, sim.faults.up(sim.workers[0], since=0.0), sim.faults.delivers(update)) == (2.0, True, True)
        assert (sim.faults.lost(), sim.faults.outages(), sim.faults.gone()) == ({"jobs": 0, "messages": 0}, [], "")

    assert timing(body, cluster=TWO_REGIONS).simulation.now == 2.0


def test_a_region_is_reachable_when_the_link_there_is_up_again() -> None:
    async def body(sim: Simulation) -> None:
        await sim.sleep(3.0)
        await sim.faults.reachable(1, 0)
        assert sim.now == 3.0  # only the link from 0 to 1 is down
        await sim.faults.reachable(sim.regions[0], sim.regions[1])
        assert sim.now == 5.0

    assert timing(body, cluster=TWO_REGIONS, faults=link(2.0, 3.0, 0.0, both_ways=False)).simulation.now == 5.0


def test_an_update_whose_message_is_lost_stays_unheard() -> None:
    async def body(sim: Simulation) -> None:
        updates = [await sim.train(worker, sim.params, 2) for worker in sim.workers]
        assert [sim.faults.delivers(update) for update in updates] == [False, True]
        assert (sim.ledger.undelivered, sim.ledger.in_flight) == (2, 4)
        assert sim.faults.lost() == {"jobs": 0, "messages": 1}

    assert timing(body, plugins=[HERE], faults={"name": "losing", "messages": [0]}).simulation.now == 4.0


def test_outages_are_told_up_to_now() -> None:
    async def body(sim: Simulation) -> None:
        await sim.sleep(4.0)
        assert sim.faults.outages() == [Outage(1, 3.0, 4.0)]
        assert [sim.faults.up(worker) for worker in sim.workers] == [True, False]
        await sim.sleep(4.0)
        assert sim.faults.outages() == [Outage(1, 3.0, 5.0)]
        assert (sim.faults.up(sim.workers[1]), sim.faults.up(sim.workers[1], since=4.5)) == (True, False)

    assert timing(body, faults=crash(1, 3.0, 2.0)).simulation.now == 8.0


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        (crash(1, 3.0), "; workers 1 are down for ever"),
        (crash(1, 3.0, 1e9), ""),  # it comes back, one day
        (link(3.0, math.inf, 0.0, both_ways=False), "; links 0->1 are down for ever"),
        (
            {"name": "crashes", "at": [{"worker": each, "at_seconds": 1} for each in range(12)]},
            "; workers 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, … are down for ever",
        ),
    ],
    ids=["worker", "not for ever", "link", "many"],
)
def test_what_is_down_for_ever_is_named(faults: dict[str, Any], said: str) -> None:
    heard: list[str] = []

    async def body(sim: Simulation) -> None:
        heard.append(sim.faults.gone())
        await sim.sleep(4.0)
        heard.append(sim.faults.gone())

    regions = [{"workers": [1.0] * 6}, {"workers": [1.0] * 6}]
    timing(body, cluster={"regions": regions}, faults=faults)
    assert heard == ["", said]


def test_a_worker_returns_at_the_very_moment_at_which_it_is_up_and_loses_no_job_for_it() -> None:
    """Down at 1.6 s for 11.7 s, which is told 0.1 s later: now + (return − now) is a rounding error too early."""
    returns = 1.6 + 11.7
    assert (1.6 + 0.1) + (returns - (1.6 + 0.1)) < returns
    faults = crash(1, 1.6, 11.7, detection_seconds=0.1)
    run = record(tiny(policy={"name": "async_local_sgd"}, faults=faults, budget={"local_steps": 20}))
    assert (run.simulation.faults.lost()["jobs"], run.simulation.ledger.lost) == (1, 2)
    assert next(update.start_time for update in run.updates if update.worker == 1) == returns


@pytest.mark.parametrize("tenths", range(1, 60, 4))
def test_a_detected_loss_a_return_and_a_link_that_is_up_again_are_at_their_moments(tenths: int) -> None:
    """To the last bit, whenever they are and whenever somebody began to wait for them."""
    at, seconds, moments = tenths / 10, 11.7, []

    async def body(sim: Simulation) -> None:
        worker = sim.workers[0]
        await sim.sleep(0.7 * at)
        with pytest.raises(Lost):
            await sim.train(worker, sim.params, 60)
        moments.append(sim.now)
        await sim.faults.returned(worker)
        moments.append(sim.now)

    async def link(sim: Simulation) -> None:
        await sim.sleep(at)
        await sim.faults.reachable(0, 1)
        moments.append(sim.now)

    timing(body, cluster=ONE_WORKER, faults=crash(0, at, seconds, detection_seconds=0.3))
    timing(link, cluster=TWO_REGIONS, faults=outage(1, at / 3, seconds))
    assert moments == [at + 0.3, at + seconds, at / 3 + seconds]
