"""DANA: an asynchronous server with a momentum per worker."""

from __future__ import annotations

from dataclasses import dataclass, field

from halos import (
    Cluster,
    Event,
    Lost,
    MergeRule,
    Nesterov,
    Simulation,
    Update,
    Worker,
    refused_by,
    start_of,
)


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
        self._states = {worker.id: self.outer.init(sim.params) for worker in sim.workers}
        for worker in sim.workers:
            sim.spawn(self._work(sim, worker))

    async def _work(self, sim: Simulation, worker: Worker) -> None:
        while not sim.done:
            try:
                self._merge(sim, await self._train(sim, worker))
            except Lost:  # an update less
                await sim.faults.returned(worker, self.server_region)

    def _train(self, sim: Simulation, worker: Worker) -> Event[Update]:
        return sim.train(worker, start_of(self.outer, sim.params, self._states[worker.id]), server=self.server_region)

    def _merge(self, sim: Simulation, update: Update) -> None:
        """One update, by its worker's own state."""
        worker, staleness = update.worker, sim.version - update.global_version
        if refused_by(self.outer, staleness):
            sim.drop([update])
            return
        theta, self._states[worker] = self.outer.step(
            sim.params, update.delta, self._states[worker], base=update.start, staleness=staleness
        )
        sim.commit(theta, [update])
