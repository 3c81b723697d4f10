"""Network models: how long bytes take from region to region, and in an all-reduce over all workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Union

import numpy as np

from halos.errors import ConfigError, require
from halos.hooks import Register, hookimpl
from halos.world.cluster import LONGEST_MS, Cluster
from halos.world.rings import best_ring

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST = 4096  # regions: a link between every two of them
SLOWEST = 1e-15  # Gbit/s, a bit in eleven days: the times of transfers stay finite


class NetworkModel(Protocol):
    """Times of transfers, in seconds; called with `time`, the virtual moment they start (of a round trip, its pull)."""

    def connect(self, cluster: Cluster) -> None:
        """Called once, before anything else; raises ConfigError if the model does not fit."""
        ...

    def transfer(self, nbytes: int, src: int, dst: int, time: float) -> float:
        """Return the seconds of `nbytes` from region `src` to region `dst`."""
        ...

    def all_reduce(self, nbytes: int, workers: int, time: float) -> float:
        """Return the seconds of one all-reduce of `nbytes` per worker among `workers` workers."""
        ...

    def round_trip(
        self, pull_bytes: int, push_bytes: int, server: int, region: int, time: float
    ) -> tuple[float, float]:
        """Return the seconds to pull from region `server` to `region`, and later to push back.

        `time` is when the pull starts. The push starts later, by as long as the job takes, which is not told: an
        asynchronous job's round trip is one duration, known when it is dispatched, as in the original.
        """
        ...


@dataclass
class Matrix:
    """A bandwidth (and, optionally, a latency) per directed link; links are never contended.

    A transfer takes `latency + bytes · 8 / bandwidth`. An all-reduce among M workers is a ring over all
    regions (Patarasuk and Yuan, 2009): `2 (M−1) · latency + 2 (M−1)/M · bytes · 8 / bandwidth`, at the best
    directed ring's slowest link (and the largest latency between two regions; if there is one region only, at
    `[0][0]`); one worker needs none. Up to 20 regions the best ring is found exactly; above, a good one. An
    all-gather passes every payload on around that ring: `(M−1) · (latency + bytes · 8 / bandwidth)`.
    """

    # Gbit/s (1e9 bits), one number for all links or [from][to]; `.inf` is allowed. null: that of `cluster`.
    bandwidth_gbps: Union[float, list[list[float]], None] = None
    latency_ms: Union[float, list[list[float]], None] = 0.0  # milliseconds of one way, one or [from][to]; null: 0
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


def square(value: Union[float, list[list[float]]], regions: int, key: str) -> NDArray[np.float64]:
    """Return `value` as a [regions, regions] array. Raises ConfigError for `key` if it does not fit."""
    if not isinstance(value, list):
        return np.full((regions, regions), float(value))
    if [len(row) for row in value] != [regions] * regions:
        shape = f"{len(value)} x " + "/".join(map(str, sorted({len(row) for row in value})))
        expected = f"one number or {regions} rows of {regions} numbers, [from][to]"
        raise ConfigError(key, f"has shape {shape}, but there are {regions} regions; give {expected}")
    return np.array(value, dtype=np.float64)


def _refuse(bad: NDArray[np.bool_], values: NDArray[np.float64], key: str, expected: str) -> None:
    """Raise ConfigError that names the first bad entry, if there is one."""
    for i, j in np.argwhere(bad)[:1].tolist():
        require(False, f"{key}[{i}][{j}]", float(values[i, j]), expected)


@hookimpl
def register_network_models(register: Register) -> None:
    register("matrix", Matrix)
