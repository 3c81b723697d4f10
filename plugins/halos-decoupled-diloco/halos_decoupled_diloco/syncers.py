"""Syncers: one for each fragment, with its parameters and outer state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from halos import Contribution, Fragment, Params, Simulation, start_of

from .averaging import average
from .delivery import deliver
from .learners import Learner, Part
from .options import Options


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

    def __init__(
        self, options: Options, sim: Simulation, p: int, fragment: Fragment, forfeit: Callable[[Learner], None]
    ) -> None:
        self.options, self.sim, self.p, self.fragment, self.forfeit = options, sim, p, fragment, forfeit
        self.quorum = options.quorum or len(sim.workers)
        self.theta = sim.params[fragment]
        self.theta.versions = sim.params.versions
        self.state = options.outer.init(self.theta)
        self.arrived: list[Arrival] = []
        self.heard: set[int] = set()  # the workers these are from
        self.awaited = 0  # how many may come before Θ_p has changed
        self.in_grace = False
        self.merges = self.merged = 0  # syncs, and contributions in them

    @property
    def start(self) -> Params:
        """Θ_p, as learners are to have it."""
        return start_of(self.options.outer, self.theta, self.state)

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
        arrived = await deliver(self.sim, lambda: delta, there, here, lambda: learner.up)
        part.under_way = False
        self.expect(learner, False)
        if arrived is None:  # it crashed before it could send it again
            part.sent = part.applied
            self.forfeit(learner)
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
        now, grace, wanted = self.sim.now, self.options.grace, min(arrival.wanted for arrival in self.arrived)
        # All of the time that is left is until that very moment, though rounding may make it another.
        until = wanted if grace == 1.0 else now + grace * (wanted - now)
        await self.sim.at(max(now, until), last=True)
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
        theta = await deliver(self.sim, lambda: self.start, here, there, lambda: learner.up, model=True)
        learner.parts[self.p].answer = theta
        if learner.news is not None and not learner.news.done:
            learner.news.succeed()
