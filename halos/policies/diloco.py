"""DiLoCo: everybody trains, all differences are averaged, an outer optimizer steps (arXiv 2311.08105)."""

from __future__ import annotations

from dataclasses import dataclass, field

from halos.clock import all_of
from halos.hookspecs import Register, hookimpl
from halos.merge import MergeRule, Nesterov
from halos.simulation import Simulation


@dataclass
class DiLoCo:
    """Synchronous local SGD with an outer optimizer (arXiv 2311.08105, Algorithm 1).

    A round lasts as long as its slowest worker's steps and one all-reduce. With unequal steps
    (`steps: {name: by_speed}`) it is upstream's DiLoCo + DynUpd.
    """

    outer: MergeRule = field(default_factory=Nesterov)

    async def run(self, sim: Simulation) -> None:
        theta, state = sim.params, self.outer.init(sim.params)
        for r in sim.rounds():  # for outer step t = 1 … T
            # θ_i ← InnerOpt(θ), H steps each
            updates = await all_of(sim.train(worker, theta, round=r) for worker in sim.workers)
            delta = await sim.all_reduce(update.delta for update in updates)  # Δ ← 1/k Σ (θ − θ_i)
            theta, state = self.outer.step(theta, delta, state)  # θ ← OuterOpt(θ, Δ)
            sim.commit(theta, updates)
            del updates  # or every worker's result would stay in memory during the next round


@hookimpl
def register_sync_policies(register: Register) -> None:
    register("diloco", DiLoCo)
