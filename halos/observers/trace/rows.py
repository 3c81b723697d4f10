"""The rows of a trace: what is drawn for each worker and link, in order of time and without overlap.

How they are written is the trace's matter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from itertools import pairwise
from operator import itemgetter
from typing import NamedTuple, Union

import numpy as np

from halos.values.records import ALL_REDUCE, CutShort, LostJob, Transfer
from halos.world.cluster import Cluster
from halos.world.faults import Impairment, Outage

LATEST = 9e9  # seconds, 285 years: readers count nanoseconds in 63 bits
LANES = 100  # of one link; transfers beside so many others are only counted (`otherData.transfers_not_drawn`)

MODELS, FIRST_REGION = 1, 2  # process ids; that of the links comes after the last region's
WAITING, UNFINISHED = "wait for all-reduce", "(unfinished)"


class Compute(NamedTuple):
    """A job that was done; times in virtual seconds."""

    start: float
    end: float
    worker: int
    steps: int
    version: int  # that it began from
    lr_step: int
    job: int  # its id
    push: int  # which of all transfers was its push, told before it, and before that its pull; −1: without a server


# start, end (microseconds), what; a text: its name, and no more is known
Slice = tuple[int, int, Union[Compute, Transfer, Outage, LostJob, Impairment, str]]


class Row(NamedTuple):
    """One row of the picture: slices in order, none overlapping."""

    process: int
    name: str
    slices: list[Slice]


def worker_rows(
    computed: Iterable[tuple[int, int, Compute]],
    carried: Iterable[Slice],
    lost: Iterable[LostJob],
    down: Iterable[Outage],
    unfinished: Iterable[tuple[int, Slice]],
    cluster: Cluster,
) -> Iterator[Row]:
    """A row per worker; a further one where its slices overlap. `unfinished` are slices by worker."""
    busy: dict[int, list[Slice]] = defaultdict(list)
    collectives: list[tuple[int, int]] = []
    for job in computed:
        busy[job[2].worker].append(job)
    for piece in carried:
        what = piece[2]
        if not isinstance(what, Transfer) or what.kind == ALL_REDUCE:
            collectives.append(piece[:2])
        elif what.worker is not None:
            busy[what.worker].append(piece)
    for loss in lost:
        busy[loss.worker].append((microseconds(loss.start_time), microseconds(loss.lost_time), loss))
    for outage in down:
        busy[outage.worker].append((microseconds(outage.start), microseconds(outage.end), outage))
    for worker, rest in unfinished:
        busy[worker].append(rest)
    for member in cluster.workers:
        slices = busy[member.id]
        if collectives:
            slices.sort(key=itemgetter(0, 1))
            slices += [(start, end, WAITING) for start, end in _waits(slices, collectives)]
        name = f"worker {member.id} (speed {member.speed:.3g})"
        yield from _rows(FIRST_REGION + member.region, name, lanes(slices) or [[]])


def link_rows(
    carried: Iterable[Slice], impaired: Iterable[Impairment], cluster: Cluster
) -> tuple[list[Row], list[Slice]]:
    """A row per link that carried something, more where transfers overlap; and the transfers that found no room.

    And one per link that was down or slow at times.
    """
    links: dict[tuple[int, int], list[Slice]] = defaultdict(list)
    faults: dict[tuple[int, int], list[Slice]] = defaultdict(list)
    for fault in impaired:
        faults[fault.src, fault.dst].append((microseconds(fault.start), microseconds(fault.end), fault))
    for piece in carried:
        what = piece[2]
        link = (-1, -1)  # collectives first
        if isinstance(what, Transfer) and what.src is not None and what.dst is not None:
            link = what.src, what.dst
        links[link].append(piece)
    rows: list[Row] = []
    not_drawn: list[Slice] = []
    for src, dst in sorted({*links, *faults}):
        several = lanes(links.get((src, dst), []))
        not_drawn += [piece for lane in several[LANES:] for piece in lane]
        name = "all-reduce" if src < 0 else f"{cluster.regions[src].name} → {cluster.regions[dst].name}"
        process = FIRST_REGION + len(cluster.regions)
        rows += _rows(process, name, several[:LANES])
        if (src, dst) in faults:
            rows.append(Row(process, f"{name} (faults)", faults[src, dst]))
    return rows, not_drawn


def unfinished_slices(job: CutShort, now: float) -> Iterator[Slice]:
    """What a job that was under way at the end, `now`, did until then; the last of it is not finished."""
    if job.lost <= now:
        yield microseconds(job.began), microseconds(job.lost), "lost (nobody was told yet)"
        return
    train = f"train {job.steps} step{'s' * (job.steps != 1)}"
    for name, start, end in (("pull", job.began, job.computes), (train, job.computes, job.until)):
        if start < min(now, end):
            over = end <= now
            yield microseconds(start), microseconds(min(end, now)), name if over else f"{name} {UNFINISHED}"
            if not over:
                return
    if job.until < now:
        yield microseconds(job.until), microseconds(now), f"push {UNFINISHED}"


def lanes(slices: list[Slice]) -> list[list[Slice]]:
    """Slices laid out on as few rows as hold them without overlap, each in order of time."""
    ordered = sorted(slices, key=itemgetter(0))
    if ordered and all(before[1] <= after[0] for before, after in pairwise(ordered)):
        return [ordered]
    ordered.sort(key=itemgetter(0, 1))
    rows: list[list[Slice]] = []
    taken: list[tuple[int, int]] = []  # (until when, lane)
    free: list[int] = []
    for piece in ordered:
        while taken and taken[0][0] <= piece[0]:
            heappush(free, heappop(taken)[1])
        lane = heappop(free) if free else len(rows)
        if lane == len(rows):
            rows.append([])
        rows[lane].append(piece)
        heappush(taken, (piece[1], lane))
    return rows


def _rows(process: int, name: str, several: list[list[Slice]]) -> Iterator[Row]:
    for lane, slices in enumerate(several):
        yield Row(process, f"{name} #{lane + 1}" if lane else name, slices)


def _waits(busy: list[Slice], collectives: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """When collectives (serial, in order) were under way and none of `busy` (in order)."""
    position = 0
    for start, end in collectives:
        while position < len(busy) and busy[position][1] <= start:
            position += 1
        index = position
        while index < len(busy) and busy[index][0] < end:
            if busy[index][0] > start:
                yield start, busy[index][0]
            start = max(start, busy[index][1])
            index += 1
        if start < end:
            yield start, end


def microseconds(seconds: float) -> int:
    # Whole ones: readers turn fractions into nanoseconds by truncation, and neighbours would overlap by one.
    return round(min(seconds, LATEST) * 1e6)


def many_microseconds(seconds: Iterable[float]) -> list[int]:
    """The same of many, ten times as fast."""
    whole: list[int] = np.rint(np.minimum(np.fromiter(seconds, float), LATEST) * 1e6).astype(np.int64).tolist()
    return whole
