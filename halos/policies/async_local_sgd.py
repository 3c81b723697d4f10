"""Asynchronous Local-SGD: every update is applied as it comes (arXiv 2401.09135)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

from halos.errors import Lost, require
from halos.hooks import Register, hookimpl
from halos.rules.merge import DelayedNesterov, MergeRule, refused_by, start_of
from halos.sim.clock import Event
from halos.sim.simulation import Simulation
from halos.values.records import Update
from halos.world.cluster import LONGEST_MS, Cluster, Worker


@dataclass
class AsyncLocalSGD:
    """One server; a worker pulls, trains, pushes, and starts again from what the server then has.

    With Delayed Nesterov as `outer` and `steps: {name: by_speed, round: floor}` it is DN + DyLU
    (arXiv 2401.09135, Algorithms 3 and 4). With a grace period (Algorithm 2) updates are still
    applied at once, but workers that finish within `grace_seconds` of the first one restart
    together, from the same model, when the period is over or as soon as all workers are in it.
    """

    outer: MergeRule = field(default_factory=DelayedNesterov)  # applied to every update as it arrives
    server_region: int = 0  # by index
    # Workers back within so many simulated seconds of the first one restart together; 0: each at once.
    grace_seconds: float = 0.0

    def __post_init__(self) -> None:
        fits = 0.0 <= self.grace_seconds <= LONGEST_MS / 1e3
        require(fits, "grace_seconds", self.grace_seconds, "zero or positive seconds, 1e12 at most")

    def check(self, cluster: Cluster) -> None:
        cluster.check_region(self.server_region)

    async def run(self, sim: Simulation) -> None:
        self._state = self.outer.init(sim.params)
        self._window: Optional[Window] = None
        for worker in sim.workers:
            sim.spawn(self._work(sim, worker))

    async def _work(self, sim: Simulation, worker: Worker) -> None:
        while not sim.done:
            try:
                self._merge(sim, sim.version, await self._train(sim, worker))
            except Lost:  # an update less
                await sim.faults.returned(worker, self.server_region)
                continue
            if self.grace_seconds > 0.0:
                await self._restart(sim)

    def _train(self, sim: Simulation, worker: Worker) -> Event[Update]:
        return sim.train(worker, start_of(self.outer, sim.params, self._state), server=self.server_region)

    def _merge(self, sim: Simulation, started_at: int, update: Update) -> None:
        """Apply one update, at once (a function of its own, so that nobody holds the update any longer)."""
        staleness = sim.version - started_at
        if refused_by(self.outer, staleness):
            sim.drop([update])
            return
        theta, self._state = self.outer.step(
            sim.params, update.delta, self._state, base=update.start, staleness=staleness
        )
        sim.commit(theta, [update])

    def _restart(self, sim: Simulation) -> Event[Any]:
        """When this worker may start again: at the end of the open window, or of a new one."""
        if self._window is None or self._window.restart.done:
            self._window = Window(sim, self.grace_seconds)
        self._window.arrived += 1
        if self._window.arrived == len(sim.workers):
            self._window.close()
        return self._window.restart


class Window:
    """A grace period: it closes `seconds` after the first arrival (inclusive), or when all workers are in it."""

    def __init__(self, sim: Simulation, seconds: float) -> None:
        self.arrived = 0
        self.restart: Event[None] = Event(sim.clock)
        self._sim = sim
        sim.at(sim.now + seconds, last=True).when_done(self._close)

    def close(self) -> None:
        """Close now, but after the process that says so waits: workers restart in order of arrival."""
        self._sim.spawn(self._close_next())

    async def _close_next(self) -> None:
        self._close()

    def _close(self, _: Optional[Event[Any]] = None) -> None:
        if not self.restart.done:
            self.restart.succeed()


@hookimpl
def register_sync_policies(register: Register) -> None:
    register("async_local_sgd", AsyncLocalSGD)
