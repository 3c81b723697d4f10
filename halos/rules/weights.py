"""Contribution weights: how much a worker's pseudo-gradient counts among those that it is averaged with."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Optional, Protocol

from halos.errors import ConfigError, positive, require
from halos.hooks import Register, hookimpl
from halos.world.cluster import Cluster, Worker


class ContributionWeights(Protocol):
    """A factor on every pseudo-gradient; over equal steps it is 1."""

    def factor(self, steps: int, mean_steps: float) -> float:
        """Return the factor for a contribution of `steps` local steps; those it is averaged with have `mean_steps`."""
        ...


@dataclass
class Uniform:
    """Every pseudo-gradient counts as it is."""

    def factor(self, steps: int, mean_steps: float) -> float:
        return 1.0


@dataclass
class ByWorker(Uniform):
    """A pseudo-gradient counts in proportion to its worker's weight, among those that it is averaged with."""

    # A positive weight for each, in order of id; empty: all the same.
    workers: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        for index, weight in enumerate(self.workers):
            require(positive(weight), f"workers[{index}]", weight, "a positive, finite weight")

    def connect(self, cluster: Cluster) -> None:
        """There is a weight for everybody."""
        given, there = len(self.workers), len(cluster.workers)
        if given not in (0, there):
            raise ConfigError("workers", f"has {given} weights for {there} workers")

    def weight(self, worker: Worker) -> float:
        return self.workers[worker.id] if self.workers else 1.0


class WithData(Protocol):
    """The run that `by_data` asks, a `Simulation`."""

    @property
    def workers(self) -> tuple[Worker, ...]:
        """All workers, in order of id."""
        ...

    def samples(self, worker: Worker) -> Optional[float]:
        """Return how many training samples are the worker's; None if that is not known."""
        ...


@dataclass
class ByData(Uniform):
    """A pseudo-gradient counts in proportion to its worker's training samples (n_k, as in FedAvg, arXiv 1602.05629).

    These are those of its shard (`data.shards`), in equal parts of all that share it. Where nothing is trained they
    are not known, and neither are the factors.
    """

    def prepare(self, sim: WithData) -> None:
        """Ask, once the data is open."""
        several = [sim.samples(worker) for worker in sim.workers]
        self._samples = [math.nan if each is None else each for each in several]

    def weight(self, worker: Worker) -> float:
        return self._samples[worker.id]


def factor(weights: ContributionWeights, worker: Worker, steps: int, among: Sequence[tuple[Worker, int]]) -> float:
    """Return the factor of a contribution of `steps` local steps by `worker`.

    `among` are all that it is averaged with, itself included: whose they are, and their local steps.
    """
    by_steps = weights.factor(steps, sum([each for _, each in among]) / len(among))
    weight: Optional[Callable[[Worker], float]] = getattr(weights, "weight", None)
    if weight is None:
        return by_steps
    total = math.fsum([weight(other) for other, _ in among])  # exactly rounded, so that equal weights give 1
    return by_steps * (len(among) * weight(worker) / total)


@hookimpl
def register_contribution_weights(register: Register) -> None:
    register("uniform", Uniform)
    register("by_worker", ByWorker)
    register("by_data", ByData)
