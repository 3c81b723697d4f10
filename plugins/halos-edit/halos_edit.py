"""A-EDiT: workers average when so much time has passed, however many steps each has made of it (arXiv 2412.07210)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from halos_data_parallel import DataParallel

from halos import (
    LONGEST_MS,
    Backlog,
    MergeRule,
    Nesterov,
    Register,
    Simulation,
    Update,
    hookimpl,
    require,
    start_of,
)


@dataclass
class AEDiT:
    """DiLoCo whose rounds last a time T for everybody (A-EDiT, arXiv 2412.07210).

    A worker trains to its first step boundary T after it last came to an average, H = ⌈T/t⌉ steps of t seconds each,
    and waits there for the others; what it waits, and the average takes, is part of the next T. How differences become
    one `aggregate:` says, of which A-EDiT's is `edit` of halos-robust-aggregation; relative weights are everybody's
    steps since the start of the run. Where nothing is left of all differences there is no outer step. What `steps:`
    says plays no part.
    """

    outer: MergeRule = field(default_factory=lambda: Nesterov(momentum=0.8))  # applied to each aggregate
    every_seconds: float = 600.0  # T, simulated
    least_steps: int = 100  # of all since the last average; with fewer there is none, and every T begins anew
    warmup_steps: int = 0  # data-parallel ones, before the first; after them the first average is left out

    def __post_init__(self) -> None:
        fits = 0.0 < self.every_seconds <= LONGEST_MS / 1e3
        require(fits, "every_seconds", self.every_seconds, "a positive number of seconds, 1e12 at most")
        require(self.least_steps >= 0, "least_steps", self.least_steps, "zero or a positive number of steps")
        require(self.warmup_steps >= 0, "warmup_steps", self.warmup_steps, "zero or a positive number of steps")

    async def run(self, sim: Simulation) -> None:
        theta = sim.params
        for _ in range(self.warmup_steps):
            theta = await DataParallel().step(sim, theta)
        state, backlog, least = self.outer.init(theta), Backlog(sim), self.least_steps
        self._decided = dict.fromkeys(range(len(sim.workers)), sim.now)  # when each worker's T began
        self._steps = dict.fromkeys(self._decided, 0)  # of each, so far
        averaged, skip = 0, self.warmup_steps > 0  # steps of all up to the latest average
        while not sim.done:
            start = start_of(self.outer, theta, state)
            until = {worker: decided + self.every_seconds for worker, decided in self._decided.items()}
            updates = await backlog.train(start, None, until)  # H_i = ⌈T/t_i⌉ steps, less what it has waited
            self._note(sim, updates)
            if updates and (skip or sum(self._steps.values()) - averaged < least):  # of nobody: until one is back
                skip = False
                backlog.keep()
                self._decided = dict.fromkeys(self._decided, sim.now)
                continue
            averaged = sum(self._steps.values())
            delta = await backlog.all_reduce(start, self._weights())
            if delta is None:
                continue
            if delta.norm() != 0.0:
                theta, state = self.outer.step(theta, delta, state)  # θ ← OuterOpt(θ, Δ)
            sim.commit(theta, backlog.contributions())

    def _note(self, sim: Simulation, updates: Sequence[Update]) -> None:
        """All have come, or their job is lost: then their time begins when that is known."""
        self._decided = dict.fromkeys(self._decided, sim.now) | {update.worker: update.time for update in updates}
        for update in updates:
            self._steps[update.worker] += update.steps

    def _weights(self) -> dict[int, float]:
        """By worker, its steps in units of the workers' mean; of one whose jobs were all lost, nothing that counts."""
        mean = sum(self._steps.values()) / len(self._steps)
        return {worker: max(steps, 1) / max(mean, 1) for worker, steps in self._steps.items()}


@hookimpl
def register_sync_policies(register: Register) -> None:
    register("a_edit", AEDiT)
