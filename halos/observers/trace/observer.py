"""`trace.json`: the run's timeline for https://ui.perfetto.dev, in Chrome's Trace Event format.

A process per region with a row per worker (training, pull, push, `lost` for a job that came to nothing,
`down` while a fault had it, and `wait for all-reduce` where it did nothing else meanwhile; what is empty is
idle), one with a row per link and one more if it was down or slow, one with a row of commits per
server, and the global model's counters. Arrows go from what was sent to where it arrived. Times are simulated
microseconds. Slices on one row must not overlap in this format, so a row that needs it gets further lanes. Of a
long run only the beginning is kept; `otherData.cut_at_seconds` says up to where. What the end cut off is drawn up
to there, as unfinished.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Optional

from halos.hooks import hookimpl
from halos.observers.experiment import Experiment
from halos.observers.files import replacing
from halos.observers.trace.arrows import Done, arrows
from halos.observers.trace.events import names, of_commits, of_link, of_losses, of_worker
from halos.observers.trace.rows import (
    LANES,
    UNFINISHED,
    Compute,
    Slice,
    link_rows,
    many_microseconds,
    microseconds,
    unfinished_slices,
    worker_rows,
)
from halos.values.records import (
    ALL_REDUCE,
    GLOBAL,
    Commit,
    Evaluation,
    LostJob,
    Summary,
    Transfer,
    Update,
    mean_loss,
    unfinished,
)
from halos.world.faults import Impairment, Outage, impairments, outages

SLICES = 200_000
BLOCK = 5_000  # chunks written at once


@contextmanager
def uncollected() -> Iterator[None]:
    """Without Python's garbage collector, which would look through half a million tuples and find nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Trace:
    """Collects tuples during the run and writes the file at its end."""

    def __init__(self, limit: int = SLICES) -> None:
        self._limit = self._left = limit  # slices, and what else is drawn; outages and links' faults beside these
        self._cut_at: Optional[float] = None
        # Python's garbage collector leaves them alone: transfers, and plain tuples of what a Compute and a Done have.
        self._computed: list[tuple[float, float, int, int, int, int, int, int]] = []
        self._carried: list[Transfer] = []
        self._commits: list[tuple[Any, ...]] = []
        self._lost: list[LostJob] = []
        self._evaluated: list[tuple[float, str, float]] = []

    @hookimpl
    def on_start(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._collective_cost = 1 + len(experiment.cluster.workers)  # it is drawn on every worker's row as well

    @hookimpl
    def on_update(self, update: Update) -> None:
        if self._cut_at is None:
            start, end = update.compute
            push = -1 if update.server is None else len(self._carried) - 1  # it has just been told
            job = (start, end, update.worker, update.steps, update.start_version, update.lr_step, update.id, push)
            self._computed.append(job)
            self._count(1, update.time)

    @hookimpl
    def on_lost(self, lost: LostJob) -> None:
        if self._cut_at is None:
            self._lost.append(lost)
            self._count(1, lost.time)

    @hookimpl
    def on_transfer(self, transfer: Transfer) -> None:
        if self._cut_at is None:
            self._carried.append(transfer)
            alone = 1 if transfer.worker is None else 2  # it is drawn on the worker's row as well
            self._count(self._collective_cost if transfer.kind == ALL_REDUCE else alone, transfer.time)

    @hookimpl
    def on_commit(self, commit: Commit) -> None:
        if self._cut_at is not None:
            return
        jobs = tuple([each.id for share in commit.shares for each in share.updates])
        update = commit.kind == "update"
        counted = update and commit.server == GLOBAL
        loss = mean_loss(commit) if counted and self._experiment.real else None
        version = commit.version if update else None
        self._commits.append((commit.time, version, commit.server, jobs, commit.local_steps, loss))
        self._count(2 if counted else 1, commit.time)  # a mark, and a counter

    @hookimpl
    def on_evaluate(self, evaluation: Evaluation) -> None:
        if self._cut_at is None and evaluation.of == GLOBAL:
            self._evaluated.append((evaluation.time, evaluation.set, evaluation.loss))

    @hookimpl
    def on_finish(self, summary: Summary) -> None:
        with uncollected():
            self._write(summary)

    def _write(self, summary: Summary) -> None:
        experiment, path = self._experiment, self._experiment.folder / "trace.json"
        cluster = experiment.cluster
        until = summary.get("simulated_seconds", 0.0) if self._cut_at is None else self._cut_at
        impaired, links_not_drawn = self._impaired(until)
        down, down_not_drawn = self._down(until)
        computed = list(
            zip(
                many_microseconds(map(itemgetter(0), self._computed)),
                many_microseconds(map(itemgetter(1), self._computed)),
                map(Compute._make, self._computed),
            )
        )
        carried: list[Slice] = list(
            zip(
                many_microseconds([transfer.start_time for transfer in self._carried]),
                many_microseconds([transfer.time for transfer in self._carried]),
                self._carried,
            )
        )
        commits = [Done._make(each) for each in self._commits]
        running: list[tuple[int, Slice]] = []
        if self._cut_at is None:
            running = [(job.worker, piece) for job in unfinished(summary) for piece in unfinished_slices(job, until)]
            since = summary.get("unfinished", {}).get("collective_since")
            if since is not None:
                carried.append((microseconds(since), microseconds(until), f"all-reduce {UNFINISHED}"))
        links, not_drawn = link_rows(carried, impaired, cluster)
        workers = list(worker_rows(computed, carried, self._lost, down, running, cluster))
        # The shorter name first, so that 2 comes before 10.
        others = {commit.server for commit in commits} - {GLOBAL}
        servers = [GLOBAL, *sorted(others, key=lambda name: (len(name), name))]
        about = {
            "name": experiment.name,
            "policy": experiment.policy,
            "seed": experiment.seed,
            "clock": "simulated",
            "cut_at_seconds": self._cut_at,
            "transfers_not_drawn": len(not_drawn),
            "outages_not_drawn": down_not_drawn,
            "link_faults_not_drawn": links_not_drawn,
        }
        drawn = arrows(computed, carried, commits, not_drawn)
        # At one moment a worker's push comes before its link's, and a commit before the links that carry it away: so
        # arrows begin before they go on.
        first = 1 + len(servers)
        chunks = [chunk for tid, row in enumerate(workers, first) for chunk in of_worker(row, tid, drawn)]
        chunks += of_commits(commits, servers, drawn)
        chunks += of_losses(commits, self._evaluated)
        chunks += [chunk for tid, row in enumerate(links, first + len(workers)) for chunk in of_link(row, tid, drawn)]
        chunks.sort(key=itemgetter(0))
        with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.write(f'{{"displayTimeUnit": "ms", "otherData": {json.dumps(about)}, "traceEvents": [\n')
            file.write(",\n".join(names(cluster, servers, [*workers, *links])))
            for block in range(0, len(chunks), BLOCK):
                file.write("".join([lines for _, lines in chunks[block : block + BLOCK]]))
            file.write("\n]}\n")

    def _impaired(self, until: float) -> tuple[list[Impairment], int]:
        """When links were down or slow before `until`, those of LANES links; and how often other links were."""
        found = impairments(self._experiment.faults, len(self._experiment.cluster.regions), until)
        links = [list(several) for _, several in groupby(found, key=itemgetter(0, 1))]
        drawn = [fault for several in links[:LANES] for fault in several]
        return drawn[: self._limit], sum(map(len, links)) - len(drawn[: self._limit])

    def _down(self, until: float) -> tuple[list[Outage], int]:
        """When workers were down before `until`; and how many outages are too many for the picture."""
        found = sorted(outages(self._experiment.faults, self._experiment.cluster.workers, until), key=itemgetter(1))
        return found[: self._limit], max(0, len(found) - self._limit)

    def _count(self, drawn: int, time: float) -> None:
        self._left -= drawn
        if self._left <= 0:
            self._cut_at = time


def cut_at(path: Path) -> Optional[float]:
    """Up to when (virtual seconds) the trace in `path` goes, if it does not hold the whole run; else None."""
    with path.open(encoding="utf-8") as file:
        head = file.readline()
    try:
        seconds = json.loads(head + "]}")["otherData"]["cut_at_seconds"]
    except (ValueError, TypeError, KeyError):  # another's file
        return None
    return float(seconds) if isinstance(seconds, (int, float)) else None
