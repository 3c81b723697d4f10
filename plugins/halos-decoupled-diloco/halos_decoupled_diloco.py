"""Decoupled DiLoCo: learners that wait for nobody, and syncers that need only a quorum (arXiv 2604.21428)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Optional

import torch
from torch import Tensor

from halos import Contribution, Event, Lost, Params, Register, Update, hookimpl, require
from halos.cluster import Cluster, Worker
from halos.codecs import FP32
from halos.errors import under
from halos.fragments import PATTERNS, cut
from halos.merge import MergeRule, Nesterov
from halos.params import Fragment
from halos.rounds import Round
from halos.simulation import Simulation


@dataclass
class DecoupledDiLoCo:
    """Learners train on without waiting; each fragment's syncer merges what has arrived (arXiv 2604.21428).

    A learner counts its own local steps, in periods of H (`steps:`). In each it sends every fragment once,
    Δ_{m,p} = Θ_p − θ_{m,p} against the Θ_p it last received, unless an answer to the one before is outstanding. The
    syncer of p waits for K contributions, then for its grace window, and merges: Θ_p ← Outer_p(Θ_p, Δ̄_p). Those who
    contributed get Θ_p, and mix it τ steps after they sent, or at their next stop if it comes later:
    θ_{m,p} ← α θ_{m,p} + (1 − α) Θ_p. Whoever has crashed begins anew from Θ. README.md says what of this is ours.
    """

    outer: MergeRule = field(default_factory=lambda: Nesterov(lr=0.4, momentum=0.9))
    quorum: Optional[int] = None  # K, contributions that a sync needs; null: as many as there are learners
    grace: float = 1.0  # of the time that is left until a contributor wants its answer: how much of it to wait for more
    averaging: str = "radial_directional"  # radial_directional | mean
    plain: list[str] = field(default_factory=lambda: ["embed"])  # tensors with this in their names: always the mean
    weights: str = "tokens"  # tokens: tokens · tokens / steps since the last merge | uniform
    fragments: int = 3  # P
    pattern: str = "balanced"  # balanced | strided | sequential: how bytes (or layers) make fragments
    tau: int = 1  # τ, local steps from sending to mixing
    alpha: float = 0.5  # α, weight of the local parameters in the mix
    server_region: int = 0  # of all syncers

    def __post_init__(self) -> None:
        quorum = self.quorum
        require(quorum is None or quorum >= 1, "quorum", quorum, "a positive number of learners, or null for all")
        require(0.0 <= self.grace < float("inf"), "grace", self.grace, "zero or a positive, finite number")
        known = ("radial_directional", "mean")
        require(self.averaging in known, "averaging", self.averaging, "one of " + ", ".join(known))
        require(self.weights in ("tokens", "uniform"), "weights", self.weights, "one of tokens, uniform")
        require(self.fragments >= 1, "fragments", self.fragments, "a positive number")
        require(self.pattern in PATTERNS, "pattern", self.pattern, "one of " + ", ".join(PATTERNS))
        require(self.tau >= 1, "tau", self.tau, "a positive number of local steps (nobody waits for an answer)")
        require(0.0 <= self.alpha <= 1.0, "alpha", self.alpha, "in [0, 1]")

    def check(self, cluster: Cluster) -> None:
        """A quorum that there are workers for, and syncers somewhere."""
        workers, regions = len(cluster.workers), len(cluster.regions)
        require(self.quorum is None or self.quorum <= workers, "quorum", self.quorum, f"at most the {workers} workers")
        require(0 <= self.server_region < regions, "server_region", self.server_region, f"a region, 0 to {regions - 1}")

    async def run(self, sim: Simulation) -> None:
        with under("policy"):
            self._run = Decoupled(self, sim)
        for worker in sim.workers:
            sim.spawn(self._run.work(worker))

    def report(self) -> dict[str, Optional[float]]:
        """How many contributions a sync had on average, and how many answers came after the step they were for."""
        syncs = sum(syncer.merges for syncer in self._run.syncers)
        merged = sum(syncer.merged for syncer in self._run.syncers)
        return {"contributions_per_sync": merged / syncs if syncs else None, "late_answers": self._run.late}


def average(deltas: Sequence[Params], weights: Sequence[float], averaging: str, plain: Sequence[str]) -> Params:
    """The weighted mean of several differences of one fragment; tensor by tensor if it is radial-directional.

    Then a tensor gets (weighted mean of norms) · (weighted mean of unit vectors, made a unit vector again), a zero
    vector having no direction; those with one of `plain` in their names get the mean nevertheless.
    """
    mean = sum(weights) / len(weights)
    factors = [weight / mean for weight in weights]  # exactly 1 where all weigh the same

    def combined(*flats: Tensor) -> Tensor:
        total = weighted_mean(flats, factors)
        if averaging == "radial_directional":
            layout = deltas[0].layout
            for name in layout.shapes:
                if not any(word in name for word in plain):
                    piece = layout.slice_of(name)
                    total[piece] = radial_directional([flat[piece] for flat in flats], factors)
        return total

    return Params.combine(combined, *deltas)


def weighted_mean(vectors: Sequence[Tensor], factors: Sequence[float]) -> Tensor:
    """Of factors that are 1 on average."""
    total = vectors[0] * factors[0]
    for vector, factor in zip(vectors[1:], factors[1:]):
        total.add_(vector, alpha=factor)
    return total.div_(len(vectors))


def radial_directional(vectors: Sequence[Tensor], factors: Sequence[float]) -> Tensor:
    """(Weighted mean of norms) · (weighted mean of unit vectors, normalised)."""
    norms = [torch.linalg.vector_norm(vector) for vector in vectors]
    direction = weighted_mean(
        [vector / torch.where(norm > 0, norm, 1) for vector, norm in zip(vectors, norms)], factors
    )
    length = torch.linalg.vector_norm(direction)
    return weighted_mean(norms, factors) * direction / torch.where(length > 0, length, 1)


@dataclass
class Part:
    """What a learner has to do with a fragment."""

    outer: Params  # Θ_p as last received
    applied: int = 0  # its local steps that are in Θ_p, and their samples
    samples: int = 0
    sent: int = 0  # its local steps that are in Θ_p or on their way
    due: Optional[int] = None  # the local step after which the answer is wanted, while one is outstanding
    under_way: bool = False  # whether a difference is between it and the syncer
    expected: bool = False  # whether the syncer may still get one without answering first
    answer: Optional[Params] = None


class Learner:
    """One life of a worker, from Θ until it crashes; its local steps `t` count from there."""

    def __init__(self, worker: Worker, theta: Params, outer: Sequence[Params]) -> None:
        self.worker, self.theta, self.parts = worker, theta, [Part(each) for each in outer]
        self.t = self.samples = 0
        self.stop = self.end = 0  # the local step at which its job ends, and its period
        self.pace = 0.0  # seconds per local step, in its last job
        self.chunks: deque[tuple[int, Update]] = deque()  # trained and not counted, with the local step they end at
        self.up, self.leaving = True, False
        self.news: Optional[Event[None]] = None  # an answer, if it waits for one

    def trained(self, update: Update) -> None:
        first, last = update.samples
        began, ended = update.compute
        self.theta, self.t, self.samples = update.params, self.t + update.steps, self.samples + last - first
        self.pace = (ended - began) / update.steps
        self.chunks.append((self.t, update.receipt()))

    def complete(self) -> list[Update]:
        """What has been applied in all fragments, once."""
        until, updates = min(part.applied for part in self.parts), []
        while self.chunks and self.chunks[0][0] <= until:
            updates.append(self.chunks.popleft()[1])
        return updates

    def unsent(self) -> list[Update]:
        """What was not sent in all fragments, once."""
        until, updates = min(part.sent for part in self.parts), []
        while self.chunks and self.chunks[-1][0] > until:
            updates.append(self.chunks.pop()[1])
        return updates


@dataclass(frozen=True)
class Arrival:
    """A difference at the syncer, of its learner's local steps and samples since the last one that was merged."""

    learner: Learner
    delta: Params
    base: Params  # Θ_p, as the learner had it
    t: int
    steps: int
    samples: int
    wanted: float  # when Θ_p would have to leave here to be there in time


