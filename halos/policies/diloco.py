"""DiLoCo: everybody trains, all differences are averaged, an outer optimizer steps (arXiv 2311.08105)."""

from __future__ import annotations

from dataclasses import dataclass, field

from halos.errors import require
from halos.hooks import Register, hookimpl
from halos.rules.merge import MergeRule, Nesterov, start_of
from halos.sim.backlog import Backlog
from halos.sim.simulation import Simulation


@dataclass
class DiLoCo:
    """Synchronous local SGD with an outer optimizer (arXiv 2311.08105, Algorithm 1).

    A round lasts as long as its slowest worker's steps and one all-reduce. With unequal steps
    (`steps: {name: by_speed}`) it is upstream's DiLoCo + DynUpd. Under faults it goes on without the
    contributions that are lost: a worker whose message did not arrive goes on from its own parameters
    (section 3.2, "dropped communication"), one that crashed from the global ones.
    """

    outer: MergeRule = field(default_factory=Nesterov)  # applied to the mean of each round
    # Of the workers, how many take part in a round, rounded, at least one, drawn anew by the run's seed (FedAvg's C,
    # arXiv 1602.05629, Algorithm 1).
    fraction: float = 1.0

    def __post_init__(self) -> None:
        require(0.0 < self.fraction <= 1.0, "fraction", self.fraction, "in (0, 1]")

    async def run(self, sim: Simulation) -> None:
        theta, state, backlog = sim.params, self.outer.init(sim.params), Backlog(sim)
        for r in sim.rounds(self.fraction):  # for outer step t = 1 … T
            start = start_of(self.outer, theta, state)  # θ, with most rules
            await backlog.train(start, r)  # θ_i ← InnerOpt(θ), H steps each
            delta = await backlog.all_reduce(start)  # Δ ← 1/k Σ (θ − θ_i), over those who are heard
            if delta is not None:
                theta, state = self.outer.step(theta, delta, state)  # θ ← OuterOpt(θ, Δ)
                sim.commit(theta, backlog.contributions())


@hookimpl
def register_sync_policies(register: Register) -> None:
    register("diloco", DiLoCo)
