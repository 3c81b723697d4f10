"""Timelines: what the workers of one run did, and what its links carried, in the first part of its time.

A row cuts time into intervals and says what share of each was spent on what. It cuts where something begins or ends, so
that shares are 0 or 1; of too much for that, into short ones of equal length, so that a picture has a limited size at
any number of jobs. With many workers a row is a region.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from halos.config.config import resolved
from halos.errors import UserError
from halos.seeds import own_seed
from halos.values.records import ALL_REDUCE
from halos.world import cluster as clusters
from halos.world.faults import impairments, outages

if TYPE_CHECKING:
    from halos.reading.run import RunRecords

    Array = np.ndarray[Any, np.dtype[np.float64]]
    Clock = Callable[[Array], Array]

COMPUTE, TRANSFER, DOWN = "compute", "transfer", "down"  # of a worker; the rest is idle. Of a link the last two.
INTERVALS = 600  # at most
RECTANGLES = 2_000  # about as many may be drawn; then intervals become longer
ROWS = 32  # of workers, at most; then one for each region
REGIONS = 12  # at most; then one for all
LINKS = 12  # those that carried most
ROUNDS = 3  # so many jobs of each worker are shown, where workers have about as many each


@dataclass(frozen=True)
class Row:
    """A worker, a region's workers or a link; by what it did, the share of each interval."""

    label: str
    edges: Array  # [intervals + 1], simulated seconds
    shares: dict[str, Array]  # [intervals] each; of workers they add up to 1 at most


@dataclass(frozen=True)
class Timeline:
    """One run's first `until` simulated seconds."""

    until: float
    of: str  # what a row of `workers` is
    workers: tuple[Row, ...]
    links: tuple[Row, ...]
    end: float  # simulated seconds: of the run, or what is recorded of it
    hidden: int  # links that carried something and are not among `links`
    faults: bool  # whether outages are drawn, where there may be some


def window(run: RunRecords) -> Optional[float]:
    """Return the time by which half of the workers have brought ROUNDS updates, or all that they did; None of none."""
    updates = run.updates
    if not len(updates):
        return None
    times = _by(updates["worker"], updates["time"])  # in order of arrival, as they are recorded
    return float(np.median([each[:ROUNDS][-1] for each in times.values()]))


def timeline(run: RunRecords, until: float) -> Timeline:
    """Return what happened before `until` (simulated seconds), as far as the records tell."""
    intervals = INTERVALS
    while True:
        found = _timeline(run, until, intervals)
        if _rectangles(found) <= RECTANGLES or intervals <= INTERVALS // 8:
            return found
        intervals //= 2


def _timeline(run: RunRecords, until: float, intervals: int) -> Timeline:
    regions = run.config["cluster"]["regions"]
    names = [str(region["name"]) for region in regions]
    of = np.array([index for index, region in enumerate(regions) for _ in region["workers"]])  # each worker's region
    end = _end(run)
    down, impaired, known = _faults(run, min(until, end))
    even = np.linspace(0.0, until, intervals + 1)
    each = len(of) <= ROWS
    found = _workers(run, len(of), down, even, exact=each)
    if each:
        rows = [Row(f"{names[of[worker]]} · {worker}", *one) for worker, one in enumerate(found)]
    else:
        shares = [theirs for _, theirs in found]
        parts = [(name, of == index) for index, name in enumerate(names)]
        parts = parts if len(parts) <= REGIONS else [("all regions", of >= 0)]
        rows = [
            Row(f"{name}, {chosen.sum():,} workers", even, _mean(shares, chosen))
            for name, chosen in parts
            if chosen.any()
        ]
    links, hidden = _links(run, names, impaired, even)
    what = "worker" if each else "region, the mean over its workers"
    return Timeline(until, what, tuple(rows), links, end, hidden, known)


def _end(run: RunRecords) -> float:
    ended = (run.summary or {}).get("simulated_seconds")
    if ended is not None:
        return float(ended)
    return max((float(rows["time"].max()) for rows in (run.updates, run.transfers) if len(rows)), default=0.0)


def _workers(
    run: RunRecords, count: int, down: dict[int, Array], even: Array, exact: bool
) -> Iterator[tuple[Array, dict[str, Array]]]:
    """Yield edges and shares of each worker, in order of id; edges are `even`, or where something begins or ends."""
    updates, transfers = run.updates, run.transfers
    early = updates.where(updates["start_time"] < even[-1])
    jobs = _by(early["worker"], _spans(early))
    moved = transfers.where(transfers["start_time"] < even[-1])
    own = moved.where(~np.isnan(moved["worker"].astype(np.float64)))
    carried = _by(own["worker"], _spans(own))
    together = _joined(_spans(moved.where(moved["kind"] == ALL_REDUCE)))
    none = np.zeros((0, 2))
    for worker in range(count):
        job, mine, off = (_joined(each.get(worker, none)) for each in (jobs, carried, down))
        edges = _edges(even, job, mine, off, together) if exact else even
        busy = _joined(np.concatenate([job, off]))
        # What a collective took, but for what the worker did meanwhile.
        waited = _taken(together, edges) - _taken(busy, edges, lambda at: _taken(together, at))
        transfer, compute = _taken(mine, edges), _taken(job, edges) - _taken(mine, edges)
        done = {COMPUTE: compute, TRANSFER: transfer + waited, DOWN: _taken(off, edges)}
        yield edges, {what: _shares(taken, edges) for what, taken in done.items()}