class Syncer:
    """Gathers the differences of one fragment and merges them: Θ_p and its outer state are here."""

    def __init__(self, run: Decoupled, p: int, fragment: Fragment) -> None:
        self.run, self.sim, self.options, self.p, self.fragment = run, run.sim, run.options, p, fragment
        self.quorum = run.options.quorum or len(run.sim.workers)
        self.theta = run.sim.params[fragment]
        self.theta.versions = run.sim.params.versions
        self.state = self.options.outer.init(self.theta)
        self.arrived: list[Arrival] = []
        self.heard: set[int] = set()  # the workers these are from
        self.awaited = 0  # how many may come before Θ_p has changed
        self.in_grace = False
        self.merges = self.merged = 0  # syncs, and contributions in them

    def expect(self, learner: Learner, comes: bool) -> None:
        """Whether a contribution of `learner` may come before Θ_p has changed."""
        part = learner.parts[self.p]
        self.awaited += comes - part.expected
        part.expected = comes

    def send(self, learner: Learner) -> None:
        """Send the learner's difference here, do not wait for it."""
        t, part = learner.t, learner.parts[self.p]
        delta = part.outer - learner.theta[self.fragment]  # Δ_{m,p} ← Θ_p − θ_{m,p}
        counts = (t, t - part.applied, learner.samples - part.samples)
        part.due, part.sent, part.under_way = t + self.options.tau, t, True
        self.sim.spawn(self._receive(learner, part, delta, counts, self.options.tau * learner.pace))

    async def _receive(
        self, learner: Learner, part: Part, delta: Params, counts: tuple[int, int, int], patience: float
    ) -> None:
        began, base = self.sim.now, part.outer
        here, there = self.options.server_region, learner.worker.region
        arrived = await self.run.deliver(lambda: delta, there, here, lambda: learner.up)
        part.under_way = False
        self.expect(learner, False)
        if arrived is None:  # it crashed before it could send it again
            part.sent = part.applied
            self.run.forfeit(learner)
        else:
            wanted = began + patience - (self.sim.now - began)  # if the way back takes as long
            self.arrived.append(Arrival(learner, arrived, base, *counts, wanted))
            self.heard.add(learner.worker.id)
        self.check()

    def check(self) -> None:
        """Merge, or begin the grace window, if it is time."""
        enough = len(self.heard) >= self.quorum
        if self.awaited == 0 and self.arrived and (enough or self.sim.closing):  # nobody else will come
            self._merge()
        elif enough and not self.in_grace:
            self.in_grace = True
            self.sim.spawn(self._wait(self.merges))

    async def _wait(self, sync: int) -> None:
        """The grace window: while all that have contributed still get their answer in time."""
        left = min(arrival.wanted for arrival in self.arrived) - self.sim.now
        await self.sim.sleep(self.options.grace * max(0.0, left))
        if self.merges == sync:
            self._merge()

    def _merge(self) -> None:
        """One sync of the fragment: all that have arrived, in order of worker."""
        arrivals, self.arrived = sorted(self.arrived, key=lambda each: each.learner.worker.id), []
        self.heard.clear()
        self.merges, self.merged, self.in_grace = self.merges + 1, self.merged + len(arrivals), False
        options, target = self.options, self.theta
        weights = [1.0 if options.weights == "uniform" else each.samples**2 / each.steps for each in arrivals]
        delta = average([each.delta for each in arrivals], weights, options.averaging, options.plain)
        self.theta, self.state = options.outer.step(target, delta, self.state)  # Θ_p ← Outer_p(Θ_p, Δ̄_p)
        contributions = []
        for each in arrivals:
            part = each.learner.parts[self.p]
            part.applied, part.samples = each.t, part.samples + each.samples
            contributions += [Contribution([update], each.base, target) for update in each.learner.complete()]
        self.sim.commit(self.sim.params.replace(self.fragment, self.theta), contributions)
        self.theta.versions = self.sim.params.versions
        for each in arrivals:
            if each.learner.up:
                self.expect(each.learner, not each.learner.leaving)
                self.sim.spawn(self._answer(each.learner))

    async def _answer(self, learner: Learner) -> None:
        here, there = self.options.server_region, learner.worker.region
        theta = await self.run.deliver(lambda: self.theta, here, there, lambda: learner.up, model=True)
        learner.parts[self.p].answer = theta
        if learner.news is not None and not learner.news.done:
            learner.news.succeed()


