"""One run: learners in their periods, who gets those, and what crashes do to them."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Optional

import torch

from halos import Event, Lost, Params, Round, Simulation, Worker, cut, under

from .delivery import deliver
from .learners import Learner, Part
from .options import Options
from .syncers import Syncer


class Decoupled:
    """One run: what learners do, and who gets the periods there are. Θ is `sim.params`."""

    def __init__(self, options: Options, sim: Simulation) -> None:
        self.options, self.sim = options, sim
        fragments = cut(sim.params.layout, options.fragments, options.pattern)
        self.syncers = [Syncer(options, sim, p, fragment, self.forfeit) for p, fragment in enumerate(fragments)]
        self.late = 0  # answers
        self.up = 0  # learners
        self.idle: deque[tuple[Learner, Event[Round]]] = deque()  # of these, those without a period
        self._rounds = sim.rounds()
        self._round: Optional[Round] = None  # the last opened
        self._left = 0  # local steps of the rounds opened that nobody has begun, or that were forfeited

    async def work(self, worker: Worker) -> None:
        """A worker's whole run, of as many lives as it takes."""
        learner = Learner(worker, self._start(), [syncer.start for syncer in self.syncers])
        while True:
            self.up += 1
            for syncer in self.syncers:
                syncer.expect(learner, True)
            try:
                while True:
                    await self._train(learner, self._next(worker) or await self._finish(learner))
            except Lost:
                self._crashed(learner)
            await self.sim.faults.returned(worker)
            learner = await self._join(worker)

    async def _train(self, learner: Learner, r: Round) -> None:
        """A period of H local steps: fragment p is sent after p · H / P of them, fragment 0 at the end."""
        worker, began, period, count = learner.worker, learner.t, r.steps[learner.worker.id], len(self.syncers)
        with under("policy"):
            self.options.check_period(period)
        clock = r.lr_step_of(worker)
        sends: dict[int, list[Syncer]] = {}
        for syncer in self.syncers:
            sends.setdefault(began + (round(syncer.p * period / count) % period or period), []).append(syncer)
        learner.end = began + period
        while learner.t < learner.end:
            wanted = [part.due for part in learner.parts if part.due is not None]
            learner.stop = min(t for t in (*sends, *wanted) if t > learner.t)
            lr_step = None if clock is None else clock + learner.t - began
            learner.trained(  # θ_m ← InnerOpt(θ_m); nothing here keeps the update, or what it started from would stay
                await self.sim.train(worker, learner.theta, learner.stop - learner.t, lr_step=lr_step, round=r)
            )
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

    def _start(self) -> Params:
        """Θ, as learners are to have it."""
        theta = self.sim.params
        for syncer in self.syncers:
            start = syncer.start
            if start is not syncer.theta:
                theta = theta.replace(syncer.fragment, start)
        theta.versions = self.sim.params.versions
        return theta

    async def _join(self, worker: Worker) -> Learner:
        """A new life of a worker, from Θ."""
        theta = await deliver(self.sim, self._start, self.options.server_region, worker.region, model=True)
        assert theta is not None, "wanted by all means"
        outer = [theta[syncer.fragment] for syncer in self.syncers]
        for part in outer:
            part.versions = theta.versions
        return Learner(worker, theta, outer)
