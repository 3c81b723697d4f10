"""Journeys: messages and collectives over shared links, phase after phase, under faults."""

from __future__ import annotations

import gc
import math
import weakref
from typing import Any

import pytest

from halos import Deadlock, Lost, all_of, arrived
from halos.sim.simulation import Simulation
from halos.sim.transit.journeys import has_flows
from halos.testing.recording import Recording
from halos.world.network import Matrix
from halos.world.shared_links import SharedLinks
from tests.faulty import HERE, crash, link, outage
from tests.small_runs import ONE_WORKER, TWO_REGIONS, Body, timing

# A megabyte per second up and down, and another half second until it is there. The model has four megabytes.
SHARED: dict[str, Any] = {"name": "shared_links", "up_gbps": 0.008, "down_gbps": 0.008, "latency_ms": 500.0}
THREE_REGIONS = {"regions": [{"workers": [1.0]}] * 3, "step_time_ms": 1000.0}


def shared(body: Body, cluster: Any = TWO_REGIONS, network: Any = SHARED, **changes: Any) -> Recording:
    return timing(body, cluster=cluster, network=network, **changes)


def ends(recording: Recording) -> list[tuple[float, float]]:
    return [(each.start_time, each.time) for each in recording.transfers]


def test_which_networks_answer_in_flows() -> None:
    assert has_flows(SharedLinks())
    assert not has_flows(Matrix())


def test_two_messages_over_one_uplink_share_it_and_each_has_its_latency() -> None:
    async def body(sim: Simulation) -> None:
        await all_of([sim.send(sim.params, 0, 1), sim.send(sim.params, 0, 2)])

    assert ends(shared(body, THREE_REGIONS)) == [(0.0, 8.5), (0.0, 8.5)]


def test_up_and_down_are_two_links() -> None:
    async def body(sim: Simulation) -> None:
        await all_of([sim.send(sim.params, 0, 1), sim.send(sim.params, 1, 0)])

    assert ends(shared(body)) == [(0.0, 4.5), (0.0, 4.5)]
    half = SHARED | {"down_gbps": [0.004, 0.016]}
    assert sorted(ends(shared(body, network=half))) == [(0.0, 4.5), (0.0, 8.5)]  # into region 0 it is half as fast


def test_a_cable_that_both_ways_share() -> None:
    async def body(sim: Simulation) -> None:
        await all_of([sim.send(sim.params, 0, 1), sim.send(sim.params, 1, 2)])

    cable = {"name": "cable", "gbps": 0.004, "ways": [[0, 1], [1, 2]]}  # 4 Mbit/s for both
    assert ends(shared(body, THREE_REGIONS, SHARED | {"backbone": [cable]})) == [(0.0, 16.5), (0.0, 16.5)]


def test_a_collective_shares_its_links_with_a_message() -> None:
    async def body(sim: Simulation) -> None:
        await all_of([sim.all_reduce([sim.params] * 2), sim.send(sim.params, 0, 1)])

    # A ring of two sends 4 MB each way and waits for 2 latencies: at half the rate, both for 8 s.
    recording = shared(body)
    assert [(each.kind, each.time, each.bytes) for each in recording.transfers] == [
        ("send", 8.5, 4_000_000),
        ("all_reduce", 9.0, 8_000_000),
    ]


def test_a_link_at_half_its_bandwidth_in_the_middle_of_a_message() -> None:
    async def body(sim: Simulation) -> None:
        await sim.send(sim.params, 0, 1)  # 2 MB by 2 s, 1 MB by 4 s, the last by 5 s

    assert ends(shared(body, faults=link(2.0, 2.0, 0.5))) == [(0.0, 5.5)]


def test_a_change_of_a_link_that_is_far_away_keeps_no_payload() -> None:
    async def body(sim: Simulation) -> None:
        sent = []
        for exchange in (lambda payload: sim.send(payload, 0, 1), lambda payload: sim.all_reduce([payload] * 2)):
            payload = sim.params + sim.params
            sent += [weakref.ref(payload), weakref.ref(await exchange(payload))]
            del payload
        await sim.sleep(1.0)
        gc.collect()
        assert [each() for each in sent] == [None] * 4

    shared(body, faults=link(1e6, 2.0, 0.5))


def test_what_a_slow_link_cannot_carry_is_left_to_others() -> None:
    async def body(sim: Simulation) -> None:
        await all_of([sim.send(sim.params, 0, 1), sim.send(sim.params, 0, 2)])

    # Region 0's uplink carries 1 MB/s, but a quarter of that at most to region 1: the other has 3/4, for 16/3 s. The
    # slow one has 4/3 MB by then, and never more than its quarter.
    assert ends(shared(body, THREE_REGIONS, faults=link(0.0, math.inf, 0.25))) == [
        (0.0, pytest.approx(16 / 3 + 0.5)),
        (0.0, pytest.approx(16.5)),
    ]


