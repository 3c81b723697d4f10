"""Plugins that break one rule each, for the conformance suites to find; a plugin module itself, as any other."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Optional

import numpy as np
import torch
from torch import Tensor, nn

from halos import Layout, Moments, Params, Register, Update, all_of, hookimpl, mean
from halos.data import ArrayCorpus
from halos.data.synthetic import Synthetic
from halos.models.toy import Quadratic
from halos.models.toy_modules import QuadraticModule
from halos.rules.codecs import Fp32
from halos.rules.merge import SGD, MergeRule
from halos.sim.simulation import Simulation
from halos.training import Job, Outcome
from halos.training.inline import Inline
from halos.training.optimizers import SGD as Descent
from halos.world.cluster import Cluster, Worker
from halos.world.compute import Constant
from halos.world.network import Matrix

# Inner optimizers: descent with momentum, and something else.


@dataclass
class Momentum(Descent):
    momentum: float = 0.5


class Grows(Momentum):
    """Its state has other tensors after a step."""

    def step(self, params: Tensor, grad: Tensor, state: Moments, lr: float, layout: Layout) -> None:
        super().step(params, grad, state, lr, layout)
        state["momentum_buffer"] = state["momentum_buffer"].clone()


class Hides(Momentum):
    """Half of what it knows is in itself."""

    def step(self, params: Tensor, grad: Tensor, state: Moments, lr: float, layout: Layout) -> None:
        before, self.before = getattr(self, "before", grad), grad
        super().step(params, before + grad, state, lr, layout)


class Leaps(Momentum):
    """Its rate is its own."""

    def step(self, params: Tensor, grad: Tensor, state: Moments, lr: float, layout: Layout) -> None:
        super().step(params, grad, state, self.lr, layout)


class Climbs(Momentum):
    def step(self, params: Tensor, grad: Tensor, state: Moments, lr: float, layout: Layout) -> None:
        super().step(params, -grad, state, lr, layout)


class Mixes(Momentum):
    """What becomes of a row depends on the others."""

    def step_rows(
        self, params: Tensor, grad: Tensor, state: Moments, rates: Tensor, layout: Layout
    ) -> Callable[[int], None]:
        take = super().step_rows(params, grad, state, rates, layout)

        def mixed(at: int) -> None:
            grad.mul_(1.0 + 1e-12 * torch.linalg.vector_norm(grad))
            take(at)

        return mixed


# Policies: FedAvg, of which every subclass does one thing otherwise.


@dataclass
class Sound:
    """Nothing is wrong with it."""

    async def run(self, sim: Simulation) -> None:
        self.begin(sim)
        theta = sim.params
        for r in sim.rounds():
            updates = await all_of([sim.train(worker, theta, lr_step=r.lr_step) for worker in sim.workers])
            delta = await sim.all_reduce(update.delta for update in updates)
            theta = self.merge(theta, delta)
            self.commit(sim, theta, updates)
            await self.pause(sim)

    def begin(self, sim: Simulation) -> None:
        pass

    def merge(self, theta: Params, delta: Params) -> Params:
        return theta - delta

    def commit(self, sim: Simulation, theta: Params, updates: list[Update]) -> None:
        sim.commit(theta, updates)

    async def pause(self, sim: Simulation) -> None:
        pass


class Weightless(Sound):
    """Averages what its workers ended at, however they are weighed."""

    async def run(self, sim: Simulation) -> None:
        for r in sim.rounds():
            updates = await all_of([sim.train(worker, sim.params, round=r) for worker in sim.workers])
            sim.commit(mean(update.params for update in updates), updates)


class InPlace(Sound):
    def merge(self, theta: Params, delta: Params) -> Params:
        if theta.flat is not None and delta.flat is not None:
            theta.flat.sub_(delta.flat)
        return theta


class NoCommit(Sound):
    def commit(self, sim: Simulation, theta: Params, updates: list[Update]) -> None:
        pass


class NeverEnds(NoCommit):
    async def run(self, sim: Simulation) -> None:
        while not sim.done:
            await all_of([sim.train(worker, sim.params) for worker in sim.workers])


class Forgets(Sound):
    """The first worker's every update."""

    def commit(self, sim: Simulation, theta: Params, updates: list[Update]) -> None:
        sim.commit(theta, updates[1:] or updates)


