"""One-step-delay DiLoCo: the mean of one round is awaited only at the end of the next (arXiv 2502.12996)."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Optional

from halos import (
    Collective,
    MergeRule,
    Nesterov,
    Outbox,
    Params,
    Register,
    Simulation,
    Worker,
    hookimpl,
    require,
    start_of,
)


@dataclass
class OneStepDelay:
    """DiLoCo with delayed outer gradients, "naive delayed" in arXiv 2502.12996 (section 3, Table 1).

    Round r trains from θ^{r−1}, the same for all workers, while the mean of round r−1 is on its way:
    θ^r = Outer(θ^{r−1}, Δ̄^{r−1}). The first round makes no outer step, and after the last one its
    mean is still awaited and applied. With `outer_delay` k, means are awaited k rounds later; k = 0
    is DiLoCo. With `merge: corrected` a worker keeps what it did itself in the rounds that are under way,
    θ_m ← θ − Σ Δ_m^j, which with k = 1 and outer SGD of rate 1 is OLDSGD (arXiv 2601.01493). Under faults
    a round's mean is that of who is heard; who is not brings its Δ_m with the next, who crashed begins from θ.
    """

    outer: MergeRule = field(default_factory=lambda: Nesterov(lr=0.4, momentum=0.9))  # applied to late means
    outer_delay: int = 1  # k, rounds by which a mean comes late
    merge: str = "replace"  # replace: workers begin from θ; corrected: with their own rounds that are under way

    def __post_init__(self) -> None:
        require(self.merge in ("replace", "corrected"), "merge", self.merge, "one of replace, corrected")
        require(self.outer_delay >= 0, "outer_delay", self.outer_delay, "zero or a positive number of rounds")

    async def run(self, sim: Simulation) -> None:
        theta, state = sim.params, self.outer.init(sim.params)
        self._outbox = Outbox(sim)
        self._averages: dict[int, Collective] = {}  # of rounds whose mean is not applied yet
        begun = deque([sim.version] * (self.outer_delay + 1))  # the versions that rounds begin from, θ^0 first
        for worker in sim.workers:
            sim.spawn(self._work(sim, worker, start_of(self.outer, theta, state)))
        for r in sim.rounds():
            average = self._average(sim, r.index)
            delta, version = await self._outbox.mean(average), begun.popleft()
            del self._averages[r.index]
            for key in self._turns(sim, r.index - 1 - self.outer_delay):
                sim.forget(key)  # everybody has begun this round from it
            if delta is not None:
                before, (theta, state) = theta, self.outer.step(theta, delta, state)  # θ^{r+1} ← Outer(θ^r, Δ̄^r)
                sim.commit(theta, average.contributions(before, version))
            begun.append(sim.version)
            start = start_of(self.outer, theta, state)
            for key in self._turns(sim, r.index):
                sim.event(key).succeed(start)

    async def _work(self, sim: Simulation, worker: Worker, theta: Params) -> None:
        kept = self.outer_delay if self.merge == "corrected" else 0
        own: deque[Optional[Params]] = deque(maxlen=kept)  # Δ_m under way
        for r in sim.rounds():
            late = r.index - 1 - self.outer_delay
            if late >= 0:  # block until that round's mean is applied
                theta = await sim.event(self._turn(worker, late))
            if not self._outbox.keeps(worker):
                own.clear()
            start = corrected(theta, [*own, self._outbox.held(worker)] if kept else ())  # θ_m ← θ − Σ Δ_m^j, or θ
            update = await self._outbox.train(worker, start, round=r)  # Δ_m ← θ − InnerOpt(θ), H steps
            own.append(self._outbox.join(self._average(sim, r.index), worker, update))  # start averaging, do not wait

    def _turn(self, worker: Worker, index: int) -> Hashable:
        """The event at which a worker has round `index`'s θ: with k = 0 its own, so that they go on in their order."""
        return index if self.outer_delay > 0 else (index, worker.id)

    def _turns(self, sim: Simulation, index: int) -> Iterable[Hashable]:
        return dict.fromkeys(self._turn(worker, index) for worker in sim.workers)

    def _average(self, sim: Simulation, index: int) -> Collective:
        """A round's averaging, which may be over before the one before it is applied: if nobody was there in that."""
        if index not in self._averages:
            self._averages[index] = self.collective(sim, index)
        return self._averages[index]

    def collective(self, sim: Simulation, index: int) -> Collective:
        """The averaging of a round's pseudo-gradients."""
        return sim.collective(index)


def corrected(theta: Params, own: Iterable[Optional[Params]]) -> Params:
    """Return θ with what a worker did itself in rounds whose means are not in θ yet; θ itself if there are none."""
    for delta in own:
        if delta is not None:
            theta = theta - delta
    return theta


@hookimpl
def register_sync_policies(register: Register) -> None:
    register("one_step_delay", OneStepDelay)
