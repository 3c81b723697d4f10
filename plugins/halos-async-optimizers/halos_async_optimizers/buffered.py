"""Buffered: an asynchronous server that steps only when so many updates have come in, by their mean."""

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
    mean,
    require,
    start_of,
)

from .restarting import restarting


@dataclass
class Buffered:
    """K arrivals, then their mean through the outer rule (baseline of arXiv 2401.09135; FedBuff, arXiv 2106.06639).

    Workers restart at once, and the model does not change in between; so a version is an outer step, and an update's
    age is how many of them came between its start and its own. FedBuff's factor 1/√(1+age) is `power: 0.5`; the mean is
    over K, not over the sum of factors. What is held when the budget is spent is merged, divided by its number.
    """

    outer: MergeRule = field(default_factory=Nesterov)  # applied to the mean; a mean has no age, nor a single start
    buffer: int = 10  # K, updates per outer step
    power: float = 0.0  # an update of age s counts (1+s)^−power
    server_region: int = 0  # by index

    def __post_init__(self) -> None:
        require(self.buffer >= 1, "buffer", self.buffer, "a positive number of updates")
        require(0.0 <= self.power <= 100.0, "power", self.power, "from 0 to 100")

    def check(self, cluster: Cluster) -> None:
        cluster.check_region(self.server_region)

    async def run(self, sim: Simulation) -> None:
        self._sim, self._state = sim, self.outer.init(sim.params)
        self._held: list[Update] = []
        for worker in sim.workers:
            sim.spawn(restarting(sim, worker, self.server_region, self._start, self._take))

    def _start(self, worker: Worker) -> Params:
        return start_of(self.outer, self._sim.params, self._state)

    def _take(self, update: Update) -> None:
        """One more in the buffer, which is merged if it is full, or if there will not be another."""
        sim = self._sim
        self._held.append(update)
        if len(self._held) == self.buffer or sim.spends(self._held):
            held, self._held = self._held, []
            delta = mean(self.factor(sim.version - each.global_version) * each.delta for each in sim.weigh(held))
            theta, self._state = self.outer.step(sim.params, delta, self._state)
            sim.commit(theta, held)

    def factor(self, age: int) -> float:
        return float((1 + age) ** -self.power)
