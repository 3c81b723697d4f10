"""DANA: an asynchronous server with a momentum per worker."""

from __future__ import annotations

from dataclasses import dataclass, field

from halos import (
    Cluster,
    MergeRule,
    Nesterov,
    Params,
    Simulation,
    Update,
    Worker,
    refused_by,
    start_of,
)

from .restarting import restarting


@dataclass
class Dana:
    """v_i ← γ v_i + Δ; θ ← θ − η v_i; worker i begins at θ − η γ Σ_j v_j (arXiv 1907.11612, from memory).

    That point, Θ, moves by η (γ v_i + Δ): every worker's own Nesterov, applied to what all have in common. So it is
    done: one state of the outer rule for each worker, and Θ is where workers begin, what is committed and evaluated.
    """

    outer: MergeRule = field(default_factory=lambda: Nesterov(lr=0.1))  # each worker has a state of it
    server_region: int = 0  # by index

    def check(self, cluster: Cluster) -> None:
        cluster.check_region(self.server_region)

    async def run(self, sim: Simulation) -> None:
        self._sim = sim
        self._states = {worker.id: self.outer.init(sim.params) for worker in sim.workers}
        for worker in sim.workers:
            sim.spawn(restarting(sim, worker, self.server_region, self._start, self._merge))

    def _start(self, worker: Worker) -> Params:
        return start_of(self.outer, self._sim.params, self._states[worker.id])

    def _merge(self, update: Update) -> None:
        """One update, by its worker's own state."""
        sim, worker = self._sim, update.worker
        staleness = sim.version - update.global_version
        if refused_by(self.outer, staleness):
            sim.drop([update])
            return
        theta, self._states[worker] = self.outer.step(
            sim.params, update.delta, self._states[worker], base=update.start, staleness=staleness
        )
        sim.commit(theta, [update])
