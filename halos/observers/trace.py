"""`trace.json`: the run's timeline for https://ui.perfetto.dev, in Chrome's Trace Event format.

A process per region with a row per worker (compute, pull, push, `lost` for a job that came to nothing,
`down` while a fault had it, and `all_reduce` where it did nothing else meanwhile; what is empty is
idle), one with a row per link and one more if it was down or slow, one with a row of commits per
server, and the global model's counters. Times are simulated microseconds. Slices on one row must not
overlap in this format, so a row that needs it gets further lanes. Of a long run only the beginning is
kept; `otherData.cut_at_seconds` says up to where. A job that the end cut off is not drawn.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from heapq import merge
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Optional

from halos.hooks import hookimpl
from halos.observers.experiment import Experiment
from halos.observers.files import replacing
from halos.observers.trace_rows import (
    LANES,
    MODELS,
    Carried,
    Compute,
    Row,
    link_rows,
    microseconds,
    worker_rows,
)
from halos.values.records import ALL_REDUCE, GLOBAL, Commit, Evaluation, LostJob, Summary, Transfer, Update, mean_loss
from halos.world.cluster import Cluster
from halos.world.faults import Impairment, Outage, impairments, outages

SLICES = 200_000


class Trace:
    """Collects tuples during the run and writes the file at its end."""

    def __init__(self, limit: int = SLICES) -> None:
        self._limit = self._left = limit  # slices, and what else is drawn; outages and links' faults beside these
        self._cut_at: Optional[float] = None
        self._computed: list[Compute] = []
        self._carried: list[Carried] = []
        self._commits: list[tuple[float, int, int, Optional[float]]] = []  # time, version, local steps, loss
        self._local: dict[str, list[tuple[float, Optional[int]]]] = {}  # by server: time, version; None of a merge
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
            self._computed.append((start, end, update.worker, update.steps, update.start_version, update.lr_step))
            self._count(1, update.time)

    @hookimpl
    def on_lost(self, lost: LostJob) -> None:
        if self._cut_at is None:
            self._lost.append(lost)
            self._count(1, lost.time)

    @hookimpl
    def on_transfer(self, transfer: Transfer) -> None:
        if self._cut_at is None:
            t = transfer
            self._carry((t.start_time, t.time, t.src, t.dst, t.bytes, t.kind, t.worker))

    @hookimpl
    def on_commit(self, commit: Commit) -> None:
        if self._cut_at is not None:
            return
        if commit.kind == "update" and commit.server == GLOBAL:
            self._count(2, commit.time)  # an instant and a counter
            loss = mean_loss(commit) if self._experiment.real else None
            self._commits.append((commit.time, commit.version, commit.local_steps, loss))
        else:
            version = commit.version if commit.kind == "update" else None
            self._local.setdefault(commit.server, []).append((commit.time, version))
            self._count(1, commit.time)

    @hookimpl
    def on_evaluate(self, evaluation: Evaluation) -> None:
        if self._cut_at is None and evaluation.of == GLOBAL:
            self._evaluated.append((evaluation.time, evaluation.set, evaluation.loss))

    @hookimpl
    def on_finish(self, summary: Summary) -> None:
        experiment, path = self._experiment, self._experiment.folder / "trace.json"
        until = summary.get("simulated_seconds", 0.0) if self._cut_at is None else self._cut_at
        impaired, links_not_drawn = self._impaired(until)
        links, not_drawn = link_rows(self._carried, impaired, experiment.cluster)
        down, down_not_drawn = self._down(until)
        rows = [*worker_rows(self._computed, self._carried, self._lost, down, experiment.cluster), *links]
        # The shorter name first, so that 2 comes before 10.
        servers = [GLOBAL, *sorted(self._local.keys() - {GLOBAL}, key=lambda name: (len(name), name))]
        about = {
            "name": experiment.name,
            "policy": experiment.policy,
            "seed": experiment.seed,
            "clock": "simulated",
            "cut_at_seconds": self._cut_at,
            "transfers_not_drawn": not_drawn,
            "outages_not_drawn": down_not_drawn,
            "link_faults_not_drawn": links_not_drawn,
        }
        streams = [_slices(row, tid) for tid, row in enumerate(rows, start=1 + len(servers))]
        streams += [_commits(self._local.get(server, []), tid) for tid, server in enumerate(servers, start=1)]
        with replacing(path) as temporary, temporary.open("w", encoding="utf-8", buffering=1 << 20) as file:
            file.write(f'{{"displayTimeUnit": "ms", "otherData": {json.dumps(about)}, "traceEvents": [\n')
            file.write(",\n".join(_names(experiment.cluster, servers, rows)))
            for _, line in merge(self._counts(), self._losses(), *streams, key=itemgetter(0)):
                file.write(",\n" + line)
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

    def _carry(self, carried: Carried) -> None:
        self._carried.append(carried)
        kind, worker = carried[5:]
        self._count(self._collective_cost if kind == ALL_REDUCE else 1 if worker is None else 2, carried[1])

    def _count(self, drawn: int, time: float) -> None:
        self._left -= drawn
        if self._left <= 0:
            self._cut_at = time

    def _counts(self) -> Iterator[tuple[int, str]]:
        """The global model's commits that brought something in, and its local steps as a counter."""
        for time, version, steps, _ in self._commits:
            ts = microseconds(time)
            where = f'"pid": {MODELS}, "tid": 1, "ts": {ts}, "args": {{"steps": {steps}}}'
            yield ts, f'{{"ph": "i", "s": "t", "name": "commit {version}", {where}}}'
            yield ts, f'{{"ph": "C", "name": "local", {where}}}'  # shown as "local steps"

    def _losses(self) -> Iterator[tuple[int, str]]:
        """Its losses, as a counter each."""
        losses = [(time, "train", loss) for time, _, _, loss in self._commits if loss is not None]
        for time, name, loss in sorted(losses + self._evaluated):
            if math.isfinite(loss):
                ts, args = microseconds(time), f"{{{json.dumps(name)}: {loss!r}}}"
                yield ts, f'{{"ph": "C", "name": "loss", "pid": {MODELS}, "tid": 1, "ts": {ts}, "args": {args}}}'


