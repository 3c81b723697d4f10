"""PALSGD: some local steps are pulls towards the last outer model, which cost no gradient (arXiv 2504.18454)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import ClassVar, NamedTuple, Optional

import torch

from halos import (
    Contribution,
    Lost,
    MergeRule,
    Nesterov,
    Params,
    Register,
    Round,
    Simulation,
    Update,
    Worker,
    all_of,
    first_of,
    generator,
    hookimpl,
    own_seed,
    require,
    same_steps,
    start_of,
)


class Trained(NamedTuple):
    """What a worker did in a round."""

    worker: Worker
    x: Params  # where it is
    updates: list[Update]  # of its gradient steps, without tensors


@dataclass
class PALSGD:
    """DiLoCo with pseudo-asynchronous local steps (arXiv 2504.18454).

    In each of the H local steps of a round a worker pulls itself towards its copy of the last outer model with
    probability p, x ← x − (lr/p) η (x − x_out), and otherwise takes a gradient step of rate lr/(1−p), which is what the
    inner optimizer has. A pull takes no time and no batch. p = 0 is DiLoCo.
    """

    weighs: ClassVar[bool] = False  # all take the same steps, and a round's difference is that of several jobs

    outer: MergeRule = field(
        default_factory=lambda: Nesterov(lr=0.1, momentum=0.9)
    )  # applied to the mean of each round
    probability: float = 0.2  # p, of a pull; below 1
    pull: float = 1.0  # η, its strength
    seed: Optional[int] = None  # of the coins; null: the run's

    def __post_init__(self) -> None:
        require(0.0 <= self.probability < 1.0, "probability", self.probability, "in [0, 1)")
        require(0.0 <= self.pull < float("inf"), "pull", self.pull, "zero or a positive number")
        require(self.seed is None or self.seed >= 0, "seed", self.seed, "zero or a positive number, or null")

    def prepare(self, sim: Simulation) -> None:
        """All take as many steps."""
        same_steps([sim.steps(worker) for worker in sim.workers], "palsgd")
        self._pulls, self._seed = 0, own_seed(self, sim.seed)

    async def run(self, sim: Simulation) -> None:
        theta, state = sim.params, self.outer.init(sim.params)
        for r in sim.rounds():
            same_steps(r.steps, "palsgd")
            start = start_of(self.outer, theta, state)
            done = await all_of([sim.spawn(self._train(sim, worker, start, r)) for worker in sim.workers])
            delta, heard = await self._average(sim, start, [each for each in done if each is not None])
            if delta is not None:
                theta, state = self.outer.step(theta, delta, state)  # x_out ← Outer(x_out, Δ̄)
                brought = [Contribution(each.updates, start, sim.params) for each in heard if each.updates]
                sim.commit(theta, brought)

    def report(self) -> dict[str, int]:
        """How many local steps were pulls."""
        return {"pulls": self._pulls}

    async def _train(self, sim: Simulation, worker: Worker, start: Params, r: Round) -> Optional[Trained]:
        """A worker's round; None if its job is lost, and with it the round."""
        x, updates, lr_step = start, list[Update](), r.lr_step_of(worker)
        assert lr_step is not None, "all take the same steps"
        for is_pull, count in self._coins(worker, r):
            if not is_pull:
                try:
                    update = await sim.train(worker, x, count, lr_step=lr_step, round=r)
                except Lost:
                    sim.drop(updates)
                    return None
                x, updates = update.params, [*updates, update.receipt()]
            elif updates:  # before the first gradient step it is where it would be pulled to
                for step in range(count):
                    x = self._pulled(x, start, sim.learning_rate(lr_step + step))
            self._pulls += count if is_pull else 0
            lr_step += count
        return Trained(worker, x, updates)

    def _coins(self, worker: Worker, r: Round) -> Iterator[tuple[bool, int]]:
        """A worker's steps in a round: whether they are pulls, and how many of that kind follow each other."""
        if not self.probability:
            yield False, r.steps[worker.id]
            return
        draws = generator(self._seed, "palsgd", worker.id, r.index).random(r.steps[worker.id])
        for is_pull, several in groupby((draws < self.probability).tolist()):
            yield is_pull, len([*several])

    def _pulled(self, x: Params, towards: Params, rate: float) -> Params:
        """x ← x − (lr/p) η (x − x_out), `rate` being lr/(1−p); never beyond x_out."""
        share = min(1.0, self.pull * rate * (1.0 - self.probability) / self.probability)
        return Params.combine(lambda own, other: torch.lerp(own, other, share), x, towards)

    async def _average(
        self, sim: Simulation, start: Params, done: list[Trained]
    ) -> tuple[Optional[Params], list[Trained]]:
        """Δ̄ ← 1/k Σ (x_out − x_i) over those who are heard, and who they are; None if nobody did anything."""
        heard = [each for each in done if self._arrives(sim, each)]
        if not any(each.updates for each in heard):
            if not done:
                await first_of([sim.faults.returned(worker) for worker in sim.workers])
            return None, []
        try:
            delta = await sim.all_reduce((start - each.x for each in heard), workers=[each.worker for each in heard])
        except Lost:
            for each in heard:
                sim.drop(each.updates)
            return None, []
        return delta, heard

    def _arrives(self, sim: Simulation, trained: Trained) -> bool:
        """Whether a worker's difference arrives; if not, its round is dropped."""
        if not trained.updates:
            return sim.faults.up(trained.worker)
        last = trained.updates[-1]
        arrives = sim.faults.up(trained.worker, since=last.time) and sim.faults.delivers(last)
        if not arrives:
            sim.drop(trained.updates)
        return arrives


@hookimpl
def register_sync_policies(register: Register) -> None:
    register("palsgd", PALSGD)