class Twice(Sound):
    def commit(self, sim: Simulation, theta: Params, updates: list[Update]) -> None:
        sim.commit(theta, [*updates, updates[0]])


class StopsEarly(Sound):
    async def run(self, sim: Simulation) -> None:
        update = await sim.train(sim.workers[0], sim.params)
        sim.commit(update.params, [update])


class Draws(Sound):
    async def pause(self, sim: Simulation) -> None:
        await sim.sleep(random.random())


class Remembers(Sound):
    rounds = 0

    async def pause(self, sim: Simulation) -> None:
        self.rounds += 1
        await sim.sleep(float(self.rounds))


class TurnsBack(Sound):
    async def pause(self, sim: Simulation) -> None:
        sim.clock.now -= 100.0


class LooksAtValues(Sound):
    async def pause(self, sim: Simulation) -> None:
        await sim.sleep(1.0 if sim.params.norm() > 0.0 else 0.0)  # NaN > 0 is false


class KeepsTensors(Sound):
    def merge(self, theta: Params, delta: Params) -> Params:
        before, self.before = getattr(self, "before", None), delta.flat
        return theta - (delta if before is None else delta.map(lambda flat: 0.9 * flat + 0.1 * before))

    def begin(self, sim: Simulation) -> None:
        self.before: Any = None


class Uphill(Sound):
    def merge(self, theta: Params, delta: Params) -> Params:
        return theta + delta


@dataclass
class Inattentive(Sound):
    """Has a merge rule, and does not ask it where workers begin."""

    outer: MergeRule = field(default_factory=SGD)

    def begin(self, sim: Simulation) -> None:
        self._state = self.outer.init(sim.params)

    def merge(self, theta: Params, delta: Params) -> Params:
        theta, self._state = self.outer.step(theta, delta, self._state)
        return theta


class Raises(Sound):
    def begin(self, sim: Simulation) -> None:
        if len(sim.workers) == 8:
            raise IndexError("eight are too many")


# The other kinds.


class WritesState(SGD):
    def init(self, params: Params) -> Any:
        return {"sum": params.zeros()}

    def step(
        self, params: Params, delta: Params, state: Any, *, base: Optional[Params] = None, staleness: int = 0
    ) -> tuple[Params, Any]:
        state["sum"] = state["sum"] + delta  # the state it was given
        return params - 0.5 * delta, state


class WritesParams(SGD):
    def step(
        self, params: Params, delta: Params, state: Any, *, base: Optional[Params] = None, staleness: int = 0
    ) -> tuple[Params, Any]:
        return params.map(lambda flat: flat.sub_(delta.flat)), None


class Shares(SGD):
    """One momentum for all states."""

    velocity: Optional[Params] = None

    def step(
        self, params: Params, delta: Params, state: Any, *, base: Optional[Params] = None, staleness: int = 0
    ) -> tuple[Params, Any]:
        moved = delta if self.velocity is None else 0.5 * self.velocity + delta
        object.__setattr__(self, "velocity", moved)
        return params - moved, None


class FromValues(SGD):
    """Works on the tensor behind the parameters."""

    def step(
        self, params: Params, delta: Params, state: Any, *, base: Optional[Params] = None, staleness: int = 0
    ) -> tuple[Params, Any]:
        assert delta.flat is not None, "no values"
        return params - delta / max(1.0, float(delta.flat.norm())), None


class Ascends(SGD):
    def step(
        self, params: Params, delta: Params, state: Any, *, base: Optional[Params] = None, staleness: int = 0
    ) -> tuple[Params, Any]:
        return params + 0.01 * delta, None


class Drifts(SGD):
    def step(
        self, params: Params, delta: Params, state: Any, *, base: Optional[Params] = None, staleness: int = 0
    ) -> tuple[Params, Any]:
        return 0.99 * params - delta, None


class BackInTime(Matrix):
    def transfer(self, nbytes: int, src: int, dst: int, time: float) -> float:
        return nbytes / 1e9 - 0.5


class Bulk(Matrix):
    """Less for more."""

    def all_reduce(self, nbytes: int, workers: int, time: float) -> float:
        return 0.0 if workers == 1 else 1e9 / (1 + nbytes)


class Alone(Matrix):
    def all_reduce(self, nbytes: int, workers: int, time: float) -> float:
        return 1.0


class Congested(Matrix):
    asked = 0

    def transfer(self, nbytes: int, src: int, dst: int, time: float) -> float:
        self.asked += 1
        return float(self.asked)


