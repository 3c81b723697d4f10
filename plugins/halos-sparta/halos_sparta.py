"""SPARTA: after every step a random share of the parameters is averaged over all workers (OpenReview stFPf3gzq1)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Optional

import torch

from halos import (
    FP32,
    Codec,
    Contribution,
    Event,
    Layout,
    Lost,
    MergeRule,
    Params,
    Register,
    Round,
    Simulation,
    Update,
    Worker,
    arrived,
    first_of,
    generator,
    hookimpl,
    mean,
    own_seed,
    require,
    rounded,
    same_steps,
    start_of,
)

TRIES = 1000  # of the last average, before the run is given up


@dataclass
class Sparta:
    """All take a step, then share p of the coordinates becomes its mean over all (SPARTA, OpenReview stFPf3gzq1).

    The same coordinates for all, drawn anew at every step from a seed that all know, so that no indices travel. With
    `delay` τ the mean of step t is applied after step t + τ, x ← ȳ + (x − y), y being what was sent: the steps since
    are kept. With `outer` it is DiLoCo besides: an outer step at the end of every round. Otherwise the global model is
    the mean of the workers' after every round, known to none of them, until a full average ends the run.
    """

    weighs: ClassVar[bool] = False  # all take the same steps, and what is averaged are parameters

    share: float = 0.005  # p, of the coordinates; 0 to 1
    delay: int = 0  # τ, local steps from sending to applying
    outer: Optional[MergeRule] = None  # of DiLoCo's outer step after each round (`steps:`); null: there is none
    seed: Optional[int] = None  # of the coordinates; null: the run's

    def __post_init__(self) -> None:
        require(0.0 <= self.share <= 1.0, "share", self.share, "in [0, 1]")
        require(self.delay >= 0, "delay", self.delay, "zero or a positive number of local steps")
        require(self.seed is None or self.seed >= 0, "seed", self.seed, "zero or a positive number, or null")

    def prepare(self, sim: Simulation) -> None:
        """All take a step at a time, together."""
        same_steps([sim.steps(worker) for worker in sim.workers], "sparta")

    async def run(self, sim: Simulation) -> None:
        outer, run = self.outer, Run(sim, self)
        theta, state = sim.params, None if outer is None else outer.init(sim.params)
        if outer is not None:
            run.begin_from(start_of(outer, theta, state), ())
        rounds = sim.rounds()
        r = next(rounds, None)
        while r is not None:
            steps = same_steps(r.steps, "sparta")
            for step in range(steps - 1):
                await run.train(r, step)  # x_i ← InnerOpt(x_i), one step
                await run.average_some()  # x_i[j] ← 1/M Σ x_i[j], j in the mask of this step
            await run.train(r, steps - 1)
            if outer is not None:
                delta, heard = await run.outer_gradient()  # Δ̄ ← 1/M Σ (θ − x_i)
                if delta is not None:
                    theta, state = outer.step(theta, delta, state)  # θ ← Outer(θ, Δ̄)
                    sim.commit(theta, run.contributions(heard))
                    run.begin_from(start_of(outer, theta, state), heard)
                r = next(rounds, None)
            else:
                r = next(rounds, None)
                await (run.average_all() if r is None else run.average_some())
                if members := sorted(run.trained):
                    sim.commit(mean(run.x[worker] for worker in members), run.contributions(members))


class Sent(NamedTuple):
    """An average under way: of which coordinates, what each worker sent, and after which step it is applied."""

    coordinates: torch.Tensor  # [k]
    arrival: Event[Params]
    sent: dict[int, Params]  # y, [k], by worker
    due: int


class Run:
    """One run of SPARTA: where the workers are, and what is under way among them."""

    def __init__(self, sim: Simulation, options: Sparta) -> None:
        self.x: dict[int, Params] = {}  # by worker, where it is; one that is not there begins from `_home`
        self.trained: dict[int, list[Update]] = {}  # by worker, and in no commit yet; without tensors
        self._sim, self._options = sim, options
        self._anchor = sim.params  # what all know: differences from it travel
        self._began: dict[int, Params] = {}  # where what is trained began
        self._under_way: deque[Sent] = deque()
        self._step = 0  # since the start of the run
        self._layouts: dict[int, Layout] = {}  # of so many coordinates

    @property
    def _home(self) -> Params:
        """What a worker begins from that has nothing of its own."""
        return self._sim.params if self._options.outer is None else self._anchor

    def begin_from(self, start: Params, workers: Iterable[int]) -> None:
        """These workers are at `start`, which all know; what is under way is of no use to anybody any more."""
        self._anchor = start
        self.x |= dict.fromkeys(workers, start)
        self._under_way.clear()

    async def train(self, r: Round, step: int) -> None:
        """Local step `step` of round `r`, of everybody; who is down then has lost what it did since the last commit."""
        sim = self._sim

        def lr_step(worker: Worker) -> int:
            before = r.lr_step_of(worker)
            assert before is not None, "all take the same steps"
            return before + step

        updates = await arrived(
            sim.train(worker, self.x.get(worker.id, self._home), 1, lr_step=lr_step(worker), round=r)
            for worker in sim.workers
        )
        for update in updates:
            self._began.setdefault(update.worker, update.start)
            self.trained.setdefault(update.worker, []).append(update.receipt())
            self.x[update.worker] = update.params
        self._step += 1
        self._forget({*self.x} - {update.worker for update in updates})  # whose jobs were lost
        self._forget(self._down())
        if not updates:
            await first_of([sim.faults.returned(worker) for worker in sim.workers])

    async def average_some(self) -> None:
        """Average this step's coordinates among those who took it; apply what is due. One that is lost is left out."""
        await self._apply_due()
        drawn = self._drawn()
        if len(drawn) and self.trained:
            sent = {worker: self._of(self.x[worker], drawn) for worker in sorted(self.trained)}
            arrival = self._all_reduce(self._of(self._anchor, drawn), sent, FP32)
            self._under_way.append(Sent(drawn, arrival, sent, self._step + self._options.delay))
        await self._apply_due()  # without a delay

    async def average_all(self) -> None:
        """Average everything, at the end; what is lost on the way is tried again."""
        for attempt in range(TRIES):
            self._forget(self._down())
            if not self.trained:
                return
            try:
                delta = await self._all_reduce(self._anchor, self._places(sorted(self.trained)))
            except Lost:
                if attempt + 1 == TRIES:
                    raise
            else:
                self.x |= dict.fromkeys(self.trained, self._anchor - delta)
                return

    async def outer_gradient(self) -> tuple[Optional[Params], list[int]]:
        """Return Δ̄ ← 1/k Σ (θ − x_i) over those who are heard, and who they are; None if nobody is.

        Who is not heard goes on from where it is, and brings what it did with its next message, as in DiLoCo.
        """
        self._forget(self._down())
        heard = [id for id, updates in sorted(self.trained.items()) if self._sim.faults.delivers(updates[-1])]
        if not heard:
            return None, heard
        try:
            return await self._all_reduce(self._anchor, self._places(heard)), heard
        except Lost:  # a link is down for ever
            return None, heard

    def contributions(self, workers: Iterable[int]) -> list[Contribution]:
        """Return what these workers have trained, for a commit; it is not kept."""
        target = self._sim.params
        return [Contribution(self.trained.pop(worker), self._began.pop(worker), target) for worker in workers]

    def _places(self, workers: list[int]) -> dict[int, Params]:
        return {worker: self.x[worker] for worker in workers}

    def _all_reduce(self, known: Params, of: dict[int, Params], codec: Optional[Codec] = None) -> Event[Params]:
        workers = [self._sim.workers[worker] for worker in of]
        return self._sim.all_reduce((known - each for each in of.values()), codec, workers)

    async def _apply_due(self) -> None:
        while self._under_way and self._under_way[0].due <= self._step:
            await self._apply(self._under_way.popleft())

    async def _apply(self, average: Sent) -> None:
        try:
            delta = await average.arrival
        except Lost:
            return
        drawn = average.coordinates
        middle = self._of(self._anchor, drawn) - delta  # ȳ
        for worker, y in average.sent.items():  # x ← ȳ + (x − y); at once, that is ȳ
            x = self.x[worker]
            merged = middle + (self._of(x, drawn) - y)
            self.x[worker] = x.map(lambda flat, part=merged: flat.index_copy(0, drawn.to(flat.device), part.flat))

    def _drawn(self) -> torch.Tensor:
        """This step's coordinates, [k], without those that are under way already."""
        size, share = self._anchor.size, self._options.share
        count = max(1, rounded(share * size)) if share else 0
        draws = generator(own_seed(self._options, self._sim.seed), "sparta", self._step)
        drawn = torch.from_numpy(draws.choice(size, count, replace=False, shuffle=False))
        for average in self._under_way:
            drawn = drawn[~torch.isin(drawn, average.coordinates)]
        return drawn

    def _of(self, params: Params, coordinates: torch.Tensor) -> Params:
        """These coordinates of `params`, as parameters of their own."""
        count, flat = len(coordinates), params.flat
        if count not in self._layouts:
            self._layouts[count] = Layout({"coordinates": (count,)}, params.layout.dtype)
            self._layouts[count].serials = params.layout.serials
        return Params(self._layouts[count], None if flat is None else flat[coordinates.to(flat.device)])

    def _down(self) -> list[int]:
        """Who has been down since it took its last step."""
        workers, up = self._sim.workers, self._sim.faults.up
        return [id for id, several in self.trained.items() if not up(workers[id], since=several[-1].time)]

    def _forget(self, workers: Iterable[int]) -> None:
        """What these workers had is gone."""
        for worker in workers:
            self._sim.drop(self.trained.pop(worker, []))
            self._began.pop(worker, None)
            self.x.pop(worker, None)
            for average in self._under_way:
                average.sent.pop(worker, None)


@hookimpl
def register_sync_policies(register: Register) -> None:
    register("sparta", Sparta)
