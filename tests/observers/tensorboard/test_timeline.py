"""What workers did, moment by moment: shares that can be counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from halos.observers.tensorboard.timeline import BATCH, ROWS, STATES, Timeline, bands
from halos.values.records import ALL_REDUCE, CutShort, LostJob, Transfer
from halos.world.cluster import Cluster, Region, Worker
from halos.world.faults import Outage
from tests.made import update


def cluster(*sizes: int) -> Cluster:
    workers = [
        Worker(id, index, 1.0) for id, index in enumerate(i for i, size in enumerate(sizes) for _ in range(size))
    ]
    regions = [Region(i, f"r{i}", tuple(each for each in workers if each.region == i)) for i in range(len(sizes))]
    return Cluster(tuple(regions), tuple(workers), 1.0, 0.0)


def told(timeline: Timeline, *records: Any) -> Timeline:
    for record in records:
        name = {Transfer: "on_transfer", LostJob: "on_lost"}.get(type(record), "on_update")
        getattr(timeline, name)(record)
    return timeline


def row(shares: np.ndarray, index: int) -> dict[str, list[float]]:
    """The states of one row that occur, over time."""
    return {state: [round(x, 6) for x in line] for state, line in zip(STATES, shares[index]) if line.max() > 1e-9}


def test_a_round_trip_is_transfer_compute_transfer_and_the_rest_is_idle() -> None:
    """Of 8 s: pull until 1, compute until 5, push until 6."""
    job = update(worker=0, start_time=0.0, compute=(1.0, 5.0), time=6.0, server=0)
    shares = told(Timeline(cluster(1)), job).shares(8.0, 4)
    assert row(shares, 0) == {"compute": [0.5, 1, 0.5, 0], "transfer": [0.5, 0, 0.5, 0], "idle": [0, 0, 0, 1]}


def test_everybody_takes_part_in_a_collective_with_what_it_does_not_compute_of_it() -> None:
    records = [
        update(worker=0, compute=(0.0, 4.0)),
        update(worker=1, compute=(0.0, 2.0)),
        Transfer(4.0, 8.0, None, None, 8, ALL_REDUCE),
        update(worker=0, compute=(4.0, 6.0)),
    ]
    shares = told(Timeline(cluster(2)), *records).shares(8.0, 4)
    assert row(shares, 0) == {"compute": [1, 1, 1, 0], "transfer": [0, 0, 0, 1]}
    assert row(shares, 1) == {"compute": [1, 0, 0, 0], "transfer": [0, 0, 1, 1], "idle": [0, 1, 0, 0]}


def test_what_is_lost_down_or_unfinished_is_there_as_well() -> None:
    lost = LostJob(5.0, 0, 0, 8, 0.0, 2.0, "it rained")
    timeline = told(Timeline(cluster(1, 1)), lost, update(worker=0, compute=(4.0, 6.0)))
    late = CutShort(1, 0.0, 2.0, 20.0, float("inf"))  # it computes from 2 s on, and would until 20
    gone = CutShort(0, 6.0, 6.0, 9.0, 7.0)  # lost at 7 s, which nobody has been told yet
    shares = timeline.shares(8.0, 4, [late, gone], [Outage(0, 2.0, 4.0), Outage(0, 7.0, 8.0)])
    assert row(shares, 0) == {"lost": [1, 0, 0, 0.5], "down": [0, 1, 0, 0.5], "compute": [0, 0, 1, 0]}
    assert row(shares, 1) == {"transfer": [1, 0, 0, 0], "compute": [0, 1, 1, 1]}


@pytest.mark.parametrize("jobs", [10, BATCH])
def test_however_many_jobs_there_are_and_however_long_it_takes_the_sums_are_right(jobs: int) -> None:
    """Each computes 0.75 s of its second; time outgrows the first batch's several times."""
    timeline = Timeline(cluster(1))
    before = timeline._count.nbytes
    for number in range(jobs):
        timeline.on_update(update(worker=0, compute=(float(number), number + 0.75)))
    shares = timeline.shares(float(jobs), 5)
    assert shares[0, 0] == pytest.approx([0.75] * 5, abs=0.01)
    assert shares.sum(axis=1) == pytest.approx(np.ones((1, 5)))
    assert timeline._count.nbytes == before


def test_many_workers_share_rows_with_neighbours_of_their_region() -> None:
    found = bands(cluster(600, 400))
    assert len(found) <= ROWS
    assert [worker.id for band in found for worker in band.workers] == list(range(1000))
    assert all({worker.region for worker in band.workers} == {band.region} for band in found)
    timeline = Timeline(cluster(600, 400))
    half = [update(worker=worker, compute=(0.0, 4.0)) for worker in range(0, 1000, 2)]  # every second one, throughout
    shares = told(timeline, *half).shares(4.0, 2)
    assert shares[:, 0] == pytest.approx(np.full((len(found), 2), 0.5), abs=0.04)  # rows of 16, and a rest


def test_more_regions_than_rows_have_one_each() -> None:
    assert [len(band.workers) for band in bands(cluster(*[2] * 100))] == [2] * 100