@dataclass
class Halves:
    def steps(self, worker: Worker, sim: Simulation) -> Any:
        return 2.0


@dataclass
class Alternates:
    asked = 0

    def steps(self, worker: Worker, sim: Simulation) -> int:
        self.asked += 1
        return 1 + self.asked % 3


@dataclass
class Negative:
    def factor(self, steps: int, mean_steps: float) -> float:
        return 1.0

    def weight(self, worker: Worker) -> float:
        return 1.0 if worker.id == 0 else -0.5


@dataclass
class Doubles:
    def factor(self, steps: int, mean_steps: float) -> float:
        return 2.0 * steps / mean_steps


class Tires(Constant):
    """Every job it is asked for takes longer."""

    asked = 0

    def seconds(self, worker: Worker, steps: int, time: float, job: int) -> float:
        self.asked += 1
        return super().seconds(worker, steps, time, job) * self.asked


class Instant(Constant):
    def seconds(self, worker: Worker, steps: int, time: float, job: int) -> float:
        return 0.0


class Endless(Constant):
    def connect(self, cluster: Cluster, seed: int) -> None:
        self._step_time = math.inf


class Lies(Fp32):
    """Sends fp32 and says it was half of that."""

    def wire_bytes(self, payload: Params) -> int:
        return 2 * payload.size


class WeighsValues(Fp32):
    def wire_bytes(self, payload: Params) -> int:
        return 4 * (payload.size if payload.flat is None else int((payload.flat != 0).sum()))


class Overwrites(Fp32):
    def roundtrip(self, payload: Params) -> Params:
        return payload.map(lambda flat: flat.mul_(0.5))


class Feeds(Fp32):
    """Remembers what it has lost by itself."""

    lost: float = 0.0

    def roundtrip(self, payload: Params) -> Params:
        arrived = payload * 0.5 + payload * self.lost
        object.__setattr__(self, "lost", self.lost + 0.1)
        return arrived


class Doubled(Fp32):
    def roundtrip(self, payload: Params) -> Params:
        return payload * 3.0


class Misshapen(Quadratic):
    def shapes(self, vocab_size: Optional[int]) -> dict[str, tuple[int, ...]]:
        return {"theta": (self.size + 1,)}


NUMBERS = itertools.count()


class Seedless(Quadratic):
    def build(self, vocab_size: Optional[int], seed: int) -> QuadraticModule:
        module = super().build(vocab_size, seed)
        nn.init.normal_(module.theta, generator=torch.Generator().manual_seed(next(NUMBERS)))
        return module


class Flat(Quadratic):
    """Part of it has no gradient."""

    def shapes(self, vocab_size: Optional[int]) -> dict[str, tuple[int, ...]]:
        return {"theta": (self.size,), "unused": (1,)}

    def build(self, vocab_size: Optional[int], seed: int) -> QuadraticModule:
        module = super().build(vocab_size, seed)
        module.unused = nn.Parameter(torch.zeros(1))
        return module


class Noisy(Quadratic):
    def build(self, vocab_size: Optional[int], seed: int) -> QuadraticModule:
        module = super().build(vocab_size, seed)
        module.__class__ = NoisyModule
        return module


class NoisyModule(QuadraticModule):
    def forward(self, batch: Tensor) -> Tensor:
        return super().forward(batch) * (1 + next(NUMBERS))


class Infinite(Quadratic):
    """√θ at 0, whose gradient is infinite: in fp16 no step is ever taken."""

    def build(self, vocab_size: Optional[int], seed: int) -> QuadraticModule:
        module = super().build(vocab_size, seed)
        module.__class__ = RootModule
        return module


class RootModule(QuadraticModule):
    def forward(self, batch: Tensor) -> Tensor:
        return self.theta.sqrt().sum()


class Counts(Quadratic):
    """The second time it is asked, its loss is another; one of its own knows how often that was."""

    def build(self, vocab_size: Optional[int], seed: int) -> QuadraticModule:
        module = super().build(vocab_size, seed)
        module.__class__ = CountingModule
        module.count = torch.zeros(())
        return module


class CountingModule(QuadraticModule):
    def forward(self, batch: Tensor) -> Tensor:
        self.count += 1
        return super().forward(batch) * self.count


