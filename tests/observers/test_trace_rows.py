"""The rows of a trace: nothing overlaps, and nothing is missing."""

from __future__ import annotations

from halos.observers.trace_rows import lanes, link_rows, microseconds, worker_rows
from halos.values.records import LostJob
from halos.world.cluster import Cluster, Region, Worker
from halos.world.faults import Impairment, Outage

WORKERS = (Worker(0, 0, 1.0), Worker(1, 1, 0.5))
CLUSTER = Cluster((Region(0, "us", WORKERS[:1]), Region(1, "eu", WORKERS[1:])), WORKERS, 1.0, 0.0)
SECOND = 1_000_000


def test_slices_that_touch_share_a_lane() -> None:
    assert lanes([(4, 4, None), (0, 4, None), (4, 9, None)]) == [[(0, 4, None), (4, 4, None), (4, 9, None)]]


def test_slices_that_overlap_are_on_as_few_lanes_as_hold_them() -> None:
    assert lanes([(0, 3, None), (1, 4, None), (3, 5, None)]) == [[(0, 3, None), (3, 5, None)], [(1, 4, None)]]


def test_a_job_given_to_a_worker_that_is_down_has_a_lane_beside_its_outage() -> None:
    down, lost = Outage(1, 2.0, 6.0), LostJob(4.0, 1, 1, 8, 4.0, 4.0, "worker 1 was down")
    rows = list(worker_rows([], [], [lost], [down], CLUSTER))
    assert [(row.process, row.name, row.slices) for row in rows] == [
        (2, "worker 0 (speed 1)", []),
        (3, "worker 1 (speed 0.5)", [(2 * SECOND, 6 * SECOND, down)]),
        (3, "worker 1 (speed 0.5) #2", [(4 * SECOND, 4 * SECOND, lost)]),
    ]


def test_a_link_s_faults_come_after_what_it_carries() -> None:
    fault, carried = Impairment(0, 1, 1.0, 2.0, 0.0), (0.0, 1.0, 0, 1, 8, "send", None)
    rows, not_drawn = link_rows([carried], [fault], CLUSTER)
    assert [(row.process, row.name, row.slices) for row in rows] == [
        (4, "us -> eu", [(0, SECOND, carried)]),
        (4, "us -> eu (faults)", [(SECOND, 2 * SECOND, fault)]),
    ]
    assert not_drawn == 0


def test_moments_are_whole_microseconds_and_none_is_beyond_what_readers_count() -> None:
    assert [microseconds(seconds) for seconds in (0.0, 1.4e-6, 2.0, 1e300)] == [0, 1, 2 * SECOND, 9 * 10**15]
