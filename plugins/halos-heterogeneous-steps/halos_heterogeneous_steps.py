"""Workers that differ, and change: step allocations, contribution weights and compute models for them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Context
from typing import Optional

from halos import (
    SLOWEST,
    Cluster,
    ComputeModel,
    ConfigError,
    Constant,
    Register,
    RunSoFar,
    Simulation,
    Update,
    UserError,
    Worker,
    generator,
    hookimpl,
    own_seed,
    require,
    rounded,
    rounded_down,
)


@dataclass
class Measured:
    """As many steps as the speed that a worker has shown so far allows: `max(1, round(base · rate / highest rate))`.

    A rate is the exponential average of the steps per second of a worker's own compute times, the
    newest counting `smoothing`. Whoever has shown nothing yet takes `base` steps.
    """

    base: int = 32  # H of the fastest worker
    smoothing: float = 0.5  # what the newest measurement counts, in (0, 1]

    def __post_init__(self) -> None:
        require(self.base >= 1, "base", self.base, "a positive number of steps")
        require(0.0 < self.smoothing <= 1.0, "smoothing", self.smoothing, "in (0, 1]")

    def connect(self, cluster: Cluster) -> None:
        self._rates = Rates(self.smoothing)

    def steps(self, worker: Worker, sim: RunSoFar) -> int:
        rate = self._rates.of.get(worker.id)
        if rate is None:
            return self.base
        return max(1, rounded(self.base * rate / max(self._rates.of.values())))

    @hookimpl
    def on_update(self, update: Update) -> None:
        self._rates.add(update)


@dataclass
class Deadline:
    """As many steps as fit into a given round's time beside the exchange that follows them.

    A worker's step takes what the cluster says, or, once it has shown a speed, what that says (an exponential average,
    the newest job counting `smoothing`). So nobody waits for a round's last worker longer than one local step takes.
    """

    seconds: float = 60.0  # of a round, exchange included
    exchange: str = "all_reduce"  # all_reduce | round_trip (asynchronous policies) | none (hidden by compute)
    server_region: Optional[int] = None  # of round_trip; null: the worker's own region, as in HALoS
    smoothing: float = 1.0  # what the newest measurement counts, in (0, 1]

    def __post_init__(self) -> None:
        require(0.0 < self.seconds <= 1e9, "seconds", self.seconds, "a positive time, of 1e9 at most")
        kinds = ("all_reduce", "round_trip", "none")
        require(self.exchange in kinds, "exchange", self.exchange, "one of " + ", ".join(kinds))
        require(0.0 < self.smoothing <= 1.0, "smoothing", self.smoothing, "in (0, 1]")

    def connect(self, cluster: Cluster) -> None:
        regions = len(cluster.regions)
        fits = self.server_region is None or 0 <= self.server_region < regions
        require(fits, "server_region", self.server_region, f"a region, 0 to {regions - 1}, or null")
        self._rates = Rates(self.smoothing)
        self._step_time = cluster.step_time

    def prepare(self, sim: Simulation) -> None:
        """At least one step of every worker must fit."""
        for worker in sim.workers:
            self.steps(worker, sim)

    def steps(self, worker: Worker, sim: RunSoFar) -> int:
        left = self.seconds - self._exchange_seconds(worker, sim)
        shown = self._rates.of.get(worker.id)
        if left == -math.inf:  # a link never carries anything again
            if shown is None:
                raise ConfigError("seconds", f"no round is long enough for worker {worker.id}: its exchange never ends")
            return 1
        rate = worker.speed / self._step_time if shown is None else shown  # steps per second
        fitting = rounded_down(left * rate, of=self.seconds * rate)  # a time that fits to the last bit, fits
        if fitting < 1 and shown is None:
            # Rounded up, so that what is said to be enough is.
            enough = Context(6, ROUND_CEILING).create_decimal_from_float((self.seconds - left + 1 / rate) * (1 - 1e-10))
            raise ConfigError(
                "seconds",
                f"{self.seconds:g} s is too short a round for worker {worker.id}, whose local step takes"
                f" {1 / rate:.6g} s, beside {self.seconds - left:.6g} s of exchange; give at least {float(enough):g}",
            )
        return max(1, fitting)  # who has become too slow for even one step still takes it

    @hookimpl
    def on_update(self, update: Update) -> None:
        self._rates.add(update)

    def _exchange_seconds(self, worker: Worker, sim: RunSoFar) -> float:
        if self.exchange == "none":
            return 0.0
        if self.exchange == "all_reduce":
            return sim.exchange_seconds(worker)
        return sim.exchange_seconds(worker, worker.region if self.server_region is None else self.server_region)


class Rates:
    """Steps per second that each worker has shown: an exponential average, the newest counting `smoothing`."""

    def __init__(self, smoothing: float) -> None:
        self.of: dict[int, float] = {}  # by worker
        self._smoothing = smoothing

    def add(self, update: Update) -> None:
        """One more job of a worker."""
        shown = update.steps / update.seconds if update.seconds > 0.0 else math.inf
        if shown == math.inf:
            said = f"compute: {update.steps} local steps of worker {update.worker} took {update.seconds:g} s"
            raise UserError(f"{said}, from which no speed can be measured")
        before = self.of.get(update.worker, shown)
        self.of[update.worker] = (1.0 - self._smoothing) * before + self._smoothing * shown


@dataclass
class Steps:
    """A pseudo-gradient counts in proportion to its steps: `H_i / H̄`, so that their mean is weighted by H_i / Σ H."""

    def factor(self, steps: int, mean_steps: float) -> float:
        return steps / mean_steps


@dataclass
class FedNova:
    """Pseudo-gradients per step, times the mean number of steps: `H̄ / H_i` (arXiv 2007.07481, for plain inner SGD)."""

    def factor(self, steps: int, mean_steps: float) -> float:
        return mean_steps / steps


@dataclass
class Jitter:
    """Another compute model's times, each job's times a log-normal factor of mean 1, drawn by the run's seed."""

    sigma: float = 0.2  # standard deviation of the factor's logarithm
    of: ComputeModel = field(default_factory=Constant)  # the other one
    seed: Optional[int] = None  # of the draws; null: the run's

    def __post_init__(self) -> None:
        require(
            0.0 <= self.sigma <= 3.0,
            "sigma",
            self.sigma,
            "in [0, 3] (beyond, a factor of mean 1 is hardly ever near it)",
        )

    def connect(self, cluster: Cluster, seed: int) -> None:
        self._seed = seed
        self.of.connect(cluster, own_seed(self.of, seed))

    def seconds(self, worker: Worker, steps: int, time: float, job: int) -> float:
        normal = generator(self._seed, "jitter", job).standard_normal()
        return self.of.seconds(worker, steps, time, job) * math.exp(self.sigma * normal - self.sigma**2 / 2)


