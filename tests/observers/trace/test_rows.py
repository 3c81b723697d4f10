"""The rows of a trace: nothing overlaps, and nothing is missing."""

from __future__ import annotations

from halos.observers.trace.rows import (
    lanes,
    link_rows,
    many_microseconds,
    microseconds,
    unfinished_slices,
    worker_rows,
)
from halos.values.records import CutShort, LostJob, Transfer
from halos.world.cluster import Cluster, Region, Worker
from halos.world.faults import Impairment, Outage

WORKERS = (Worker(0, 0, 1.0), Worker(1, 1, 0.5))
CLUSTER = Cluster((Region(0, "us", WORKERS[:1]), Region(1, "eu", WORKERS[1:])), WORKERS, 1.0, 0.0)
SECOND = 1_000_000


def test_slices_that_touch_share_a_lane() -> None:
    assert lanes([(4, 4, "b"), (0, 4, "a"), (4, 9, "c")]) == [[(0, 4, "a"), (4, 4, "b"), (4, 9, "c")]]


def test_slices_that_overlap_are_on_as_few_lanes_as_hold_them() -> None:
    assert lanes([(0, 3, "a"), (1, 4, "b"), (3, 5, "c")]) == [[(0, 3, "a"), (3, 5, "c")], [(1, 4, "b")]]


def test_a_job_given_to_a_worker_that_is_down_has_a_lane_beside_its_outage() -> None:
    down, lost = Outage(1, 2.0, 6.0), LostJob(4.0, 1, 1, 8, 4.0, 4.0, "worker 1 was down")
    rows = list(worker_rows([], [], [lost], [down], [], CLUSTER))
    assert [(row.process, row.name, row.slices) for row in rows] == [
        (2, "worker 0 (speed 1)", []),
        (3, "worker 1 (speed 0.5)", [(2 * SECOND, 6 * SECOND, down)]),
        (3, "worker 1 (speed 0.5) #2", [(4 * SECOND, 4 * SECOND, lost)]),
    ]


def test_a_link_s_faults_come_after_what_it_carries() -> None:
    fault, carried = Impairment(0, 1, 1.0, 2.0, 0.0), Transfer(0.0, 1.0, 0, 1, 8, "send")
    rows, not_drawn = link_rows([(0, SECOND, carried)], [fault], CLUSTER)
    assert [(row.process, row.name, row.slices) for row in rows] == [
        (4, "us → eu", [(0, SECOND, carried)]),
        (4, "us → eu (faults)", [(SECOND, 2 * SECOND, fault)]),
    ]
    assert not_drawn == []


def test_moments_are_whole_microseconds_and_none_is_beyond_what_readers_count() -> None:
    moments = (0.0, 1.4e-6, 2.0, 1e300)
    assert [microseconds(seconds) for seconds in moments] == [0, 1, 2 * SECOND, 9 * 10**15]
    assert many_microseconds(moments) == [0, 1, 2 * SECOND, 9 * 10**15]


def test_slices_that_touch_share_a_lane_also_if_one_of_no_length_was_told_last() -> None:
    assert lanes([(4, 9, "c"), (4, 4, "b")]) == [[(4, 4, "b"), (4, 9, "c")]]


def test_an_unfinished_job_is_what_it_has_done_and_what_it_is_at() -> None:
    job = CutShort(0, 1.0, 3.0, 7.0, float("inf"), steps=2)  # pulls until 3, trains until 7, then pushes
    train = (3 * SECOND, 7 * SECOND, "train 2 steps")
    assert list(unfinished_slices(job, 2.0)) == [(SECOND, 2 * SECOND, "pull (unfinished)")]
    assert list(unfinished_slices(job, 5.0)) == [
        (SECOND, 3 * SECOND, "pull"),
        (3 * SECOND, 5 * SECOND, "train 2 steps (unfinished)"),
    ]
    assert list(unfinished_slices(job, 7.0)) == [(SECOND, 3 * SECOND, "pull"), train]
    assert list(unfinished_slices(job, 8.0))[1:] == [train, (7 * SECOND, 8 * SECOND, "push (unfinished)")]
    assert list(unfinished_slices(job, 1.0)) == []  # it has only just begun
