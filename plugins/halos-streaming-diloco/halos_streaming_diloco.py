"""Streaming DiLoCo: fragments of the model synchronised in turn, while training goes on (arXiv 2501.18512)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Optional, Union

import torch

from halos import (
    PATTERNS,
    Cluster,
    Collective,
    ConfigError,
    Contribution,
    Event,
    MergeRule,
    Nesterov,
    Outbox,
    Params,
    Register,
    Round,
    Simulation,
    Update,
    Worker,
    all_of,
    cut,
    hookimpl,
    mean,
    require,
    same_steps,
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
        same_steps(steps, "streaming_diloco")
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
        self.latest: dict[int, Update] = {}  # by worker, without its tensors
        self.chunks: list[tuple[int, Update]] = []  # trained and not counted, with the local step they end at
        # By worker and fragment: its local steps whose differences are in Θ_p, and not outstanding.
        self.applied = [[0] * count for _ in sim.workers]
        # For Θ_p of a sync (p, t), by worker: whether it was heard there.
        self.waiting: dict[tuple[int, int], dict[int, Event[bool]]] = {}
        self.under_way: dict[tuple[int, int], Event[bool]] = {}  # what a worker has still to receive of fragment p
        self.outbox = Outbox(sim)
        self.corrected = options.merge == "corrected"
        self.sent_at: dict[tuple[int, int], Params] = {}  # by worker and fragment under way: θ_{m,p} when it was sent
        self.moved, self.mixes = 0.0, 0  # by how much and how often mixes have moved local parameters
        self.drifted = 0.0  # by how much these had moved since they were sent, where merges are corrected

    async def work(self, worker: Worker) -> None:
        """A worker's whole run."""
        sim, schedule, t = self.sim, self.schedules[worker.id], 0
        theta: Optional[Params] = self.begun(worker)  # None: gone
        ahead = sim.rounds()
        next(ahead)
        for r in sim.rounds():
            next(ahead, None)  # whether this round is the last is known from here on, by sim.closing
            self.rounds, clock = max(self.rounds, r.index + 1), self._clock(r, worker)
            for stop in schedule.stops(r.index):
                if not self.outbox.keeps(worker):
                    self.crashed(worker)
                    theta = None
                lr_step = clock + t - r.index * self.period
                # θ_m ← InnerOpt(θ_m)
                start = self.begun(worker) if theta is None else theta
                update = await self.outbox.train(worker, start, stop - t, lr_step=lr_step, round=r)
                theta = None if update is None else self.trained(update, stop)
                t = stop
                for p in schedule.sends(t):
                    self.send(worker, p, t, theta)
                for p in schedule.receives(t):
                    theta = await self.receive(worker, p, t, theta)
        if not self.outbox.keeps(worker):
            self.crashed(worker)
            theta = None
        await self.end(worker, t, theta, [p for p in range(len(self.fragments)) if p not in schedule.sends(t)])

    def start(self, p: int) -> Params:
        """Θ_p, as workers are to have it."""
        return start_of(self.outer, self.sim.params[self.fragments[p]], self.states[p])

    def begun(self, worker: Worker) -> Params:
        """Return what a worker that has nothing begins from: Θ, with those fragments that are to be had otherwise."""
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
        self.latest[update.worker] = update.receipt()
        return update.params

    def crashed(self, worker: Worker) -> None:
        """What `worker` has trained and is not in all fragments is gone."""
        self.sim.drop(each for _, each in self.chunks if each.worker == worker.id)
        self.chunks = [(stop, each) for stop, each in self.chunks if each.worker != worker.id]

    def join(self, collective: Collective, worker: Worker, delta: Optional[Params]) -> bool:
        """Join an averaging with `delta`, and return True; or leave it, if there is none or its message is lost."""
        joins = delta is not None and self.outbox.keeps(worker) and self.sim.faults.delivers(self.latest[worker.id])
        if delta is not None and joins:
            collective.join(worker, delta)
        else:
            collective.leave(worker)
        return joins

    def send(self, worker: Worker, p: int, t: int, theta: Optional[Params]) -> None:
        """Join the averaging of fragment p, do not wait."""
        collective = self.sim.collective((p, t))
        if (p, t) not in self.waiting:
            self.waiting[p, t] = {}
            self.sim.spawn(self._merge(p, t, collective))
        self.under_way[worker.id, p] = self.waiting[p, t][worker.id] = Event(self.sim.clock)
        own = None if theta is None else theta[self.fragments[p]]
        if self.corrected and own is not None:
            self.sent_at[worker.id, p] = own
        self.join(collective, worker, None if own is None else self.start(p) - own)  # Δ_{m,p} ← Θ_p − θ_{m,p}

    async def _merge(self, p: int, t: int, collective: Collective) -> None:
        """The outer step of fragment p, once for all workers; they go on in their order, as in DiLoCo."""
        delta = await self.outbox.mean(collective)
        if delta is not None:
            theta = self.sim.params[self.fragments[p]]
            outer, self.states[p] = self.outer.step(theta, delta, self.states[p])  # Θ_p ← Outer_p(Θ_p, Δ̄_p)
            bases = [theta] * len(self.sim.workers)  # Θ_p is what it was when it was sent
            self.commit(p, t, collective.heard, outer, theta, bases)
        for id, event in sorted(self.waiting.pop((p, t)).items()):
            event.succeed(id in collective.heard)

    async def receive(self, worker: Worker, p: int, t: int, theta: Optional[Params]) -> Optional[Params]:
        """θ_m with fragment p mixed, as soon as its Θ_p is there; who was not heard goes on from its own."""
        heard = await self.under_way.pop((worker.id, p))
        if theta is None or not heard:
            return theta
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

    async def end(self, worker: Worker, t: int, theta: Optional[Params], unsent: list[int]) -> None:
        """The final sync, after local step t, of the fragments that were not sent after it."""
        for p in unsent:
            if (worker.id, p) in self.under_way:
                theta = await self.receive(worker, p, t, theta)
        for p in unsent:
            self.send(worker, p, t, theta)

    def commit(
        self,
        p: int,
        applied: int,
        heard: Iterable[int],
        part: Params,
        target: Params,
        bases: Sequence[Params],
        version: Optional[int] = None,
    ) -> None:
        """Fragment p of Θ, so far `target`, is `part`, in which nothing up to local step `applied` is outstanding.

        That is so of the workers `heard`. Counts what is complete in all fragments, worker m's from bases[m] (of
        `version`; that of its dispatch, unless given). The last round is counted whole, by the last commit: the one
        that spends the budget ends the run.
        """
        sim, end = self.sim, self.rounds * self.period
        for worker in heard:
            self.applied[worker][p] = applied
        until = [min(fragments) for fragments in self.applied]
        if sim.closing:
            until = [steps if steps >= end else min(steps, end - self.period) for steps in until]
        complete = [each for stop, each in self.chunks if stop <= until[each.worker]]
        counted = sorted(complete, key=lambda each: (each.worker, each.id))
        self.chunks = [(stop, each) for stop, each in self.chunks if stop > until[each.worker]]
        contributions = [Contribution([each], bases[each.worker], target, version) for each in counted]
        sim.commit(sim.params.replace(self.fragments[p], part), contributions)

    def _clock(self, r: Round, worker: Worker) -> int:
        """The worker's learning-rate step at the start of a round, which must have as many steps as all others."""
        lr_step = r.lr_step_of(worker)
        if lr_step is None or r.steps[worker.id] != self.period:
            found = f"round {r.index} has {min(r.steps)} to {max(r.steps)} local steps, the first had {self.period}"
            raise ConfigError("steps", f"{found}; {SAME_STEPS}")
        return lr_step