@dataclass
class Stragglers:
    """Another compute model's times, but every job is, with `probability`, `factor` times as long."""

    probability: float = 0.05  # of each job
    factor: float = 4.0  # so many times as long; 1 or more
    of: ComputeModel = field(default_factory=Constant)  # the other one
    seed: Optional[int] = None  # of the draws; null: the run's

    def __post_init__(self) -> None:
        require(0.0 <= self.probability <= 1.0, "probability", self.probability, "in [0, 1]")
        require(1.0 <= self.factor <= 1e9, "factor", self.factor, "from 1 to 1e9")

    def connect(self, cluster: Cluster, seed: int) -> None:
        self._seed = seed
        self.of.connect(cluster, own_seed(self.of, seed))

    def seconds(self, worker: Worker, steps: int, time: float, job: int) -> float:
        slow = generator(self._seed, "stragglers", job).random() < self.probability
        return self.of.seconds(worker, steps, time, job) * (self.factor if slow else 1.0)


@dataclass
class Change:
    """From `at_seconds` on, a worker has `speed` (relative, as the cluster's fastest is 1)."""

    worker: int  # its id
    at_seconds: float  # simulated
    speed: float  # relative to the fastest of the cluster

    def __post_init__(self) -> None:
        require(0.0 <= self.at_seconds < math.inf, "at_seconds", self.at_seconds, "a time of the run")
        require(0.0 < self.speed < math.inf, "speed", self.speed, "a positive, finite speed")
        require(self.speed >= SLOWEST, "speed", self.speed, f"at least {SLOWEST:g}")


@dataclass
class Schedule:
    """Speeds that change at given times, also in the middle of a job."""

    changes: list[Change] = field(default_factory=list)  # in any order
    seed: Optional[int] = None  # nothing is drawn

    def connect(self, cluster: Cluster, seed: int) -> None:
        self._step_time = cluster.step_time
        self._changes: dict[int, list[Change]] = {}
        for index, change in sorted(enumerate(self.changes), key=lambda each: each[1].at_seconds):
            if not 0 <= change.worker < len(cluster.workers):
                last = len(cluster.workers) - 1
                raise ConfigError(f"changes[{index}].worker", f"{change.worker} is not a worker, 0 to {last}")
            self._changes.setdefault(change.worker, []).append(change)

    def seconds(self, worker: Worker, steps: int, time: float, job: int) -> float:
        left, now, speed = self._step_time * steps, time, worker.speed  # seconds of work at speed 1
        for change in self._changes.get(worker.id, ()):
            if change.at_seconds > now:
                done = (change.at_seconds - now) * speed
                if done >= left:
                    break
                left, now = left - done, change.at_seconds
            speed = change.speed
        return now + left / speed - time


@hookimpl
def register_step_allocations(register: Register) -> None:
    register("measured", Measured)
    register("deadline", Deadline)


@hookimpl
def register_contribution_weights(register: Register) -> None:
    register("steps", Steps)
    register("fednova", FedNova)


@hookimpl
def register_compute_models(register: Register) -> None:
    register("jitter", Jitter)
    register("stragglers", Stragglers)
    register("schedule", Schedule)