class Overlooked(Quadratic):
    """It draws from a generator that is its own, and none of PyTorch's."""

    def build(self, vocab_size: Optional[int], seed: int) -> QuadraticModule:
        module = super().build(vocab_size, seed)
        module.__class__ = DrawingModule
        module.generator = np.random.default_rng(0)
        return module


class DrawingModule(QuadraticModule):
    def forward(self, batch: Tensor) -> Tensor:
        return super().forward(batch) * self.generator.random()


class Slides(Quadratic):
    """What it has frozen moves, behind the back of autograd."""

    def build(self, vocab_size: Optional[int], seed: int) -> QuadraticModule:
        module = super().build(vocab_size, seed)
        module.__class__ = SlidingModule
        module.frozen = nn.Parameter(torch.ones(()), requires_grad=False)
        return module


class SlidingModule(QuadraticModule):
    def forward(self, batch: Tensor) -> Tensor:
        self.frozen.data.mul_(0.9)
        return super().forward(batch) * self.frozen


@dataclass(kw_only=True)
class Unknown(Synthetic):
    """Has tokens beyond its vocabulary."""

    def open(self, seed: int) -> ArrayCorpus:
        corpus = super().open(seed)
        return ArrayCorpus(corpus.samples, corpus.vocab_size // 2, corpus.hash)

    def vocabulary(self) -> int:
        return self.vocab_size // 2


@dataclass(kw_only=True)
class Reshuffled(Synthetic):
    """Draws from NumPy's own generator."""

    def open(self, seed: int) -> ArrayCorpus:
        corpus = super().open(seed)
        return ArrayCorpus(np.random.permutation(corpus.samples), corpus.vocab_size, corpus.hash)


class InOrder(Inline):
    """Gives whatever result is next."""

    def submit(self, job: Job) -> None:
        self.waiting: list[Job] = [*getattr(self, "waiting", []), job]

    def result(self, job: Job) -> Outcome:
        return super().result(self.waiting.pop(0))


class Rounded(Inline):
    def result(self, job: Job) -> Outcome:
        outcome = super().result(job)
        return outcome._replace(params=outcome.params.map(lambda flat: flat.half().to(flat.dtype)))


class Reuses(Inline):
    """Trains into the parameters it was given."""

    def result(self, job: Job) -> Outcome:
        outcome = super().result(job)
        assert job.start.flat is not None and outcome.params.flat is not None
        job.start.flat.copy_(outcome.params.flat)
        return outcome


@hookimpl
def register_sync_policies(register: Register) -> None:
    several = (Weightless, InPlace, NoCommit, NeverEnds, Forgets, Twice, StopsEarly, Draws, Remembers, KeepsTensors)
    for cls in (Sound, *several, TurnsBack, LooksAtValues, Uphill, Inattentive, Raises):
        register(cls.__name__, cls)


@hookimpl
def register_inner_optimizers(register: Register) -> None:
    for cls in (Grows, Hides, Leaps, Climbs, Mixes):
        register(cls.__name__, cls)


@hookimpl
def register_merge_rules(register: Register) -> None:
    for cls in (WritesState, WritesParams, Shares, FromValues, Ascends, Drifts):
        register(cls.__name__, cls)


@hookimpl
def register_network_models(register: Register) -> None:
    for cls in (BackInTime, Bulk, Alone, Congested):
        register(cls.__name__, cls)


@hookimpl
def register_step_allocations(register: Register) -> None:
    register("Halves", Halves)
    register("Alternates", Alternates)


@hookimpl
def register_contribution_weights(register: Register) -> None:
    register("Doubles", Doubles)
    register("Negative", Negative)


@hookimpl
def register_compute_models(register: Register) -> None:
    for cls in (Tires, Instant, Endless):
        register(cls.__name__, cls)


@hookimpl
def register_codecs(register: Register) -> None:
    for cls in (Lies, WeighsValues, Overwrites, Feeds, Doubled):
        register(cls.__name__, cls)


@hookimpl
def register_models(register: Register) -> None:
    for cls in (Misshapen, Seedless, Flat, Noisy, Infinite, Counts, Overlooked, Slides):
        register(cls.__name__, cls)


@hookimpl
def register_data_sources(register: Register) -> None:
    register("Unknown", Unknown)
    register("Reshuffled", Reshuffled)


@hookimpl
def register_executors(register: Register) -> None:
    for cls in (InOrder, Rounded, Reuses):
        register(cls.__name__, cls)
