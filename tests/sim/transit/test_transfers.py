"""What is sent from region to region: how long it takes, and what arrives."""

from __future__ import annotations

import math

import pytest

from halos import Lost
from halos.sim.simulation import Simulation
from tests.faulty import link
from tests.small_runs import MB_PER_S, TWO_REGIONS, timing


def test_a_link_at_half_its_bandwidth_in_the_middle_of_a_transfer() -> None:
    ends: list[float] = []

    async def body(sim: Simulation) -> None:
        await sim.send(sim.params, 0, 1)  # 2 MB by 2 s, 1 MB more by 4 s, the last MB by 5 s
        ends.append(sim.now)

    timing(body, cluster=TWO_REGIONS, network=MB_PER_S, faults=link(2.0, 2.0, 0.5))
    assert ends == [pytest.approx(5.0)]


def test_a_send_arrives_decoded_after_its_bytes() -> None:
    async def body(sim: Simulation) -> None:
        start = sim.params
        arrived = await sim.send(start, 0, 1)
        assert (sim.now, arrived is start) == (pytest.approx(4.0), True)

    regions = {"regions": [{"workers": [1]}, {"workers": [1]}]}
    run = timing(body, cluster=regions, network=MB_PER_S)
    assert [(each.src, each.dst, each.kind) for each in run.transfers] == [(0, 1, "send")]


def test_half_precision_halves_the_bytes_on_the_link() -> None:
    async def body(sim: Simulation) -> None:
        await sim.send(sim.params, 0, 0)

    run = timing(body, network=MB_PER_S, codec={"name": "fp16"})
    assert (run.transfers[0].bytes, run.transfers[0].time) == (2_000_000, pytest.approx(2.0))


def test_a_message_is_lost_with_its_link_and_that_is_told_after_the_detection_time() -> None:
    async def body(sim: Simulation) -> None:
        with pytest.raises(Lost, match=r"^a transfer from region 0 to region 1 lost at 2 s: the link 0->1 is down$"):
            await sim.send(sim.params, sim.regions[0], sim.regions[1])
        assert (sim.now, sim.faults.lost()) == (2.5, {"jobs": 0, "messages": 1})
        await sim.send(sim.params, 1, 0)  # the other way is up
        assert sim.now == pytest.approx(6.5)

    faults = link(2.0, math.inf, 0.0, both_ways=False) | {"detection_seconds": 0.5}
    run = timing(body, cluster=TWO_REGIONS, network=MB_PER_S, faults=faults)
    assert [(each.src, each.dst) for each in run.transfers] == [(1, 0)]


def test_an_exchange_with_a_server_is_a_pull_and_a_push_of_the_whole_model() -> None:
    async def body(sim: Simulation) -> None:
        assert sim.exchange_seconds(sim.workers[1], 0) == pytest.approx(4.0 + 2.0)  # fp32 there, fp16 back

    timing(body, cluster=TWO_REGIONS, network=MB_PER_S, codec={"name": "fp16"})
