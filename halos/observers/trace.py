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
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Optional, Union

from halos.hooks import hookimpl
from halos.observers.experiment import Experiment
from halos.observers.files import replacing
from halos.observers.trace_arrows import BEGINS, ENDS, Arrow, Arrows, Done, arrows
from halos.observers.trace_rows import (
    LANES,
    MODELS,
    UNFINISHED,
    WAITING,
    Compute,
    Row,
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
from halos.world.cluster import Cluster
from halos.world.faults import Impairment, Outage, impairments, outages

SLICES = 200_000
BLOCK = 5_000  # chunks written at once


Chunk = tuple[int, str]  # a moment, and the lines of an event and of the arrows bound to it


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
        # Plain tuples of what a Compute, a Transfer and a Done have: Python's garbage collector leaves them alone.
        self._computed: list[tuple[float, float, int, int, int, int, int, int]] = []
        self._carried: list[tuple[Any, ...]] = []
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
            self._carried.append(tuple(transfer))
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
                many_microseconds(map(itemgetter(0), self._carried)),
                many_microseconds(map(itemgetter(1), self._carried)),
                map(Transfer._make, self._carried),
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
        chunks = [chunk for tid, row in enumerate(workers, first) for chunk in _worker(row, tid, drawn)]
        chunks += _commits(commits, servers, drawn)
        chunks += _losses(commits, self._evaluated)
        chunks += [chunk for tid, row in enumerate(links, first + len(workers)) for chunk in _link(row, tid, drawn)]
        chunks.sort(key=itemgetter(0))
        with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.write(f'{{"displayTimeUnit": "ms", "otherData": {json.dumps(about)}, "traceEvents": [\n')
            file.write(",\n".join(_names(cluster, servers, [*workers, *links])))
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


def _commits(commits: list[Done], servers: list[str], drawn: Arrows) -> Iterator[Chunk]:
    """Every commit, and where a server took over another's model; the global model's local steps as a counter."""
    rows = {server: f'"pid":{MODELS},"tid":{tid},"ts":' for tid, server in enumerate(servers, start=1)}
    came, left = drawn.came, drawn.left
    for index, commit in enumerate(commits):
        ts, where = microseconds(commit.time), rows[commit.server]
        name = "merge of another model" if commit.version is None else f"commit {commit.version}"
        # A slice of no length: to an instant no arrow can be bound.
        text = f',\n{{"ph":"X",{where}{ts},"dur":0,"name":"{name}","cat":"commit"}}'
        for arrow in came.get(index, ()):
            text += _arrow(ENDS, arrow, where, ts)
        for arrow in left.get(index, ()):
            text += _arrow(BEGINS, arrow, where, ts)
        if commit.server == GLOBAL and commit.version is not None:  # shown as "committed local steps"
            steps = f'"args":{{"local steps":{commit.local_steps}}}'
            text += f',\n{{"ph":"C","name":"committed","pid":{MODELS},"ts":{ts},{steps}}}'
        yield ts, text


def _losses(commits: list[Done], evaluated: list[tuple[float, str, float]]) -> Iterator[Chunk]:
    """The global model's losses, as a counter each."""
    losses = [(commit.time, "train", commit.loss) for commit in commits if commit.loss is not None]
    for time, name, loss in sorted(losses + evaluated):
        if math.isfinite(loss):
            ts, args = microseconds(time), f"{{{json.dumps(name)}:{loss!r}}}"
            yield ts, f',\n{{"ph":"C","name":"loss","pid":{MODELS},"ts":{ts},"args":{args}}}'


def _worker(row: Row, tid: int, drawn: Arrows) -> Iterator[Chunk]:
    """A worker's row: its jobs, with the arrows of what they began from and of what they gave."""
    where = f'"pid":{row.process},"tid":{tid},"ts":'
    head = f',\n{{"ph":"X",{where}'
    _, pushes, pulled, trained, _, _ = drawn
    for start, end, what in row.slices:
        if isinstance(what, Transfer):
            text = f'{head}{start},"dur":{end - start},"name":"{what.kind}","cat":"transfer",{_size(what.bytes)}}}'
            arrow = pushes.get(id(what))
            yield start, text if arrow is None else text + _arrow(BEGINS, arrow, where, start)
        elif isinstance(what, Compute):
            _, _, _, steps, version, lr_step, job, _ = what
            text = (
                f'{head}{start},"dur":{end - start},"name":"train {steps} step{"s" if steps != 1 else ""}",'
                f'"cat":"compute","args":{{"from_version":{version},"lr_step":{lr_step}}}}}'
            )
            if job in pulled:
                text += _arrow(ENDS, pulled[job], where, start)
            yield start, text
            if job in trained:
                yield end - 1, _arrow(BEGINS, trained[job], where, end - 1)
        else:
            yield start, f'{head}{start},"dur":{end - start},"name":{_told(what)}}}'


def _link(row: Row, tid: int, drawn: Arrows) -> Iterator[Chunk]:
    """A link's row: what it carried, with the arrows that pass."""
    where = f'"pid":{row.process},"tid":{tid},"ts":'
    head = f',\n{{"ph":"X",{where}'
    links = drawn.links
    for start, end, what in row.slices:
        if isinstance(what, Transfer):
            kind, worker = what.kind, what.worker
            if worker is None:
                name = "all-reduce" if kind == ALL_REDUCE else kind
            else:
                name = f"{kind} {'to' if kind == 'pull' else 'from'} worker {worker}"
            text = f'{head}{start},"dur":{end - start},"name":"{name}","cat":"transfer",{_size(what.bytes)}}}'
            if id(what) in links:
                phase, arrow = links[id(what)]
                text += _arrow(phase, arrow, where, start)
            yield start, text
        else:
            yield start, f'{head}{start},"dur":{end - start},"name":{_told(what)}}}'


@lru_cache(maxsize=1024)
def _size(nbytes: int) -> str:
    """The arguments of a transfer; its very bytes are in `transfers.jsonl`."""
    return f'"args":{{"MB":{nbytes / 1e6:.4g}}}'


def _told(what: Union[Outage, Impairment, LostJob, str, object]) -> str:
    """The name of what is rare, its category, and what else there is to say of it."""
    if isinstance(what, str):
        return f'{json.dumps(what)},"cat":"{"wait" if what == WAITING else "unfinished"}"'
    if isinstance(what, Outage):
        return '"down","cat":"fault"'
    if isinstance(what, Impairment):
        return f'"{"slow" if what.share else "down"}","cat":"fault","args":{{"share":{what.share!r}}}'
    assert isinstance(what, LostJob), "nothing else is drawn"
    args = f'"steps":{what.steps},"why":{json.dumps(what.why)},"told_at_seconds":{what.time!r}'
    return f'"lost","cat":"fault","args":{{{args}}}'


def _arrow(phase: str, arrow: Arrow, where: str, ts: int) -> str:
    """The line of an arrow's beginning, middle or end, bound to the slice that was written before it."""
    if phase == ENDS:
        return f',\n{{"ph":"f",{arrow},{where}{ts},"bp":"e"}}'
    return f',\n{{"ph":"{phase}",{arrow},{where}{ts}}}'


def _names(cluster: Cluster, servers: list[str], rows: list[Row]) -> Iterator[str]:
    """Yield the metadata events that name processes and rows, and put them in order."""
    processes = ["models", *(region.name for region in cluster.regions), "links"]
    for pid, name in enumerate(processes, start=MODELS):
        yield _named("process", f'"pid":{pid}', name, pid)
    for tid, server in enumerate(servers, start=1):
        yield _named("thread", f'"pid":{MODELS},"tid":{tid}', f"commits of {server}", tid)
    for tid, row in enumerate(rows, start=1 + len(servers)):
        yield _named("thread", f'"pid":{row.process},"tid":{tid}', row.name, tid)


def _named(what: str, where: str, name: str, position: int) -> str:
    head = f'{{"ph":"M",{where},"name":"{what}_'
    return (
        f'{head}name","args":{{"name":{json.dumps(name)}}}}},\n{head}sort_index","args":{{"sort_index":{position}}}}}'
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
