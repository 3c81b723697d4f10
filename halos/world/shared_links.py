"""Shared links: a network whose regions, pairs of regions and workers have links that all who use them share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Union

from halos.errors import ConfigError, positive, require, shown, under
from halos.hooks import Register, hookimpl
from halos.seeds import generator, seed_for
from halos.values.rounding import SLACK
from halos.world.bandwidth import Background, Change, bandwidths, read_changes
from halos.world.cluster import LONGEST_MS, Cluster, Worker
from halos.world.fair import Link
from halos.world.network import MOST, SLOWEST, square
from halos.world.patterns import PATTERNS, Stage
from halos.world.phases import Phase, lone_seconds

PerRegion = Union[float, list[float], None]
SOONEST = 1e-3  # seconds after which a link's changes may begin anew: each of them is looked at


@dataclass
class BackboneLink:
    """A link between regions that several ways from region to region share: a cable, a provider's port."""

    name: str  # by which `background` and `changes` call it
    gbps: float  # Gbit/s
    ways: list[list[int]] = field(default_factory=list)  # [from, to], regions by index, of all that crosses it

    def __post_init__(self) -> None:
        require(self.name != "", "name", self.name, "a name")
        _check_gbps("gbps", self.gbps)


@dataclass
class SharedLinks:
    """Links with max–min fair shares: what is on a link at the same time gets less of it.

    From region A to another, B, bytes cross `A.up`, `A->B`, named backbone links and `B.down`; inside A, `A.inside`.
    From worker 3 they cross `worker-3.up` first, and to it `worker-3.down` last, where it is known who sends and who
    receives. A message takes `bytes · 8 / rate + latency` (plus jitter); its rate is revised whenever something comes
    or goes.
    """

    # Gbit/s (1e9 bits), one number for all regions or one each; `.inf` or null: no limit.
    up_gbps: PerRegion = None  # from a region to all others
    down_gbps: PerRegion = None  # from all others to a region
    # Between workers of one region, all together; null: the diagonal of `cluster.bandwidth_gbps`, if there is one.
    inside_gbps: PerRegion = None
    # From one region to one other, one number or [from][to]; null: `cluster.bandwidth_gbps`, if there is one.
    backbone_gbps: Union[float, list[list[float]], None] = None
    backbone: list[BackboneLink] = field(default_factory=list)  # named ones; several may be on one way
    worker_up_gbps: Optional[float] = None  # from each worker; null: no limit
    worker_down_gbps: Optional[float] = None  # to each worker; null: no limit
    latency_ms: Union[float, list[list[float]], None] = 0.0  # milliseconds of one way, one or [from][to]; null: 0
    # Milliseconds, the mean of what is added to each message's latency at random (exponential), and to each step of a
    # collective.
    jitter_ms: float = 0.0
    seed: Optional[int] = None  # of the jitter; null: the run's
    background: list[Background] = field(default_factory=list)  # what other tenants take
    changes: list[Change] = field(default_factory=list)  # of links' bandwidth over time
    # The same as a CSV file with columns `time_s,link,gbps`. The resolved configuration has `changes` instead.
    changes_csv: Optional[Path] = None
    # After so many seconds the changes begin anew, with the links as configured; null: what came last stays.
    changes_repeat_seconds: Optional[float] = None
    collectives: str = "ring"  # how all-reduces go: `ring`, `tree` or `hierarchical` (inside each region first)

    def __post_init__(self) -> None:
        require(self.collectives in PATTERNS, "collectives", self.collectives, f"one of {', '.join(PATTERNS)}")
        fits = 0.0 <= self.jitter_ms <= LONGEST_MS
        require(fits, "jitter_ms", self.jitter_ms, f"zero or a positive number, of {LONGEST_MS:g} at most")
        for key in ("worker_up_gbps", "worker_down_gbps"):
            if getattr(self, key) is not None:
                _check_gbps(key, getattr(self, key))
        every = self.changes_repeat_seconds
        require(
            every is None or (positive(every) and every >= SOONEST),
            "changes_repeat_seconds",
            every,
            f"null, or a number of seconds, {SOONEST:g} at least",
        )
        if self.changes and self.changes_csv is not None:
            raise ConfigError("changes_csv", "given beside changes; they come from one of the two")
        self._seed = self.seed or 0

    def seeded(self, seed: int) -> None:
        self._seed = seed

    def connect(self, cluster: Cluster) -> None:
        regions = len(cluster.regions)
        if regions > MOST:
            raise ConfigError("", f"links between all regions are for at most {MOST:,} of them; there are {regions:,}")
        self._workers = cluster.workers
        latency = square(0.0 if self.latency_ms is None else self.latency_ms, regions, "latency_ms")
        self._latency: list[list[float]] = (latency / 1e3).tolist()
        for i, row in enumerate(latency.tolist()):
            for j, each in enumerate(row):
                require(0.0 <= each <= LONGEST_MS, f"latency_ms[{i}][{j}]", each, f"in [0, {LONGEST_MS:g}]")
        self._configured: dict[str, float] = {}
        for name, bits in self._links(cluster):
            if name in self._configured:
                raise ConfigError("", f"two links have the name {shown(name)}; rename the backbone link or a region")
            self._configured[name] = bits
        if self.changes_csv is not None:  # as it is now: a resumed run must not depend on a file that anybody may edit
            with under("changes_csv"):
                self.changes, self.changes_csv = read_changes(self.changes_csv), None
        self._bandwidths = bandwidths(self._configured, self.changes, self.changes_repeat_seconds, self.background)
        unlimited = all(bits == math.inf for bits in self._configured.values())
        if unlimited and self._unsaid(cluster):
            raise ConfigError("up_gbps", "missing, and so is every other limit; give Gbit/s of links, or .inf")
        self._named: dict[tuple[int, int], list[str]] = {}
        for link in self.backbone:
            for src, dst in link.ways:
                self._named.setdefault((src, dst), []).append(link.name)
        self._routes: dict[tuple[int, int], tuple[str, ...]] = {}
        self._stages: dict[tuple[tuple[int, ...], bool], list[tuple[dict[Link, float], float, int]]] = {}

    # Answers in seconds, for whoever asks how long something would take: what it takes alone, with the mean jitter

    def transfer(self, nbytes: int, src: int, dst: int, time: float) -> float:
        return lone_seconds([self._message(nbytes, src, dst, self.jitter_ms / 1e3)], self.capacity, time)

    def all_reduce(self, nbytes: int, workers: int, time: float) -> float:
        return self._collective(nbytes, workers, False, time)

    def all_gather(self, nbytes: int, workers: int, time: float) -> float:
        return self._collective(nbytes, workers, True, time)

    def round_trip(
        self, pull_bytes: int, push_bytes: int, server: int, region: int, time: float
    ) -> tuple[float, float]:
        return self.transfer(pull_bytes, server, region, time), self.transfer(push_bytes, region, server, time)

    def _collective(self, nbytes: int, workers: int, gathered: bool, time: float) -> float:
        members = [self._workers[index % len(self._workers)] for index in range(workers)]
        phases = [
            Phase(loads, latency + steps * self.jitter_ms / 1e3)
            for loads, latency, steps in self._loads(members, nbytes, gathered)
        ]
        return lone_seconds(phases, self.capacity, time)

    # Answers in flows

    def message_phases(
        self, nbytes: int, src: int, dst: int, number: int, sender: Optional[int], receiver: Optional[int]
    ) -> Sequence[Phase]:
        jitter = self.jitter_ms / 1e3
        if jitter:  # exponential, by inversion
            jitter *= -math.log1p(-seed_for(self._seed, "jitter", number) / 2.0**63 * (1.0 - SLACK))
        sender, receiver = self._there(sender, src), self._there(receiver, dst)
        return [self._message(nbytes, src, dst, jitter, sender, receiver)]

    def collective_phases(self, nbytes: int, members: Sequence[Worker], gathered: bool, number: int) -> Sequence[Phase]:
        phases = self._loads(members, nbytes, gathered)
        if not self.jitter_ms:
            return [Phase(loads, latency) for loads, latency, _ in phases]
        draws = generator(self._seed, "jitter", number)
        mean = self.jitter_ms / 1e3
        return [Phase(loads, latency + mean * draws.standard_gamma(steps)) for loads, latency, steps in phases]

    def capacity(self, link: Link, time: float) -> tuple[float, float]:
        return self._bandwidths[link].at(time)

    def _there(self, worker: Optional[int], region: int) -> Optional[int]:
        """Return the worker if it is one of the region's: who sends may be called by any number."""
        known = worker is not None and 0 <= worker < len(self._workers) and self._workers[worker].region == region
        return worker if known else None

    def _message(
        self,
        nbytes: int,
        src: int,
        dst: int,
        jitter: float,
        sender: Optional[int] = None,
        receiver: Optional[int] = None,
    ) -> Phase:
        loads: dict[Link, float] = dict.fromkeys(self._route(src, dst, sender, receiver), float(nbytes))
        return Phase(loads, self._latency[src][dst] + jitter)

    def _loads(
        self, members: Sequence[Worker], nbytes: int, gathered: bool
    ) -> Iterator[tuple[dict[Link, float], float, int]]:
        """Yield, for each stage, the bytes on each link, its latencies in seconds, and how many steps have one."""
        around = sorted(members, key=lambda worker: (worker.region, worker.id))
        key = tuple([worker.id for worker in around]), gathered
        if key not in self._stages:
            stages = PATTERNS[self.collectives]([worker.region for worker in around], gathered) if around else []
            self._stages[key] = [self._stage(stage, around) for stage in stages]
        for loads, latency, steps in self._stages[key]:
            yield {link: share * nbytes for link, share in loads.items()}, latency, steps

    def _stage(self, stage: Stage, members: Sequence[Worker]) -> tuple[dict[Link, float], float, int]:
        """The same of one stage, for a payload of one byte."""
        loads: dict[Link, float] = {}
        latency = 0.0
        for source, target, payloads in stage.sends:
            one, other = members[source], members[target]
            latency = max(latency, self._latency[one.region][other.region])
            for link in self._route(one.region, other.region, one.id, other.id):
                loads[link] = loads.get(link, 0.0) + payloads
        return loads, stage.steps * latency, stage.steps

    def _route(self, src: int, dst: int, sender: Optional[int], receiver: Optional[int]) -> tuple[str, ...]:
        """The links that limit what goes from region to region, and from and to workers, if these are known."""
        if (src, dst) not in self._routes:
            a, b = self._names[src], self._names[dst]
            between = (f"{a}.up", f"{a}->{b}", *self._named.get((src, dst), ()), f"{b}.down")
            names = (f"{a}.inside",) if src == dst else between
            self._routes[src, dst] = tuple(name for name in names if self._configured[name] < math.inf)
        route = self._routes[src, dst]
        if sender is not None and self.worker_up_gbps is not None:
            route = (f"worker-{sender}.up", *route)
        if receiver is not None and self.worker_down_gbps is not None:
            route = (*route, f"worker-{receiver}.down")
        return route

    # Links as configured

    def _links(self, cluster: Cluster) -> Iterator[tuple[str, float]]:
        """Yield all links there are, and their bits per second."""
        regions, given = len(cluster.regions), cluster.bandwidth_gbps
        self._names = names = [region.name for region in cluster.regions]
        inside = self.inside_gbps
        if inside is None and given is not None:
            inside = [given[region][region] for region in range(regions)]
        for key, end, several in (
            ("up_gbps", "up", self.up_gbps),
            ("down_gbps", "down", self.down_gbps),
            ("inside_gbps", "inside", inside),
        ):
            for name, gbps in zip(names, _each(several, regions, key)):
                yield f"{name}.{end}", gbps * 1e9
        backbone = given if self.backbone_gbps is None else self.backbone_gbps
        gbps = square(math.inf if backbone is None else backbone, regions, "backbone_gbps").tolist()
        for i, row in enumerate(gbps):
            for j, each in enumerate(row):
                if i != j:
                    _check_gbps(f"backbone_gbps[{i}][{j}]", each)
                    yield f"{names[i]}->{names[j]}", each * 1e9
        used: set[str] = set()
        for index, link in enumerate(self.backbone):
            require(link.name not in used, f"backbone[{index}].name", link.name, "a name used once")
            used.add(link.name)
            for place, way in enumerate(link.ways):
                fits = len(way) == 2 and way[0] != way[1] and all(0 <= end < regions for end in way)
                expected = f"two different regions, [from, to], of 0 to {regions - 1}"
                require(fits, f"backbone[{index}].ways[{place}]", way, expected)
            yield link.name, link.gbps * 1e9
        for end, limit in (("up", self.worker_up_gbps), ("down", self.worker_down_gbps)):
            if limit is not None:
                yield from ((f"worker-{worker.id}.{end}", limit * 1e9) for worker in cluster.workers)

    def _unsaid(self, cluster: Cluster) -> bool:
        """Whether nothing was said of any link."""
        said = (self.up_gbps, self.down_gbps, self.inside_gbps, self.backbone_gbps, cluster.bandwidth_gbps)
        return all(each is None for each in said) and not self.backbone


def _each(value: PerRegion, regions: int, key: str) -> list[float]:
    """Return a number for each region; null: no limit. Raises ConfigError for `key` if it does not fit."""
    several = value if isinstance(value, list) else [math.inf if value is None else value] * regions
    if len(several) != regions:
        raise ConfigError(key, f"has {len(several)} numbers, but there are {regions} regions")
    for index, gbps in enumerate(several):
        _check_gbps(f"{key}[{index}]" if isinstance(value, list) else key, gbps)
    return several


def _check_gbps(key: str, gbps: float) -> None:
    require(gbps > 0.0, key, gbps, "a positive number of Gbit/s")
    require(gbps >= SLOWEST, key, gbps, f"at least {SLOWEST:g} Gbit/s")


@hookimpl
def register_network_models(register: Register) -> None:
    register("shared_links", SharedLinks)
