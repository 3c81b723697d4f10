"""Step allocations: how many local steps a worker takes before it communicates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, Union

from halos.errors import require
from halos.hooks import Register, hookimpl
from halos.values.rounding import rounded_down, rounded_up
from halos.world.cluster import Region, Worker


class RunSoFar(Protocol):
    """The run in which an allocation decides, a `Simulation`, and all that it may ask of it."""

    @property
    def workers(self) -> tuple[Worker, ...]:
        """All workers, in order of id."""
        ...

    @property
    def now(self) -> float:
        """The virtual time, in seconds since the start of the run."""
        ...

    def exchange_seconds(self, worker: Worker, server: Union[Region, int, None] = None) -> float:
        """Seconds that a whole model's exchange would take now: pull and push, or without a server an all-reduce."""
        ...


class StepAllocation(Protocol):
    """Decides anew for every job (for those of a round, when it is opened); it sees the worker and the run so far."""

    def steps(self, worker: Worker, sim: RunSoFar) -> int:
        """Return the local steps of `worker`'s next job, at least 1."""
        ...


@dataclass
class Fixed:
    """The same number for every worker."""

    base: int = 32  # H, local steps

    def __post_init__(self) -> None:
        require(self.base >= 1, "base", self.base, "a positive number of steps")

    def steps(self, worker: Worker, sim: RunSoFar) -> int:
        return self.base


@dataclass
class BySpeed:
    """In proportion to the worker's speed: `max(1, round(base · speed))`, the fastest taking `base`.

    Upstream's DynUpd rounds up, DyLU (arXiv 2401.09135, section 5) rounds down.
    """

    base: int = 32  # H of the fastest worker
    round: str = "ceil"  # or `floor`
    # Of what base · speed is on paper; false: of what double precision makes of it, as in the original, where
    # 30 · 0.2 / 0.6 is a little more than 10, and rounded up 11.
    exact: bool = True

    def __post_init__(self) -> None:
        require(self.base >= 1, "base", self.base, "a positive number of steps")
        require(self.round in ("ceil", "floor"), "round", self.round, "one of ceil, floor")

    def steps(self, worker: Worker, sim: RunSoFar) -> int:
        share = self.base * worker.speed  # speed is already divided by the fastest, as upstream does first
        if self.exact:
            return max(1, rounded_up(share) if self.round == "ceil" else rounded_down(share))
        return max(1, math.ceil(share) if self.round == "ceil" else math.floor(share))


@hookimpl
def register_step_allocations(register: Register) -> None:
    register("fixed", Fixed)
    register("by_speed", BySpeed)
