"""Collectives: one at a time, of all their members, as slow as their slowest link."""

from __future__ import annotations

import pytest

from halos import Lost, Params, all_of
from halos.sim.simulation import Simulation
from halos.testing import record, tiny
from tests.faulty import HERE, crash, link
from tests.small_runs import FOUR_MB, MB_PER_S, TWO_REGIONS, Policy, timing


def test_a_link_at_half_its_bandwidth_in_the_middle_of_a_collective() -> None:
    # Two steps until 2 s; of the all-reduce's 4 s one until 3 s, one until 5 s, and two until 7 s.
    sections = tiny(executor={"name": "timing"}, model=FOUR_MB, cluster=TWO_REGIONS, network=MB_PER_S)
    assert record(sections | {"faults": link(3.0, 2.0, 0.5)}).commits[0].time == pytest.approx(7.0)
    assert record(sections | {"faults": link(3.0, 7.0, 0.0)}).commits[0].time == pytest.approx(13.0)


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


def test_collectives_are_serial_and_start_when_the_last_member_has_joined() -> None:
    ends: list[tuple[str, float]] = []

    async def body(sim: Simulation) -> None:
        async def member(index: int, name: str, seconds: float) -> None:
            await sim.sleep(seconds)
            await sim.collective(name).join(sim.workers[index], sim.params)
            ends.append((name, sim.now))

        # "first" is complete at 3 s, "second" at 2 s, but first opened is first served; each takes 4 s.
        several = [(0, "first", 0.0), (1, "second", 1.0), (0, "second", 2.0), (1, "first", 3.0)]
        await all_of([sim.spawn(member(*each)) for each in several])

    timing(body, network=MB_PER_S)
    assert ends == [("first", 7.0), ("first", 7.0), ("second", 11.0), ("second", 11.0)]


def test_the_mean_of_a_collective_does_not_depend_on_who_joined_first() -> None:
    means: list[Params] = []

    async def body(sim: Simulation) -> None:
        for order in ([0, 1, 2], [2, 1, 0]):
            payloads = [(index + 0.1) * (sim.params + sim.params.map(lambda flat: flat + 1)) for index in range(3)]
            joined = [sim.collective(str(order)).join(sim.workers[index], payloads[index]) for index in order]
            means.append(await joined[0])

    record(tiny(cluster={"regions": [{"workers": [1, 1, 1]}]}), policy=Policy(body))
    assert means[0].flat is not None and means[1].flat is not None
    assert means[0].flat.tolist() == means[1].flat.tolist() == pytest.approx([1.1, 1.1])


def test_a_collective_that_is_over_cannot_be_joined_again() -> None:
    async def body(sim: Simulation) -> None:
        await all_of([sim.collective(7).join(worker, sim.params) for worker in sim.workers])
        with pytest.raises(RuntimeError, match="collective 7 is over"):
            sim.collective(7)
        sim.collective(8).join(sim.workers[0], sim.params)
        with pytest.raises(RuntimeError, match="joins the same collective twice"):
            sim.collective(8).join(sim.workers[0], sim.params)

    timing(body)


def test_an_all_reduce_counts_what_its_rings_links_carry() -> None:
    run = record(tiny(executor={"name": "timing"}, model=FOUR_MB, cluster={"regions": [{"workers": [1] * 4}]}))
    assert {(each.kind, each.bytes) for each in run.transfers} == {("all_reduce", 2 * 3 * 4_000_000)}


def test_an_exchange_without_a_server_is_an_all_reduce_of_all_workers() -> None:
    async def body(sim: Simulation) -> None:
        # 2 (M−1)/M · 4 MB = 6 MB for four workers, at 1 MB/s
        assert sim.exchange_seconds(sim.workers[0]) == pytest.approx(6.0)

    timing(body, cluster={"regions": [{"workers": [1] * 4}]}, network=MB_PER_S)


def test_a_collective_of_fewer_members_is_complete_without_the_rest() -> None:
    async def body(sim: Simulation) -> None:
        one = sim.collective("alone", members=1)
        arrival = one.join(sim.workers[0], sim.params)
        with pytest.raises(RuntimeError, match="worker 1 joins a collective of 1 that is complete"):
            one.join(sim.workers[1], sim.params)
        await arrival
        assert sim.now == 0.0  # there is nobody to send anything to

    timing(body, network=MB_PER_S)


def test_a_worker_that_leaves_is_not_waited_for() -> None:
    async def body(sim: Simulation) -> None:
        average = sim.collective("smaller")
        arrival = average.join(sim.workers[0], sim.params)
        assert not average.complete
        await sim.sleep(1.0)
        average.leave(sim.workers[1])
        with pytest.raises(RuntimeError, match="worker 1 leaves the same collective twice"):
            average.leave(sim.workers[1])
        average.join(sim.workers[2], sim.params)
        with pytest.raises(RuntimeError, match="worker 2 joins the same collective twice"):
            average.join(sim.workers[2], sim.params)
        await arrival
        assert average.heard == (0, 2)
        assert sim.now == pytest.approx(1.0 + 4.0)  # of two members: 2 · 1/2 · 4 MB at 1 MB/s, and not 2 · 2/3

    timing(body, network=MB_PER_S, cluster={"regions": [{"workers": [1] * 3}]})


def test_a_collective_that_all_leave_is_lost_and_the_next_one_begins() -> None:
    async def body(sim: Simulation) -> None:
        empty, full = sim.collective("empty"), sim.collective("full")
        for worker in sim.workers:
            full.join(worker, sim.params)
        assert full.heard == () or not empty.complete  # first opened, first served
        for worker in sim.workers:
            empty.leave(worker)
        with pytest.raises(Lost, match="a collective lost at 0 s: nobody was there"):
            await empty.arrival
        assert sim.collective("empty") is empty  # who comes later finds out
        await full.arrival
        assert (sim.now, full.heard) == (4.0, (0, 1))

    timing(body, network=MB_PER_S)


def test_a_collective_under_faults_is_made_of_those_who_are_up_when_it_starts() -> None:
    """The first takes until 4 s; worker 1 is down from 1 to 2 s, while the second waits, complete."""

    async def body(sim: Simulation) -> None:
        first, second = sim.collective("first"), sim.collective("second")
        for average in (first, second):
            for worker in sim.workers:
                average.join(worker, sim.params)
        await second.arrival
        assert (first.heard, second.heard) == ((0, 1), (0,))
        assert sim.now == 4.0  # alone, it needs no link

    timing(body, network=MB_PER_S, faults=crash(1, 1.0, 1.0))
