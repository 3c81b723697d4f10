"""How workers spent the simulated time, moment by moment, in as much memory for a million jobs as for ten.

Adds up by rows (a worker's, or of many workers those of several neighbours) and equal stretches of time, which grow
twice as long whenever time outgrows them. How it is drawn is the timeline picture's matter.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from halos.hooks import hookimpl
from halos.values.records import ALL_REDUCE, CutShort, LostJob, Transfer, Update
from halos.world.cluster import Cluster, Worker
from halos.world.faults import Outage

ROWS = 64  # at most, and one for each region that has workers, if these are more
STRETCHES = 2048  # at most; never less than half as many in use
BATCH = 20_000  # times collected before they are added up
STATES = ("compute", "lost", "transfer", "idle", "down")  # as they are stacked

COMPUTE, LOST, TRANSFER, DOWN = range(4)  # kinds of intervals, by row; collectives have a row of their own


class Band(NamedTuple):
    """The workers of one region that share a row."""

    region: int
    workers: tuple[Worker, ...]


def bands(cluster: Cluster) -> list[Band]:
    """Return the rows: a worker each, or as many neighbours of a region as makes about ROWS of them."""
    size = 1
    while sum(-(-len(region.workers) // size) for region in cluster.regions) > ROWS and size < len(cluster.workers):
        size += 1
    return [
        Band(region.index, region.workers[first : first + size])
        for region in cluster.regions
        for first in range(0, len(region.workers), size)
    ]


class Timeline:
    """Hears the records, as an observer does; `shares` tells what became of the time."""

    def __init__(self, cluster: Cluster) -> None:
        self.bands = bands(cluster)
        self._row = {worker.id: index for index, band in enumerate(self.bands) for worker in band.workers}
        self._collectives = 4 * len(self.bands)  # the row of what everybody takes part in
        self._pending = array("d")  # row, start, end; row, …
        self._stretch = 0.0  # seconds
        # Of what began (+1) or ended (−1) in a stretch: how many, and the sum of their moments. From these follows how
        # much of all intervals lies before an edge between two stretches, however long they are.
        self._count = np.zeros((self._collectives + 1, STRETCHES))
        self._moments = np.zeros_like(self._count)

    @hookimpl
    def on_update(self, update: Update) -> None:
        row, (start, end) = 4 * self._row[update.worker], update.compute
        self._pending.extend((row + COMPUTE, start, end))
        if update.server is not None:
            self._pending.extend((row + TRANSFER, update.start_time, start, row + TRANSFER, end, update.time))
        if len(self._pending) > BATCH:
            self._add_up()

    @hookimpl
    def on_lost(self, lost: LostJob) -> None:
        self._add(lost.worker, LOST, lost.start_time, lost.lost_time)

    @hookimpl
    def on_transfer(self, transfer: Transfer) -> None:
        if transfer.kind == ALL_REDUCE:
            self._pending.extend((self._collectives, transfer.start_time, transfer.time))

    def shares(
        self, now: float, columns: int, unfinished: Iterable[CutShort] = (), outages: Iterable[Outage] = ()
    ) -> np.ndarray:
        """Shares of the time up to `now` in each state, (rows, STATES, columns); each row's add up to 1 in a column.

        `unfinished` are the jobs under way, `outages` when which workers were down.
        """
        for job in unfinished:
            if job.lost <= now:
                self._add(job.worker, LOST, job.began, job.lost)
            else:
                self._add(job.worker, TRANSFER, job.began, min(now, job.computes))
                self._add(job.worker, COMPUTE, job.computes, min(now, job.until))
                self._add(job.worker, TRANSFER, job.until, now)
        for outage in outages:
            self._add(outage.worker, DOWN, outage.start, min(now, outage.end))
        self._add_up()
        edges = np.linspace(0.0, now, columns + 1)
        spent = np.stack([np.diff(np.interp(edges, *self._spent(row))) for row in range(self._collectives + 1)])
        spent /= now / columns
        workers = np.array([len(band.workers) for band in self.bands])[:, None]
        compute, lost, transfer, down = np.moveaxis(spent[:-1].reshape(len(workers), 4, columns), 1, 0) / workers
        down = down.clip(0, 1)
        compute = compute.clip(0, 1 - down)
        lost = lost.clip(0, 1 - down - compute)
        # Everybody takes part in every collective, with what it did not spend otherwise.
        transfer = (transfer + spent[-1]).clip(0, 1 - down - compute - lost)
        return np.stack([compute, lost, transfer, 1 - down - compute - lost - transfer, down], axis=1)

    def _add(self, worker: int, kind: int, start: float, end: float) -> None:
        if end > start:
            self._pending.extend((4 * self._row[worker] + kind, start, end))

    def _add_up(self) -> None:
        if not self._pending:
            return
        rows, *times = np.frombuffer(self._pending).reshape(-1, 3).T
        latest = float(times[1].max())
        if not self._stretch:
            self._stretch = latest / STRETCHES or 1.0
        while latest > self._stretch * STRETCHES:
            self._stretch *= 2
            self._count, self._moments = (_halved(each) for each in (self._count, self._moments))
        for sign, moments in zip((1, -1), times):
            stretches = np.minimum(moments / self._stretch, STRETCHES - 1).astype(np.int64)
            flat = rows.astype(np.int64) * STRETCHES + stretches
            size = self._count.size
            self._count += sign * np.bincount(flat, minlength=size).reshape(self._count.shape)
            self._moments += sign * np.bincount(flat, moments, size).reshape(self._count.shape)
        self._pending = array("d")

    def _spent(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Edges between stretches (seconds), and how many seconds of all the row's intervals lie before each."""
        edges = np.arange(STRETCHES + 1) * (self._stretch or 1.0)
        under_way, moments = (np.concatenate(([0.0], np.cumsum(each[row]))) for each in (self._count, self._moments))
        return edges, edges * under_way - moments


def _halved(sums: np.ndarray) -> np.ndarray:
    """Two stretches each become one, in the first half."""
    halves = sums.reshape(len(sums), -1, 2).sum(axis=2)
    return np.concatenate((halves, np.zeros_like(halves)), axis=1)
