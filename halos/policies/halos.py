"""HALoS: a local server per region merges its workers at once, a global one merges the regions (arXiv 2506.04531)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Optional

from halos.errors import ConfigError, Lost, require
from halos.hooks import Register, hookimpl
from halos.rules.codecs import FP32
from halos.rules.merge import DelayedNesterov, MergeRule, refused_by, start_of
from halos.sim.clock import Event
from halos.sim.simulation import Simulation
from halos.values.params import Params
from halos.values.records import Contribution, Update
from halos.world.cluster import Cluster, Region, Worker


@dataclass
class Halos:
    """Hierarchical asynchronous local SGD (arXiv 2506.04531, Algorithms 1 and 2; timing as in upstream's code).

    Local servers send their progress to the global one after every K updates since they last took
    over its model, and go on serving meanwhile; what they merge during that round trip reaches no
    other server (it is reported as `unsent_share`), unless `rebase: keep_local`. Under faults a lost job
    is an update less, and a lost exchange is made again, with what has come in meanwhile.
    """

    # Of the global server.
    outer: MergeRule = field(default_factory=lambda: DelayedNesterov(lr=0.3, beta=0.5, buffer=2))
    local: MergeRule = field(default_factory=lambda: DelayedNesterov(lr=3.2, beta=0.9, buffer=16))  # of local ones
    local_updates: int = 32  # K: updates of a local server between two exchanges
    merge_weight: float = 0.25  # α, the weight of the global model when a local server takes it over; 0 to 1
    server_region: int = 0  # of the global server
    local_servers: Optional[int] = None  # null: one for each region with workers
    # Consecutive workers, all of one region (the last server may have fewer); given together with `local_servers`.
    workers_per_server: Optional[int] = None
    # `published`: what a local server merges during an exchange is in no later difference. `keep_local`: it is in the
    # next.
    rebase: str = "published"

    def __post_init__(self) -> None:
        require(self.local_updates >= 1, "local_updates", self.local_updates, "a positive number of updates")
        require(0.0 <= self.merge_weight <= 1.0, "merge_weight", self.merge_weight, "in [0, 1]")
        require(self.rebase in ("published", "keep_local"), "rebase", self.rebase, "one of published, keep_local")
        if (self.local_servers is None) != (self.workers_per_server is None):
            raise ConfigError("workers_per_server", "give both local_servers and workers_per_server, or neither")

    def check(self, cluster: Cluster) -> None:
        cluster.check_region(self.server_region)
        self._groups(cluster.workers, cluster.regions)

    async def run(self, sim: Simulation) -> None:
        self._state = self.outer.init(sim.params)
        self._merged = self._unsent = 0
        for index, workers in enumerate(self._groups(sim.workers, sim.regions)):
            server = LocalServer(index, workers[0].region, sim.params, self.local.init(sim.params))
            for worker in workers:
                sim.spawn(self._work(sim, server, worker))

    def report(self) -> dict[str, Optional[float]]:
        """For the summary: which share of the updates local servers merged was never sent to the global one."""
        return {"unsent_share": self._unsent / self._merged if self._merged else None}

    async def _work(self, sim: Simulation, server: LocalServer, worker: Worker) -> None:
        while not sim.done:
            try:
                self._merge(sim, server, server.version, await self._train(sim, server, worker))
            except Lost:  # an update less
                await sim.faults.returned(worker, server.region)

    def _train(self, sim: Simulation, server: LocalServer, worker: Worker) -> Event[Update]:
        return sim.train(worker, start_of(self.local, server.params, server.state), server=server.region)

    def _merge(self, sim: Simulation, server: LocalServer, started_at: int, update: Update) -> None:
        """One update into the local server's model, and off to the global one after K since it last took that over."""
        staleness = server.version - started_at
        if refused_by(self.local, staleness):
            sim.drop([update])
            return
        server.params, server.state = self.local.step(
            server.params, update.delta, server.state, base=update.start, staleness=staleness
        )
        server.version += 1
        server.uncredited.append(update.receipt())
        self._merged += 1
        sim.commit(server.params, [update], server=server.name)
        if server.version == server.merged_version + self.local_updates:
            sim.spawn(self._exchange(sim, server))

    async def _exchange(self, sim: Simulation, server: LocalServer) -> None:
        updates: list[Update] = []
        while True:  # once, unless a message is lost: then again, with what has come in meanwhile
            sent, sent_version = server.params, server.version
            updates, server.uncredited = updates + server.uncredited, []
            try:
                delta = await sim.send(server.merged - sent, server.region, self.server_region, sender=server.name)
                break
            except Lost:
                await sim.faults.reachable(server.region, self.server_region)
        base, target = server.taken_over, sim.params
        staleness = sim.version - base.versions["global"]
        if refused_by(self.outer, staleness):
            sim.drop(updates)
        else:
            theta, self._state = self.outer.step(target, delta, self._state, base=base, staleness=staleness)
            sim.commit(theta, [Contribution(updates, base, target)])
        while True:
            start = start_of(self.outer, sim.params, self._state)
            try:
                received = await sim.send(start, self.server_region, server.region, codec=FP32)
                break
            except Lost:
                await sim.faults.reachable(self.server_region, server.region)
        self._take_over(server, received, sent, sent_version)
        server.taken_over = start
        sim.commit(server.params, [], server=server.name)

    def _take_over(self, server: LocalServer, theta: Params, sent: Params, sent_version: int) -> None:
        """θ ← (1−α) θ + α Θ on the local server; its next difference is counted from there.

        As published, that leaves out of all later differences what was merged since `sent`. With
        `keep_local` the next difference contains it too, so that every update is sent exactly once.
        """
        merged_meanwhile = server.params - sent
        server.params = (1.0 - self.merge_weight) * server.params + self.merge_weight * theta
        if self.rebase == "keep_local":
            server.merged = server.params - merged_meanwhile
        else:
            server.merged = server.params
            self._unsent += server.version - sent_version
        server.merged_version = server.version

    def _groups(self, workers: tuple[Worker, ...], regions: tuple[Region, ...]) -> list[tuple[Worker, ...]]:
        """The workers of each local server: by region, or consecutive groups of one size (the last may be smaller)."""
        if self.local_servers is None or self.workers_per_server is None:
            return [region.workers for region in regions if region.workers]
        size = self.workers_per_server
        if size < 1 or math.ceil(len(workers) / size) != self.local_servers:
            raise ConfigError(
                "workers_per_server", f"{self.local_servers} local servers of {size} workers for {len(workers)} workers"
            )
        groups = [workers[first : first + size] for first in range(0, len(workers), size)]
        for index, group in enumerate(groups):
            if len({worker.region for worker in group}) > 1:
                raise ConfigError(
                    "workers_per_server",
                    f"group {index} (workers {group[0].id} to {group[-1].id}) lies in regions {group[0].region} to"
                    f" {group[-1].region}; a local server's workers share one region",
                )
        return groups


@dataclass
class LocalServer:
    """A local parameter server: its model, and what it last took over from the global one."""

    index: int
    region: int
    params: Params
    state: Any
    version: int = 0  # updates merged
    merged_version: int = 0  # the version at which it last took over the global model
    taken_over: Params = field(init=False)  # the global model it then took over
    merged: Params = field(init=False)  # its own model right after that
    uncredited: list[Update] = field(default_factory=list)  # merged, not yet counted by the global server

    def __post_init__(self) -> None:
        self.merged = self.taken_over = self.params

    @property
    def name(self) -> str:
        return f"local-{self.index}"


@hookimpl
def register_sync_policies(register: Register) -> None:
    register("halos", Halos)