def _slices(row: Row, tid: int) -> Iterator[tuple[int, str]]:
    head = f'"ph": "X", "pid": {row.process}, "tid": {tid}'
    for start, end, what in row.slices:
        if what is None:
            text = f'"name": "{ALL_REDUCE}", "cat": "transfer"'
        elif isinstance(what, Outage):
            text = '"name": "down", "cat": "fault"'
        elif isinstance(what, Impairment):
            text = f'"name": "{"slow" if what.share else "down"}", "cat": "fault", "args": {{"share": {what.share!r}}}'
        elif isinstance(what, LostJob):
            args = f'"steps": {what.steps}, "why": {json.dumps(what.why)}, "told_at_seconds": {what.time!r}'
            text = f'"name": "lost", "cat": "fault", "args": {{{args}}}'
        elif len(what) == 6:
            steps, version, lr_step = what[3:]
            args = f'"from_version": {version}, "lr_step": {lr_step}'
            text = f'"name": "steps {steps}", "cat": "compute", "args": {{{args}}}'
        else:
            nbytes, kind, worker = what[4:]
            args = f'"bytes": {nbytes}' + ("" if worker is None else f', "worker": {worker}')
            text = f'"name": "{kind}", "cat": "transfer", "args": {{{args}}}'
        yield start, f'{{{head}, "ts": {start}, "dur": {end - start}, {text}}}'


def _commits(commits: list[tuple[float, Optional[int]]], tid: int) -> Iterator[tuple[int, str]]:
    """A server's commits, and where it took over another's model."""
    for time, version in commits:
        ts, name = microseconds(time), "merge" if version is None else f"commit {version}"
        yield ts, f'{{"ph": "i", "s": "t", "name": "{name}", "pid": {MODELS}, "tid": {tid}, "ts": {ts}}}'


def _names(cluster: Cluster, servers: list[str], rows: list[Row]) -> Iterator[str]:
    """Yield the metadata events that name processes and rows, and put them in order."""
    processes = ["models", *(region.name for region in cluster.regions), "links"]
    for pid, name in enumerate(processes, start=MODELS):
        yield _named("process", f'"pid": {pid}', name, pid)
    for tid, server in enumerate(servers, start=1):
        yield _named("thread", f'"pid": {MODELS}, "tid": {tid}', f"commits of {server}", tid)
    for tid, row in enumerate(rows, start=1 + len(servers)):
        yield _named("thread", f'"pid": {row.process}, "tid": {tid}', row.name, tid)


def _named(what: str, where: str, name: str, position: int) -> str:
    head = f'"ph": "M", {where}'
    return (
        f'{{{head}, "name": "{what}_name", "args": {{"name": {json.dumps(name)}}}}},\n'
        f'{{{head}, "name": "{what}_sort_index", "args": {{"sort_index": {position}}}}}'
    )


def cut_at(path: Path) -> Optional[float]:
    """Up to when (virtual seconds) the trace in `path` goes, if it does not hold the whole run; else None."""
    with path.open(encoding="utf-8") as file:
        head = file.readline()
    try:
        seconds = json.loads(head + "]}")["otherData"]["cut_at_seconds"]
    except (ValueError, TypeError, KeyError):  # another's file
        return None
    return float(seconds) if isinstance(seconds, (int, float)) else None