class Decoupled:
    """One run: what learners do, and who gets the periods there are. Θ is `sim.params`."""

    def __init__(self, options: DecoupledDiLoCo, sim: Simulation) -> None:
        self.options, self.sim = options, sim
        fragments = cut(sim.params.layout, options.fragments, options.pattern)
        self.syncers = [Syncer(self, p, fragment) for p, fragment in enumerate(fragments)]
        self.late = 0  # answers
        self.up = 0  # learners
        self.idle: deque[tuple[Learner, Event[Round]]] = deque()  # of these, those without a period
        self._rounds = sim.rounds()
        self._round: Optional[Round] = None  # the last opened
        self._left = 0  # local steps of the rounds opened that nobody has begun, or that were forfeited

    async def work(self, worker: Worker) -> None:
        """A worker's whole run, of as many lives as it takes."""
        learner = Learner(worker, self.sim.params, [syncer.theta for syncer in self.syncers])
        while True:
            self.up += 1
            for syncer in self.syncers:
                syncer.expect(learner, True)
            try:
                while True:
                    await self._train(learner, self._next(worker) or await self._finish(learner))
            except Lost:
                self._crashed(learner)
            await self.sim.returned(worker)
            learner = await self._join(worker)

    async def _train(self, learner: Learner, r: Round) -> None:
        """A period of H local steps: fragment p is sent after p · H / P of them, fragment 0 at the end."""
        worker, began, period, count = learner.worker, learner.t, r.steps[learner.worker.id], len(self.syncers)
        limit = f"below the {period} local steps of a period (steps): an answer is there before the next is sent"
        with under("policy"):
            require(self.options.tau < period, "tau", self.options.tau, limit)
        clock = r.lr_step[worker.id] if isinstance(r.lr_step, tuple) else r.lr_step
        sends: dict[int, list[Syncer]] = {}
        for syncer in self.syncers:
            sends.setdefault(began + (round(syncer.p * period / count) % period or period), []).append(syncer)
        learner.end = began + period
        while learner.t < learner.end:
            wanted = [part.due for part in learner.parts if part.due is not None]
            learner.stop = min(t for t in (*sends, *wanted) if t > learner.t)
            lr_step = None if clock is None else clock + learner.t - began
            update = await self.sim.train(
                worker, learner.theta, learner.stop - learner.t, lr_step=lr_step, round=r
            )  # θ_m ← InnerOpt(θ_m)
            learner.trained(update)
            del update  # or what it started from would stay in memory
            for syncer, part in zip(self.syncers, learner.parts):
                if part.answer is not None and part.due is not None and part.due <= learner.t:
                    self.late += part.due < learner.t
                    self._mix(learner, syncer, part)
            for syncer in sends.get(learner.t, ()):
                if learner.parts[syncer.p].due is None:  # or the same steps would be merged twice
                    syncer.send(learner)

    def _mix(self, learner: Learner, syncer: Syncer, part: Part) -> None:
        """θ_{m,p} ← α θ_{m,p} + (1 − α) Θ_p, with the answer that is there."""
        assert part.answer is not None, "it is there"
        own, part.outer, part.answer, part.due = learner.theta[syncer.fragment], part.answer, None, None
        mixed = Params.combine(lambda o, m: torch.lerp(o, m, self.options.alpha), part.outer, own)
        learner.theta = learner.theta.replace(syncer.fragment, mixed)

    def _next(self, worker: Worker) -> Optional[Round]:
        """What a period of `worker` takes from the budget, if anything is left of it."""
        while self._left <= 0:
            r = next(self._rounds, None)
            if r is None:
                return None
            self._round, self._left = r, self._left + sum(r.steps)
        assert self._round is not None, "one was opened"
        self._left -= self._round.steps[worker.id]
        return self._round

    async def _finish(self, learner: Learner) -> Round:
        """The final sync of what is outstanding; then a period more, if all that have ended find the budget unspent."""
        for syncer in self.syncers:  # from now on a quorum is not needed where nobody else will come
            syncer.check()
        for syncer, part in zip(self.syncers, learner.parts):
            if part.sent < learner.t:
                await self._settle(learner, syncer, part)
            if part.sent < learner.t:
                syncer.send(learner)
        learner.leaving = True
        for syncer, part in zip(self.syncers, learner.parts):
            if not part.under_way:
                syncer.expect(learner, False)
                syncer.check()
        for syncer, part in zip(self.syncers, learner.parts):
            await self._settle(learner, syncer, part)
        more: Event[Round] = Event(self.sim.clock)
        self.idle.append((learner, more))
        self._deal()
        return await more

    async def _settle(self, learner: Learner, syncer: Syncer, part: Part) -> None:
        """Wait for the answer that is outstanding, if there is one."""
        while part.due is not None and part.answer is None:
            learner.news = Event(self.sim.clock)
            await learner.news
        if part.due is not None:
            self._mix(learner, syncer, part)

    def _deal(self) -> None:
        """Periods for those without one: what others have forfeited; one more for all, if nobody trains any more."""
        everybody = len(self.idle) == self.up
        while self.idle and not self.sim.done:
            learner, more = self.idle[0]
            r = self._next(learner.worker)
            if r is None and everybody and self._round is not None:
                r = replace(self._round, lr_step=None)
            if r is None:
                return
            self.idle.popleft()
            learner.leaving = False
            for syncer in self.syncers:
                syncer.expect(learner, True)
            more.succeed(r)

    def _crashed(self, learner: Learner) -> None:
        """What it has sent stays sent; the rest is lost, and others take the steps that are now missing."""
        learner.up = False
        self.up -= 1
        self._left += learner.end - (learner.t if self.sim.closing else learner.stop)  # rounds make up for lost jobs
        self.forfeit(learner)
        for syncer, part in zip(self.syncers, learner.parts):
            if not part.under_way:
                syncer.expect(learner, False)
                syncer.check()

    def forfeit(self, learner: Learner) -> None:
        """Drop what can never be counted any more."""
        updates = learner.unsent()
        self.sim.drop(updates)
        self._left += sum(update.steps for update in updates)
        self._deal()

    async def _join(self, worker: Worker) -> Learner:
        """A new life of a worker, from Θ."""
        theta = await self.deliver(lambda: self.sim.params, self.options.server_region, worker.region, model=True)
        assert theta is not None, "wanted by all means"
        outer = [theta[syncer.fragment] for syncer in self.syncers]
        for part in outer:
            part.versions = theta.versions
        return Learner(worker, theta, outer)

    async def deliver(
        self,
        payload: Callable[[], Params],
        src: int,
        dst: int,
        wanted: Callable[[], bool] = lambda: True,
        model: bool = False,
    ) -> Optional[Params]:
        """What arrives of a payload that is sent again whenever it is lost and the link is up; None if unwanted."""
        while wanted():
            try:
                return await self.sim.send(payload(), src, dst, FP32 if model else None)
            except Lost:
                await self.sim.reachable(src, dst)
        return None


@hookimpl
def register_sync_policies(register: Register) -> None:
    register("decoupled_diloco", DecoupledDiLoCo)
