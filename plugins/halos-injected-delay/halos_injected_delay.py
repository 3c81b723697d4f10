"""Injected delay: DiLoCo in all but that its server applies a mean so many rounds late, to study what that costs."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Optional, Union

from halos import (
    Backlog,
    Contribution,
    MergeRule,
    Nesterov,
    Params,
    Register,
    Simulation,
    Update,
    all_of,
    generator,
    hookimpl,
    require,
    rounded,
    start_of,
)

Brought = Union[Update, Contribution]


@dataclass
class InjectedDelay:
    """DiLoCo (arXiv 2311.08105, Algorithm 1) whose outer step of round r is made with the mean of round r − k.

    Time, samples and messages are DiLoCo's. Rounds 1 to k make no outer step, and after the last one the k means that
    are outstanding are applied, oldest first. With a share `late` below 1 only so many workers are k rounds late:
    their messages come with the others' of k rounds later, and the mean is over what comes. k = 0 is DiLoCo.
    """

    outer: MergeRule = field(default_factory=Nesterov)  # applied to means when they are due
    outer_delay: int = 1  # k, rounds by which a mean comes late
    late: float = 1.0  # of the workers, how many are late, rounded; the others are not
    redraw: bool = False  # who is late: drawn anew in every round, or once
    seed: int = 0  # of who is late

    def __post_init__(self) -> None:
        require(self.outer_delay >= 0, "outer_delay", self.outer_delay, "zero or a positive number of rounds")
        require(0.0 <= self.late <= 1.0, "late", self.late, "in [0, 1]")

    async def run(self, sim: Simulation) -> None:
        self._theta, self._state = sim.params, self.outer.init(sim.params)
        everybody = rounded(self.late * len(sim.workers)) == len(sim.workers)
        await (self._means_late(sim) if everybody else self._messages_late(sim))

    async def _means_late(self, sim: Simulation) -> None:
        backlog = Backlog(sim)
        under_way: deque[tuple[Optional[Params], list[Contribution]]] = deque()  # means, and what they are made of
        for r in sim.rounds():
            start = start_of(self.outer, self._theta, self._state)
            await backlog.train(start, r)  # θ_i ← InnerOpt(θ), H steps each
            delta = await backlog.all_reduce(start)  # Δ̄^r
            under_way.append((delta, [kept(each) for each in backlog.contributions()]))
            if len(under_way) > self.outer_delay:
                self._step(sim, *under_way.popleft())  # Δ̄^{r−k}
        for each in under_way:
            self._step(sim, *each)

    async def _messages_late(self, sim: Simulation) -> None:
        to_come: deque[list[Update]] = deque([[]] * self.outer_delay)  # late ones, of the last k rounds
        for r in sim.rounds():
            start, late = start_of(self.outer, self._theta, self._state), self._late(sim, r.index)
            updates = await all_of([sim.train(worker, start, round=r) for worker in sim.workers])
            to_come.append([update for update in updates if update.worker in late])
            await self._average(sim, [update for update in updates if update.worker not in late] + to_come.popleft())
        for each in to_come:
            await self._average(sim, each)

    async def _average(self, sim: Simulation, updates: list[Update]) -> None:
        """The mean of what comes in a round, from whatever rounds, and an outer step with it."""
        if updates:
            ordered = sim.weigh(sorted(updates, key=lambda update: (update.worker, update.id)))
            workers = [sim.workers[update.worker] for update in ordered]
            delta = await sim.all_reduce((update.delta for update in ordered), workers=workers)
            self._step(sim, delta, [kept(update) for update in ordered])

    def _late(self, sim: Simulation, index: int) -> set[int]:
        """Whose messages of a round come late."""
        draw = generator(self.seed, "late", index if self.redraw else 0)
        count = rounded(self.late * len(sim.workers))
        return {int(worker) for worker in draw.choice(len(sim.workers), count, replace=False)}

    def _step(self, sim: Simulation, delta: Optional[Params], brought: list[Contribution]) -> None:
        """θ^r ← Outer(θ^{r−1}, Δ̄^{r−k}), if anything came."""
        if delta is not None:
            before = self._theta
            self._theta, self._state = self.outer.step(before, delta, self._state)
            sim.commit(self._theta, [replace(each, target=before) for each in brought])


def kept(brought: Brought) -> Contribution:
    """Return what a mean is made of, without the updates' tensors; its target is not known yet."""
    if isinstance(brought, Contribution):
        return replace(brought, updates=[update.receipt() for update in brought.updates])
    return Contribution([brought.receipt()], brought.start, brought.start)


@hookimpl
def register_sync_policies(register: Register) -> None:
    register("injected_delay", InjectedDelay)
