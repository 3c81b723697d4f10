"""Data-parallel training: the gradients of every local step are averaged before anybody steps."""

from __future__ import annotations

from dataclasses import dataclass

from halos import Lost, Params, Register, Simulation, Update, Worker, all_of, hookimpl


@dataclass
class DataParallel:
    """Synchronous stochastic gradient descent, the baseline of every method that communicates less.

    All workers compute the gradient of their batch at the same parameters, and the inner optimizer (`train:`,
    clipping and schedule included) takes one step along the mean: arithmetically one worker with the joint batch, in
    time the slowest worker's step and one all-reduce. What `steps:` says plays no part: a round is one step. Under
    faults everybody waits until a worker that has crashed is back and has computed its gradient again.
    """

    async def run(self, sim: Simulation) -> None:
        theta = sim.params
        while not sim.done:
            theta = await self.step(sim, theta)

    async def step(self, sim: Simulation, theta: Params) -> Params:
        """Return the next parameters, committed: everybody's gradient at `theta`, and one step along their mean."""
        updates = await all_of([sim.spawn(_gradient(sim, worker, theta)) for worker in sim.workers])
        while crashed := [each for each in updates if not sim.faults.up(sim.workers[each.worker], since=each.time)]:
            sim.drop(crashed)  # it had its gradient, but the others were not there yet
            again = await all_of([sim.spawn(_gradient(sim, sim.workers[each.worker], theta)) for each in crashed])
            updates = sorted([*(each for each in updates if each not in crashed), *again], key=_worker)
        updates = sim.weigh(updates)
        gradient = await sim.all_reduce(update.delta for update in updates)  # g ← 1/M Σ g_m
        theta = sim.inner_step(theta, gradient, updates[0].lr_step)  # θ ← InnerOpt(θ, g)
        sim.commit(theta, updates)
        return theta


def _worker(update: Update) -> int:
    return update.worker


async def _gradient(sim: Simulation, worker: Worker, theta: Params) -> Update:
    """g_m ← ∇f(θ; B_m), as often as it takes."""
    while True:
        try:
            return await sim.train(worker, theta, steps=1, gradient=True)
        except Lost:
            await sim.faults.returned(worker)


@hookimpl
def register_sync_policies(register: Register) -> None:
    register("data_parallel", DataParallel)
