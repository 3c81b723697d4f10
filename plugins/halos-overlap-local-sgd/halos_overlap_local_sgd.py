"""Overlap Local-SGD: workers are pulled towards an anchor whose average is on its way meanwhile (arXiv 2002.09539)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from halos import (
    SGD,
    Collective,
    MergeRule,
    Outbox,
    Params,
    Register,
    Simulation,
    Worker,
    hookimpl,
    mean,
    require,
    start_of,
)


@dataclass
class OverlapLocalSGD:
    """Local SGD with an anchor model (arXiv 2002.09539, Algorithm 1; momentum as in its section 3).

    After every τ local steps (the step allocation's) worker i awaits the average started one round ago, z, is pulled
    back, x_i ← (1−α) x_i + α z, updates its anchor momentum v_i ← β v_i + (x_i − z), starts the average of z + v_i,
    which becomes the next anchor, and goes on from x_i without waiting. The global model is the anchor.

    With `merge: corrected` x_i becomes the anchor with the worker's latest round added, z − Δ_i, whose mean is on its
    way from then on, and the anchor moves by z ← Outer(z, Δ̄). With outer SGD of rate 1 that is OLDSGD (arXiv
    2601.01493). Under faults an average is of who is heard; who crashed begins from the anchor, with v_i = 0.
    """

    pullback: float = 0.6  # α, how strongly the anchor pulls workers back; 0 to 1
    momentum: float = 0.7  # β, of the anchor
    merge: str = "mix"  # mix: pulled back to the anchor; corrected: the anchor and one's own latest round
    outer: MergeRule = field(default_factory=SGD)  # of the anchor, where merge is corrected; α and β play no part then

    def __post_init__(self) -> None:
        require(0.0 <= self.pullback <= 1.0, "pullback", self.pullback, "in [0, 1]")
        require(0.0 <= self.momentum < 1.0, "momentum", self.momentum, "in [0, 1)")
        require(self.merge in ("mix", "corrected"), "merge", self.merge, "one of mix, corrected")

    def prepare(self, sim: Simulation) -> None:
        self._x: dict[int, Params] = {}  # where each worker goes on from
        sim.offer("workers", lambda: mean(self._x.values()) if self._x else None)

    async def run(self, sim: Simulation) -> None:
        self._outbox = Outbox(sim)
        await (self._mix(sim) if self.merge == "mix" else self._correct(sim))

    async def _mix(self, sim: Simulation) -> None:
        for worker in sim.workers:
            sim.spawn(self._work(sim, worker))
        z = sim.params
        for r in sim.rounds():
            average = sim.collective(r.index)
            moved = await self._outbox.mean(average)
            if moved is not None:
                before, z = z, z + moved
                sim.commit(z, average.contributions(before))

    async def _work(self, sim: Simulation, worker: Worker) -> None:
        x = z = sim.params
        v = z.zeros()
        arriving: Collective | None = None
        for r in sim.rounds():
            if not self._outbox.keeps(worker):
                x, v = z, v.zeros()
            update = await self._outbox.train(worker, x, round=r)  # τ local steps from x_i
            if arriving is not None:  # block until the average started at the last sync point is there
                moved = await self._outbox.mean(arriving)
                z = z if moved is None else z + moved
            if update is not None:
                x = (1.0 - self.pullback) * update.end + self.pullback * z  # pull back
                v = self.momentum * v + (x - z)
                self._x[worker.id] = x
            arriving = sim.collective(r.index)
            self._outbox.join(arriving, worker, update, v, whole=True)  # start averaging z + v, do not wait: all have z

    async def _correct(self, sim: Simulation) -> None:
        z, state = sim.params, self.outer.init(sim.params)
        begun = deque([sim.version] * 2)  # the versions of z that rounds begin from
        for worker in sim.workers:
            sim.spawn(self._keep(sim, worker, start_of(self.outer, z, state)))
        for r in sim.rounds():
            average = sim.collective(r.index)
            delta, version = await self._outbox.mean(average), begun.popleft()
            sim.forget(r.index - 1)  # everybody has it
            if delta is not None:
                before, (z, state) = z, self.outer.step(z, delta, state)  # z ← Outer(z, Δ̄)
                sim.commit(z, average.contributions(before, version))
            begun.append(sim.version)
            sim.event(r.index).succeed(start_of(self.outer, z, state))

    async def _keep(self, sim: Simulation, worker: Worker, z: Params) -> None:
        x, outbox = z, self._outbox
        for r in sim.rounds():
            if not outbox.keeps(worker):
                x = z
            update = await outbox.train(worker, x, round=r)  # τ local steps from x_i
            if r.index > 0:
                z = await sim.event(r.index - 1)  # block until the mean of the last sync point is applied
            sent = outbox.join(sim.collective(r.index), worker, update)  # start averaging, do not wait
            own = outbox.held(worker) if sent is None else sent
            if own is not None:
                x = z - own  # keep one's own round: what was sent was x_i at its start
                self._x[worker.id] = x


@hookimpl
def register_sync_policies(register: Register) -> None:
    register("overlap_local_sgd", OverlapLocalSGD)
