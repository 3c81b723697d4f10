"""The cluster: regions and the workers in them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Union

from halos.errors import ConfigError, positive, require

LONGEST_MS = 1e15  # milliseconds, 30,000 years: sums and products of times stay finite
SHORTEST_MS = 1e-15  # milliseconds of a local step: how many of them fit into a time stays finite
SLOWEST = 1e-9  # of the fastest worker's speed, likewise


@dataclass(frozen=True)
class Worker:
    """One simulated worker: `speed` is relative to the fastest (1.0)."""

    id: int  # from 0 on, region by region
    region: int  # by index
    speed: float  # 1 is the fastest


@dataclass(frozen=True)
class Region:
    """A group of workers with fast links between them."""

    index: int  # from 0 on
    name: str  # used once
    workers: tuple[Worker, ...]  # none, perhaps


@dataclass
class RegionOptions:
    """A region as the config writes it."""

    name: str = ""  # used once; if empty, `region-` and its index
    # Relative speeds, positive; all are divided by the fastest of the cluster. A region may be empty.
    workers: list[float] = field(default_factory=list)


@dataclass
class ClusterOptions:
    """The regions and their workers: an environment file, or written out; one of the two is required."""

    # A YAML file in the original simulator's format: `num_regions`, `network_bandwidths` (Gbit/s, [from][to]) and
    # `worker_speeds` (a list per region); its regions are called `region-0`, `region-1`, … The resolved configuration
    # has its regions and bandwidths instead.
    env: Optional[Path] = None
    regions: list[RegionOptions] = field(default_factory=list)  # in order of their index
    # Gbit/s, [from][to], for network models that have none of their own; not beside `env`.
    bandwidth_gbps: Optional[list[list[float]]] = None
    step_time_ms: float = 238.391  # milliseconds of one local step of the fastest worker
    # Milliseconds, times the worker's id, added to every asynchronous round trip. The original adds 1.0e-6, which
    # adds up over a long run and reorders events; `configs/upstream` does so too.
    tie_break_ms: float = 0.0

    def __post_init__(self) -> None:
        require(positive(self.step_time_ms), "step_time_ms", self.step_time_ms, "a positive number of milliseconds")
        fits = self.step_time_ms >= SHORTEST_MS
        require(fits, "step_time_ms", self.step_time_ms, f"at least {SHORTEST_MS:g} milliseconds")
        require(
            math.isfinite(self.tie_break_ms) and self.tie_break_ms >= 0,
            "tie_break_ms",
            self.tie_break_ms,
            "zero or a positive number of milliseconds",
        )
        for key in ("step_time_ms", "tie_break_ms"):
            require(getattr(self, key) <= LONGEST_MS, key, getattr(self, key), f"at most {LONGEST_MS:g} milliseconds")
        if self.env is not None and self.regions:
            raise ConfigError("regions", "given beside env; a cluster comes from one of the two")
        if self.env is not None and self.bandwidth_gbps is not None:
            raise ConfigError("bandwidth_gbps", "given beside env, which has its own")


@dataclass(frozen=True)
class Cluster:
    """The simulated cluster: regions, their workers, and how long a local step takes at speed 1 (seconds)."""

    regions: tuple[Region, ...]  # in order of index
    workers: tuple[Worker, ...]  # in order of id
    step_time: float  # seconds of a local step at speed 1
    tie_break: float  # seconds, times the worker's id, added to each asynchronous round trip
    bandwidth_gbps: Optional[list[list[float]]] = None  # [from][to], if the configuration gives it

    def check_region(self, region: int, key: str = "server_region") -> None:
        """Raise ConfigError for `key` unless there is a region of index `region`."""
        last = len(self.regions) - 1
        require(0 <= region <= last, key, region, f"a region, 0 to {last}")


def region_index(region: Union[Region, int]) -> int:
    """Return a region's index; an index is returned as it is."""
    return region.index if isinstance(region, Region) else region


def build(options: ClusterOptions) -> Cluster:
    """Build the cluster that `cluster:` describes; speeds are divided by the fastest.

    Raises ConfigError for what makes none: no workers, a name used twice, speeds or bandwidths that do not fit.
    """
    assert options.env is None, "halos.config.env has read it"
    names_and_speeds = [
        (region.name or f"region-{index}", region.workers) for index, region in enumerate(options.regions)
    ]
    if not names_and_speeds:
        raise ConfigError("regions", "empty; name an `env` file or write regions: [{name: …, workers: [1.0, …]}]")
    names = [name for name, _ in names_and_speeds]
    used: set[str] = set()
    for name in names:
        require(name not in used, "regions", name, "a region name used once")
        used.add(name)
    speeds = [speed for _, several in names_and_speeds for speed in several]
    if not speeds:
        raise ConfigError("regions", "no region has a worker")
    for index, (_, several) in enumerate(names_and_speeds):
        for position, speed in enumerate(several):
            require(positive(speed), f"regions[{index}].workers[{position}]", speed, "a positive, finite speed")
    fastest = max(speeds)
    for index, (_, several) in enumerate(names_and_speeds):
        for position, speed in enumerate(several):
            fits = speed / fastest >= SLOWEST
            require(
                fits,
                f"regions[{index}].workers[{position}]",
                speed,
                f"at least {SLOWEST:g} of the fastest's ({fastest:g})",
            )
    regions: list[Region] = []
    workers: list[Worker] = []
    for index, (name, several) in enumerate(names_and_speeds):
        members = tuple(Worker(len(workers) + i, index, speed / fastest) for i, speed in enumerate(several))
        workers.extend(members)
        regions.append(Region(index, name, members))
    _check_bandwidth(options.bandwidth_gbps, len(regions))
    return Cluster(
        tuple(regions),
        tuple(workers),
        options.step_time_ms / 1e3,
        options.tie_break_ms / 1e3,
        options.bandwidth_gbps,
    )


def _check_bandwidth(gbps: Optional[list[list[float]]], regions: int) -> None:
    for i, row in enumerate(gbps or []):
        for j, entry in enumerate(row):
            require(entry > 0, f"bandwidth_gbps[{i}][{j}]", entry, "a positive number")
    if gbps is not None and [len(row) for row in gbps] != [regions] * regions:
        raise ConfigError("bandwidth_gbps", f"is not {regions} rows of {regions} numbers, [from][to]")