def test_a_message_is_lost_when_its_link_goes_down_and_leaves_its_share_to_others() -> None:
    async def body(sim: Simulation) -> None:
        lost, other = sim.send(sim.params, 0, 1), sim.send(sim.params, 0, 2)
        with pytest.raises(Lost, match=r"^a transfer from region 0 to region 1 lost at 2 s: the link 0->1 is down$"):
            await lost
        assert (sim.now, sim.faults.lost()["messages"]) == (2.25, 1)
        await other  # 1 MB by 2 s, the other 3 by 5 s

    faults = link(2.0, 1.0, 0.0) | {"detection_seconds": 0.25}
    assert ends(shared(body, THREE_REGIONS, faults=faults)) == [(0.0, 5.5)]


def test_a_message_is_lost_with_its_link_while_its_last_byte_is_on_the_way() -> None:
    async def body(sim: Simulation) -> None:
        with pytest.raises(Lost, match=r"lost at 4.25 s: the link 0->1 is down"):
            await sim.send(sim.params, 0, 1)
        with pytest.raises(Lost, match=r"lost at 4.25 s: the link 0->1 is down"):
            await sim.send(sim.params, 0, 1)  # it still is
        await sim.faults.reachable(0, 1)
        await sim.send(sim.params, 0, 1)

    assert ends(shared(body, faults=link(4.25, 1.0, 0.0))) == [(5.25, 9.75)]


def test_a_message_that_arrives_as_its_link_goes_down_has_arrived() -> None:
    async def body(sim: Simulation) -> None:
        await sim.send(sim.params, 0, 1)

    assert ends(shared(body, faults=link(4.5, 1.0, 0.0))) == [(0.0, 4.5)]


def test_a_message_that_does_not_arrive_takes_its_time_and_its_bandwidth() -> None:
    async def body(sim: Simulation) -> None:
        assert len(await arrived([sim.send(sim.params, 0, 1), sim.send(sim.params, 0, 1)])) == 1
        assert (sim.now, sim.faults.lost()["messages"]) == (8.5, 1)

    recording = shared(body, plugins=[HERE], faults={"name": "losing", "messages": [0]})
    assert ends(recording) == [(0.0, 8.5)]


def test_a_collective_waits_for_a_link_that_comes_back() -> None:
    async def body(sim: Simulation) -> None:
        await sim.all_reduce([sim.params] * 2)  # 1 MB by 1 s, the other 3 from 3 to 6 s, and 1 s

    assert ends(shared(body, faults=link(1.0, 2.0, 0.0))) == [(0.0, 7.0)]


def test_a_collective_is_lost_when_a_link_stays_down() -> None:
    async def body(sim: Simulation) -> None:
        with pytest.raises(Lost, match="a collective lost at 1 s: a link is down and stays so"):
            await sim.all_reduce([sim.params] * 2)
        assert sim.now == 1.0
        assert sim.collectives.lost == "a link is down and stays so"

    shared(body, faults=link(1.0, math.inf, 0.0))


def test_a_collective_that_a_member_is_down_for_is_lost_as_it_begins() -> None:
    async def body(sim: Simulation) -> None:
        await sim.sleep(5.0)
        with pytest.raises(Lost, match="a collective lost at 5 s: worker 1 was down"):
            await sim.all_reduce([sim.params] * 2)

    shared(body, faults=crash(1, 4.0, 4.0))


def test_a_region_that_is_cut_off_loses_what_is_on_the_way_to_it() -> None:
    async def body(sim: Simulation) -> None:
        assert len(await arrived([sim.send(sim.params, 0, 1), sim.send(sim.params, 0, 2)])) == 1

    assert ends(shared(body, THREE_REGIONS, faults=outage(1, 2.0, 1.0))) == [(0.0, 5.5)]


def test_one_worker_has_nobody_to_reduce_with() -> None:
    async def body(sim: Simulation) -> None:
        await sim.all_reduce([sim.params])
        await sim.send(sim.params, 0, 0)

    unlimited = {"name": "shared_links", "up_gbps": math.inf}
    recording = shared(body, cluster=ONE_WORKER, network=unlimited)
    assert [(each.kind, each.time, each.bytes) for each in recording.transfers] == [
        ("all_reduce", 0.0, 0),
        ("send", 0.0, 4_000_000),
    ]


def test_who_waits_for_ever_is_told_for_which_link() -> None:
    async def body(sim: Simulation) -> None:
        await sim.send(sim.params, 0, 1)

    gone = SHARED | {"changes": [{"time_s": 2.0, "link": "region-0.up", "gbps": 0.0}]}
    said = r"nothing is left to happen at 2 s, .*; nothing gets through region-0\.up any more$"
    with pytest.raises(Deadlock, match=said):
        shared(body, network=gone)
