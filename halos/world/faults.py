"""Faults: what goes wrong in the simulated cluster, and when. What that does to a run is others' matter."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import product
from typing import NamedTuple, Optional, Protocol

from halos.errors import ConfigError, require, under
from halos.hooks import Register, hookimpl
from halos.seeds import generator, own_seed, seed_for
from halos.values.params import Params
from halos.world.cluster import LONGEST_MS, Cluster, Worker

TOO_OFTEN = 0.05  # local steps: hardly one in 10^8 would be done between two crashes that close
NEVER = (math.inf, math.inf)


class FaultModel(Protocol):
    """Faults of workers, links and messages, as functions of time alone. Inherit FaultOptions for the three fields."""

    detection_seconds: float  # from a loss until whoever waits is told
    samples: str  # a lost job's: `lost` or `again`
    inner_state: str  # of a crashed worker: `kept` or `gone`

    def connect(self, cluster: Cluster, seed: int) -> None:
        """Called once, before anything else; raises ConfigError if the model does not fit."""
        ...

    def outage(self, worker: Worker, time: float) -> tuple[float, float]:
        """Return from when to when `worker` is down: the first such interval that ends after `time`; or NEVER."""
        ...

    def link(self, src: int, dst: int, time: float) -> tuple[float, float]:
        """Return the share of its bandwidth that the link has at `time` (0: down, 1: all), and until when."""
        ...

    def loses(self, message: int) -> bool:
        """Whether this message is lost; `message` numbers all that are sent in a run."""
        ...


@dataclass
class FaultOptions:
    """The fields of every fault model, and methods by which nothing goes wrong."""

    detection_seconds: float = 0.0  # from a loss until whoever waits is told
    samples: str = "lost"  # a lost job's: `lost`, or `again`, dealt to the shard's next job that takes no more
    # A worker's inner optimizer after a crash: `kept`, as it was at the start of the job that was lost, or `gone`, and
    # with it what its codec's error feedback had kept.
    inner_state: str = "kept"
    seed: Optional[int] = None  # of what goes wrong at random; null: the run's

    def __post_init__(self) -> None:
        fits = 0.0 <= self.detection_seconds <= LONGEST_MS / 1e3
        require(fits, "detection_seconds", self.detection_seconds, "zero or a positive time, of 1e12 s at most")
        require(self.samples in ("lost", "again"), "samples", self.samples, "one of lost, again")
        require(self.inner_state in ("kept", "gone"), "inner_state", self.inner_state, "one of kept, gone")

    def connect(self, cluster: Cluster, seed: int) -> None:
        pass

    def outage(self, worker: Worker, time: float) -> tuple[float, float]:
        return NEVER

    def link(self, src: int, dst: int, time: float) -> tuple[float, float]:
        return 1.0, math.inf

    def loses(self, message: int) -> bool:
        return False


@dataclass
class NoFaults(FaultOptions):
    """Nothing goes wrong."""


@dataclass
class Crash:
    """Worker `worker` is down for `seconds`, from `at_seconds` on."""

    worker: int  # its id
    at_seconds: float  # simulated
    seconds: float = math.inf  # until it returns; `.inf`: never

    def __post_init__(self) -> None:
        _check_interval(self.at_seconds, self.seconds)


@dataclass
class Crashes(FaultOptions):
    """Workers that crash and return: at given times, or at random with exponential times between and to repair."""

    at: list[Crash] = field(default_factory=list)  # given ones
    between_failures_hours: Optional[float] = None  # mean, from a worker's return to its next crash; null: none
    to_repair_hours: float = 0.1  # mean, from a crash to the return

    def __post_init__(self) -> None:
        super().__post_init__()
        mean = self.between_failures_hours
        require(
            mean is None or 0.0 < mean < math.inf, "between_failures_hours", mean, "a positive number of hours, or null"
        )
        require(0.0 < self.to_repair_hours < math.inf, "to_repair_hours", self.to_repair_hours, "a positive number")

    def connect(self, cluster: Cluster, seed: int) -> None:
        mean, step = self.between_failures_hours, cluster.step_time
        if mean is not None and mean * 3600.0 < TOO_OFTEN * step:
            problem = (
                f"{mean:g} h is {mean * 3600.0 / step:.2g} of the fastest worker's local step: no job would ever end"
            )
            raise ConfigError("between_failures_hours", problem)
        self._given: dict[int, list[tuple[float, float]]] = {}
        for index, crash in enumerate(self.at):
            if not 0 <= crash.worker < len(cluster.workers):
                last = len(cluster.workers) - 1
                raise ConfigError(f"at[{index}].worker", f"{crash.worker} is not a worker, 0 to {last}")
            self._given.setdefault(crash.worker, []).append((crash.at_seconds, crash.at_seconds + crash.seconds))
        self._seed = seed
        self._drawn: dict[int, list[tuple[float, float]]] = {}
        self._draws: dict[int, Iterator[tuple[float, float]]] = {}

    def outage(self, worker: Worker, time: float) -> tuple[float, float]:
        return min(first_after(self._given.get(worker.id, ()), time), self._random(worker.id, time))

    def _random(self, worker: int, time: float) -> tuple[float, float]:
        if self.between_failures_hours is None:
            return NEVER
        if worker not in self._draws:
            self._draws[worker], self._drawn[worker] = self._draw(worker), []
        drawn = self._drawn[worker]
        while not drawn or drawn[-1][1] <= time < math.inf:
            drawn.append(next(self._draws[worker]))
        after = bisect_right(drawn, time, key=lambda outage: outage[1])
        return drawn[after] if after < len(drawn) else NEVER

    def _draw(self, worker: int) -> Iterator[tuple[float, float]]:
        assert self.between_failures_hours is not None, "asked for only then"
        draws, time = generator(self._seed, "crashes", worker), 0.0
        while True:
            start = time + draws.exponential(self.between_failures_hours * 3600.0)
            time = start + draws.exponential(self.to_repair_hours * 3600.0)
            yield start, time


@dataclass
class RegionOutage:
    """All workers of region `region` are down for `seconds`, from `at_seconds` on, and so are its links."""

    region: int  # its index
    at_seconds: float  # simulated
    seconds: float = math.inf  # until it returns; `.inf`: never

    def __post_init__(self) -> None:
        _check_interval(self.at_seconds, self.seconds)


@dataclass
class Outages(FaultOptions):
    """Regions that are cut off and return."""

    at: list[RegionOutage] = field(default_factory=list)  # in any order

    def connect(self, cluster: Cluster, seed: int) -> None:
        self._intervals: dict[int, list[tuple[float, float]]] = {}
        for index, cut in enumerate(self.at):
            cluster.check_region(cut.region, f"at[{index}].region")
            self._intervals.setdefault(cut.region, []).append((cut.at_seconds, cut.at_seconds + cut.seconds))

    def outage(self, worker: Worker, time: float) -> tuple[float, float]:
        return first_after(self._intervals.get(worker.region, ()), time)

    def link(self, src: int, dst: int, time: float) -> tuple[float, float]:
        return share_at([(*interval, 0.0) for end in (src, dst) for interval in self._intervals.get(end, ())], time)


@dataclass
class LinkFault:
    """The link from region `src` to `dst` has only `share` of its bandwidth (0: it is down) for `seconds`."""

    src: int  # region, by index
    dst: int  # the same; `src` itself for the links inside it
    at_seconds: float  # simulated
    seconds: float = math.inf  # until it is as before; `.inf`: never
    share: float = 0.0  # of its bandwidth, that is left; 0: it is down
    both_ways: bool = True  # the link from `dst` to `src` as well

    def __post_init__(self) -> None:
        _check_interval(self.at_seconds, self.seconds)
        require(0.0 <= self.share <= 1.0, "share", self.share, "in [0, 1]")


@dataclass
class Links(FaultOptions):
    """Links that are down or slower for a time; where intervals overlap, shares multiply."""

    at: list[LinkFault] = field(default_factory=list)  # in any order

    def connect(self, cluster: Cluster, seed: int) -> None:
        self._intervals: dict[tuple[int, int], list[tuple[float, float, float]]] = {}
        for index, fault in enumerate(self.at):
            cluster.check_region(fault.src, f"at[{index}].src")
            cluster.check_region(fault.dst, f"at[{index}].dst")
            interval = (fault.at_seconds, fault.at_seconds + fault.seconds, fault.share)
            for link in {(fault.src, fault.dst), (fault.dst, fault.src) if fault.both_ways else (fault.src, fault.dst)}:
                self._intervals.setdefault(link, []).append(interval)

    def link(self, src: int, dst: int, time: float) -> tuple[float, float]:
        return share_at(self._intervals.get((src, dst), ()), time)


@dataclass
class MessageLoss(FaultOptions):
    """Every message is lost with `probability`: pulls, pushes, sends, and what a worker brings to a collective."""

    probability: float = 0.01  # of each message; 0 or more, and less than 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0.0 <= self.probability < 1.0, "probability", self.probability, "in [0, 1)")

    def connect(self, cluster: Cluster, seed: int) -> None:
        self._seed = seed

    def loses(self, message: int) -> bool:
        return seed_for(self._seed, "message loss", message) < self.probability * 2.0**63


@dataclass
class Several(FaultOptions):
    """More than one kind of fault; the fields that every model has are set here, for all of them."""

    of: list[FaultModel] = field(default_factory=list)  # `[{name: crashes, …}, {name: message_loss}]`

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in fields(FaultOptions):
            if option.name == "seed":  # each may have its own
                continue
            for index, model in enumerate(self.of):
                if getattr(model, option.name) != option.default:
                    raise ConfigError(f"of[{index}].{option.name}", "belongs beside `of`, where it is said for all")

    def connect(self, cluster: Cluster, seed: int) -> None:
        for index, model in enumerate(self.of):
            with under(f"of[{index}]"):
                model.connect(cluster, own_seed(model, seed + index))

    def outage(self, worker: Worker, time: float) -> tuple[float, float]:
        return min((model.outage(worker, time) for model in self.of), default=NEVER)

    def link(self, src: int, dst: int, time: float) -> tuple[float, float]:
        both = [model.link(src, dst, time) for model in self.of]
        return math.prod(share for share, _ in both), min((until for _, until in both), default=math.inf)

    def loses(self, message: int) -> bool:
        return any(model.loses(message) for model in self.of)

    @property
    def sends(self) -> Optional[Callable[[Sequence[tuple[Hashable, Params]], int], Sequence[Params]]]:
        """What several of them make of payloads, one after the other; None if none has a word in that."""
        several = [each for each in (getattr(model, "sends", None) for model in self.of) if each is not None]

        def sends(payloads: Sequence[tuple[Hashable, Params]], number: int) -> Sequence[Params]:
            sent = [payload for _, payload in payloads]
            for each in several:
                sent = each([(sender, payload) for (sender, _), payload in zip(payloads, sent)], number)
            return sent

        return sends if several else None


def first_after(intervals: Iterable[tuple[float, float]], time: float) -> tuple[float, float]:
    """Return the earliest of `intervals`, (start, end), that ends after `time`; NEVER if none does."""
    return min(((start, end) for start, end in intervals if end > time), default=NEVER)


def share_at(intervals: Iterable[tuple[float, float, float]], time: float) -> tuple[float, float]:
    """Return the product of the shares of all (start, end, share) at `time`, and until when it stays so."""
    share, until = 1.0, math.inf
    for start, end, factor in intervals:
        if start <= time < end:
            share *= factor
            until = min(until, end)
        elif time < start:
            until = min(until, start)
    return share, until


def _check_interval(at_seconds: float, seconds: float) -> None:
    require(0.0 <= at_seconds < math.inf, "at_seconds", at_seconds, "a time of the run")
    require(seconds > 0.0, "seconds", seconds, "a positive time")


class Outage(NamedTuple):
    """An interval, in virtual seconds, in which a worker was down."""

    worker: int
    start: float
    end: float


def outages(model: FaultModel, workers: Iterable[Worker], until: float) -> Iterator[Outage]:
    """Yield when `workers` were down before `until`, one worker after another; outages that overlap are one."""
    for worker in workers:
        begins, ends = model.outage(worker, 0.0)
        while begins < until:
            following = model.outage(worker, ends) if ends < until else NEVER
            if following == NEVER or following[0] > ends:
                yield Outage(worker.id, begins, min(ends, until))
                begins, ends = following
            else:
                ends = following[1]


class Impairment(NamedTuple):
    """An interval, in virtual seconds, in which a link had only a `share` of its bandwidth; 0: it was down."""

    src: int  # region
    dst: int  # region
    start: float
    end: float
    share: float


def impairments(model: FaultModel, regions: int, until: float) -> Iterator[Impairment]:
    """Yield when links between (and inside) `regions` were down or slow before `until`, one link after another."""
    if type(model) is NoFaults:
        return
    for src, dst in product(range(regions), repeat=2):
        now, start, before = 0.0, 0.0, 1.0
        while now < until:
            share, end = model.link(src, dst, now)
            if share != before:
                if before < 1.0:
                    yield Impairment(src, dst, start, now, before)
                start, before = now, share
            now = end
        if before < 1.0:
            yield Impairment(src, dst, start, until, before)


@hookimpl
def register_fault_models(register: Register) -> None:
    register("none", NoFaults)
    register("crashes", Crashes)
    register("outages", Outages)
    register("links", Links)
    register("message_loss", MessageLoss)
    register("several", Several)
