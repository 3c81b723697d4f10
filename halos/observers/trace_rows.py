"""The rows of a trace: what is drawn for each worker and link, in order of time and without overlap.

How they are written is the trace's matter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from operator import itemgetter
from typing import NamedTuple, Optional, Union

from halos.values.records import ALL_REDUCE, LostJob
from halos.world.cluster import Cluster
from halos.world.faults import Impairment, Outage

LATEST = 9e9  # seconds, 285 years: readers count nanoseconds in 63 bits
LANES = 100  # of one link; transfers beside so many others are only counted (`otherData.transfers_not_drawn`)

MODELS, FIRST_REGION = 1, 2  # process ids; that of the links comes after the last region's

Compute = tuple[float, float, int, int, int, int]  # start, end, worker, steps, from version, learning-rate step
# start, end, src, dst, bytes, kind, worker
Carried = tuple[float, float, Optional[int], Optional[int], int, str, Optional[int]]
# start, end (microseconds), what; None: waiting for an all-reduce
Slice = tuple[int, int, Union[Compute, Carried, Outage, LostJob, Impairment, None]]


class Row(NamedTuple):
    """One row of the picture: slices in order, none overlapping."""

    process: int
    name: str
    slices: list[Slice]


def worker_rows(
    computed: Iterable[Compute],
    carried: Iterable[Carried],
    lost: Iterable[LostJob],
    down: Iterable[Outage],
    cluster: Cluster,
) -> Iterator[Row]:
    """A row per worker; a further one where its slices overlap."""
    busy: dict[int, list[Slice]] = defaultdict(list)
    collectives: list[tuple[int, int]] = []
    for compute in computed:
        busy[compute[2]].append((microseconds(compute[0]), microseconds(compute[1]), compute))
    for transfer in carried:
        start, end, worker = microseconds(transfer[0]), microseconds(transfer[1]), transfer[6]
        if worker is not None:
            busy[worker].append((start, end, transfer))
        elif transfer[5] == ALL_REDUCE:
            collectives.append((start, end))
    for job in lost:
        busy[job.worker].append((microseconds(job.start_time), microseconds(job.lost_time), job))
    for outage in down:
        busy[outage.worker].append((microseconds(outage.start), microseconds(outage.end), outage))
    for member in cluster.workers:
        slices = sorted(busy[member.id], key=itemgetter(0, 1))
        slices += [(start, end, None) for start, end in _waits(slices, collectives)]
        name = f"worker {member.id} (speed {member.speed:.3g})"
        yield from _rows(FIRST_REGION + member.region, name, lanes(slices) or [[]])


def link_rows(carried: Iterable[Carried], impaired: Iterable[Impairment], cluster: Cluster) -> tuple[list[Row], int]:
    """A row per link that carried something, more where transfers overlap; and how many transfers found no room.

    And one per link that was down or slow at times.
    """
    links: dict[tuple[int, int], list[Slice]] = defaultdict(list)
    faults: dict[tuple[int, int], list[Slice]] = defaultdict(list)
    for fault in impaired:
        faults[fault.src, fault.dst].append((microseconds(fault.start), microseconds(fault.end), fault))
    for transfer in carried:
        src, dst = transfer[2], transfer[3]
        link = (-1, -1) if src is None or dst is None else (src, dst)  # collectives first
        links[link].append((microseconds(transfer[0]), microseconds(transfer[1]), transfer))
    rows: list[Row] = []
    not_drawn = 0
    for src, dst in sorted({*links, *faults}):
        several = lanes(links.get((src, dst), []))
        not_drawn += sum(len(lane) for lane in several[LANES:])
        name = "all-reduce" if src < 0 else f"{cluster.regions[src].name} -> {cluster.regions[dst].name}"
        process = FIRST_REGION + len(cluster.regions)
        rows += _rows(process, name, several[:LANES])
        if (src, dst) in faults:
            rows.append(Row(process, f"{name} (faults)", faults[src, dst]))
    return rows, not_drawn


def lanes(slices: Iterable[Slice]) -> list[list[Slice]]:
    """Slices laid out on as few rows as hold them without overlap, each in order of time."""
    rows: list[list[Slice]] = []
    taken: list[tuple[int, int]] = []  # (until when, lane)
    free: list[int] = []
    for piece in sorted(slices, key=itemgetter(0, 1)):
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
