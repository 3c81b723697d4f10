"""Overlap Local-SGD: workers are pulled towards an anchor whose average is on its way meanwhile (arXiv 2002.09539)."""

from __future__ import annotations

from dataclasses import dataclass

from halos import Event, Params, Register, Simulation, Worker, hookimpl, mean, require


@dataclass
class OverlapLocalSGD:
    """Local SGD with an anchor model (arXiv 2002.09539, Algorithm 1; momentum as in its section 3).

    After every τ local steps (the step allocation's) worker i awaits the average started one round ago, z, is pulled
    back, x_i ← (1−α) x_i + α z, updates its anchor momentum v_i ← β v_i + (x_i − z), starts the average of z + v_i,
    which becomes the next anchor, and goes on from x_i without waiting. The global model is the anchor.
    """

    pullback: float = 0.6  # α, how strongly the anchor pulls workers back; 0 to 1
    momentum: float = 0.7  # β, of the anchor

    def __post_init__(self) -> None:
        require(0.0 <= self.pullback <= 1.0, "pullback", self.pullback, "in [0, 1]")
        require(0.0 <= self.momentum < 1.0, "momentum", self.momentum, "in [0, 1)")

    def prepare(self, sim: Simulation) -> None:
        self._x: dict[int, Params] = {}  # where each worker goes on from
        sim.offer("workers", lambda: mean(self._x.values()) if self._x else None)

    async def run(self, sim: Simulation) -> None:
        for worker in sim.workers:
            sim.spawn(self._work(sim, worker))
        z = sim.params
        for r in sim.rounds():
            average = sim.collective(r.index)
            before, z = z, z + await average.arrival
            sim.commit(z, average.contributions(before))

    async def _work(self, sim: Simulation, worker: Worker) -> None:
        x = z = sim.params
        v = z.zeros()
        arriving: Event[Params] | None = None
        for r in sim.rounds():
            update = await sim.train(worker, x, round=r)  # τ local steps from x_i
            if arriving is not None:
                z = z + await arriving  # block until the average started at the last sync point is there
            x = (1.0 - self.pullback) * update.end + self.pullback * z  # pull back
            v = self.momentum * v + (x - z)
            self._x[worker.id] = x
            arriving = sim.collective(r.index).join(worker, v, update)  # start averaging z + v, do not wait: all have z


@hookimpl
def register_sync_policies(register: Register) -> None:
    register("overlap_local_sgd", OverlapLocalSGD)
