"""Data-parallel training: the gradients of every local step are averaged before anybody steps."""

from __future__ import annotations

from dataclasses import dataclass

from halos import Register, all_of, hookimpl
from halos.simulation import Simulation


@dataclass
class DataParallel:
    """Synchronous stochastic gradient descent, the baseline of every method that communicates less.

    All workers compute the gradient of their batch at the same parameters, and the inner optimizer (`train:`,
    clipping and schedule included) takes one step along the mean: arithmetically one worker with the joint batch, in
    time the slowest worker's step and one all-reduce. What `steps:` says plays no part: a round is one step.
    """

    async def run(self, sim: Simulation) -> None:
        theta = sim.params
        while not sim.done:
            jobs = [sim.train(worker, theta, steps=1, gradient=True) for worker in sim.workers]  # g_m ← ∇f(θ; B_m)
            updates = await all_of(jobs)
            gradient = await sim.all_reduce(update.delta for update in updates)  # g ← 1/M Σ g_m
            theta = sim.inner_step(theta, gradient, updates[0].lr_step)  # θ ← InnerOpt(θ, g)
            sim.commit(theta, updates)
            del jobs, updates  # or every worker's gradient would stay in memory during the next step


@hookimpl
def register_sync_policies(register: Register) -> None:
    register("data_parallel", DataParallel)
