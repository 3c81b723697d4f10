"""Streaming DiLoCo: fragments of the model synchronised in turn, while training goes on (arXiv 2501.18512)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Optional, Union

import torch

from halos import (
    PATTERNS,
    Cluster,
    ConfigError,
    Contribution,
    Event,
    MergeRule,
    Nesterov,
    Params,
    Register,
    Round,
    Simulation,
    Update,
    UserError,
    Worker,
    all_of,
    cut,
    hookimpl,
    mean,
    require,
    start_of,
    under,
)

SAME_STEPS = "streaming_diloco needs the same for all: steps: {name: fixed, base: …}"


@dataclass
class StreamingDiLoCo:
    """Fragments of the model are averaged in turn, each while training goes on (arXiv 2501.18512, Algorithm 2).

    Local steps are counted from the run's start, the same for all workers, and H are those of a round (`steps:`).
    After step t every fragment p with (t − t_p) mod H = 0 is sent, Δ_{m,p} = Θ_p − θ_{m,p}; τ steps later the worker
    blocks until Θ_p ← Outer_p(Θ_p, Δ̄_p) and mixes θ_{m,p} ← α θ_{m,p} + (1 − α) Θ_p, or with `merge: corrected`
    takes Θ_p with its own τ steps, θ_{m,p} ← Θ_p + (θ_{m,p} − what it sent). Θ is the global model, and changes when a
    mean arrives. At the end what is under way is received, and fragments that were not sent after the last step are
    sent once more. With `overlap: outer_step` the worker does not wait: see `Eager`.
    """

    weighs: ClassVar[bool] = False  # all take the same steps, and a fragment's differences are Θ_p − θ_{m,p}

    outer: MergeRule = field(default_factory=lambda: Nesterov(lr=0.4, momentum=0.9))  # of every fragment
    fragments: int = 3  # P
    pattern: str = "strided"  # strided | sequential | balanced: how layers (or bytes) make fragments
    offsets: Optional[list[int]] = None  # t_p, local steps, one per fragment; null: p · H / P, rounded
    tau: Union[int, list[int]] = 1  # τ, local steps from sending to receiving; a list: one per worker
    merge: str = "mix"  # mix: by α; corrected: Θ_p and one's own τ steps, alpha plays no part then
    alpha: float = 0.5  # α, weight of the local parameters in the mix
    overlap: str = "none"  # none | outer_step: eager updates (arXiv 2502.12996); tau and alpha play no part then

    def __post_init__(self) -> None:
        require(self.fragments >= 1, "fragments", self.fragments, "a positive number")
        require(self.pattern in PATTERNS, "pattern", self.pattern, "one of " + ", ".join(PATTERNS))
        require(0.0 <= self.alpha <= 1.0, "alpha", self.alpha, "in [0, 1]")
        require(self.merge in ("mix", "corrected"), "merge", self.merge, "one of mix, corrected")
        require(self.overlap in ("none", "outer_step"), "overlap", self.overlap, "one of none, outer_step")
        eager = self.overlap == "outer_step" and self.merge != "mix"
        require(not eager, "merge", self.merge, "mix: with overlap outer_step nothing is merged late")
        several = self.tau if isinstance(self.tau, list) else [self.tau]
        require(all(tau >= 0 for tau in several), "tau", self.tau, "zero or a positive number of local steps")
        if self.offsets is not None:
            wanted = f"a list of {self.fragments} local steps, one per fragment"
            require(len(self.offsets) == self.fragments and min(self.offsets) >= 0, "offsets", self.offsets, wanted)

    def check(self, cluster: Cluster) -> None:
        """One τ for everybody or one for each."""
        if isinstance(self.tau, list) and len(self.tau) != len(cluster.workers):
            raise ConfigError("tau", f"has {len(self.tau)} numbers for {len(cluster.workers)} workers")

    def prepare(self, sim: Simulation) -> None:
        """What can be known before the first round: whether schedule and fragments fit steps and model."""
        steps = [sim.steps(worker) for worker in sim.workers]
        if len(set(steps)) > 1:
            raise UserError(f"workers take {min(steps)} to {max(steps)} local steps; {SAME_STEPS}")
        (Streaming if self.overlap == "none" else Eager)(self, sim, Round(0, 0, tuple(steps)))

    async def run(self, sim: Simulation) -> None:
        for first in sim.rounds():
            with under("policy"):
                self._run = (Streaming if self.overlap == "none" else Eager)(self, sim, first)
            await all_of([sim.spawn(self._run.work(worker)) for worker in sim.workers])
            return

    def report(self) -> dict[str, Optional[float]]:
        """How far a mix moves a worker's fragment, on average: (1 − α) ‖θ_{m,p} − Θ_p‖₂.

        Of corrected merges that, ‖Θ_p − y‖₂, and how far from y the fragment was by then, y being what was sent.
        """
        run = self._run
        sums = {"local_mix_distance": run.moved}
        if self.merge == "corrected":
            sums["local_merge_drift"] = run.drifted
        averages = {name: total / run.mixes if run.mixes else math.nan for name, total in sums.items()}
        return {name: average if math.isfinite(average) else None for name, average in averages.items()}


class Schedule:
    """After which local steps a worker sends and receives which fragments."""

    def __init__(self, period: int, offsets: Sequence[int], delay: int) -> None:
        self.period = period  # H
        self.delay = delay  # τ
        self._sent: dict[int, list[int]] = {}  # fragments, by t mod H
        for p, offset in enumerate(offsets):
            self._sent.setdefault(offset % period, []).append(p)
        self._moments = sorted({(at + late) % period or period for at in self._sent for late in (0, delay)} | {period})

    def sends(self, t: int) -> list[int]:
        """The fragments sent after local step t, the first of which is 1: those with (t − t_p) mod H = 0."""
        return self._sent.get(t % self.period, []) if t >= 1 else []

    def receives(self, t: int) -> list[int]:
        """Those received: (t − t_p − τ) mod H = 0, and something is under way."""
        return self.sends(t - self.delay)

    def stops(self, round: int) -> list[int]:
        """The local steps of a round after which anything is sent or received, and its last."""
        steps = [round * self.period + moment for moment in self._moments]
        return [t for t in steps if t % self.period == 0 or self.sends(t) or self.receives(t)]


class Streaming:
    """One run of Streaming DiLoCo. Θ is `sim.params`; every fragment of it has an outer state of its own."""

    def __init__(self, options: StreamingDiLoCo, sim: Simulation, first: Round) -> None:
        self.sim, self.outer, self.alpha = sim, options.outer, options.alpha
        self.period = period = first.steps[0]
        self.fragments = cut(sim.params.layout, options.fragments, options.pattern)
        count = len(self.fragments)
        offsets = options.offsets or [round(p * period / count) % period for p in range(count)]
        require(max(offsets) < period, "offsets", offsets, f"below the {period} local steps of a round (steps)")
        delays = options.tau if isinstance(options.tau, list) else [options.tau] * len(sim.workers)
        if options.overlap == "outer_step":
            delays = [0] * len(sim.workers)
        limit = f"below the {period} local steps of a round (steps): a fragment is received before it is sent again"
        require(max(delays) < period, "tau", options.tau, limit)
        distinct = {delay: Schedule(period, offsets, delay) for delay in delays}
        self.schedules = [distinct[delay] for delay in delays]  # by worker
        self.states = [self.outer.init(sim.params[fragment]) for fragment in self.fragments]
        self.rounds = 0  # opened
        self.chunks: list[tuple[int, Update]] = []  # trained and not counted, with the local step they end at
        self.applied = [0] * count  # by fragment: the local steps whose differences are in Θ_p, and not outstanding
        self.waiting: dict[tuple[int, int], dict[int, Event[None]]] = {}  # for Θ_p of a sync (p, t), by worker
        self.under_way: dict[tuple[int, int], Event[None]] = {}  # what a worker has still to receive of fragment p
        self.corrected = options.merge == "corrected"
        self.sent_at: dict[tuple[int, int], Params] = {}  # by worker and fragment under way: θ_{m,p} when it was sent
        self.moved, self.mixes = 0.0, 0  # by how much and how often mixes have moved local parameters
        self.drifted = 0.0  # by how much these had moved since they were sent, where merges are corrected

    async def work(self, worker: Worker) -> None:
        """A worker's whole run."""
        sim, schedule, theta, t = self.sim, self.schedules[worker.id], self.begun(), 0
        ahead = sim.rounds()
        next(ahead)
        for r in sim.rounds():
            next(ahead, None)  # whether this round is the last is known from here on, by sim.closing
            self.rounds, clock = max(self.rounds, r.index + 1), self._clock(r, worker)
            for stop in schedule.stops(r.index):
                lr_step = clock + t - r.index * self.period
                # θ_m ← InnerOpt(θ_m)
                theta = self.trained(await sim.train(worker, theta, stop - t, lr_step=lr_step, round=r), stop)
                t = stop
                for p in schedule.sends(t):
                    self.send(worker, p, t, theta)
                for p in schedule.receives(t):
                    theta = await self.receive(worker, p, t, theta)
        await self.end(worker, t, theta, [p for p in range(len(self.fragments)) if p not in schedule.sends(t)])

    def start(self, p: int) -> Params:
        """Θ_p, as workers are to have it."""
        return start_of(self.outer, self.sim.params[self.fragments[p]], self.states[p])

    def begun(self) -> Params:
        """Return the parameters that all workers begin with: Θ, with those fragments that are to be had otherwise."""
        theta = self.sim.params
        for p, fragment in enumerate(self.fragments):
            part = theta[fragment]
            start = start_of(self.outer, part, self.states[p])
            if start is not part:
                theta = theta.replace(fragment, start)
        return theta

    def trained(self, update: Update, stop: int) -> Params:
        """Note an update that ends at local step `stop`, without its tensors; its parameters."""
        self.chunks.append((stop, update.receipt()))
        return update.params

    def send(self, worker: Worker, p: int, t: int, theta: Params) -> None:
        """Join the averaging of fragment p, do not wait."""
        collective = self.sim.collective((p, t))
        if (p, t) not in self.waiting:
            self.waiting[p, t] = {}
            self.sim.spawn(self._merge(p, t, collective.arrival))
        self.under_way[worker.id, p] = self.waiting[p, t][worker.id] = Event(self.sim.clock)
        own = theta[self.fragments[p]]
        if self.corrected:
            self.sent_at[worker.id, p] = own
        collective.join(worker, self.start(p) - own)  # Δ_{m,p} ← Θ_p − θ_{m,p}

    async def _merge(self, p: int, t: int, arrival: Event[Params]) -> None:
        """The outer step of fragment p, once for all workers; they go on in their order, as in DiLoCo."""
        delta = await arrival
        theta = self.sim.params[self.fragments[p]]
        outer, self.states[p] = self.outer.step(theta, delta, self.states[p])  # Θ_p ← Outer_p(Θ_p, Δ̄_p)
        self.commit(p, t, outer, theta, [theta] * len(self.sim.workers))  # Θ_p is what it was when it was sent
        for _, event in sorted(self.waiting.pop((p, t)).items()):
            event.succeed()

    async def receive(self, worker: Worker, p: int, t: int, theta: Params) -> Params:
        """θ_m with fragment p mixed, as soon as its Θ_p is there."""
        await self.under_way.pop((worker.id, p))
        own, outer = theta[self.fragments[p]], self.start(p)
        if self.corrected:
            sent = self.sent_at.pop((worker.id, p))
            mixed = outer + (own - sent)  # θ ← Θ_p + (θ_{m,p} − y), y being what was sent
            self.drifted += own.distance(sent)
        else:
            # θ ← α θ_{m,p} + (1 − α) Θ_p
            mixed = Params.combine(lambda o, m: torch.lerp(o, m, self.alpha), outer, own)
        self.moved += mixed.distance(own)
        self.mixes += 1
        return theta.replace(self.fragments[p], mixed)

    async def end(self, worker: Worker, t: int, theta: Params, unsent: list[int]) -> None:
        """The final sync, after local step t, of the fragments that were not sent after it."""
        for p in unsent:
            if (worker.id, p) in self.under_way:
                theta = await self.receive(worker, p, t, theta)
        for p in unsent:
            self.send(worker, p, t, theta)

    def commit(
        self, p: int, applied: int, part: Params, target: Params, bases: Sequence[Params], version: Optional[int] = None
    ) -> None:
        """Fragment p of Θ, so far `target`, is `part`, in which no Δ of local steps up to `applied` is outstanding.

        Counts what is complete in all fragments, worker m's from bases[m] (of `version`; that of its dispatch, unless
        given). The last round is counted whole, by the last commit: the one that spends the budget ends the run.
        """
        sim, end = self.sim, self.rounds * self.period
        self.applied[p] = applied
        until = min(self.applied)
        if sim.closing and until < end:
            until = min(until, end - self.period)
        counted = sorted((each for stop, each in self.chunks if stop <= until), key=lambda each: (each.worker, each.id))
        self.chunks = [each for each in self.chunks if each[0] > until]
        contributions = [Contribution([each], bases[each.worker], target, version) for each in counted]
        sim.commit(sim.params.replace(self.fragments[p], part), contributions)

    def _clock(self, r: Round, worker: Worker) -> int:
        """The worker's learning-rate step at the start of a round, which must have as many steps as all others."""
        if r.lr_step is None or r.steps[worker.id] != self.period:
            found = f"round {r.index} has {min(r.steps)} to {max(r.steps)} local steps, the first had {self.period}"
            raise ConfigError("steps", f"{found}; {SAME_STEPS}")
        return r.lr_step[worker.id] if isinstance(r.lr_step, tuple) else r.lr_step