@dataclass
class Replica:
    """A worker's own Θ_{m,p}, and what it takes to take its last outer step again."""

    theta: Params
    state: Any
    last: Optional[tuple[Params, Any, Params]] = None  # before the last step: Θ_{m,p}, its state, and the step's Δ̃
    # Means under way, and its own Δ in them.
    terms: deque[tuple[Collective, Optional[Params]]] = field(default_factory=deque)
    fresh: Optional[Params] = None  # Δ_{m,p} since its last outer step
    held: Optional[Params] = None  # Δ that are in Θ_{m,p} and whose message was lost: to be brought with the next
    lost: Optional[Params] = None  # Δ that are in Θ_{m,p} and nobody will ever get


class Eager(Streaming):
    """Eager updates, fragment by fragment (arXiv 2502.12996): every worker has Θ_{m,p} and outer state of its own.

    When a fragment is sent, the worker steps at once, its own term of the mean fresh and the others' those of the
    fragment's sync before: Δ̃ = Δ̄' + (Δ_{m,p} − Δ'_{m,p}) / M (at first, Δ̄' = Δ' = 0). At the end it takes each
    fragment's last step again, with the mean that was missing. Θ is the mean of the replicas. Who crashed has no term
    of its own, and comes back to its replica.
    """

    def __init__(self, options: StreamingDiLoCo, sim: Simulation, first: Round) -> None:
        super().__init__(options, sim, first)
        parts = [sim.params[fragment] for fragment in self.fragments]
        self.replicas = [[Replica(*each) for each in zip(parts, self.states)] for _ in sim.workers]
        # By sync (p, t) and worker, until all have stepped: Θ_{m,p}, and where the Δ began that is complete with it.
        self.ended: dict[tuple[int, int], dict[int, tuple[Params, Params]]] = {}
        self.syncs: dict[tuple[int, int], Collective] = {}  # for which not all have stepped
        # By fragment: the local step of the last sync for which all have stepped, and its averaging.
        self.sent: list[tuple[int, Optional[Collective]]] = [(0, None)] * len(parts)
        self.versions = [(0, 0)] * len(parts)  # by fragment: of Θ, after the last two such syncs

    def begun(self, worker: Worker) -> Params:
        """Return the worker's own Θ_m."""
        theta = self.sim.params
        for fragment, mine in zip(self.fragments, self.replicas[worker.id]):
            start = self._start(mine)
            if mine.last is not None or start is not mine.theta:
                theta = theta.replace(fragment, start)
        return theta

    def crashed(self, worker: Worker) -> None:
        super().crashed(worker)
        for mine in self.replicas[worker.id]:
            mine.lost, mine.held = total(mine.lost, mine.held), None

    def send(self, worker: Worker, p: int, t: int, theta: Optional[Params]) -> None:
        mine = self.replicas[worker.id][p]
        collective = self.syncs[p, t] = self.sim.collective((p, t))
        # Δ_{m,p} ← Θ_{m,p} − θ_{m,p}
        delta = None if theta is None else self._start(mine) - theta[self.fragments[p]]
        brought = None if delta is None else total(mine.held, delta)
        joins = self.join(collective, worker, brought)
        mine.held = None if joins else brought
        mine.fresh, mine.lost = total(delta, None if mine.lost is None else -mine.lost), None
        mine.terms.append((collective, brought if joins else None))

    async def receive(self, worker: Worker, p: int, t: int, theta: Optional[Params]) -> Optional[Params]:
        """θ_m with fragment p replaced by its own Θ_{m,p}, as soon as the mean of the sync before is there."""
        mine, members = self.replicas[worker.id][p], len(self.sim.workers)
        mixed = None if mine.fresh is None else mine.fresh / members
        if len(mine.terms) > 1:  # Δ̃ ← Δ̄' + (Δ_{m,p} − Δ'_{m,p}) / M
            late, old = mine.terms.popleft()
            mixed = mixture(await self.outbox.mean(late), mine.fresh, old, members)
        self._step(worker, p, t, mine.theta, mine.state, mixed)
        return None if theta is None else theta.replace(self.fragments[p], self._start(mine))

    async def end(self, worker: Worker, t: int, theta: Optional[Params], unsent: list[int]) -> None:
        for p in unsent:
            self.send(worker, p, t, theta)
            theta = await self.receive(worker, p, t, theta)
        for p, mine in enumerate(self.replicas[worker.id]):  # the last steps again, with Δ̄ − Δ_{m,p} / M
            late, own = mine.terms.pop()
            nobodys = total(mine.held, mine.lost)  # will ever get it
            missing = mixture(await self.outbox.mean(late), None, total(own, nobodys), len(self.sim.workers))
            before, state, mixed = mine.last or (mine.theta, mine.state, None)
            self._step(worker, p, t + 1, before, state, None if missing is None else total(mixed, missing))

    def _start(self, mine: Replica) -> Params:
        """Θ_{m,p}, as the worker is to have it."""
        return start_of(self.outer, mine.theta, mine.state)

    def _step(self, worker: Worker, p: int, t: int, before: Params, state: Any, mixed: Optional[Params]) -> None:
        """Θ_{m,p} ← Outer_{m,p}(Θ_{m,p}, Δ̃); the last to do so makes the mean of all the global model's."""
        mine = self.replicas[worker.id][p]
        began = before if mine.last is None else mine.last[0]
        if mixed is not None:
            mine.theta, mine.state = self.outer.step(before, mixed, state)
            mine.last = before, state, mixed
        ended = self.ended.setdefault((p, t), {})
        ended[worker.id] = mine.theta, began
        if len(ended) == len(self.sim.workers):
            thetas, bases = zip(*(each for _, each in sorted(self.ended.pop((p, t)).items())))
            target, (version, latest) = self.sim.params[self.fragments[p]], self.versions[p]
            sent, average = self.sent[p]
            heard = () if average is None else average.heard
            self.commit(p, sent, heard, mean(thetas), target, bases, version)
            self.sent[p], self.versions[p] = (t, self.syncs.pop((p, t), None)), (latest, self.sim.version)


def total(one: Optional[Params], other: Optional[Params]) -> Optional[Params]:
    """Return the sum of what there is; None if there is nothing."""
    if one is None or other is None:
        return other if one is None else one
    return one + other


def mixture(mean: Optional[Params], fresh: Optional[Params], old: Optional[Params], members: int) -> Optional[Params]:
    """Return Δ̄' + (Δ − Δ') / M, of what there is; None if there is nothing."""
    if fresh is None and old is None:
        return mean
    own = fresh if old is None else -old if fresh is None else fresh - old
    return own / members if mean is None else mean + own / members


@hookimpl
def register_sync_policies(register: Register) -> None:
    register("streaming_diloco", StreamingDiLoCo)
