"""What faults do to what is under way, worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

from halos.sim.faults.hazards import Hazards, Loss
from halos.testing import record, tiny
from halos.testing.witness import everything, first_difference
from halos.world.cluster import Cluster, Worker
from halos.world.faults import NEVER, FaultOptions, Outage, outages
from tests.faulty import crash, link, outage
from tests.small_runs import TWO_REGIONS

WORKER = Worker(0, 1, 1.0)


class Given(FaultOptions):
    """Down in the intervals `down`, links as in `shares` (start, end, share), and these messages lost."""

    def __init__(
        self,
        down: Sequence[tuple[float, float]] = (),
        shares: Sequence[tuple[float, float, float]] = (),
        lost: Sequence[int] = (),
        only: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.down, self.shares, self.lost, self.only = down, shares, lost, only

    def connect(self, cluster: Cluster, seed: int) -> None:
        pass

    def outage(self, worker: Worker, time: float) -> tuple[float, float]:
        return min((each for each in self.down if each[1] > time), default=NEVER)

    def link(self, src: int, dst: int, time: float) -> tuple[float, float]:
        if self.only not in (None, (src, dst)):
            return 1.0, math.inf
        for start, end, share in self.shares:
            if time < start:
                return 1.0, start
            if time < end:
                return share, end
        return 1.0, math.inf

    def loses(self, message: int) -> bool:
        return message in self.lost


def test_a_message_on_a_link_at_half_its_bandwidth_for_a_while_takes_longer_by_half_of_that() -> None:
    # 4 s of work from 10 s on: 2 s of it before the link is slow at 12 s, 1 s until 14 s, and the last until 15 s.
    hazards = Hazards(Given(shares=[(12.0, 14.0, 0.5)]))
    assert hazards.message(0, 1, 10.0, 4.0) == (15.0, None)
    # One that begins and ends inside the interval takes twice as long; one after it is as ever.
    assert hazards.message(0, 1, 12.5, 0.5) == (13.5, None)
    assert hazards.message(0, 1, 14.0, 4.0) == (18.0, None)


def test_a_message_is_lost_at_the_moment_its_link_goes_down_and_at_once_if_it_is() -> None:
    hazards = Hazards(Given(shares=[(12.0, 14.0, 0.0)]))
    assert hazards.message(0, 1, 10.0, 4.0) == (12.0, Loss(12.0, "the link 0->1 is down", message=True))
    assert hazards.message(0, 1, 13.0, 4.0) == (13.0, Loss(13.0, "the link 0->1 is down", message=True))
    assert hazards.message(0, 1, 10.0, 2.0) == (12.0, None)  # there in time
    assert hazards.message(0, 1, 14.0, 4.0) == (18.0, None)


def test_a_message_that_is_dropped_has_taken_its_time() -> None:
    hazards = Hazards(Given(lost=[1, 3]))
    assert [hazards.message(0, 1, 10.0, 4.0)[1] for _ in range(2)] == [
        None, Loss(14.0, "a message 0->1 did not arrive", message=True),
    ]  # fmt: skip
    assert [hazards.delivers() for _ in range(3)] == [True, False, True]
    assert (hazards.messages, hazards.lost_messages) == (5, 1)  # of the other nobody has been told yet


def test_without_a_fault_a_message_is_there_when_it_is_to_the_last_bit() -> None:
    hazards = Hazards(Given(shares=[(1e9, 2e9, 0.5)]))
    assert hazards.message(0, 1, 12345.678, 0.1) == (12345.678 + 0.1, None)
    assert hazards.collective([0, 1], 12345.678, 0.1) == (12345.678 + 0.1, None)


def test_a_collective_is_as_slow_as_its_slowest_link_and_waits_for_one_that_is_down() -> None:
    slow = Hazards(Given(shares=[(2.0, 4.0, 0.5)], only=(1, 0)))
    assert slow.collective([0, 1, 1, 2], 0.0, 4.0) == (5.0, None)
    assert slow.collective([0, 2], 0.0, 4.0) == (4.0, None)  # not between its members
    down = Hazards(Given(shares=[(2.0, 9.0, 0.0)]))
    assert down.collective([0, 1], 0.0, 4.0) == (11.0, None)
    assert down.collective([0, 0], 0.0, 4.0) == (11.0, None)  # the links inside the only region


def test_a_collective_is_lost_when_a_link_goes_down_for_ever() -> None:
    hazards = Hazards(Given(shares=[(1.0, 2.0, 0.5), (3.0, math.inf, 0.0)]))
    assert hazards.collective([0, 1], 0.5, 1.5) == (2.5, None)
    ends, loss = hazards.collective([0, 1], 0.5, 4.0)
    assert (ends, loss and loss.at) == (3.0, 3.0)


def test_a_crash_counts_if_it_begins_before_the_end_or_is_there_at_the_start() -> None:
    hazards = Hazards(Given(down=[(5.0, 8.0)]))
    moments = {(0.0, 5.0): None, (0.0, 5.1): 5.0, (5.0, 6.0): 5.0, (7.0, 20.0): 5.0, (8.0, 20.0): None}
    for (start, end), expected in moments.items():
        found = hazards.crash(WORKER, start, end)
        assert (found and found.at) == expected, (start, end)
    assert [hazards.stays_up(WORKER, 0.0, end) for end in (4.9, 5.0, 9.0)] == [True, False, False]
    assert hazards.stays_up(WORKER, 8.0, 100.0)


def test_a_worker_is_back_when_it_is_up_and_both_links_to_its_server_are() -> None:
    hazards = Hazards(Given(down=[(5.0, 8.0), (8.0, 9.0), (20.0, 22.0)], shares=[(8.5, 12.0, 0.0), (15.0, 21.0, 0.0)]))
    assert [hazards.back(WORKER, time) for time in (4.0, 5.0, 8.5, 9.0)] == [4.0, 9.0, 9.0, 9.0]
    # At 9 s the link is down until 12 s; at 21 s, when another outage of it is over, the worker until 22 s.
    assert [hazards.back(WORKER, time, server=0) for time in (5.0, 16.0)] == [12.0, 22.0]
    one_way = Hazards(Given(shares=[(0.0, 3.0, 0.0)], only=(1, 0)))  # its pushes'
    assert (one_way.up(0, 1, 0.0), one_way.back(WORKER, 0.0, server=0)) == (0.0, 3.0)


def test_what_is_down_for_ever_never_comes_back() -> None:
    hazards = Hazards(Given(down=[(5.0, math.inf)], shares=[(7.0, math.inf, 0.0)]))
    assert (hazards.back(WORKER, 4.0), hazards.back(WORKER, 6.0), hazards.up(0, 1, 8.0)) == (4.0, math.inf, math.inf)


ULP = 2.0**-52  # the relative distance of two neighbouring floats


def test_what_is_a_rounding_error_before_or_after_a_moment_is_at_that_moment() -> None:
    """In [5, 8) a worker is down, and its link; 0.1 + 0.1 + … is 5 or 8 only nearly."""
    hazards = Hazards(Given(down=[(5.0, 8.0)], shares=[(5.0, 8.0, 0.0)]))
    for five in (5.0 * (1 - ULP), 5.0, 5.0 * (1 + ULP)):
        assert hazards.crash(WORKER, 0.0, five) is None  # done when it goes down
        assert not hazards.stays_up(WORKER, 0.0, five)
        assert hazards.crash(WORKER, five, five) is not None
        assert hazards.message(0, 1, 0.0, five) == (five, None)  # there in time
        assert hazards.collective([0, 1], 0.0, five) == (five, None)
        assert hazards.back(WORKER, five) == 8.0
    for eight in (8.0 * (1 - ULP), 8.0, 8.0 * (1 + ULP)):
        assert hazards.crash(WORKER, eight, 20.0) is None  # it is back
        assert hazards.stays_up(WORKER, eight, 20.0)
        assert hazards.message(0, 1, eight, 4.0) == (eight + 4.0, None)
        assert hazards.collective([0, 1], eight, 4.0) == (eight + 4.0, None)
        assert (hazards.back(WORKER, eight), hazards.up(0, 1, eight)) == (eight, eight)
    found = hazards.crash(WORKER, 0.0, 5.001)
    assert found is not None and found.at == 5.0


def test_outages_that_overlap_or_touch_are_one_and_the_last_is_cut_at_the_end() -> None:
    down = Given(down=[(1.0, 4.0), (3.0, 6.0), (3.5, 5.0), (6.0, 7.0), (9.0, math.inf), (10.0, 11.0)])
    assert list(outages(down, [WORKER], 20.0)) == [Outage(0, 1.0, 7.0), Outage(0, 9.0, 20.0)]
    assert list(outages(down, [WORKER], 3.2)) == [Outage(0, 1.0, 3.2)]
    assert list(outages(down, [WORKER], 1.0)) == []


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