@dataclass
class Replica:
    """A worker's own Θ_{m,p}, and what it takes to take its last outer step again."""

    theta: Params
    state: Any
    last: Optional[tuple[Params, Any, Params]] = None  # before the last step: Θ_{m,p}, its state, and the step's Δ̃
    terms: deque[tuple[Event[Params], Params]] = field(default_factory=deque)  # means under way, its own Δ in them


class Eager(Streaming):
    """Eager updates, fragment by fragment (arXiv 2502.12996): every worker has Θ_{m,p} and outer state of its own.

    When a fragment is sent, the worker steps at once, its own term of the mean fresh and the others' those of the
    fragment's sync before: Δ̃ = Δ̄' + (Δ_{m,p} − Δ'_{m,p}) / M (at first, Δ̄' = Δ' = 0). At the end it takes each
    fragment's last step again, with the mean that was missing. Θ is the mean of the replicas.
    """

    def __init__(self, options: StreamingDiLoCo, sim: Simulation, first: Round) -> None:
        super().__init__(options, sim, first)
        parts = [sim.params[fragment] for fragment in self.fragments]
        self.replicas = [[Replica(*each) for each in zip(parts, self.states)] for _ in sim.workers]
        # By sync (p, t) and worker, until all have stepped: Θ_{m,p}, and where the Δ began that is complete with it.
        self.ended: dict[tuple[int, int], dict[int, tuple[Params, Params]]] = {}
        self.sent = [0] * len(parts)  # by fragment: the local step of the last sync for which all have stepped
        self.versions = [(0, 0)] * len(parts)  # by fragment: of Θ, after the last two such syncs

    def send(self, worker: Worker, p: int, t: int, theta: Params) -> None:
        mine = self.replicas[worker.id][p]
        delta = self._start(mine) - theta[self.fragments[p]]  # Δ_{m,p} ← Θ_{m,p} − θ_{m,p}
        mine.terms.append((self.sim.collective((p, t)).join(worker, delta), delta))

    async def receive(self, worker: Worker, p: int, t: int, theta: Params) -> Params:
        """θ_m with fragment p replaced by its own Θ_{m,p}, as soon as the mean of the sync before is there."""
        mine, members = self.replicas[worker.id][p], len(self.sim.workers)
        delta = mine.terms[-1][1]
        mixed = delta / members
        if len(mine.terms) > 1:
            arrival, old = mine.terms.popleft()
            mixed = await arrival + (delta - old) / members  # Δ̃ ← Δ̄' + (Δ_{m,p} − Δ'_{m,p}) / M
        self._step(worker, p, t, mine.theta, mine.state, mixed)
        return theta.replace(self.fragments[p], self._start(mine))

    async def end(self, worker: Worker, t: int, theta: Params, unsent: list[int]) -> None:
        for p in unsent:
            self.send(worker, p, t, theta)
            theta = await self.receive(worker, p, t, theta)
        for p, mine in enumerate(self.replicas[worker.id]):  # the last steps again, with Δ̄ − Δ_{m,p} / M
            assert mine.last is not None, "every fragment was sent"
            (arrival, delta), (before, state, mixed) = mine.terms.pop(), mine.last
            self._step(worker, p, t + 1, before, state, mixed + (await arrival - delta / len(self.sim.workers)))

    def _start(self, mine: Replica) -> Params:
        """Θ_{m,p}, as the worker is to have it."""
        return start_of(self.outer, mine.theta, mine.state)

    def _step(self, worker: Worker, p: int, t: int, before: Params, state: Any, mixed: Params) -> None:
        """Θ_{m,p} ← Outer_{m,p}(Θ_{m,p}, Δ̃); the last to do so makes the mean of all the global model's."""
        mine = self.replicas[worker.id][p]
        began = before if mine.last is None else mine.last[0]
        mine.theta, mine.state = self.outer.step(before, mixed, state)
        mine.last = before, state, mixed
        ended = self.ended.setdefault((p, t), {})
        ended[worker.id] = mine.theta, began
        if len(ended) == len(self.sim.workers):
            thetas, bases = zip(*(each for _, each in sorted(self.ended.pop((p, t)).items())))
            target, (version, latest) = self.sim.params[self.fragments[p]], self.versions[p]
            self.commit(p, self.sent[p], mean(thetas), target, bases, version)
            self.sent[p], self.versions[p] = t, (latest, self.sim.version)


@hookimpl
def register_sync_policies(register: Register) -> None:
    register("streaming_diloco", StreamingDiLoCo)