def _links(
    run: RunRecords, names: list[str], impaired: dict[tuple[int, int], Array], even: Array
) -> tuple[tuple[Row, ...], int]:
    """Return the rows of the links that carried most, and how many others carried something."""
    moved = run.transfers.where(run.transfers["start_time"] < even[-1])
    spans, link = _spans(moved), _link(moved["src"], moved["dst"], len(names))
    by, nbytes = _by(link, spans), _by(link, moved["bytes"])
    most = sorted(by, key=lambda each: (-int(nbytes[each].sum()), each))
    rows = []
    for each in sorted(most[:LINKS]):
        src, dst = divmod(each, len(names))
        busy, down = _joined(by[each]), impaired.get((src, dst), np.zeros((0, 2)))
        edges = _edges(even, busy, down)
        shares = {TRANSFER: _shares(_taken(busy, edges), edges), DOWN: _shares(_taken(down, edges), edges)}
        rows.append(Row("all-reduce" if each < 0 else f"{names[src]} → {names[dst]}", edges, shares))
    return tuple(rows), len(most[LINKS:])


def _edges(even: Array, *spans: Array) -> Array:
    """Return where `spans` begin or end between the first and the last of `even`; if these are too many, `even`."""
    moments = np.unique(np.concatenate([even[[0, -1]], *(each.ravel() for each in spans)]))
    moments = moments[(moments >= even[0]) & (moments <= even[-1])]
    return moments if len(moments) <= len(even) else even


def _link(src: Array, dst: Array, regions: int) -> Array:
    """Return a number for each link; −1 for collectives."""
    numbers = src.astype(np.float64) * regions + dst.astype(np.float64)
    return np.where(np.isnan(numbers), -1, numbers).astype(np.int64)


def _faults(run: RunRecords, until: float) -> tuple[dict[int, Array], dict[tuple[int, int], Array], bool]:
    """Return when workers, and links, were down before `until`; and whether that is known.

    They are no records but follow from the configuration, whose plugins may not be installed here. Files that it names
    as plugins are not loaded: whoever draws somebody else's runs does not run their code.
    """
    if run.config.get("faults", {}).get("name", "none") == "none":
        return {}, {}, True
    try:
        config, _ = resolved({**run.config, "plugins": []})
        cluster = clusters.build(config.cluster)
        config.faults.connect(cluster, own_seed(config.faults, config.seed))
    except UserError:
        return {}, {}, False
    down: dict[int, list[tuple[float, float]]] = {}
    for outage in outages(config.faults, cluster.workers, until):
        down.setdefault(outage.worker, []).append((outage.start, outage.end))
    links: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for fault in impairments(config.faults, len(cluster.regions), until):
        if fault.share == 0:
            links.setdefault((fault.src, fault.dst), []).append((fault.start, fault.end))
    return (
        {worker: np.array(spans) for worker, spans in down.items()},
        {link: np.array(spans) for link, spans in links.items()},
        True,
    )


def _by(keys: Array, values: Array) -> dict[int, Array]:
    """Return values by key, in their order."""
    order = np.argsort(keys, kind="stable")
    keys, values = keys[order], values[order]
    found, first = np.unique(keys, return_index=True)
    return {int(key): part for key, part in zip(found, np.split(values, first[1:]))} if len(found) else {}


def _spans(rows: Any) -> Array:
    """Return from when to when, [rows, 2]."""
    return np.stack([rows["start_time"], rows["time"]], 1).astype(np.float64).reshape(-1, 2)


def _joined(spans: Array) -> Array:
    """Return the same time as intervals in order of which none overlap, [n, 2]."""
    if len(spans) < 2:
        return spans
    spans = spans[np.argsort(spans[:, 0], kind="stable")]
    ends = np.maximum.accumulate(spans[:, 1])
    first = np.append(True, spans[1:, 0] > ends[:-1])
    return np.stack([spans[first, 0], ends[np.append(np.flatnonzero(first)[1:] - 1, len(spans) - 1)]], 1)


def _taken(spans: Array, at: Array, clock: Optional[Clock] = None) -> Array:
    """Return how much of the time until each of `at` lies in spans (as `_joined`), by another clock if there is one."""
    if not len(spans):
        return np.zeros(len(at))
    clock = clock or (lambda moments: moments)
    begins, ends = clock(spans[:, 0]), clock(spans[:, 1])
    before = np.append(0.0, np.cumsum(ends - begins))
    which = np.searchsorted(spans[:, 0], at, side="right") - 1
    inside = clock(np.minimum(at, spans[np.maximum(which, 0), 1])) - begins[which]
    return np.where(which >= 0, before[which] + inside, 0.0)


def _shares(taken: Array, edges: Array) -> Array:
    """Return the share of each interval, of the time taken until each of its edges."""
    found: Array = np.clip(np.diff(taken) / np.diff(edges), 0.0, 1.0).round(4)
    return found


def _mean(shares: list[dict[str, Array]], chosen: Array) -> dict[str, Array]:
    """Return the mean over the chosen workers."""
    several = [theirs for theirs, one in zip(shares, chosen) if one]
    return {what: np.mean([theirs[what] for theirs in several], 0).round(4) for what in several[0]}


def _rectangles(found: Timeline) -> int:
    return sum(len(blocks(share)) for row in (*found.workers, *found.links) for share in row.shares.values())


def blocks(share: Array, *others: Array) -> list[tuple[int, int]]:
    """Return the intervals [first, end) in which a share is the same and not 0, and so are others."""
    changes = np.any([np.diff(each) != 0 for each in (share, *others)], 0)
    edges = np.append(np.append(0, np.flatnonzero(changes) + 1), len(share))
    return [(int(first), int(end)) for first, end in pairwise(edges) if share[first] > 0]
