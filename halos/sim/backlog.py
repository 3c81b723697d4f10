"""A backlog of updates whose message was lost, for synchronous policies that go on without them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Optional, Union

from halos.errors import Lost
from halos.sim.clock import arrived, first_of
from halos.sim.rounds import Round
from halos.sim.simulation import Simulation
from halos.values.params import Params
from halos.values.records import Contribution, Update
from halos.world.cluster import Worker


class Backlog:
    """Rounds that go on without what is lost (arXiv 2311.08105, section 3.2, "dropped communication").

    A worker whose message did not arrive goes on from its own parameters, and brings what it did in both rounds with
    its next message. One that crashed goes on from the global ones; what only it had is dropped. Without faults this
    is everybody's job from the global parameters, and the mean of all.
    """

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim
        self._undelivered: dict[int, list[Update]] = {}  # by worker, of rounds whose message was lost
        self._members: tuple[int, ...] = ()  # who takes part in this round
        self._updates: list[Update] = []  # of this round
        self._averaged: list[Union[Update, Contribution]] = []  # in the latest mean

    async def train(
        self, start: Params, r: Optional[Round], until: Optional[Mapping[int, float]] = None
    ) -> list[Update]:
        """Give all in round `r` a job, from `start` or from where they stand; return what was done, unless lost.

        What a worker did in earlier rounds and had not delivered is dropped if it was down since. `until` says moments,
        by worker, at or after which jobs end, in place of a round that says their steps; None as `r` are all workers.
        """
        sim = self._sim
        for worker in sorted(self._undelivered):  # what only a worker had that has been down since is gone
            if not sim.faults.up(sim.workers[worker], since=self._undelivered[worker][-1].time):
                sim.drop(self._undelivered.pop(worker))
        starts = {worker: several[-1].params for worker, several in self._undelivered.items()}
        members = sim.workers if r is None else [sim.workers[id] for id in r.members]
        self._members = tuple(worker.id for worker in members)

        def steps(worker: Worker) -> Optional[int]:
            return None if until is None else sim.steps_until(worker, until[worker.id])

        self._updates = await arrived(sim.train(w, starts.get(w.id, start), steps(w), round=r) for w in members)
        return self._updates

    def keep(self) -> None:
        """Average nothing in this round: all go on from their own parameters, and bring what they did the next time."""
        for update in self._updates:
            self._undelivered.setdefault(update.worker, []).append(update)
        self._updates = []

    async def all_reduce(self, start: Params, weights: Optional[Mapping[int, float]] = None) -> Optional[Params]:
        """Return the mean pseudo-gradient, from `start`, of what the workers heard now did since they were last heard.

        A worker is heard if it is up and its message arrives. Returns None if nobody is heard, or if the collective
        is lost; if no job was done, not before the first worker is back. `weights` are relative, by worker.
        """
        sim, updates, self._updates = self._sim, self._updates, []
        heard = self._heard(updates)
        if not heard:
            if not updates:
                await first_of([sim.faults.returned(worker) for worker in sim.workers])
            return None
        # All that someone brings is one difference, and has its factor.
        heard = [
            [*(each._replace(factor=last.factor) for each in several[:-1]), last]
            for several, last in zip(heard, sim.weigh(heard))
        ]
        workers = [sim.workers[several[-1].worker] for several in heard]
        relative = None if weights is None else [weights[worker.id] for worker in workers]
        try:
            delta = await sim.all_reduce((several[-1].since(start) for several in heard), None, workers, relative)
        except Lost:  # a link is down for ever: nobody hears of anybody
            self._undelivered.update((several[-1].worker, several) for several in heard)
            return None
        # What a worker did since it was last heard of all goes into the global model.
        self._averaged = [
            several[0] if len(several) == 1 else Contribution(several, start, sim.params) for several in heard
        ]
        return delta

    def contributions(self) -> list[Union[Update, Contribution]]:
        """Return what the latest mean is made of, for `sim.commit`; empty when asked again, to free the tensors."""
        averaged, self._averaged = self._averaged, []
        return averaged

    def _heard(self, updates: list[Update]) -> list[list[Update]]:
        """Return, per worker whose message arrives, its updates since it was last heard; keep or drop the others'."""
        sim, undelivered, heard = self._sim, self._undelivered, []
        done = {update.worker for update in updates}
        for crashed in sorted({*undelivered} & {*self._members} - done):  # its job was lost
            sim.drop(undelivered.pop(crashed))
        for update in updates:
            several = [*undelivered.pop(update.worker, []), update]
            if not sim.faults.up(sim.workers[update.worker], since=update.time):
                sim.drop(several)
            elif sim.faults.delivers(update):
                heard.append(several)
            else:
                undelivered[update.worker] = several
        return heard
