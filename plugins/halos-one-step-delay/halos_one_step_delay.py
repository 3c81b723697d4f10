"""One-step-delay DiLoCo: the mean of one round is awaited only at the end of the next (arXiv 2502.12996)."""

from __future__ import annotations

from dataclasses import dataclass, field

from halos import (
    Collective,
    Contribution,
    Event,
    MergeRule,
    Nesterov,
    Params,
    Register,
    Simulation,
    Update,
    Worker,
    hookimpl,
    require,
)


@dataclass
class OneStepDelay:
    """DiLoCo with delayed outer gradients, "naive delayed" in arXiv 2502.12996 (section 3, Table 1).

    Round r trains from θ^{r−1}, the same for all workers, while the mean of round r−1 is on its way:
    θ^r = Outer(θ^{r−1}, Δ̄^{r−1}). The first round makes no outer step, and after the last one its
    mean is still awaited and applied. With `outer_delay` k, means are awaited k rounds later; k = 0
    is DiLoCo.
    """

    outer: MergeRule = field(default_factory=lambda: Nesterov(lr=0.4, momentum=0.9))
    outer_delay: int = 1  # k, rounds by which a mean comes late

    def __post_init__(self) -> None:
        require(self.outer_delay >= 0, "outer_delay", self.outer_delay, "zero or a positive number of rounds")

    async def run(self, sim: Simulation) -> None:
        self._models: dict[int, Event[Params]] = {}  # θ once round r's mean is applied, by r
        self._updates: dict[int, list[tuple[Update, Params]]] = {}  # of rounds under way, and what they began from
        for worker in sim.workers:
            sim.spawn(self._work(sim, worker))
        theta, state = sim.params, self.outer.init(sim.params)
        for r in sim.rounds():
            delta = await self.collective(sim, r.index).arrival
            self._models.pop(r.index - 1 - self.outer_delay, None)  # everybody has begun this round from it
            contributions = [Contribution([each], start, theta) for each, start in self._updates.pop(r.index)]
            theta, state = self.outer.step(theta, delta, state)  # θ^{r+1} ← Outer(θ^r, Δ̄^r)
            self._model(sim, r.index).succeed(theta)
            sim.commit(theta, contributions)

    async def _work(self, sim: Simulation, worker: Worker) -> None:
        theta = sim.params
        for r in sim.rounds():
            late = r.index - 1 - self.outer_delay
            if late >= 0:  # block until that round's mean is applied
                theta = await self._model(sim, late)
            update = await sim.train(worker, theta, round=r)  # Δ_m ← θ − InnerOpt(θ), H steps
            self._updates.setdefault(r.index, []).append((update.receipt(), theta))
            self.collective(sim, r.index).join(worker, update.delta)  # start averaging, do not wait

    def collective(self, sim: Simulation, index: int) -> Collective:
        """The averaging of a round's pseudo-gradients."""
        return sim.collective(index)

    def _model(self, sim: Simulation, index: int) -> Event[Params]:
        return self._models.setdefault(index, Event(sim.clock))


@hookimpl
def register_sync_policies(register: Register) -> None:
    register("one_step_delay", OneStepDelay)
