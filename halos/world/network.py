"""Network models: how long bytes take from region to region, and in an all-reduce over all workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from halos.errors import ConfigError, is_number, require
from halos.hooks import Register, hookimpl
from halos.world.cluster import LONGEST_MS, Cluster
from halos.world.rings import best_ring

MOST = 4096  # regions: a link between every two of them
SLOWEST = 1e-15  # Gbit/s, a bit in eleven days: the times of transfers stay finite


class NetworkModel(Protocol):
    """Times of transfers, in seconds; called with `time`, the virtual moment they start.

    Optional: `all_gather(nbytes, workers, time)`, until everybody has all payloads, where these cannot be
    summed under way; without it, an all-reduce of as many bytes on every link.
    """

    def connect(self, cluster: Cluster) -> None:
        """Called once, before anything else; raises ConfigError if the model does not fit."""
        ...

    def transfer(self, nbytes: int, src: int, dst: int, time: float) -> float:
        """Seconds for `nbytes` from region `src` to region `dst`."""
        ...

    def all_reduce(self, nbytes: int, workers: int, time: float) -> float:
        """Seconds for one all-reduce of `nbytes` per worker among `workers` workers."""
        ...

    def round_trip(
        self, pull_bytes: int, push_bytes: int, server: int, region: int, time: float
    ) -> tuple[float, float]:
        """Seconds to pull from region `server` to `region`, and later to push back."""
        ...


@dataclass
class Matrix:
    """A bandwidth (and, optionally, a latency) per directed link; links are never contended.

    A transfer takes `latency + bytes · 8 / bandwidth`. An all-reduce among M workers is a ring over
    all regions: `2 (M−1) · latency + 2 (M−1)/M · bytes · 8 / bandwidth`, at the best directed
    ring's slowest link (and the largest latency between two regions; if there is one region only, at
    `[0][0]`); one worker needs none. Up to 20 regions the best ring is found exactly; above, a good one. An
    all-gather passes every payload on around that ring: `(M−1) · (latency + bytes · 8 / bandwidth)`.
    """

    bandwidth_gbps: Any = None  # Gbit/s (1e9 bits), [from][to] or one number; null: that of `cluster.env`
    latency_ms: Any = 0.0  # milliseconds of one way, [from][to] or one number
    # Which link a push is charged to: `own`, that from worker to server, or `forward`, that of the pull, as in the
    # original.
    return_path: str = "own"

    def __post_init__(self) -> None:
        require(self.return_path in ("own", "forward"), "return_path", self.return_path, "one of own, forward")

    def connect(self, cluster: Cluster) -> None:
        regions = len(cluster.regions)
        if regions > MOST:
            raise ConfigError("", f"a matrix of links is for at most {MOST:,} regions; there are {regions:,}")
        given = cluster.bandwidth_gbps if self.bandwidth_gbps is None else self.bandwidth_gbps
        if given is None:
            raise ConfigError(
                "bandwidth_gbps", f"missing; give {regions} x {regions} numbers [from][to] in Gbit/s, or one"
            )
        gbps = square(given, regions, "bandwidth_gbps")
        _refuse(~(gbps > 0.0), gbps, "bandwidth_gbps", "a positive number")
        _refuse(gbps < SLOWEST, gbps, "bandwidth_gbps", f"at least {SLOWEST:g} Gbit/s")
        with np.errstate(over="ignore"):  # 1e300 Gbit/s is as good as infinite
            self._bandwidth = gbps * 1e9
        ms = square(0.0 if self.latency_ms is None else self.latency_ms, regions, "latency_ms")
        _refuse(~((ms >= 0.0) & np.isfinite(ms)), ms, "latency_ms", "zero or a positive number")
        _refuse(ms > LONGEST_MS, ms, "latency_ms", f"at most {LONGEST_MS:g} milliseconds")
        latency = ms / 1e3
        self._links: list[list[float]] = self._bandwidth.tolist()  # plain floats: much faster to index
        self._latency: list[list[float]] = latency.tolist()
        self._ring = best_ring(self._bandwidth)
        off_diagonal = latency[~np.eye(regions, dtype=bool)]
        self._ring_latency = float(off_diagonal.max()) if regions > 1 else float(latency[0, 0])

    def transfer(self, nbytes: int, src: int, dst: int, time: float) -> float:
        return self._latency[src][dst] + nbytes * 8 / self._links[src][dst]

    def all_reduce(self, nbytes: int, workers: int, time: float) -> float:
        if workers == 1:
            return 0.0
        return 2 * (workers - 1) * self._ring_latency + 2 * (workers - 1) * (nbytes * 8 / workers) / self._ring

    def all_gather(self, nbytes: int, workers: int, time: float) -> float:
        if workers == 1:
            return 0.0
        return (workers - 1) * (self._ring_latency + nbytes * 8 / self._ring)

    def round_trip(
        self, pull_bytes: int, push_bytes: int, server: int, region: int, time: float
    ) -> tuple[float, float]:
        latency, links = self._latency, self._links  # `transfer`, twice, written out: every asynchronous job asks
        pull = latency[server][region] + pull_bytes * 8 / links[server][region]
        if self.return_path == "forward":
            return pull, latency[server][region] + push_bytes * 8 / links[server][region]
        return pull, latency[region][server] + push_bytes * 8 / links[region][server]


def square(value: Any, regions: int, key: str) -> NDArray[np.float64]:
    """`value` (one number or a list of lists) as a [regions, regions] array; ConfigError if it does not fit."""
    expected = f"one number or {regions} rows of {regions} numbers, [from][to]"
    rows = value if isinstance(value, list) else None
    if rows is None:
        require(is_number(value), key, value, expected)
        return np.full((regions, regions), float(value))
    shape = f"{len(rows)} x " + "/".join(sorted({str(len(row)) if isinstance(row, list) else "?" for row in rows}))
    if len(rows) != regions or not all(isinstance(row, list) and len(row) == regions for row in rows):
        raise ConfigError(key, f"has shape {shape}, but there are {regions} regions; give {expected}")
    for i, row in enumerate(rows):
        for j, entry in enumerate(row):
            require(is_number(entry), f"{key}[{i}][{j}]", entry, "a number")
    return np.array(rows, dtype=np.float64)


def _refuse(bad: NDArray[np.bool_], values: NDArray[np.float64], key: str, expected: str) -> None:
    """A ConfigError that names the first bad entry, if there is one."""
    for i, j in np.argwhere(bad)[:1].tolist():
        require(False, f"{key}[{i}][{j}]", float(values[i, j]), expected)


@hookimpl
def register_network_models(register: Register) -> None:
    register("matrix", Matrix)
